//! One step: a module, run with its inputs, and what it leaves.
//!
//! | file | subject |
//! |---|---|
//! | [`options`] | what a template says about its module |
//! | [`modules`] | modules, fetched and compiled once |
//! | `room` | the files that a step sees |
//! | `captured` | what it prints |
//! | `typed` | components that are called with values |
//! | `earlier` | `/work/input.json` and `/work/result.json` |
//!
//! The step's whole file system is a folder of its own, which is gone with it. What comes out is stored before anybody
//! hears that the step is done.

mod captured;
mod earlier;
pub mod modules;
pub mod options;
mod room;
mod typed;

use crate::artifacts::Artifact;
use crate::artifacts::interest::blocking;
use crate::artifacts::repository::Repository;
use crate::controller::{Identity, Start};
use crate::model::{Outputs, Parameter, Template};
use crate::node::{Outcome, Phase, Time};
use async_trait::async_trait;
use captured::Captured;
use dhow_blocks::grants::Denied;
use dhow_blocks::invoke::{Invocation, InvokeError, Invoker, Reply, RuntimeApi};
use dhow_blocks::scope::{Audit, Providers, Scope};
use dhow_engine::Abi;
use dhow_guest::LoadError;
use dhow_guest::step::{Output, Step};
use dhow_guest::{
    Bounds, Directory, Failure, Guest, HttpClient, Linkers, MeterError, MeterKind, Meters, Names, Ports,
    Setup, Stdio, Vms,
};
use dhow_host::Host;
use earlier::Said;
use modules::{Loaded, Modules};
use options::Options;
use room::Room;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The app-id under which steps use building blocks: what one step keeps, others find.
pub const APP_ID: &str = "workflow";

/// Longest time that a step may take when nothing says otherwise.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long storing a step's log may take.
const LOG_PATIENCE: Duration = Duration::from_secs(60);

/// Runs steps. One for a process: modules are compiled once.
pub struct Executor {
    modules: Modules,
    linkers: Arc<Linkers>,
    repository: Arc<Repository>,
    /// Folder of the files of steps under way.
    rooms: PathBuf,
    /// Folder of what steps printed.
    logs: PathBuf,
    /// Building blocks, for steps that are allowed some.
    host: Option<Arc<Host>>,
    runtime_api: Option<Arc<dyn RuntimeApi>>,
    client: Arc<HttpClient>,
    vms: Vms,
}

/// What an executor is made of.
pub struct ExecutorOptions {
    /// Modules, and the engine that compiles them.
    pub modules: Modules,
    /// Artifacts.
    pub repository: Arc<Repository>,
    /// Folder of its own, for files of steps under way.
    pub rooms: PathBuf,
    /// Folder of logs.
    pub logs: PathBuf,
    /// Building blocks.
    pub host: Option<Arc<Host>>,
    /// What answers at the steps' own Dapr endpoint.
    pub runtime_api: Option<Arc<dyn RuntimeApi>>,
}

/// No app can be invoked by a step that is allowed no building block.
struct Nobody;

/// What a step without building blocks is denied is told in the log.
struct Told;

impl Audit for Told {
    fn denied(&self, app_id: &str, denied: &Denied) {
        tracing::warn!(target: "audit", app_id, "{denied}");
    }
}

/// A step keeps no numbers.
struct NoMeters;

impl Executor {
    /// An executor; its folders are made if they are not there.
    pub fn new(options: ExecutorOptions) -> io::Result<Executor> {
        std::fs::create_dir_all(&options.rooms)?;
        crate::artifacts::repository::sweep(&options.rooms);
        std::fs::create_dir_all(&options.logs)?;
        Ok(Executor {
            modules: options.modules.sealed_by(options.host.clone()),
            linkers: Arc::default(),
            repository: options.repository,
            rooms: options.rooms,
            logs: options.logs,
            host: options.host,
            runtime_api: options.runtime_api,
            client: Arc::default(),
            vms: Vms::default(),
        })
    }

    /// Where the lines of a step are kept; the error is a pod whose name cannot be that of a file.
    pub fn log_file(&self, pod: &str) -> Result<PathBuf, String> {
        Ok(self.logs.join(crate::name::log(pod)?))
    }

    /// Modules.
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// Numbers of the host whose building blocks steps use.
    pub(crate) fn host_metrics(&self) -> String {
        let metrics = self.host.as_ref().map(|host| host.metrics().render());
        let text = metrics.and_then(Result::ok).and_then(|text| String::from_utf8(text).ok());
        text.unwrap_or_default()
    }

    /// Runs a step to its end, within its time: fetching the module and moving artifacts are part of it. Dropping the
    /// future ends it.
    pub async fn run(&self, workflow: &Identity, start: &Start, now: Time) -> Outcome {
        match self.try_run(workflow, start, now).await {
            Ok(outcome) => outcome,
            Err(message) => Outcome::error(message),
        }
    }

