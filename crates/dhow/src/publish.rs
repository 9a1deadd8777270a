//! `dhow publish`: one event to a topic, in the name of an app of a running host.

use crate::client;
use crate::error::{Context, Error};
use clap::Args;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Publish an event to a topic, in the name of an app of a running host
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow publish --publish-app-id shop --pubsub pubsub --topic orders --data '{\"book\": 7}'
  dhow publish -i shop -p pubsub -t orders -d plain -m '{\"rawPayload\": \"true\"}'")]
pub(crate) struct Publish {
    /// The app that publishes
    #[arg(long, short = 'i', alias = "app-id", value_name = "ID")]
    publish_app_id: String,
    /// The pub/sub component
    #[arg(long, short = 'p', value_name = "NAME")]
    pubsub: String,
    /// The topic
    #[arg(long, short = 't', value_name = "TOPIC")]
    topic: String,
    /// The event: JSON, or any text
    #[arg(long, short = 'd', value_name = "DATA", conflicts_with = "data_file")]
    data: Option<String>,
    /// A file with the event
    #[arg(long, short = 'f', value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// Metadata as a JSON object, e.g. {"ttlInSeconds": "60"}
    #[arg(long, short = 'm', value_name = "JSON")]
    metadata: Option<String>,
    /// Accepted for the sake of Dapr's command lines: the host is found by its app
    #[arg(long, short = 'u', hide = true)]
    unix_domain_socket: Option<PathBuf>,
    /// Which host, by name or pid (see `dhow ps`); needed only if several have the app
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(publish: &Publish) -> Result<ExitCode, Error> {
    client::runtime()?.block_on(publish.send())
}

// === impl Publish ===

impl Publish {
    async fn send(&self) -> Result<ExitCode, Error> {
        let data = match (&self.data, &self.data_file) {
            (Some(data), _) => data.clone().into_bytes(),
            (None, Some(file)) => {
                std::fs::read(file).context(|| format!("cannot read {}", file.display()))?
            }
            (None, None) => Vec::new(),
        };
        let metadata: BTreeMap<String, Value> = match &self.metadata {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::usage(format!("--metadata is not a JSON object: {error}")))?,
        };
        let query: Vec<String> = metadata
            .iter()
            .map(|(name, value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                format!("metadata.{}={}", client::encode(name), client::encode(&value))
            })
            .collect();
        let names = [&self.publish_app_id, &self.pubsub, &self.topic].map(|name| client::encode(name));
        let uri = format!("/v1/publish/{}?{}", names.join("/"), query.join("&"));
        let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(&data).is_ok();
        let content_type = if is_json { "application/json" } else { "text/plain" };
        let request = Request::post(uri)
            .header(HOST, "dhow")
            .header(CONTENT_TYPE, content_type)
            .body(Full::from(data))?;
        let host = client::host_of(&self.publish_app_id, self.host.as_deref()).await?;
        let answer = client::send(&host, request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(client::refused(&host, status, &body));
        }
        let mut out = std::io::stdout().lock();
        if self.json {
            let said = json!({
                "appId": self.publish_app_id,
                "pubsub": self.pubsub,
                "topic": self.topic,
                "host": host.name,
                "pid": host.pid,
            });
            writeln!(out, "{said:#}")?;
        } else {
            writeln!(out, "Event published successfully")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
