//! `dhow argo agent`: steps of workflows, found in the cluster itself.

use super::plugin::Steps;
use crate::Error;
use crate::signals::Signals;
use dhow_argo::agent::{Agent as Worker, AgentOptions, Shard};
use dhow_argo::kubernetes::Cluster;
use dhow_argo::kubernetes::access::{Access, Token};
use dhow_argo::kubernetes::lease::Timing;
use dhow_providers::tls::Tls;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The Lease is here when nothing says otherwise.
const LEASE_NAMESPACE: &str = "argo";

/// Run `plugin: {wasm: …}` and `http` templates of all workflows, without a pod for each workflow
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  dhow argo agent                                in a pod (deploy/argo/agent.yaml), its namespace
  dhow argo agent --all-namespaces --shard 0/3   a third of all workflows of the cluster
  dhow argo agent --kubeconfig ~/.kube/config --namespace argo
                                                 on a laptop, for a cluster elsewhere

Argo's controller (4.1 or later) has to be told to start no agents of its own:
`disableAgentPodCreation: true` in the ConfigMap workflow-controller-configmap. Of several agents
with the same --shard one works at a time, the holder of a Lease; the others take over when it is
gone.

Artifacts are kept in a folder, which all agents have to share (a volume).")]
pub(super) struct Agent {
    #[command(flatten)]
    place: Place,
    /// Namespace whose workflows are run [default: the pod's, or the context's]
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Workflows of all namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only a part of all workflows: the one with this number, from 0, of so many
    #[arg(long, value_name = "I/N", default_value = "0/1", env = "DHOW_SHARD")]
    shard: Shard,
    /// This is the only agent: use no Lease
    #[arg(long)]
    no_lease: bool,
    /// Namespace of the Lease [default: that of --namespace, else argo]
    #[arg(long, value_name = "NAME", conflicts_with = "no_lease")]
    lease_namespace: Option<String>,
    /// A Lease whose holder shows no sign of life is free after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_seconds: u64,
    /// A name that no other agent has [default: the host's name and a number]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// Templates that another agent runs (repeatable)
    #[arg(long, value_name = "KIND", value_enum)]
    leave: Vec<Leave>,
    /// How long steps may go on when it is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    drain: u64,
    /// Folder of what it remembers, of logs and of files of steps under way
    #[arg(long, value_name = "DIR", default_value = ".dhow/agent", env = "DHOW_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    steps: Steps,
}

/// Where the API server is.
#[derive(clap::Args)]
struct Place {
    /// File as kubectl has it [default in a pod: the service account]
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", conflicts_with = "server")]
    kubeconfig: Option<PathBuf>,
    /// Context of that file
    #[arg(long, value_name = "NAME", conflicts_with = "server")]
    context: Option<String>,
    /// API server, such as https://127.0.0.1:6443
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File with the token that it is told; read again when it changes
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    /// File with the authorities that its certificate is from, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", requires = "server")]
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Leave {
    /// `http` templates
    Http,
    /// Plugins that are not `wasm`; else they fail
    Plugins,
}

// === impl Agent ===

impl Agent {
    pub(super) async fn execute(self) -> Result<ExitCode, Error> {
        let access = self.place.access().map_err(Error::usage)?;
        let namespace = match self.all_namespaces {
            true => None,
            false => Some(self.namespace.clone().or_else(|| access.namespace.clone()).ok_or_else(|| {
                Error::usage("whose workflows? Name a --namespace, or use --all-namespaces".to_owned())
            })?),
        };
        let cluster = Arc::new(Cluster::new(access).map_err(Error::usage)?);
        let mut signals = Signals::listen()?;
        let runner = self.steps.runner(&self.data_dir, "dhow argo agent").await?;
        let management = self.steps.management.serve(Arc::clone(&runner) as _)?;
        let identity = self.identity.clone().unwrap_or_else(identity);
        let lease_namespace = self.lease_namespace.clone().or_else(|| namespace.clone());
        let lasts = Duration::from_secs(self.lease_seconds);
        let timing = Timing { lasts, gives_up: lasts.mul_f64(2.0 / 3.0), every: lasts.mul_f64(2.0 / 15.0) };
        let options = AgentOptions {
            shard: self.shard,
            identity: identity.clone(),
            lease: (!self.no_lease)
                .then(|| (lease_namespace.unwrap_or_else(|| LEASE_NAMESPACE.to_owned()), timing)),
            room: self.steps.room(),
            leave_http: self.leave.contains(&Leave::Http),
            leave_plugins: self.leave.contains(&Leave::Plugins),
            drain: Duration::from_secs(self.drain),
            namespace: namespace.clone(),
        };
        let shown = namespace.map_or("all namespaces".to_owned(), |name| format!("namespace {name}"));
        let worker = Worker::new(Arc::clone(&cluster), runner, &self.data_dir, options)?;
        crate::say(format_args!("Argo agent {identity} for {shown} of {} (Ctrl-C stops)", cluster.server()));
        worker.run(async move { signals.received().await }).await;
        drop(management);
        Ok(ExitCode::SUCCESS)
    }
}

/// The host's name, which is a pod's name in a pod, and a number that tells processes apart.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "dhow" } else { host.trim() };
    format!("{host}-{:08x}", fastrand::u32(..))
}

// === impl Place ===

impl Place {
    fn access(&self) -> Result<Access, String> {
        if let Some(server) = &self.server {
            let read = |file: &PathBuf| {
                std::fs::read(file).map_err(|error| format!("--ca-file {}: {error}", file.display()))
            };
            let authorities = self.ca_file.as_ref().map(read).transpose()?;
            let token = self.token_file.clone().map_or(Token::None, Token::File);
            return Ok(Access {
                server: server.clone(),
                tls: Tls { authorities, ..Tls::default() },
                token,
                namespace: None,
            });
        }
        match &self.kubeconfig {
            Some(file) => Access::kubeconfig(file, self.context.as_deref()),
            None => Access::in_cluster(),
        }
    }
}
