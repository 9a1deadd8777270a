//! `dhow workflow run` and `resume`: this process runs the workflow.

use super::Data;
use super::live::Live;
use super::queue::{WorkersArgs, without_login};
use crate::Error;
use crate::argo::pairs;
use crate::executor::{self, executor};
use crate::repository::RepositoryArgs;
use crate::signals::Signals;
use crate::trust::TrustArgs;
use dhow_argo::artifacts::Artifact;
use dhow_argo::artifacts::config::RepositoryRef;
use dhow_argo::artifacts::repository::Repository;
use dhow_argo::controller::{Controller, Identity};
use dhow_argo::definition::{Definition, Objects, merge_named};
use dhow_argo::history::{Record, Request, Settings};
use dhow_argo::manifest::Manifest;
use dhow_argo::model::Parameter;
use dhow_argo::name;
use dhow_argo::node::{Phase, workflow_outputs};
use dhow_argo::ready;
use dhow_argo::run::{self, Ended, Home, Run as Running, RunError, now};
use dhow_argo::runner::StepRunner;
use dhow_argo::substitute::literal;
use dhow_argo::workers::{PATIENCE, Remote, RemoteOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Steps that wait for workers or are run by them, unless somebody says otherwise.
const REMOTE_PARALLEL: usize = 256;

/// What random names are made of: nothing that makes words or is mistaken for something else.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Run a workflow to its end
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  dhow workflow run hello.yaml
  dhow workflow run report.yaml -p month=5 --artifact data=data.csv --output results
  dhow workflow run report.yaml \\
      --artifact-repository workflow-controller-configmap.yaml,secrets.yaml
  dhow workflow run report.yaml --image ghcr.io/me/report:1=./report.wasm
                                   a module that was not pushed yet, in the place of an image
  dhow workflow run report.yaml --workers nats://queue:4222
                                   steps run on the machines where `dhow workflow worker` does

EXIT CODES
  0    it succeeded
  1    it failed
  2    the command line or the workflow is wrong
  130  interrupted: it can be resumed")]
pub(super) struct Run {
    /// The workflow's file; behind it those of the WorkflowTemplates that it refers to
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Parameter of the workflow (repeatable)
    #[arg(long, short, value_name = "NAME=VALUE")]
    parameter: Vec<String>,
    /// Artifact of the workflow, from a file or folder (repeatable)
    #[arg(long, short, value_name = "NAME=PATH")]
    artifact: Vec<String>,
    /// The template that begins
    #[arg(long, value_name = "TEMPLATE")]
    entrypoint: Option<String>,
    /// Name of this run; default: the workflow's own, or one that begins like its generateName
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A module, such as a file, in the place of an image that templates name (repeatable)
    #[arg(long, value_name = "IMAGE=MODULE")]
    image: Vec<String>,
    /// Folder that keeps the artifacts [default: workflows/artifacts in the data folder]
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Where the workflow's output artifacts are put at the end, unpacked
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Steps that run at once [default: four for each core; with --workers 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,
    /// Folders with Dapr resource files, for steps that may use building blocks; default: resources/ if it is there
    #[arg(long, value_name = "DIR")]
    resources_path: Vec<PathBuf>,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    workers: WorkersArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    data: Data,
}

/// An artifact of the command line.
struct Input {
    name: String,
    /// The file or folder.
    path: String,
    /// Under what it is kept.
    key: String,
}

/// How the steps of a workflow run.
struct Steps {
    runner: Arc<dyn StepRunner>,
    /// Artifacts.
    repository: Arc<Repository>,
    /// Where steps run elsewhere: where their artifacts come from.
    remote: Option<Arc<Remote>>,
    /// The queue that they are in.
    queue: Option<String>,
}

/// What steps of this process need.
struct Local<'a> {
    data: &'a Data,
    /// Folders of resources.
    resources: &'a [PathBuf],
    trust: &'a TrustArgs,
}

/// Go on with a workflow that was interrupted, or that waits at a suspend step
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  dhow workflow resume report-x7k2p                    from the step where it was interrupted
  dhow workflow resume report-x7k2p --node approve -p approved=yes
  dhow workflow resume report-x7k2p --all              whatever waits in it need not wait any more

When another process runs the workflow, that one goes on with it, and with all that waits if
no --node is named.")]
pub(super) struct Resume {
    /// Name of the workflow
    #[arg(value_name = "NAME")]
    name: String,
    /// Only the suspended step of this name
    #[arg(long, value_name = "STEP")]
    node: Option<String>,
    /// All suspended steps, and a workflow that is suspended as a whole
    #[arg(long, conflicts_with = "node")]
    all: bool,
    /// Value of an output parameter of the suspended step (repeatable)
    #[arg(long, short, value_name = "NAME=VALUE")]
    parameter: Vec<String>,
    /// Where the workflow's output artifacts are put at the end, unpacked
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    workers: WorkersArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    data: Data,
}

// === impl Run ===

impl Run {
    pub(super) async fn execute(self) -> Result<ExitCode, Error> {
        let usage = |error: &dyn std::fmt::Display| Error::usage(error.to_string());
        let manifest = Manifest::read(&self.files).map_err(|error| usage(&error))?;
        let mut objects = manifest.objects().map_err(|error| usage(&error))?;
        let identity = self.identity(&objects)?;
        let home = self.data.home()?;
        // There is at least one, says the command line.
        let first = self.files.first().map(PathBuf::as_path).unwrap_or(Path::new("workflow.yaml"));
        let first = std::path::absolute(first).map_err(|error| usage(&error))?;
        let base = first.parent().unwrap_or(Path::new("/")).to_owned();
        let images = pairs("--image", &self.image)?.into_iter().map(|(image, module)| {
            // On a command line paths begin where the user is.
            let is_file = !module.contains("://") && Path::new(&module).exists();
            let absolute = is_file.then(|| std::path::absolute(&module).ok()).flatten();
            (image, absolute.map_or(module, |path| path.to_string_lossy().into_owned()))
        });
        let artifacts = self.artifacts.clone().unwrap_or_else(|| home.artifacts());
        let mut choice = self.repository.choice()?;
        let own_logs = objects.workflow.pointer("/spec/archiveLogs").and_then(Value::as_bool);
        choice.archive_logs = choice.archive_logs.or(own_logs);
        let settings = Settings {
            repository: choice,
            base,
            images: images.collect(),
            artifacts: std::path::absolute(artifacts).map_err(|error| usage(&error))?,
            parallel: self.parallel.map_or_else(|| usual_parallel(&self.workers), usize::from),
            workers: self.workers.workers.as_deref().map(without_login),
        };
        let repository = repository(&settings, &objects)?;
        let inputs = self.fill_in(&mut objects, &identity)?;
        let definition = Definition::new(&objects).map_err(|error| usage(&error))?;
        ready::check(&definition).map_err(|missing| usage(&format!("{}: {missing}", first.display())))?;
        tokio::task::block_in_place(|| inputs.iter().try_for_each(|input| input.keep(&repository)))?;
        let name = identity.name.clone();
        let steps = match &self.workers.workers {
            Some(url) => {
                self.workers.leave_trust_to_workers(&self.trust)?;
                // A wrong address is told at once.
                remote(&home, &name, &settings, repository, &self.workers, url, Duration::ZERO).await?
            }
            None => {
                let local = Local { data: &self.data, resources: &self.resources_path, trust: &self.trust };
                local.steps(&home, &name, &settings, repository).await?
            }
        };
        let run = Running::begin(&home, identity, objects, settings, Arc::clone(&steps.runner))?;
        crate::say(format_args!("Workflow {name}"));
        go(run, &steps, self.output.as_deref()).await
    }

    fn identity(&self, objects: &Objects) -> Result<Identity, Error> {
        let text = |path: &str| objects.workflow.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let random = |count: usize| -> String {
            (0..count).map(|_| char::from(fastrand::choice(LETTERS).copied().unwrap_or(b'x'))).collect()
        };
        let name = match (&self.name, text("/metadata/name"), text("/metadata/generateName")) {
            (Some(name), ..) => name.clone(),
            (None, "", prefix) => format!("{prefix}{}", random(5)),
            (None, name, _) => name.to_owned(),
        };
        let field = if self.name.is_some() { "--name" } else { "metadata.name" };
        name::object(&name).map_err(|wrong| Error::usage(format!("{field}: {wrong}")))?;
        let namespace = match text("/metadata/namespace") {
            "" => "default",
            namespace => namespace,
        };
        let uid = format!("{:032x}", fastrand::u128(..));
        Ok(Identity { name, uid, namespace: namespace.to_owned(), created: now() })
    }

    /// Puts parameters, artifacts and the entrypoint of the command line into the workflow; the artifacts are to be kept
    /// before it begins.
    fn fill_in(&self, objects: &mut Objects, identity: &Identity) -> Result<Vec<Input>, Error> {
        let Some(spec) = objects.workflow.get_mut("spec") else { return Ok(Vec::new()) };
        if let (Some(entrypoint), Value::Object(spec)) = (&self.entrypoint, &mut *spec) {
            spec.insert("entrypoint".to_owned(), entrypoint.clone().into());
        }
        let parameters = pairs("--parameter", &self.parameter)?;
        let declared = names_in(spec.pointer("/arguments/parameters"));
        parameters.keys().try_for_each(|name| is_declared("parameter", name, &declared))?;
        for (name, value) in &parameters {
            let list = spec.pointer("/arguments/parameters").and_then(Value::as_array);
            let found =
                list.into_iter().flatten().find(|parameter| parameter.get("name") == Some(&json!(name)));
            let parameter = found.and_then(|found| serde_json::from_value::<Parameter>(found.clone()).ok());
            let parameter = parameter.unwrap_or_default();
            let wrong = |wrong| Error::usage(format!("--parameter {name}: {wrong}"));
            parameter.check(value).map_err(wrong)?;
        }
        let begins = spec.get("templates").and_then(Value::as_array).into_iter().flatten();
        let begins = begins.filter(|template| template.get("name") == spec.get("entrypoint"));
        let mut declared = names_in(spec.pointer("/arguments/artifacts"));
        declared.extend(begins.flat_map(|template| names_in(template.pointer("/inputs/artifacts"))));
        let (mut inputs, mut artifacts) = (Vec::new(), Vec::new());
        for (name, path) in pairs("--artifact", &self.artifact)? {
            is_declared("artifact", &name, &declared)?;
            // Names of workflows come again, and what is kept stays.
            let key = format!("{}/inputs/{}/{name}", identity.name, identity.uid);
            artifacts.push(json!({"name": name, "s3": {"key": key}, "archive": {"none": {}}}));
            inputs.push(Input { name, path, key });
        }
        if let Value::Object(spec) = spec {
            let arguments = spec.entry("arguments").or_insert_with(|| json!({}));
            // A template of somebody else's, in braces as well, is a value like any other.
            let named = parameters.into_iter();
            let named = named.map(|(name, value)| json!({"name": name, "value": literal(&value)})).collect();
            merge_named(arguments, "parameters", named);
            merge_named(arguments, "artifacts", artifacts);
        }
        Ok(inputs)
    }
}

/// The names of a list of parameters or artifacts.
fn names_in(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|entry| Some(entry.get("name")?.as_str()?.to_owned())).collect()
}

