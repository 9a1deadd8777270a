//! `dapr.yaml`: several apps that are started together (`dapr run -f`).
//!
//! Format: Dapr documentation, "Multi-App Run template". This file holds the types and reads the whole document,
//! `multi_app/app.rs` one app, and `multi_app/shared.rs` the keys that apps may have in common. All paths come out joined: those of `common`
//! to the file's folder, those of an app to the app's folder (`appDirPath`), as Dapr does it.
//!
//! What wins: a key of the app; for resources and configuration then the app's own `.dapr/resources` and
//! `.dapr/config.yaml`; then `common`; then `.dapr/components` and `.dapr/config.yaml` of the user.

use crate::error::{ResourceError, ResourceErrors, quote};
use crate::load::UnusedField;
use crate::text_file::{check_size, read_text};
use crate::tree::{Findings, Node, Table, Value};
use crate::values::{self, tables};
use crate::yaml_tree;
use shared::{Place, Shared};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod app;
mod shared;

/// The file's name when only its folder is given.
pub const FILE_NAME: &str = "dapr.yaml";

/// Most bytes that `common` may add to all apps together.
const MAX_COMMON_BYTES: usize = 64 * 1024 * 1024;

/// A whole `dapr.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiApp {
    /// `name`.
    pub name: Option<String>,
    /// `apps`, in the order of the file, with what they take from `common`. Their ids differ; there is at least one.
    pub apps: Vec<App>,
    /// The file.
    pub file: PathBuf,
}

/// One of `apps`. `None` leaves a choice to the host.
#[derive(Clone, PartialEq, Eq)]
pub struct App {
    /// `appID`; the name of the folder when it is not given.
    pub app_id: String,
    /// `appDirPath`: the folder that the app runs in. It is there.
    pub app_dir: PathBuf,
    /// Folders with resources. They are there.
    pub resources: Vec<PathBuf>,
    /// The file with the configuration. It is there.
    pub config: Option<PathBuf>,
    /// `command`: program and arguments.
    pub command: Vec<String>,
    /// `env`, with the variables of `common` that the app does not set. Not shown by `Debug`.
    pub env: BTreeMap<String, String>,
    /// `appPort`: where the app listens.
    pub app_port: Option<u16>,
    /// `appProtocol`, to which `appSSL` adds TLS. Default HTTP.
    pub app_protocol: AppProtocol,
    /// `appChannelAddress`: the address at which the app listens.
    pub app_channel_address: Option<String>,
    /// `daprHTTPPort`: where the app finds the HTTP API.
    pub http_port: Option<u16>,
    /// `daprGRPCPort`: where the app finds the gRPC API.
    pub grpc_port: Option<u16>,
    /// `daprInternalGRPCPort`.
    pub internal_grpc_port: Option<u16>,
    /// `metricsPort`.
    pub metrics_port: Option<u16>,
    /// `unixDomainSocket`: the folder of sockets that take the place of ports.
    pub unix_domain_socket: Option<PathBuf>,
    /// `apiListenAddresses`.
    pub api_listen_addresses: Vec<String>,
    /// `appMaxConcurrency`: requests to the app at once; `None` sets no limit.
    pub max_concurrency: Option<u32>,
    /// `maxBodySize` or `daprMaxRequestSize`, in bytes; [`u64::MAX`] sets no limit.
    pub max_body: Option<u64>,
    /// `readBufferSize`, in bytes; [`u64::MAX`] sets no limit.
    pub read_buffer: Option<u64>,
    /// `enableAppHealthCheck` with what belongs to it; `None` when it is off, which is the default.
    pub health_check: Option<HealthCheck>,
    /// `enableApiLogging`. Default false.
    pub api_logging: bool,
    /// `logLevel`. One process has one log for all apps, so it is among [`App::unused`], too.
    pub log_level: Option<LogLevel>,
    /// `daprdLogDestination`. Default file. As all hosts log to the console, others are among [`App::unused`], too.
    pub host_log: LogDestination,
    /// `appLogDestination`. Default file and console.
    pub app_log: LogDestination,
    /// Fields that Dapr knows and dhow has no use for, such as `containerImage`; those of `common` are with
    /// every app.
    pub unused: Vec<UnusedField>,
    /// The line of the app.
    pub line: usize,
}

/// How an app is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// HTTP/2 without TLS.
    H2c,
}

/// Whether an app is asked if it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `appHealthCheckPath`. Default `/healthz`.
    pub path: String,
    /// `appHealthProbeInterval`, in the file in seconds. Default 5 s.
    pub interval: Duration,
    /// `appHealthProbeTimeout`, in the file in milliseconds. Default 500 ms.
    pub timeout: Duration,
    /// `appHealthThreshold`: failures in a row until the app counts as ill. Default 3.
    pub threshold: u32,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What is odd.
    Warn,
    /// What fails.
    Error,
    /// What ends the host.
    Fatal,
}

