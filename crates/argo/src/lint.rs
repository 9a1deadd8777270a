//! What is wrong with a workflow, with file, line, column and field.
//!
//! | file | subject |
//! |---|---|
//! | `schema` | which fields there are, and what may stand in them |
//! | `references` | whether everything that is named is there |
//! | `tags` | whether every `{{tag}}` can have a value |
//!
//! All findings of a file are told at once.

mod references;
mod schema;
mod tags;

use crate::manifest::{json, locate};
use crate::model::Workflow;
use dhow_resources::error::{MAX_FINDINGS, ResourceError};
use dhow_resources::tree::{Node, Position};
use std::path::{Path, PathBuf};

/// What a workflow is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be run here: what needs a cluster is an error.
    Run,
    /// To be given to Argo: `wasm` templates have to be converted first, and other kinds of template are fine.
    Cluster,
    /// Either.
    Any,
}

/// Findings about one document.
pub(crate) struct Findings<'a> {
    file: &'a Path,
    root: &'a Node,
    pub(crate) errors: Vec<ResourceError>,
}

/// The kinds of object that hold templates, and where the spec is.
pub(crate) const KINDS: [(&str, &str); 4] = [
    ("Workflow", "spec"),
    ("WorkflowTemplate", "spec"),
    ("ClusterWorkflowTemplate", "spec"),
    ("CronWorkflow", "spec.workflowSpec"),
];

pub(crate) fn check(documents: &[(PathBuf, Node)], purpose: Purpose) -> Vec<ResourceError> {
    let mut errors = Vec::new();
    let mut objects = Vec::new();
    for (file, root) in documents {
        let mut findings = Findings { file, root, errors: Vec::new() };
        if let Some(spec) = schema::check(root, &mut findings) {
            objects.push((file, root, spec));
        }
        errors.append(&mut findings.errors);
    }
    // Types first: what refers to what can be told when everything is what it should be.
    if !errors.is_empty() {
        return errors;
    }
    let mut read = Vec::new();
    for (file, root, place) in objects {
        let whole = json(root);
        let spec = whole.pointer(&format!("/{}", place.replace('.', "/"))).cloned().unwrap_or_default();
        let object =
            serde_json::json!({"kind": whole.get("kind"), "metadata": whole.get("metadata"), "spec": spec});
        match serde_json::from_value::<Workflow>(object) {
            Ok(workflow) => read.push(references::Object { file, root, place, workflow }),
            Err(error) => {
                let mut findings = Findings { file, root, errors: Vec::new() };
                findings.add("", format!("cannot be read: {error}"), "");
                errors.append(&mut findings.errors);
            }
        }
    }
    for object in &read {
        let mut findings = Findings { file: object.file, root: object.root, errors: Vec::new() };
        references::check(object, &read, purpose, &mut findings);
        tags::check(object, &mut findings);
        errors.append(&mut findings.errors);
    }
    errors
}

// === impl Findings ===

impl Findings<'_> {
    /// A finding about the field of that path.
    pub(crate) fn add(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add_at(locate(self.root, path), path, message, hint);
    }

    pub(crate) fn add_at(
        &mut self,
        at: Position,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.errors.len() >= MAX_FINDINGS {
            return;
        }
        self.errors.push(ResourceError {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            field: path.to_owned(),
            message: message.into(),
            hint: hint.into(),
        });
    }
}
