//! `[[apps.<id>.bindings]]`: where capabilities of a waPC module lead to.

use super::{CapabilityConfig, fields};
use crate::error::{nearest, quote};
use crate::tree::{Findings, Node, Position};

/// Short names of the capabilities that there are, and `actor`, which is another app.
pub(crate) const CAPABILITIES: [&str; 9] = [
    "actor",
    "blobstore",
    "eventstreams",
    "extras",
    "httpclient",
    "httpserver",
    "keyvalue",
    "logging",
    "messaging",
];

/// What names of capabilities begin with, each of its time.
const FAMILIES: [&str; 3] = ["wasmcloud:", "wascc:", "wascap:"];

/// The binding that is meant where none is named.
pub(crate) const DEFAULT: &str = "default";

/// Reads the bindings of an app.
pub(super) fn read(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<CapabilityConfig>> {
    let nodes = findings.list(node, path, "a list of { capability, binding, component, values }");
    let mut bindings: Vec<CapabilityConfig> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let Some(mut table) = findings.table(node, format!("{path}[{index}]")) else { continue };
        let given = table.read(findings, "capability", |findings, node, path| {
            Some((findings.text(node, path)?, node.at, path.to_owned()))
        });
        if table.get("capability").is_none() {
            let hint = "expected { capability, binding, component, values }";
            findings.add(table.at, &table.path, "`capability` is missing", hint);
        }
        let name = table.read(findings, "binding", Findings::text).unwrap_or_else(|| DEFAULT.to_owned());
        let component = table.read(findings, "component", Findings::text);
        let values = table.read(findings, "values", fields::values).unwrap_or_default();
        if let Some((text, at, field)) = given
            && let Some(capability) = short_name(findings, at, &field, &text)
        {
            if bindings.iter().any(|known| known.capability == capability && known.name == name) {
                let message = format!("the binding {} of {capability} is given twice", quote(&name));
                findings.add(table.at, &table.path, message, "expected another name in `binding`");
            }
            if capability == "actor" && component.is_none() {
                let message = "an actor needs the app that it is";
                findings.add(table.at, &table.path, message, "expected component = \"<app-id>\"");
            }
            bindings.push(CapabilityConfig { capability: capability.to_owned(), name, component, values });
        }
        table.finish(findings);
    }
    Some(bindings)
}

/// The short name of a capability in any spelling.
pub(crate) fn short_name(
    findings: &mut Findings,
    at: Position,
    path: &str,
    text: &str,
) -> Option<&'static str> {
    let bare = FAMILIES.iter().find_map(|family| text.strip_prefix(family)).unwrap_or(text).replace('_', "");
    let bare = match bare.as_str() {
        "builtin:logging" => "logging",
        "builtin:numbergen" => "extras",
        bare => bare,
    };
    let known = CAPABILITIES.iter().find(|known| **known == bare).copied();
    if known.is_none() {
        let hint = match nearest(bare, &CAPABILITIES) {
            Some(nearest) => format!("did you mean {}?", quote(nearest)),
            None => format!("expected one of {}", CAPABILITIES.join(", ")),
        };
        findings.add(at, path, format!("{} is no capability", quote(text)), hint);
    }
    known
}
