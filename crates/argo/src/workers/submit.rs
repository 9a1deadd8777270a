//! Steps handed to workers: submitted once, however often they are asked for, and waited for.

use super::connection::{Connection, First, Tries};
use super::exchange;
use super::idle::Idle;
use super::message::{Artifacts, Content, Ending, Job, Module, VERSION, done_subject, step_id, step_subject};
use super::results::Kept;
use crate::artifacts::Artifact;
use crate::controller::{Identity, Start};
use crate::model::Template;
use crate::node::{Outcome, Time};
use crate::runner::{StepRunner, Watched};
use crate::step::modules::source;
use crate::step::options::Options;
use async_trait::async_trait;
use bytes::Bytes;
use dhow_artifacts::Source;
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked for an end that nobody told of. After a loss of the connection it is looked at once.
const LOOK: Duration = Duration::from_secs(10);

/// A worker tells of a deadline itself; who does not within this time is told.
const GRACE: Duration = Duration::from_secs(2);

/// A step that is neither in the queue nor ended is handed over again, so often.
const SUBMISSIONS: u32 = 5;

/// A step that was delivered to somebody, and that nobody has at so many looks, is put into the queue anew.
const MISSES: u32 = 3;

/// A cancellation takes so long at most.
const CANCEL: Duration = Duration::from_secs(5);

/// After this time it is looked again whether a module of this machine is in the stream.
const MODULE_FRESH: Duration = Duration::from_secs(3600);

/// What Argo says of a step whose deadline is over.
pub(super) const LATE: &str = "Pod was active on the node longer than the specified deadline";

/// Hands steps to workers.
pub struct Remote {
    connection: Arc<Connection>,
    options: RemoteOptions,
    /// Modules of this machine that are in the stream, by their files.
    modules: tokio::sync::Mutex<HashMap<PathBuf, (Instant, Content)>>,
    /// Held by the one of all steps that looks whether workers take them.
    idle: tokio::sync::Mutex<Idle>,
}

/// How steps are handed over.
pub struct RemoteOptions {
    /// Folder that relative paths of modules begin in.
    pub base: PathBuf,
    /// Images and what stands for them.
    pub images: BTreeMap<String, String>,
    /// The submitter's own folder of artifacts, which go through the stream; none: workers and submitter were told of
    /// the same repository.
    pub artifacts: Option<PathBuf>,
    /// Folder of what steps printed.
    pub logs: PathBuf,
}

// === impl Remote ===

impl Remote {
    /// Hands steps over through this connection; the folder of logs is made if it is not there.
    pub fn new(connection: Arc<Connection>, options: RemoteOptions) -> std::io::Result<Remote> {
        std::fs::create_dir_all(&options.logs)?;
        if let Some(folder) = &options.artifacts {
            std::fs::create_dir_all(folder.join(exchange::SCRATCH))?;
        }
        let (modules, idle) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        Ok(Remote { connection, options, modules, idle })
    }

    /// Puts an artifact of a step into the submitter's folder, if it is in the stream.
    pub async fn bring_home(&self, artifact: &Artifact) -> Result<(), String> {
        match &self.options.artifacts {
            Some(folder) => exchange::bring_home(&self.connection, folder, artifact).await,
            None => Ok(()),
        }
    }

