//! A Dapr component: `kind: Component` with its metadata, secrets, scopes and templates.
//!
//! Format: Dapr documentation, "Component schema" (apiVersion `dapr.io/v1alpha1`).

use crate::error::quote;
use crate::object::{self, NameIsFor, required_scalar, required_table};
use crate::tree::{Findings, Node};
use crate::units::parse_duration;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The apiVersion of components.
pub const API_VERSION: &str = "dapr.io/v1alpha1";

/// A component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// `metadata.name`: the name that apps ask for.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.type`, e.g. `state.sqlite`.
    pub component_type: String,
    /// `spec.version`; `v1` when it is not given.
    pub version: String,
    /// `spec.ignoreErrors`: the host starts although this component cannot.
    pub ignore_errors: bool,
    /// `spec.initTimeout`.
    pub init_timeout: Option<Duration>,
    /// `spec.metadata`, in the order of the file.
    pub metadata: Vec<MetadataItem>,
    /// `auth.secretStore`: the secret store that [`MetadataValue::SecretRef`] refers to.
    pub auth_secret_store: Option<String>,
    /// `scopes`: the apps that see this component; empty: all.
    pub scopes: Vec<String>,
    /// The file.
    pub file: PathBuf,
    /// The line of the document's first field.
    pub line: usize,
}

/// One `{name, value}` of `spec.metadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataItem {
    /// Name, as written; it is matched without regard to case.
    pub name: String,
    /// The line it stands at; 0 where no file says it.
    pub line: usize,
    /// Value.
    pub value: MetadataValue,
}

/// A value of a component's metadata. `Debug` shows no plain value, because a password is one.
#[derive(Clone, PartialEq, Eq)]
pub enum MetadataValue {
    /// Written out. Whatever scalar stood there, as Dapr shows it.
    Plain(String),
    /// To be read from a secret store.
    SecretRef {
        /// Name of the secret.
        name: String,
        /// Key inside the secret; the secret's name when the file gives none.
        key: String,
    },
    /// To be read from this environment variable of the host.
    EnvRef(String),
}

// === impl Component ===

impl Component {
    /// The first metadata value of that name, upper and lower case being the same.
    pub fn metadata_value(&self, name: &str) -> Option<&MetadataValue> {
        self.metadata.iter().find(|item| item.name.eq_ignore_ascii_case(name)).map(|item| &item.value)
    }

    /// Whether an app may see this component.
    pub fn is_in_scope(&self, app_id: &str) -> bool {
        object::is_in_scope(&self.scopes, app_id)
    }

    /// The component as one app gets it: in plain values `{appID}` is the app-id, `{namespace}` is
    /// `<namespace>.<app-id>`, `{uuid}` is a new random UUID at each place, and `{podName}`, which outside
    /// Kubernetes nobody has, the app-id.
    pub fn expand(&self, app_id: &str, namespace: &str) -> Component {
        let mut expanded = self.clone();
        for item in &mut expanded.metadata {
            if let MetadataValue::Plain(text) = &mut item.value
                && text.contains('{')
            {
                *text = expand(text, app_id, namespace);
            }
        }
        expanded
    }

    /// Reads a document of this kind; what is wrong goes to the findings.
    pub(crate) fn read(findings: &mut Findings, document: &Node, file: &Path) -> Option<Component> {
        let (mut top, _) = object::open(findings, document, "Component", &[API_VERSION])?;
        let object = object::metadata(findings, &mut top, NameIsFor::Apps);
        let spec = required_table(findings, &mut top, "spec");
        let auth_secret_store = object::secret_store(findings, &mut top);
        let scopes = object::scopes(findings, &mut top);
        top.finish(findings);

        let (name, namespace) = object?;
        let mut spec = spec?;
        let component_type =
            required_scalar(findings, &mut spec, "type", "expected a type such as state.sqlite");
        let version = spec.read(findings, "version", Findings::scalar).filter(|version| !version.is_empty());
        let ignore_errors = spec.read(findings, "ignoreErrors", Findings::boolean).unwrap_or(false);
        let init_timeout = spec.read(findings, "initTimeout", init_timeout);
        let metadata = spec.optional(findings, "metadata", metadata).unwrap_or_default();
        spec.finish(findings);
        Some(Component {
            name: name?,
            namespace,
            component_type: component_type?,
            version: version.unwrap_or_else(|| "v1".to_owned()),
            ignore_errors,
            init_timeout,
            metadata,
            auth_secret_store,
            scopes,
            file: file.to_owned(),
            line: document.at.line,
        })
    }
}

