//! `WorkflowTaskSet`: an object beside each workflow, in which Argo's controller puts the templates that an agent has to
//! run, by the ids of their nodes, and in whose status the agent puts what came out.

use crate::kubernetes::escaped;
use crate::node::Phase;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Workflows that are done keep their task sets; nobody has to look at them.
pub(super) const NOT_COMPLETED: &str = "workflows.argoproj.io/completed!=true";

/// The label that a workflow gets when it is done.
const COMPLETED: &str = "workflows.argoproj.io/completed";

/// A task set, as far as an agent has to know it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskSet {
    pub(super) metadata: Metadata,
    /// Read only if the task set is one that is worked on; a strange one costs nobody else anything.
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    uid: String,
}

/// What is to be run, and what is known of it.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Templates by the ids of their nodes.
    pub(super) tasks: BTreeMap<String, Box<RawValue>>,
    /// Nodes of which the status says that they are done.
    pub(super) done: Vec<String>,
}

/// A namespace and a name.
pub(super) type Key = (String, String);

/// Where task sets are.
pub(super) fn collection(namespace: Option<&str>) -> String {
    match namespace {
        Some(name) => format!("/apis/argoproj.io/v1alpha1/namespaces/{}/workflowtasksets", escaped(name)),
        None => "/apis/argoproj.io/v1alpha1/workflowtasksets".to_owned(),
    }
}

// === impl TaskSet ===

impl TaskSet {
    pub(super) fn key(&self) -> Key {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    /// The workflow's uid.
    pub(super) fn workflow_uid(&self) -> &str {
        let owners = self.metadata.owner_references.iter().flatten();
        let workflow = owners.into_iter().find(|owner| owner.kind == "Workflow");
        workflow.map_or(&self.metadata.uid, |owner| &owner.uid)
    }

    /// Whether nothing of it is to be run any more.
    pub(super) fn is_over(&self) -> bool {
        let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(COMPLETED));
        self.metadata.deletion_timestamp.is_some() || label.is_some_and(|value| value == "true")
    }

    pub(super) fn content(&self) -> Result<Content, serde_json::Error> {
        #[derive(Default, Deserialize)]
        struct Spec {
            #[serde(default)]
            tasks: Option<BTreeMap<String, Box<RawValue>>>,
        }
        #[derive(Default, Deserialize)]
        struct Status {
            #[serde(default)]
            nodes: Option<BTreeMap<String, NodeResult>>,
        }
        #[derive(Deserialize)]
        struct NodeResult {
            #[serde(default)]
            phase: Option<Phase>,
        }
        let spec: Option<Spec> = self.spec.as_ref().map(|raw| serde_json::from_str(raw.get())).transpose()?;
        let status: Option<Status> =
            self.status.as_ref().map(|raw| serde_json::from_str(raw.get())).transpose()?;
        let nodes = status.and_then(|status| status.nodes).unwrap_or_default();
        let is_done = |result: &NodeResult| result.phase.is_some_and(Phase::is_fulfilled);
        Ok(Content {
            tasks: spec.and_then(|spec| spec.tasks).unwrap_or_default(),
            done: nodes.into_iter().filter(|(_, result)| is_done(result)).map(|(id, _)| id).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TaskSet;
    use serde_json::json;

    #[test]
    fn task_sets_as_they_come() {
        let set = |spec, status, labels| -> TaskSet {
            let metadata = json!({
                "name": "wf", "namespace": "argo", "uid": "set", "resourceVersion": "7", "labels": labels,
                "ownerReferences": [{"kind": "Workflow", "name": "wf", "uid": "flow", "apiVersion": "v"}],
            });
            let text = json!({"metadata": metadata, "spec": spec, "status": status}).to_string();
            serde_json::from_str(&text).unwrap()
        };
        let usual = set(
            json!({"tasks": {"wf-1": {"name": "a"}, "wf-2": {"name": "b"}, "wf-3": {"name": "c"}}}),
            json!({"nodes": {"wf-1": {"phase": "Succeeded"}, "wf-2": {"phase": "Pending", "message": "m"}}}),
            json!({}),
        );
        assert_eq!((usual.workflow_uid(), usual.is_over()), ("flow", false));
        let content = usual.content().unwrap();
        assert_eq!(content.tasks.keys().collect::<Vec<_>>(), ["wf-1", "wf-2", "wf-3"]);
        assert_eq!(content.done, ["wf-1"]);
        for (spec, status) in [
            (json!({}), json!(null)),
            (json!(null), json!({})),
            (json!({"tasks": null}), json!({"nodes": null})),
        ] {
            assert!(set(spec, status, json!(null)).content().unwrap().tasks.is_empty());
        }
        assert!(set(json!([1]), json!({}), json!({})).content().is_err());
        assert!(set(json!({}), json!({}), json!({"workflows.argoproj.io/completed": "true"})).is_over());
    }
}
