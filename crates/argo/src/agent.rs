//! The native agent: finds the steps of workflows in the cluster itself, runs them, and writes down what came out.
//!
//! | file | subject |
//! |---|---|
//! | `taskset` | `WorkflowTaskSet`, in which Argo's controller puts what is to be run |
//! | `table` | what is to be run, and what runs |
//! | `results` | what came out, written as soon as it is there |
//! | `http_template` | `http` templates |
//! | `pause` | how long to wait after something failed |
//!
//! Argo's own agent is a pod for every workflow that asks the plugins beside it and writes what they answer every ten
//! seconds. This one is a process for all workflows of a namespace or a cluster, and writes at once. The controller is
//! told with `disableAgentPodCreation` to make no pods (Argo 4.1).
//!
//! What is done twice? Nothing that was written down: a node that the status knows is not run again, and a node runs
//! once at a time, since only the holder of a Lease works (for each shard). A step that ended and was not written yet is
//! remembered on disk, and written after a restart. A step that was in its middle begins anew, at another agent or
//! after a restart; what it leaves is stored whole, under keys that are the same each time.

mod http_template;
mod pause;
mod results;
mod table;
mod taskset;

use crate::kubernetes::lease::{Candidate, Timing};
use crate::kubernetes::watch::Event;
use crate::kubernetes::{Cluster, KubernetesError, escaped};
use crate::plugin::Room;
use crate::plugin::tasks::Tasks;
use crate::runner::StepRunner;
use http_template::HttpTemplates;
use pause::Pause;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use taskset::{NOT_COMPLETED, TaskSet};
use tokio::sync::watch;

/// A part of all workflows, by the uids of the workflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which of them, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

/// How an agent works.
pub struct AgentOptions {
    /// The namespace whose workflows it runs; none: those of all.
    pub namespace: Option<String>,
    /// Its part of them.
    pub shard: Shard,
    /// A name that no other agent has.
    pub identity: String,
    /// The namespace of its Lease, and how that is held; none: there is only one agent.
    pub lease: Option<(String, Timing)>,
    /// Steps that it takes.
    pub room: Room,
    /// `http` templates are another agent's.
    pub leave_http: bool,
    /// Plugins that are not `wasm` are another agent's; else they fail, as they do with Argo's own.
    pub leave_plugins: bool,
    /// How long steps under way may take after it was told to stop.
    pub drain: Duration,
}

/// The agent.
pub struct Agent {
    shared: Arc<Shared>,
    options: AgentOptions,
}

/// What all steps use.
struct Shared {
    cluster: Arc<Cluster>,
    tasks: Tasks,
    http: HttpTemplates,
    identity: String,
    leave_http: bool,
    leave_plugins: bool,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its memory cannot be used.
    #[error("the memory of the agent in {folder}: {error}")]
    Memory {
        /// Where it is.
        folder: String,
        /// What SQLite says.
        #[source]
        error: rusqlite::Error,
    },
    /// No connection to a server could ever be made.
    #[error("HTTP templates: {0}")]
    Tls(String),
}

// === impl Shard ===

impl Shard {
    /// All workflows.
    pub const ALL: Shard = Shard { index: 0, count: 1 };

    /// Whether a workflow is in it.
    fn has(self, uid: &str) -> bool {
        crate::node::hash(uid) % self.count.max(1) == self.index
    }

    /// The Lease of its agents.
    fn lease(self) -> String {
        match self.count {
            1 => "dhow-argo-agent".to_owned(),
            count => format!("dhow-argo-agent-{}-of-{count}", self.index),
        }
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `I/N`, such as `0/3`.
    fn from_str(text: &str) -> Result<Shard, String> {
        let expected = || format!("{text:?}: expected I/N with I below N, such as 0/3");
        let (index, count) = text.split_once('/').ok_or_else(expected)?;
        let shard = Shard {
            index: index.parse().map_err(|_| expected())?,
            count: count.parse().map_err(|_| expected())?,
        };
        if shard.index < shard.count { Ok(shard) } else { Err(expected()) }
    }
}

// === impl Agent ===

impl Agent {
    /// An agent that remembers in `folder`, which is there, what it did and could not write yet.
    pub fn new(
        cluster: Arc<Cluster>,
        runner: Arc<dyn StepRunner>,
        folder: &Path,
        options: AgentOptions,
    ) -> Result<Agent, AgentError> {
        let failed = |error| AgentError::Memory { folder: folder.display().to_string(), error };
        let tasks = Tasks::open(runner, &folder.join("agent.db"), options.room).map_err(failed)?;
        let shared = Shared {
            tasks,
            http: HttpTemplates::new(Arc::clone(&cluster)).map_err(AgentError::Tls)?,
            cluster,
            identity: options.identity.clone(),
            leave_http: options.leave_http,
            leave_plugins: options.leave_plugins,
        };
        Ok(Agent { shared: Arc::new(shared), options })
    }

