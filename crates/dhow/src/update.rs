//! `dhow update`, `promote`, `rollback`, `history`: versions of an app while its host runs.

use crate::client;
use crate::error::{Context, Error};
use crate::hosts::HostInfo;
use crate::text;
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// The host answers a question for an outcome after this long at the latest.
const WAIT: u64 = 20;

/// Replace the module of an app while it runs, without losing a request
#[derive(Args)]
#[command(after_help = "\
The new version is read, verified, compiled and started beside the old one. Then it takes over:
requests under way end on the version that they began with, and state stays. It is there again after
a restart of the host, until the manifest names another module or that file changes.

EXAMPLES
  dhow update orders --from orders-v2.wasm
  dhow update orders --from https://example.com/orders.wasm --window 30s --max-errors 1%
                                       and back again if more than 1% of its requests fail meanwhile
  dhow update orders --from oci://registry.example.com/orders:2
  dhow update orders --from v2.wasm --weight 10%             for every tenth request
  dhow update orders --from v2.wasm --header x-canary=1      for requests with this header
  dhow promote orders                                        then for all
  dhow rollback orders                                       or for none")]
pub(crate) struct Update {
    /// The app
    app: String,
    /// The new module: path, URL, reference to a registry (oci://…), or - for standard input
    #[arg(long, value_name = "FILE|URL|-")]
    from: String,
    /// Only this part of the requests gets the new version, until it is promoted or rolled back
    #[arg(long, value_name = "PERCENT")]
    weight: Option<String>,
    /// Only requests with this header get the new version, beside those by weight
    #[arg(long, value_name = "NAME=VALUE")]
    header: Option<String>,
    /// Watch the new version for so long, and roll it back if it fails too often; the command waits for the outcome
    #[arg(long, value_name = "DURATION")]
    window: Option<String>,
    /// How many requests may fail (status 500 and above, traps, timeouts) within the window [default: 5%]
    #[arg(long, value_name = "PERCENT", requires = "window")]
    max_errors: Option<String>,
    /// Do not wait for the end of the window
    #[arg(long, requires = "window")]
    detach: bool,
    /// Also if the new module speaks another interface than the one that runs
    #[arg(long)]
    any_interface: bool,
    /// Also if the module that runs is signed, and the new one is not, or for another subject or by somebody else
    #[arg(long)]
    any_signer: bool,
    #[command(flatten)]
    at: At,
}

/// Give the new version of an app that was updated with --weight or --header all requests
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow update orders --from v2.wasm --weight 10%
  dhow promote orders")]
pub(crate) struct Promote {
    /// The app
    app: String,
    #[command(flatten)]
    at: At,
}

/// Go back to the version of an app that ran before, or take back one that is being tried
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow rollback orders
  dhow rollback orders --to 3        to version 3 of `dhow history orders`")]
pub(crate) struct Rollback {
    /// The app
    app: String,
    /// The version to go back to, by its number in the history
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    at: At,
}

/// Show which versions of an app ran: since when, from where, by whom, and what became of them
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow history orders
  dhow history orders --json")]
pub(crate) struct History {
    /// The app
    app: String,
    #[command(flatten)]
    at: At,
}

/// Which host is asked, and how its answer is printed.
#[derive(Args)]
pub(crate) struct At {
    /// Which host, by name or pid (see `dhow ps`); needed only if several have the app
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// An entry of a history, as the host sends it.
#[derive(Debug, Deserialize)]
struct Entry {
    time: u64,
    who: String,
    action: String,
    version: u64,
    digest: String,
    from: String,
    outcome: String,
    note: String,
}

impl Update {
    pub(crate) fn execute(&self) -> Result<ExitCode, Error> {
        client::runtime()?.block_on(self.run())
    }

