//! Dapr's configuration: `kind: Configuration`, how a host treats its apps.
//!
//! Format: Dapr documentation, "Configuration spec" (apiVersion `dapr.io/v1alpha1`). `configuration/access.rs` holds
//! who may do what, `configuration/telemetry.rs` traces, metrics and logs; this file holds the rest. What dhow has no
//! use for is kept by name, so that the host can say so.

use crate::error::{ResourceError, ResourceErrors, quote};
use crate::load::UnusedField;
use crate::object::{self, required_scalar};
use crate::text_file::{check_size, read_text};
use crate::tree::{Findings, Node, Table, Value};
use crate::values;
use crate::yaml_tree;
use access::{AccessControl, ApiRule, SecretScope};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use telemetry::{ApiLogging, Metrics, Tracing};

pub mod access;
pub mod telemetry;

/// The apiVersion of configurations.
pub const API_VERSION: &str = "dapr.io/v1alpha1";

/// Most bytes of names and values in `nameResolution.configuration`.
const MAX_RESOLUTION_BYTES: usize = 64 * 1024;

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// `metadata.name`, which files that are named on a command line may lack.
    pub name: Option<String>,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.tracing`.
    pub tracing: Tracing,
    /// `spec.metrics`, and where it says nothing `spec.metric`.
    pub metrics: Metrics,
    /// `spec.logging.apiLogging`.
    pub api_logging: ApiLogging,
    /// `spec.secrets.scopes`. Their stores differ; what is said of no store is allowed.
    pub secret_scopes: Vec<SecretScope>,
    /// `spec.accessControl`: who may invoke what; `None` allows everything.
    pub access_control: Option<AccessControl>,
    /// `spec.api.allowed`: when there is one, all others are off.
    pub allowed_apis: Vec<ApiRule>,
    /// `spec.api.denied`.
    pub denied_apis: Vec<ApiRule>,
    /// `spec.components.deny`: types of components that are not used, perhaps with a version: `state.redis/v1`.
    pub denied_components: Vec<String>,
    /// `spec.nameResolution`.
    pub name_resolution: Option<NameResolution>,
    /// `spec.features`, in the order of the file.
    pub features: Vec<Feature>,
    /// `spec.httpPipeline.handlers`: what a request to the host passes, in this order.
    pub http_pipeline: Vec<Handler>,
    /// `spec.appHttpPipeline.handlers`: what a request to an app passes, in this order.
    pub app_http_pipeline: Vec<Handler>,
    /// Fields that Dapr knows and dhow has no use for, such as `spec.mtls`.
    pub unused: Vec<UnusedField>,
    /// The file.
    pub file: PathBuf,
    /// The line of the document's first field.
    pub line: usize,
}

/// `spec.nameResolution`: how apps of other hosts are found. `Debug` shows no values.
#[derive(Clone, PartialEq, Eq)]
pub struct NameResolution {
    /// `component`, e.g. `mdns`.
    pub component: String,
    /// `version`; `v1` when it is not given.
    pub version: String,
    /// `configuration`. What is inside maps and lists has the name `client.address`, `tags[0]`.
    pub configuration: BTreeMap<String, String>,
}

/// One of `spec.features`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// `name`.
    pub name: String,
    /// `enabled`.
    pub enabled: bool,
}

/// One middleware of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// `name`: the component.
    pub name: String,
    /// `type`, e.g. `middleware.http.ratelimit`.
    pub handler_type: String,
    /// `version`; `v1` when it is not given.
    pub version: String,
}

/// Reads the file of `--config`: one configuration and nothing else.
pub fn load(path: &Path) -> Result<Configuration, ResourceErrors> {
    parse(&read_text(path)?, path)
}

/// Reads the text of such a file; `file` stands in the errors.
pub fn parse(text: &str, file: &Path) -> Result<Configuration, ResourceErrors> {
    check_size(text.len(), file)?;
    let Some(document) = yaml_tree::parse_one(text, file)? else {
        let hint = "expected a document with kind: Configuration";
        return Err(ResourceError::whole_file(file, "the file is empty", hint).into());
    };
    let mut findings = Findings::new(file);
    let configuration = read_only(&mut findings, &document, file);
    ResourceErrors::check(findings.into_vec())?;
    // Without findings there is a configuration.
    Ok(configuration.unwrap_or_default())
}

/// Reads a document that cannot be anything but a configuration.
fn read_only(findings: &mut Findings, document: &Node, file: &Path) -> Option<Configuration> {
    let mut top = findings.table(document, String::new())?;
    match top.read(findings, "kind", Findings::scalar).as_deref() {
        Some("Configuration") => Configuration::read(findings, document, file),
        Some(kind) => {
            let at = top.get("kind").map_or(document.at, |node| node.at);
            findings.add(
                at,
                "kind",
                format!("{} is not Configuration", quote(kind)),
                "expected kind: Configuration",
            );
            None
        }
        None => {
            findings.add(document.at, "", "`kind` is missing", "expected kind: Configuration");
            None
        }
    }
}

// === impl Configuration ===

impl Configuration {
    /// Reads a document of this kind; what is wrong goes to the findings.
    pub(crate) fn read(findings: &mut Findings, document: &Node, file: &Path) -> Option<Configuration> {
        let (mut top, _) = object::open(findings, document, "Configuration", &[API_VERSION])?;
        let (name, namespace) = object::optional_metadata(findings, &mut top);
        let spec = top.optional(findings, "spec", |f, node, path| f.table(node, path.to_owned()));
        top.finish(findings);

        let mut configuration = Configuration {
            name,
            namespace,
            file: file.to_owned(),
            line: document.at.line,
            ..Configuration::default()
        };
        let Some(mut spec) = spec else { return Some(configuration) };
        configuration.read_telemetry(findings, &mut spec);
        configuration.read_access(findings, &mut spec);
        configuration.read_rest(findings, &mut spec);
        configuration.read_unused(findings, &mut spec);
        spec.finish(findings);
        Some(configuration)
    }

    fn read_telemetry(&mut self, findings: &mut Findings, spec: &mut Table<'_>) {
        if let Some(tracing) = spec.optional(findings, "tracing", values::table(telemetry::tracing)) {
            self.tracing = tracing;
        }
        let old = spec.optional(findings, "metric", values::table(telemetry::metrics));
        let new = spec.optional(findings, "metrics", values::table(telemetry::metrics));
        self.metrics = new.unwrap_or_default().or(old.unwrap_or_default());
        if let Some(logging) = spec.optional(findings, "logging", values::table(telemetry::logging)) {
            self.api_logging = logging;
        }
    }

    fn read_access(&mut self, findings: &mut Findings, spec: &mut Table<'_>) {
        let scopes = spec.optional(findings, "secrets", values::table(access::secrets));
        self.secret_scopes = scopes.unwrap_or_default();
        self.access_control =
            spec.optional(findings, "accessControl", values::table(access::access_control)).flatten();
        if let Some((allowed, denied)) = spec.optional(findings, "api", values::table(access::apis)) {
            (self.allowed_apis, self.denied_apis) = (allowed, denied);
        }
        let denied = spec.optional(
            findings,
            "components",
            values::table(|f, table| table.optional(f, "deny", values::texts)),
        );
        self.denied_components = denied.unwrap_or_default();
    }

    fn read_rest(&mut self, findings: &mut Findings, spec: &mut Table<'_>) {
        self.name_resolution = spec.optional(findings, "nameResolution", values::table(name_resolution));
        let features = values::tables("a list of {name, enabled}", feature);
        self.features = spec.optional(findings, "features", features).unwrap_or_default();
        let unused = &mut self.unused;
        let mut pipeline = |field| {
            let handlers = |f: &mut Findings, table: &mut Table<'_>| {
                let list = values::tables("a list of {name, type}", |f, table| handler(f, table, unused));
                table.optional(f, "handlers", list)
            };
            spec.optional(findings, field, values::table(handlers)).unwrap_or_default()
        };
        self.http_pipeline = pipeline("httpPipeline");
        self.app_http_pipeline = pipeline("appHttpPipeline");
    }

    /// Fields that are checked as far as their names are known, and otherwise only remembered.
    fn read_unused(&mut self, findings: &mut Findings, spec: &mut Table<'_>) {
        const MTLS: &[&str] = &[
            "enabled",
            "workloadCertTTL",
            "allowedClockSkew",
            "sentryAddress",
            "controlPlaneTrustDomain",
            "tokenValidators",
        ];
        const WASM: &[&str] = &["strictSandbox"];
        for (field, known) in [("mtls", MTLS), ("wasm", WASM)] {
            spec.optional(
                findings,
                field,
                values::table(|_, table| {
                    for name in known {
                        table.get(name);
                    }
                    Some(())
                }),
            );
        }
        // What a workflow engine can be told grows with every version of Dapr.
        spec.optional(findings, "workflow", |findings, node, path| {
            findings.table(node, path.to_owned()).map(drop)
        });
        for field in ["mtls", "wasm", "workflow"] {
            if spec.has(field)
                && let Some(entry) = spec.entry(field)
            {
                self.unused.push(UnusedField { name: spec.path_of(field), line: entry.at.line });
            }
        }
    }
}

fn feature(findings: &mut Findings, table: &mut Table<'_>) -> Option<Feature> {
    let name = required_scalar(findings, table, "name", "expected {name, enabled}");
    let enabled = table.optional(findings, "enabled", Findings::boolean).unwrap_or(false);
    Some(Feature { name: name?, enabled })
}

fn handler(findings: &mut Findings, table: &mut Table<'_>, unused: &mut Vec<UnusedField>) -> Option<Handler> {
    let name = required_scalar(findings, table, "name", "expected the name of a component");
    let handler_type =
        required_scalar(findings, table, "type", "expected a type such as middleware.http.ratelimit");
    let version = table.optional(findings, "version", values::name);
    if table.has("selector")
        && let Some(entry) = table.entry("selector")
    {
        unused.push(UnusedField { name: table.path_of("selector"), line: entry.at.line });
    }
    Some(Handler {
        name: name?,
        handler_type: handler_type?,
        version: version.unwrap_or_else(|| "v1".to_owned()),
    })
}

fn name_resolution(findings: &mut Findings, table: &mut Table<'_>) -> Option<NameResolution> {
    let component = required_scalar(findings, table, "component", "expected a name such as mdns");
    let version = table.optional(findings, "version", values::name);
    let configuration = table.optional(findings, "configuration", |findings, node, path| {
        let table = findings.table(node, path.to_owned())?;
        let mut flat = BTreeMap::new();
        let mut room = MAX_RESOLUTION_BYTES;
        let fits = table.entries().iter().all(|entry| flatten(&entry.node, &entry.key, &mut flat, &mut room));
        if !fits {
            let message = format!("is larger than {} KiB", MAX_RESOLUTION_BYTES / 1024);
            findings.add(node.at, path, message, "expected the settings of one component");
        }
        fits.then_some(flat)
    });
    Some(NameResolution {
        component: component?,
        version: version.unwrap_or_else(|| "v1".to_owned()),
        configuration: configuration.unwrap_or_default(),
    })
}

/// Adds a value, or all values inside it, under the name; false when there is no room for them.
fn flatten(node: &Node, name: &str, flat: &mut BTreeMap<String, String>, room: &mut usize) -> bool {
    let Some(left) = room.checked_sub(name.len()) else { return false };
    *room = left;
    match &node.value {
        Value::Map(entries) => {
            entries.iter().all(|entry| flatten(&entry.node, &format!("{name}.{}", entry.key), flat, room))
        }
        Value::List(nodes) => nodes
            .iter()
            .enumerate()
            .all(|(index, node)| flatten(node, &format!("{name}[{index}]"), flat, room)),
        _ => {
            let value = node.scalar().unwrap_or_default();
            let left = room.checked_sub(value.len());
            *room = left.unwrap_or(0);
            flat.insert(name.to_owned(), value);
            left.is_some()
        }
    }
}

// === impl NameResolution ===

impl fmt::Debug for NameResolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A connection string may hold a password: names only.
        f.debug_struct("NameResolution")
            .field("component", &self.component)
            .field("version", &self.version)
            .field("configuration", &self.configuration.keys().collect::<Vec<_>>())
            .finish()
    }
}
