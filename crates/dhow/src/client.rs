//! How a command speaks with a running host: HTTP/1.1 over the host's control socket (the other end is
//! `dhow_api::control`).

use crate::error::{Context, Error, USAGE};
use crate::hosts::{self, HostInfo};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UnixStream;

/// A host answers questions about itself at once, or it is in trouble.
const PATIENCE: Duration = Duration::from_secs(5);

/// Compiling the largest modules takes minutes on a slow machine.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// Answer of `GET /v1/apps`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Apps {
    /// How long the host has been up.
    pub(crate) uptime_seconds: u64,
    /// Its apps are being prepared.
    #[serde(default)]
    pub(crate) starting: bool,
    /// Invocations under way.
    pub(crate) under_way: u64,
    /// The apps, by id.
    pub(crate) apps: Vec<AppInfo>,
}

/// One app of a host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppInfo {
    /// Its identity.
    pub(crate) app_id: String,
    /// Counts the versions since the host started.
    pub(crate) version: u64,
    /// Path or URL of its module.
    pub(crate) module: String,
    /// How guest and host talk.
    pub(crate) abi: String,
    /// Digest of the module.
    pub(crate) digest: String,
    /// Path prefixes that it serves.
    pub(crate) routes: Vec<String>,
    /// Host names that the routes belong to.
    pub(crate) hosts: Vec<String>,
    /// A newer version that is tried beside it.
    #[serde(default)]
    pub(crate) candidate: Option<Value>,
    /// Its code is in memory.
    pub(crate) loaded: bool,
    /// Why it answers nothing, if it may not run.
    #[serde(default)]
    pub(crate) refused: Option<String>,
    /// Invocations under way.
    pub(crate) running: u64,
    /// Its life, if it is a service.
    pub(crate) service: Option<ServiceInfo>,
}

/// A service of a host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceInfo {
    /// `running`, `restarting`, …
    pub(crate) state: String,
    /// How it ended, while it is not started again yet.
    pub(crate) last_exit: Option<String>,
    /// Where it listens.
    pub(crate) address: Option<SocketAddr>,
    /// Connections that are open.
    pub(crate) connections: u64,
}

/// A small runtime for a command that speaks with hosts.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the runtime".to_owned())
}

/// Sends a request; the answer is there when its head is.
pub(crate) async fn send(
    host: &HostInfo,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    let stream = match UnixStream::connect(&host.control).await {
        Ok(stream) => stream,
        Err(error) => return Err(unreachable(host, &error)),
    };
    let broken = |error: hyper::Error| {
        Error::new(format!("host {} ({}) broke off the connection: {error}", host.name, host.pid))
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // An error of the connection also comes to whoever waits for the answer or reads its body.
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(request).await.map_err(broken)
}

/// Asks the host something about itself and reads the whole answer.
pub(crate) async fn ask(host: &HostInfo, request: Request<Full<Bytes>>) -> Result<Bytes, Error> {
    let answer = async {
        let answer = send(host, request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(refused(host, status, &body)) }
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(format!(
            "host {} ({}) does not answer; `dhow stop --force {}` ends it",
            host.name, host.pid, host.pid
        ))),
    }
}

/// Has the host change something, and reads what it answers. Its refusals are told in its own words.
pub(crate) async fn act(host: &HostInfo, method: Method, path: &str, body: Bytes) -> Result<Value, Error> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "dhow")
        .header("dhow-who", caller())
        .body(Full::new(body))?;
    let answered = async {
        let answer = send(host, request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let answer = serde_json::from_slice::<Value>(&body).ok();
        match answer {
            Some(answer) if status.is_success() => Ok(answer),
            Some(Value::Object(answer)) if answer.get("error").is_some_and(Value::is_string) => {
                let said = answer.get("error").and_then(Value::as_str).unwrap_or_default();
                let error = Error::new(crate::text::printable(said));
                Err(if status == StatusCode::BAD_REQUEST { error.with_code(USAGE) } else { error })
            }
            _ => Err(refused(host, status, &body)),
        }
    };
    match tokio::time::timeout(LONG_PATIENCE, answered).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(format!(
            "host {} ({}) is still at it after {} s; `dhow history` tells later what became of it",
            host.name,
            host.pid,
            LONG_PATIENCE.as_secs()
        ))),
    }
}

/// Who calls, for the history.
fn caller() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_graphic()));
    user.unwrap_or_else(|| format!("uid {}", crate::process::user_id()))
}

/// The apps of a host.
pub(crate) async fn apps(host: &HostInfo) -> Result<Apps, Error> {
    let body = ask(host, get("/v1/apps")?).await?;
    serde_json::from_slice(&body)
        .context(|| format!("host {} ({}) is of another version of dhow", host.name, host.pid))
}

/// The host that has the app: the given one, or the only one that does.
pub(crate) async fn host_of(app_id: &str, wanted: Option<&str>) -> Result<HostInfo, Error> {
    let hosts = match wanted {
        Some(_) => vec![hosts::select(wanted)?],
        None => hosts::list()?,
    };
    if hosts.is_empty() {
        return Err(hosts::none_runs());
    }
    let mut having = Vec::new();
    let mut known = Vec::new();
    let mut silent = None;
    for host in hosts {
        match apps(&host).await {
            Ok(apps) => {
                if apps.apps.iter().any(|app| app.app_id == app_id) {
                    having.push(host);
                }
                known.extend(apps.apps.into_iter().map(|app| app.app_id));
            }
            Err(error) => silent = Some(error),
        }
    }
    match (having.len(), silent) {
        (1, _) => Ok(having.swap_remove(0)),
        (0, Some(error)) => Err(error),
        (0, None) if known.is_empty() => Err(Error::new(format!("no app {app_id:?}: no host has any app"))),
        (0, None) => {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let near = dhow_resources::error::nearest(app_id, &names);
            let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            let there = known.join(", ");
            Err(Error::new(format!("no app {app_id:?} is running; there are: {there}{near}")))
        }
        _ => Err(Error::usage(format!(
            "several hosts have an app {app_id:?}; say which one with --host:{}",
            hosts::describe(&having)
        ))),
    }
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Result<Request<Full<Bytes>>, Error> {
    Ok(Request::get(path).header(http::header::HOST, "dhow").body(Full::default())?)
}

/// What the host said about a request that it did not like.
pub(crate) fn refused(host: &HostInfo, status: StatusCode, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    Error::new(format!(
        "host {} ({}) answers {status}: {}",
        host.name,
        host.pid,
        crate::text::printable(text.trim())
    ))
}

/// An app-id or query value as part of a URL.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn unreachable(host: &HostInfo, error: &io::Error) -> Error {
    let HostInfo { name, pid, control, .. } = host;
    Error::new(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "host {name} ({pid}) is starting or stopping: nobody listens at {}; try again",
                control.display()
            )
        }
        _ => format!("cannot connect to host {name} ({pid}) at {}: {error}", control.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn encoded_text_stays_one_part_of_a_url() {
        let cases = [("front", "front"), ("a/b?c&d", "a%2Fb%3Fc%26d"), ("ü", "%C3%BC"), ("", "")];
        for (text, encoded) in cases {
            assert_eq!(encode(text), encoded);
        }
    }
}
