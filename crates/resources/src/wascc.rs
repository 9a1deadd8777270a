//! Manifests of waSCC hosts: actors, and what their capabilities are bound to.
//!
//! ```yaml
//! actors: [./counter.wasm, registry.example/shop/orders:1.2.0]
//! capabilities: [{ path: ./libredis.so, binding_name: default }]
//! bindings:
//!   - { actor: MASCXF…, capability: wascc:keyvalue, binding: default, values: { URL: redis://127.0.0.1:6379 } }
//! ```
//!
//! Format: wascc-host 0.10 and later, and `config` for `bindings` in those before. `${NAME}` and `${NAME:default}` stand
//! for variables of the environment anywhere in the file; one that is not there and has no default is an error, but for
//! comments.
//!
//! Capabilities were native libraries; here dhow's own providers take their place, so the list is read and not used.
//! `wascc/plan.rs` says what bindings become.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Actor, Plan};

use crate::error::{ResourceErrors, quote};
use crate::manifest::{CapabilityConfig, capability};
use crate::text_file::{check_size, read_text};
use crate::tree::{Findings, Node, Position, Value};
use crate::values;
use crate::yaml_tree;
use std::fmt;
use std::path::{Path, PathBuf};

/// A whole manifest.
#[derive(Clone, Debug)]
pub struct Wascc {
    /// `actors`: paths and references as they are written.
    pub actors: Vec<ActorPath>,
    /// `bindings`.
    pub bindings: Vec<ActorBinding>,
    /// The file.
    pub file: PathBuf,
}

/// One of `actors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorPath {
    /// The module's file, or a reference to a registry.
    pub path: String,
    /// Where it stands.
    pub line: usize,
    /// Where it stands.
    pub column: usize,
}

/// One of `bindings`.
#[derive(Clone, PartialEq, Eq)]
pub struct ActorBinding {
    /// The actor: the public key that its token names, its path, or its file's name.
    pub actor: String,
    /// Capability, name and values.
    pub capability: CapabilityConfig,
    /// Where the actor stands.
    pub line: usize,
    /// Where the actor stands.
    pub column: usize,
}

/// Whether a text is such a manifest: a map with `actors`, which no other file of `dhow up` has.
pub fn is_manifest(text: &str) -> bool {
    // In JSON the first column says nothing.
    if text.trim_start().starts_with('{') {
        let document = yaml_tree::parse_one(text, Path::new("")).ok().flatten();
        let fields = document.map(|document| document.value);
        return matches!(fields, Some(Value::Map(fields)) if fields.iter().any(|field| field.key == "actors"));
    }
    let starts = |line: &str| {
        let rest = line.trim_start_matches('"').strip_prefix("actors");
        rest.is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(':'))
    };
    text.lines().filter(|line| !line.starts_with([' ', '\t', '-', '#'])).any(starts)
}

