//! A workflow as its YAML says it: the part of Argo's `argoproj.io/v1alpha1` that decides what runs.
//!
//! Field names and meanings: <https://argo-workflows.readthedocs.io/en/latest/fields/>. Texts still hold their
//! `{{tags}}`: what stands where a number belongs may be such a text, too. What only pods have (volumes, node
//! selectors, …) is known to `lint` and not kept here.

use crate::artifacts::Artifact;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A workflow, or a template of one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workflow {
    /// `Workflow`, `WorkflowTemplate`, …
    pub kind: String,
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// What is done.
    pub spec: Spec,
}

/// Who an object is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// What its name begins with, if it has none.
    pub generate_name: String,
    /// Where it belongs.
    pub namespace: String,
    /// For those who search.
    pub labels: BTreeMap<String, String>,
    /// For tools.
    pub annotations: BTreeMap<String, String>,
}

/// What a workflow does.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The template that begins.
    pub entrypoint: String,
    /// Parameters and artifacts of the whole workflow.
    pub arguments: Arguments,
    /// The templates.
    pub templates: Vec<Template>,
    /// The template that runs at the end, whatever the end is.
    pub on_exit: String,
    /// Templates that run at moments of the workflow's life.
    pub hooks: BTreeMap<String, Hook>,
    /// Steps that run at once.
    pub parallelism: Option<usize>,
    /// Seconds that the whole may take.
    pub active_deadline_seconds: Option<i64>,
    /// Whether it waits before it begins.
    pub suspend: bool,
    /// Retries of templates that say nothing themselves.
    pub retry_strategy: Option<RetryStrategy>,
    /// Whether logs of steps are kept as artifacts.
    pub archive_logs: Option<bool>,
    /// The repository of its artifacts.
    pub artifact_repository_ref: Option<crate::artifacts::config::RepositoryRef>,
    /// Where `{{workflow.serviceAccountName}}` comes from.
    pub service_account_name: String,
    /// Labels and annotations that the workflow gets besides its own.
    pub workflow_metadata: Option<WorkflowMetadata>,
    /// `{{workflow.priority}}`.
    pub priority: Option<i64>,
    /// The WorkflowTemplate whose spec this is.
    pub workflow_template_ref: Option<TemplateRef>,
}

/// Labels and annotations that a workflow gets besides its own.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels whose values are computed.
    pub labels_from: BTreeMap<String, LabelFrom>,
}

/// Where the value of a label comes from.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct LabelFrom {
    /// What yields it, a text.
    pub expression: String,
}

/// Parameters and artifacts that are handed over.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arguments {
    /// Texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Files and folders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// A text with a name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it is if nobody says.
    #[serde(rename = "default", deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
    /// The values that it may have.
    #[serde(rename = "enum", deserialize_with = "any_strings", skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Where the value comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
    /// Its name in `workflow.outputs.parameters`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub global_name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Where a parameter's value comes from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ValueFrom {
    /// A file that the step wrote.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// A tag, such as `{{steps.a.outputs.result}}`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parameter: String,
    /// An expression.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression: String,
    /// What it is if there is nothing there.
    #[serde(rename = "default", deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
    /// Whoever resumes a suspended workflow says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplied: Option<Value>,
    /// Sources that only a cluster has.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// What a template needs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Inputs {
    /// Texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Files and folders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// What a template yields.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Outputs {
    /// Texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Files and folders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What was printed to standard output.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The code that it ended with, in digits.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<String>,
}

/// Something that can be done.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// What it needs.
    pub inputs: Inputs,
    /// What it yields.
    pub outputs: Outputs,
    /// One after the other, each of several at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Vec<Step>>>,
    /// As soon as what they depend on is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dag: Option<Dag>,
    /// Waits for a time, or for somebody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<Suspend>,
    /// A WebAssembly module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasm: Option<Value>,
    /// A map of one key, the plugin's name; of `wasm` the same as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Value>,
    /// A container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Value>,
    /// A container with a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Value>,
    /// Kinds that only a cluster has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Value>,
    /// A request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Value>,
    /// Artifacts through an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Several containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_set: Option<Value>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_strategy: Option<RetryStrategy>,
    /// How long it may take, such as `30s`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeout: String,
    /// Seconds that it may take.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<String>,
    /// Of its children, how many run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<usize>,
    /// One failed child ends them all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_fast: Option<bool>,
    /// Results are kept for the same key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memoize: Option<Memoize>,
    /// Mutexes and semaphores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronization: Option<Value>,
    /// A step that runs until its siblings are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon: Option<bool>,
    /// Where its artifacts and its log are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_location: Option<Value>,
}

/// One step, or one task of a DAG.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// The template that it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// A template of another object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,
    /// A template that stands right here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<Box<Template>>,
    /// What it is given.
    pub arguments: Arguments,
    /// Whether it runs at all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub when: String,
    /// Once for each of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_items: Option<Vec<Value>>,
    /// Once for each of a JSON list.
    #[serde(deserialize_with = "json_text", skip_serializing_if = "String::is_empty")]
    pub with_param: String,
    /// Once for each number of a sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_sequence: Option<Sequence>,
    /// Failures that are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continue_on: Option<ContinueOn>,
    /// The older form of the hook `exit`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub on_exit: String,
    /// Templates that run at moments of its life.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<String, Hook>,
    /// Of a task: those that have to be done before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// Of a task: the same as an expression over what became of them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub depends: String,
}

/// A template of a WorkflowTemplate.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateRef {
    /// The object.
    pub name: String,
    /// The template in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Whether it is a ClusterWorkflowTemplate.
    #[serde(skip_serializing_if = "is_false")]
    pub cluster_scope: bool,
}

