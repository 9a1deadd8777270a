//! Programs that keep credentials: `docker-credential-NAME get|store|erase`
//! (<https://github.com/docker/docker-credential-helpers>). They may ask a person or a cloud, so they have a deadline.

use super::{Credentials, Secret};
use crate::client::error::{RegistryError, harmless};
use serde::Deserialize;
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long a program may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most that a program may say.
const MAX_ANSWER: u64 = 64 << 10;

/// The user's name that stands for a token.
const TOKEN: &str = "<token>";

/// What the program knows of a server; none if it knows nothing.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        secret: Secret,
    }
    let ended = run(name, "get", server).await?;
    if !ended.success {
        // The words of all of them for "I know nothing".
        if ended.out.contains("credentials not found") {
            return Ok(None);
        }
        return Err(ended.failed(name));
    }
    let answer: Answer = serde_json::from_str(&ended.out).map_err(|_| RegistryError::Helper {
        program: program(name),
        reason: "its answer is not what it should be".to_owned(),
    })?;
    Ok(Some(match answer.username.as_str() {
        TOKEN => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password { user: answer.username, password: answer.secret },
    }))
}

pub(super) async fn store(
    name: &str,
    server: &str,
    user: &str,
    password: &Secret,
) -> Result<(), RegistryError> {
    let input = json!({ "ServerURL": server, "Username": user, "Secret": password.expose() }).to_string();
    let ended = run(name, "store", &input).await?;
    if ended.success { Ok(()) } else { Err(ended.failed(name)) }
}

pub(super) async fn erase(name: &str, server: &str) -> Result<(), RegistryError> {
    let ended = run(name, "erase", server).await?;
    if ended.success { Ok(()) } else { Err(ended.failed(name)) }
}

struct Ended {
    success: bool,
    out: String,
}

impl Ended {
    fn failed(&self, name: &str) -> RegistryError {
        let said = harmless(&self.out);
        let reason = if said.is_empty() { "it said nothing".to_owned() } else { format!("it said {said:?}") };
        RegistryError::Helper { program: program(name), reason }
    }
}

fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

async fn run(name: &str, verb: &str, input: &str) -> Result<Ended, RegistryError> {
    let failed = |reason: String| RegistryError::Helper { program: program(name), reason };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(failed("that is no name of a program".to_owned()));
    }
    let talk = async {
        let mut child = Command::new(program(name))
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "it is not in PATH; install it, or remove it from the file".to_owned()
                }
                _ => error.to_string(),
            })?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not want to know is no failure.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let mut out = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER).read_to_end(&mut out).await.map_err(|error| error.to_string())?;
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        Ok(Ended { success: status.success(), out: String::from_utf8_lossy(&out).into_owned() })
    };
    match tokio::time::timeout(DEADLINE, talk).await {
        Ok(ended) => ended.map_err(failed),
        Err(_) => Err(failed(format!("it did not end within {} s", DEADLINE.as_secs()))),
    }
}
