//! `dhow run`: one module, as a program or as a service.

mod native;

use crate::hosts::HostInfo;
use crate::registries::FetchingOne;
use crate::serve::{self, Serving};
use crate::signals::Signals;
use crate::trust::{TrustArgs, not_for_programs};
use crate::{Error, text};
use dhow_artifacts::Source;
use dhow_artifacts::reference::Reference;
use dhow_artifacts::sniff::sniff;
use dhow_blocks::grants::HostPattern;
use dhow_blocks::invoke::InvokeError;
use dhow_guest::{Directory, Ports, Stdio};
use dhow_host::service::DRAIN;
use dhow_host::{App, AppSpec, Components, Fleet, Host, Module, PrepareError};
use dhow_providers::watch::Changes;
use dhow_resources::manifest::TrustConfig;
use dhow_resources::multi_app::{self, MultiApp};
use dhow_resources::units::{parse_address, parse_duration, parse_size};
use indicatif::{ProgressBar, ProgressStyle};
use native::Native;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Run one module, or a program with Dapr's API beside it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
EXAMPLES
  dhow run hello.wasm                             serve an HTTP component on http://127.0.0.1:8080
  dhow run tool.wasm -- --verbose input.txt       run a program with arguments
  dhow run tool.wasm --dir data::/data:rw         let it write to ./data, which it sees as /data
  dhow run app.wasm --allow-host api.example.com  let it send requests to one host
  dhow run app.wasm --grant state=statestore      let it keep state
  dhow run oci://ghcr.io/acme/orders:^1.2         pull it from a registry first
  cat hello.wasm | dhow run -                     read the module from standard input
  dhow run --app-id orders --app-port 3000 -- node app.js
                                                  run a program outside, with Dapr's API beside it

Nothing is allowed that is not granted. `dhow inspect FILE` tells what a module will ask for.")]
pub(crate) struct Run {
    /// WebAssembly component or module (binary or text), URL, reference to a registry (oci://…), or - for standard
    /// input; none to run a program outside, or the sidecar alone
    #[arg(value_name = "FILE|URL|-")]
    module: Vec<String>,
    /// Arguments of the module; without a module: a program outside and its arguments
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
    /// Identity of the app; default: the file's name
    #[arg(long, short = 'a', value_name = "ID")]
    app_id: Option<String>,
    /// Environment variable; without =VALUE it is taken from this process (repeatable)
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Folder that the guest sees, read-only unless it ends in :rw (repeatable)
    #[arg(long, value_name = "HOST[::GUEST][:rw]")]
    dir: Vec<String>,
    /// Host that HTTP requests may go to: name, *.name, [scheme://]name[:port], or * (repeatable)
    #[arg(long, value_name = "PATTERN")]
    allow_host: Vec<HostPattern>,
    /// What else is allowed: state=NAME, publish=NAME[/TOPIC], subscribe=NAME[/TOPIC], invoke=APP, bindings=NAME,
    /// secrets=NAME[/SECRET], configuration=NAME, lock=NAME, sequencer=NAME, blob=NAME, cryption=NAME, email=NAME,
    /// jobs=NAME, update=APP, http=HOST, connect=ADDRESS[:PORT], listen=ADDRESS[:PORT] (repeatable)
    #[arg(long, value_name = "KIND=PATTERN")]
    grant: Vec<String>,
    /// Configuration value that the guest reads through wasi:config (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    config_value: Vec<String>,
    /// Where an HTTP component is served; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080", env = "DHOW_ADDR", value_parser = parse_address)]
    addr: SocketAddr,
    /// Largest memory of an instance, e.g. 64MiB
    #[arg(long, value_name = "SIZE", value_parser = size_above_zero)]
    memory: Option<u64>,
    /// Longest time of one request, or of the whole program; default 30s for requests, none for programs
    #[arg(long, value_name = "DURATION", value_parser = time_above_zero)]
    timeout: Option<Duration>,
    /// Requests at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Requests that one instance serves before it is thrown away; default 1, for proxy-wasm modules as many as come
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    reuse: Option<u32>,
    /// Folders with Dapr resource files (repeatable); default: resources/ if it is there
    #[arg(long, value_name = "DIR")]
    resources_path: Vec<PathBuf>,
    /// Where the embedded providers keep their files [default: .dhow, with -f beside the dapr.yaml]
    #[arg(long, value_name = "DIR", env = "DHOW_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Serve the new version when the file changes; requests under way finish in the old one
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    fetching: FetchingOne,
    #[command(flatten)]
    native: Native,
    #[command(flatten)]
    trust: TrustArgs,
}