    /// Keeps the log of a step that ran among its artifacts, if somebody wants it there.
    async fn keep_log(&self, start: &Start, prefix: &str, outcome: &mut Outcome) {
        if !start.template.archives_logs().unwrap_or_else(|| self.repository.archives_logs()) {
            return;
        }
        let Ok(log) = self.log_file(&start.pod) else { return };
        let (repository, key) = (Arc::clone(&self.repository), format!("{prefix}/main.log"));
        let kept = blocking(move || {
            repository.put_file(&log, &key).map_err(|error| error.to_string())?;
            Ok(Artifact::log(&key))
        });
        // The step's own time may be over.
        let kept = tokio::time::timeout(LOG_PATIENCE, kept).await;
        match kept.unwrap_or_else(|_| Err(format!("it took longer than {LOG_PATIENCE:?}"))) {
            Ok(artifact) => outcome.outputs.artifacts.push(artifact),
            Err(error) => tracing::warn!("the log of {} cannot be kept as an artifact: {error}", start.pod),
        }
    }

    async fn try_run(&self, workflow: &Identity, start: &Start, now: Time) -> Result<Outcome, String> {
        let log = self.log_file(&start.pod)?;
        let limit = match start.deadline {
            Some(deadline) => Duration::from_millis(u64::try_from(deadline.saturating_sub(now)).unwrap_or(0)),
            None => LONGEST,
        };
        if limit.is_zero() {
            return Ok(late());
        }
        let until = Instant::now() + limit.min(LONGEST);
        let mut options = Options::read(&start.template.wasm_options()).map_err(|error| error.to_string())?;
        let prefix = self.repository.prefix(workflow, &start.pod, &start.template.inputs)?;
        let (image, room) = match timeout_at(until, self.prepare(workflow, start, &mut options)).await {
            Ok(prepared) => match prepared? {
                Ok(prepared) => prepared,
                Err(outcome) => return Ok(*outcome),
            },
            Err(_) => return Ok(late()),
        };
        let output = Arc::new(Captured::new(&log));
        let setup = self.setup(start, &options, &room, Arc::clone(&output)).await?;
        let (engine, inspection) = (self.modules.engine(), &image.program.inspection);
        let name = modules::shown(&options.image);
        let broken = |error: LoadError| format!("module {name}: {error}");
        let rest = until.saturating_duration_since(Instant::now());
        let ended = if inspection.abi == Abi::Step {
            let step = Step::load(engine, &self.linkers, &image.image, inspection, setup).map_err(broken)?;
            let answer = Arc::new(step).call(typed::input(workflow, start), rest).await;
            answer.map(|answer| (i32::from(answer.is_err()), Some(answer)))
        } else {
            let guest =
                Guest::load(engine, &self.linkers, &image.image, inspection, setup).map_err(broken)?;
            let ended = guest.run(&[], Stdio::Lines, Ports::new(), rest).await;
            let Some(ended) = ended else {
                return Err(format!(
                    "module {name} is no program that ends: a step needs `_start` of WASI preview 1, wasi:cli/run or \
                     dhow:step/step"
                ));
            };
            ended.map(|code| (code, None))
        };
        output.flush();
        let outcome = timeout_at(until, self.outcome(start, room, &prefix, ended, output)).await;
        let mut outcome = outcome.unwrap_or_else(|_| Ok(late()))?;
        self.keep_log(start, &prefix, &mut outcome).await;
        Ok(outcome)
    }

    /// What a step needs before it begins: its module, admitted, and its folder with its inputs. The inner error is what
    /// becomes of the step: an input that is not there, for one.
    async fn prepare(
        &self,
        workflow: &Identity,
        start: &Start,
        options: &mut Options,
    ) -> Result<Result<(Arc<Loaded>, Arc<Room>), Box<Outcome>>, String> {
        let image = self.modules.get(&options.image).await?;
        if let Some(host) = &self.host {
            let name = modules::shown(&options.image);
            let module = (image.program.digest.to_string(), options.image.clone());
            let grants = std::mem::take(&mut options.grants);
            let admitted = host.admit(APP_ID, &image.seal, module, grants).await;
            options.grants = admitted.map_err(|error| format!("module {name}: {error}"))?;
        }
        let (rooms, repository) = (self.rooms.clone(), Arc::clone(&self.repository));
        let (workflow, template, options) = (workflow.clone(), start.template.clone(), options.clone());
        let room =
            blocking(move || Room::furnish(&rooms, &repository, &workflow, &template, &options)).await?;
        Ok(room.map(|room| (image, Arc::new(room))))
    }