fn init_timeout(findings: &mut Findings, node: &Node, path: &str) -> Option<Duration> {
    let text = findings.scalar(node, path).filter(|text| !text.is_empty())?;
    match parse_duration(&text) {
        Ok(timeout) => Some(timeout),
        Err(expected) => {
            findings.add(node.at, path, format!("{} is not a duration", quote(&text)), expected);
            None
        }
    }
}

/// A list of `{name, value}`, each value written out, in a secret store or in an environment variable.
pub(crate) fn metadata(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<MetadataItem>> {
    let nodes = findings.list(node, path, "a list of {name, value}");
    let items = nodes.iter().enumerate();
    Some(
        items.filter_map(|(index, node)| metadata_item(findings, node, format!("{path}[{index}]"))).collect(),
    )
}

fn metadata_item(findings: &mut Findings, node: &Node, path: String) -> Option<MetadataItem> {
    let mut table = findings.table(node, path)?;
    let line = table.at.line;
    let name = required_scalar(findings, &mut table, "name", "expected {name, value}");
    let plain = table.read(findings, "value", Findings::scalar);
    let secret = table.read(findings, "secretKeyRef", secret_ref);
    let env = table.read(findings, "envRef", env_ref);
    let given = [plain.as_ref().is_some_and(|value| !value.is_empty()), secret.is_some(), env.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        findings.add(
            table.at,
            &table.path,
            "has more than one value",
            "expected one of value, secretKeyRef, envRef",
        );
    }
    table.finish(findings);
    let value = secret.or(env).unwrap_or_else(|| MetadataValue::Plain(plain.unwrap_or_default()));
    Some(MetadataItem { name: name?, line, value })
}

/// `secretKeyRef: {name, key}`.
pub(crate) fn secret_ref(findings: &mut Findings, node: &Node, path: &str) -> Option<MetadataValue> {
    let mut table = findings.table(node, path.to_owned())?;
    let name = required_scalar(findings, &mut table, "name", "expected {name, key}");
    let key = table.read(findings, "key", Findings::scalar);
    table.finish(findings);
    let name = name?;
    let key = key.filter(|key| !key.is_empty()).unwrap_or_else(|| name.clone());
    Some(MetadataValue::SecretRef { name, key })
}

/// Dapr refuses its own variables, so that a component cannot be made to carry the host's tokens away.
fn env_ref(findings: &mut Findings, node: &Node, path: &str) -> Option<MetadataValue> {
    let name = findings.scalar(node, path)?;
    let upper = name.to_ascii_uppercase();
    let is_refused = upper.starts_with("DAPR_")
        || upper == "APP_API_TOKEN"
        || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=');
    if is_refused {
        findings.add(
            node.at,
            path,
            format!("the environment variable {} cannot be used", quote(&name)),
            "expected a name without blanks that is not DAPR_… or APP_API_TOKEN",
        );
    }
    (!is_refused && !name.is_empty()).then_some(MetadataValue::EnvRef(name))
}

/// Replaces templates in one pass, so that what was put in is never taken for a template.
fn expand(text: &str, app_id: &str, namespace: &str) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        expanded.push_str(before);
        let templates = [
            ("{appID}", app_id.to_owned()),
            ("{podName}", app_id.to_owned()),
            ("{namespace}", format!("{namespace}.{app_id}")),
        ];
        let found = templates.iter().find(|(name, _)| from.starts_with(name));
        rest = if let Some((name, value)) = found {
            expanded.push_str(value);
            &from[name.len()..]
        } else if let Some(after) = from.strip_prefix("{uuid}") {
            expanded.push_str(&random_uuid());
            after
        } else {
            expanded.push('{');
            &from[1..]
        };
    }
    expanded.push_str(rest);
    expanded
}

/// A random UUID (RFC 9562, version 4). It names things; it guards nothing.
fn random_uuid() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

// === impl MetadataValue ===

impl fmt::Debug for MetadataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetadataValue::Plain(_) => f.write_str("Plain(…)"),
            MetadataValue::SecretRef { name, key } => {
                f.debug_struct("SecretRef").field("name", name).field("key", key).finish()
            }
            MetadataValue::EnvRef(name) => f.debug_tuple("EnvRef").field(name).finish(),
        }
    }
}