/// Where a log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// A file under `.dapr/logs` of the app's folder.
    File,
    /// Standard output.
    Console,
    /// Both.
    FileAndConsole,
}

// === impl MultiApp ===

impl MultiApp {
    /// Reads and checks a file, or [`FILE_NAME`] of a folder. `home` is the user's home folder, where Dapr keeps its
    /// defaults and where paths that begin with `~` lead.
    pub fn load(path: &Path, home: Option<&Path>) -> Result<MultiApp, ResourceErrors> {
        let file = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        MultiApp::parse(&read_text(&file)?, &file, home)
    }

    /// Checks a text; `file` stands in the errors, and its folder before paths.
    pub fn parse(text: &str, file: &Path, home: Option<&Path>) -> Result<MultiApp, ResourceErrors> {
        check_size(text.len(), file)?;
        let Some(document) = yaml_tree::parse_one(text, file)? else {
            let hint = "expected version: 1 and a list of apps";
            return Err(ResourceError::whole_file(file, "the file is empty", hint).into());
        };
        let mut findings = Findings::new(file);
        let read = MultiApp::read(&mut findings, &document, file, home);
        ResourceErrors::check(findings.into_vec())?;
        let (name, apps) = read.unwrap_or_default();
        Ok(MultiApp { name, apps, file: file.to_owned() })
    }

    fn read(
        findings: &mut Findings,
        document: &Node,
        file: &Path,
        home: Option<&Path>,
    ) -> Option<(Option<String>, Vec<App>)> {
        let mut top = findings.table(document, String::new())?;
        version(findings, &mut top);
        let name = top.optional(findings, "name", values::name);
        let place = Place { dir: Some(file.parent().unwrap_or(Path::new(""))), home };
        let common =
            top.optional(findings, "common", values::table(|f, table| Some(shared::read(f, table, place))));
        let common = checked_common(findings, &mut top, common.unwrap_or_default());
        let mut ids = HashMap::new();
        let apps = top.optional(
            findings,
            "apps",
            tables("a list of {appDirPath, appID, command}", |findings, table| {
                app::read(findings, table, place, &common, &mut ids)
            }),
        );
        if app_count(&mut top) == Some(0) {
            let hint = "expected apps: and a list of {appDirPath, command}";
            findings.add(top.at, "apps", "there is no app", hint);
        }
        top.finish(findings);
        Some((name, apps.unwrap_or_default()))
    }
}

/// How many apps there are; `None` when that is not a list.
fn app_count(top: &mut Table<'_>) -> Option<usize> {
    match top.get("apps").map(|node| &node.value) {
        None | Some(Value::Null) => Some(0),
        Some(Value::List(nodes)) => Some(nodes.len()),
        Some(_) => None,
    }
}

/// What apps take from `common` is copied to each: that is bounded before it is done.
fn checked_common(findings: &mut Findings, top: &mut Table<'_>, common: Shared) -> Shared {
    let bytes = common.bytes().saturating_mul(app_count(top).unwrap_or(0));
    if bytes <= MAX_COMMON_BYTES {
        return common;
    }
    let at = top.get("common").map_or(top.at, |node| node.at);
    let message = format!("would add more than {} MiB to the apps", MAX_COMMON_BYTES >> 20);
    findings.add(at, "common", message, "expected a few settings that the apps share");
    Shared::default()
}

fn version(findings: &mut Findings, top: &mut Table<'_>) {
    let (at, message) = match top.get("version") {
        None => (top.at, "is missing".to_owned()),
        Some(node) => match &node.value {
            Value::Integer(text) if text == "1" => return,
            value => {
                let found =
                    if let Value::Integer(text) = value { quote(text) } else { node.kind().to_owned() };
                (node.at, format!("must be 1, found {found}"))
            }
        },
    };
    findings.add(at, "version", message, "expected version: 1");
}

// === impl App ===

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Environment variables may be secret, and arguments too: names and the program only.
        f.debug_struct("App")
            .field("app_id", &self.app_id)
            .field("app_dir", &self.app_dir)
            .field("resources", &self.resources)
            .field("config", &self.config)
            .field("program", &self.command.first())
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("app_port", &self.app_port)
            .field("app_protocol", &self.app_protocol)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

// === impl AppProtocol ===

impl AppProtocol {
    /// The same over TLS, where there is such a thing.
    fn with_tls(self, tls: bool) -> AppProtocol {
        match self {
            AppProtocol::Http if tls => AppProtocol::Https,
            AppProtocol::Grpc if tls => AppProtocol::Grpcs,
            protocol => protocol,
        }
    }
}