fn size_above_zero(text: &str) -> Result<u64, &'static str> {
    parse_size(text).and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err("expected more than 0") })
}

fn time_above_zero(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).and_then(|time| if time.is_zero() { Err("expected more than 0") } else { Ok(time) })
}

pub(crate) fn execute(run: Run) -> Result<ExitCode, Error> {
    serve::runtime()?.block_on(run.start())
}

/// Runs all apps of a `dapr.yaml`. Their embedded providers keep their files in one folder, beside it where none is
/// named.
pub(crate) async fn run_all(file: &Path, data_dir: Option<&Path>) -> Result<ExitCode, Error> {
    native::run_all(file, data_dir).await
}

/// The apps of a `dapr.yaml`, which may be named by its folder.
pub(crate) fn apps_of(file: &Path) -> Result<Vec<multi_app::App>, Error> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let apps = MultiApp::load(file, home.as_deref()).map_err(|error| Error::new(error.to_string()))?;
    Ok(apps.apps)
}

/// What logs are to show, if the command line says it in Dapr's way.
pub(crate) fn log_level(run: &Run) -> Option<&str> {
    run.native.log_level()
}

// === impl Run ===

impl Run {
    async fn start(self) -> Result<ExitCode, Error> {
        if let Some(file) = self.native.run_file() {
            if let Some(flag) = self.trust.any() {
                return Err(not_for_programs(flag));
            }
            return native::run_all(file, self.data_dir.as_deref()).await;
        }
        match self.module.as_slice() {
            [module] if self.is_module(module) => self.run_module(module).await,
            words => {
                if let Some(flag) = self.trust.any() {
                    return Err(not_for_programs(flag));
                }
                if let [module, args @ ..] = words
                    && is_wasm(Path::new(module))
                {
                    return Err(Error::usage(format!(
                        "{module} is a module, and what follows is no program: put its arguments behind --, as in \
                         `dhow run {module} -- {}`",
                        args.join(" ")
                    )));
                }
                // `dapr run` takes the command without the dashes, too.
                let command = words.iter().chain(&self.args).cloned().collect();
                let app_id = self.app_id.as_deref();
                let app = self.native.app(app_id, command, self.environment()?, &self.resources_path)?;
                native::run(app, self.data_dir()).await
            }
        }
    }

    fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(".dhow"))
    }

    /// Whether the one word before the dashes is a module. What is neither a file nor a program is taken for one,
    /// so that the error speaks of the file.
    fn is_module(&self, word: &str) -> bool {
        if !self.args.is_empty() || word.contains("://") || word == "-" || Path::new(word).is_file() {
            return true;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        word.contains('/') || !std::env::split_paths(&path).any(|folder| folder.join(word).is_file())
    }

    async fn run_module(self: &Run, module: &str) -> Result<ExitCode, Error> {
        if let Some(flag) = self.native.meaningless_for_modules() {
            return Err(Error::usage(format!(
                "{flag} is for programs outside; {module} is a module, which runs in the host itself"
            )));
        }
        let spec = self.spec(module)?;
        let dirs = self.native.resources(&self.resources_path);
        let resources = crate::up::read_resources(&dirs, self.native.config()).map_err(Error::too_early)?;
        let host =
            serve::host(Components::new(resources, self.data_dir()), true).map_err(Error::too_early)?;
        host.trust_in(self.trust.load(&TrustConfig::default()).map_err(Error::too_early)?).await;
        host.serve_runtime_api(dhow_api::dapr::Dapr::new(&host, None, dhow_api::dapr::ApiOptions::default()));
        // Before the file is read: what changes from now on is noticed.
        let changes = match &spec.source {
            Source::Path(path) if self.watch => Some(Changes::watch([path.clone()])),
            Source::Url(_) | Source::Oci(_) | Source::Stdin if self.watch => {
                return Err(Error::usage("--watch needs a file, not a URL, a registry or standard input"));
            }
            _ => None,
        };
        let progress = spinner(&format!("Preparing {}", spec.source));
        let app = prepare(&host, &spec, 1, told(&progress, &spec.source)).await;
        progress.finish_and_clear();
        let app = app.map_err(|error| Error::before_guest(error.to_string()))?;
        if app.module().is_some_and(|module| module.program.inspection.abi.is_command()) {
            if self.watch {
                return Err(Error::usage(
                    "--watch is for services; this module is a program that ends by itself",
                ));
            }
            let code = run_program(&app, &self.args).await?;
            host.shut_down(serve::GRACE).await;
            return match code {
                Some(Ok(code)) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
                Some(Err(error)) => Err(Error::invocation(&error)),
                None => Err(Error::new("the module is no program")),
            };
        }
        if !self.args.is_empty() {
            return Err(Error::usage("arguments are for programs; this module serves HTTP"));
        }
        // The command line says what runs: what is changed meanwhile lasts as long as this.
        let fleet =
            Fleet::new(&host, None, self.fetching.access()).map_err(|error| Error::new(error.to_string()))?;
        fleet.adopt(spec.clone(), Arc::clone(&app)).await;
        let mut serving = Serving::new(Arc::clone(&host)).with_fleet(&fleet);
        let addr = serving.ingress(self.addr).map_err(Error::too_early)?;
        let signals = Signals::listen()?;
        serving.announce(HostInfo::new("run", &app.app_id, self.data_dir()).with_addr(addr));
        crate::say(format_args!("Serving {} on http://{addr} (Ctrl-C stops)", spec.source));
        if let Some(mut changes) = changes {
            tokio::spawn(async move {
                loop {
                    changes.changed().await;
                    match configure(&fleet, &spec).await {
                        Ok(0) => {}
                        Ok(_) => tracing::info!("serving the new version of {}", spec.source),
                        Err(error) => tracing::error!("keeping the version that runs: {error}"),
                    }
                }
            });
        }
        serving.until_stopped(signals).await?;
        Ok(ExitCode::SUCCESS)
    }

    /// The variables that the command line names.
    fn environment(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut variables = BTreeMap::new();
        for variable in &self.env {
            match variable.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    variables.insert(name.to_owned(), value.to_owned());
                }
                Some(_) => return Err(Error::usage(format!("--env {variable}: the name is empty"))),
                None => match std::env::var(variable) {
                    Ok(value) => {
                        variables.insert(variable.clone(), value);
                    }
                    Err(_) => {
                        return Err(Error::usage(format!(
                            "--env {variable}: this process has no such variable"
                        )));
                    }
                },
            }
        }
        Ok(variables)
    }

    fn spec(&self, module: &str) -> Result<AppSpec, Error> {
        let source = self.fetching.source(module)?;
        let app_id = match &self.app_id {
            Some(app_id) => app_id.clone(),
            None => app_id(&source),
        };
        let mut spec = AppSpec::new(app_id, source);
        spec.routes = vec!["/".to_owned()];
        spec.reuse = self.reuse;
        spec.env = self.environment()?;
        for value in &self.config_value {
            let Some((name, value)) = value.split_once('=') else {
                return Err(Error::usage(format!("--config-value {value}: expected NAME=VALUE")));
            };
            spec.config.insert(name.to_owned(), value.to_owned());
        }
        for text in &self.dir {
            let failed = |reason: &str| Error::usage(format!("--dir {text}: {reason}"));
            let dir = directory(text)
                .ok_or_else(|| failed("expected HOST::GUEST, with :rw behind it for writing"))?;
            if spec.dirs.iter().any(|known| known.guest == dir.guest) {
                return Err(failed(&format!("the guest path {} is given twice", dir.guest)));
            }
            spec.dirs.push(dir);
        }
        spec.grants.http = self.allow_host.clone();
        for grant in &self.grant {
            let failed = |reason: &dyn std::fmt::Display| Error::usage(format!("--grant {grant}: {reason}"));
            let Some((kind, pattern)) = grant.split_once('=') else {
                return Err(failed(&"expected KIND=PATTERN, e.g. state=statestore"));
            };
            spec.grants.allow(kind, pattern).map_err(|error| failed(&error))?;
        }
        if let Some(memory) = self.memory {
            spec.bounds.engine.memory = usize::try_from(memory).unwrap_or(usize::MAX);
        }
        if let Some(timeout) = self.timeout {
            spec.bounds.deadline = timeout;
            spec.bounds.program = timeout;
        }
        if let Some(concurrency) = self.concurrency {
            spec.admission.running = concurrency as usize;
        }
        Ok(spec)
    }
}