/// Whether the workflow takes what the command line gives.
fn is_declared(what: &str, name: &str, declared: &[String]) -> Result<(), Error> {
    let known: Vec<&str> = declared.iter().map(String::as_str).collect();
    if known.contains(&name) {
        return Ok(());
    }
    let near = dhow_resources::error::nearest(name, &known);
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(Error::usage(format!("--{what} {name}: the workflow has no such {what}{hint}")))
}

// === impl Input ===

impl Input {
    /// Stores it where the workflow finds it.
    fn keep(&self, repository: &Repository) -> Result<(), Error> {
        let Input { name, path, key } = self;
        let failed = |error: &dyn std::fmt::Display| Error::new(format!("--artifact {name}={path}: {error}"));
        let whole = std::path::absolute(path).map_err(|error| failed(&error))?;
        let (Some(parent), Some(file)) = (whole.parent(), whole.file_name()) else {
            return Err(failed(&"expected a file or folder"));
        };
        repository.keep(parent, &file.to_string_lossy(), key).map_err(|error| failed(&error))
    }
}

// === impl Resume ===

impl Resume {
    pub(super) async fn execute(self) -> Result<ExitCode, Error> {
        let home = self.data.home()?;
        let history = home.history()?;
        let name = &self.name;
        let find = || -> Result<Record, Error> {
            let record = history.find(name)?.ok_or_else(|| RunError::Unknown(name.clone()))?;
            match record.status.phase {
                phase if phase.is_fulfilled() => {
                    Err(Error::usage(format!("workflow {name:?} has ended: {}", phase.name())))
                }
                _ => Ok(record),
            }
        };
        let record = find()?;
        let values: Vec<_> = pairs("--parameter", &self.parameter)?.into_iter().collect();
        // An interrupted workflow goes on where it was, and that may be at a step that waits for somebody's word.
        let is_asked = self.all || self.node.is_some() || !values.is_empty();
        let request = Request::Resume { node: self.node.clone(), values };
        let lock = match home.lock(name) {
            Ok(lock) => lock,
            Err(RunError::Busy(_)) => {
                run::check(record, &request).map_err(|error| Error::usage(format!("{name}: {error}")))?;
                history.request(name, &request)?;
                crate::say(format_args!("The process that runs {name} goes on with it"));
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => return Err(error.into()),
        };
        // Another process may have gone on with it until now.
        let mut record = find()?;
        // What its workers do already is not to be done here a second time.
        let url = self.workers.workers.clone().or_else(|| record.settings.workers.clone());
        record.settings.workers = url.as_deref().map(without_login);
        let settings = record.settings.clone();
        history.settle(name, &settings)?;
        let repository = repository(&settings, &record.objects)?;
        repository.sweep();
        let steps = match &url {
            Some(url) => {
                self.workers.leave_trust_to_workers(&self.trust)?;
                // The server was there: it is waited for as while steps run.
                let steps = remote(&home, name, &settings, repository, &self.workers, url, PATIENCE).await;
                steps.map_err(|error| match &self.workers.workers {
                    Some(_) => error,
                    None => {
                        Error::new(format!("{error}; its steps are in that queue: give --workers URL again"))
                    }
                })?
            }
            None => {
                let local = Local { data: &self.data, resources: &[], trust: &self.trust };
                local.steps(&home, name, &settings, repository).await?
            }
        };
        // What was asked for while nobody was there.
        drop(history.take_requests(name)?);
        let mut run = Running::resume(history, record, Arc::clone(&steps.runner), lock)?;
        if is_asked {
            run.apply(&request).map_err(|error| Error::usage(format!("{name}: {error}")))?;
        }
        crate::say(format_args!("Workflow {name} goes on"));
        tell_what_waits(run.controller());
        go(run, &steps, self.output.as_deref()).await
    }
}

/// Says which steps wait for somebody's word, and how it is given.
fn tell_what_waits(controller: &Controller) {
    if controller.status().shutdown.is_some() {
        return;
    }
    let name = &controller.identity().name;
    if controller.is_suspended() {
        crate::say(format_args!("It is suspended. Let it begin with: dhow workflow resume {name} --all"));
    }
    let suspended = controller.suspended();
    let waiting = suspended.iter().filter(|node| !controller.goes_on_by_itself(node));
    for node in waiting.filter_map(|node| controller.node(node)) {
        let step = &node.display_name;
        crate::say(format_args!(
            "{step} waits. Let it go on with: dhow workflow resume {name} --node {step}"
        ));
    }
}

fn usual_parallel(workers: &WorkersArgs) -> usize {
    if workers.workers.is_some() {
        return REMOTE_PARALLEL;
    }
    std::thread::available_parallelism().map_or(8, |cores| cores.get() * 4)
}

fn repository(settings: &Settings, objects: &Objects) -> Result<Arc<Repository>, Error> {
    let wanted = objects.workflow.pointer("/spec/artifactRepositoryRef").cloned();
    let wanted = wanted.map(serde_json::from_value::<RepositoryRef>).transpose();
    let wanted = wanted.map_err(|error| Error::usage(format!("spec.artifactRepositoryRef: {error}")))?;
    crate::repository::open(&settings.artifacts, &settings.repository, wanted.as_ref()).map(Arc::new)
}

// === impl Local ===

impl Local<'_> {
    async fn steps(
        &self,
        home: &Home,
        workflow: &str,
        settings: &Settings,
        repository: Arc<Repository>,
    ) -> Result<Steps, Error> {
        let usual = Path::new("resources");
        let dirs = if self.resources.is_empty() && usual.is_dir() {
            vec![usual.to_owned()]
        } else {
            self.resources.to_vec()
        };
        let executor = executor(executor::Steps {
            data: &self.data.data_dir,
            resources: &dirs,
            trust: self.trust,
            base: &settings.base,
            images: settings.images.clone(),
            repository: Arc::clone(&repository),
            rooms: home.rooms(),
            logs: home.logs(workflow),
        });
        Ok(Steps { runner: executor.await?, repository, remote: None, queue: None })
    }
}

