//! `dhow registry serve`: flags, listening, and the work that goes on in the background.

use super::Folder;
use super::examine::Known;
use crate::error::Error;
use crate::signals::Signals;
use crate::{say, serve};
use clap::{Args, ValueEnum};
use dhow_artifacts::registry::auth::{self, Auth};
use dhow_artifacts::registry::collect::CollectOptions;
use dhow_artifacts::registry::http::Face;
use dhow_artifacts::registry::server::{GRACE, Listener, Stop};
use dhow_artifacts::registry::{Options, Registry, SignedPolicy};
use dhow_resources::units::{parse_address, parse_duration, parse_size};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

/// Between two looks for uploads that expired.
const EXPIRY: Duration = Duration::from_secs(600);

/// Serve a registry: OCI distribution 1.1, a search, and a page at /
#[derive(Args)]
#[command(after_help = "\
Without --users and --anonymous, everybody on this machine may do everything, and an address that
others reach is refused. With --users, nobody may do anything without logging in. A user may then do
everything, or with --permissions what its rules say.

EXAMPLES
  dhow registry serve
  dhow registry serve --data-dir /srv/registry --addr 0.0.0.0:443 --users users \\
      --permissions rules.toml --tls-cert cert.pem --tls-key key.pem
  dhow registry serve --users users --anonymous pull     log in to push, not to pull
  dhow registry serve --storage s3://modules/registry --s3-endpoint http://127.0.0.1:9000
  dhow registry serve --signed refuse --trust trust.txt  only modules signed by somebody trusted")]
pub(super) struct Serve {
    #[command(flatten)]
    folder: Folder,
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000", env = "DHOW_REGISTRY_ADDR",
        value_parser = parse_address)]
    addr: SocketAddr,
    /// Certificate chain (PEM); makes it HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How clients reach it, where that is not the host that they ask for: behind a proxy that speaks TLS
    #[arg(long, value_name = "URL", value_parser = external_url)]
    external_url: Option<String>,
    /// Who may log in: a file of `dhow registry user`, or of htpasswd -B
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    users: Option<PathBuf>,
    /// Rules (TOML): who may do what in which repositories
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    permissions: Option<PathBuf>,
    /// What may be done without logging in
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Access")]
    anonymous: Option<Anonymous>,
    /// What happens to modules without a token that holds
    #[arg(long, value_name = "POLICY", value_enum, default_value_t, help_heading = "Modules")]
    signed: Signed,
    /// Whom to trust, as with `dhow verify`; without it, a token only has to hold
    #[arg(long, value_name = "FILE", help_heading = "Modules")]
    trust: Option<PathBuf>,
    /// Bytes of a blob at most
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = parse_size, help_heading = "Limits")]
    max_blob: u64,
    /// Bytes of all blobs and manifests of a repository at most [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Limits")]
    max_repository: Option<u64>,
    /// Uploads under way at most
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, help_heading = "Limits")]
    max_uploads: usize,
    /// Remove uploads that nobody went on with for this long
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration, help_heading = "Limits")]
    upload_expiry: Duration,
    /// How often what nobody refers to is removed; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration, help_heading = "Work")]
    gc_every: Duration,
    /// What is younger is spared
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration, help_heading = "Work")]
    gc_grace: Duration,
    /// How often all content is verified; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = parse_duration, help_heading = "Work")]
    scrub_every: Duration,
    /// Bytes a second that are read for it
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size, help_heading = "Work")]
    scrub_pace: u64,
}

/// `http://` or `https://`, a host, and perhaps a port: what follows it in answers are paths of the API.
fn external_url(text: &str) -> Result<String, String> {
    let expected = || format!("{text:?} is no address that clients can use; expected https://HOST[:PORT]");
    let url: http::Uri = text.parse().map_err(|_| expected())?;
    let is_web = matches!(url.scheme_str(), Some("http" | "https"));
    let is_plain = url.path().trim_end_matches('/').is_empty() && url.query().is_none();
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'));
    match authority.filter(|authority| is_web && is_plain && !authority.host().is_empty()) {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err(expected()),
    }
}

/// What may be done without logging in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Anonymous {
    /// Nothing
    Nothing,
    /// Read everything
    Pull,
    /// Read and write everything
    Push,
    /// Read, write and delete everything
    Everything,
}

/// What happens to modules without a token that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Signed {
    /// They are taken like others
    Accept,
    /// They are taken, and who pushes and who looks is told
    #[default]
    Mark,
    /// They are refused
    Refuse,
}

pub(super) fn execute(serve: Serve) -> Result<ExitCode, Error> {
    let anonymous = serve.anonymous()?;
    serve::runtime()?.block_on(serve.run(anonymous))?;
    Ok(ExitCode::SUCCESS)
}

// === impl Serve ===

