//! What the agent asks for, found again when it asks again.
//!
//! A request has no id: the same template of the same workflow is the same task. While it runs, everybody who asks
//! shares it. What succeeded is remembered across restarts, so a request that comes again (the agent restarted, a reply
//! was lost) gets the same answer and nothing is done twice. What failed is remembered only until a moment after it was
//! told: then the same request is a retry, which Argo sends in the same words.

use crate::controller::{Identity, Start, duration, milliseconds};
use crate::model::Template;
use crate::node::{Outcome, Phase, Time, pod_name, pod_of};
use crate::plugin::Room;
use crate::run::now;
use crate::runner::StepRunner;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

/// A call waits so long for the end of its step; the agent gives it 30 seconds.
const WAIT: Duration = Duration::from_secs(5);

/// Until the agent asks again.
const REQUEUE: Duration = Duration::from_secs(2);

/// How long a failure is remembered after it was told: the agent repeats a call whose reply was lost at once.
const FAILURE: Time = 5_000;

/// How long an end is remembered that nobody asks about, and a success.
const KEPT: Time = 7 * 24 * 3_600_000;

const STOPPING: &str = "the plugin is stopping\n";

pub(crate) enum Answer {
    /// It is done: the node result.
    Node(Value),
    /// It runs; ask again after this time.
    Later(Duration),
    /// There is no room for more.
    Busy(String),
}

pub(crate) struct Tasks {
    runner: Arc<dyn StepRunner>,
    turns: Arc<Semaphore>,
    /// Tasks under way and waiting, at most.
    most: usize,
    memory: Arc<Mutex<Memory>>,
    running: Arc<Mutex<HashMap<String, Running>>>,
    /// Nothing begins any more.
    is_stopping: AtomicBool,
}

struct Running {
    workflow: Identity,
    /// The step's name.
    step: String,
    done: watch::Receiver<Option<Value>>,
    handle: AbortHandle,
}

struct Memory(Connection);

// === impl Tasks ===

