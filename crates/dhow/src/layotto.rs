//! `dhow layotto`: a host in the place of Layotto, with its configuration and its command line.

use crate::hosts::{self, HostInfo};
use crate::logging::Levels;
use crate::process::Process;
use crate::serve::{self, Serving};
use crate::sidecar::{ANSWER, NoPort};
use crate::signals::{Hangup, Meaning, Signals};
use crate::stop::{self, Stop};
use crate::trust::TrustArgs;
use crate::{Error, elsewhere};
use clap::Subcommand;
use dhow_api::channel::Endpoint;
use dhow_api::channel::grpc::GrpcChannel;
use dhow_api::dapr::{ApiOptions, Dapr};
use dhow_api::functions::FunctionTraffic;
use dhow_api::functions::actuator::Actuator;
use dhow_api::functions::management::FunctionManagement;
use dhow_api::grpc::{GrpcFace, MAX_MESSAGE};
use dhow_api::server::{Face, Listener};
use dhow_blocks::invoke::Channel;
use dhow_host::functions::{FunctionSpec, Functions};
use dhow_host::{App, Components, Host};
use dhow_providers::watch::Changes;
use dhow_resources::layotto::{self, Address, Callback, Runtime};
use dhow_resources::load::Resources;
use dhow_resources::manifest::TrustConfig;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;

/// Between two looks for files that functions wait for, beside what the system tells: a folder may not be there yet.
const LOOK: Duration = Duration::from_secs(1);

/// What `dhow ps` and the like show for such a host.
const COMMAND: &str = "layotto";

/// The id of the program outside, where the configuration gives it none.
const APP: &str = "app";

/// Run functions made for Layotto, from its configuration
#[derive(clap::Args, Debug)]
#[command(after_help = "\
EXAMPLES
  dhow layotto start -c config.json           serve the functions and components of a configuration
  curl -H 'id:id_1' '127.0.0.1:2045?name=x'   call one, where the configuration has the usual port
  dhow layotto reload                         take over changes of the configuration