    async fn try_run(
        &self,
        workflow: &Identity,
        start: &Start,
        limit: Option<Duration>,
    ) -> Result<Outcome, String> {
        let id = step_id(workflow, &start.name);
        // Before it is looked for: what ends in between is heard.
        let mut told =
            self.connection.client.subscribe(done_subject(&id)).await.map_err(|error| error.to_string())?;
        let mut connects = self.connection.connects.clone();
        let mut submissions = 0;
        // Nobody told of anything for a while.
        let mut looks = false;
        let mut misses = 0;
        let mut payload: Option<Bytes> = None;
        let mut tries = Tries::new();
        loop {
            connects.mark_unchanged();
            match self.connection.ending(&id).await {
                Ok(Some(Kept { ending: Ending { outcome: Some(outcome), contents, log, .. }, .. })) => {
                    return self.take(start, outcome, &contents, &log).await;
                }
                // It was cancelled, and is wanted again: whoever ran it before may have said so only now.
                Ok(Some(cancelled)) => {
                    if let Err(error) = self.connection.forget(&cancelled).await {
                        tries.again(error).await?;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    tries.again(error).await?;
                    continue;
                }
            }
            let queued = if submissions > 0 { self.queued(&id).await? } else { None };
            if queued.is_none() && (submissions == 0 || !self.connection.has_ended(&id).await?) {
                if submissions == SUBMISSIONS {
                    return Err(format!(
                        "the step was handed over {SUBMISSIONS} times, and is neither in the stream DHOW_STEPS nor \
                         ended; does somebody else cancel it?"
                    ));
                }
                let payload = match &payload {
                    Some(payload) => payload.clone(),
                    None => payload.insert(self.payload(workflow, start, limit).await?).clone(),
                };
                if let Err(error) = self.connection.remind_once().await {
                    tries.again(error).await?;
                    continue;
                }
                self.offer(&id, payload).await?;
                submissions += 1;
            }
            if let Some(sequence) = queued.filter(|_| looks) {
                if let Err(error) = self.connection.remind(true).await {
                    // There will be another look.
                    tracing::debug!("NATS: {error}");
                }
                misses = if self.connection.is_missed(&id, sequence).await { misses + 1 } else { 0 };
                if misses == MISSES {
                    tracing::warn!(
                        "NATS has forgotten the step {} of {}; it is handed over anew",
                        start.name,
                        workflow.name
                    );
                    misses = 0;
                    self.connection.take_back(sequence).await;
                    continue;
                }
            }
            tries = Tries::new();
            tokio::select! {
                _ = told.next() => looks = false,
                _ = connects.changed() => looks = false,
                () = tokio::time::sleep(LOOK) => looks = true,
            }
        }
    }

    /// Puts a step into the queue, unless it is there.
    async fn offer(&self, id: &str, payload: Bytes) -> Result<(), String> {
        let mut tries = Tries::new();
        loop {
            match self.connection.publish_first(step_subject(id), payload.clone()).await {
                Ok(First::Yes | First::No) => return Ok(()),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Where in the queue the step is, if it is there.
    async fn queued(&self, id: &str) -> Result<Option<u64>, String> {
        let mut tries = Tries::new();
        loop {
            match self.connection.last(&self.connection.steps, &step_subject(id)).await {
                Ok(message) => return Ok(message.map(|message| message.sequence)),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    async fn payload(
        &self,
        workflow: &Identity,
        start: &Start,
        limit: Option<Duration>,
    ) -> Result<Bytes, String> {
        let artifacts = match &self.options.artifacts {
            Some(folder) => {
                let own = format!("{}/inputs/", workflow.name);
                exchange::inputs(&self.connection, folder, &own, &start.template).await?
            }
            None => Artifacts::Repository,
        };
        let mut template = start.template.clone();
        let module = self.module(&mut template).await?;
        let job = Job {
            version: VERSION,
            workflow: workflow.clone(),
            step: start.name.clone(),
            pod: start.pod.clone(),
            template,
            limit: limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            module,
            artifacts,
        };
        let payload = serde_json::to_vec(&job).map_err(|error| error.to_string())?;
        let max = self.connection.max_payload();
        if payload.len() > max {
            return Err(format!(
                "the step with its parameters has {} bytes, and a message of the NATS server at most {max} \
                 (max_payload); make large parameters artifacts",
                payload.len()
            ));
        }
        Ok(payload.into())
    }

    /// A module that is a file of this machine goes into the stream; another one is fetched by the worker. An image that
    /// something stands for is named by that.
    async fn module(&self, template: &mut Template) -> Result<Option<Module>, String> {
        let options = Options::read(&template.wasm_options()).map_err(|error| error.to_string())?;
        let alias = self.options.images.get(&options.image);
        let wanted = alias.unwrap_or(&options.image);
        let Source::Path(file) = source(&self.options.base, wanted) else {
            if let Some(alias) = alias {
                set_image(template, alias);
            }
            return Ok(None);
        };
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut modules = self.modules.lock().await;
        if let Some((when, content)) = modules.get(&file)
            && when.elapsed() < MODULE_FRESH
        {
            return Ok(Some(Module { name, content: content.clone() }));
        }
        let image = &options.image;
        let is_file = tokio::fs::metadata(&file).await.is_ok_and(|meta| meta.is_file());
        if !is_file {
            return Err(format!("module {image}: {} does not exist", file.display()));
        }
        let stored = self.connection.store(&file, &self.options.logs).await;
        let content = stored.map_err(|error| format!("module {image}: {error}"))?;
        modules.insert(file, (Instant::now(), content.clone()));
        Ok(Some(Module { name, content }))
    }

    /// Takes an end: from now on the keys of its outputs mean what it left.
    async fn take(
        &self,
        start: &Start,
        outcome: Outcome,
        contents: &BTreeMap<String, Content>,
        log: &str,
    ) -> Result<Outcome, String> {
        for (key, content) in contents {
            self.connection.name(key, content).await?;
        }
        let file = self.options.logs.join(format!("{}.log", start.pod));
        if let Err(error) = tokio::fs::write(&file, log).await {
            tracing::warn!("the log {} cannot be written: {error}", file.display());
        }
        Ok(outcome)
    }
}

#[async_trait]
impl StepRunner for Remote {
    async fn run(&self, workflow: &Identity, start: &Start, now: Time) -> Outcome {
        let late = || Outcome::failed(LATE);
        let limit = start
            .deadline
            .map(|deadline| Duration::from_millis(u64::try_from(deadline.saturating_sub(now)).unwrap_or(0)));
        let run = async {
            tokio::select! {
                ended = self.try_run(workflow, start, limit) => ended,
                never = async { self.idle.lock().await.watch(&self.connection).await } => match never {},
            }
        };
        let ended = match limit {
            Some(limit) if limit.is_zero() => return late(),
            Some(limit) => match tokio::time::timeout(limit + GRACE, run).await {
                Ok(ended) => ended,
                Err(_) => {
                    self.cancel(workflow, &start.name).await;
                    return late();
                }
            },
            None => run.await,
        };
        ended.unwrap_or_else(Outcome::error)
    }

    async fn cancel(&self, workflow: &Identity, step: &str) {
        let id = step_id(workflow, step);
        match tokio::time::timeout(CANCEL, self.connection.cancel(&id, "submitter")).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("step {step} could not be cancelled: {error}"),
            Err(_) => tracing::warn!("step {step} could not be cancelled: NATS does not answer"),
        }
    }
}

impl Watched for Remote {
    fn readiness(&self) -> Result<(), String> {
        self.connection.readiness()
    }
}

/// Names another module, in whichever form the template has.
pub(super) fn set_image(template: &mut Template, image: &str) {
    let options = match &mut template.wasm {
        Some(options) => Some(options),
        None => template.plugin.as_mut().and_then(|plugin| plugin.get_mut("wasm")),
    };
    let Some(Value::Object(options)) = options else { return };
    if options.contains_key("module") {
        options.insert("module".to_owned(), json!({"path": image}));
    } else {
        options.insert("image".to_owned(), image.into());
    }
}

/// The name of a module's file, if it is one name that a file may have.
pub(super) fn file_name(name: &str) -> Option<&str> {
    let is_one = Path::new(name).file_name().is_some_and(|file| file == name);
    (is_one && name.len() <= 200 && !name.contains('\0')).then_some(name)
}