    async fn run(&self) -> Result<ExitCode, Error> {
        let host = client::host_of(&self.app, self.at.host.as_deref()).await?;
        let mut query = Vec::new();
        let mut module = Bytes::new();
        if self.from == "-" {
            let mut read = Vec::new();
            std::io::stdin().read_to_end(&mut read).context(|| "cannot read standard input".to_owned())?;
            module = read.into();
        } else {
            query.push(("from", absolute(&self.from)));
        }
        let given = [
            ("weight", &self.weight),
            ("header", &self.header),
            ("window", &self.window),
            ("max-errors", &self.max_errors),
        ];
        query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        if self.any_interface {
            query.push(("any-interface", "1".to_owned()));
        }
        if self.any_signer {
            query.push(("any-signer", "1".to_owned()));
        }
        let path = path(&self.app, "update", &query);
        let mut answer = client::act(&host, Method::POST, &path, module).await?;
        if answer["outcome"] == "watched" && !self.detach {
            if !self.at.json {
                let entry: Entry = serde_json::from_value(answer.clone())?;
                crate::say(format_args!("version {} runs and is watched …", entry.version));
            }
            while answer["outcome"] == "watched" {
                let number = answer["number"].to_string();
                let query = [("entry", number), ("wait", WAIT.to_string())];
                answer =
                    client::act(&host, Method::GET, &self::path(&self.app, "history", &query), Bytes::new())
                        .await?;
            }
        }
        let is_back = answer["outcome"] == "rolled-back";
        self.at.print(answer, |entry| match entry.outcome.as_str() {
            "rolled-back" => {
                format!("version {} was rolled back: {}", entry.version, text::printable(&entry.note))
            }
            _ if entry.note == "it runs already" => {
                format!("{} runs this module already, as version {}", self.app, entry.version)
            }
            _ if entry.action == "split" => {
                let (app, version) = (&self.app, entry.version);
                format!("{app}: version {version} is tried with {}", text::printable(&entry.note))
            }
            _ => format!("{} runs version {} ({})", self.app, entry.version, entry.digest),
        })?;
        Ok(if is_back { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Promote {
    pub(crate) fn execute(&self) -> Result<ExitCode, Error> {
        self.at.change(&self.app, "promote", &[])
    }
}

impl Rollback {
    pub(crate) fn execute(&self) -> Result<ExitCode, Error> {
        let to = self.to.map(|version| ("to", version.to_string()));
        self.at.change(&self.app, "rollback", to.as_slice())
    }
}

impl History {
    pub(crate) fn execute(&self) -> Result<ExitCode, Error> {
        client::runtime()?.block_on(async {
            let host = client::host_of(&self.app, self.at.host.as_deref()).await?;
            let path = path(&self.app, "history", &[]);
            let mut answer = client::act(&host, Method::GET, &path, Bytes::new()).await?;
            let mut out = std::io::stdout().lock();
            if self.at.json {
                writeln!(out, "{answer:#}")?;
                return Ok(ExitCode::SUCCESS);
            }
            let entries: Vec<Entry> = serde_json::from_value(answer["history"].take())?;
            let header = ["VERSION", "TIME", "ACTION", "OUTCOME", "WHO", "FROM", "DIGEST", "NOTE"];
            let mut rows = vec![header.map(str::to_owned)];
            rows.extend(entries.iter().map(Entry::row));
            write!(out, "{}", text::table(&rows))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

// === impl At ===

impl At {
    /// Has the host do something with an app.
    fn change(&self, app: &str, action: &str, query: &[(&str, String)]) -> Result<ExitCode, Error> {
        client::runtime()?.block_on(async {
            let host: HostInfo = client::host_of(app, self.host.as_deref()).await?;
            let answer = client::act(&host, Method::POST, &path(app, action, query), Bytes::new()).await?;
            self.print(answer, |entry| format!("{app} runs version {} ({})", entry.version, entry.digest))?;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn print(&self, answer: Value, shown: impl FnOnce(&Entry) -> String) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{answer:#}")?;
        } else {
            let entry: Entry = serde_json::from_value(answer)?;
            writeln!(out, "{}", shown(&entry))?;
        }
        Ok(())
    }
}

// === impl Entry ===

impl Entry {
    fn row(&self) -> [String; 8] {
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(self.time));
        // As much of a digest as tells modules apart.
        let digest = self.digest.split_once(':').map_or("", |(_, hex)| hex.get(..12).unwrap_or(hex));
        [
            if self.version == 0 { "-".to_owned() } else { self.version.to_string() },
            time.to_string(),
            self.action.clone(),
            self.outcome.clone(),
            text::printable(&self.who).into_owned(),
            text::printable(&self.from).into_owned(),
            digest.to_owned(),
            text::printable(&self.note).into_owned(),
        ]
    }
}

fn path(app: &str, action: &str, query: &[(&str, String)]) -> String {
    let query: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", client::encode(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/v1/apps/{}/{action}{mark}{}", client::encode(app), query.join("&"))
}

/// The host may run in another folder.
fn absolute(from: &str) -> String {
    if from.contains("://") {
        return from.to_owned();
    }
    let path = std::path::absolute(Path::new(from)).map(|path| path.to_string_lossy().into_owned());
    path.unwrap_or_else(|_| from.to_owned())
}