async fn remote(
    home: &Home,
    workflow: &str,
    settings: &Settings,
    repository: Arc<Repository>,
    workers: &WorkersArgs,
    url: &str,
    patience: Duration,
) -> Result<Steps, Error> {
    let connection = workers.queue.open(url, &format!("dhow workflow {workflow}"), patience).await?;
    // A folder that was named is one that the workers were told of, too.
    let is_own = settings.artifacts == std::path::absolute(home.artifacts()).unwrap_or_default()
        && settings.repository.is_none();
    let remote = Remote::new(
        Arc::new(connection),
        RemoteOptions {
            base: settings.base.clone(),
            images: settings.images.clone(),
            artifacts: is_own.then(|| settings.artifacts.clone()),
            logs: home.logs(workflow),
        },
    );
    let remote = remote.map_err(|error| Error::new(format!("the folders of the workflow: {error}")))?;
    let remote = Arc::new(remote);
    let runner = Arc::clone(&remote) as Arc<dyn StepRunner>;
    Ok(Steps { runner, repository, remote: Some(remote), queue: settings.workers.clone() })
}

/// Runs it, and shows how it goes.
async fn go(mut run: Running, steps: &Steps, output: Option<&Path>) -> Result<ExitCode, Error> {
    let mut signals = Signals::listen()?;
    let interrupted = async move { signals.received().await };
    let mut live = Live::start();
    let ended = run.go(interrupted, |controller| live.show(controller)).await;
    live.finish(run.controller());
    let name = run.controller().identity().name.clone();
    match ended? {
        Ended::Interrupted => {
            let queue = steps.queue.as_ref().map(|url| format!(" --workers {url}")).unwrap_or_default();
            crate::say(format_args!("Interrupted. Go on with: dhow workflow resume {name}{queue}"));
            Ok(ExitCode::from(130))
        }
        Ended::Done(phase) => {
            let message = &run.controller().status().message;
            let why = if message.is_empty() { String::new() } else { format!(": {message}") };
            crate::say(format_args!("Workflow {name} {}{why}", phase.name().to_lowercase()));
            tell_outputs(run.controller(), steps, output).await?;
            Ok(if phase == Phase::Succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Prints the workflow's output parameters and puts its artifacts where they are wanted.
async fn tell_outputs(controller: &Controller, steps: &Steps, output: Option<&Path>) -> Result<(), Error> {
    use std::io::Write;
    let outputs = workflow_outputs(&controller.identity().name, controller.nodes());
    {
        let mut out = std::io::stdout().lock();
        for parameter in &outputs.parameters {
            writeln!(out, "{}={}", parameter.name, parameter.value.clone().unwrap_or_default())?;
        }
    }
    let Some(folder) = output else { return Ok(()) };
    for artifact in &outputs.artifacts {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(format!("artifact {} cannot be put into {}: {error}", artifact.name, folder.display()))
        };
        if let Some(remote) = &steps.remote {
            remote.bring_home(artifact).await.map_err(|error| failed(&error))?;
        }
        let fetched = tokio::task::block_in_place(|| fetch(&steps.repository, artifact, folder));
        let path = fetched.map_err(|error| failed(&error))?;
        crate::say(format_args!("{}: {}", artifact.name, path.display()));
    }
    Ok(())
}

fn fetch(repository: &Repository, artifact: &Artifact, folder: &Path) -> Result<PathBuf, String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    repository.fetch(artifact, folder).map_err(|error| error.to_string())
}