    /// What becomes of a step whose module has ended: its exit code, and what a typed step answered.
    async fn outcome(
        &self,
        start: &Start,
        room: Arc<Room>,
        prefix: &str,
        ended: Result<(i32, Option<Result<Output, String>>), Failure>,
        output: Arc<Captured>,
    ) -> Result<Outcome, String> {
        let (code, answer, failure) = match ended {
            Ok((code, answer)) => {
                let failure = (code != 0 && answer.is_none()).then(|| format!("Error (exit code {code})"));
                (code, answer, failure)
            }
            Err(Failure::Deadline(_)) => {
                return Ok(late());
            }
            Err(failure @ (Failure::NoRoom(_) | Failure::Host(_))) => return Err(failure.to_string()),
            Err(failure) => (-1, None, Some(failure.to_string())),
        };
        let (repository, start, prefix) = (Arc::clone(&self.repository), start.clone(), prefix.to_owned());
        let said = answer.map(typed::said).transpose()?;
        let ended = Ended { code, said, failure };
        blocking(move || leave(&repository, &room, &start, &prefix, ended, &output)).await
    }

    async fn setup(
        &self,
        start: &Start,
        options: &Options,
        room: &Room,
        output: Arc<Captured>,
    ) -> Result<Arc<Setup>, String> {
        let scope = match self.host.as_ref().filter(|_| options.needs_blocks()) {
            Some(host) => {
                let all = host.outside_scope(APP_ID).await.map_err(|error| error.to_string())?;
                Scope {
                    app_id: Arc::clone(&all.app_id),
                    namespace: Arc::clone(&all.namespace),
                    grants: options.grants.clone(),
                    audit: Arc::clone(&all.audit),
                    components: all.components.clone(),
                    config: BTreeMap::new(),
                    invoker: Arc::clone(&all.invoker),
                    updates: None,
                    policies: all.policies.clone(),
                }
            }
            None if options.needs_blocks() => {
                return Err("the step may use building blocks, and there are none here".to_owned());
            }
            None => Scope {
                app_id: APP_ID.into(),
                namespace: "default".into(),
                grants: options.grants.clone(),
                audit: Arc::new(Told),
                components: Providers::default(),
                config: BTreeMap::new(),
                invoker: Arc::new(Nobody),
                updates: None,
                policies: None,
            },
        };
        let mut args = options.command.clone();
        if args.is_empty() {
            args.push(program_name(&options.image));
        }
        args.extend(options.args.iter().cloned());
        if options.source.is_some() {
            args.push(room::SCRIPT.to_owned());
        }
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        for parameter in &start.template.inputs.parameters {
            env.insert(environment_name(&parameter.name), parameter.value.clone().unwrap_or_default());
        }
        env.insert("ARGO_NODE_ID".to_owned(), start.name.clone());
        env.insert("APP_ID".to_owned(), APP_ID.to_owned());
        env.insert("DAPR_HTTP_PORT".to_owned(), "3500".to_owned());
        env.extend(options.env.clone());
        let mut bounds = Bounds { program: LONGEST, deadline: LONGEST, ..Bounds::default() };
        if let Some(memory) = options.memory {
            bounds.engine.memory = usize::try_from(memory).unwrap_or(usize::MAX);
        }
        if let Some(requests) = options.requests {
            bounds.host_calls = requests;
        }
        Ok(Arc::new(Setup {
            scope: Arc::new(scope),
            args,
            env: env.into_iter().collect(),
            dirs: vec![Directory { host: room.folder().to_owned(), guest: "/".to_owned(), writable: true }],
            bounds,
            reuse: None,
            output,
            meters: Arc::new(NoMeters),
            vm: self.vms.vm(APP_ID),
            bindings: Vec::new(),
            runtime_api: self.runtime_api.clone(),
            runtime_authorities: ["localhost", "127.0.0.1", "[::1]"]
                .map(|host| format!("{host}:3500"))
                .to_vec(),
            names: Names::default(),
            client: Arc::clone(&self.client),
        }))
    }
}

/// How a module ended.
struct Ended {
    /// Of a program; -1 if it trapped.
    code: i32,
    /// What a typed step answered.
    said: Option<Said>,
    /// Why it did not end well; a typed step says that itself.
    failure: Option<String>,
}

/// What a step leaves: stored, and told.
fn leave(
    repository: &Repository,
    room: &Room,
    start: &Start,
    prefix: &str,
    Ended { code, said, failure }: Ended,
    output: &Captured,
) -> Result<Outcome, String> {
    let template = &start.template;
    let mut outputs = exit_code(code);
    outputs.result =
        said.as_ref().and_then(|said| said.result.clone()).or_else(|| Some(output.result(&start.name)));
    if let Some(failure) = failure {
        // As Argo's executor does: a test that fails leaves its report.
        if let Err(error) = collect(repository, room, template, prefix, None, &mut outputs) {
            tracing::warn!("outputs of {}, which failed: {error}", start.name);
        }
        return Ok(Outcome { phase: Phase::Failed, message: with_last_line(&failure, output), outputs });
    }
    let earlier = match said {
        Some(said) => Some(said),
        None => earlier::result(room)?,
    };
    if let Some(result) = earlier.as_ref().filter(|result| result.phase.is_failed()) {
        return Ok(Outcome { phase: result.phase, message: result.message.clone(), outputs });
    }
    if let Some(missing) = collect(repository, room, template, prefix, earlier.as_ref(), &mut outputs)? {
        return Ok(Outcome { phase: Phase::Error, message: missing, outputs });
    }
    Ok(Outcome {
        phase: Phase::Succeeded,
        message: earlier.map(|result| result.message).unwrap_or_default(),
        outputs,
    })
}

