//! `dhow.toml`: which apps run, what each may do, and where the host listens.
//!
//! This file holds the types and the reading of the whole document; `manifest/app.rs` reads one app,
//! `manifest/capability.rs` its bindings, `manifest/limits.rs` limits, and `manifest/fields.rs` the small kinds of values. All paths come out joined
//! to the manifest's folder, so the caller's current directory never matters.

use crate::error::{ResourceError, ResourceErrors, quote};
use crate::text_file::{check_size, read_text};
use crate::toml_tree;
use crate::tree::{Findings, Position};
use dhow_blocks::grants::Grants;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod app;
pub(crate) mod capability;
pub(crate) mod fields;
mod limits;
#[cfg(test)]
mod tests;
mod trust;

pub(crate) use app::grants;

/// A whole `dhow.toml`.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file it was read from.
    pub file: PathBuf,
    /// `[host]`.
    pub host: HostConfig,
    /// `[trust]`.
    pub trust: TrustConfig,
    /// `[defaults.limits]`: limits of every app that does not set its own.
    pub default_limits: LimitsConfig,
    /// `[apps.<id>]`, by app-id.
    pub apps: BTreeMap<String, AppConfig>,
}

/// Fields of `[host]`, which people also look for at the top.
const HOST_FIELDS: [&str; 5] = ["addr", "api_addr", "management_addr", "data_dir", "resources"];

/// `[host]`: addresses and folders of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Where apps are served. Default 127.0.0.1:8080.
    pub addr: SocketAddr,
    /// Where programs outside find the Dapr HTTP API; `None` when it is "off". Default 127.0.0.1:3500.
    pub api_addr: Option<SocketAddr>,
    /// Where metrics and health are served; `None` when it is "off". Default 127.0.0.1:9090.
    pub management_addr: Option<SocketAddr>,
    /// Folder of the embedded providers. Default `.dhow`.
    pub data_dir: PathBuf,
    /// Folders with Dapr resources; `None` when the manifest names none, see [`Manifest::resource_dirs`].
    pub resources: Option<Vec<PathBuf>>,
}

/// `[trust]`: which modules run, and which policies are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustConfig {
    /// File that says whose modules are trusted.
    pub store: Option<PathBuf>,
    /// A module without a token is refused. Default false.
    pub require_signed: bool,
    /// A token that names no capabilities claims nothing (`claims = "required"`). Default false.
    pub require_claims: bool,
    /// A policy in Rego: a file, or a folder of them.
    pub policy: Option<PathBuf>,
    /// URL of a policy server.
    pub opa: Option<String>,
    /// A policy has this long to answer.
    pub policy_timeout: Option<Duration>,
    /// Policies are asked about every invocation, too; an answer is kept for this long.
    pub policy_per_invocation: Option<Duration>,
}

/// `[apps.<id>]`.
#[derive(Clone)]
pub struct AppConfig {
    /// Line of the app in the manifest.
    pub line: usize,
    /// The Wasm file.
    pub module: ModuleSource,
    /// Path prefixes that are served by this app, without a trailing slash (except `/` itself). Empty: the
    /// app is reached only by invocation; with `hosts` and no `routes` it is `/`.
    pub routes: Vec<String>,
    /// Host names that `routes` belong to, in lower case, perhaps with `*.` as first label; empty: all.
    pub hosts: Vec<String>,
    /// Arguments of the module, without the program name.
    pub args: Vec<String>,
    /// Environment variables. Not shown by `Debug`.
    pub env: BTreeMap<String, String>,
    /// Values that wasi:config serves. Not shown by `Debug`.
    pub config: BTreeMap<String, String>,
    /// Folders of the machine that the app sees.
    pub dirs: Vec<DirConfig>,
    /// Invocations that one instance may serve; 1 is a fresh instance each time. None: as the module's ABI has it.
    pub reuse: Option<u32>,
    /// A path that answers with a status below 400 when the app is well; asked when a version takes over.
    pub health: Option<String>,
    /// Apps that stand before this one, in the order of a request.
    pub filters: Vec<FilterConfig>,
    /// `[[apps.<id>.bindings]]`: where capabilities of a waPC module lead to.
    pub bindings: Vec<CapabilityConfig>,
    /// `[apps.<id>.grants]`: what the app may reach. Nothing by default.
    pub grants: Grants,
    /// `[apps.<id>.limits]`, without the defaults: see [`Manifest::limits`].
    pub limits: LimitsConfig,
    /// `[apps.<id>.build]`: how the module is made from its source.
    pub build: Option<BuildConfig>,
}

