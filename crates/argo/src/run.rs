//! A workflow, run to its end on this machine: the controller says what is next, steps are run, here or elsewhere,
//! the history keeps it.

use crate::controller::{Controller, Identity, Status};
use crate::definition::{Definition, DefinitionError, Objects};
use crate::history::{History, HistoryError, Record, Request, Settings};
use crate::node::{Outcome, Phase, Time};
use crate::runner::StepRunner;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// How often it is looked whether another process asks for something. The look is one read of a local file.
const LOOK: Duration = Duration::from_millis(200);

/// The folders and the history of workflows below a data folder.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// A workflow that is being run by this process.
pub struct Run {
    history: History,
    controller: Controller,
    runner: Arc<dyn StepRunner>,
    turns: Arc<Semaphore>,
    /// Keeps other processes away.
    _lock: File,
}

/// Why a workflow cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The history is of no use.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The workflow is of no use.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// Another process runs it.
    #[error("workflow {0:?} is being run by another process")]
    Busy(String),
    /// There is no such workflow.
    #[error("there is no workflow {0:?}; `dhow workflow list` shows all")]
    Unknown(String),
    /// What another process asks for cannot be done.
    #[error("{0}")]
    Request(String),
    /// The name cannot be that of a workflow.
    #[error("{0}")]
    Name(String),
    /// A folder cannot be used.
    #[error("{}: {error}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The workflow is done.
    Done(Phase),
    /// It was interrupted and can be resumed.
    Interrupted,
}

/// Milliseconds since 1970.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

// === impl Home ===

impl Home {
    /// The workflows of a data folder; folders are made if they are not there.
    pub fn open(data_dir: &Path) -> Result<Home, RunError> {
        let path = data_dir.join("workflows");
        for folder in [&path, &path.join("locks")] {
            std::fs::create_dir_all(folder)
                .map_err(|error| RunError::Folder { path: folder.clone(), error })?;
        }
        Ok(Home(path))
    }

    /// The history.
    pub fn history(&self) -> Result<History, RunError> {
        Ok(History::open(&self.0)?)
    }

