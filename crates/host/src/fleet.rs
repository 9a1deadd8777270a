//! The apps that a manifest or a command line describes, and what changes of them while the host runs.
//!
//! A manifest is the beginning. On top of it lie the changes of a running host: other versions of modules (`update`), and
//! other components (`components`). What lies on top stays until it is taken back or the manifest says something new: an
//! update stands for the module that the manifest had then, and goes when that one changes. What was changed is
//! remembered (`record`) and is there again after a restart.
//!
//! | file | subject |
//! |---|---|
//! | `update` | new versions: taken over, tried, watched, taken back |
//! | `configure` | from the manifest, with what lies on top |
//! | `components` | resources and bindings |
//! | `record` | what is remembered |
//!
//! Updates of different apps go on at the same time, those of one app exclude each other; a new manifest and new
//! components wait for all of them.

mod components;
mod configure;
mod record;
mod update;

pub use components::ComponentState;
pub use record::{Action, Entry, Outcome, StoreError};
pub use update::{Module as NewModule, Update, Window};

use crate::app::App;
use crate::binding::{BindError, UnknownBlock};
use crate::components::ComponentError;
use crate::host::Host;
use crate::module::{Module, ModuleError};
use crate::prepare::{AppSpec, PrepareError, Succession};
use crate::split::{Share, Split};
use crate::trust::Trust;
use async_trait::async_trait;
use bytes::Bytes;
use dhow_artifacts::Source;
use dhow_artifacts::access::Access;
use dhow_blocks::update::LiveUpdate;
use dhow_resources::error::nearest;
use dhow_resources::load::Resources;
use http::{HeaderName, HeaderValue};
use record::{Kept, KeptApp, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, watch};

/// Whoever has to wait for another change gives up after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands for the origin of a module that was sent.
pub(crate) const UPLOAD: &str = "upload";

/// Versions that are kept ready in memory to come back at once.
const READY: usize = 2;

/// The apps of a host and their changes.
pub struct Fleet {
    host: Arc<Host>,
    /// How registries are spoken with, for modules that an update names.
    access: Access,
    /// None: what is changed lasts as long as the host.
    store: Option<Arc<Store>>,
    /// Updates share it; what concerns several apps has it alone.
    gate: RwLock<()>,
    /// Who changes which app.
    under_way: parking_lot::Mutex<BTreeMap<String, String>>,
    state: Mutex<State>,
    /// Counts changes of histories, for those who wait for an outcome.
    told: watch::Sender<u64>,
    this: Weak<Fleet>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<String, Slot>,
    kept: Kept,
    /// Names of components, by which they were declared in files.
    declared: Vec<dhow_resources::component::Component>,
    subscriptions: Vec<dhow_resources::subscription::Subscription>,
}

/// One app as it runs.
#[derive(Clone)]
struct Slot {
    /// As the manifest has it.
    base: AppSpec,
    /// As it runs: perhaps with another module and other components.
    spec: AppSpec,
    app: Arc<App>,
    /// A newer version that is tried.
    candidate: Option<Candidate>,
    /// Versions that ran before, the last one first; they are prepared as the app is now.
    past: Vec<(AppSpec, Arc<App>)>,
}

#[derive(Clone)]
struct Candidate {
    spec: AppSpec,
    app: Arc<App>,
    share: Share,
}