/// Tasks and what they depend on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dag {
    /// The tasks.
    pub tasks: Vec<Step>,
    /// Those that are wanted, with spaces between; else those that nothing depends on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// After a failure nothing new begins, unless this is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_fast: Option<bool>,
}

/// A template that waits.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Suspend {
    /// How long, in seconds or such as `2m`; else until somebody resumes.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

/// A template that runs at some moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    /// The template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// One of another object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,
    /// What it is given.
    pub arguments: Arguments,
    /// The moment; the hook `exit` needs none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression: String,
}

/// Failures that are none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContinueOn {
    /// What the host could not do.
    pub error: bool,
    /// What the step did wrong.
    pub failed: bool,
}

/// Numbers, one after the other.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sequence {
    /// How many.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub count: Option<String>,
    /// The first; 0 if nobody says.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The last.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// How they are written, such as `file-%02d`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
}

/// When a template is tried again.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryStrategy {
    /// How often after the first time; without it for ever.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// `Always`, `OnFailure`, `OnError`, `OnTransientError`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub retry_policy: String,
    /// How long is waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Whether it is worth it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression: String,
}

/// How long is waited between two tries.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backoff {
    /// The first time, in seconds or such as `2m`.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Each time so much longer.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub factor: Option<String>,
    /// Never longer than this at once.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub cap: Option<String>,
    /// All tries together.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
}

/// Results that are kept.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memoize {
    /// What is the same for the same result.
    pub key: String,
    /// Where they are kept.
    pub cache: Value,
    /// How long one is good, such as `1h`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub max_age: String,
}

/// What a template does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Groups of steps.
    Steps,
    /// Tasks.
    Dag,
    /// Waits.
    Suspend,
    /// A module.
    Wasm,
    /// Something that only a cluster can do; its name.
    Elsewhere(&'static str),
}

// === impl Parameter ===

impl Parameter {
    /// Its value or what stands for it, as they were written.
    pub fn known(&self) -> Option<&String> {
        let from = self.value_from.as_ref().and_then(|from| from.default_value.as_ref());
        self.value.as_ref().or(self.default_value.as_ref()).or(from)
    }

    /// Whether it may have that value; the error says which it may have.
    pub fn check(&self, value: &str) -> Result<(), String> {
        if self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed == value) {
            return Ok(());
        }
        Err(format!("{} is none of {}", dhow_resources::error::quote(value), self.allowed.join(", ")))
    }
}

// === impl Template ===

impl Template {
    /// Whether it says that its log is an artifact, or is none.
    pub fn archives_logs(&self) -> Option<bool> {
        self.archive_location.as_ref()?.get("archiveLogs")?.as_bool()
    }

    /// What it does; none if it says nothing, or two things.
    pub fn work(&self) -> Option<Work> {
        let plugin = self.plugin.as_ref().map(|plugin| match plugin.get("wasm") {
            Some(_) => Work::Wasm,
            None => Work::Elsewhere("plugin"),
        });
        let kinds = [
            self.steps.as_ref().map(|_| Work::Steps),
            self.dag.as_ref().map(|_| Work::Dag),
            self.suspend.as_ref().map(|_| Work::Suspend),
            self.wasm.as_ref().map(|_| Work::Wasm),
            plugin,
            self.container.as_ref().map(|_| Work::Elsewhere("container")),
            self.script.as_ref().map(|_| Work::Elsewhere("script")),
            self.resource.as_ref().map(|_| Work::Elsewhere("resource")),
            self.http.as_ref().map(|_| Work::Elsewhere("http")),
            self.data.as_ref().map(|_| Work::Elsewhere("data")),
            self.container_set.as_ref().map(|_| Work::Elsewhere("containerSet")),
        ];
        let mut found = kinds.into_iter().flatten();
        found.next().filter(|_| found.next().is_none())
    }

    /// Its steps or tasks.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Step> {
        let steps = self.steps.iter().flatten().flatten();
        steps.chain(self.dag.iter().flat_map(|dag| &dag.tasks))
    }

    /// What names of its parts begin with: `steps` or `tasks`.
    pub(crate) fn kind_of_parts(&self) -> &'static str {
        if self.dag.is_some() { "tasks" } else { "steps" }
    }

    /// The module and how it is run; `{}` if this is no template of a module.
    pub fn wasm_options(&self) -> Value {
        let plugin = || self.plugin.as_ref()?.get("wasm").cloned();
        self.wasm.clone().or_else(plugin).unwrap_or_else(|| Value::Object(serde_json::Map::new()))
    }
}

// === impl Step ===

impl Step {
    /// Whether it runs once for each of something.
    pub fn is_expanded(&self) -> bool {
        self.with_items.is_some() || !self.with_param.is_empty() || self.with_sequence.is_some()
    }

    /// The hooks, with the older `onExit` among them.
    pub fn all_hooks(&self) -> BTreeMap<String, Hook> {
        let mut hooks = self.hooks.clone();
        if !self.on_exit.is_empty() {
            let exit = Hook { template: self.on_exit.clone(), ..Hook::default() };
            hooks.entry("exit".to_owned()).or_insert(exit);
        }
        hooks
    }
}

/// A scalar as Argo's `AnyString` has it: numbers and booleans are texts, lists and maps are empty.
pub(crate) fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => crate::expression::json(value),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

fn any_string<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    Ok(value.map(|value| scalar_text(&value)))
}

fn any_strings<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let values = Option::<Vec<Value>>::deserialize(from)?;
    Ok(values.unwrap_or_default().iter().map(scalar_text).collect())
}

/// Text, or the JSON of what stands there instead.
fn json_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        value => crate::expression::json(&value),
    })
}

fn is_false(flag: &bool) -> bool {
    !flag
}