/// `[[apps.<id>.bindings]]`: where a capability of a waPC module leads to.
#[derive(Clone, PartialEq, Eq)]
pub struct CapabilityConfig {
    /// The capability's short name, such as `keyvalue`; `actor` for another app.
    pub capability: String,
    /// The binding's name. Default `default`.
    pub name: String,
    /// The component, or of an actor the app; none for the usual one.
    pub component: Option<String>,
    /// What else is said of it. Not shown by `Debug`.
    pub values: BTreeMap<String, String>,
}

/// A filter before an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterConfig {
    /// An app of the same manifest; it must speak proxy-wasm, which only its module shows.
    pub app_id: String,
    /// Line of the name in the manifest.
    pub line: usize,
    /// Column of the name in the manifest.
    pub column: usize,
}

/// Where a module comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleSource {
    /// A file, joined to the manifest's folder.
    Path(PathBuf),
    /// `http://` or `https://`.
    Url(String),
    /// `oci://`: a registry.
    Oci {
        /// As the manifest writes it.
        reference: String,
        /// `cosign_key`: whoever must have signed it; joined to the manifest's folder.
        cosign_key: Option<PathBuf>,
    },
}

/// A folder that an app sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirConfig {
    /// Folder of the machine, joined to the manifest's folder.
    pub host: PathBuf,
    /// Absolute path at which the guest finds it.
    pub guest: String,
    /// The guest may write. Default false.
    pub write: bool,
}

/// Bounds of one app; `None` leaves the choice to the next level (app, then defaults, then the host).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Linear memory of an instance, in bytes.
    pub memory: Option<u64>,
    /// Time of one invocation.
    pub timeout: Option<Duration>,
    /// Invocations that run at once.
    pub concurrency: Option<u32>,
    /// Invocations that may wait; 0 refuses at once what cannot run.
    pub queue: Option<u32>,
    /// Body of a request, in bytes.
    pub request_body: Option<u64>,
    /// Body of a reply, in bytes.
    pub response_body: Option<u64>,
    /// Elements of all tables of an instance.
    pub tables: Option<u32>,
    /// Core instances inside one component.
    pub instances: Option<u32>,
    /// Outstanding outgoing requests and other host calls of an instance.
    pub host_calls: Option<u32>,
    /// Resource handles of an instance.
    pub handles: Option<u32>,
}

/// `[apps.<id>.build]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildConfig {
    /// Command line, run in the manifest's folder.
    pub command: String,
    /// Files and folders whose change starts a build, joined to the manifest's folder. Default `src`.
    pub watch: Vec<PathBuf>,
}

/// A route with its place, for finding two apps that claim the same one.
struct Claim {
    app_id: String,
    host: Option<String>,
    prefix: String,
    at: Position,
}

// === impl Manifest ===