/// Why a change was not made. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// There is no such app.
    #[error("no app {app_id:?} is here{}", nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
    UnknownApp {
        /// What was asked for.
        app_id: String,
        /// What was perhaps meant.
        nearest: Option<String>,
    },
    /// Somebody else is changing it.
    #[error("app {app_id:?} is being changed already: {by}; try again when that is done")]
    Busy {
        /// The app.
        app_id: String,
        /// Who, and what.
        by: String,
    },
    /// Something that concerns all apps takes its time.
    #[error("the host is busy with other changes; try again")]
    HostBusy,
    /// A split is open.
    #[error(
        "app {app_id:?} is split between the versions {current} and {candidate}: `dhow promote {app_id}` or `dhow \
         rollback {app_id}` comes first"
    )]
    Split {
        /// The app.
        app_id: String,
        /// What most invocations get.
        current: u64,
        /// What is tried.
        candidate: u64,
    },
    /// There is no split.
    #[error(
        "app {app_id:?} has no second version to promote: `dhow update {app_id} --weight 10% --from …` makes one"
    )]
    NoSplit {
        /// The app.
        app_id: String,
    },
    /// There is no such version.
    #[error("app {app_id:?} has no version to go back to{wanted}; it has {there}")]
    NoVersion {
        /// The app.
        app_id: String,
        /// The one that was asked for.
        wanted: String,
        /// Those that there are.
        there: String,
    },
    /// The module of a version is another one now.
    #[error(
        "app {app_id:?}: the module of version {version} is not there any more: {from} is {found}, not {digest}"
    )]
    Changed {
        /// The app.
        app_id: String,
        /// The version.
        version: u64,
        /// Where its module was.
        from: String,
        /// What is there now.
        found: String,
        /// What it was.
        digest: String,
    },
    /// Apps are bound to a component that was to go.
    #[error("apps are bound to component {component:?}: {by}; nothing changed")]
    Bound {
        /// The component.
        component: String,
        /// The apps, and how they are unbound.
        by: String,
    },
    /// The version cannot take over.
    #[error("{0}")]
    Refused(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is there already.
    #[error("{0}")]
    Exists(String),
    /// It is not there.
    #[error("{0}")]
    Missing(String),
    /// A module cannot be had or run.
    #[error("{0}")]
    Module(#[from] ModuleError),
    /// A component cannot be opened.
    #[error("{0}")]
    Component(#[from] ComponentError),
    /// An app cannot be prepared.
    #[error("{0}")]
    Prepare(#[from] PrepareError),
    /// A component is not there.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A block is not there.
    #[error(transparent)]
    Block(#[from] UnknownBlock),
    /// It cannot be remembered.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What kind of failure it is, for whoever has to tell it by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Not there.
    Missing,
    /// Not now.
    Conflict,
    /// Not so.
    Invalid,
    /// Understood, and it does not work.
    Refused,
    /// The host's own trouble.
    Internal,
}

/// Keeps others from changing an app.
struct Mark<'a> {
    fleet: &'a Fleet,
    app_id: String,
}

// === impl Fleet ===

impl Fleet {
    /// No apps yet; registries are spoken with as `access` says. With a folder what is changed is remembered there, and what was changed in an earlier life of the host
    /// is done to the resources before they are used.
    pub fn new(host: &Arc<Host>, folder: Option<&Path>, access: Access) -> Result<Arc<Fleet>, StoreError> {
        let (store, kept) = match folder {
            Some(folder) => {
                Store::open(folder.to_owned()).map(|(store, kept)| (Some(Arc::new(store)), kept))?
            }
            None => (None, Kept::default()),
        };
        let declared = host.components().declared().to_vec();
        let subscriptions = host.triggers().declared().to_vec();
        host.components().sandbox().fetch_with(access.clone());
        let fleet = Arc::new_cyclic(|this| Fleet {
            this: Weak::clone(this),
            host: Arc::clone(host),
            access,
            store,
            gate: RwLock::default(),
            under_way: parking_lot::Mutex::default(),
            state: Mutex::new(State { kept, declared, subscriptions, ..State::default() }),
            told: watch::Sender::new(0),
        });
        fleet.restore_components();
        host.serve_updates(&fleet);
        Ok(fleet)
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Decides again which modules run, as [`Host::trust_in`]. Versions that are kept ready to come back are let go: who
    /// goes back to one has it prepared and decided about anew.
    pub async fn trust_in(&self, trust: Trust) -> Vec<String> {
        let mut refused = self.host.trust_in(trust).await;
        let mut state = self.state.lock().await;
        // Versions that took over meanwhile were decided about by what was in force before.
        let apps = state.slots.values().flat_map(Slot::apps).cloned().collect();
        refused.extend(self.host.catch_up_with_trust(apps).await);
        for slot in state.slots.values_mut() {
            slot.past.clear();
        }
        refused
    }

    /// The history of an app, the oldest entry first.
    pub async fn history(&self, app_id: &str) -> Result<Vec<Entry>, FleetError> {
        let state = self.state.lock().await;
        let slot = state.slot(app_id)?;
        Ok(match state.kept.apps.get(app_id) {
            Some(kept) if !kept.history.is_empty() => kept.history.clone(),
            _ => vec![slot.beginning()],
        })
    }

    /// An entry of an app's history once its outcome is certain, or as it is after `patience`.
    pub async fn outcome(&self, app_id: &str, number: u64, patience: Duration) -> Result<Entry, FleetError> {
        let mut told = self.told.subscribe();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            told.mark_unchanged();
            let found = self.history(app_id).await?.into_iter().find(|entry| entry.number == number);
            let found = found.ok_or_else(|| {
                FleetError::Missing(format!("the history of app {app_id:?} has no entry {number}"))
            })?;
            let in_time = tokio::time::timeout_at(deadline, told.changed());
            if found.outcome != Outcome::Watched || in_time.await.is_err() {
                return Ok(found);
            }
        }
    }

    /// Waits for its turn beside other updates.
    async fn beside_others(&self) -> Result<RwLockReadGuard<'_, ()>, FleetError> {
        tokio::time::timeout(PATIENCE, self.gate.read()).await.map_err(|_| FleetError::HostBusy)
    }

    /// Keeps others from changing this app until the mark is dropped.
    fn mark(&self, app_id: &str, who: &str) -> Result<Mark<'_>, FleetError> {
        let mut under_way = self.under_way.lock();
        if let Some(by) = under_way.get(app_id) {
            return Err(FleetError::Busy { app_id: app_id.to_owned(), by: by.clone() });
        }
        under_way.insert(app_id.to_owned(), who.to_owned());
        Ok(Mark { fleet: self, app_id: app_id.to_owned() })
    }

    /// Fails if one of these versions, which are about to run, may not run by what is in force now: making one ready
    /// takes long enough for the trust to change and for a token to expire.
    async fn still_may_run(&self, apps: &[&Arc<App>]) -> Result<(), FleetError> {
        let late = apps.iter().filter(|app| !self.host.is_decided(app) || app.permit.is_over());
        for app in late {
            self.host.may_run(app).await.map_err(FleetError::Refused)?;
        }
        Ok(())
    }

    /// Remembers what is to be; only then it is done.
    async fn remember(&self, state: &mut State, next: Kept) -> Result<(), FleetError> {
        let kept = next.clone();
        self.blocking(move |store| {
            store.save(&kept)?;
            store.clean(&kept);
            Ok(())
        })
        .await?;
        state.kept = next;
        self.told.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Does something with files in a thread that may wait; nothing where nothing is kept.
    async fn blocking<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FleetError> {
        let Some(store) = self.store.clone() else { return Ok(T::default()) };
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(|panicked| FleetError::Refused(panicked.to_string()))??)
    }

    /// Makes the host run what the slots say.
    fn publish(&self, state: &State) -> Option<tokio::task::JoinHandle<()>> {
        let apps = state.slots.values().map(|slot| Arc::clone(&slot.app)).collect();
        let candidates = state.slots.values().filter_map(|slot| slot.candidate.as_ref());
        let splits =
            candidates.map(|candidate| Split::new(Arc::clone(&candidate.app), candidate.share.clone()));
        self.host.replace_split(apps, splits.collect())
    }

    /// The description of an app whose module is a version that was kept.
    fn spec_of_version(&self, base: &AppSpec, kept: &KeptApp, version: u64) -> Option<AppSpec> {
        let found = kept.versions.get(&version)?;
        Some(AppSpec {
            source: if found.from == UPLOAD {
                Source::Stdin
            } else {
                Source::parse(&found.from).with_access(&self.access)
            },
            stored: self.store.as_ref().map(|store| store.module(&found.digest)),
            ..base.clone()
        })
    }

    /// Makes an app, with the module that it is described with and which has to be this one.
    async fn prepare_again(
        &self,
        spec: &AppSpec,
        digest: &str,
        version: u64,
        succession: Succession,
    ) -> Result<Arc<App>, FleetError> {
        let stored = spec.stored.clone().map(Source::Path);
        let module = match Module::read(stored.as_ref().unwrap_or(&spec.source)).await {
            // Where it came from is asked again; a file of this machine may be anything by now.
            Err(_) if stored.is_some() && matches!(spec.source, Source::Url(_) | Source::Oci(_)) => {
                Module::read(&spec.source).await?
            }
            module => module?,
        };
        let found = module.program.digest.to_string();
        if found != digest {
            let (app_id, from) = (spec.app_id.clone(), spec.source.to_string());
            return Err(FleetError::Changed { app_id, version, from, found, digest: digest.to_owned() });
        }
        Ok(self.host.prepare_after(spec.clone(), Ok(Arc::new(module)), version, succession).await?)
    }
}

#[async_trait]
impl LiveUpdate for Fleet {
    async fn update(&self, caller: &str, app_id: &str, module: Bytes) -> Result<(), String> {
        let Some(this) = self.this.upgrade() else { return Err("the host is shutting down".to_owned()) };
        let update = Update {
            module: NewModule::Bytes(module),
            who: format!("app {caller}"),
            share: None,
            window: None,
            any_interface: false,
            any_signer: false,
        };
        Fleet::update(&this, app_id, update).await.map(drop).map_err(|error| error.to_string())
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.fleet.under_way.lock().remove(&self.app_id);
    }
}

// === impl State ===

impl State {
    fn slot(&self, app_id: &str) -> Result<&Slot, FleetError> {
        self.slots.get(app_id).ok_or_else(|| FleetError::UnknownApp {
            app_id: app_id.to_owned(),
            nearest: nearest(app_id, &self.slots.keys().map(String::as_str).collect::<Vec<_>>())
                .map(str::to_owned),
        })
    }
}

// === impl Slot ===

impl Slot {
    /// What an app's history begins with.
    fn beginning(&self) -> Entry {
        let entry = Entry::new("manifest", Action::Manifest, self.base.source.to_string());
        let age = u64::try_from(self.app.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        Entry {
            number: 1,
            time: entry.time.saturating_sub(age),
            version: self.app.version,
            digest: digest(&self.app),
            ..entry
        }
    }

    /// What runs of it.
    fn apps(&self) -> impl Iterator<Item = &Arc<App>> {
        std::iter::once(&self.app).chain(self.candidate.as_ref().map(|candidate| &candidate.app))
    }

    /// Puts another version in the place of the one that runs, which is kept ready.
    fn take_over(&mut self, spec: AppSpec, app: Arc<App>) {
        let old = (std::mem::replace(&mut self.spec, spec), std::mem::replace(&mut self.app, app));
        self.candidate = None;
        self.past.retain(|(_, past)| past.version != old.1.version && past.version != self.app.version);
        // A service that was let go does not come back; another one is started in its place.
        if old.1.service().is_none() && !old.1.permit.is_refused() {
            self.past.insert(0, old);
            self.past.truncate(READY);
        }
    }
}

// === impl FleetError ===

impl FleetError {
    /// What kind of failure it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            FleetError::UnknownApp { .. } | FleetError::Missing(_) => FailureKind::Missing,
            FleetError::Busy { .. }
            | FleetError::HostBusy
            | FleetError::Split { .. }
            | FleetError::NoSplit { .. }
            | FleetError::NoVersion { .. }
            | FleetError::Bound { .. }
            | FleetError::Exists(_) => FailureKind::Conflict,
            FleetError::Invalid(_) | FleetError::Bind(_) | FleetError::Block(_) => FailureKind::Invalid,
            FleetError::Refused(_)
            | FleetError::Component(_)
            | FleetError::Module(_)
            | FleetError::Changed { .. }
            | FleetError::Prepare(_) => FailureKind::Refused,
            FleetError::Store(_) => FailureKind::Internal,
        }
    }
}

