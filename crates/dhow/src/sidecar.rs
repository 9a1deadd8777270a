//! A program outside and the host beside it: what `dhow run -- command` starts, and each app of a `dapr.yaml`.
//!
//! The program finds the API at the ports that its environment names, as it would with Dapr's own sidecar; the
//! host finds the program at the port that it was told. Both end together.
//!
//! | file | subject |
//! |---|---|
//! | `ports` | where the host listens |
//! | `program` | the program: environment, output, signals, exit code |
//! | `health` | whether the program listens, and whether it is well |

mod health;
mod ports;
mod program;

use crate::hosts::HostInfo;
use crate::serve::{self, Serving};
use crate::signals::Signals;
use crate::{Error, elsewhere, process};
use dhow_api::channel::Endpoint;
use dhow_api::channel::grpc::GrpcChannel;
use dhow_api::channel::http::HttpChannel;
use dhow_api::dapr::{ApiOptions, AppConnection, AppHealth, Dapr, DaprFace};
use dhow_api::grpc::{GrpcFace, MAX_MESSAGE};
use dhow_api::server::Stop;
use dhow_blocks::invoke::{Channel, Invocation, InvokeError, Reply};
use dhow_blocks::resolve::NameResolver;
use dhow_host::{App, Components, Host};
use dhow_resources::multi_app::{self, AppProtocol};
use ports::Ports;
use program::Program;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// From a request to the head of the program's answer. Dapr sets no limit; this one only ends what hangs.
pub(crate) const ANSWER: Duration = Duration::from_secs(3600);

/// A program has this long to end when it is told to, before it is killed (Dapr's default).
const GRACE: Duration = Duration::from_secs(5);

/// A host beside a program.
pub(crate) struct Sidecar {
    host: Arc<Host>,
    api: Arc<Dapr>,
    app: Arc<App>,
    program: Option<Program>,
    serving: Serving,
    spec: multi_app::App,
    ports: Ports,
    names: Option<Arc<dyn NameResolver>>,
    /// The way to the program.
    channel: Arc<dyn Channel>,
    /// Before the program starts, so that none comes when nobody looks after it.
    signals: Signals,
}

/// Stands where a program has no port: it can use the API, and cannot be reached.
pub(crate) struct NoPort {
    pub(crate) app_id: String,
}

