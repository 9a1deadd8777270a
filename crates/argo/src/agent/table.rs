//! What is to be run, as the cluster says it, and what runs.

use super::results::{Results, Writer};
use super::taskset::{Key, TaskSet};
use super::{Shard, Shared, status_path};
use crate::controller::Identity;
use crate::model::Template;
use crate::plugin::leave_out_nothing;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// After this time the status says that a step runs. Most are done before, and need one patch only.
const NOTICE: Duration = Duration::from_secs(2);

/// A step that cannot begin for want of room is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// The task sets of one agent's shard.
pub(super) struct Table {
    shared: Arc<Shared>,
    shard: Shard,
    sets: HashMap<Key, Set>,
}

/// One task set. Dropping it leaves its steps to another agent.
struct Set {
    shared: Arc<Shared>,
    /// The task set's own.
    uid: String,
    workflow: Identity,
    steps: BTreeMap<String, Step>,
    results: Arc<Results>,
    _writer: Writer,
}

/// One node of a task set.
struct Step {
    key: String,
    /// None: the status knew it already.
    running: Option<JoinHandle<()>>,
}

// === impl Table ===

impl Table {
    pub(super) fn new(shared: Arc<Shared>, shard: Shard) -> Table {
        Table { shared, shard, sets: HashMap::new() }
    }

    /// These task sets are all that there are.
    pub(super) fn replace(&mut self, sets: Vec<TaskSet>) {
        let there: HashSet<Key> = sets.iter().map(TaskSet::key).collect();
        let gone: Vec<Key> = self.sets.keys().filter(|key| !there.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        sets.into_iter().for_each(|set| self.apply(set));
        let steps = self.sets.values().flat_map(|set| set.steps.values());
        // What was remembered of nodes that are no longer there was wanted by nobody.
        self.shared.tasks.keep_only(&steps.map(|step| step.key.clone()).collect());
    }

    /// A task set is new, or is different now.
    pub(super) fn apply(&mut self, set: TaskSet) {
        let key = set.key();
        if set.is_over() || !self.shard.has(set.workflow_uid()) {
            return self.remove(&key);
        }
        let content = match set.content() {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!("the WorkflowTaskSet {}/{} cannot be read: {error}", key.0, key.1);
                return;
            }
        };
        if self.sets.get(&key).is_some_and(|known| known.uid != set.metadata.uid) {
            self.remove(&key);
        }
        let shared = &self.shared;
        let known = self.sets.entry(key).or_insert_with(|| Set::new(shared, &set));
        let gone: Vec<String> =
            known.steps.keys().filter(|node| !content.tasks.contains_key(*node)).cloned().collect();
        gone.iter().for_each(|node| known.remove(node));
        for node in &content.done {
            // Somebody else was told what came out: nobody waits for ours.
            if let Some(step) = known.steps.get_mut(node)
                && step.running.as_ref().is_some_and(|running| !running.is_finished())
            {
                step.end(shared);
                known.results.unwant(node);
            }
        }
        for (node, template) in content.tasks {
            if known.steps.contains_key(&node) {
                continue;
            }
            let key = step_key(&known.workflow, &node);
            let is_done = content.done.contains(&node);
            let running = (!is_done).then(|| known.begin(&node, &key, template.get()));
            known.steps.insert(node, Step { key, running });
        }
    }

    /// A task set is gone, or done.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(mut set) = self.sets.remove(key) else { return };
        let nodes: Vec<String> = set.steps.keys().cloned().collect();
        nodes.iter().for_each(|node| set.remove(node));
    }

    /// Waits until everything that runs has ended and is written, but not longer than that.
    pub(super) async fn drain(&mut self, patience: Duration) {
        let ended = async {
            let steps = self.sets.values_mut().flat_map(|set| set.steps.values_mut());
            join_all(steps.filter_map(|step| step.running.as_mut())).await;
            join_all(self.sets.values().map(|set| set.results.all_written())).await;
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("steps are still under way after {} s; they begin anew", patience.as_secs());
        }
        self.sets.clear();
    }
}

// === impl Set ===