    /// Works until `stopped` is ready; then it takes nothing new, and steps under way have a while to end.
    pub async fn run(&self, stopped: impl Future<Output = ()>) {
        tokio::pin!(stopped);
        let mut is_stopping = false;
        while !is_stopping {
            let mut candidate = self.candidate();
            if let Some(candidate) = &mut candidate {
                tokio::select! {
                    () = &mut stopped => return,
                    () = candidate.acquire() => {}
                }
            }
            tracing::info!("{} begins to work", self.options.identity);
            let lost = {
                let (stop, stopping) = watch::channel(false);
                let work = self.work(stopping);
                let hold = async {
                    match &mut candidate {
                        Some(candidate) => candidate.hold().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::pin!(work, hold);
                loop {
                    tokio::select! {
                        () = &mut stopped, if !is_stopping => {
                            is_stopping = true;
                            let _ = stop.send(true);
                        }
                        reason = &mut hold => break Some(reason),
                        () = &mut work => break None,
                    }
                }
                // Whatever still runs ends here: without the Lease another agent begins it.
            };
            match (lost, &mut candidate) {
                (Some(reason), _) => tracing::warn!("{} stops to work: {reason}", self.options.identity),
                (None, Some(candidate)) => candidate.release().await,
                (None, None) => {}
            }
        }
    }

    fn candidate(&self) -> Option<Candidate> {
        let (namespace, timing) = self.options.lease.as_ref()?;
        let (cluster, name) = (Arc::clone(&self.shared.cluster), self.options.shard.lease());
        Some(Candidate::new(cluster, namespace, &name, &self.options.identity, *timing))
    }

    /// Runs what is to be run, until `stopping` is true and what runs has ended or had its time.
    async fn work(&self, mut stopping: watch::Receiver<bool>) {
        let mut table = Table::new(Arc::clone(&self.shared), self.options.shard);
        tokio::select! {
            () = self.follow(&mut table) => {}
            // The sender lives longer than this.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        table.drain(self.options.drain).await;
    }

    /// Keeps the table as the cluster is.
    async fn follow(&self, table: &mut Table) {
        let cluster = &self.shared.cluster;
        let path = taskset::collection(self.options.namespace.as_deref());
        let mut pause = Pause::default();
        loop {
            let mut version = match cluster.list::<TaskSet>(&path, NOT_COMPLETED).await {
                Ok(list) => {
                    table.replace(list.items);
                    list.version
                }
                Err(error) => {
                    tracing::warn!("{error}");
                    pause.wait(error.retry_after()).await;
                    continue;
                }
            };
            // Until the version is too old to go on from.
            loop {
                let Err(error) = self.watch(table, &path, &mut version, &mut pause).await;
                if error.is_expired() {
                    tracing::info!("{error}; listing everything again");
                    break;
                }
                tracing::warn!("{error}");
                pause.wait(error.retry_after()).await;
            }
        }
    }

    /// Watches until that fails.
    async fn watch(
        &self,
        table: &mut Table,
        path: &str,
        version: &mut String,
        pause: &mut Pause,
    ) -> Result<std::convert::Infallible, KubernetesError> {
        loop {
            let mut watch = self.shared.cluster.watch::<TaskSet>(path, NOT_COMPLETED, version).await?;
            let mut is_fruitless = true;
            while let Some(event) = watch.next().await? {
                is_fruitless = false;
                pause.reset();
                match event {
                    Event::Applied(set) => {
                        version.clone_from(&set.metadata.resource_version);
                        table.apply(set);
                    }
                    Event::Deleted(set) => {
                        version.clone_from(&set.metadata.resource_version);
                        table.remove(&set.key());
                    }
                    Event::Bookmark(newer) => *version = newer,
                }
            }
            // A server that ends watches as soon as they begin is not asked without end.
            if is_fruitless {
                pause.wait(None).await;
            }
        }
    }
}

/// `/apis/argoproj.io/v1alpha1/namespaces/NS/workflowtasksets/NAME/status`.
fn status_path(namespace: &str, name: &str) -> String {
    format!("{}/{}/status", taskset::collection(Some(namespace)), escaped(name))
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn every_workflow_is_in_one_shard() {
        let count = 3;
        let shards: Vec<Shard> = (0..count).map(|index| Shard { index, count }).collect();
        let mut sizes = [0; 3];
        for number in 0..300 {
            let uid = format!("5f0e7a2c-{number:04}-4d1b-9c55-0242ac120002");
            let owners: Vec<usize> = (0..3).filter(|index| shards[*index].has(&uid)).collect();
            assert_eq!(owners.len(), 1, "{uid}");
            sizes[owners[0]] += 1;
        }
        assert!(sizes.iter().all(|size| *size > 50), "{sizes:?}");
        for (text, expected) in [("0/1", true), ("2/3", true), ("3/3", false), ("1", false), ("a/2", false)] {
            assert_eq!(text.parse::<Shard>().is_ok(), expected, "{text}");
        }
    }
}