impl Manifest {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Manifest, ResourceErrors> {
        let text = read_text(path)?;
        // Many editors empty a file before they write it: that is not the wish to have no apps.
        if text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#')) {
            let expected = "expected apps: [apps.NAME] with module = \"FILE.wasm\"";
            return Err(ResourceError::whole_file(path, "there is nothing in it", expected).into());
        }
        Manifest::parse(&text, path)
    }

    /// Checks a text; `file` stands in the errors, and its folder before all paths.
    pub fn parse(text: &str, file: &Path) -> Result<Manifest, ResourceErrors> {
        check_size(text.len(), file)?;
        let document = toml_tree::parse(text, file)?;
        let mut findings = Findings::new(file);
        let dir = file.parent().unwrap_or(Path::new(""));
        let mut manifest = Manifest {
            file: file.to_owned(),
            host: HostConfig::new(dir),
            trust: TrustConfig::default(),
            default_limits: LimitsConfig::default(),
            apps: BTreeMap::new(),
        };
        let mut claims = Vec::new();
        if let Some(mut top) = findings.table(&document, String::new()) {
            if let Some(node) = top.get("host") {
                manifest.host.read(&mut findings, node, dir);
            }
            if let Some(node) = top.get("trust") {
                manifest.trust = trust::read(&mut findings, node, dir);
            }
            if let Some(mut defaults) =
                top.get("defaults").and_then(|node| findings.table(node, "defaults".into()))
            {
                if let Some(limits) = defaults.read(&mut findings, "limits", limits::read) {
                    manifest.default_limits = limits;
                }
                defaults.finish(&mut findings);
            }
            if let Some(apps) = top.get("apps").and_then(|node| findings.table(node, "apps".into())) {
                for entry in apps.entries() {
                    let id_is_valid =
                        fields::app_id(&mut findings, entry.at, &apps.path_of(&entry.key), &entry.key);
                    let app = app::read(&mut findings, entry, &apps.path_of(&entry.key), dir, &mut claims);
                    if let (true, Some(app)) = (id_is_valid, app) {
                        manifest.apps.insert(entry.key.clone(), app);
                    }
                }
            }
            top.finish_beside(&mut findings, "host", &HOST_FIELDS);
        }
        // An app with a mistake is not among them, and would be missed.
        if findings.count() == 0 {
            check_filters(&mut findings, &manifest.apps);
        }
        find_double_claims(&mut findings, claims);
        ResourceErrors::check(findings.into_vec())?;
        Ok(manifest)
    }

    /// The limits of an app with the defaults filled in. An unknown app has the defaults alone.
    pub fn limits(&self, app_id: &str) -> LimitsConfig {
        match self.apps.get(app_id) {
            Some(app) => app.limits.or(&self.default_limits),
            None => self.default_limits.clone(),
        }
    }

    /// The folders with Dapr resources: those that the manifest names, else `resources` if it is there.
    pub fn resource_dirs(&self) -> Vec<PathBuf> {
        match &self.host.resources {
            Some(dirs) => dirs.clone(),
            None => {
                let usual = self.file.parent().unwrap_or(Path::new("")).join("resources");
                if usual.is_dir() { vec![usual] } else { Vec::new() }
            }
        }
    }
}

/// Filters that are not there, or that have filters themselves: a request passes one chain, without a circle.
fn check_filters(findings: &mut Findings, apps: &BTreeMap<String, AppConfig>) {
    for (app_id, app) in apps {
        for filter in &app.filters {
            let at = Position { line: filter.line, column: filter.column };
            let path = format!("apps.{app_id}.filters");
            let name = quote(&filter.app_id);
            match apps.get(&filter.app_id) {
                _ if filter.app_id == *app_id => {
                    findings.add(at, &path, "an app cannot be its own filter", "expected another app");
                }
                None => {
                    let known: Vec<&str> = apps.keys().map(String::as_str).collect();
                    let hint = match crate::error::nearest(&filter.app_id, &known) {
                        Some(nearest) => format!("did you mean {}?", quote(nearest)),
                        None => "expected the id of another app of this manifest".to_owned(),
                    };
                    findings.add(at, &path, format!("there is no app {name}"), hint);
                }
                Some(found) if !found.filters.is_empty() => findings.add(
                    at,
                    &path,
                    format!("app {name} has filters itself"),
                    "expected an app without filters: name all of them here, in their order",
                ),
                Some(_) => {}
            }
        }
    }
}

