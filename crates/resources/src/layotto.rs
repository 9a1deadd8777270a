//! Layotto's `config.json`: which faces listen where, which components there are, which modules are functions.
//!
//! The file is a configuration of MOSN, the proxy that Layotto is built into. What of it has a meaning without the
//! proxy is read: the listeners of the runtime's API, of functions, of their management and of the actuator. Fields
//! that only the proxy has a use for are told of in [`Layotto::unused`] and change nothing.
//!
//! This file holds the types and reads listeners; `layotto/runtime.rs` reads components and the app,
//! `layotto/function.rs` functions.

mod function;
mod runtime;
#[cfg(test)]
mod tests;

pub use function::Function;
use function::{Plugin, Plugins};
pub use runtime::{Callback, Runtime};

use crate::component::Component;
use crate::error::{ResourceErrors, quote};
use crate::json_tree;
use crate::load::UnusedField;
use crate::text_file::{check_size, read_text};
use crate::tree::{Findings, Node, Table, Value};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Ports of Layotto's faces where the file gives no address.
const PORTS: [(Kind, u16); 4] =
    [(Kind::Runtime, 34904), (Kind::Functions, 2045), (Kind::Management, 34998), (Kind::Actuator, 34999)];

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Layotto {
    /// Where the runtime's API is served.
    pub runtime_listeners: Vec<Address>,
    /// What the runtime's API is over.
    pub runtime: Runtime,
    /// Where functions are served.
    pub function_listeners: Vec<Address>,
    /// The functions, in the order of the file. Their names differ.
    pub functions: Vec<Function>,
    /// Where functions are managed.
    pub management_listeners: Vec<Address>,
    /// Where health and information are served.
    pub actuator_listeners: Vec<Address>,
    /// The port for Prometheus.
    pub metrics_port: Option<u16>,
    /// Fields that only MOSN has a use for.
    pub unused: Vec<UnusedField>,
    /// The file.
    pub file: PathBuf,
    /// Modules that functions name.
    plugins: Plugins,
}

/// Where a face listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Runtime,
    Functions,
    Management,
    Actuator,
}

impl Layotto {
    /// Reads a file.
    pub fn load(file: &Path) -> Result<Layotto, ResourceErrors> {
        Layotto::parse(&read_text(file)?, file)
    }

    /// Reads a text; `file` stands in the errors.
    pub fn parse(text: &str, file: &Path) -> Result<Layotto, ResourceErrors> {
        check_size(text.len(), file)?;
        let document = json_tree::parse(text, file)?;
        let mut findings = Findings::new(file);
        let mut layotto = Layotto { file: file.to_owned(), ..Layotto::default() };
        layotto.read(&mut findings, &document);
        layotto.check_names(&mut findings);
        ResourceErrors::check(findings.into_vec())?;
        Ok(layotto)
    }

    /// The components, as a folder of resources would hold them.
    pub fn components(&self) -> &[Component] {
        &self.runtime.components
    }

    fn read(&mut self, findings: &mut Findings, document: &Node) {
        let Some(mut top) = findings.table(document, String::new()) else { return };
        // Before the functions that name them, wherever they stand.
        let plugins = list(findings, &mut top, "wasm_global_plugins");
        for (index, plugin) in plugins.iter().enumerate() {
            let path = format!("wasm_global_plugins[{index}]");
            self.plugins.extend(Plugin::read(findings, plugin, path, &mut self.unused));
        }
        let servers = top.entry("servers");
        let Some(servers) = servers else {
            findings.add(document.at, "servers", "is missing", "expected a configuration of Layotto");
            return;
        };
        for (index, server) in findings.list(&servers.node, "servers", "a list of servers").iter().enumerate()
        {
            let Some(mut server) = findings.table(server, format!("servers[{index}]")) else { continue };
            // What names files of the proxy's log, and what leads requests to where they are anyway.
            for idle in ["default_log_path", "default_log_level", "default_log_roller", "routers"] {
                server.get(idle);
            }
            let path = server.path_of("listeners");
            let listeners = server.optional(findings, "listeners", |findings, node, path| {
                Some(findings.list(node, path, "a list of listeners"))
            });
            for (index, listener) in listeners.unwrap_or_default().iter().enumerate() {
                self.listener(findings, listener, format!("{path}[{index}]"));
            }
            self.no_effect(server);
        }
        top.optional(findings, "metrics", |findings, node, path| {
            let metrics = findings.table(node, path.to_owned())?;
            self.metrics(findings, metrics);
            Some(())
        });
        // Where the proxy itself would send requests.
        top.get("cluster_manager");
        self.no_effect(top);
    }

