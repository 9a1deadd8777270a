//! `dhow ps`: which hosts run, and which apps they have.

use crate::client::{self, Apps};
use crate::error::Error;
use crate::hosts::{self, HostInfo};
use crate::text;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// List the running hosts of this user and their apps
#[derive(Args)]
#[command(after_help = "\
STATE of a host is `starting` while its apps are prepared; of an app it is `loaded` while its code
is in memory, `idle` when it will be loaded by its next request; of a service it is `running`,
`restarting` or `draining`, and --json tells where it listens and how it ended last. An app is
`refused` while its token, the trust store or a policy does not let it run; why is told below the
table.
RUNNING counts requests under way. ROUTES are paths, and the host names that they belong to.")]
pub(crate) struct Ps {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The table, or JSON in the form of `dapr list`
    #[arg(long, short = 'o', hide = true, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

type Listed = (HostInfo, Result<Apps, Error>);

pub(crate) fn execute(ps: &Ps) -> Result<ExitCode, Error> {
    let mut listed: Vec<Listed> = Vec::new();
    let hosts = hosts::list()?;
    client::runtime()?.block_on(async {
        for host in hosts {
            let apps = client::apps(&host).await;
            listed.push((host, apps));
        }
    });
    let mut out = std::io::stdout().lock();
    if ps.output == "json" {
        let listed: Vec<Value> = listed.iter().flat_map(as_dapr).collect();
        writeln!(out, "{:#}", Value::from(listed))?;
    } else if ps.json {
        let hosts = listed.iter().map(as_json).collect::<Result<Vec<_>, Error>>()?;
        writeln!(out, "{:#}", json!({ "hosts": hosts }))?;
    } else if listed.is_empty() {
        writeln!(out, "No host is running. `dhow up` or `dhow run` starts one.")?;
    } else {
        let header = ["PID", "HOST", "ADDRESS", "UPTIME", "APP", "STATE", "RUNNING", "ROUTES", "ABI"];
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(listed.iter().flat_map(as_rows));
        write!(out, "{}", text::table(&rows))?;
        for line in listed.iter().flat_map(refusals) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_rows((host, apps): &Listed) -> Vec<[String; 9]> {
    let none = || "-".to_owned();
    let address = host.addr.or(host.api_addr).map_or_else(none, |addr| addr.to_string());
    let row = |uptime: String, rest: [String; 5]| {
        let [app, state, running, routes, abi] = rest;
        [host.pid.to_string(), host.name.clone(), address.clone(), uptime, app, state, running, routes, abi]
    };
    match apps {
        Err(_) => vec![row(none(), [none(), "no answer".to_owned(), none(), none(), none()])],
        Ok(apps) if apps.apps.is_empty() => {
            let state = if apps.starting { "starting".to_owned() } else { none() };
            vec![row(text::duration(apps.uptime_seconds), [none(), state, none(), none(), none()])]
        }
        Ok(apps) => {
            let rows = apps.apps.iter().map(|app| {
                let state = match &app.service {
                    _ if app.refused.is_some() => "refused",
                    Some(service) => service.state.as_str(),
                    None if app.loaded => "loaded",
                    None => "idle",
                };
                let routes = text::routes(&app.routes, &app.hosts).unwrap_or_else(none);
                let rest =
                    [app.app_id.clone(), state.to_owned(), app.running.to_string(), routes, app.abi.clone()];
                row(text::duration(apps.uptime_seconds), rest)
            });
            rows.collect()
        }
    }
}

/// Why apps are refused.
fn refusals((host, apps): &Listed) -> Vec<String> {
    let apps = apps.as_ref().map_or(&[][..], |apps| &apps.apps[..]);
    let refused = apps.iter().filter_map(|app| {
        let reason = text::printable(app.refused.as_deref()?);
        Some(format!("{}: app {:?} is refused: {reason}", host.name, app.app_id))
    });
    refused.collect()
}

/// One object an app, with the fields of `dapr list -o json`.
fn as_dapr((host, apps): &Listed) -> Vec<Value> {
    let port = |address: Option<std::net::SocketAddr>| address.map_or(0, |address| address.port());
    let (seconds, apps) = match apps {
        Ok(apps) => (apps.uptime_seconds, apps.apps.iter().map(|app| app.app_id.as_str()).collect()),
        Err(_) => (0, vec![host.name.as_str()]),
    };
    let created = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(host.started_at));
    let describe = |app_id: &str| {
        json!({
            "appId": app_id,
            "httpPort": port(host.api_addr),
            "grpcPort": port(host.grpc_addr),
            "appPort": host.app_port.unwrap_or_default(),
            "metricsEnabled": host.management_addr.is_some(),
            "command": host.program.join(" "),
            "age": text::duration(seconds),
            "created": created.to_string(),
            "daprdPid": host.pid,
            "cliPid": host.pid,
        })
    };
    apps.into_iter().map(describe).collect()
}

fn as_json((host, apps): &Listed) -> Result<Value, Error> {
    let mut value = serde_json::to_value(host)?;
    let more = match apps {
        Ok(apps) => serde_json::to_value(apps)?,
        Err(error) => json!({ "error": error.to_string() }),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    Ok(value)
}
