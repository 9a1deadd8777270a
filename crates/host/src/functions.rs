//! Layotto's functions: modules that are reached by the id that they declare.
//!
//! A function is an app, and its app-id the name that it was installed under. Its module says by which id requests find
//! it; several modules may say the same one and then share its invocations by weight (`group`). A module that declares
//! none, of whatever ABI, is found by its name. Functions come from a configuration ([`Functions::configure`]) and from
//! the management API (`installed` remembers those), and are loaded anew when their files change
//! ([`Functions::refresh`]): a file that is not there yet is waited for, one that cannot be used leaves what runs in its
//! place.

pub(crate) mod group;
mod installed;

use crate::app::App;
use crate::host::Host;
use crate::module::{Module, ModuleError};
use crate::prepare::AppSpec;
use bytes::Bytes;
use dhow_artifacts::Source;
use dhow_artifacts::error::FetchError;
use dhow_blocks::grants::Grants;
use dhow_resources::layotto;
use group::Groups;
use md5::{Digest, Md5};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Mutex, Notify};

/// Functions of one host.
const MAX_FUNCTIONS: usize = 10_000;

/// Largest module that is stored.
pub const MAX_STORED: usize = 64 << 20;

/// What a function is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionSpec {
    /// Its app-id.
    pub name: String,
    /// Where its module is.
    pub source: Source,
    /// What the module's MD5 must be, in lower-case hexadecimal.
    pub md5: Option<String>,
    /// Its share of the invocations of its id, and how many instances stay when they have no work.
    pub weight: u32,
    /// Largest memory of an instance, in bytes.
    pub memory: Option<usize>,
    /// What it may do.
    pub grants: Grants,
    /// Its configuration.
    pub config: BTreeMap<String, String>,
}

/// The functions of a host, which has no other apps.
pub struct Functions {
    host: Arc<Host>,
    /// Where modules are stored that came over the network.
    store: PathBuf,
    beside: Vec<Arc<App>>,
    /// Changed by one at a time.
    known: Mutex<BTreeMap<String, Function>>,
    /// Told when other files are to be watched.
    changed: Notify,
}

struct Function {
    spec: FunctionSpec,
    /// What it was installed with; none if it stands in the configuration, so that it goes when it stands there no more.
    installed: Option<String>,
    running: Option<Running>,
    /// Why its file, as it is now, does not run.
    problem: Option<String>,
}

struct Running {
    app: Arc<App>,
    id: String,
}

/// How a function fares.
#[derive(Clone, Debug)]
pub struct FunctionState {
    /// Its app-id.
    pub name: String,
    /// The id that requests name; none before it is loaded.
    pub id: Option<String>,
    /// Where its module is.
    pub source: String,
    /// Its share of the invocations of its id.
    pub weight: u32,
    /// Counts the versions that were loaded, from 1; 0 before.
    pub version: u64,
    /// Why its file, as it is now, does not run.
    pub problem: Option<String>,
}

/// Why functions could not be changed. The texts of the first two are Layotto's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FunctionError {
    /// There is one of that id or name.
    #[error("{0} is already registered")]
    AlreadyRegistered(String),
    /// There is none of that id or name.
    #[error("{0} is not registered")]
    NotRegistered(String),
    /// The module declares another id than it is to be installed under.
    #[error("the module declares the id {declared:?}, not {name:?}: install it under that name")]
    OtherId {
        /// What it declares.
        declared: String,
        /// What it was to be.
        name: String,
    },
    /// The module cannot be had or run.
    #[error("{0}")]
    Unusable(String),
    /// The name cannot be an app-id.
    #[error(
        "{0:?} is no name of a function: expected up to 128 letters, digits, `-`, `_` and `.`, a letter first"
    )]
    BadName(String),
    /// What is installed cannot be kept, so that the next host would not have it.
    #[error("{0}")]
    NotKept(String),
    /// There are too many.
    #[error("there are {MAX_FUNCTIONS} functions already")]
    TooMany,
}

/// What became of loading a module.
enum Loaded {
    Runs(Running),
    /// Its file is not there yet.
    Absent(String),
    Unusable(String),
}

// === impl FunctionSpec ===

impl FunctionSpec {
    /// A function as Layotto's configuration or API describes it. Unless it says otherwise it may use every state store
    /// and call every other function, as with Layotto, and nothing else.
    pub fn new(function: &layotto::Function) -> FunctionSpec {
        let all = || "*".parse().into_iter().collect();
        let usual = || Grants { state: all(), invoke: all(), ..Grants::default() };
        let processors = || std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        FunctionSpec {
            name: function.name.clone(),
            source: Source::parse(&function.source),
            md5: function.md5.clone(),
            weight: function.instances.unwrap_or_else(processors),
            memory: function.memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            grants: function.grants.clone().unwrap_or_else(usual),
            config: function.config.clone(),
        }
    }
}

// === impl Functions ===

impl Functions {
    /// No functions yet. Modules that come over the network are stored in the folder `store`, which need not be there.
    /// `beside` are apps that the host has beside the functions.
    pub fn new(host: &Arc<Host>, store: PathBuf, beside: Vec<Arc<App>>) -> Arc<Functions> {
        let (known, changed) = (Mutex::default(), Notify::new());
        Arc::new(Functions { host: Arc::clone(host), store, beside, known, changed })
    }

