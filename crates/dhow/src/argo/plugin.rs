//! `dhow argo plugin`: the server beside Argo's agent.

use super::pairs;
use crate::Error;
use crate::executor::{self, executor};
use crate::repository::RepositoryArgs;
use crate::signals::Signals;
use crate::trust::TrustArgs;
use crate::workflow::queue::WorkersArgs;
use dhow_argo::plugin::Plugin as Server;
use dhow_argo::runner::StepRunner;
use dhow_argo::workers::{Remote, RemoteOptions};
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
  dhow argo plugin                          in the agent's pod: the token is where the agent leaves it
  dhow argo plugin --addr 127.0.0.1:17777 --token-file token.txt
  dhow argo plugin --workers nats://queue.argo:4222 --parallel 1000
                                            steps run where `dhow workflow worker` does

  dhow argo plugin --artifact-repository /etc/dhow/repository.yaml --artifact-secrets /etc/dhow/secrets

Artifacts are kept in the repository that the files describe, which is to be the controller's; without any, in a folder,
which every agent of a workflow has to share (a volume).")]
pub(super) struct Plugin {
    /// Where the agent finds it; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:17777", env = "DHOW_PLUGIN_ADDR")]
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
    /// Folders with Dapr resource files, for steps that may use building blocks
    #[arg(long, value_name = "DIR")]
    resources_path: Vec<PathBuf>,
    #[command(flatten)]
    workers: WorkersArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

// === impl Plugin ===

impl Plugin {
    pub(super) async fn execute(self) -> Result<ExitCode, Error> {
        let token = self.token()?;
        let runner = self.steps.runner(&self.data_dir, "dhow argo plugin").await?;
        let plugin = Server::new(runner, &self.data_dir, self.steps.parallel(), token)?;
        let listener = TcpListener::bind(self.addr)
            .await
            .map_err(|error| Error::new(format!("{}: {error}", self.addr)))?;
        let addr = listener.local_addr().unwrap_or(self.addr);
        let mut signals = Signals::listen()?;
        crate::say(format_args!("Argo executor plugin on http://{addr} (Ctrl-C stops)"));
        plugin.serve(listener, async move { signals.received().await }).await;
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
    /// How many run at once.
    pub(super) fn parallel(&self) -> usize {
        self.parallel.into()
    }

    /// What runs them, here or where workers do; the folder is made if it is not there. `name` is how the queue knows
    /// this process.
    pub(super) async fn runner(&self, data_dir: &Path, name: &str) -> Result<Arc<dyn StepRunner>, Error> {
        std::fs::create_dir_all(data_dir).map_err(|error| failed(data_dir, &error))?;
        match &self.workers.workers {
            Some(url) => self.remote(data_dir, url, name).await,
            None => self.local(data_dir).await,
        }
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
        let connection = self.workers.queue.open(url, name).await?;
        // A repository that was named is one that the workers were told of, too.
        let is_own = self.artifacts.is_none() && self.repository.choice()?.is_none();
        let options = RemoteOptions {
            base: PathBuf::from("."),
            images: pairs("--image", &self.image)?,
            artifacts: is_own.then(|| data_dir.join("artifacts")),
            logs: data_dir.join("logs"),
        };
        let remote = Remote::new(Arc::new(connection), options).map_err(|error| failed(data_dir, &error))?;
        Ok(Arc::new(remote))
    }
}

fn failed(what: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(format!("{}: {error}", what.display()))
}
