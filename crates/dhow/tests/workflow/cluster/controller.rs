//! Argo's controller, as far as agents see it: what is to be run goes into a task set, what came out is taken from its
//! status, and both are taken away then. What is to be run next is decided by dhow's own controller of workflows.

use super::{ApiServer, SETS};
use dhow_argo::controller::{Controller, Identity, Start, Status};
use dhow_argo::definition::{Definition, Objects};
use dhow_argo::manifest::Manifest;
use dhow_argo::model::Outputs;
use dhow_argo::node::Outcome;
use dhow_argo::run::now;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A workflow under way.
pub(crate) struct Flow<'a> {
    server: &'a ApiServer,
    controller: Controller,
    name: String,
    uid: String,
    /// The names of nodes that agents run, by their ids.
    waiting: HashMap<String, String>,
    /// Results that were taken.
    pub(crate) taken: Arc<AtomicUsize>,
}

/// A template as it stands in a task set: only what says something, and a module as a plugin.
fn task(start: &Start) -> Value {
    let mut template = serde_json::to_value(&start.template).unwrap();
    let map = template.as_object_mut().unwrap();
    if let Some(wasm) = map.remove("wasm") {
        map.insert("plugin".to_owned(), json!({"wasm": wasm}));
    }
    template
}

/// What is in a task set: templates by the ids of nodes.
pub(crate) fn tasks_of(server: &ApiServer, workflow: &str) -> BTreeMap<String, Value> {
    let state = server.state();
    let tasks = state.set(workflow).map(|set| set["spec"]["tasks"].clone()).unwrap_or_default();
    tasks.as_object().cloned().unwrap_or_default().into_iter().collect()
}

impl<'a> Flow<'a> {
    /// A workflow out of its YAML or JSON.
    pub(crate) fn new(server: &'a ApiServer, name: &str, yaml: &str) -> Flow<'a> {
        let manifest = Manifest::parse(yaml, Path::new("workflow.yaml")).unwrap();
        let objects = Objects::new(manifest.values()).unwrap();
        let definition = Arc::new(Definition::new(&objects).unwrap());
        let uid = format!("uid-of-{name}");
        let identity = Identity {
            name: name.to_owned(),
            uid: uid.clone(),
            namespace: "argo".to_owned(),
            created: now(),
        };
        let controller =
            Controller::new(definition, identity, Status::default(), Vec::new(), BTreeMap::new());
        Flow {
            server,
            controller,
            name: name.to_owned(),
            uid,
            waiting: HashMap::new(),
            taken: Arc::default(),
        }
    }

    /// Drives it to its end; the nodes by their names, as Argo's status has them.
    pub(crate) fn run(mut self) -> BTreeMap<String, Value> {
        loop {
            let turn = self.controller.operate(now());
            let mut tasks = json!({});
            for start in &turn.start {
                let id = self.controller.node(&start.name).unwrap().id.clone();
                tasks[&id] = task(start);
                self.waiting.insert(id, start.name.clone());
            }
            if !turn.start.is_empty() {
                self.server.change(|state| state.put_tasks(&self.name, &self.uid, tasks));
            }
            if self.controller.status().phase.is_fulfilled() {
                return self.end();
            }
            self.take_results();
        }
    }

    /// Waits for results and takes them.
    fn take_results(&mut self) {
        let waiting = &self.waiting;
        let name = &self.name;
        let results = self.server.wait("results", |state| {
            let nodes = state.set(name)?["status"]["nodes"].as_object()?.clone();
            let is_end = |(id, result): &(String, Value)| {
                let phase = result["phase"].as_str().unwrap_or_default();
                waiting.contains_key(id) && ["Succeeded", "Failed", "Error"].contains(&phase)
            };
            let ended: Vec<(String, Value)> = nodes.into_iter().filter(is_end).collect();
            (!ended.is_empty()).then_some(ended)
        });
        let mut gone = json!({});
        for (id, result) in &results {
            gone[id] = Value::Null;
            let name = self.waiting.remove(id).unwrap();
            let outputs = result.get("outputs").cloned().unwrap_or(json!({}));
            let outputs: Outputs = serde_json::from_value(outputs).unwrap();
            let outcome = Outcome {
                phase: serde_json::from_value(result["phase"].clone()).unwrap(),
                message: result["message"].as_str().unwrap_or_default().to_owned(),
                outputs,
            };
            self.controller.finished(&name, outcome, now());
            self.taken.fetch_add(1, Ordering::SeqCst);
        }
        let patch = json!({"spec": {"tasks": gone}, "status": {"nodes": gone}});
        self.server.change(|state| state.patch_set(&self.name, &patch));
    }

    fn end(self) -> BTreeMap<String, Value> {
        self.server.change(|state| {
            if state.set(&self.name).is_some() {
                let labels = json!({"workflows.argoproj.io/completed": "true"});
                state.patch_set(&self.name, &json!({"metadata": {"labels": labels}}));
                state.store(SETS, "argo", &self.name, None);
            }
        });
        let nodes = self.controller.nodes();
        nodes.map(|node| (node.display_name.clone(), serde_json::to_value(node).unwrap())).collect()
    }
}
