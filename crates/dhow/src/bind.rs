//! `dhow bind`, `unbind`: which components an app finds, while it runs.

use crate::client;
use crate::error::Error;
use crate::text;
use crate::update::At;
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Give an app components while it runs, beyond what its manifest grants
#[derive(Args)]
#[command(after_help = "\
The app finds each component under the name before the `=`, from its next invocation on; what runs
goes on with what it began with. It stays so after a restart of the host. Without a block the
bindings are listed.

EXAMPLES
  dhow bind orders state cache                 orders may use the state store cache
  dhow bind orders state statestore=redis      what orders calls statestore is redis from now on
  dhow bind orders pubsub events               publish to events and receive from it
  dhow bind orders wascc:keyvalue default=redis
                                               the same in the words of waSCC
  dhow bind orders                             what is bound")]
pub(crate) struct Bind {
    /// The app
    app: String,
    /// The block: state, pubsub, publish, subscribe, bindings, secrets, configuration, lock, sequencer, blob, cryption,
    /// email; or a capability id of waSCC or wasmCloud
    #[arg(requires = "name")]
    block: Option<String>,
    /// The component, perhaps under another name
    #[arg(value_name = "[NAME=]COMPONENT")]
    name: Vec<String>,
    #[command(flatten)]
    at: At,
}

/// Take components from an app while it runs, also some that its manifest grants
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow unbind orders state cache")]
pub(crate) struct Unbind {
    /// The app
    app: String,
    /// The block, as for `dhow bind`
    block: String,
    /// The name under which the app finds it
    #[arg(required = true)]
    name: Vec<String>,
    #[command(flatten)]
    at: At,
}

impl Bind {
    pub(crate) fn execute(&self) -> Result<ExitCode, Error> {
        let Some(block) = &self.block else { return ask(&self.app, "bindings", None, &self.at) };
        let mut names = Map::new();
        for pair in &self.name {
            let (name, component) = pair.split_once('=').unwrap_or((pair, pair));
            if name.is_empty() || component.is_empty() {
                return Err(Error::usage(format!("{pair}: expected [NAME=]COMPONENT")));
            }
            names.insert(name.to_owned(), component.into());
        }
        ask(&self.app, "bind", Some(json!({ "block": block, "names": names })), &self.at)
    }
}

impl Unbind {
    pub(crate) fn execute(&self) -> Result<ExitCode, Error> {
        let request = json!({ "block": self.block, "names": self.name });
        ask(&self.app, "unbind", Some(request), &self.at)
    }
}

fn ask(app: &str, action: &str, request: Option<Value>, at: &At) -> Result<ExitCode, Error> {
    client::runtime()?.block_on(async {
        let host = client::host_of(app, at.host.as_deref()).await?;
        let method = if request.is_some() { Method::POST } else { Method::GET };
        let body = request.map(|request| Bytes::from(request.to_string())).unwrap_or_default();
        let path = format!("/v1/apps/{}/{action}", client::encode(app));
        let answer = client::act(&host, method, &path, body).await?;
        let mut out = std::io::stdout().lock();
        if at.json {
            writeln!(out, "{answer:#}")?;
            return Ok(ExitCode::SUCCESS);
        }
        let bindings = answer["bindings"].as_array().map(Vec::as_slice).unwrap_or_default();
        if bindings.is_empty() {
            writeln!(out, "{app} has what its manifest grants, and nothing else is bound")?;
            return Ok(ExitCode::SUCCESS);
        }
        let cell = |value: &Value| text::printable(value.as_str().unwrap_or("(taken away)")).into_owned();
        let mut rows = vec![["BLOCK", "NAME", "COMPONENT"].map(str::to_owned)];
        rows.extend(
            bindings.iter().map(|binding| {
                [cell(&binding["block"]), cell(&binding["name"]), cell(&binding["component"])]
            }),
        );
        write!(out, "{}", text::table(&rows))?;
        Ok(ExitCode::SUCCESS)
    })
}