impl Tasks {
    pub(crate) fn open(runner: Arc<dyn StepRunner>, file: &Path, room: Room) -> rusqlite::Result<Tasks> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS tasks (
                 key TEXT PRIMARY KEY, began INTEGER NOT NULL, node TEXT, forget INTEGER
             ) STRICT;",
        )?;
        connection.execute("DELETE FROM tasks WHERE forget < ?1", [now()])?;
        Ok(Tasks {
            runner,
            turns: Arc::new(Semaphore::new(room.parallel.clamp(1, 10_000))),
            most: room.all.max(1),
            memory: Arc::new(Mutex::new(Memory(connection))),
            running: Arc::default(),
            is_stopping: AtomicBool::new(false),
        })
    }

    /// Ends what runs.
    pub(crate) async fn stop(&self) {
        let ended: Vec<Running> = {
            let mut running = self.running.lock();
            self.is_stopping.store(true, Ordering::Relaxed);
            running.drain().map(|(_, task)| task).collect()
        };
        ended.iter().for_each(|task| task.handle.abort());
        // The agent's pod goes with its workflow: nobody asks for them again, or they begin anew.
        let cancelled = ended.iter().map(|task| self.runner.cancel(&task.workflow, &task.step));
        futures::future::join_all(cancelled).await;
    }

    /// What becomes of a template; begins it if it is not known.
    pub(crate) async fn ask(&self, workflow: Identity, template: Template, text: &Value) -> Answer {
        let mut hasher = blake3::Hasher::new();
        for part in [&workflow.uid, &workflow.namespace, &workflow.name, &text.to_string()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let key = hasher.finalize().to_hex().to_string();
        let mut done = match self.find_or_begin(&key, None, workflow, template) {
            Ok(Found::Done(node)) => return self.tell(&key, node),
            Ok(Found::Running(done)) => done,
            Err(message) => return Answer::Busy(message),
        };
        let waited = tokio::time::timeout(WAIT, done.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(node)) => {
                let node = node.clone().unwrap_or_default();
                self.tell(&key, node)
            }
            // It was ended with the plugin; whoever is there then begins it anew.
            Ok(Err(_)) => Answer::Busy(STOPPING.to_owned()),
            Err(_) => Answer::Later(REQUEUE),
        }
    }

    /// The end of the task with that key, begun if it is not known; `node` is the id of its node. Waits as long as it
    /// takes; whoever no longer waits says so with [`Tasks::cancel`].
    pub(crate) async fn finish(
        &self,
        key: &str,
        node: &str,
        workflow: Identity,
        template: Template,
    ) -> Result<Value, String> {
        let mut done = match self.find_or_begin(key, Some(node), workflow, template)? {
            Found::Done(node) => return Ok(node),
            Found::Running(done) => done,
        };
        match done.wait_for(Option::is_some).await {
            Ok(node) => Ok(node.clone().unwrap_or_default()),
            Err(_) => Err("the step was ended".to_owned()),
        }
    }

    /// Ends a task if it runs. When it began is remembered, for its deadline.
    pub(crate) fn cancel(&self, key: &str) {
        let Some(task) = self.running.lock().remove(key) else { return };
        task.handle.abort();
        let runner = Arc::clone(&self.runner);
        tokio::spawn(async move { runner.cancel(&task.workflow, &task.step).await });
    }

    /// Whoever asked has what came out, or wants it no more.
    pub(crate) fn forget(&self, key: &str) {
        if let Err(error) = self.memory.lock().forget(key) {
            tracing::error!("the memory of steps: {error}");
        }
    }

    /// Forgets all tasks but these.
    pub(crate) fn keep_only(&self, keys: &HashSet<String>) {
        if let Err(error) = self.memory.lock().keep_only(keys) {
            tracing::error!("the memory of steps: {error}");
        }
    }

    /// A failure that was told is forgotten soon.
    fn tell(&self, key: &str, node: Value) -> Answer {
        if node.get("phase").and_then(Value::as_str) != Some(Phase::Succeeded.name())
            && let Err(error) = self.memory.lock().forget_soon(key)
        {
            tracing::error!("the memory of the plugin: {error}");
        }
        Answer::Node(node)
    }

    fn find_or_begin(
        &self,
        key: &str,
        node: Option<&str>,
        workflow: Identity,
        template: Template,
    ) -> Result<Found, String> {
        let mut running = self.running.lock();
        if let Some(task) = running.get(key) {
            return Ok(Found::Running(task.done.clone()));
        }
        let failed = |error: rusqlite::Error| format!("the memory of the plugin: {error}\n");
        let memory = self.memory.lock();
        if let Some(node) = memory.find(key).map_err(failed)? {
            return Ok(Found::Done(node));
        }
        // Read under the lock that `stop` writes it under.
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err(STOPPING.to_owned());
        }
        if running.len() >= self.most {
            return Err(format!(
                "{} steps are under way or waiting, and there is no room for more\n",
                self.most
            ));
        }
        let began = memory.begin(key).map_err(failed)?;
        drop(memory);
        let (sender, done) = watch::channel(None);
        let start = start(key, node, &workflow, template, began);
        let step = start.as_ref().map(|start| start.name.clone()).unwrap_or_default();
        let of = workflow.clone();
        let task = Task {
            key: key.to_owned(),
            start,
            runner: Arc::clone(&self.runner),
            turns: Arc::clone(&self.turns),
            memory: Arc::clone(&self.memory),
            running: Arc::clone(&self.running),
            workflow,
        };
        let handle = tokio::spawn(task.run(sender)).abort_handle();
        running.insert(key.to_owned(), Running { workflow: of, step, done: done.clone(), handle });
        Ok(Found::Running(done))
    }
}

enum Found {
    Done(Value),
    Running(watch::Receiver<Option<Value>>),
}

struct Task {
    key: String,
    workflow: Identity,
    start: Result<Start, String>,
    runner: Arc<dyn StepRunner>,
    turns: Arc<Semaphore>,
    memory: Arc<Mutex<Memory>>,
    running: Arc<Mutex<HashMap<String, Running>>>,
}