/// Two apps that claim one prefix of one host, or one app that claims it twice.
fn find_double_claims(findings: &mut Findings, mut claims: Vec<Claim>) {
    claims.sort_by_key(|claim| (claim.at.line, claim.at.column));
    let mut first: HashMap<(Option<String>, String), (String, usize)> = HashMap::new();
    for Claim { app_id, host, prefix, at } in claims {
        let shown = match &host {
            Some(host) => format!("{} of host {}", quote(&prefix), quote(host)),
            None => quote(&prefix),
        };
        match first.get(&(host.clone(), prefix.clone())) {
            None => {
                first.insert((host, prefix), (app_id, at.line));
            }
            Some((owner, line)) => findings.add(
                at,
                &format!("apps.{app_id}.routes"),
                format!("app {app_id:?} claims the route {shown}, which app {owner:?} already claims in line {line}"),
                "expected every route to belong to one app: choose another prefix, or tell the apps apart by `hosts`",
            ),
        }
    }
}

// === impl HostConfig ===

impl HostConfig {
    /// The defaults, for a manifest in this folder.
    pub fn new(dir: &Path) -> HostConfig {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        HostConfig {
            addr: local(8080),
            api_addr: Some(local(3500)),
            management_addr: Some(local(9090)),
            data_dir: dir.join(".dhow"),
            resources: None,
        }
    }

    fn read(&mut self, findings: &mut Findings, node: &crate::tree::Node, dir: &Path) {
        let Some(mut table) = findings.table(node, "host".to_owned()) else { return };
        if let Some(addr) = table.read(findings, "addr", fields::address) {
            self.addr = addr;
        }
        if let Some(addr) = table.read(findings, "api_addr", fields::address_or_off) {
            self.api_addr = addr;
        }
        if let Some(addr) = table.read(findings, "management_addr", fields::address_or_off) {
            self.management_addr = addr;
        }
        if let Some(data_dir) = table.read(findings, "data_dir", fields::path) {
            self.data_dir = dir.join(data_dir);
        }
        if let Some(dirs) = table.read(findings, "resources", fields::paths) {
            self.resources = Some(dirs.into_iter().map(|path| dir.join(path)).collect());
        }
        table.finish(findings);
    }
}

// === impl AppConfig ===

impl fmt::Debug for AppConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Environment and configuration values may be secret: names only.
        f.debug_struct("AppConfig")
            .field("line", &self.line)
            .field("module", &self.module)
            .field("routes", &self.routes)
            .field("hosts", &self.hosts)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("config", &self.config.keys().collect::<Vec<_>>())
            .field("dirs", &self.dirs)
            .field("reuse", &self.reuse)
            .field("filters", &self.filters)
            .field("bindings", &self.bindings)
            .field("grants", &self.grants)
            .field("limits", &self.limits)
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}

// === impl CapabilityConfig ===

impl fmt::Debug for CapabilityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapabilityConfig")
            .field("capability", &self.capability)
            .field("name", &self.name)
            .field("component", &self.component)
            .field("values", &self.values.keys().collect::<Vec<_>>())
            .finish()
    }
}

// === impl LimitsConfig ===

impl LimitsConfig {
    /// These limits, and where one is not set, the other ones.
    pub fn or(&self, other: &LimitsConfig) -> LimitsConfig {
        LimitsConfig {
            memory: self.memory.or(other.memory),
            timeout: self.timeout.or(other.timeout),
            concurrency: self.concurrency.or(other.concurrency),
            queue: self.queue.or(other.queue),
            request_body: self.request_body.or(other.request_body),
            response_body: self.response_body.or(other.response_body),
            tables: self.tables.or(other.tables),
            instances: self.instances.or(other.instances),
            host_calls: self.host_calls.or(other.host_calls),
            handles: self.handles.or(other.handles),
        }
    }
}
