//! One step that was taken from the queue: held, run, its end kept, and only then let go.

use super::connection::{Connection, First};
use super::exchange::{Exchange, let_go};
use super::message::{Artifacts, Ending, Job, VERSION, attempt_id};
use super::submit::{file_name, set_image};
use crate::controller::Start;
use crate::metrics::StepMetrics;
use crate::model::Template;
use crate::node::Outcome;
use crate::run::now;
use crate::runner::Watched;
use crate::step::Executor;
use crate::step::options::Options;
use async_nats::jetstream::{AckKind, Message};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// A step that was taken so often without an end is at fault itself: it ends its workers.
const MAX_DELIVERIES: i64 = 8;

/// A worker that would have to compile a module first lets others have the step for so long.
const ELSEWHERE: Duration = Duration::from_millis(25);

/// Bytes of a log that go to the submitter.
const MAX_LOG: u64 = 128 << 10;

/// What a worker's attempts share.
pub(super) struct Desk {
    pub(super) connection: Arc<Connection>,
    pub(super) executor: Arc<Executor>,
    /// This worker's name.
    pub(super) name: String,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// Artifacts through the stream; none: this worker has a repository.
    pub(super) exchange: Option<Exchange>,
    /// How long the server waits for a sign of life.
    pub(super) lease: Duration,
    pub(super) steps: StepMetrics,
}

/// Ends a task with whoever waits for it.
struct Ends(AbortHandle);

/// How an attempt went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// The step has ended, by this attempt or by another one.
    Ended,
    /// Others may have it.
    GivenBack,
}

// === impl Desk ===

impl Desk {
    /// Runs a step that was taken. `cancelled` says that nobody wants it any more, `stopped` that this worker has no
    /// more time.
    pub(super) async fn attempt(
        self: Arc<Desk>,
        message: Message,
        cancelled: Arc<Notify>,
        stopped: watch::Receiver<bool>,
    ) -> Went {
        let id = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
        let went = self.try_attempt(&id, &message, cancelled, stopped).await;
        match went {
            Went::Ended => tell(&message, AckKind::Ack).await,
            Went::GivenBack => {}
        }
        went
    }

