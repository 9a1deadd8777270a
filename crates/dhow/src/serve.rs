//! What `run` and `up` share: an engine, a host, faces on sockets, signals, draining.

use crate::Error;
use crate::folders;
use crate::hosts::{self, Announced, HostInfo};
use crate::signals::Signals;
use dhow_api::control::Control;
use dhow_api::export::Exporter;
use dhow_api::ingress::Ingress;
use dhow_api::live::Live;
use dhow_api::management::Management;
use dhow_api::one_app::OneApp;
use dhow_api::server::{Face, Listener, Stop};
use dhow_engine::{Cache, Engine, EngineOptions};
use dhow_host::{Components, Fleet, Host, HostOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// Requests under way have this long when the host goes down.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// After the last invocation, clients have this long to take the end of their answers. Connections that are
/// still open then are of clients that never finish a request, or never read.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// The last spans have this long to be sent.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// Between two looks at what is idle.
const SWEEP: Duration = Duration::from_secs(5);

/// The app-id that programs outside have at the Dapr port.
const OUTSIDE: &str = "dhow";

/// A host that is reachable from outside the process.
pub(crate) struct Serving {
    pub(crate) host: Arc<Host>,
    pub(crate) stop: Stop,
    /// Ends what tells of the host, which is asked while it drains, too.
    last: Stop,
    /// What is changed through the control socket and the management port; none where that cannot be.
    fleet: Option<Arc<Fleet>>,
    servers: JoinSet<()>,
    exporter: Option<Exporter>,
    _announced: Option<Announced>,
}

/// The runtime that everything runs on.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    without_huge_pages();
    with_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Error::new(format!("cannot start the runtime's threads: {error}")))
}

/// Runs work that may leave threads behind, such as one that reads from a server: they do not keep the process alive.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

/// Huge pages make the allocator's arenas resident in steps of 2 MiB: a host with many idle apps would hold
/// several times the memory it uses.
fn without_huge_pages() {
    // SAFETY: this option takes one flag and no pointer; it changes how the system backs this process' memory.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if result != 0 {
        tracing::debug!("cannot switch huge pages off: {}", std::io::Error::last_os_error());
    }
}

/// Open files that this process might have when it began.
static FILES: OnceLock<libc::rlimit> = OnceLock::new();

/// Gives a program that is about to be started the limit of open files that this process began with: some close all
/// that they might have, and some count on few.
pub(crate) fn with_few_files(command: &mut tokio::process::Command) {
    let Some(limit) = FILES.get().copied() else { return };
    let restore = move || {
        // SAFETY: the pointer leads to a whole `rlimit`, which the call reads.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(restore) };
}

/// Connections and the files of guests are open files of this process: it takes as many as the system lets it have.
/// What a login or a service manager gives at first is often 1024.
fn with_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers lead to a whole `rlimit`, which the first call writes and the second reads.
    let result = unsafe {
        match libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) {
            0 => {
                FILES.get_or_init(|| limit);
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
            }
            failed => failed,
        }
    };
    if result != 0 {
        tracing::debug!("cannot raise the limit of open files: {}", std::io::Error::last_os_error());
    }
}

/// A host with an engine and the user's compile cache. A cache that cannot be used costs speed, not service.
/// Components that it has no use for are logged.
pub(crate) fn host(components: Components, keep_loaded: bool) -> Result<Arc<Host>, Error> {
    let engine = Engine::new(EngineOptions::default())
        .map_err(|error| Error::new(format!("cannot start the WebAssembly engine: {error:#}")))?;
    let cache = match Cache::open(&cache_dir(), Cache::DEFAULT_MAX_BYTES) {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!("{error}; compiling without a cache");
            None
        }
    };
    for component in components.unsupported() {
        tracing::warn!(
            "{}:{}: component {:?} of type {:?} is not part of this version of dhow and ignored",
            component.file.display(),
            component.line,
            component.name,
            component.component_type
        );
    }
    let host = Host::new(HostOptions { engine, cache, components, keep_loaded })
        .map_err(|error| Error::new(error.to_string()))?;
    Ok(host)
}

/// What others have to send, or what to send to others, from a variable of the environment; nothing if it is empty.
pub(crate) fn token(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|token| !token.is_empty())
}

