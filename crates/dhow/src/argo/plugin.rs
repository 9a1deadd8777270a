//! `dhow argo plugin`: the server beside Argo's agent.

use super::pairs;
use crate::Error;
use crate::executor::{self, executor};
use crate::repository::RepositoryArgs;
use crate::signals::Signals;
use crate::trust::TrustArgs;
use crate::workflow::health::ManagementArgs;
use crate::workflow::queue::WorkersArgs;
use dhow_argo::plugin::{Plugin as Server, Room};
use dhow_argo::runner::{Counted, StepRunner, Watched};
use dhow_argo::workers::{Awaited, RemoteOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Where Argo's agent leaves the token of a plugin.
const TOKEN: &str = "/var/run/argo/token";

/// Run as Argo's executor plugin for `plugin: {wasm: …}` templates
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  dhow argo plugin                          in the agent's pod, with the token that is there
  dhow argo plugin --addr 127.0.0.1:17777 --token-file token.txt
  dhow argo plugin --workers nats://queue.argo:4222 --parallel 1000
                                            steps run where `dhow workflow worker` does
  dhow argo plugin --artifact-repository /etc/dhow/repository.yaml \\
      --artifact-secrets /etc/dhow/secrets

Artifacts are kept in the repository that the files describe, which is to be the controller's;
without any, in a folder, which every agent of a workflow has to share (a volume).")]
pub(super) struct Plugin {
    /// Where the agent finds it; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:17777", env = "DHOW_PLUGIN_ADDR",
        value_parser = dhow_resources::units::parse_address)]
    addr: SocketAddr,
    /// File with the token that the agent has to know
    #[arg(long, value_name = "FILE", default_value = TOKEN)]
    token_file: PathBuf,
    /// Answer to whoever reaches the port
    #[arg(long, conflicts_with = "token_file")]
    no_token: bool,
    /// Folder of what it remembers, of logs and of files of steps under way
    #[arg(long, value_name = "DIR", default_value = ".dhow/plugin", env = "DHOW_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    steps: Steps,
}

/// How steps are run, by the plugin as by the agent.
#[derive(clap::Args)]
pub(super) struct Steps {
    /// Folder of artifacts [default: artifacts in the data folder]
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// A module in the place of an image that templates name (repeatable)
    #[arg(long, value_name = "IMAGE=MODULE")]
    image: Vec<String>,
    /// Steps that run at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Those and steps that wait for their turn; more are refused until there is room
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
    /// Folders with Dapr resource files, for steps that may use building blocks
    #[arg(long, value_name = "DIR")]
    resources_path: Vec<PathBuf>,
    #[command(flatten)]
    workers: WorkersArgs,
    #[command(flatten)]
    pub(super) management: ManagementArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

// === impl Plugin ===

impl Plugin {
    pub(super) async fn execute(self) -> Result<ExitCode, Error> {
        let token = self.token()?;
        let mut signals = Signals::listen()?;
        let runner = self.steps.runner(&self.data_dir, "dhow argo plugin").await?;
        let management = self.steps.management.serve(Arc::clone(&runner) as _)?;
        let plugin = Server::new(runner, &self.data_dir, self.steps.room(), token)?;
        let listener = TcpListener::bind(self.addr)
            .await
            .map_err(|error| Error::new(format!("{}: {error}", self.addr)))?;
        let addr = listener.local_addr().unwrap_or(self.addr);
        crate::say(format_args!("Argo executor plugin on http://{addr} (Ctrl-C stops)"));
        plugin.serve(listener, async move { signals.received().await }).await;
        drop(management);
        Ok(ExitCode::SUCCESS)
    }

    fn token(&self) -> Result<Option<String>, Error> {
        if self.no_token {
            return Ok(None);
        }
        let file = self.token_file.display();
        let token = std::fs::read_to_string(&self.token_file).map_err(|error| {
            Error::usage(format!("--token-file {file}: {error}; without an agent: --no-token"))
        })?;
        match token.trim() {
            "" => Err(Error::usage(format!("--token-file {file}: it is empty"))),
            token => Ok(Some(token.to_owned())),
        }
    }
}

// === impl Steps ===

impl Steps {
    /// How many there is room for.
    pub(super) fn room(&self) -> Room {
        Room { parallel: self.parallel.into(), all: usize::try_from(self.queue).unwrap_or(usize::MAX) }
    }

    /// What runs them, here or where workers do; the folder is made if it is not there. `name` is how the queue knows
    /// this process.
    pub(super) async fn runner(&self, data_dir: &Path, name: &str) -> Result<Arc<dyn StepRunner>, Error> {
        std::fs::create_dir_all(data_dir).map_err(|error| failed(data_dir, &error))?;
        let runner = match &self.workers.workers {
            Some(url) => self.remote(data_dir, url, name).await?,
            None => self.local(data_dir).await?,
        };
        Ok(Arc::new(Counted::new(runner).map_err(Error::new)?))
    }

    async fn local(&self, data_dir: &Path) -> Result<Arc<dyn StepRunner>, Error> {
        let artifacts = self.artifacts.clone().unwrap_or_else(|| data_dir.join("artifacts"));
        let repository = crate::repository::open(&artifacts, &self.repository.choice()?, None)?;
        repository.sweep();
        let executor = executor(executor::Steps {
            data: data_dir,
            resources: &self.resources_path,
            trust: &self.trust,
            base: Path::new("."),
            images: pairs("--image", &self.image)?,
            repository: Arc::new(repository),
            rooms: data_dir.join("rooms"),
            logs: data_dir.join("logs"),
        });
        Ok(executor.await?)
    }

    async fn remote(&self, data_dir: &Path, url: &str, name: &str) -> Result<Arc<dyn StepRunner>, Error> {
        self.workers.leave_trust_to_workers(&self.trust)?;
        // A repository that was named is one that the workers were told of, too.
        let is_own = self.artifacts.is_none() && self.repository.choice()?.is_none();
        let options = RemoteOptions {
            base: PathBuf::from("."),
            images: pairs("--image", &self.image)?,
            artifacts: is_own.then(|| data_dir.join("artifacts")),
            logs: data_dir.join("logs"),
        };
        std::fs::create_dir_all(&options.logs).map_err(|error| failed(&options.logs, &error))?;
        // What asks for steps is answered while the server is away.
        let remote = Awaited::begin(self.workers.queue.at(url)?, name, options).await?;
        if let Err(reason) = remote.readiness() {
            crate::say(format_args!("{reason}; steps wait until it is there"));
        }
        Ok(Arc::new(remote))
    }
}

fn failed(what: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(format!("{}: {error}", what.display()))
}