    /// Lets go what no step has asked for in a long time. Blocks.
    pub(super) fn sweep(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.sweep();
        }
        for folder in ["modules", "logs"] {
            let_go(&self.folder.join(folder));
        }
    }

    async fn try_attempt(
        self: &Arc<Desk>,
        id: &str,
        message: &Message,
        cancelled: Arc<Notify>,
        mut stopped: watch::Receiver<bool>,
    ) -> Went {
        match self.connection.has_ended(id).await {
            // Whoever ended it could not say so any more, or it was cancelled.
            Ok(true) => {
                self.connection.tell_done(id).await;
                return Went::Ended;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("step {id} is left to others: {error}");
                return Went::GivenBack;
            }
        }
        let deliveries = message.info().map_or(1, |info| info.delivered);
        let job = match read(&message.payload, deliveries) {
            Ok(job) => Arc::new(job),
            Err(reason) => return self.end(id, Outcome::error(reason), attempt_id()).await,
        };
        if deliveries == 1 && !self.is_ready(&job) {
            // Whoever has the module takes the step in the meantime; if nobody does, it comes again.
            tell(message, AckKind::Nak(Some(ELSEWHERE))).await;
            if let Ok(image) = self.image(&job).await {
                let _ = self.executor.modules().get(&image).await;
            }
            return Went::GivenBack;
        }
        tracing::info!(step = job.step, workflow = job.workflow.name, deliveries, "begins");
        let (desk, work_id, work) = (Arc::clone(self), id.to_owned(), Arc::clone(&job));
        let mut work = tokio::spawn(async move { desk.work(&work_id, &work).await });
        let _ends = Ends(work.abort_handle());
        let period = self.lease / 3;
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                went = &mut work => return went.unwrap_or(Went::GivenBack),
                () = cancelled.notified() => {
                    tracing::info!(step = job.step, "is not wanted any more");
                    return Went::Ended;
                }
                () = told(&mut stopped) => {
                    tell(message, AckKind::Nak(None)).await;
                    return Went::GivenBack;
                }
                _ = beat.tick() => {
                    tell(message, AckKind::Progress).await;
                    // Others may have ended it, while this worker was thought dead; or it was cancelled.
                    let last = self.connection.ending(id);
                    if let Ok(Ok(Some(_))) = tokio::time::timeout(self.lease / 6, last).await
                        && !work.is_finished()
                    {
                        return Went::Ended;
                    }
                }
            }
        }
    }

    /// Runs a step and keeps its end.
    async fn work(&self, id: &str, job: &Job) -> Went {
        let attempt = attempt_id();
        let ending = self.perform(job, &attempt).await.unwrap_or_else(|message| {
            tracing::warn!(step = job.step, workflow = job.workflow.name, "Error: {message}");
            Ending { outcome: Some(Outcome::error(message)), ..self.ending(&attempt) }
        });
        self.keep(id, ending).await
    }

    async fn end(&self, id: &str, outcome: Outcome, attempt: String) -> Went {
        self.keep(id, Ending { outcome: Some(outcome), ..self.ending(&attempt) }).await
    }

    async fn keep(&self, id: &str, ending: Ending) -> Went {
        match self.connection.end(id, ending).await {
            Ok(First::Yes) => Went::Ended,
            Ok(First::No) => {
                tracing::info!("step {id} was ended by another worker; what this one did counts for nothing");
                Went::Ended
            }
            Err(error) => {
                tracing::warn!("the end of step {id} could not be told: {error}");
                Went::GivenBack
            }
        }
    }

    fn ending(&self, attempt: &str) -> Ending {
        Ending {
            version: VERSION,
            attempt: attempt.to_owned(),
            worker: self.name.clone(),
            outcome: None,
            contents: Default::default(),
            log: String::new(),
        }
    }

    async fn perform(&self, job: &Job, attempt: &str) -> Result<Ending, String> {
        let mut template = job.template.clone();
        if job.module.is_some() {
            set_image(&mut template, &self.image(job).await?);
        }
        let renamed = match (&self.exchange, &job.artifacts) {
            (Some(exchange), Artifacts::Stream(known)) => {
                exchange.bring(&self.connection, &mut template, known).await?;
                Some((exchange, Exchange::rename(&mut template, attempt)))
            }
            (None, Artifacts::Repository) => None,
            (Some(_), Artifacts::Repository) => {
                return Err(format!(
                    "the submitter keeps artifacts in a repository of which worker {} was not told; start it with the \
                     same --artifacts",
                    self.name
                ));
            }
            (None, Artifacts::Stream(_)) => {
                return Err(format!(
                    "worker {} keeps artifacts in a repository of which the submitter was not told; give both the same \
                     --artifacts, or neither",
                    self.name
                ));
            }
        };
        // Whatever a worker does that was thought dead, it does it under another name.
        let pod = format!("{}-{attempt}", job.pod);
        let log = self.executor.log_file(&pod)?;
        let begun = now();
        let deadline = job.limit.map(|limit| begun.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX)));
        let start = Start { name: job.step.clone(), pod, template, deadline };
        let run = self.executor.run(&job.workflow, &start, begun);
        let mut outcome = self.steps.observe(&job.workflow.name, &job.step, run).await;
        let contents = match renamed {
            Some((exchange, renamed)) => {
                exchange.ship(&self.connection, &mut outcome.outputs, &renamed).await?
            }
            None => Default::default(),
        };
        let text = tokio::task::spawn_blocking(move || tail(&log)).await.unwrap_or_default();
        Ok(Ending { outcome: Some(outcome), contents, log: text, ..self.ending(attempt) })
    }

    /// Whether the module of a step is compiled here.
    fn is_ready(&self, job: &Job) -> bool {
        let image = match &job.module {
            Some(module) => self.module_place(module).map(|place| place.to_string_lossy().into_owned()),
            None => image(&job.template),
        };
        // What cannot be named fails as well here as anywhere.
        image.is_ok_and(|image| self.executor.modules().has(&image))
    }

    /// What the executor calls the module of a step, whose file is here from now on.
    async fn image(&self, job: &Job) -> Result<String, String> {
        let Some(module) = &job.module else { return image(&job.template) };
        let place = self.module_place(module)?;
        if !tokio::fs::try_exists(&place).await.unwrap_or(false) {
            let failed = |error: std::io::Error| format!("{}: {error}", place.display());
            let folder = place.parent().unwrap_or(&self.folder);
            tokio::fs::create_dir_all(folder).await.map_err(failed)?;
            let fetched = self.connection.fetch(&module.content, &place, folder).await;
            fetched.map_err(|error| format!("module {}: {error}", module.name))?;
        }
        Ok(place.to_string_lossy().into_owned())
    }

    fn module_place(&self, module: &super::message::Module) -> Result<PathBuf, String> {
        let digest = &module.content.digest;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        match file_name(&module.name).filter(|_| is_digest && !module.content.is_folder) {
            Some(name) => Ok(self.folder.join("modules").join(digest).join(name)),
            None => Err(format!("{:?} is no name of a module", module.name)),
        }
    }
}

