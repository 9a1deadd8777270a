//! `dhow run -- command`: the flags of `dapr run`, with the same meaning.

use crate::Error;
use crate::sidecar::Sidecar;
use crate::signals::Signals;
use dhow_resources::multi_app::{App, AppProtocol, HealthCheck, LogDestination};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How a program outside is run, and spoken with.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Programs outside (the flags of `dapr run`)")]
pub(super) struct Native {
    /// Port that the program listens on
    #[arg(long, short = 'p', value_name = "PORT")]
    app_port: Option<i32>,
    /// What the program speaks: http, https, grpc, grpcs or h2c
    #[arg(long, short = 'P', value_name = "PROTOCOL", default_value = "http", value_parser = protocol)]
    app_protocol: AppProtocol,
    /// Address that the program listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    app_channel_address: String,
    /// Requests that the program takes at once; -1 sets no limit
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    app_max_concurrency: i32,
    /// The program speaks TLS
    #[arg(long, hide = true)]
    app_ssl: bool,
    /// Port of the HTTP API [default: 3500, or any if it is taken]
    #[arg(long, short = 'H', value_name = "PORT", allow_negative_numbers = true)]
    dapr_http_port: Option<i32>,
    /// Port of the gRPC API [default: 50001, or any if it is taken]
    #[arg(long, short = 'G', value_name = "PORT", allow_negative_numbers = true)]
    dapr_grpc_port: Option<i32>,
    /// Port that other hosts reach this one on [default: any]
    #[arg(long, short = 'I', value_name = "PORT", allow_negative_numbers = true)]
    dapr_internal_grpc_port: Option<i32>,
    /// Port of the metrics [default: 9090, or any if it is taken]
    #[arg(long, short = 'M', value_name = "PORT", allow_negative_numbers = true)]
    metrics_port: Option<i32>,
    /// Addresses that the API listens on, with commas between them [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    dapr_listen_addresses: Vec<String>,
    /// Folder of Unix sockets that take the place of the API's ports
    #[arg(long, short = 'u', value_name = "DIR")]
    unix_domain_socket: Option<PathBuf>,
    /// Configuration resource (tracing, secret scopes, API access)
    #[arg(long, short = 'c', value_name = "FILE")]
    config: Option<PathBuf>,
    /// The older name of --resources-path
    #[arg(long, short = 'd', value_name = "DIR", hide = true)]
    components_path: Vec<PathBuf>,
    /// Start all apps of this dapr.yaml, or of the one in this folder
    #[arg(long, short = 'f', value_name = "FILE")]
    run_file: Option<PathBuf>,
    /// Ask the program whether it is well
    #[arg(long)]
    enable_app_health_check: bool,
    /// Where it is asked
    #[arg(long, value_name = "PATH", default_value = "/healthz")]
    app_health_check_path: String,
    /// Seconds between two questions
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    app_health_probe_interval: u32,
    /// Milliseconds for an answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500)]
    app_health_probe_timeout: u32,
    /// Failures in a row until the program counts as ill
    #[arg(long, value_name = "N", default_value_t = 3)]
    app_health_threshold: u32,
    /// Largest request and message, e.g. 4Mi
    #[arg(long, value_name = "SIZE", value_parser = quantity)]
    max_body_size: Option<u64>,
    /// Largest header, e.g. 4Ki
    #[arg(long, value_name = "SIZE", value_parser = quantity)]
    read_buffer_size: Option<u64>,
    /// The older name of --max-body-size, in MB
    #[arg(long, value_name = "MB", hide = true)]
    dapr_http_max_request_size: Option<u64>,
    /// The older name of --read-buffer-size, in KB
    #[arg(long, value_name = "KB", hide = true)]
    dapr_http_read_buffer_size: Option<u64>,
    /// Log every request to the API
    #[arg(long)]
    enable_api_logging: bool,
    /// What is logged: debug, info, warn or error
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Accepted for the sake of Dapr's command lines; there is nothing that they would change here
    #[arg(long, value_name = "ADDRESS", hide = true)]
    placement_host_address: Option<String>,
    #[arg(long, value_name = "ADDRESS", hide = true)]
    scheduler_host_address: Option<String>,
    #[arg(long, value_name = "PORT", hide = true, allow_negative_numbers = true)]
    profile_port: Option<i32>,
    #[arg(long, hide = true)]
    enable_profiling: bool,
    /// Run in Kubernetes instead: not part of `dhow run`
    #[arg(long, short = 'k', hide = true)]
    kubernetes: bool,
}