A program of the name layotto that says `exec dhow layotto \"$@\"` stands in where scripts call it.")]
pub(crate) struct Layotto {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Serve what the configuration says until stopped
    Start {
        /// The configuration
        #[arg(long, short, value_name = "FILE", default_value = "configs/config.json")]
        config: PathBuf,
        /// Where the embedded providers and uploaded modules are kept
        #[arg(long, value_name = "DIR", default_value = ".dhow", env = "DHOW_DATA_DIR")]
        data_dir: PathBuf,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Stop the host that runs
    Stop,
    /// Make the host that runs read its configuration again
    Reload,
}

pub(crate) fn execute(layotto: Layotto, loggers: Arc<Levels>) -> Result<ExitCode, Error> {
    match layotto.action {
        Action::Start { config, data_dir, trust } => {
            serve::runtime()?.block_on(start(config, Some(data_dir), &trust, loggers))
        }
        Action::Stop => stop::execute(&Stop::host(running()?.pid.to_string())),
        Action::Reload => {
            let host = running()?;
            let failed = |error| Error::new(format!("cannot reload process {}: {error}", host.pid));
            Process::open(host.pid).and_then(|process| process.hang_up()).map_err(failed)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether a file that is to be served is one of these.
pub(crate) fn is_configuration(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// The one host of this kind.
fn running() -> Result<HostInfo, Error> {
    let mut hosts = hosts::list()?;
    hosts.retain(|host| host.command == COMMAND);
    match hosts.as_slice() {
        [host] => Ok(host.clone()),
        [] => Err(Error::new("no host is running; start one with `dhow layotto start -c FILE`")),
        several => {
            let names: Vec<String> =
                several.iter().map(|host| format!("{} ({})", host.name, host.pid)).collect();
            let names = names.join(", ");
            Err(Error::new(format!("several hosts are running: {names}; name one: `dhow stop NAME`")))
        }
    }
}

/// Serves a configuration until the host is stopped.
pub(crate) async fn start(
    file: PathBuf,
    data_dir: Option<PathBuf>,
    trust: &TrustArgs,
    loggers: Arc<Levels>,
) -> Result<ExitCode, Error> {
    let configuration = load(&file)?;
    let data_dir = data_dir.unwrap_or_else(|| ".dhow".into());
    let _lock = serve::lock(&data_dir)?;
    let resources = Resources { components: configuration.components().to_vec(), ..Resources::default() };
    let host = serve::host(Components::new(resources, &data_dir), false)?;
    host.trust_in(trust.load(&TrustConfig::default())?).await;
    let mut serving = Serving::new(Arc::clone(&host));
    let api = Dapr::new(&host, None, ApiOptions::default());
    host.serve_runtime_api(Arc::clone(&api) as _);
    let app = outside(&configuration.runtime, &host).await?;
    let functions = Functions::new(&host, data_dir.join("functions"), vec![Arc::clone(&app)]);

    // Ports first: one that is taken is known before minutes of compiling.
    let runtime = GrpcFace::new(api, Arc::clone(app.scope()), serve::token("DAPR_API_TOKEN"), MAX_MESSAGE);
    let runtime = Arc::new(runtime.with_hellos(configuration.runtime.hellos.clone()));
    let faces = Faces { serving: &mut serving, host: &host, functions: &functions, runtime, loggers };
    let (addr, lines) = faces.listen(&configuration)?;
    let mut hangup = Hangup::listen()?;
    let files = specs(&configuration).into_iter().map(|spec| spec.source).filter_map(path);
    let mut changes = Changes::watch(files);
    configure(&functions, &configuration).await?;
    functions.restore().await.map_err(|error| Error::new(error.to_string()))?;
    if let Some(callback) = configuration.runtime.callback.clone() {
        tokio::spawn(call_back(callback, Arc::clone(&host), app));
    }
    let ids: Vec<String> = functions.list().await.into_iter().filter_map(|function| function.id).collect();
    let names = elsewhere::join(&mut serving, &ids, None).await?;

    let folder = std::path::absolute(&file).ok();
    let name = folder.and_then(|file| Some(file.parent()?.file_name()?.to_string_lossy().into_owned()));
    let mut info = HostInfo::new(COMMAND, name.as_deref().unwrap_or(COMMAND), &data_dir);
    info.addr = addr;
    let signals = Signals::listen_but_hangup()?;
    let stop = serving.stop.clone();
    serving.announce(info);
    tell(&functions, addr, &lines).await;

    let watched = Arc::clone(&functions);
    tokio::spawn(async move {
        loop {
            let waits = watched.is_waiting().await;
            tokio::select! {
                () = changes.changed() => watched.refresh().await,
                () = watched.changed() => {}
                () = tokio::time::sleep(LOOK), if waits => watched.refresh().await,
                meaning = hangup.received() => {
                    if meaning == Meaning::End {
                        stop.stop();
                        return;
                    }
                    let reloaded = async { configure(&watched, &load(&file)?).await };
                    match reloaded.await {
                        Ok(()) => tracing::info!("reloaded {}", file.display()),
                        Err(error) => tracing::error!("not reloaded, the functions that run stay: {error}"),
                    }
                }
            }
            changes.follow(watched.files().await);
        }
    });
    let ended = serving.until_stopped(signals).await;
    if let Some(names) = names {
        names.close().await;
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// The program outside that uses the runtime's API, and may be called back.
async fn outside(runtime: &Runtime, host: &Arc<Host>) -> Result<Arc<App>, Error> {
    let app_id = runtime.app_id.as_deref().unwrap_or(APP);
    let channel: Arc<dyn Channel> = match &runtime.callback {
        None => Arc::new(NoPort { app_id: app_id.to_owned() }),
        Some(Callback { host: name, port }) => {
            let endpoint = Endpoint {
                app_id: app_id.into(),
                host: name.clone(),
                port: *port,
                tls: false,
                token: None,
                deadline: ANSWER,
            };
            let channel = GrpcChannel::new(endpoint, MAX_MESSAGE);
            let channel = channel.map_err(|reason| Error::new(format!("grpc_callback_host: {reason}")))?;
            Arc::new(channel.counted(host.metrics().grpc_client(app_id)))
        }
    };
    let app = host.prepare_native(app_id, channel, None).await;
    app.map_err(|error| Error::new(error.to_string()))
}

/// Asks the app outside what it subscribes to, once it listens.
async fn call_back(callback: Callback, host: Arc<Host>, app: Arc<App>) {
    while tokio::net::TcpStream::connect((callback.host.as_str(), callback.port)).await.is_err() {
        if host.is_stopping() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    host.listen_for(&app).await;
}

fn load(file: &Path) -> Result<layotto::Layotto, Error> {
    let configuration = layotto::Layotto::load(file).map_err(|error| Error::new(error.to_string()))?;
    for unused in &configuration.unused {
        tracing::warn!("{}: {unused}", file.display());
    }
    Ok(configuration)
}

fn specs(configuration: &layotto::Layotto) -> Vec<FunctionSpec> {
    configuration.functions.iter().map(FunctionSpec::new).collect()
}

fn path(source: dhow_artifacts::Source) -> Option<PathBuf> {
    match source {
        dhow_artifacts::Source::Path(path) => Some(path),
        _ => None,
    }
}

async fn configure(functions: &Functions, configuration: &layotto::Layotto) -> Result<(), Error> {
    functions.configure(specs(configuration)).await.map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Error::new(errors.join("\n"))
    })
}

/// What is served where.
struct Faces<'a> {
    serving: &'a mut Serving,
    host: &'a Arc<Host>,
    functions: &'a Arc<Functions>,
    runtime: Arc<GrpcFace>,
    loggers: Arc<Levels>,
}

impl Faces<'_> {
    /// Listens wherever the configuration says. The answers are the first address of functions, and what to tell of the
    /// others.
    fn listen(
        mut self,
        configuration: &layotto::Layotto,
    ) -> Result<(Option<SocketAddr>, Vec<String>), Error> {
        let mut lines = Vec::new();
        let mut first = None;
        for address in &configuration.function_listeners {
            let at = self.face(address, Arc::new(FunctionTraffic { host: Arc::clone(self.host) }))?;
            if let Address::Tcp(at) = at {
                first.get_or_insert(at);
            }
        }
        let token = serve::token("DHOW_FUNCTIONS_TOKEN");
        for address in &configuration.management_listeners {
            let is_local = is_local(address);
            if !is_local && token.is_none() {
                tracing::warn!(
                    "everybody who reaches {address} may install functions on this host; \
                     set DHOW_FUNCTIONS_TOKEN, or listen on 127.0.0.1"
                );
            }
            let face = FunctionManagement::new(Arc::clone(self.functions), token.clone(), is_local);
            lines.push(format!("management: {}", shown(&self.face(address, Arc::new(face))?, "/wasm/list")));
        }
        for address in &configuration.actuator_listeners {
            let actuator = Actuator {
                host: Arc::clone(self.host),
                loggers: Arc::clone(&self.loggers) as _,
                token: token.clone(),
                is_local: is_local(address),
            };
            let at = self.face(address, Arc::new(actuator))?;
            lines.push(format!("actuator: {}", shown(&at, "/actuator/info")));
        }
        for address in &configuration.runtime_listeners {
            if !is_local(address) && serve::token("DAPR_API_TOKEN").is_none() {
                tracing::warn!(
                    "everybody who reaches {address} may use all components; set DAPR_API_TOKEN, or listen on 127.0.0.1"
                );
            }
            let runtime = Arc::clone(&self.runtime);
            lines.push(format!("runtime (gRPC): {}", shown(&self.face(address, runtime)?, "")));
        }
        if let Some(port) = configuration.metrics_port {
            let at = self.serving.management((Ipv4Addr::UNSPECIFIED, port).into())?;
            lines.push(format!("metrics: http://{at}/metrics"));
        }
        Ok((first, lines))
    }

    /// Serves a face; the answer has the port that the system chose.
    fn face(&mut self, address: &Address, face: Arc<impl Face>) -> Result<Address, Error> {
        let failed = |error: std::io::Error| Error::new(error.to_string());
        let (listener, at) = match address {
            Address::Tcp(address) => {
                let listener = Listener::tcp(*address).map_err(failed)?;
                let at = Address::Tcp(listener.address().unwrap_or(*address));
                (listener, at)
            }
            Address::Unix(path) => {
                let failed = |error: std::io::Error| Error::new(format!("{}: {error}", path.display()));
                // A host that was killed left its socket.
                if std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                (Listener::Unix(UnixListener::bind(path).map_err(failed)?), address.clone())
            }
        };
        self.serving.serve(listener, face);
        Ok(at)
    }
}

fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}

fn shown(address: &Address, path: &str) -> String {
    match address {
        Address::Tcp(address) => format!("http://{address}{path}"),
        Address::Unix(_) => address.to_string(),
    }
}

async fn tell(functions: &Functions, addr: Option<SocketAddr>, lines: &[String]) {
    let functions = functions.list().await;
    let count = functions.len();
    let at = addr.map_or_else(String::new, |addr| format!(" on http://{addr}"));
    let plural = if count == 1 { "" } else { "s" };
    crate::say(format_args!("{count} function{plural} up{at} (Ctrl-C stops)"));
    for function in functions.iter().take(20) {
        let id =
            function.id.as_ref().map_or_else(|| "waits for its file".to_owned(), |id| format!("id {id}"));
        crate::say(format_args!("  {}: {id}", function.name));
    }
    for line in lines {
        crate::say(format_args!("  {line}"));
    }
}