/// Runs a program to its end. One that listens is drained at the first Ctrl-C: its ports close, and connections under
/// way end.
async fn run_program(app: &Arc<App>, args: &[String]) -> Result<Option<Result<i32, InvokeError>>, Error> {
    let ports = Ports::new();
    let mut signals = app.service().is_some().then(Signals::listen).transpose()?;
    // On a thread of the runtime: beside this one, another would wake for every packet that it waits for.
    let mut running = tokio::spawn({
        let (app, args, ports) = (Arc::clone(app), args.to_vec(), Arc::clone(&ports));
        async move { app.run(&args, Stdio::Inherit, &ports).await }
    });
    let stopped = async {
        let Some(signals) = &mut signals else { return std::future::pending().await };
        signals.received().await;
        ports.close();
        tokio::select! {
            _ = tokio::time::timeout(DRAIN, ports.quiet()) => {}
            () = signals.received() => {}
        }
    };
    tokio::select! {
        code = &mut running => code.map_err(|error| Error::new(format!("the program was lost: {error}"))),
        () = stopped => {
            running.abort();
            Ok(Some(Ok(0)))
        }
    }
}

/// Serves the one app; the answer is whether anything changed.
async fn configure(fleet: &Arc<Fleet>, spec: &AppSpec) -> Result<usize, String> {
    let configured = fleet.configure(vec![spec.clone()], |_| Vec::new(), |_| {}).await;
    configured.map_err(|errors| errors.join("\n"))
}

async fn prepare(
    host: &Arc<Host>,
    spec: &AppSpec,
    version: u64,
    progress: impl FnMut(u64, Option<u64>) + Send,
) -> Result<Arc<App>, PrepareError> {
    let module = Module::read_with(&spec.source, progress).await.map(Arc::new);
    host.prepare(spec.clone(), module, version).await
}

/// The file's name without its ending.
fn app_id(source: &Source) -> String {
    let name = match source {
        Source::Path(path) => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
        Source::Url(url) => url.split(['?', '#']).next().and_then(|url| {
            let file = url.rsplit('/').next()?;
            Some(file.split('.').next().unwrap_or(file).to_owned())
        }),
        Source::Oci(source) => {
            source.reference.parse::<Reference>().ok().map(|found| found.name().to_owned())
        }
        Source::Stdin => None,
    };
    harmless(&name.unwrap_or_default())
}

/// An app-id out of a file's name.
fn harmless(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

/// Whether a file is a module by its name or its beginning.
fn is_wasm(file: &Path) -> bool {
    let begins = || {
        use std::io::Read;
        let mut beginning = Vec::new();
        std::fs::File::open(file).and_then(|file| file.take(1024).read_to_end(&mut beginning)).is_ok()
            && sniff(&beginning).is_wasm()
    };
    let is_named = file.extension().is_some_and(|end| end == "wasm" || end == "wat");
    file.is_file() && (is_named || begins())
}

/// `HOST`, `HOST::GUEST`, either with `:rw` behind.
fn directory(text: &str) -> Option<Directory> {
    let (text, writable) = match text.strip_suffix(":rw") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (host, guest) = match text.split_once("::") {
        // Other programs' `:ro` is the default here.
        Some((host, guest)) if !guest.contains(':') => (host, guest),
        Some(_) => return None,
        None => (text, text),
    };
    Some(Directory { host: host.into(), guest: guest.to_owned(), writable })
}

/// Shows how far a download is; then the module is compiled.
fn told(progress: &ProgressBar, source: &Source) -> impl FnMut(u64, Option<u64>) + Send + 'static {
    let (progress, source) = (progress.clone(), source.to_string());
    move |received, total| match total {
        Some(total) if received < total => {
            let (received, total) = (text::size(received), text::size(total));
            progress.set_message(format!("Downloading {source}: {received} of {total}"));
        }
        _ => progress.set_message(format!("Preparing {source}")),
    }
}

/// Shown on a terminal when the work takes long enough to be seen.
pub(crate) fn spinner(message: &str) -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        progress.set_style(style);
    }
    progress.set_message(message.to_owned());
    progress.enable_steady_tick(Duration::from_millis(200));
    progress
}