fn protocol(text: &str) -> Result<AppProtocol, String> {
    Ok(match text {
        "http" => AppProtocol::Http,
        "https" => AppProtocol::Https,
        "grpc" => AppProtocol::Grpc,
        "grpcs" => AppProtocol::Grpcs,
        "h2c" => AppProtocol::H2c,
        _ => return Err("expected http, https, grpc, grpcs or h2c".to_owned()),
    })
}

fn quantity(text: &str) -> Result<u64, String> {
    dhow_resources::units::parse_quantity(text).map_err(|expected| expected.to_string())
}

// === impl Native ===

impl Native {
    /// What is logged, if it was said in Dapr's way.
    pub(super) fn log_level(&self) -> Option<&str> {
        self.log_level.as_deref().map(|level| if level == "fatal" { "error" } else { level })
    }

    /// Whether the apps of a file are meant.
    pub(super) fn run_file(&self) -> Option<&Path> {
        self.run_file.as_deref()
    }

    /// The folders with resources: those that are named, else `resources` if it is there.
    pub(super) fn resources(&self, named: &[PathBuf]) -> Vec<PathBuf> {
        let mut resources = [named, &self.components_path].concat();
        if resources.is_empty() && Path::new("resources").is_dir() {
            resources.push("resources".into());
        }
        resources
    }

    /// The file with the configuration.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// A flag that was given and says nothing about a module, which has no sidecar. What is accepted for the sake of
    /// Dapr's command lines is so here, too.
    pub(super) fn meaningless_for_modules(&self) -> Option<&'static str> {
        let given = [
            ("--app-port", self.app_port.is_some()),
            ("--app-protocol", self.app_protocol != AppProtocol::Http),
            ("--app-channel-address", self.app_channel_address != "127.0.0.1"),
            ("--app-max-concurrency", self.app_max_concurrency != -1),
            ("--app-ssl", self.app_ssl),
            ("--dapr-http-port", self.dapr_http_port.is_some()),
            ("--dapr-grpc-port", self.dapr_grpc_port.is_some()),
            ("--dapr-internal-grpc-port", self.dapr_internal_grpc_port.is_some()),
            ("--metrics-port", self.metrics_port.is_some()),
            ("--dapr-listen-addresses", !self.dapr_listen_addresses.is_empty()),
            ("--unix-domain-socket", self.unix_domain_socket.is_some()),
            ("--enable-app-health-check", self.enable_app_health_check),
            ("--max-body-size", self.max_body_size.is_some()),
            ("--read-buffer-size", self.read_buffer_size.is_some()),
            ("--dapr-http-max-request-size", self.dapr_http_max_request_size.is_some()),
            ("--dapr-http-read-buffer-size", self.dapr_http_read_buffer_size.is_some()),
            ("--enable-api-logging", self.enable_api_logging),
            ("--kubernetes", self.kubernetes),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(flag, _)| *flag)
    }

    /// The program and its sidecar. Without a command it is the sidecar alone.
    pub(super) fn app(
        &self,
        app_id: Option<&str>,
        command: Vec<String>,
        env: BTreeMap<String, String>,
        resources: &[PathBuf],
    ) -> Result<App, Error> {
        if self.kubernetes {
            return Err(Error::usage("-k: apps for Kubernetes are deployed with kubectl or Helm"));
        }
        let resources = self.resources(resources);
        let usual_id = || {
            let name = command.first().map(Path::new).and_then(Path::file_stem);
            name.map_or_else(|| "app".to_owned(), |name| super::harmless(&name.to_string_lossy()))
        };
        let protocol = match (self.app_protocol, self.app_ssl) {
            (AppProtocol::Http, true) => AppProtocol::Https,
            (AppProtocol::Grpc, true) => AppProtocol::Grpcs,
            (protocol, _) => protocol,
        };
        Ok(App {
            app_id: app_id.map_or_else(usual_id, str::to_owned),
            app_dir: ".".into(),
            resources,
            config: self.config.clone(),
            command,
            env,
            app_port: port("--app-port", self.app_port)?,
            app_protocol: protocol,
            app_channel_address: Some(self.app_channel_address.clone()),
            http_port: port("--dapr-http-port", self.dapr_http_port)?,
            grpc_port: port("--dapr-grpc-port", self.dapr_grpc_port)?,
            internal_grpc_port: port("--dapr-internal-grpc-port", self.dapr_internal_grpc_port)?,
            metrics_port: port("--metrics-port", self.metrics_port)?,
            unix_domain_socket: self.unix_domain_socket.clone(),
            api_listen_addresses: self.dapr_listen_addresses.clone(),
            max_concurrency: u32::try_from(self.app_max_concurrency).ok().filter(|count| *count > 0),
            max_body: self.max_body_size.or(self.dapr_http_max_request_size.map(|size| size << 20)),
            read_buffer: self.read_buffer_size.or(self.dapr_http_read_buffer_size.map(|size| size << 10)),
            health_check: self.enable_app_health_check.then(|| HealthCheck {
                path: self.app_health_check_path.clone(),
                interval: Duration::from_secs(self.app_health_probe_interval.into()),
                timeout: Duration::from_millis(self.app_health_probe_timeout.into()),
                threshold: self.app_health_threshold.max(1),
            }),
            api_logging: self.enable_api_logging,
            log_level: None,
            host_log: LogDestination::Console,
            app_log: LogDestination::Console,
            unused: Vec::new(),
            line: 0,
        })
    }
}

