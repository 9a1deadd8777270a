//! Whether every `{{tag}}` can have a value where it stands.

use super::object::Object;
use super::{Findings, Purpose};
use crate::controller::TIME_LETTERS;
use crate::depends;
use crate::expression::{Expression, Language};
use crate::model::{Step, Template, Work};
use crate::substitute::{Tag, is_unclosed, tags, tags_of};
use dhow_resources::error::{nearest, quote};
use serde_json::Value;
use std::collections::BTreeSet;
use std::rc::Rc;

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

/// What a step has besides the outputs that its template declares.
const STEP: [&str; 11] = [
    "id",
    "ip",
    "hostNodeName",
    "status",
    "message",
    "startedAt",
    "finishedAt",
    "exitCode",
    "outputs.result",
    "outputs.exitCode",
    "outputs.parameters",
];

/// What is the same for all templates of an object.
struct Around<'a> {
    object: &'a Object<'a>,
    others: &'a [Object<'a>],
    /// The names that all of them know.
    whole: Known,
    /// The templates that are called, each with what calls it: `steps` or `tasks`.
    called: BTreeSet<(&'static str, &'a str)>,
}

/// The names that a place knows.
#[derive(Clone, Default)]
struct Known {
    /// Such as `inputs.parameters.x`, or with a dot behind all that begin so. Shared: a DAG may have many tasks.
    names: Rc<BTreeSet<String>>,
    /// Of a task: those before it. Names of others do not count.
    tasks: Option<BTreeSet<String>>,
}

pub(super) fn check(
    object: &Object<'_>,
    others: &[Object<'_>],
    purpose: Purpose,
    findings: &mut Findings<'_>,
) {
    let spec = &object.workflow.spec;
    let is_workflow = object.workflow.kind == "Workflow" && spec.workflow_template_ref.is_none();
    let mut whole = Known::default();
    for name in WORKFLOW {
        whole.add(&format!("workflow.{name}"));
    }
    for name in ["outputs", "failures"] {
        whole.add(&format!("workflow.{name}."));
    }
    for format in ["RFC3339", "s"] {
        whole.add(&format!("workflow.creationTimestamp.{format}"));
    }
    let is_known = |letter: &char| purpose != Purpose::Run || TIME_LETTERS.contains(*letter);
    for letter in ('A'..='Z').chain('a'..='z').filter(is_known) {
        whole.add(&format!("workflow.creationTimestamp.{letter}"));
    }
    labels(object, is_workflow, &mut whole);
    whole.add("workflow.parameters.json");
    for parameter in &spec.arguments.parameters {
        whole.add(&format!("workflow.parameters.{}", parameter.name));
    }
    whole.add("workflow.artifacts.");
    if !is_workflow {
        // Whoever runs it may give it more.
        whole.add("workflow.parameters.");
    }
    if object.workflow.kind == "CronWorkflow" {
        // Argo gives the others to its own conditions alone.
        whole.add(if purpose == Purpose::Run { "cronworkflow.name" } else { "cronworkflow." });
    }
    let mut called = BTreeSet::new();
    spec.templates.iter().for_each(|template| collect_called(template, &mut called));
    let around = Around { object, others, whole, called };
    for (index, template) in spec.templates.iter().enumerate() {
        self::template(template, &format!("{}.templates[{index}]", object.place), None, &around, findings);
    }
}

/// `{{workflow.labels.…}}` and `{{workflow.annotations.…}}`: of a workflow those that it says it has.
fn labels(object: &Object<'_>, is_workflow: bool, whole: &mut Known) {
    let metadata = &object.workflow.metadata;
    let given = object.workflow.spec.workflow_metadata.clone().unwrap_or_default();
    let labels = metadata.labels.keys().chain(given.labels.keys()).chain(given.labels_from.keys());
    let annotations = metadata.annotations.keys().chain(given.annotations.keys());
    for (kind, key) in labels.map(|key| ("labels", key)).chain(annotations.map(|key| ("annotations", key))) {
        whole.add(&format!("workflow.{kind}.{key}"));
    }
    for kind in ["labels", "annotations"] {
        whole.add(&format!("workflow.{kind}.json"));
        // Whoever makes a workflow of it may give it more; Argo gives all of them some of its own.
        let others = if is_workflow { "workflows." } else { "" };
        whole.add(&format!("workflow.{kind}.{others}"));
    }
}

fn collect_called<'a>(template: &'a Template, called: &mut BTreeSet<(&'static str, &'a str)>) {
    for step in template.parts() {
        called.insert((template.kind_of_parts(), &step.template));
        step.inline.iter().for_each(|inline| collect_called(inline, called));
    }
}

