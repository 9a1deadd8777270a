//! How the queue of steps is reached: what submitters and workers have in common.

use crate::Error;
use crate::trust::TrustArgs;
use dhow_argo::workers::{Connection, Login};
use dhow_resources::units::parse_duration;
use std::path::PathBuf;
use std::time::Duration;

/// Who asks the NATS server, and whether it is the right one.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "NATS")]
pub(crate) struct QueueArgs {
    /// File with the credentials of a NATS user
    #[arg(long, value_name = "FILE", env = "NATS_CREDS", hide_env_values = true)]
    nats_creds: Option<PathBuf>,
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
    /// Connects; `name` is what the server's operator sees.
    pub(crate) async fn open(&self, url: &str, name: &str) -> Result<Connection, Error> {
        let login = Login {
            url: url.to_owned(),
            credentials: self.nats_creds.clone(),
            ca: self.nats_ca.clone(),
            certificate: self.nats_cert.clone().zip(self.nats_key.clone()),
        };
        Ok(Connection::open(&login, name).await?)
    }
}