    /// Where artifacts are kept unless somebody says otherwise.
    pub fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }

    /// Where the files of steps under way are.
    pub fn rooms(&self) -> PathBuf {
        self.0.join("rooms")
    }

    /// Where the logs of a workflow's steps are.
    pub fn logs(&self, workflow: &str) -> PathBuf {
        self.0.join("logs").join(workflow)
    }

    /// Keeps other processes away from a workflow, as long as the file is open.
    pub fn lock(&self, workflow: &str) -> Result<File, RunError> {
        crate::name::object(workflow).map_err(RunError::Name)?;
        let path = self.0.join("locks").join(workflow);
        let failed = |error| RunError::Folder { path: path.clone(), error };
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(RunError::Busy(workflow.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Whether some process runs it.
    pub fn is_run(&self, workflow: &str) -> bool {
        matches!(self.lock(workflow), Err(RunError::Busy(_)))
    }
}

// === impl Run ===

impl Run {
    /// A new workflow: it is in the history from now on.
    pub fn begin(
        home: &Home,
        identity: Identity,
        objects: Objects,
        settings: Settings,
        runner: Arc<dyn StepRunner>,
    ) -> Result<Run, RunError> {
        let lock = home.lock(&identity.name)?;
        let record = Record { identity, objects, settings, status: Status::default(), nodes: Vec::new() };
        let history = home.history()?;
        history.add(&record)?;
        Run::of(history, record, runner, lock)
    }

    /// A workflow as it was left.
    pub fn resume(
        history: History,
        record: Record,
        runner: Arc<dyn StepRunner>,
        lock: File,
    ) -> Result<Run, RunError> {
        Run::of(history, record, runner, lock)
    }

    fn of(
        history: History,
        record: Record,
        runner: Arc<dyn StepRunner>,
        lock: File,
    ) -> Result<Run, RunError> {
        let definition = Arc::new(Definition::new(&record.objects)?);
        let memos = history.memos()?;
        let turns = Arc::new(Semaphore::new(record.settings.parallel.clamp(1, 10_000)));
        let controller = Controller::new(definition, record.identity, record.status, record.nodes, memos);
        Ok(Run { history, controller, runner, turns, _lock: lock })
    }

    /// How it stands.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Runs it until it is done, or until `interrupted` is ready. `changed` sees it after every turn.
    pub async fn go(
        &mut self,
        interrupted: impl Future<Output = ()>,
        mut changed: impl FnMut(&Controller),
    ) -> Result<Ended, RunError> {
        tokio::pin!(interrupted);
        let mut steps: JoinSet<(String, Outcome)> = JoinSet::new();
        let mut handles: HashMap<String, AbortHandle> = HashMap::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let turn = self.controller.operate(now());
            let nodes = self.controller.take_changed();
            let name = self.controller.identity().name.clone();
            self.history.record(&name, self.controller.status(), &nodes, &turn.memoize, now())?;
            changed(&self.controller);
            for name in &turn.cancel {
                if let Some(handle) = handles.remove(name) {
                    handle.abort();
                }
            }
            let identity = self.controller.identity();
            let cancelled = turn.cancel.iter().map(|name| self.runner.cancel(identity, name));
            futures::future::join_all(cancelled).await;
            let phase = self.controller.status().phase;
            if phase.is_fulfilled() {
                return Ok(Ended::Done(phase));
            }
            for start in turn.start {
                let (runner, turns) = (Arc::clone(&self.runner), Arc::clone(&self.turns));
                let identity = self.controller.identity().clone();
                let name = start.name.clone();
                let step = async move {
                    // It is closed with the process only.
                    let _turn = turns.acquire_owned().await;
                    let outcome = runner.run(&identity, &start, now()).await;
                    (start.name, outcome)
                };
                handles.insert(name, steps.spawn(step));
            }
            let wake = turn.wake;
            let sleep = async move {
                match wake {
                    Some(at) => {
                        let wait = u64::try_from(at.saturating_sub(now())).unwrap_or(0);
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(sleep);
            loop {
                let mut news = Vec::new();
                tokio::select! {
                    Some(ended) = steps.join_next() => news.push(ended),
                    () = &mut sleep => break,
                    () = &mut interrupted => return Ok(Ended::Interrupted),
                    _ = look.tick() => {
                        if self.heed()? {
                            break;
                        }
                    }
                }
                // What ended in the meantime is one turn with it.
                while let Some(ended) = steps.try_join_next() {
                    news.push(ended);
                }
                let has_news = !news.is_empty();
                for (name, outcome) in news.into_iter().flatten() {
                    handles.remove(&name);
                    self.controller.finished(&name, outcome, now());
                }
                if has_news {
                    break;
                }
            }
        }
    }

    /// Does what other processes ask for; true if there was anything.
    fn heed(&mut self) -> Result<bool, RunError> {
        let name = self.controller.identity().name.clone();
        let requests = self.history.take_requests(&name)?;
        let is_any = !requests.is_empty();
        for request in requests {
            if let Err(error) = self.apply(&request) {
                tracing::warn!("{error}");
            }
        }
        Ok(is_any)
    }

    /// Does what is asked for; the error is what is wrong with the request.
    pub fn apply(&mut self, request: &Request) -> Result<(), String> {
        apply(&mut self.controller, request)
    }
}

/// What is wrong with a request to a workflow that another process runs, as that one would say: it has no way to answer.
pub fn check(record: Record, request: &Request) -> Result<(), RunError> {
    let definition = Arc::new(Definition::new(&record.objects)?);
    let (status, nodes) = (record.status, record.nodes);
    let mut controller = Controller::new(definition, record.identity, status, nodes, BTreeMap::new());
    apply(&mut controller, request).map_err(RunError::Request)
}

fn apply(controller: &mut Controller, request: &Request) -> Result<(), String> {
    match request {
        Request::ShutDown(how) => controller.shut_down(*how),
        Request::Resume { .. } if controller.status().shutdown.is_some() => {
            return Err("the workflow is being ended: nothing in it waits any more".to_owned());
        }
        Request::Resume { node, values } => {
            let count = controller.resume(node.as_deref(), values, now())?;
            if count == 0 {
                return Err("nothing in the workflow waits for that".to_owned());
            }
        }
    }
    Ok(())
}