/// The digest of an app's module.
fn digest(app: &App) -> String {
    app.module().map(|module| module.program.digest.to_string()).unwrap_or_default()
}

/// A header and its value, as `--header` and the record have them.
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), FleetError> {
    let invalid = || FleetError::Invalid(format!("{name}={value} is no header: expected NAME=VALUE"));
    let header_name = name.trim().parse().map_err(|_| invalid())?;
    Ok((header_name, value.trim().parse().map_err(|_| invalid())?))
}

/// What a resource text may hold that is added while the host runs.
fn addable(resources: &Resources) -> Result<(), FleetError> {
    let refused = [
        ("Configuration", !resources.configurations.is_empty()),
        ("HTTPEndpoint", !resources.http_endpoints.is_empty()),
        ("Resiliency", !resources.resiliencies.is_empty()),
    ];
    let kinds = refused.iter().filter(|(_, is_there)| *is_there).map(|(kind, _)| *kind);
    let kinds = kinds.chain(resources.later.iter().map(|later| later.kind.as_str()));
    let mut kinds = kinds.chain(resources.ignored.iter().map(|ignored| ignored.kind.as_str()));
    match kinds.next() {
        Some(kind) => Err(FleetError::Invalid(format!(
            "a document of kind {kind:?} cannot be added while the host runs, only Component and Subscription"
        ))),
        None if resources.components.is_empty() => Err(FleetError::Invalid(
            "there is no component in it: expected a document of kind Component".to_owned(),
        )),
        None => Ok(()),
    }
}
