//! The nodes of a workflow under way: what was begun, how it stands, what came out. Names and phases are those of
//! Argo's `status.nodes`.

use crate::artifacts::Artifact;
use crate::model::{Inputs, Outputs, Parameter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Milliseconds since 1970.
pub type Time = i64;

/// How a node stands.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Default)]
pub enum Phase {
    /// It has not begun.
    #[default]
    Pending,
    /// It is under way.
    Running,
    /// It is done.
    Succeeded,
    /// What runs in it failed.
    Failed,
    /// The host failed.
    Error,
    /// Its `when` was false.
    Skipped,
    /// Its `depends` was false.
    Omitted,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum NodeKind {
    /// A template of steps.
    Steps,
    /// One group of its steps.
    StepGroup,
    /// A template of tasks.
    #[serde(rename = "DAG")]
    Dag,
    /// A task that runs once for each item.
    TaskGroup,
    /// A template that is tried again.
    Retry,
    /// A template that waits.
    Suspend,
    /// A module.
    Plugin,
    /// Something that was not run.
    Skipped,
}

/// One node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name: the way to it from the workflow's name on.
    pub name: String,
    /// A short name that is different for each name.
    pub id: String,
    /// The last part of its name.
    pub display_name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: NodeKind,
    /// The template; empty for groups.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template_name: String,
    /// How it stands.
    pub phase: Phase,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What it was given.
    #[serde(default)]
    pub inputs: Inputs,
    /// What came out.
    #[serde(default)]
    pub outputs: Outputs,
    /// The node of the template that it is a step of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// The node that it is shown under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Counts the nodes of a workflow in the order in which they came.
    pub sequence: u64,
    /// Its outputs are those of an earlier node with the same memoization key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memoized: bool,
    /// Under what its outputs are kept for later nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo_key: Option<String>,
}

/// What became of a leaf.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Outcome {
    /// Succeeded, Failed or Error.
    pub phase: Phase,
    /// For people.
    pub message: String,
    /// What came out.
    pub outputs: Outputs,
}

// === impl Phase ===

impl Phase {
    /// Whether nothing more will happen.
    pub fn is_fulfilled(self) -> bool {
        !matches!(self, Phase::Pending | Phase::Running)
    }

    /// Failed or Error.
    pub fn is_failed(self) -> bool {
        matches!(self, Phase::Failed | Phase::Error)
    }

    /// As Argo writes it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Error => "Error",
            Phase::Skipped => "Skipped",
            Phase::Omitted => "Omitted",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// What runs in the step failed.
    pub fn failed(message: impl Into<String>) -> Outcome {
        Outcome { phase: Phase::Failed, message: message.into(), outputs: Outputs::default() }
    }

    /// The host failed.
    pub fn error(message: impl Into<String>) -> Outcome {
        Outcome { phase: Phase::Error, message: message.into(), outputs: Outputs::default() }
    }
}

/// The outputs that have a global name, under that; of several the one that came last.
pub(crate) fn global_outputs<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Outputs {
    let mut ended: Vec<&Node> = nodes.into_iter().filter(|node| node.finished_at.is_some()).collect();
    ended.sort_by_key(|node| (node.finished_at, node.sequence));
    let (mut parameters, mut artifacts) = (BTreeMap::new(), BTreeMap::new());
    for outputs in ended.into_iter().map(|node| &node.outputs) {
        for found in outputs.parameters.iter().filter(|found| !found.global_name.is_empty()) {
            let name = found.global_name.clone();
            parameters.insert(name.clone(), Parameter { name, global_name: String::new(), ..found.clone() });
        }
        for found in outputs.artifacts.iter().filter(|found| !found.global_name.is_empty()) {
            // Where its step left it means nothing any more.
            let (name, path) = (found.global_name.clone(), String::new());
            artifacts
                .insert(name.clone(), Artifact { name, path, global_name: String::new(), ..found.clone() });
        }
    }
    Outputs {
        parameters: parameters.into_values().collect(),
        artifacts: artifacts.into_values().collect(),
        ..Outputs::default()
    }
}

/// What a workflow yields: the outputs of the template that began, and those with a global name.
pub fn workflow_outputs<'a>(workflow: &str, nodes: impl IntoIterator<Item = &'a Node>) -> Outputs {
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    let main = nodes.iter().find(|node| node.name == workflow);
    let mut outputs = main.map(|node| node.outputs.clone()).unwrap_or_default();
    let global = global_outputs(nodes);
    for found in global.parameters {
        if outputs.parameters.iter().all(|known| known.name != found.name) {
            outputs.parameters.push(found);
        }
    }
    for found in global.artifacts {
        if outputs.artifacts.iter().all(|known| known.name != found.name) {
            outputs.artifacts.push(found);
        }
    }
    outputs
}

/// A number that is different for each name, as Argo makes its ids: 32-bit FNV-1a.
pub(crate) fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `workflow-hash`; the workflow's own name for the node of that name.
pub(crate) fn node_id(workflow: &str, name: &str) -> String {
    if name == workflow { name.to_owned() } else { format!("{workflow}-{}", hash(name)) }
}

/// `workflow-template-hash`: what Argo calls the pod of a node, and what artifacts are kept under.
pub fn pod_name(workflow: &str, name: &str, template: &str) -> String {
    if name == workflow {
        return name.to_owned();
    }
    let prefix: String = format!("{workflow}-{template}").chars().take(242).collect();
    format!("{prefix}-{}", hash(name))
}

/// The same of a node whose id is known and whose name is not: both end in the same number.
pub(crate) fn pod_of(workflow: &str, id: &str, template: &str) -> String {
    if id == workflow {
        return id.to_owned();
    }
    let prefix: String = format!("{workflow}-{template}").chars().take(242).collect();
    format!("{prefix}-{}", id.rsplit('-').next().unwrap_or_default())
}