/// Puts what a step left into its outputs. The answer is the first thing that is missing, if anything is.
fn collect(
    repository: &Repository,
    room: &Room,
    template: &Template,
    prefix: &str,
    earlier: Option<&Said>,
    outputs: &mut Outputs,
) -> Result<Option<String>, String> {
    let mut missing = None;
    for declared in &template.outputs.parameters {
        let said = earlier.and_then(|result| result.parameters.get(&declared.name).cloned());
        let from = declared.value_from.as_ref();
        let path = from.map(|from| from.path.as_str()).unwrap_or_default();
        let default = from.and_then(|from| from.default_value.clone()).or_else(|| declared.value.clone());
        let left = match said {
            None if !path.is_empty() => room.parameter(path)?,
            said => said,
        };
        let Some(value) = left.or(default) else {
            missing.get_or_insert_with(|| match path {
                "" => format!(
                    "output parameter '{}' has no `valueFrom.path`, and the module did not say it",
                    declared.name
                ),
                path => format!("output parameter '{}': {path} does not exist", declared.name),
            });
            continue;
        };
        outputs.parameters.push(Parameter { value: Some(value), value_from: None, ..declared.clone() });
    }
    for (name, value) in earlier.iter().flat_map(|result| &result.parameters) {
        if outputs.parameters.iter().all(|known| known.name != *name) {
            let (name, value) = (name.clone(), Some(value.clone()));
            outputs.parameters.push(Parameter { name, value, ..Parameter::default() });
        }
    }
    for declared in &template.outputs.artifacts {
        let said = earlier.and_then(|said| said.artifacts.get(&declared.name).cloned());
        let path = said.or_else(|| earlier.and_then(|_| earlier::output_path(room, &declared.path)));
        let path = path.unwrap_or_else(|| declared.path.clone());
        if !room.has(&path) {
            if !declared.optional {
                missing.get_or_insert_with(|| {
                    format!(
                        "required artifact '{}' not supplied: {} does not exist",
                        declared.name, declared.path
                    )
                });
            }
            continue;
        }
        let key = format!("{prefix}/{}", declared.file_name());
        let stored = repository
            .save_output(room.root(), &path, declared, &key)
            .map_err(|error| format!("artifact '{}' cannot be saved: {error}", declared.name))?;
        outputs.artifacts.push(stored);
    }
    Ok(missing)
}

/// A parameter's name as one of a variable: `image-url` is `IMAGE_URL`.
fn environment_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect()
}

/// The last part of a path or image, without tag and ending.
fn program_name(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    let name = name.split(['@', ':', '?', '#']).next().unwrap_or(name);
    let name = name.strip_suffix(".wasm").or_else(|| name.strip_suffix(".wat")).unwrap_or(name);
    if name.is_empty() { "step".to_owned() } else { name.to_owned() }
}

fn exit_code(code: i32) -> Outputs {
    Outputs { exit_code: Some(code.to_string()), ..Outputs::default() }
}

fn with_last_line(message: &str, output: &Captured) -> String {
    match output.last_line() {
        Some(line) => format!("{message}: {line}"),
        None => message.to_owned(),
    }
}

/// What Argo says of a pod that had no more time.
fn late() -> Outcome {
    Outcome::failed("Pod was active on the node longer than the specified deadline")
}

// === impl Nobody ===

#[async_trait]
impl Invoker for Nobody {
    async fn invoke(&self, app_id: &str, _: Invocation) -> Result<Reply, InvokeError> {
        Err(InvokeError::UnknownApp { app_id: app_id.to_owned() })
    }
}

// === impl NoMeters ===

impl Meters for NoMeters {
    fn define(&self, _: MeterKind, _: &str) -> Option<u32> {
        None
    }

    fn record(&self, _: u32, _: u64) -> Result<(), MeterError> {
        Err(MeterError::Unknown)
    }

    fn increment(&self, _: u32, _: i64) -> Result<(), MeterError> {
        Err(MeterError::Unknown)
    }

    fn value(&self, _: u32) -> Result<u64, MeterError> {
        Err(MeterError::Unknown)
    }
}