#[async_trait::async_trait]
impl Channel for NoPort {
    async fn invoke(&self, _: Invocation) -> Result<Reply, InvokeError> {
        let reason = "it has no port; tell it with --app-port".to_owned();
        Err(InvokeError::Unreachable { app_id: self.app_id.clone(), reason })
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Opens the components and the ports, and starts the program. `label` stands before each line that the
    /// program prints.
    pub(crate) async fn start(spec: multi_app::App, data_dir: &Path, label: &str) -> Result<Sidecar, Error> {
        let signals = Signals::listen()?;
        let resources = crate::up::read_resources(&spec.resources, spec.config.as_deref())?;
        let host = serve::host(Components::new(resources, data_dir), false)?;
        let running = spec.max_concurrency.map(|count| count as usize);
        let channel = channel(&spec, &host)?;
        let app = host.prepare_native(&spec.app_id, Arc::clone(&channel), running).await;
        let app = app.map_err(|error| Error::new(error.to_string()))?;
        host.replace(vec![Arc::clone(&app)]);

        let mut serving = Serving::new(Arc::clone(&host));
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let usual = ApiOptions::default();
        let options = ApiOptions {
            log: spec.api_logging,
            max_body: spec.max_body.map_or(usual.max_body, bytes),
            max_head: spec.read_buffer.map_or(usual.max_head, bytes),
        };
        let api = Dapr::new(&host, Some(serving.stop.clone()), options);
        api.set_ready(spec.app_port.is_none());
        host.serve_runtime_api(Arc::clone(&api) as _);
        if let Some(connection) = connection(&spec) {
            api.connect(&spec.app_id, connection);
        }
        let token = serve::token("DAPR_API_TOKEN");
        let max_message = spec.max_body.map_or(MAX_MESSAGE, bytes);
        let scope = Arc::clone(app.scope());
        let grpc = GrpcFace::new(Arc::clone(&api), Arc::clone(&scope), token.clone(), max_message);
        let http = DaprFace { api: Arc::clone(&api), scope: Arc::new(scope.into()), token };
        let ports = ports::open(&mut serving, &spec, Arc::new(http), Arc::new(grpc))?;
        let info = HostInfo::new("run", &spec.app_id, data_dir);
        let info = info.with_api_addr(ports.http).with_management_addr(ports.metrics);
        serving.announce(info.with_program(ports.grpc, spec.app_port, &spec.command));

        let app_ids = [spec.app_id.clone()];
        let names = elsewhere::join(&mut serving, &app_ids, spec.internal_grpc_port).await?;
        let program = Program::start(&spec, &ports, label)?;
        process::forget_start_up();
        Ok(Sidecar { host, api, app, program, serving, spec, ports, names, channel, signals })
    }

    /// Where the API is, for people.
    pub(crate) fn describe(&self) -> String {
        let Ports { http, grpc, metrics, .. } = &self.ports;
        let part = |name: &str, address: &Option<std::net::SocketAddr>| {
            address.map(|address| format!(" {name} {address}")).unwrap_or_default()
        };
        format!(
            "{}:{}{}{}",
            self.spec.app_id,
            part("HTTP", http),
            part("gRPC", grpc),
            part("metrics", metrics)
        )
    }

    /// Tells it to end.
    pub(crate) fn stop(&self) -> Stop {
        self.serving.stop.clone()
    }

    /// Runs until the program ends, somebody ends the host, or a signal comes; then ends the other, too. The
    /// answer is the program's exit code.
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        let Sidecar {
            host,
            api,
            app,
            mut program,
            serving,
            spec,
            names,
            ports: _ports,
            channel,
            mut signals,
        } = self;
        let stop = serving.stop.clone();
        let watching = tokio::spawn(health::watch(Arc::clone(&host), api, Arc::clone(&app), channel, spec));
        let code = {
            let ended = async {
                match &mut program {
                    Some(program) => program.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                code = ended => Some(code),
                // Before the other, so that one signal that did both counts once.
                () = signals.received() => None,
                () = stop.stopped() => None,
            }
        };
        watching.abort();
        let code = match (code, &mut program) {
            (Some(code), _) => code,
            // The program may still use the API while it ends, and gets nothing new.
            (None, Some(program)) => {
                let quiet = host.triggers().set_well(&host, &app, false);
                if tokio::time::timeout(GRACE, quiet).await.is_err() {
                    tracing::debug!("app {} still handles events while it is told to end", app.app_id);
                }
                tokio::select! {
                    code = program.end(GRACE) => code,
                    () = signals.interrupted() => program.kill().await,
                }
            }
            (None, None) => 0,
        };
        stop.stop();
        if let Some(names) = names {
            names.close().await;
        }
        serving.until_stopped(signals).await?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}

/// The way to the program, as the API tells it.
fn connection(spec: &multi_app::App) -> Option<AppConnection> {
    let is_grpc = matches!(spec.app_protocol, AppProtocol::Grpc | AppProtocol::Grpcs);
    Some(AppConnection {
        port: spec.app_port?,
        protocol: program::protocol(spec.app_protocol).to_owned(),
        channel_address: spec.app_channel_address.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
        max_concurrency: spec.max_concurrency.unwrap_or_default(),
        health: spec.health_check.as_ref().map(|check| AppHealth {
            path: if is_grpc { String::new() } else { check.path.clone() },
            interval: check.interval,
            timeout: check.timeout,
            threshold: check.threshold,
        }),
    })
}

/// The way to the program.
fn channel(spec: &multi_app::App, host: &Host) -> Result<Arc<dyn Channel>, Error> {
    let Some(port) = spec.app_port else {
        return Ok(Arc::new(NoPort { app_id: spec.app_id.clone() }));
    };
    let protocol = spec.app_protocol;
    let endpoint = Endpoint {
        app_id: spec.app_id.as_str().into(),
        host: spec.app_channel_address.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
        port,
        tls: matches!(protocol, AppProtocol::Https | AppProtocol::Grpcs),
        token: serve::token("APP_API_TOKEN"),
        deadline: ANSWER,
    };
    let max_message = spec.max_body.map_or(MAX_MESSAGE, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let channel = match protocol {
        AppProtocol::Grpc | AppProtocol::Grpcs => {
            let meter = host.metrics().grpc_client(&spec.app_id);
            let channel = GrpcChannel::new(endpoint, max_message).map(|channel| channel.counted(meter));
            channel.map(|channel| Arc::new(channel) as Arc<dyn Channel>)
        }
        AppProtocol::Http | AppProtocol::Https | AppProtocol::H2c => {
            let http2 = protocol == AppProtocol::H2c;
            HttpChannel::new(endpoint, http2).map(|channel| Arc::new(channel) as Arc<dyn Channel>)
        }
    };
    channel.map_err(|reason| Error::new(format!("app {}: {reason}", spec.app_id)))
}
