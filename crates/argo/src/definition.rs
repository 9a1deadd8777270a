//! A workflow and everything that it refers to, ready to be run: defaults are filled in, references are looked up.

use crate::model::{Template, TemplateRef, Workflow, scalar_text};
use crate::substitute::literal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The objects of a file, or of several, as JSON.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Objects {
    /// The workflow, `templateDefaults` and `workflowTemplateRef` already filled in.
    pub workflow: Value,
    /// The templates of others, by [`home`].
    pub library: BTreeMap<String, Vec<Value>>,
}

/// The label of workflows that a CronWorkflow makes: its name.
pub(crate) const CRON_LABEL: &str = "workflows.argoproj.io/cron-workflow";

/// The fields of a template that say what it does.
const KINDS: [&str; 11] = [
    "steps",
    "dag",
    "suspend",
    "wasm",
    "plugin",
    "container",
    "script",
    "resource",
    "http",
    "data",
    "containerSet",
];

/// A workflow that can be run.
#[derive(Debug)]
pub struct Definition {
    /// The workflow; its templates are below.
    pub workflow: Workflow,
    templates: BTreeMap<(String, String), Arc<Template>>,
}

/// Which object a template belongs to; the workflow itself is the empty text.
pub fn home(reference: &TemplateRef) -> String {
    format!("{}{}", if reference.cluster_scope { "cluster/" } else { "" }, reference.name)
}

/// Why objects do not make a workflow.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// There is none.
    #[error("there is no Workflow in it; expected `kind: Workflow`")]
    NoWorkflow,
    /// There are several.
    #[error("there are {0} workflows in it; run one at a time")]
    Several(usize),
    /// A reference leads nowhere.
    #[error("there is no {kind} {name:?}; put it into the same file, or name its file behind this one")]
    NoObject {
        /// WorkflowTemplate or ClusterWorkflowTemplate.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A field has a wrong type.
    #[error("the workflow cannot be read: {0}")]
    Fields(String),
}

// === impl Objects ===

impl Objects {
    /// Sorts objects by what they are: the workflow, or the only template that could be one; the rest is what they may
    /// refer to.
    pub fn new(objects: Vec<Value>) -> Result<Objects, DefinitionError> {
        let kind = |object: &Value| object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut workflows: Vec<Value> =
            objects.iter().filter(|object| kind(object) == "Workflow").cloned().collect();
        if workflows.is_empty() {
            let others = objects.iter().filter_map(|object| runnable(&kind(object), object));
            workflows.extend(others);
        }
        let count = workflows.len();
        let mut workflow = workflows.pop().ok_or(DefinitionError::NoWorkflow)?;
        if count > 1 {
            return Err(DefinitionError::Several(count));
        }
        let mut library = BTreeMap::new();
        let mut specs = BTreeMap::new();
        for object in &objects {
            let kind = kind(object);
            if kind != "WorkflowTemplate" && kind != "ClusterWorkflowTemplate" {
                continue;
            }
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let reference = TemplateRef {
                name: name.to_owned(),
                cluster_scope: kind == "ClusterWorkflowTemplate",
                ..TemplateRef::default()
            };
            let mut spec = object.get("spec").cloned().unwrap_or_default();
            fill_in_defaults(&mut spec);
            let templates = spec.get("templates").and_then(Value::as_array).cloned().unwrap_or_default();
            library.insert(home(&reference), templates);
            specs.insert(home(&reference), spec);
        }
        if let Some(spec) = workflow.get_mut("spec") {
            if let Some(reference) = spec.get("workflowTemplateRef") {
                let reference: TemplateRef = serde_json::from_value(reference.clone())
                    .map_err(|error| DefinitionError::Fields(error.to_string()))?;
                let base = specs.get(&home(&reference)).ok_or_else(|| DefinitionError::NoObject {
                    kind: if reference.cluster_scope {
                        "ClusterWorkflowTemplate"
                    } else {
                        "WorkflowTemplate"
                    },
                    name: reference.name.clone(),
                })?;
                let mut whole = base.clone();
                overlay_spec(&mut whole, spec);
                *spec = whole;
            }
            fill_in_defaults(spec);
        }
        let config_maps = objects
            .iter()
            .filter(|object| kind(object) == "ConfigMap")
            .filter_map(|object| Some((object.pointer("/metadata/name")?.as_str()?, object)));
        let config_maps: BTreeMap<&str, &Value> = config_maps.collect();
        fill_in_entries(&mut workflow, &config_maps);
        library.values_mut().flatten().for_each(|template| fill_in_entries(template, &config_maps));
        Ok(Objects { workflow, library })
    }
}