fn template(
    template: &Template,
    path: &str,
    caller: Option<(&str, &Known)>,
    around: &Around<'_>,
    findings: &mut Findings<'_>,
) {
    let mut known = around.whole.clone();
    // A template that stands in its step sees the item of that.
    let items = caller.into_iter().flat_map(|(_, known)| known.names());
    for name in items.filter(|name| *name == "item" || name.starts_with("item.")) {
        known.add(name);
    }
    for kind in ["steps", "tasks"] {
        if caller.map_or_else(|| around.is_called_from(kind, &template.name), |(caller, _)| caller == kind) {
            known.add(&format!("{kind}.name"));
        }
    }
    if template.retry_strategy.is_some() {
        known.add("retries");
        known.add("lastRetry.");
    }
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
                    self::step(step, &path, &known, "steps", around, findings);
                }
                for step in steps {
                    known.add_step("steps", step, around);
                }
            }
            outputs(template, path, &known, findings);
        }
        Some(Work::Dag) => {
            let tasks = template.dag.as_ref().map(|dag| dag.tasks.as_slice()).unwrap_or_default();
            for task in tasks {
                known.add_step("tasks", task, around);
            }
            for (index, task) in tasks.iter().enumerate() {
                let inner = Known { tasks: Some(ancestors(task, tasks)), ..known.clone() };
                let path = format!("{path}.dag.tasks[{index}]");
                self::step(task, &path, &inner, "tasks", around, findings);
            }
            outputs(template, path, &known, findings);
        }
        Some(Work::Wasm) => {
            for name in ["pod.name", "node.name", "retries", "lastRetry.", "outputs."] {
                known.add(name);
            }
            let value = serde_json::to_value(template).unwrap_or_default();
            texts(&value, path, &known, findings);
        }
        _ => {}
    }
}

