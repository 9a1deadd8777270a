//! Where the API server is, whom to trust, and who asks: as a pod knows it, as kubectl's file says it, or as somebody
//! says on the command line.

use super::{KubernetesError, kubeconfig, read_file};
use dhow_providers::tls::Tls;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Where a pod finds who it is.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A program that makes tokens has to be done after this time.
const PROGRAM: Duration = Duration::from_secs(60);

/// Largest token, in bytes.
const MAX_TOKEN: usize = 64 << 10;

/// How to reach an API server.
#[derive(Debug)]
pub struct Access {
    /// `https://host:port`, with a path if there is one.
    pub server: String,
    /// Whom to trust, and who asks if it is known by a certificate.
    pub tls: Tls,
    /// Who asks.
    pub token: Token,
    /// The namespace that is meant when nobody says one.
    pub namespace: Option<String>,
}

/// Where a token comes from.
pub enum Token {
    /// There is none.
    None,
    /// It is this.
    Text(String),
    /// A file, which may change.
    File(PathBuf),
    /// A program, as `client.authentication.k8s.io` describes it.
    Program {
        /// Its name or path, and its arguments.
        command: Vec<String>,
        /// More environment.
        env: BTreeMap<String, String>,
        /// The version that is spoken with it.
        api_version: String,
    },
}

// === impl Access ===

impl Access {
    /// What the kubelet gives to every pod with a service account.
    pub fn in_cluster() -> Result<Access, String> {
        let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(host), Some(port)) = (value("KUBERNETES_SERVICE_HOST"), value("KUBERNETES_SERVICE_PORT"))
        else {
            return Err("this is no pod of a cluster; use --kubeconfig FILE or --server URL".to_owned());
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let folder = Path::new(SERVICE_ACCOUNT);
        let authorities = read_file(&folder.join("ca.crt"))?;
        let namespace = std::fs::read_to_string(folder.join("namespace")).ok();
        Ok(Access {
            server: format!("https://{host}:{port}"),
            tls: Tls { authorities: Some(authorities), ..Tls::default() },
            token: Token::File(folder.join("token")),
            namespace: namespace.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
        })
    }

    /// What kubectl's file says; `context` is another than its current one.
    pub fn kubeconfig(file: &Path, context: Option<&str>) -> Result<Access, String> {
        kubeconfig::read(file, context)
    }
}

// === impl Token ===

impl Token {
    /// Whether it may be another one the next time.
    pub(super) fn changes(&self) -> bool {
        matches!(self, Token::File(_) | Token::Program { .. })
    }

    pub(super) async fn read(&self) -> Result<Option<String>, KubernetesError> {
        let failed = |reason: String| KubernetesError::Token { place: self.to_string(), reason };
        match self {
            Token::None => Ok(None),
            Token::Text(text) => Ok(Some(text.clone())),
            Token::File(file) => {
                let text =
                    tokio::fs::read_to_string(file).await.map_err(|error| failed(error.to_string()))?;
                match text.trim() {
                    "" => Err(failed("it is empty".to_owned())),
                    token => Ok(Some(token.to_owned())),
                }
            }
            Token::Program { command, env, api_version } => {
                run(command, env, api_version).await.map(Some).map_err(failed)
            }
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::None => f.write_str("nowhere"),
            Token::Text(_) => f.write_str("the configuration"),
            Token::File(file) => write!(f, "{}", file.display()),
            Token::Program { command, .. } => {
                write!(f, "the program {}", command.first().map(String::as_str).unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

/// Asks a program for a token
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins>).
async fn run(
    command: &[String],
    env: &BTreeMap<String, String>,
    api_version: &str,
) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Credential {
        status: Option<Status>,
    }
    #[derive(Deserialize)]
    struct Status {
        token: Option<String>,
    }
    let Some((program, args)) = command.split_first() else { return Err("it has no `command`".to_owned()) };
    let info = serde_json::json!({
        "kind": "ExecCredential", "apiVersion": api_version, "spec": {"interactive": false},
    });
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .envs(env)
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM, command.output()).await;
    let output = output.map_err(|_| format!("it is not done after {} s", PROGRAM.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("it ended with {}", output.status));
    }
    // The parser's own words could show the token.
    let credential: Result<Credential, _> = serde_json::from_slice(&output.stdout);
    let token = credential.ok().and_then(|credential| credential.status).and_then(|status| status.token);
    match token.filter(|token| token.len() <= MAX_TOKEN) {
        Some(token) => Ok(token),
        None => Err("it printed no ExecCredential with a token".to_owned()),
    }
}
