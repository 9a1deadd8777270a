//! How the queue of steps is reached: what submitters and workers have in common.

use crate::Error;
use crate::trust::TrustArgs;
use dhow_argo::workers::{Address, Connection, Queue};
use dhow_providers::nats::login::Login;
use dhow_providers::tls::Tls;
use dhow_resources::units::parse_duration;
use std::path::PathBuf;
use std::time::Duration;

/// Who asks the NATS server, and whether it is the right one.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "NATS")]
pub(crate) struct QueueArgs {
    /// File with the credentials of a NATS user
    #[arg(long, value_name = "FILE", env = "NATS_CREDS", hide_env_values = true, group = WHO)]
    nats_creds: Option<PathBuf>,
    /// File with the seed of a NATS user's nkey
    #[arg(long, value_name = "FILE", env = "NATS_NKEY", hide_env_values = true, group = WHO)]
    nats_nkey: Option<PathBuf>,
    /// Name of a NATS user; without a password it is a token
    #[arg(long, value_name = "NAME", env = "NATS_USER", hide_env_values = true, group = WHO)]
    nats_user: Option<String>,
    /// Password of that user; others see a command line, and not the environment
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "NATS_PASSWORD",
        hide_env_values = true,
        requires = "nats_user"
    )]
    nats_password: Option<String>,
    /// Token; the same is to be said of it
    #[arg(long, value_name = "TOKEN", env = "NATS_TOKEN", hide_env_values = true, group = WHO)]
    nats_token: Option<String>,
    /// File with the certificates of who signed the server's; TLS is used then
    #[arg(long, value_name = "FILE", env = "NATS_CA", hide_env_values = true)]
    nats_ca: Option<PathBuf>,
    /// File with this client's certificate
    #[arg(long, value_name = "FILE", env = "NATS_CERT", hide_env_values = true, requires = "nats_key")]
    nats_cert: Option<PathBuf>,
    /// File with the key of this client's certificate
    #[arg(long, value_name = "FILE", env = "NATS_KEY", hide_env_values = true, requires = "nats_cert")]
    nats_key: Option<PathBuf>,
}

/// Of the ways to say who asks, one.
const WHO: &str = "nats_login";

/// Hand steps to workers instead of running them here.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct WorkersArgs {
    /// Let workers run the steps (`dhow workflow worker`), through this NATS server with JetStream
    #[arg(long, value_name = "URL", env = "DHOW_WORKERS", hide_env_values = true)]
    pub(crate) workers: Option<String>,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

/// URLs of servers for messages and for keeping: without names and passwords.
pub(super) fn without_login(urls: &str) -> String {
    let without = |url: &str| {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("nats", url.trim()));
        format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
    };
    urls.split(',').map(without).collect::<Vec<_>>().join(",")
}

/// A positive duration such as `15s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("expected more than nothing, such as 15s".to_owned()) } else { Ok(duration) }
}

// === impl WorkersArgs ===

impl WorkersArgs {
    /// Which modules run is decided where they run.
    pub(crate) fn leave_trust_to_workers(&self, trust: &TrustArgs) -> Result<(), Error> {
        match trust.any() {
            Some(flag) => Err(Error::usage(format!(
                "{flag} says what runs in this process, and with --workers nothing does; give it to `dhow workflow worker`"
            ))),
            None => Ok(()),
        }
    }
}

// === impl QueueArgs ===

impl QueueArgs {
    /// Connects to a server that may be away for so long; `name` is what its operator sees.
    pub(crate) async fn open(&self, url: &str, name: &str, patience: Duration) -> Result<Connection, Error> {
        Ok(Connection::wait(&self.at(url)?, name, patience).await?)
    }

    /// The server of that address, with what the flags say of it; files are read.
    pub(crate) fn at(&self, url: &str) -> Result<Queue, Error> {
        let read = |flag: &str, file: &Option<PathBuf>| {
            let Some(file) = file else { return Ok(None) };
            let text = std::fs::read_to_string(file)
                .map_err(|error| Error::usage(format!("{flag} {}: {error}", file.display())))?;
            Ok::<_, Error>(Some(text.trim().to_owned()))
        };
        let (user, token) = match (self.nats_user.clone(), self.nats_password.clone()) {
            (Some(user), Some(password)) => (Some((user, password)), None),
            (token, _) => (None, token.or_else(|| self.nats_token.clone())),
        };
        let login = Login {
            credentials: read("--nats-creds", &self.nats_creds)?,
            nkey: read("--nats-nkey", &self.nats_nkey)?,
            user,
            token,
            tls: Tls {
                authorities: read("--nats-ca", &self.nats_ca)?.map(String::into_bytes),
                identity: read("--nats-cert", &self.nats_cert)?
                    .zip(read("--nats-key", &self.nats_key)?)
                    .map(|(certificate, key)| (certificate.into_bytes(), key.into_bytes())),
                insecure: false,
            },
        };
        Ok(Queue { url: Address(url.to_owned()), login })
    }
}
