//! `dhow logs`: what apps printed and logged.

use crate::client;
use crate::error::Error;
use crate::hosts::{self, HostInfo};
use crate::text;
use bytes::BytesMut;
use clap::Args;
use http_body_util::BodyExt;
use serde::Deserialize;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// Longest line that is waited for; a host sends shorter ones.
const MAX_LINE: usize = 16 << 20;

/// Print what the apps of a running host wrote to stdout, stderr and wasi:logging
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow logs                the last lines of all apps
  dhow logs -f front       those of one app, and new ones as they come
  dhow logs -n 1000 --json one JSON object a line: time (ms since 1970), appId, stream, line")]
pub(crate) struct Logs {
    /// Only the lines of this app
    app: Option<String>,
    /// Wait for new lines, until the host stops; Ctrl-C ends it
    #[arg(long, short)]
    follow: bool,
    /// How many of the lines so far
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    lines: usize,
    /// Which host, by name or pid (see `dhow ps`); needed only if several are running
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// A line as the host sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    time: u64,
    app_id: String,
    stream: String,
    line: String,
}

pub(crate) fn execute(logs: &Logs) -> Result<ExitCode, Error> {
    client::runtime()?.block_on(logs.print())
}

// === impl Logs ===

impl Logs {
    async fn print(&self) -> Result<ExitCode, Error> {
        let host = match &self.app {
            Some(app) => client::host_of(app, self.host.as_deref()).await?,
            None => hosts::select(self.host.as_deref())?,
        };
        let mut path = format!("/v1/logs?tail={}", self.lines);
        if let Some(app) = &self.app {
            path.push_str(&format!("&app={}", client::encode(app)));
        }
        if self.follow {
            path.push_str("&follow=1");
        }
        let answer = client::send(&host, client::get(&path)?).await?;
        let status = answer.status();
        let mut body = answer.into_body();
        if !status.is_success() {
            return Err(client::refused(&host, status, &body.collect().await?.to_bytes()));
        }
        let HostInfo { name, pid, .. } = &host;
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                // A log that is followed has no other end than that of its host.
                Err(_) if self.follow => break,
                Err(_) => {
                    return Err(Error::new(format!(
                        "the log is cut off: host {name} ({pid}) stopped while it was read"
                    )));
                }
            };
            if let Ok(data) = frame.into_data() {
                buffer.extend_from_slice(&data);
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                self.print_line(&buffer.split_to(end + 1))?;
            }
            if buffer.len() > MAX_LINE {
                return Err(Error::new(format!("host {name} ({pid}) sends something that is no log")));
            }
        }
        if self.follow {
            crate::say(format_args!("host {name} ({pid}) has stopped"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print_line(&self, json: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        if self.json {
            out.write_all(json)?;
            return Ok(out.flush()?);
        }
        let line: Line = serde_json::from_slice(json)?;
        // Files and pipes get what the guest wrote; a terminal would obey it.
        let shown = if out.is_terminal() { text::printable(&line.line) } else { line.line.as_str().into() };
        let time = text::time_of_day(UNIX_EPOCH + Duration::from_millis(line.time));
        writeln!(out, "{time} {} {}: {shown}", line.app_id, line.stream)?;
        Ok(out.flush()?)
    }
}
