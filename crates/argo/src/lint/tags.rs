//! Whether every `{{tag}}` can have a value where it stands.

use super::Findings;
use super::references::Object;
use crate::depends;
use crate::expression::{Expression, Language};
use crate::model::{Step, Template, Work};
use crate::substitute::{Tag, tags_of};
use dhow_resources::error::{nearest, quote};
use serde_json::Value;
use std::collections::BTreeSet;

/// What begins a name outside of any template.
const WORKFLOW: [&str; 15] = [
    "name",
    "namespace",
    "uid",
    "mainEntrypoint",
    "serviceAccountName",
    "priority",
    "creationTimestamp",
    "duration",
    "status",
    "failures",
    "labels",
    "annotations",
    "parameters",
    "outputs",
    "scheduledTime",
];

/// The names that a place knows: `inputs.parameters.x`, or with a dot behind all that begin so.
struct Known(BTreeSet<String>);

pub(super) fn check(object: &Object<'_>, findings: &mut Findings<'_>) {
    let spec = &object.workflow.spec;
    let is_workflow = object.workflow.kind == "Workflow" && spec.workflow_template_ref.is_none();
    let mut whole = Known(BTreeSet::new());
    for name in WORKFLOW.iter().filter(|name| **name != "parameters") {
        whole.add(&format!("workflow.{name}"));
        whole.add(&format!("workflow.{name}."));
    }
    whole.add("workflow.parameters");
    whole.add("workflow.parameters.json");
    for parameter in &spec.arguments.parameters {
        whole.add(&format!("workflow.parameters.{}", parameter.name));
    }
    whole.add("workflow.artifacts.");
    if !is_workflow {
        // Whoever runs it may give it more.
        whole.add("workflow.parameters.");
    }
    for (index, template) in spec.templates.iter().enumerate() {
        self::template(template, &format!("{}.templates[{index}]", object.place), &whole, findings);
    }
}

fn template(template: &Template, path: &str, whole: &Known, findings: &mut Findings<'_>) {
    let mut known = Known(whole.0.clone());
    known.add("inputs.parameters");
    for parameter in &template.inputs.parameters {
        known.add(&format!("inputs.parameters.{}", parameter.name));
    }
    for artifact in &template.inputs.artifacts {
        known.add(&format!("inputs.artifacts.{}", artifact.name));
        known.add(&format!("inputs.artifacts.{}.", artifact.name));
    }
    match template.work() {
        Some(Work::Steps) => {
            for (group, steps) in template.steps.iter().flatten().enumerate() {
                for (index, step) in steps.iter().enumerate() {
                    let path = format!("{path}.steps[{group}][{index}]");
                    self::step(step, &path, &known, "steps", whole, findings);
                }
                for step in steps {
                    known.add(&format!("steps.{}.", step.name));
                }
            }
            outputs(template, path, &known, findings);
        }
        Some(Work::Dag) => {
            let tasks = template.dag.as_ref().map(|dag| dag.tasks.as_slice()).unwrap_or_default();
            for (index, task) in tasks.iter().enumerate() {
                let mut inner = Known(known.0.clone());
                for need in ancestors(task, tasks) {
                    inner.add(&format!("tasks.{need}."));
                }
                let path = format!("{path}.dag.tasks[{index}]");
                self::step(task, &path, &inner, "tasks", whole, findings);
            }
            for task in tasks {
                known.add(&format!("tasks.{}.", task.name));
            }
            outputs(template, path, &known, findings);
        }
        Some(Work::Wasm) => {
            for name in ["pod.name", "node.name", "retries", "lastRetry.", "outputs.", "item", "item."] {
                known.add(name);
            }
            let value = serde_json::to_value(template).unwrap_or_default();
            texts(&value, path, &known, findings);
        }
        _ => {}
    }
}

fn step(step: &Step, path: &str, known: &Known, prefix: &str, whole: &Known, findings: &mut Findings<'_>) {
    let mut known = Known(known.0.clone());
    if step.is_expanded() {
        known.add("item");
        known.add("item.");
    }
    let mut value = serde_json::to_value(step).unwrap_or_default();
    if let Some(template) = &step.inline {
        self::template(template, &format!("{path}.inline"), whole, findings);
    }
    if let Value::Object(map) = &mut value {
        map.remove("inline");
        // A hook sees what its own step yields.
        if let Some(hooks) = map.remove("hooks") {
            let mut known = Known(known.0.clone());
            known.add(&format!("{prefix}.{}.", step.name));
            texts(&hooks, &format!("{path}.hooks"), &known, findings);
        }
    }
    texts(&value, path, &known, findings);
}

fn outputs(template: &Template, path: &str, known: &Known, findings: &mut Findings<'_>) {
    let value = serde_json::to_value(&template.outputs).unwrap_or_default();
    texts(&value, &format!("{path}.outputs"), known, findings);
}

/// Looks at every text below a value.
fn texts(value: &Value, path: &str, known: &Known, findings: &mut Findings<'_>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| texts(value, &format!("{path}.{key}"), known, findings));
        }
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(index, value)| texts(value, &format!("{path}[{index}]"), known, findings)),
        Value::String(_) => {
            let mut tags = Vec::new();
            tags_of(value, &mut tags);
            for tag in tags {
                self::tag(tag, path, known, findings);
            }
        }
        _ => {}
    }
}

fn tag(tag: Tag<'_>, path: &str, known: &Known, findings: &mut Findings<'_>) {
    match tag {
        Tag::Simple(name) if known.has(name) => {}
        Tag::Simple(name) => {
            let names: Vec<&str> = known.0.iter().map(|name| name.trim_end_matches('.')).collect();
            let hint = nearest(name, &names).map(|name| format!("did you mean `{{{{{name}}}}}`?"));
            let message = format!("nothing has the name {} here", quote(name));
            findings.add(path, message, hint.unwrap_or_default());
        }
        Tag::Expression(text) => match Expression::parse(text, Language::Expr) {
            Ok(expression) => {
                for name in expression.variables() {
                    let root = name.split('.').next().unwrap_or_default();
                    let begins = format!("{root}.");
                    if !known.0.iter().any(|known| known == root || known.starts_with(&begins)) {
                        let message = format!("nothing has the name {} in {}", quote(&name), quote(text));
                        findings.add(path, message, "");
                    }
                }
            }
            Err(error) => findings.add(path, format!("{}: {error}", quote(text)), ""),
        },
    }
}

/// All that a task waits for, near or far.
fn ancestors<'a>(task: &'a Step, tasks: &'a [Step]) -> BTreeSet<String> {
    let needs = |task: &Step| match depends::condition(task, |_, _| false) {
        Ok(condition) => condition.tasks().into_iter().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    };
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = needs(task);
    while let Some(name) = open.pop() {
        if let Some(task) = tasks.iter().find(|task| task.name == name)
            && found.insert(name)
        {
            open.extend(needs(task));
        }
    }
    found
}

// === impl Known ===

impl Known {
    fn add(&mut self, name: &str) {
        self.0.insert(name.to_owned());
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
            || name
                .char_indices()
                .filter(|(_, c)| *c == '.')
                .any(|(at, _)| name.get(..=at).is_some_and(|begin| self.0.contains(begin)))
    }
}
