//! The keys that apps of a `dapr.yaml` may have in common.

use super::{AppProtocol, LogDestination, LogLevel};
use crate::error::quote;
use crate::load::UnusedField;
use crate::manifest::fields;
use crate::tree::{Findings, Node, Position, Table, Value};
use crate::units::parse_quantity;
use crate::values::{self, count_or_default, integer, word};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PROTOCOLS: &[(&str, AppProtocol)] = &[
    ("http", AppProtocol::Http),
    ("https", AppProtocol::Https),
    ("grpc", AppProtocol::Grpc),
    ("grpcs", AppProtocol::Grpcs),
    ("h2c", AppProtocol::H2c),
];

const LEVELS: &[(&str, LogLevel)] = &[
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
    ("fatal", LogLevel::Fatal),
];

const DESTINATIONS: &[(&str, LogDestination)] = &[
    ("file", LogDestination::File),
    ("console", LogDestination::Console),
    ("fileAndConsole", LogDestination::FileAndConsole),
];

/// Where relative paths and `~` lead.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// `None` when it is not there, which was told already: then no path is, and nothing more is told.
    pub(super) dir: Option<&'a Path>,
    pub(super) home: Option<&'a Path>,
}

/// What stands in `common` or with an app.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) resources: Vec<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) runtime_path: Option<PathBuf>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) app_protocol: Option<AppProtocol>,
    pub(super) app_ssl: Option<bool>,
    pub(super) api_listen_addresses: Option<Vec<String>>,
    /// The inner `None` is no limit, written as -1.
    pub(super) max_concurrency: Option<Option<u32>>,
    pub(super) max_body: Option<u64>,
    pub(super) read_buffer: Option<u64>,
    pub(super) health_enabled: Option<bool>,
    pub(super) health_path: Option<String>,
    pub(super) health_interval: Option<u32>,
    pub(super) health_timeout: Option<u32>,
    pub(super) health_threshold: Option<u32>,
    pub(super) api_logging: Option<bool>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) host_log: Option<LogDestination>,
    pub(super) app_log: Option<LogDestination>,
    pub(super) unused: Vec<UnusedField>,
}

pub(super) fn read(findings: &mut Findings, table: &mut Table<'_>, place: Place<'_>) -> Shared {
    let several = table.optional(findings, "resourcesPaths", |f, node, path| folders(f, node, path, place));
    let one = table.optional(findings, "resourcesPath", |findings, node, path| {
        let text = values::name(findings, node, path)?;
        place.folder(findings, node.at, path, &text)
    });
    let max_body = table.optional(findings, "maxBodySize", quantity);
    // The older name counts in MiB.
    let old_max_body = table.optional(findings, "daprMaxRequestSize", count_or_default);
    let mut shared = Shared {
        resources: several.unwrap_or_default().into_iter().chain(one).collect(),
        config: table.optional(findings, "configFilePath", |findings, node, path| {
            let text = values::name(findings, node, path)?;
            place.file(findings, node.at, path, &text)
        }),
        runtime_path: table.optional(findings, "runtimePath", |findings, node, path| {
            let text = values::name(findings, node, path)?;
            place.folder(findings, node.at, path, &text)
        }),
        env: table.optional(findings, "env", fields::env).unwrap_or_default(),
        app_protocol: table.optional(findings, "appProtocol", word(PROTOCOLS)),
        app_ssl: table.optional(findings, "appSSL", Findings::boolean),
        api_listen_addresses: table.optional(findings, "apiListenAddresses", |findings, node, path| {
            Some(comma_separated(&findings.scalar(node, path)?))
        }),
        max_concurrency: table
            .optional(findings, "appMaxConcurrency", integer(-1..=u32::MAX.into()))
            .map(|number| u32::try_from(number).ok().filter(|number| *number > 0)),
        max_body: max_body.or(old_max_body.map(|mib| u64::from(mib) << 20)),
        read_buffer: table.optional(findings, "readBufferSize", quantity),
        health_enabled: table.optional(findings, "enableAppHealthCheck", Findings::boolean),
        health_path: table.optional(findings, "appHealthCheckPath", values::name),
        health_interval: table.optional(findings, "appHealthProbeInterval", count_or_default),
        health_timeout: table.optional(findings, "appHealthProbeTimeout", count_or_default),
        health_threshold: table.optional(findings, "appHealthThreshold", count_or_default),
        api_logging: table.optional(findings, "enableApiLogging", Findings::boolean),
        log_level: table.optional(findings, "logLevel", word(LEVELS)),
        host_log: table.optional(findings, "daprdLogDestination", word(DESTINATIONS)),
        app_log: table.optional(findings, "appLogDestination", word(DESTINATIONS)),
        unused: Vec::new(),
    };
    let no_use = ["placementHostAddress", "schedulerHostAddress", "enableProfiling", "logLevel"];
    unused(table, &no_use, &mut shared.unused);
    // All hosts log to the console, whoever asks for it or not.
    if shared.host_log.is_some_and(|destination| destination != LogDestination::Console) {
        unused(table, &["daprdLogDestination"], &mut shared.unused);
    }
    shared
}