    fn metrics(&mut self, findings: &mut Findings, mut metrics: Table<'_>) {
        let sinks = metrics.optional(findings, "sinks", |findings, node, path| {
            Some(findings.list(node, path, "a list of sinks").iter().enumerate())
        });
        let path = metrics.path_of("sinks");
        for (index, sink) in sinks.into_iter().flatten() {
            let Some(mut sink) = findings.table(sink, format!("{path}[{index}]")) else { continue };
            let kind = sink.optional(findings, "type", Findings::text);
            if kind.as_deref() == Some("prometheus")
                && let Some(mut config) = sink.optional(findings, "config", |findings, node, path| {
                    findings.table(node, path.to_owned())
                })
            {
                self.metrics_port = config.optional(findings, "port", port).or(self.metrics_port);
                self.no_effect(config);
            }
            sink.get("config");
            self.no_effect(sink);
        }
        self.no_effect(metrics);
    }

    fn listener(&mut self, findings: &mut Findings, node: &Node, path: String) {
        let Some(mut table) = findings.table(node, path) else { return };
        // What says how the proxy takes connections, and where it writes its log.
        for idle in ["name", "type", "bind_port", "use_original_dst", "log_path", "log_level", "access_logs"]
        {
            table.get(idle);
        }
        let mut kinds = Vec::new();
        let chains = list(findings, &mut table, "filter_chains");
        let path = table.path_of("filter_chains");
        for (index, chain) in chains.iter().enumerate() {
            let Some(mut chain) = findings.table(chain, format!("{path}[{index}]")) else { continue };
            let path = chain.path_of("filters");
            for (index, filter) in list(findings, &mut chain, "filters").iter().enumerate() {
                kinds.extend(self.filter(findings, filter, format!("{path}[{index}]")));
            }
            self.no_effect(chain);
        }
        let filters = list(findings, &mut table, "stream_filters");
        let path = table.path_of("stream_filters");
        for (index, filter) in filters.iter().enumerate() {
            kinds.extend(self.stream_filter(findings, filter, format!("{path}[{index}]")));
        }
        let network = table.optional(findings, "network", Findings::text);
        let is_unix = network.as_deref() == Some("unix");
        let given = table.optional(findings, "address", |findings, node, path| {
            let text = findings.text(node, path)?;
            let address = address(&text, is_unix);
            if address.is_none() {
                let expected =
                    "expected HOST:PORT with a numeric address, or a path with \"network\": \"unix\"";
                findings.add(node.at, path, format!("{} is no address", quote(&text)), expected);
            }
            address
        });
        if kinds.is_empty() {
            self.unused.push(UnusedField { name: table.path.clone(), line: table.at.line });
            return;
        }
        let has_address = table.has("address");
        for kind in kinds {
            let usual = PORTS.iter().find(|(of, _)| *of == kind).map(|(_, port)| *port);
            let usual = usual.map(|port| Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
            let address = if has_address { given.clone() } else { usual };
            self.listeners(kind).extend(address);
        }
        self.no_effect(table);
    }

    fn listeners(&mut self, kind: Kind) -> &mut Vec<Address> {
        match kind {
            Kind::Runtime => &mut self.runtime_listeners,
            Kind::Functions => &mut self.function_listeners,
            Kind::Management => &mut self.management_listeners,
            Kind::Actuator => &mut self.actuator_listeners,
        }
    }

    /// A filter of connections: one of them is the runtime.
    fn filter(&mut self, findings: &mut Findings, node: &Node, path: String) -> Option<Kind> {
        let mut table = findings.table(node, path)?;
        let kind = table.optional(findings, "type", Findings::text)?;
        let config = table.optional(findings, "config", |f, node, path| f.table(node, path.to_owned()));
        match kind.as_str() {
            "grpc" => {
                let mut config = config?;
                config.get("server_name");
                let grpc = config.optional(findings, "grpc_config", |findings, node, path| {
                    findings.table(node, path.to_owned())
                });
                if let Some(grpc) = grpc {
                    let file = self.file.clone();
                    self.runtime.read(findings, grpc, &file, &mut self.unused);
                }
                self.no_effect(config);
                Some(Kind::Runtime)
            }
            // How the proxy reads requests.
            "proxy" => None,
            _ => {
                self.unused
                    .push(UnusedField { name: format!("{} ({kind})", table.path), line: table.at.line });
                None
            }
        }
    }

    /// A filter of requests: functions, their management, the actuator.
    fn stream_filter(&mut self, findings: &mut Findings, node: &Node, path: String) -> Option<Kind> {
        let mut table = findings.table(node, path)?;
        let kind = table.optional(findings, "type", Findings::text)?;
        match kind.as_str() {
            "Layotto" => {
                let items =
                    table.optional(findings, "config", |f, node, path| f.table(node, path.to_owned()));
                for entry in items.iter().flat_map(Table::entries) {
                    let path = items.as_ref().map(|items| items.path_of(&entry.key)).unwrap_or_default();
                    self.functions.extend(Function::read(
                        findings,
                        entry,
                        path,
                        &self.plugins,
                        &mut self.unused,
                    ));
                }
                Some(Kind::Functions)
            }
            "wasm_filter" => Some(Kind::Management),
            "actuator_filter" => Some(Kind::Actuator),
            _ => {
                self.unused
                    .push(UnusedField { name: format!("{} ({kind})", table.path), line: table.at.line });
                None
            }
        }
    }

    fn no_effect(&mut self, table: Table<'_>) {
        self.unused.extend(table.rest().map(|(name, line)| UnusedField { name, line }));
    }

    /// Functions of two listeners may not have one name: it is their app-id.
    fn check_names(&self, findings: &mut Findings) {
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for function in &self.functions {
            if let Some(line) = lines.insert(&function.name, function.at.line) {
                let message = format!("a function named {} is already in line {line}", quote(&function.name));
                findings.add(function.at, "", message, "expected every function to have its own name");
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The elements of a list that may be absent.
fn list<'a>(findings: &mut Findings, table: &mut Table<'a>, field: &'static str) -> &'a [Node] {
    let read =
        |findings: &mut Findings, node: &'a Node, path: &str| Some(findings.list(node, path, "a list"));
    table.optional(findings, field, read).unwrap_or_default()
}

fn port(findings: &mut Findings, node: &Node, path: &str) -> Option<u16> {
    crate::values::integer(0..=65535)(findings, node, path).and_then(|port| u16::try_from(port).ok())
}

/// Names of this machine are known without asking anybody.
fn address(text: &str, is_unix: bool) -> Option<Address> {
    if is_unix {
        return (!text.is_empty()).then(|| Address::Unix(text.into()));
    }
    if let Ok(address) = text.parse() {
        return Some(Address::Tcp(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let host: IpAddr = match host {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().ok()?,
    };
    Some(Address::Tcp(SocketAddr::new(host, port.parse().ok()?)))
}

/// A value of a free map as text: a scalar as it stands, everything else as JSON.
fn free(node: &Node) -> String {
    match node.value {
        Value::List(_) | Value::Map(_) => json_tree::write(node),
        _ => node.scalar().unwrap_or_default(),
    }
}
