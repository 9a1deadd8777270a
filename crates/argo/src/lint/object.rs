//! An object with templates, as what refers to them sees it.

use crate::definition::{fill_in_defaults, home};
use crate::manifest::json;
use crate::model::{Step, Template, Workflow};
use dhow_resources::tree::Node;
use serde_json::Value;
use std::path::PathBuf;

/// An object with templates.
pub(super) struct Object<'a> {
    pub(super) file: &'a PathBuf,
    pub(super) root: &'a Node,
    /// Where its spec is, such as `spec.workflowSpec`.
    pub(super) place: &'static str,
    pub(super) workflow: Workflow,
    /// Its spec as it stands there: with the fields that the model leaves out, without `templateDefaults` in its
    /// templates.
    spec: Value,
}

// === impl Object ===

impl<'a> Object<'a> {
    /// Reads an object, without the fields that cannot be read.
    pub(super) fn read(
        file: &'a PathBuf,
        root: &'a Node,
        place: &'static str,
        unreadable: &[String],
    ) -> Result<Object<'a>, String> {
        let mut whole = json(root);
        for path in unreadable {
            leave_out(&mut whole, path);
        }
        let spec = whole.pointer(&format!("/{}", place.replace('.', "/"))).cloned().unwrap_or_default();
        let mut filled = spec.clone();
        fill_in_defaults(&mut filled);
        let object =
            serde_json::json!({"kind": whole.get("kind"), "metadata": whole.get("metadata"), "spec": filled});
        let read = serde_json::from_value::<Workflow>(object);
        let workflow = read.map_err(|error| format!("cannot be read: {error}"))?;
        Ok(Object { file, root, place, workflow, spec })
    }

    /// The template that a step runs, if it can be known.
    pub(super) fn template_of<'o>(
        &'o self,
        step: &'o Step,
        others: &'o [Object<'_>],
    ) -> Option<&'o Template> {
        if let Some(inline) = &step.inline {
            return Some(inline);
        }
        let (object, name) = match &step.template_ref {
            Some(reference) => (other(others, &home(reference))?, &reference.template),
            None => (self.workflow.spec.templates.as_slice(), &step.template),
        };
        object.iter().find(|template| template.name == *name)
    }

    /// Whether something stands at a path, such as `spec.templates[2].sidecars`.
    pub(super) fn has(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.place).unwrap_or_default();
        self.spec.pointer(&below.replace(['.', '['], "/").replace(']', "")).is_some()
    }
}

/// The templates of a WorkflowTemplate or ClusterWorkflowTemplate.
pub(super) fn other<'o>(others: &'o [Object<'_>], home: &str) -> Option<&'o [Template]> {
    let found = others.iter().find(|other| {
        let name = &other.workflow.metadata.name;
        match other.workflow.kind.as_str() {
            "WorkflowTemplate" => name == home,
            "ClusterWorkflowTemplate" => home.strip_prefix("cluster/") == Some(name),
            _ => false,
        }
    });
    found.map(|other| other.workflow.spec.templates.as_slice())
}

/// Takes away what stands at a path; an element of a list becomes empty, so that the others keep their places.
fn leave_out(whole: &mut Value, path: &str) {
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    match whole.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(last)),
        Some(Value::Array(list)) => {
            let element = last.parse::<usize>().ok().and_then(|index| list.get_mut(index));
            element.into_iter().for_each(|element| *element = serde_json::json!({}));
        }
        _ => {}
    }
}