/// Where compiled code is kept: `DHOW_CACHE_DIR`, or `dhow/compiled` in the user's cache folder.
pub(crate) fn cache_dir() -> PathBuf {
    let named = std::env::var_os("DHOW_CACHE_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    named.unwrap_or_else(|| folders::cache().join("compiled"))
}

// === impl Serving ===

impl Serving {
    pub(crate) fn new(host: Arc<Host>) -> Serving {
        let exporter = Exporter::start(&host);
        let servers = JoinSet::new();
        Serving {
            host,
            stop: Stop::default(),
            last: Stop::default(),
            fleet: None,
            servers,
            exporter,
            _announced: None,
        }
    }

    /// Lets the apps be changed while they run.
    pub(crate) fn with_fleet(self, fleet: &Arc<Fleet>) -> Serving {
        Serving { fleet: Some(Arc::clone(fleet)), ..self }
    }

    /// Serves the apps; the answer is the address with the port that the system chose.
    pub(crate) fn ingress(&mut self, address: SocketAddr) -> Result<SocketAddr, Error> {
        let host = Arc::clone(&self.host);
        self.listen(address, Arc::new(Ingress { host }))
    }

    /// Serves one app on a port of its own.
    pub(crate) fn one_app(&mut self, address: SocketAddr, app_id: &str) -> Result<SocketAddr, Error> {
        let face = OneApp { host: Arc::clone(&self.host), app_id: app_id.to_owned() };
        self.listen(address, Arc::new(face))
    }

    /// Serves metrics and health.
    pub(crate) fn management(&mut self, address: SocketAddr) -> Result<SocketAddr, Error> {
        let host = Arc::clone(&self.host);
        let token = std::env::var("DHOW_MANAGEMENT_TOKEN").ok().filter(|token| !token.is_empty());
        let live = self.fleet.clone().map(Live::new).zip(token);
        let (listener, address) = bind(address)?;
        self.servers.spawn(listener.serve(Arc::new(Management { host, live }), self.last.clone(), GRACE));
        Ok(address)
    }

    /// Serves the Dapr API to programs outside. They may use every component and invoke every app.
    pub(crate) async fn dapr(
        &mut self,
        address: SocketAddr,
        api: Arc<dhow_api::dapr::Dapr>,
    ) -> Result<SocketAddr, Error> {
        let scope = self.host.shared_scope(OUTSIDE).await;
        let scope = scope.map_err(|error| Error::new(error.to_string()))?;
        let token = token("DAPR_API_TOKEN");
        self.listen(address, Arc::new(dhow_api::dapr::DaprFace { api, scope, token }))
    }

    /// Makes the host known to `dhow ps` and the like. A host that cannot be announced serves all the same.
    pub(crate) fn announce(&mut self, info: HostInfo) {
        match self.try_announce(info) {
            Ok(announced) => self._announced = Some(announced),
            Err(error) => tracing::warn!("`dhow ps`, `logs` and `stop` will not find this host: {error}"),
        }
    }

    fn try_announce(&mut self, mut info: HostInfo) -> Result<Announced, Error> {
        let path = hosts::control_socket_path(std::process::id())?;
        let failed = |error: std::io::Error| Error::new(format!("{}: {error}", path.display()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        info.control = path.clone();
        let announced = hosts::announce(info)?;
        let live = self.fleet.clone().map(Live::new);
        let control = Control { host: Arc::clone(&self.host), live, stop: self.stop.clone() };
        self.servers.spawn(Listener::Unix(listener).serve(Arc::new(control), self.last.clone(), GRACE));
        Ok(announced)
    }

    fn listen(&mut self, address: SocketAddr, face: Arc<impl Face>) -> Result<SocketAddr, Error> {
        let (listener, address) = bind(address)?;
        self.serve(listener, face);
        Ok(address)
    }

    /// Serves a face on a socket that listens already.
    pub(crate) fn serve(&mut self, listener: Listener, face: Arc<impl Face>) {
        self.servers.spawn(listener.serve(face, self.stop.clone(), GRACE));
    }

    /// Serves until a signal or `dhow stop`, then drains. A second signal ends the process at once.
    pub(crate) async fn until_stopped(mut self, mut signals: Signals) -> Result<(), Error> {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = signals.received() => break,
                () = self.stop.stopped() => break,
                _ = sweep.tick() => self.host.sweep(),
            }
        }
        let under_way = self.host.under_way();
        if under_way > 0 {
            tracing::info!("stopping; {under_way} invocations under way (Ctrl-C again to stop at once)");
        }
        self.stop.stop();
        let drained = async {
            let cut_off = self.host.shut_down(GRACE).await;
            self.last.stop();
            let closed = async { while self.servers.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(LAST_BYTES, closed).await;
            if let Some(exporter) = self.exporter.take() {
                exporter.close(LAST_SPANS).await;
            }
            cut_off
        };
        let cut_off = tokio::select! {
            cut_off = drained => cut_off,
            () = signals.received() => self.host.under_way(),
        };
        if cut_off > 0 {
            tracing::warn!("{cut_off} invocations were cut off");
        }
        Ok(())
    }
}

/// Listens; the answer has the port that the system chose.
fn bind(address: SocketAddr) -> Result<(Listener, SocketAddr), Error> {
    let listener = Listener::tcp(address).map_err(|error| Error::new(error.to_string()))?;
    let address = listener.address().unwrap_or(address);
    Ok((listener, address))
}

/// Keeps a second host away from a data folder, for as long as the file is open.
pub(crate) fn lock(data_dir: &Path) -> Result<std::fs::File, Error> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Error::new(format!(
            "cannot {what} the data folder {}: {error}; choose another one with --data-dir",
            data_dir.display()
        ))
    };
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(data_dir).map_err(|error| failed("make", &error))?;
    let path = data_dir.join("host.lock");
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.as_mut().map_err(|error| failed("write to", error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let owner = std::fs::read_to_string(&path).unwrap_or_default();
            let owner = owner.trim();
            let by = if owner.is_empty() { String::new() } else { format!(" (process {owner})") };
            return Err(failed("use", &format!("another host{by} is running on it")));
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(failed("lock", &error)),
    }
    let written = file
        .set_len(0)
        .and_then(|()| std::io::Write::write_all(file, format!("{}\n", std::process::id()).as_bytes()));
    written.map_err(|error| failed("write to", &error))?;
    file.try_clone().map_err(|error| failed("use", &error))
}