impl Set {
    fn new(shared: &Arc<Shared>, set: &TaskSet) -> Set {
        let (namespace, name) = set.key();
        let workflow = Identity {
            uid: set.workflow_uid().to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            created: 0,
        };
        let results = Arc::new(Results::default());
        let (path, of) = (status_path(&namespace, &name), workflow.clone());
        let key = move |node: &str| step_key(&of, node);
        let writer = Writer::start(Arc::clone(shared), Arc::clone(&results), path, key);
        Set {
            shared: Arc::clone(shared),
            uid: set.metadata.uid.clone(),
            workflow,
            steps: BTreeMap::new(),
            results,
            _writer: writer,
        }
    }

    /// The controller no longer wants this node: it took what came out, or gave the node up.
    fn remove(&mut self, node: &str) {
        let Some(mut step) = self.steps.remove(node) else { return };
        self.results.unwant(node);
        step.end(&self.shared);
        self.shared.tasks.forget(&step.key);
    }

    fn begin(&self, node: &str, key: &str, template: &str) -> JoinHandle<()> {
        self.results.want(node);
        let (shared, results) = (Arc::clone(&self.shared), Arc::clone(&self.results));
        let (workflow, node, key) = (self.workflow.clone(), node.to_owned(), key.to_owned());
        let template = read(template);
        tokio::spawn(async move {
            let work = run(&shared, &workflow, &node, &key, template);
            tokio::pin!(work);
            let result = match tokio::time::timeout(NOTICE, &mut work).await {
                Ok(result) => result,
                Err(_) => {
                    results.put(&node, notice(&shared.identity));
                    work.await
                }
            };
            if let Some(result) = result {
                results.put(&node, result);
            }
        })
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        for step in self.steps.values() {
            if let Some(running) = &step.running {
                // In this order, as at a step's end.
                running.abort();
                self.shared.tasks.leave(&step.key);
            }
        }
    }
}

// === impl Step ===

impl Step {
    /// Ends it if it runs.
    fn end(&mut self, shared: &Shared) {
        if let Some(running) = self.running.take() {
            // In this order: whoever waits for the step would begin it anew.
            running.abort();
            shared.tasks.cancel(&self.key);
        }
    }
}

/// A step is the node of a workflow: the same wherever and whenever it is asked for.
fn step_key(workflow: &Identity, node: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&workflow.uid, &workflow.namespace, &workflow.name, node] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn read(template: &str) -> Result<Template, serde_json::Error> {
    let mut value: Value = serde_json::from_str(template)?;
    leave_out_nothing(&mut value);
    serde_json::from_value(value)
}

/// What the status says of a step that takes longer. The phase stays `Pending`: Argo's controller ends a node whose
/// `timeout` or whose workflow's deadline is over only as long as it is that.
fn notice(identity: &str) -> Value {
    json!({"phase": "Pending", "message": format!("running on {identity} since {:.0}", Timestamp::now())})
}

/// A node's result, in the words of Argo's `NodeResult`; none if it is another agent's.
async fn run(
    shared: &Shared,
    workflow: &Identity,
    node: &str,
    key: &str,
    template: Result<Template, serde_json::Error>,
) -> Option<Value> {
    let ended = |phase: &str, message: String| Some(json!({"phase": phase, "message": message}));
    let template = match template {
        Ok(template) => template,
        Err(error) => return ended("Error", format!("the template cannot be read: {error}")),
    };
    if let Some(request) = &template.http {
        return match shared.leave_http {
            true => None,
            false => Some(shared.http.execute(&workflow.namespace, &template, request).await),
        };
    }
    let Some(plugin) = &template.plugin else {
        return ended("Error", "dhow's agent runs `plugin: {wasm: …}` and `http` templates only".to_owned());
    };
    if plugin.get("wasm").is_none() {
        if shared.leave_plugins {
            return None;
        }
        let names: Vec<&str> =
            plugin.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        return ended(
            "Failed",
            format!("no plugin executed the template: {} is not there", names.join(", ")),
        );
    }
    loop {
        match shared.tasks.finish(key, node, workflow.clone(), template.clone()).await {
            Ok(result) => return Some(result),
            Err(reason) => {
                tracing::warn!("{node} cannot begin: {}", reason.trim());
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
