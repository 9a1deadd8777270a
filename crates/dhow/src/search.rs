//! `dhow search`: which modules a registry has.

use crate::error::Error;
use crate::{client, text};
use clap::Args;
use dhow_artifacts::access::Places;
use dhow_artifacts::credentials::{self, Credentials};
use dhow_artifacts::registry::client::{Server, search};
use dhow_artifacts::registry::search::{Found, FoundModule};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Search a registry of dhow for modules by what their tokens and interfaces say
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow search                                       all modules of the registry at 127.0.0.1:5000
  dhow search orders --version '^1.2'
  dhow search --capability wasmcloud:keyvalue --tag shop --registry https://registry.example.com
  dhow search wasi:http --json")]
pub(crate) struct Search {
    /// Words, each of which is in a name, a tag, a capability or an interface
    words: Vec<String>,
    /// The registry
    #[arg(long, value_name = "URL", env = "DHOW_REGISTRY", default_value = "http://127.0.0.1:5000")]
    registry: String,
    /// Name: that of its token, or the last word of its repository
    #[arg(long)]
    name: Option<String>,
    /// A tag of its token
    #[arg(long)]
    tag: Option<String>,
    /// A capability, under any of its names
    #[arg(long, value_name = "NAME")]
    capability: Option<String>,
    /// Public key of who signed it
    #[arg(long, value_name = "KEY")]
    issuer: Option<String>,
    /// Range of versions, such as ^1.2
    #[arg(long, value_name = "RANGE")]
    version: Option<String>,
    /// Which page of the answer
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    page: usize,
    /// Name to log in with; its password is in DHOW_REGISTRY_PASSWORD [default: as `dhow login` said]
    #[arg(long, value_name = "NAME", env = "DHOW_REGISTRY_USER", hide_env_values = true)]
    user: Option<String>,
    /// Certificates (PEM) to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(command: &Search) -> Result<ExitCode, Error> {
    let mut parameters = vec![("q", command.words.join(" ")), ("page", command.page.to_string())];
    let filters = [
        ("name", &command.name),
        ("tag", &command.tag),
        ("capability", &command.capability),
        ("issuer", &command.issuer),
        ("version", &command.version),
    ];
    parameters.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let url = match command.registry.contains("://") {
        true => command.registry.clone(),
        false => format!("https://{}", command.registry),
    };
    let runtime = client::runtime()?;
    let login = match &command.user {
        Some(user) => Some((user.clone(), std::env::var("DHOW_REGISTRY_PASSWORD").unwrap_or_default())),
        None => runtime.block_on(known_login(&url))?,
    };
    let server = Server {
        url: &url,
        credentials: login.as_ref().map(|(user, password)| (user.as_str(), password.as_str())),
        ca: command.ca.as_deref(),
    };
    let found = runtime.block_on(search(&server, &parameters))?;
    let mut out = std::io::stdout().lock();
    if command.json {
        writeln!(out, "{:#}", json!(found))?;
    } else {
        out.write_all(as_text(&found).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What Docker's and Podman's files know of the registry, as for pushes and pulls.
async fn known_login(url: &str) -> Result<Option<(String, String)>, Error> {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let files = Places::of_user().credentials;
    Ok(match credentials::find(&files, host, "").await? {
        Some(Credentials::Password { user, password }) => Some((user, password.expose().to_owned())),
        // Not for searches: a registry of dhow knows names and passwords.
        Some(Credentials::IdentityToken(_)) | None => None,
    })
}

fn as_text(found: &Found) -> String {
    if found.modules.is_empty() {
        return "nothing found\n".to_owned();
    }
    let heading = ["MODULE", "VERSION", "TOKEN", "CAPABILITIES", "KIND"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(heading).chain(found.modules.iter().map(row)).collect();
    let mut shown = text::table(&rows);
    if found.page < found.pages {
        shown.push_str(&format!(
            "page {} of {}, {} modules; --page {} shows the next\n",
            found.page,
            found.pages,
            found.total,
            found.page + 1
        ));
    }
    shown
}

fn row(module: &FoundModule) -> [String; 5] {
    let name = match module.tags.as_slice() {
        [] => format!("{}@{}", module.repository, module.digest),
        tags => format!("{}:{}", module.repository, tags.join(",")),
    };
    let claims = module.claims.clone().unwrap_or_default();
    let trust = match (module.holds, module.signed) {
        (true, _) => "holds",
        (false, true) => "does not hold",
        (false, false) => "none",
    };
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let kind = format!("{}, {}", module.kind, module.abi);
    // What somebody pushed must not reach the terminal as a command.
    [name, claims.version.unwrap_or_default(), trust.to_owned(), claims.capabilities.join(" "), kind]
        .map(|cell| or_none(text::printable(&cell).into_owned()))
}