impl Wascc {
    /// Reads a file; `variable` is the environment.
    pub fn load(file: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Wascc, ResourceErrors> {
        Wascc::parse(&read_text(file)?, file, variable)
    }

    /// Reads a text; `file` stands in the errors.
    pub fn parse(
        text: &str,
        file: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Wascc, ResourceErrors> {
        let (text, unset) = expand(text, variable);
        check_size(text.len(), file)?;
        let mut missing = Findings::new(file);
        for (name, at) in unset {
            let message = format!("the environment has no variable {}", quote(&name));
            missing.add(at, "", message, "set it, or write a default: `${NAME:default}`");
        }
        ResourceErrors::check(missing.into_vec())?;
        let document = yaml_tree::parse_one(&text, file)?;
        let mut findings = Findings::new(file);
        let mut wascc = Wascc { actors: Vec::new(), bindings: Vec::new(), file: file.to_owned() };
        match &document {
            Some(document) => wascc.read(&mut findings, document),
            None => findings.add(
                Position { line: 1, column: 1 },
                "actors",
                "is missing",
                "expected a list of paths",
            ),
        }
        ResourceErrors::check(findings.into_vec())?;
        Ok(wascc)
    }

    fn read(&mut self, findings: &mut Findings, document: &Node) {
        let Some(mut top) = findings.table(document, String::new()) else { return };
        let actors =
            top.optional(findings, "actors", |findings, node, path| Some(findings.texts(node, path)));
        if actors.as_ref().is_none_or(Vec::is_empty) {
            findings.add(
                document.at,
                "actors",
                "there is no actor",
                "expected a list of paths or references of modules",
            );
        }
        let actors = actors.unwrap_or_default().into_iter();
        self.actors = actors.map(|(path, at)| ActorPath { path, line: at.line, column: at.column }).collect();
        // Native libraries of the old host.
        top.get("capabilities");
        for field in ["bindings", "config"] {
            let entries = top.optional(findings, field, |findings, node, path| {
                Some(findings.list(node, path, "a list of { actor, capability, binding, values }").to_vec())
            });
            for (index, node) in entries.unwrap_or_default().iter().enumerate() {
                if let Some(binding) = binding(findings, node, format!("{field}[{index}]")) {
                    self.bindings.push(binding);
                }
            }
        }
        top.get("labels");
        top.finish(findings);
    }
}

fn binding(findings: &mut Findings, node: &Node, path: String) -> Option<ActorBinding> {
    let mut table = findings.table(node, path)?;
    let text = |findings: &mut Findings, node: &Node, path: &str| {
        Some((findings.text(node, path)?, node.at, path.to_owned()))
    };
    let actor = table.optional(findings, "actor", text);
    let named = table.optional(findings, "capability", text);
    for (field, is_there) in [("actor", actor.is_some()), ("capability", named.is_some())] {
        if !is_there && !table.has(field) {
            let hint = "expected { actor, capability, binding, values }";
            findings.add(table.at, &table.path, format!("{} is missing", quote(field)), hint);
        }
    }
    let name = table.optional(findings, "binding", Findings::text);
    let values = table.optional(findings, "values", values::text_map);
    table.finish(findings);
    let (actor, at, _) = actor?;
    let (text, capability_at, field) = named?;
    let short = capability::short_name(findings, capability_at, &field, &text)?;
    let capability = CapabilityConfig {
        capability: short.to_owned(),
        name: name.unwrap_or_else(|| capability::DEFAULT.to_owned()),
        component: None,
        values: values.unwrap_or_default(),
    };
    Some(ActorBinding { actor, capability, line: at.line, column: at.column })
}

/// Fills in variables; beside the text, those that there are not, and where.
fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> (String, Vec<(String, Position)>) {
    let mut unset = Vec::new();
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        expanded.push_str(before);
        let Some(end) = from.find('}').filter(|end| !from[..*end].contains('\n')) else {
            expanded.push_str("${");
            rest = &from[2..];
            continue;
        };
        let inside = &from[2..end];
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        match variable(name).or_else(|| default.map(str::to_owned)) {
            Some(value) => expanded.push_str(&value),
            None => {
                expanded.push_str(&from[..=end]);
                unset.extend(place(&text[..text.len() - from.len()]).map(|at| (name.to_owned(), at)));
            }
        }
        rest = &from[end + 1..];
    }
    expanded.push_str(rest);
    (expanded, unset)
}

/// Where the text after `before` stands; none if that is in a comment.
fn place(before: &str) -> Option<Position> {
    let line = before.rsplit('\n').next().unwrap_or_default();
    let is_comment = line.trim_start().starts_with('#') || line.contains(" #");
    let number = before.matches('\n').count() + 1;
    (!is_comment).then(|| Position { line: number, column: line.chars().count() + 1 })
}

// === impl ActorBinding ===

impl fmt::Debug for ActorBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorBinding")
            .field("actor", &self.actor)
            .field("capability", &self.capability)
            .finish_non_exhaustive()
    }
}