    /// Makes these the functions of the configuration; those that were installed stay. A function whose file is not
    /// there is waited for. If one cannot be used otherwise, everything stays as it was.
    pub async fn configure(&self, specs: Vec<FunctionSpec>) -> Result<(), Vec<FunctionError>> {
        let mut known = self.known.lock().await;
        let mut next = Vec::new();
        let mut errors = Vec::new();
        for spec in &specs {
            match known.get(&spec.name) {
                Some(function) if function.installed.is_some() => {
                    errors.push(FunctionError::AlreadyRegistered(spec.name.clone()));
                }
                Some(function) if function.spec == *spec => {}
                before => {
                    let version =
                        before.and_then(|function| function.running.as_ref()).map_or(1, next_version);
                    match self.load(spec, version).await {
                        Loaded::Unusable(reason) => errors.push(FunctionError::Unusable(reason)),
                        loaded => next.push(Function::new(spec.clone(), None, loaded)),
                    }
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let names: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        known.retain(|name, function| function.installed.is_some() || names.contains(name.as_str()));
        known.extend(next.into_iter().map(|function| (function.spec.name.clone(), function)));
        self.publish(&known);
        Ok(())
    }

    /// One more function, whose name is the id that its module declares. `item` is what it was asked for with, an item of
    /// the configuration: it is installed again when the next host starts.
    pub async fn install(&self, spec: FunctionSpec, item: &str) -> Result<(), FunctionError> {
        if !is_name(&spec.name) {
            return Err(FunctionError::BadName(spec.name));
        }
        let mut known = self.known.lock().await;
        if !select(&known, &spec.name).is_empty() {
            return Err(FunctionError::AlreadyRegistered(spec.name));
        }
        if known.len() >= MAX_FUNCTIONS {
            return Err(FunctionError::TooMany);
        }
        let running = match self.load(&spec, 1).await {
            Loaded::Runs(running) if running.id == spec.name => running,
            Loaded::Runs(running) => {
                return Err(FunctionError::OtherId { declared: running.id, name: spec.name });
            }
            Loaded::Absent(reason) | Loaded::Unusable(reason) => return Err(FunctionError::Unusable(reason)),
        };
        let name = spec.name.clone();
        known.insert(name.clone(), Function::new(spec, Some(item.to_owned()), Loaded::Runs(running)));
        let remembered = self.remember(&known).await;
        match &remembered {
            Ok(()) => self.publish(&known),
            Err(_) => drop(known.remove(&name)),
        }
        remembered
    }

    /// Changes the share of the function of this name, or of all of this id.
    pub async fn update(&self, name: &str, weight: u32) -> Result<(), FunctionError> {
        let mut known = self.known.lock().await;
        let selected = select(&known, name);
        if selected.is_empty() {
            return Err(FunctionError::NotRegistered(name.to_owned()));
        }
        for name in &selected {
            if let Some(function) = known.get_mut(name) {
                function.spec.weight = weight;
            }
        }
        self.publish(&known);
        self.remember(&known).await
    }

    /// Removes the function of this name, or all of this id.
    pub async fn uninstall(&self, name: &str) -> Result<(), FunctionError> {
        let mut known = self.known.lock().await;
        let selected = select(&known, name);
        if selected.is_empty() {
            return Err(FunctionError::NotRegistered(name.to_owned()));
        }
        known.retain(|name, _| !selected.contains(name));
        self.publish(&known);
        self.remember(&known).await
    }

    /// How all functions fare, by name.
    pub async fn list(&self) -> Vec<FunctionState> {
        let known = self.known.lock().await;
        let state = |function: &Function| FunctionState {
            name: function.spec.name.clone(),
            id: function.running.as_ref().map(|running| running.id.clone()),
            source: function.spec.source.to_string(),
            weight: function.spec.weight,
            version: function.running.as_ref().map_or(0, |running| running.app.version),
            problem: function.problem.clone(),
        };
        known.values().map(state).collect()
    }

    /// Looks at all files again and loads those that changed. What cannot be used is logged, and what ran goes on.
    pub async fn refresh(&self) {
        let mut known = self.known.lock().await;
        let mut changed = false;
        for function in known.values_mut() {
            if !matches!(function.spec.source, Source::Path(_)) {
                continue;
            }
            let version = function.running.as_ref().map_or(1, next_version);
            let before = function.running.as_ref().map(|running| &running.app);
            match self.reload(&function.spec, before, version).await {
                None => function.problem = None,
                Some(Loaded::Runs(running)) => {
                    tracing::info!(
                        app_id = function.spec.name,
                        version,
                        "{} is loaded, for the id {:?}",
                        function.spec.source,
                        running.id
                    );
                    *function = Function::new(
                        function.spec.clone(),
                        function.installed.clone(),
                        Loaded::Runs(running),
                    );
                    changed = true;
                }
                Some(Loaded::Absent(reason) | Loaded::Unusable(reason)) => {
                    if function.problem.as_ref() != Some(&reason) {
                        tracing::error!(app_id = function.spec.name, "not loaded: {reason}");
                        function.problem = Some(reason);
                    }
                }
            }
        }
        if changed {
            self.publish(&known);
        }
    }

    /// The files of all functions.
    pub async fn files(&self) -> Vec<PathBuf> {
        let known = self.known.lock().await;
        let path = |function: &Function| match &function.spec.source {
            Source::Path(path) => Some(path.clone()),
            Source::Url(_) | Source::Oci(_) | Source::Stdin => None,
        };
        known.values().filter_map(path).collect()
    }

    /// Whether a function waits for its file.
    pub async fn is_waiting(&self) -> bool {
        self.known.lock().await.values().any(|function| function.running.is_none())
    }

    /// Waits until there are other files to watch.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Keeps a module under this name, for later installing; where it is. A function that has it is loaded anew.
    pub async fn keep(&self, name: &str, module: Bytes) -> Result<PathBuf, FunctionError> {
        if !is_name(name) {
            return Err(FunctionError::BadName(name.to_owned()));
        }
        let (folder, path) = (self.store.clone(), self.store.join(format!("{name}.wasm")));
        let kept = tokio::task::spawn_blocking(move || {
            Module::recognise(module.clone())?;
            write(&folder, &path, &module).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(path)
        });
        kept.await.unwrap_or_else(|panicked| Err(panicked.to_string())).map_err(FunctionError::Unusable)
    }

    /// Loads a module if it is not the one of this app.
    async fn reload(&self, spec: &FunctionSpec, before: Option<&Arc<App>>, version: u64) -> Option<Loaded> {
        let module = match Module::read(&spec.source).await {
            Ok(module) => module,
            Err(error) => return Some(Loaded::of(&error)),
        };
        let same = before.and_then(|app| app.module()).map(|module| module.program.digest);
        if same == Some(module.program.digest) {
            return None;
        }
        Some(self.prepare(spec, module, version).await)
    }

    async fn load(&self, spec: &FunctionSpec, version: u64) -> Loaded {
        match Module::read(&spec.source).await {
            Ok(module) => self.prepare(spec, module, version).await,
            Err(error) => Loaded::of(&error),
        }
    }

    async fn prepare(&self, spec: &FunctionSpec, module: Module, version: u64) -> Loaded {
        if let Some(wanted) = &spec.md5 {
            let found = hexadecimal(&Md5::digest(&module.file));
            if found != *wanted {
                return Loaded::Unusable(format!("{}: its MD5 is {found}, expected {wanted}", spec.source));
            }
        }
        let mut app = AppSpec::new(&spec.name, spec.source.clone());
        app.grants = spec.grants.clone();
        app.config = spec.config.clone();
        app.bounds.engine.memory = spec.memory.unwrap_or(app.bounds.engine.memory);
        match self.host.prepare(app, Ok(Arc::new(module)), version).await {
            Ok(app) => {
                let id = app.layotto_id().unwrap_or(&spec.name).to_owned();
                Loaded::Runs(Running { id, app })
            }
            Err(error) => Loaded::Unusable(error.to_string()),
        }
    }

    /// Makes the host have these functions.
    fn publish(&self, known: &BTreeMap<String, Function>) {
        let mut groups = Groups::default();
        let mut apps = self.beside.clone();
        for function in known.values() {
            if let Some(Running { app, id }) = &function.running {
                app.keep(function.spec.weight);
                groups.add(id, function.spec.weight, Arc::clone(app));
                apps.push(Arc::clone(app));
            }
        }
        self.host.replace_grouped(apps, groups);
        self.changed.notify_one();
    }
}

/// The names of the functions that are meant: the one of this name, else all of this id.
fn select(known: &BTreeMap<String, Function>, name: &str) -> Vec<String> {
    if known.contains_key(name) {
        return vec![name.to_owned()];
    }
    let of_id = known.iter().filter(|(_, function)| function.running.as_ref().is_some_and(|r| r.id == name));
    of_id.map(|(name, _)| name.clone()).collect()
}

fn next_version(running: &Running) -> u64 {
    running.app.version + 1
}

fn is_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.len() <= 128 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(valid)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whole or not at all.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let part = path.with_extension("part");
    let _ = std::fs::remove_file(&part);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

// === impl Function ===

impl Function {
    fn new(spec: FunctionSpec, installed: Option<String>, loaded: Loaded) -> Function {
        let (running, problem) = match loaded {
            Loaded::Runs(running) => (Some(running), None),
            Loaded::Absent(reason) | Loaded::Unusable(reason) => {
                tracing::warn!(app_id = spec.name, "waiting for its file: {reason}");
                (None, Some(reason))
            }
        };
        Function { spec, installed, running, problem }
    }
}

// === impl Loaded ===

impl Loaded {
    fn of(error: &ModuleError) -> Loaded {
        match error {
            ModuleError::Fetch(fetch) if matches!(&**fetch, FetchError::NotFound { .. }) => {
                Loaded::Absent(error.to_string())
            }
            error => Loaded::Unusable(error.to_string()),
        }
    }
}
