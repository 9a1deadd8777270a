//! `dhow provider`: components of a running host.

use crate::error::{Context, Error};
use crate::update::At;
use crate::{client, hosts, text};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Add, remove and list components while the host runs
#[derive(Args)]
#[command(after_help = "\
Components are those of Dapr's resource files. Apps that may use one have it from their next
invocation on. What is removed is closed when the invocations that use it have ended. It stays so
after a restart of the host.

EXAMPLES
  dhow provider add redis.yaml
  dhow provider add redis.yaml --replace       with another address or password, say
  dhow provider remove redis
  dhow provider list")]
pub(crate) struct Provider {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Add the components and subscriptions of a resource file
    Add {
        /// The file, in Dapr's format
        file: PathBuf,
        /// In the place of components of the same names
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        at: At,
    },
    /// Take a component away from all apps, and close it
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// List the components that are declared; the embedded ones are not
    List {
        #[command(flatten)]
        at: At,
    },
}

impl Provider {
    pub(crate) fn execute(&self) -> Result<ExitCode, Error> {
        let ask = |method: Method, path: String, body: Bytes, at: &At| -> Result<Value, Error> {
            let host = hosts::select(at.host.as_deref())?;
            client::runtime()?.block_on(client::act(&host, method, &path, body))
        };
        let mut out = std::io::stdout().lock();
        let (answer, at, done) = match &self.action {
            Action::Add { file, replace, at } => {
                let text = std::fs::read(file).context(|| format!("cannot read {}", file.display()))?;
                let file = std::path::absolute(file)?;
                let file = client::encode(&file.to_string_lossy());
                let path = format!("/v1/providers?file={file}&replace={}", u8::from(*replace));
                (ask(Method::POST, path, text.into(), at)?, at, "added")
            }
            Action::Remove { name, at } => {
                let path = format!("/v1/providers/{}", client::encode(name));
                (ask(Method::DELETE, path, Bytes::new(), at)?, at, "removed")
            }
            Action::List { at } => (ask(Method::GET, "/v1/providers".to_owned(), Bytes::new(), at)?, at, ""),
        };
        if at.json {
            writeln!(out, "{answer:#}")?;
        } else if !done.is_empty() {
            for name in answer[done].as_array().into_iter().flatten().filter_map(Value::as_str) {
                writeln!(out, "{done} {}", text::printable(name))?;
            }
        } else {
            let mut rows = vec![["NAME", "TYPE", "FROM", "SCOPES", "STATE"].map(str::to_owned)];
            rows.extend(answer["providers"].as_array().into_iter().flatten().map(row));
            write!(out, "{}", text::table(&rows))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(provider: &Value) -> [String; 5] {
    let cell = |name: &str| text::printable(provider[name].as_str().unwrap_or_default()).into_owned();
    let scopes: Vec<&str> =
        provider["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let added = if provider["added"] == true { "added" } else { "declared" };
    let state = match provider["failure"].as_str() {
        Some(failure) => text::printable(failure).into_owned(),
        None => added.to_owned(),
    };
    let scopes = if scopes.is_empty() { "all apps".to_owned() } else { scopes.join(",") };
    [cell("name"), cell("type"), cell("file"), scopes, state]
}