/// What a template without a workflow would be as one.
fn runnable(kind: &str, object: &Value) -> Option<Value> {
    let (spec, metadata) = match kind {
        "WorkflowTemplate" | "ClusterWorkflowTemplate" => (object.get("spec")?, object.get("metadata")?),
        "CronWorkflow" => (object.pointer("/spec/workflowSpec")?, object.get("metadata")?),
        _ => return None,
    };
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or("workflow");
    // One that is referred to and has no beginning of its own is no workflow.
    let begins = spec.get("entrypoint").is_some() || spec.get("workflowTemplateRef").is_some();
    begins.then(|| {
        let mut own = serde_json::json!({"generateName": format!("{name}-")});
        if kind == "CronWorkflow" {
            let given = object.pointer("/spec/workflowMetadata").and_then(Value::as_object);
            overlay(&mut own, given.unwrap_or(&Map::new()));
            let label = Map::from_iter([(CRON_LABEL.to_owned(), name.into())]);
            overlay(&mut own, &Map::from_iter([("labels".to_owned(), label.into())]));
        }
        serde_json::json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": own, "spec": spec,
        })
    })
}

/// `templateDefaults` go into every template that does not say otherwise; what they say of a kind of work into templates
/// of that kind.
pub(crate) fn fill_in_defaults(spec: &mut Value) {
    let Some(Value::Object(defaults)) = spec.get("templateDefaults").cloned() else { return };
    let templates = spec.get_mut("templates").and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten() {
        let mut defaults = defaults.clone();
        defaults.retain(|field, _| !KINDS.contains(&field.as_str()) || template.get(field).is_some());
        overlay(template, &defaults);
    }
}

/// Gives parameters whose value is an entry of a ConfigMap of the same files that value.
fn fill_in_entries(value: &mut Value, config_maps: &BTreeMap<&str, &Value>) {
    if let Some(reference) = value.pointer("/valueFrom/configMapKeyRef") {
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
        let data = config_maps.get(text("name")).and_then(|object| object.get("data"));
        let entry = data.and_then(|data| data.get(text("key"))).map(scalar_text);
        if let (Some(entry), Value::Object(parameter)) = (entry, &mut *value) {
            parameter.remove("valueFrom");
            parameter.insert("value".to_owned(), literal(&entry).into());
        }
        return;
    }
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| fill_in_entries(value, config_maps)),
        Value::Object(map) => map.values_mut().for_each(|value| fill_in_entries(value, config_maps)),
        _ => {}
    }
}

/// Adds what is not there.
fn overlay(value: &mut Value, defaults: &Map<String, Value>) {
    let Value::Object(map) = value else { return };
    for (key, default) in defaults {
        match (map.get_mut(key), default) {
            (None, default) => {
                map.insert(key.clone(), default.clone());
            }
            (Some(inner @ Value::Object(_)), Value::Object(defaults)) => overlay(inner, defaults),
            (Some(_), _) => {}
        }
    }
}

/// A workflow's own fields over those of the WorkflowTemplate; arguments by name.
fn overlay_spec(base: &mut Value, own: &Value) {
    let (Value::Object(base), Value::Object(own)) = (base, own) else { return };
    for (key, value) in own {
        if key == "workflowTemplateRef" {
            continue;
        }
        if key == "arguments" {
            let arguments = base.entry("arguments").or_insert_with(|| Value::Object(Map::new()));
            for field in ["parameters", "artifacts"] {
                let named = value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
                merge_named(arguments, field, named);
            }
            continue;
        }
        base.insert(key.clone(), value.clone());
    }
}

/// Adds parameters or artifacts to a list; what has the same name gives way.
pub fn merge_named(of: &mut Value, field: &str, named: Vec<Value>) {
    let Value::Object(map) = of else { return };
    let list = map.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else { return };
    for value in named {
        match list.iter_mut().find(|known| known.get("name") == value.get("name")) {
            // An artifact is in one place: the other one's is not to stay beside it.
            Some(known) if field == "artifacts" => *known = value,
            Some(Value::Object(known)) => {
                if let Value::Object(value) = value {
                    known.extend(value);
                }
            }
            _ => list.push(value),
        }
    }
}

// === impl Definition ===

impl Definition {
    /// Reads the objects.
    pub fn new(objects: &Objects) -> Result<Definition, DefinitionError> {
        let failed = |error: serde_json::Error| DefinitionError::Fields(error.to_string());
        let mut workflow: Workflow = serde_json::from_value(objects.workflow.clone()).map_err(failed)?;
        let mut templates = BTreeMap::new();
        for template in std::mem::take(&mut workflow.spec.templates) {
            templates.insert((String::new(), template.name.clone()), Arc::new(template));
        }
        for (home, values) in &objects.library {
            for value in values {
                let template: Template = serde_json::from_value(value.clone()).map_err(failed)?;
                templates.insert((home.clone(), template.name.clone()), Arc::new(template));
            }
        }
        Ok(Definition { workflow, templates })
    }

    /// The template of that name in that object.
    pub fn template(&self, home: &str, name: &str) -> Option<&Arc<Template>> {
        self.templates.get(&(home.to_owned(), name.to_owned()))
    }

    /// The names of an object's templates.
    pub fn template_names(&self, home: &str) -> Vec<&str> {
        let own = self.templates.keys().filter(|(of, _)| of == home);
        own.map(|(_, name)| name.as_str()).collect()
    }

    /// All templates with the object that they belong to.
    pub fn templates(&self) -> impl Iterator<Item = (&str, &Arc<Template>)> {
        self.templates.iter().map(|((home, _), template)| (home.as_str(), template))
    }
}
