//! `dhow workflow worker`: this process runs steps of workflows that others began.

use super::health::{Later, ManagementArgs};
use super::queue::{QueueArgs, duration};
use crate::Error;
use crate::argo::pairs;
use crate::executor::{Steps, executor};
use crate::repository::RepositoryArgs;
use crate::signals::Signals;
use crate::trust::TrustArgs;
use dhow_argo::workers::{Connection, Worker as Working, WorkerOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Run steps of workflows that others began with --workers
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  dhow workflow worker --connect nats://queue:4222
  dhow workflow worker --connect tls://queue:4222 --nats-creds worker.creds --concurrency 16

A server that is not there is waited for, at the beginning as later.

SIGTERM lets steps under way end, and takes no more. What a worker was doing when it was killed is
begun by another one.")]
pub(super) struct Worker {
    /// The NATS server with JetStream; several with commas
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true)]
    connect: String,
    #[command(flatten)]
    queue: QueueArgs,
    /// What it is called in messages [default: this machine's name and the process id]
    #[arg(long, value_name = "NAME", env = "DHOW_WORKER_NAME", hide_env_values = true)]
    name: Option<String>,
    /// Steps that run at once [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
    /// How long a worker may be silent until its steps are begun elsewhere; the same for all workers
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    lease: Duration,
    /// How long steps under way have to end after SIGTERM; then others begin them anew
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    grace: Duration,
    /// Folder of artifacts that submitters and workers share; default: artifacts go through the queue
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Folder of modules, logs and files of steps under way
    #[arg(long, value_name = "DIR", default_value = ".dhow/worker", env = "DHOW_DATA_DIR")]
    data_dir: PathBuf,
    /// Folders with Dapr resource files, for steps that may use building blocks
    #[arg(long, value_name = "DIR")]
    resources_path: Vec<PathBuf>,
    #[command(flatten)]
    management: ManagementArgs,
    /// A module in the place of an image that templates name (repeatable)
    #[arg(long, value_name = "IMAGE=MODULE")]
    image: Vec<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

// === impl Worker ===

impl Worker {
    pub(super) async fn execute(self) -> Result<ExitCode, Error> {
        let failed =
            |what: &Path, error: &dyn std::fmt::Display| Error::new(format!("{}: {error}", what.display()));
        let data = std::path::absolute(&self.data_dir).map_err(|error| failed(&self.data_dir, &error))?;
        std::fs::create_dir_all(&data).map_err(|error| failed(&data, &error))?;
        let _lock = crate::serve::lock(&data)?;
        let name = self.name.clone().unwrap_or_else(usual_name);
        let queue = self.queue.at(&self.connect)?;
        let called = format!("dhow worker {name}");
        let mut signals = Signals::listen()?;
        let watched = Arc::new(Later::default());
        let management = self.management.serve(Arc::clone(&watched) as _)?;
        let connection = tokio::select! {
            connection = Connection::wait(&queue, &called, Duration::MAX) => connection?,
            () = signals.received() => return Ok(ExitCode::SUCCESS),
        };
        let own = data.join("artifacts");
        let folder = self.artifacts.clone().unwrap_or_else(|| own.clone());
        let choice = self.repository.choice()?;
        let repository = crate::repository::open(&folder, &choice, None)?;
        repository.sweep();
        let executor = executor(Steps {
            data: &data,
            resources: &self.resources_path,
            trust: &self.trust,
            base: Path::new("."),
            images: pairs("--image", &self.image)?,
            repository: Arc::new(repository),
            rooms: data.join("rooms"),
            logs: data.join("logs"),
        });
        let executor = executor.await?;
        let concurrency = self.concurrency.map_or_else(cores, usize::from);
        let options = WorkerOptions {
            name: name.clone(),
            concurrency,
            lease: self.lease,
            grace: self.grace,
            folder: data.clone(),
            exchange: (self.artifacts.is_none() && choice.is_none()).then_some(own),
        };
        let worker = Working::new(Arc::new(connection), executor, options);
        let worker = worker.map_err(|error| failed(&data, &error))?;
        watched.is(worker.watched());
        let stopped = async move { signals.received().await };
        let ready = || {
            crate::say(format_args!("Worker {name} takes steps, {concurrency} at once (Ctrl-C stops)"));
        };
        worker.work(stopped, ready).await?;
        drop(management);
        Ok(ExitCode::SUCCESS)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

fn usual_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "worker" } else { host }, std::process::id())
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn the_lease_that_is_told_is_the_usual_one() {
        assert_eq!(duration("15s"), Ok(dhow_argo::workers::LEASE));
    }
}