impl Watched for Desk {
    fn readiness(&self) -> Result<(), String> {
        self.connection.readiness()
    }

    fn metrics(&self) -> String {
        format!("{}{}", self.steps.render(), self.executor.metrics())
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until there is no more time.
async fn told(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // Whoever could say so is gone, and the worker with it.
        std::future::pending().await
    }
}

fn read(payload: &[u8], deliveries: i64) -> Result<Job, String> {
    if deliveries > MAX_DELIVERIES {
        return Err(format!(
            "the step was begun {} times, and each time its worker ended before the step did",
            deliveries - 1
        ));
    }
    let job: Job = serde_json::from_slice(payload)
        .map_err(|error| format!("the step in the queue is none that this worker understands: {error}"))?;
    if job.version != VERSION {
        return Err(format!(
            "the step in the queue has version {}, and this worker understands {VERSION}; let workers and submitters \
             have the same version of dhow",
            job.version
        ));
    }
    Ok(job)
}

fn image(template: &Template) -> Result<String, String> {
    let options = Options::read(&template.wasm_options()).map_err(|error| error.to_string())?;
    Ok(options.image)
}

/// What does not reach the server is delivered again, and does no harm.
async fn tell(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        tracing::debug!("an acknowledgement did not leave: {error}");
    }
}

/// The end of a log.
fn tail(file: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let Ok(mut log) = std::fs::File::open(file) else { return String::new() };
    let size = log.metadata().map_or(0, |meta| meta.len());
    let skipped = size.saturating_sub(MAX_LOG);
    let mut bytes = Vec::new();
    if log.seek(SeekFrom::Start(skipped)).is_err() || log.take(MAX_LOG).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    if skipped == 0 { text.into_owned() } else { format!("… {skipped} bytes are on the worker\n{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_told_by_its_end() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("log");
        assert_eq!(tail(&file), "");
        std::fs::write(&file, "short\n").unwrap();
        assert_eq!(tail(&file), "short\n");
        std::fs::write(&file, format!("begin{}end\n", "x".repeat(MAX_LOG as usize))).unwrap();
        let told = tail(&file);
        assert!(told.starts_with("… 9 bytes are on the worker\n") && told.ends_with("xend\n"));
    }

    #[test]
    fn steps_that_are_none() {
        assert!(read(b"{}", 1).unwrap_err().contains("none that this worker understands"));
        assert!(read(b"{}", MAX_DELIVERIES + 1).unwrap_err().contains("was begun 8 times"));
    }
}