fn step(
    step: &Step,
    path: &str,
    known: &Known,
    prefix: &str,
    around: &Around<'_>,
    findings: &mut Findings<'_>,
) {
    let mut known = known.clone();
    known.add(&format!("{prefix}.name"));
    if step.is_expanded() {
        known.add("item");
        known.add_items(step);
    }
    let mut value = serde_json::to_value(step).unwrap_or_default();
    if let Some(template) = &step.inline {
        self::template(template, &format!("{path}.inline"), Some((prefix, &known)), around, findings);
    }
    if let Value::Object(map) = &mut value {
        map.remove("inline");
        // A hook sees what its own step yields.
        if let Some(hooks) = map.remove("hooks") {
            let mut known = known.clone();
            known.add_step(prefix, step, around);
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
        Value::String(text) => {
            if is_unclosed(text) {
                let hint = "expected `}}` behind the name; braces that are no tag are `{{='{{'}}`";
                findings.add(path, "a `{{` is not closed", hint);
            }
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
        Tag::Simple(name) if tags(name).is_empty() => missing(name, path, known, findings),
        // What the whole name is, only its tags say: it has to begin as one that is known.
        Tag::Simple(name) => {
            tags(name).into_iter().for_each(|inner| self::tag(inner, path, known, findings));
            let begin = name.split("{{").next().unwrap_or_default();
            let may_be = |known: &String| {
                known.starts_with(begin) || (known.ends_with('.') && begin.starts_with(known.as_str()))
            };
            if !known.names().any(may_be) {
                missing(name, path, known, findings);
            }
        }
        Tag::Expression(text) => match Expression::parse(text, Language::Expr) {
            Ok(expression) => {
                for name in expression.variables() {
                    let root = name.split('.').next().unwrap_or_default();
                    let begins = format!("{root}.");
                    let is_root = known.names().any(|known| known == root || known.starts_with(&begins));
                    // What may be missing is asked for with `?`, and `??` says what stands for it.
                    if !is_root || (!text.contains('?') && !known.has_output(&name)) {
                        let message = format!("nothing has the name {} in {}", quote(&name), quote(text));
                        findings.add(path, message, "");
                    }
                }
            }
            Err(error) => findings.add(path, format!("{}: {error}", quote(text)), ""),
        },
    }
}

fn missing(name: &str, path: &str, known: &Known, findings: &mut Findings<'_>) {
    let names: Vec<&str> = known.names().map(|name| name.trim_end_matches('.')).collect();
    let hint = nearest(name, &names).map(|name| format!("did you mean `{{{{{name}}}}}`?"));
    let message = format!("nothing has the name {} here", quote(name));
    findings.add(path, message, hint.unwrap_or_default());
}

/// All that a task waits for, near or far.
fn ancestors(task: &Step, tasks: &[Step]) -> BTreeSet<String> {
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

// === impl Around ===

impl Around<'_> {
    /// Whether a template may be that of a step, or of a task.
    fn is_called_from(&self, kind: &'static str, template: &str) -> bool {
        // Those of a WorkflowTemplate are called by others.
        self.object.workflow.kind.ends_with("WorkflowTemplate")
            || self.called.contains(&(kind, template))
            || self.called.iter().any(|(of, name)| *of == kind && name.contains("{{"))
    }
}

// === impl Known ===

impl Known {
    fn add(&mut self, name: &str) {
        Rc::make_mut(&mut self.names).insert(name.to_owned());
    }

    /// The names, without those of tasks that are not before this one.
    fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| self.sees(name))
    }

    fn sees(&self, name: &str) -> bool {
        let mut parts = name.split('.');
        match (&self.tasks, parts.next(), parts.next()) {
            (Some(tasks), Some("tasks"), Some(task)) => tasks.contains(task) || name == "tasks.name",
            _ => true,
        }
    }

    /// What a step yields: of a template that is known only what it declares.
    fn add_step(&mut self, prefix: &str, step: &Step, around: &Around<'_>) {
        let begin = format!("{prefix}.{}", step.name);
        if let Some(tasks) = &mut self.tasks {
            tasks.insert(step.name.clone());
        }
        let template = around.object.template_of(step, around.others);
        let Some(template) = template else { return self.add(&format!("{begin}.")) };
        for field in STEP {
            self.add(&format!("{begin}.{field}"));
        }
        for parameter in &template.outputs.parameters {
            self.add(&format!("{begin}.outputs.parameters.{}", parameter.name));
        }
        for artifact in &template.outputs.artifacts {
            self.add(&format!("{begin}.outputs.artifacts.{}", artifact.name));
        }
    }

    /// What `{{item.…}}` may be: of items that stand there the fields that all of them have.
    fn add_items(&mut self, step: &Step) {
        let items = step.with_items.as_deref().unwrap_or_default();
        let is_known = |item: &Value| item.as_str().is_none_or(|text| !text.contains("{{"));
        if items.is_empty() || !items.iter().all(is_known) {
            return self.add("item.");
        }
        let fields = items.iter().filter_map(Value::as_object).flat_map(|item| item.keys());
        for field in fields.filter(|field| items.iter().all(|item| item.get(field).is_some())) {
            self.add(&format!("item.{field}"));
        }
    }

    /// Whether an expression's name is none of an output that its step, which is known, does not declare.
    fn has_output(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        let [root, step, "outputs", kind @ ("parameters" | "artifacts"), own, ..] = parts[..] else {
            return true;
        };
        !self.names.contains(&format!("{root}.{step}.outputs.parameters"))
            || self.has(&format!("{root}.{step}.outputs.{kind}.{own}"))
    }

    fn has(&self, name: &str) -> bool {
        let begins = || name.char_indices().filter(|(_, c)| *c == '.').filter_map(|(at, _)| name.get(..=at));
        self.sees(name) && (self.names.contains(name) || begins().any(|begin| self.names.contains(begin)))
    }
}
