//! What the kinds of Dapr have in common: `apiVersion`, `kind`, `metadata`, `scopes` and `auth` around a `spec`.

use crate::error::{nearest, quote};
use crate::tree::{Findings, Node, Table};

/// Fields of a Kubernetes object's metadata that mean nothing here and are allowed nevertheless.
const IDLE_FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// Who has a use for the name of a resource.
#[derive(Clone, Copy)]
pub(crate) enum NameIsFor {
    Apps,
    People,
}

/// Begins a document: its fields, of which `apiVersion` and `kind` are read, and the version that it has, if it
/// is one of these.
pub(crate) fn open<'a>(
    findings: &mut Findings,
    document: &'a Node,
    kind: &str,
    versions: &[&'static str],
) -> Option<(Table<'a>, Option<&'static str>)> {
    let mut top = findings.table(document, String::new())?;
    let version = match top.get("apiVersion") {
        None => {
            let hint = format!("expected apiVersion: {}", versions.join(" or "));
            findings.add(document.at, "apiVersion", "is missing", hint);
            None
        }
        Some(node) => findings.scalar(node, "apiVersion").and_then(|text| {
            let version = versions.iter().copied().find(|version| *version == text);
            if version.is_none() {
                let message = format!("{} is not a version of {kind}", quote(&text));
                findings.add(node.at, "apiVersion", message, format!("expected {}", versions.join(" or ")));
            }
            version
        }),
    };
    top.get("kind");
    Some((top, version))
}

/// `metadata`: the name, which is for this, and the namespace.
pub(crate) fn metadata(
    findings: &mut Findings,
    top: &mut Table<'_>,
    name_is_for: NameIsFor,
) -> Option<(Option<String>, Option<String>)> {
    let mut table = required_table(findings, top, "metadata")?;
    let hint = match name_is_for {
        NameIsFor::Apps => "expected the name that apps ask for",
        NameIsFor::People => "expected a name that no other resource of this kind has",
    };
    let name = required_scalar(findings, &mut table, "name", hint);
    let namespace = namespace(findings, table);
    Some((name, namespace))
}

/// `metadata` of a resource that needs no name.
pub(crate) fn optional_metadata(
    findings: &mut Findings,
    top: &mut Table<'_>,
) -> (Option<String>, Option<String>) {
    let table =
        top.optional(findings, "metadata", |findings, node, path| findings.table(node, path.to_owned()));
    let Some(mut table) = table else { return (None, None) };
    let name = table.read(findings, "name", Findings::scalar).filter(|text| !text.is_empty());
    (name, namespace(findings, table))
}

fn namespace(findings: &mut Findings, mut table: Table<'_>) -> Option<String> {
    let namespace = table.read(findings, "namespace", Findings::scalar).filter(|text| !text.is_empty());
    table.get("labels");
    for field in IDLE_FIELDS {
        table.get(field);
    }
    table.finish(findings);
    namespace
}

/// `scopes`: app-ids.
pub(crate) fn scopes(findings: &mut Findings, top: &mut Table<'_>) -> Vec<String> {
    let scopes = top.optional(findings, "scopes", |findings, node, path| {
        let nodes = findings.list(node, path, "a list of app-ids");
        Some(nodes.iter().filter_map(|node| findings.scalar(node, path)).collect())
    });
    scopes.unwrap_or_default()
}

/// Whether an app is among the scopes; none at all means every app.
pub(crate) fn is_in_scope(scopes: &[String], app_id: &str) -> bool {
    scopes.is_empty() || scopes.iter().any(|scope| scope == app_id)
}

/// `auth.secretStore`.
pub(crate) fn secret_store(findings: &mut Findings, top: &mut Table<'_>) -> Option<String> {
    top.optional(findings, "auth", |findings, node, path| {
        let mut auth = findings.table(node, path.to_owned())?;
        let store = auth.read(findings, "secretStore", Findings::scalar);
        auth.finish(findings);
        store.filter(|store| !store.is_empty())
    })
}

/// A map that must be there.
pub(crate) fn required_table<'a>(
    findings: &mut Findings,
    parent: &mut Table<'a>,
    field: &'static str,
) -> Option<Table<'a>> {
    match parent.get(field) {
        Some(node) => findings.table(node, parent.path_of(field)),
        None => {
            let near: Vec<&str> = parent.entries().iter().map(|entry| entry.key.as_str()).collect();
            // A misspelt field is told where it stands, once.
            if nearest(field, &near).is_none() {
                findings.add(parent.at, &parent.path, format!("`{field}` is missing"), "");
            }
            None
        }
    }
}

/// A text that must be there and must not be empty.
pub(crate) fn required_scalar(
    findings: &mut Findings,
    parent: &mut Table<'_>,
    field: &'static str,
    hint: &str,
) -> Option<String> {
    let text = parent.read(findings, field, Findings::scalar);
    let is_missing = match &text {
        Some(text) => text.is_empty(),
        None => parent.get(field).is_none(),
    };
    if is_missing {
        findings.add(parent.at, &parent.path, format!("`{field}` is missing"), hint);
    }
    text.filter(|text| !text.is_empty())
}