/// A port as Dapr's flags have it: what is below one leaves the choice to the host.
fn port(flag: &str, port: Option<i32>) -> Result<Option<u16>, Error> {
    match port {
        None | Some(..=0) => Ok(None),
        Some(port) => u16::try_from(port)
            .map(Some)
            .map_err(|_| Error::usage(format!("{flag} {port}: ports end at 65535"))),
    }
}

/// Runs one program with its sidecar.
pub(super) async fn run(app: App, data_dir: &Path) -> Result<ExitCode, Error> {
    let has_command = !app.command.is_empty();
    let sidecar = Sidecar::start(app, data_dir, "== APP == ").await?;
    crate::say(format_args!("Dapr API of {}", sidecar.describe()));
    if has_command {
        crate::say(format_args!("You're up and running! Both the host and your app logs will appear here."));
    }
    sidecar.run().await
}

/// Runs all apps of a file, each with a sidecar of its own, until one fails or they are stopped.
pub(super) async fn run_all(file: &Path, data_dir: Option<&Path>) -> Result<ExitCode, Error> {
    let apps = super::apps_of(file)?;
    // One for all, so that they hear of each other.
    let folder = if file.is_dir() { Some(file) } else { file.parent() };
    let data_dir = data_dir.map_or_else(|| folder.unwrap_or(Path::new("")).join(".dhow"), Path::to_owned);
    let mut signals = Signals::listen()?;
    let mut sidecars = Vec::with_capacity(apps.len());
    let mut is_told_to_end = false;
    for app in apps {
        for unused in &app.unused {
            tracing::warn!("{unused}");
        }
        let label = format!("== APP - {} == ", app.app_id);
        let sidecar = tokio::select! {
            biased;
            () = signals.received() => {
                is_told_to_end = true;
                break;
            }
            sidecar = Sidecar::start(app, &data_dir, &label) => sidecar?,
        };
        crate::say(format_args!("Dapr API of {}", sidecar.describe()));
        sidecars.push(sidecar);
    }
    let stops: Vec<_> = sidecars.iter().map(Sidecar::stop).collect();
    if is_told_to_end {
        stops.iter().for_each(dhow_api::server::Stop::stop);
    }
    let mut running = tokio::task::JoinSet::new();
    for sidecar in sidecars {
        running.spawn(sidecar.run());
    }
    let mut code = ExitCode::SUCCESS;
    // As with Dapr, an app that ends leaves the others running; one that fails ends them all.
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Ok(ended)) if ended == ExitCode::SUCCESS => {}
            Ok(Ok(ended)) => {
                code = ended;
                stops.iter().for_each(dhow_api::server::Stop::stop);
            }
            Ok(Err(error)) => {
                error.report();
                code = ExitCode::FAILURE;
                stops.iter().for_each(dhow_api::server::Stop::stop);
            }
            Err(panicked) => return Err(Error::new(panicked.to_string())),
        }
    }
    Ok(code)
}
