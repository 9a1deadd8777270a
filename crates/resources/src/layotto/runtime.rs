//! `grpc_config`: the components of the runtime and the app beside it.

use super::{free, port};
use crate::component::{Component, MetadataItem, MetadataValue};
use crate::error::quote;
use crate::load::UnusedField;
use crate::tree::{Entry, Findings, Node, Table, Value};
use crate::values::name;
use std::collections::BTreeMap;
use std::path::Path;

/// Sections of components, and what the types in them begin with here.
const SECTIONS: [(&str, &str); 13] = [
    ("state", "state"),
    ("pub_subs", "pubsub"),
    ("lock", "lock"),
    ("sequencer", "sequencer"),
    ("config_store", "configuration"),
    ("secret_store", "secretstores"),
    ("bindings", "bindings"),
    ("file", "file"),
    ("oss", "oss"),
    ("cryption", "cryption"),
    ("email", "email"),
    ("sms", "sms"),
    ("phone", "phone"),
];

/// Fields of a component that are not its own to choose.
const FIELDS: [&str; 4] = ["type", "metadata", "secret_ref", "component_ref"];

/// Names of metadata that Layotto's components have and ours know under another.
const RENAMED: [(&str, &str); 1] = [("db", "redisDB")];

/// What the runtime's API is over.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    /// `app.app_id`.
    pub app_id: Option<String>,
    /// Where the app is called back.
    pub callback: Option<Callback>,
    /// What `SayHello` says, by name: `hellos`.
    pub hellos: BTreeMap<String, String>,
    /// The components of all sections, each with the type that it would have in a resource. Names of one section
    /// differ. Those of `state` have `keyPrefix: none` unless they say otherwise, which is Layotto's rule.
    pub components: Vec<Component>,
}

/// The app's own gRPC server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// `app.grpc_callback_host`; 127.0.0.1 when it is not given.
    pub host: String,
    /// `app.grpc_callback_port`.
    pub port: u16,
}

// === impl Runtime ===

impl Runtime {
    pub(super) fn read(
        &mut self,
        findings: &mut Findings,
        mut grpc: Table<'_>,
        file: &Path,
        unused: &mut Vec<UnusedField>,
    ) {
        let map = |findings: &mut Findings, node, path: &str| findings.table(node, path.to_owned());
        for (section, prefix) in SECTIONS {
            let Some(components) = grpc.optional(findings, section, map) else { continue };
            for entry in components.entries() {
                let path = components.path_of(&entry.key);
                self.components.extend(component(findings, entry, path, prefix, file, unused));
            }
        }
        if let Some(hellos) = grpc.optional(findings, "hellos", map) {
            for entry in hellos.entries() {
                let hello = findings.table(&entry.node, hellos.path_of(&entry.key));
                let hello = hello.and_then(|mut hello| hello.optional(findings, "hello", Findings::scalar));
                self.hellos.insert(entry.key.clone(), hello.unwrap_or_default());
            }
        }
        if let Some(mut app) = grpc.optional(findings, "app", map) {
            self.app_id = app.optional(findings, "app_id", name);
            let host = app.optional(findings, "grpc_callback_host", name);
            let port = app.optional(findings, "grpc_callback_port", port).filter(|port| *port > 0);
            self.callback =
                port.map(|port| Callback { host: host.unwrap_or_else(|| "127.0.0.1".to_owned()), port });
            unused.extend(app.rest().map(|(name, line)| UnusedField { name, line }));
        }
        // Calls between functions need no way to be configured.
        grpc.get("rpcs");
        unused.extend(grpc.rest().map(|(name, line)| UnusedField { name, line }));
    }
}