impl Serve {
    /// Only a machine of one's own is open where nobody said so.
    fn anonymous(&self) -> Result<auth::Anonymous, Error> {
        if self.permissions.is_some() && self.users.is_none() {
            return Err(Error::usage("--permissions is about users: name a file of them with --users"));
        }
        let said = self.anonymous.map(|anonymous| match anonymous {
            Anonymous::Nothing => auth::Anonymous::Nothing,
            Anonymous::Pull => auth::Anonymous::Pull,
            Anonymous::Push => auth::Anonymous::Push,
            Anonymous::Everything => auth::Anonymous::Everything,
        });
        match (said, &self.users) {
            (Some(auth::Anonymous::Nothing), None) => {
                Err(Error::usage("--anonymous nothing without --users: nobody could do anything"))
            }
            (Some(anonymous), _) => Ok(anonymous),
            (None, Some(_)) => Ok(auth::Anonymous::Nothing),
            (None, None) if self.addr.ip().is_loopback() => Ok(auth::Anonymous::Everything),
            (None, None) => Err(Error::usage(format!(
                "others can reach {}, and there are no users: name a file of them (--users), or say what everybody \
                 may do (--anonymous pull|push|everything)",
                self.addr
            ))),
        }
    }

    async fn run(self, anonymous: auth::Anonymous) -> Result<(), Error> {
        let options = Options {
            signed: match self.signed {
                Signed::Accept => SignedPolicy::Accept,
                Signed::Mark => SignedPolicy::Mark,
                Signed::Refuse => SignedPolicy::Refuse,
            },
            max_blob: self.max_blob,
            max_repository: self.max_repository,
            max_uploads: self.max_uploads,
            upload_expiry: self.upload_expiry,
            ..Options::new(&self.folder.data_dir)
        };
        let folder = &self.folder.data_dir;
        let auth = Auth::open(folder, self.users.as_deref(), self.permissions.as_deref(), anonymous)?;
        auth::remember_users(folder, self.users.as_deref())?;
        let examiner = Arc::new(Known::new(self.trust.as_deref())?);
        let storage = self.folder.storage.open().await?;
        let opened = storage.as_ref().map(|(name, storage)| (name.as_str(), Arc::clone(storage)));
        let registry = Registry::open_in(opened, options, auth, examiner).await?;
        let tls = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let listener = Listener::tcp(self.addr, tls)?;
        let address = listener.address().unwrap_or(self.addr);
        let stop = Stop::default();
        let mut face = Face::new(Arc::clone(&registry), self.external_url.clone(), tls.is_some());
        if self.addr.ip().is_loopback() && self.users.is_none() {
            face = face.for_this_machine();
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.serve(face, stop.clone()));
        let (obeying, obeyed) = (Arc::clone(&registry), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = obeying.obey(obeyed).await {
                tracing::warn!("`dhow registry gc` and `scrub` will not reach this process: {error}");
            }
        });
        let work =
            tokio::spawn(work(registry, self.gc_every, self.gc_grace, self.scrub_every, self.scrub_pace));
        let signals = Signals::listen()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let place = storage.map_or_else(|| folder.display().to_string(), |(name, _)| name);
        say(format!("registry on {scheme}://{address} in {place} (Ctrl-C stops)"));
        until_stopped(signals, &stop, tasks).await;
        work.abort();
        Ok(())
    }
}

/// Waits for a signal, and then until requests under way have ended. A second signal ends at once.
async fn until_stopped(mut signals: Signals, stop: &Stop, mut tasks: JoinSet<()>) {
    signals.received().await;
    stop.stop();
    let drained = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        _ = tokio::time::timeout(GRACE, drained) => {}
        () = signals.received() => {}
    }
}

/// What a registry does by itself. One thing at a time: it must not be felt.
async fn work(
    registry: Arc<Registry>,
    gc_every: Duration,
    grace: Duration,
    scrub_every: Duration,
    pace: u64,
) {
    let never = Duration::from_secs(u64::from(u32::MAX));
    let every = |period: Duration| {
        let period = if period.is_zero() { never } else { period };
        interval_at(Instant::now() + period, period)
    };
    let (mut expiry, mut gc, mut scrub) = (every(EXPIRY), every(gc_every), every(scrub_every));
    loop {
        tokio::select! {
            _ = expiry.tick() => {
                let ended = registry.expire_uploads().await;
                if ended > 0 {
                    tracing::info!("{ended} uploads expired");
                }
            }
            _ = gc.tick() => {
                match registry.collect(CollectOptions { grace, untagged: false, dry_run: false }).await {
                    Ok(collected) => tracing::info!("garbage collection: {}", super::said(&collected, false)),
                    Err(error) => tracing::error!("garbage collection: {error}"),
                }
            }
            _ = scrub.tick() => match registry.scrub(Some(pace)).await {
                Ok(found) if found.is_sound() => tracing::info!("{} blobs verified", found.blobs),
                Ok(found) => tracing::error!(
                    "{} blobs verified: {} damaged, {} missing", found.blobs, found.damaged, found.missing
                ),
                Err(error) => tracing::error!("scrub: {error}"),
            },
        }
    }
}