impl Task {
    async fn run(self, done: watch::Sender<Option<Value>>) {
        let _turn = self.turns.acquire().await;
        let outcome = match &self.start {
            Ok(start) => self.runner.run(&self.workflow, start, now()).await,
            Err(message) => Outcome::error(message.clone()),
        };
        let node = json!({
            "phase": outcome.phase, "message": outcome.message, "outputs": outcome.outputs,
            "progress": if outcome.phase == Phase::Succeeded { "1/1" } else { "0/1" },
        });
        // Remembered before it is told, and before it is no longer found among what runs.
        if let Err(error) = self.memory.lock().end(&self.key, &node) {
            tracing::error!("the memory of the plugin: {error}");
        }
        self.running.lock().remove(&self.key);
        let _ = done.send(Some(node));
    }
}

fn start(
    key: &str,
    node: Option<&str>,
    workflow: &Identity,
    template: Template,
    began: Time,
) -> Result<Start, String> {
    let pod = match node {
        Some(id) => pod_of(&workflow.name, id, &template.name),
        None => pod_name(&workflow.name, key, &template.name),
    };
    let mut deadlines = Vec::new();
    for (field, text) in [
        ("timeout", Some(&template.timeout)),
        ("activeDeadlineSeconds", template.active_deadline_seconds.as_ref()),
    ] {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let limit = duration(text).map_err(|error| format!("{field}: {error}"))?;
        deadlines.push(began.saturating_add(milliseconds(limit)));
    }
    // A retry of the plugin's agent asks in the same words, and is another step.
    let name = node.map_or_else(|| format!("{pod}-{began}"), str::to_owned);
    Ok(Start { name, pod, template, deadline: deadlines.into_iter().min() })
}

// === impl Memory ===

impl Memory {
    fn find(&self, key: &str) -> rusqlite::Result<Option<Value>> {
        let mut statement = self
            .0
            .prepare_cached("SELECT node FROM tasks WHERE key = ?1 AND node IS NOT NULL AND forget >= ?2")?;
        let node: Option<String> = statement.query_row(params![key, now()], |row| row.get(0)).optional()?;
        Ok(node.and_then(|node| serde_json::from_str(&node).ok()))
    }

    /// When it began: also if that was in an earlier life of the plugin.
    fn begin(&self, key: &str) -> rusqlite::Result<Time> {
        // What is to be forgotten begins anew.
        self.0.prepare_cached("DELETE FROM tasks WHERE forget < ?1")?.execute([now()])?;
        let mut statement =
            self.0.prepare_cached("INSERT INTO tasks (key, began) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
        statement.execute(params![key, now()])?;
        self.0.query_row("SELECT began FROM tasks WHERE key = ?1", [key], |row| row.get(0))
    }

    fn end(&self, key: &str, node: &Value) -> rusqlite::Result<()> {
        let mut statement =
            self.0.prepare_cached("UPDATE tasks SET node = ?2, forget = ?3 WHERE key = ?1")?;
        statement.execute(params![key, node.to_string(), now().saturating_add(KEPT)])?;
        Ok(())
    }

    fn forget_soon(&self, key: &str) -> rusqlite::Result<()> {
        let mut statement =
            self.0.prepare_cached("UPDATE tasks SET forget = MIN(forget, ?2) WHERE key = ?1")?;
        statement.execute(params![key, now().saturating_add(FAILURE)])?;
        Ok(())
    }

    fn forget(&self, key: &str) -> rusqlite::Result<()> {
        self.0.prepare_cached("DELETE FROM tasks WHERE key = ?1")?.execute([key])?;
        Ok(())
    }

    fn keep_only(&self, keys: &HashSet<String>) -> rusqlite::Result<()> {
        let known = {
            let mut statement = self.0.prepare_cached("SELECT key FROM tasks")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?
        };
        known.iter().filter(|key| !keys.contains(*key)).try_for_each(|key| self.forget(key))
    }
}