fn component(
    findings: &mut Findings,
    entry: &Entry,
    path: String,
    prefix: &str,
    file: &Path,
    unused: &mut Vec<UnusedField>,
) -> Option<Component> {
    let mut table = findings.table(&entry.node, path)?;
    let Some(kind) = table.optional(findings, "type", name) else {
        findings.add(entry.at, &table.path, "`type` is missing", "expected a type such as \"redis\"");
        return None;
    };
    let mut metadata: Vec<MetadataItem> = Vec::new();
    if let Some(node) = table.get("metadata") {
        metadata.extend(fields(findings, node, &table.path_of("metadata"), unused));
    }
    // What stands beside `metadata` is for the component, too: `biggerThan`, `address`, `timeout`.
    let own = table.entries().iter().filter(|entry| !FIELDS.contains(&entry.key.as_str()));
    metadata.extend(own.map(|entry| item(&entry.key, free(&entry.node))));
    let store = secrets(findings, &mut table, &mut metadata);
    if let Some(reference) = table.entry("component_ref") {
        unused.push(UnusedField { name: table.path_of("component_ref"), line: reference.at.line });
    }
    let has_prefix = metadata.iter().any(|item| item.name.eq_ignore_ascii_case("keyPrefix"));
    if prefix == "state" && !has_prefix {
        metadata.push(item("keyPrefix", "none".to_owned()));
    }
    Some(Component {
        name: entry.key.clone(),
        namespace: None,
        component_type: format!("{prefix}.{kind}"),
        version: "v1".to_owned(),
        ignore_errors: false,
        init_timeout: None,
        metadata,
        auth_secret_store: store,
        scopes: Vec::new(),
        file: file.to_owned(),
        line: entry.at.line,
    })
}

fn item(name: &str, value: String) -> MetadataItem {
    let renamed = RENAMED.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(name));
    let name = renamed.map_or(name, |(_, ours)| ours).to_owned();
    MetadataItem { name, line: 0, value: MetadataValue::Plain(value) }
}

/// A map; or a list of maps, of which the stores of files take the first.
fn fields(
    findings: &mut Findings,
    node: &Node,
    path: &str,
    unused: &mut Vec<UnusedField>,
) -> Vec<MetadataItem> {
    match &node.value {
        Value::Null => Vec::new(),
        Value::Map(entries) => entries.iter().map(|entry| item(&entry.key, free(&entry.node))).collect(),
        Value::List(nodes) => {
            let others = nodes.iter().enumerate().skip(1);
            unused.extend(
                others.map(|(index, node)| UnusedField {
                    name: format!("{path}[{index}]"),
                    line: node.at.line,
                }),
            );
            nodes
                .first()
                .map_or_else(Vec::new, |first| fields(findings, first, &format!("{path}[0]"), unused))
        }
        _ => {
            findings.wrong_type(node, path, "a map");
            Vec::new()
        }
    }
}

/// `secret_ref`: values that come from a secret store, one store a component.
fn secrets(
    findings: &mut Findings,
    table: &mut Table<'_>,
    metadata: &mut Vec<MetadataItem>,
) -> Option<String> {
    let path = table.path_of("secret_ref");
    let references = super::list(findings, table, "secret_ref");
    let mut store: Option<String> = None;
    for (index, node) in references.iter().enumerate() {
        let Some(mut table) = findings.table(node, format!("{path}[{index}]")) else { continue };
        let named = table.optional(findings, "store_name", name);
        let key = table.optional(findings, "key", name);
        let sub_key = table.optional(findings, "sub_key", name);
        let inject_as = table.optional(findings, "inject_as", name);
        let (Some(named), Some(key)) = (named, key) else {
            let hint = "expected store_name and key, perhaps with sub_key and inject_as";
            findings.add(table.at, &table.path, "names no secret", hint);
            continue;
        };
        if let Some(store) = store.as_ref().filter(|store| **store != named) {
            let message = format!("{} is a second secret store beside {}", quote(&named), quote(store));
            findings.add(table.at, &table.path, message, "expected one secret store for a component");
        }
        // As Layotto names it: the last of what is known.
        let field = inject_as.or_else(|| sub_key.clone()).unwrap_or_else(|| key.clone());
        metadata.retain(|item| !item.name.eq_ignore_ascii_case(&field));
        let sub_key = sub_key.unwrap_or_else(|| key.clone());
        metadata.push(MetadataItem {
            name: field,
            line: 0,
            value: MetadataValue::SecretRef { name: key, key: sub_key },
        });
        store = Some(named);
        table.finish(findings);
    }
    store
}
