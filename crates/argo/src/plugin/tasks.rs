//! What the agent asks for, found again when it asks again.
//!
//! A request has no id: the same template of the same workflow is the same task. While it runs, everybody who asks
//! shares it. What came out is remembered, across restarts, until it was told and the agent had time to hand it on; so a
//! request that comes again (a reply was lost, the agent restarted) gets the same answer and nothing is done twice. After
//! that the same words are another node: a retry, or the next round of a loop. Time alone tells these apart; templates
//! that cannot live with it say `{{retries}}` or count their rounds.

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

/// How long a failure is remembered after it was told. A call whose reply was lost is repeated by the agent after a
/// second, a fifth more or less; a retry may come as soon as the agent's next tick has passed.
const FAILURE: Time = 2_000;

/// How long a success is remembered after it was first told. Until the agent's tick (10 s) has handed it on and the
/// controller has taken the node away (10 s more at most), an agent that is restarted, at once or after its first
/// back-off (10 s), asks for it again.
const SUCCESS: Time = 60_000;

/// How long an end is remembered that nobody asks about.
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

pub(crate) struct Running {
    workflow: Identity,
    /// The step's name.
    step: String,
    done: watch::Receiver<Option<Value>>,
    handle: AbortHandle,
}

/// Tasks as they were last seen.
struct Memory {
    connection: Connection,
    clock: Box<dyn Fn() -> Time + Send>,
}

// === impl Tasks ===

impl Tasks {
    pub(crate) fn open(runner: Arc<dyn StepRunner>, file: &Path, room: Room) -> rusqlite::Result<Tasks> {
        Ok(Tasks {
            runner,
            turns: Arc::new(Semaphore::new(room.parallel.clamp(1, 10_000))),
            most: room.all.max(1),
            memory: Arc::new(Mutex::new(Memory::open(file, Box::new(now))?)),
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
        let Some(task) = self.leave(key) else { return };
        let runner = Arc::clone(&self.runner);
        tokio::spawn(async move { runner.cancel(&task.workflow, &task.step).await });
    }

    /// Waits no longer for a task that somebody else will ask for: what runs in this process ends, and what was handed to
    /// another machine goes on.
    pub(crate) fn leave(&self, key: &str) -> Option<Running> {
        let task = self.running.lock().remove(key)?;
        task.handle.abort();
        Some(task)
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

    fn tell(&self, key: &str, node: Value) -> Answer {
        if let Err(error) = self.memory.lock().tell(key, &node) {
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
    fn open(file: &Path, clock: Box<dyn Fn() -> Time + Send>) -> rusqlite::Result<Memory> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS tasks (
                 key TEXT PRIMARY KEY, began INTEGER NOT NULL, node TEXT, forget INTEGER
             ) STRICT;",
        )?;
        connection.execute("DELETE FROM tasks WHERE forget < ?1", [clock()])?;
        Ok(Memory { connection, clock })
    }

    fn find(&self, key: &str) -> rusqlite::Result<Option<Value>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT node FROM tasks WHERE key = ?1 AND node IS NOT NULL AND forget >= ?2")?;
        let node: Option<String> =
            statement.query_row(params![key, (self.clock)()], |row| row.get(0)).optional()?;
        Ok(node.and_then(|node| serde_json::from_str(&node).ok()))
    }

    /// When it began: also if that was in an earlier life of the plugin.
    fn begin(&self, key: &str) -> rusqlite::Result<Time> {
        // What is to be forgotten begins anew.
        self.connection.prepare_cached("DELETE FROM tasks WHERE forget < ?1")?.execute([(self.clock)()])?;
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO tasks (key, began) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
        statement.execute(params![key, (self.clock)()])?;
        self.connection.query_row("SELECT began FROM tasks WHERE key = ?1", [key], |row| row.get(0))
    }

    fn end(&self, key: &str, node: &Value) -> rusqlite::Result<()> {
        let mut statement =
            self.connection.prepare_cached("UPDATE tasks SET node = ?2, forget = ?3 WHERE key = ?1")?;
        statement.execute(params![key, node.to_string(), (self.clock)().saturating_add(KEPT)])?;
        Ok(())
    }

    /// What was told is forgotten some time after it was told first: being asked again and again keeps nothing.
    fn tell(&self, key: &str, node: &Value) -> rusqlite::Result<()> {
        let is_success = node.get("phase").and_then(Value::as_str) == Some(Phase::Succeeded.name());
        let forget = (self.clock)().saturating_add(if is_success { SUCCESS } else { FAILURE });
        let mut statement =
            self.connection.prepare_cached("UPDATE tasks SET forget = MIN(forget, ?2) WHERE key = ?1")?;
        statement.execute(params![key, forget])?;
        Ok(())
    }

    fn forget(&self, key: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached("DELETE FROM tasks WHERE key = ?1")?.execute([key])?;
        Ok(())
    }

    fn keep_only(&self, keys: &HashSet<String>) -> rusqlite::Result<()> {
        let known = {
            let mut statement = self.connection.prepare_cached("SELECT key FROM tasks")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?
        };
        known.iter().filter(|key| !keys.contains(*key)).try_for_each(|key| self.forget(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn what_was_told_is_remembered_for_repeats_and_forgotten_for_what_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let time = Arc::new(AtomicI64::new(1_000_000));
        let open = || {
            let time = Arc::clone(&time);
            Memory::open(&folder.path().join("plugin.db"), Box::new(move || time.load(Ordering::Relaxed)))
        };
        // How an end was told, after how many milliseconds it is known still, and from when on it is not.
        let cases = [("Succeeded", 45_000, 61_000), ("Failed", 1_900, 2_100), ("Error", 1_900, 2_100)];
        for (phase, known, forgotten) in cases {
            let (mut memory, node) = (open().unwrap(), json!({"phase": phase}));
            assert_eq!(memory.begin(phase).unwrap(), time.load(Ordering::Relaxed));
            memory.end(phase, &node).unwrap();
            // Nobody has asked yet: a plugin that is restarted knows it days later.
            time.fetch_add(6 * 24 * 3_600_000, Ordering::Relaxed);
            memory = open().unwrap();
            let told = time.load(Ordering::Relaxed);
            for after in [0, 10, known] {
                time.store(told + after, Ordering::Relaxed);
                assert_eq!(memory.find(phase).unwrap().as_ref(), Some(&node), "{phase} after {after} ms");
                memory.tell(phase, &node).unwrap();
                memory = open().unwrap();
            }
            time.store(told + forgotten, Ordering::Relaxed);
            assert_eq!(memory.find(phase).unwrap(), None, "{phase}");
            // The next node with the same words begins now, and so does its deadline.
            assert_eq!(memory.begin(phase).unwrap(), told + forgotten);
        }
    }
}