/// Remembers fields that nobody has a use for.
pub(super) fn unused(table: &mut Table<'_>, fields: &[&'static str], unused: &mut Vec<UnusedField>) {
    for field in fields {
        if table.has(field)
            && let Some(entry) = table.entry(field)
        {
            unused.push(UnusedField { name: table.path_of(field), line: entry.at.line });
        }
    }
}

/// A port; 0 and -1 leave the choice to the host.
pub(super) fn port(findings: &mut Findings, node: &Node, path: &str) -> Option<u16> {
    let port = integer(-1..=u16::MAX.into())(findings, node, path)?;
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// A quantity of bytes; -1 is without limit.
fn quantity(findings: &mut Findings, node: &Node, path: &str) -> Option<u64> {
    let text = findings.scalar(node, path).filter(|text| !text.is_empty())?;
    if text == "-1" {
        return Some(u64::MAX);
    }
    match parse_quantity(&text) {
        Ok(bytes) => Some(bytes),
        Err(expected) => {
            findings.add(node.at, path, format!("{} is not a quantity", quote(&text)), expected);
            None
        }
    }
}

/// A list of folders, or one text with commas between them.
fn folders(findings: &mut Findings, node: &Node, path: &str, place: Place<'_>) -> Option<Vec<PathBuf>> {
    let texts = match &node.value {
        Value::Text(text) => comma_separated(text).into_iter().map(|text| (text, node.at)).collect(),
        _ => findings.texts(node, path),
    };
    let folders = texts
        .into_iter()
        .enumerate()
        .filter_map(|(index, (text, at))| place.folder(findings, at, &format!("{path}[{index}]"), &text));
    Some(folders.collect())
}

fn comma_separated(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

// === impl Place ===

impl Place<'_> {
    /// A folder that is there.
    pub(super) fn folder(
        self,
        findings: &mut Findings,
        at: Position,
        path: &str,
        text: &str,
    ) -> Option<PathBuf> {
        self.existing(findings, at, path, text, "folder", Path::is_dir)
    }

    /// A file that is there.
    fn file(self, findings: &mut Findings, at: Position, path: &str, text: &str) -> Option<PathBuf> {
        self.existing(findings, at, path, text, "file", Path::is_file)
    }

    fn existing(
        self,
        findings: &mut Findings,
        at: Position,
        path: &str,
        text: &str,
        what: &str,
        is_there: fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        let dir = self.dir?;
        let (base, rest) = match (text.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                (home, rest.trim_start_matches('/'))
            }
            _ => (dir, text),
        };
        let joined = if rest.is_empty() { base.to_owned() } else { base.join(rest) };
        if !is_there(&joined) {
            let hint = match base.to_string_lossy() {
                base if base.is_empty() => "expected a path from the file's folder".to_owned(),
                base => format!("expected a path from {}", base.escape_debug()),
            };
            findings.add(at, path, format!("there is no {what} {}", quote(text)), hint);
            return None;
        }
        Some(joined)
    }
}

// === impl Shared ===

impl Shared {
    /// What a copy takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let env = self.env.iter().map(|(name, value)| name.len() + value.len() + 64);
        let paths = self.resources.iter().chain(&self.config).map(|path| path.as_os_str().len() + 32);
        let addresses = self.api_listen_addresses.iter().flatten().map(|address| address.len() + 32);
        env.chain(paths).chain(addresses).sum::<usize>() + self.health_path.as_ref().map_or(0, String::len)
    }

    /// These keys, and where one is not given, those of the other. Resources and configuration are not among
    /// them: what wins there depends on files, too.
    pub(super) fn or(mut self, other: &Shared) -> Shared {
        for (name, value) in &other.env {
            self.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.unused.extend(other.unused.iter().cloned());
        Shared {
            app_protocol: self.app_protocol.or(other.app_protocol),
            app_ssl: self.app_ssl.or(other.app_ssl),
            api_listen_addresses: self.api_listen_addresses.or_else(|| other.api_listen_addresses.clone()),
            max_concurrency: self.max_concurrency.or(other.max_concurrency),
            max_body: self.max_body.or(other.max_body),
            read_buffer: self.read_buffer.or(other.read_buffer),
            health_enabled: self.health_enabled.or(other.health_enabled),
            health_path: self.health_path.or_else(|| other.health_path.clone()),
            health_interval: self.health_interval.or(other.health_interval),
            health_timeout: self.health_timeout.or(other.health_timeout),
            health_threshold: self.health_threshold.or(other.health_threshold),
            api_logging: self.api_logging.or(other.api_logging),
            log_level: self.log_level.or(other.log_level),
            host_log: self.host_log.or(other.host_log),
            app_log: self.app_log.or(other.app_log),
            ..self
        }
    }
}
