//! New versions of an app while it runs: taken over at once, tried on a part of the invocations, watched, taken back.
//!
//! A version is read, verified and compiled, and an instance is made, while the old one serves. Then the change is
//! remembered, and then the table of the host is swapped: whatever began on the old version ends on it.

use super::record::Pinned;
use super::record::{Action, Base, Entry, Kept, KeptSplit, KeptVersion, KeptWindow, Outcome};
use super::{Candidate, Fleet, FleetError, Slot, State, digest, header};
use crate::app::App;
use crate::module;
use crate::prepare::{AppSpec, Succession};
use crate::split::{Share, WHOLE};
use bytes::Bytes;
use dhow_artifacts::Source;
use dhow_artifacts::access::Access;
use dhow_engine::Abi;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at a version that is watched.
const LOOK: Duration = Duration::from_millis(200);

/// Between two questions to its health path.
const HEALTH: Duration = Duration::from_secs(1);

/// With fewer invocations nothing is said before the window is over.
const LEAST: u64 = 20;

/// Longest time that a version is watched.
const MAX_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// A new version, and how it is to take over.
#[derive(Clone, Debug)]
pub struct Update {
    /// What is to run.
    pub module: Module,
    /// Who asks.
    pub who: String,
    /// For a part of the invocations only.
    pub share: Option<Share>,
    /// Watched for a while, and taken back if it fails too often.
    pub window: Option<Window>,
    /// Also if the module speaks another interface than the one that runs.
    pub any_interface: bool,
    /// Also if the module that runs is signed, and this one is not, or as another one or by somebody else. No app can
    /// ask for that: what a token limits is not for the limited to lift.
    pub any_signer: bool,
}

/// A module that is to run.
#[derive(Clone, Debug)]
pub enum Module {
    /// It is to be read.
    From(Source),
    /// It came along.
    Bytes(Bytes),
}

// === impl Module ===

impl Module {
    /// What a command line names: a file, a URL, a reference to a registry.
    pub fn named(text: &str) -> Module {
        Module::From(Source::parse(text))
    }

    /// Whether it is a file of this machine.
    pub fn is_file(&self) -> bool {
        matches!(self, Module::From(Source::Path(_)))
    }
}

/// How long a version is watched, and how often it may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From when it takes over; at most a day.
    pub length: Duration,
    /// Of 10,000 invocations, so many may fail.
    pub max_errors: u32,
}

impl Fleet {
    /// Makes a new version run. The answer is there when it has taken over, and may still be watched then.
    pub async fn update(self: &Arc<Self>, app_id: &str, update: Update) -> Result<Entry, FleetError> {
        let _turn = self.beside_others().await?;
        let slot = self.state.lock().await.slot(app_id)?.clone();
        let _mark = self.mark(app_id, &format!("an update by {}", update.who))?;
        if slot.app.module().is_none() {
            let reason = format!("app {app_id:?} is a program outside, which the host does not run");
            return Err(FleetError::Invalid(reason));
        }
        let action = if update.share.is_some() { Action::Split } else { Action::Update };
        let from = match &update.module {
            Module::From(source) => source.to_string(),
            Module::Bytes(_) => super::UPLOAD.to_owned(),
        };
        let mut entry = Entry::new(&update.who, action, from);
        let changed = self.try_update(app_id, &update, &mut entry).await;
        if let Err(error) = &changed
            && !matches!(error, FleetError::Split { .. } | FleetError::Store(_))
        {
            (entry.outcome, entry.version, entry.note) = (Outcome::Refused, 0, error.to_string());
            tracing::warn!(app_id, who = entry.who, "not updated: {error}");
            let mut state = self.state.lock().await;
            let mut next = state.kept.clone();
            touch(&mut next, &slot).add(entry);
            self.remember(&mut state, next).await?;
        }
        changed
    }

    async fn try_update(
        self: &Arc<Self>,
        app_id: &str,
        update: &Update,
        entry: &mut Entry,
    ) -> Result<Entry, FleetError> {
        let state = self.state.lock().await;
        let slot = state.slot(app_id)?.clone();
        let version = match state.kept.apps.get(app_id) {
            Some(kept) => kept.next_version().max(slot.app.version + 1),
            None => slot.app.version + 1,
        };
        drop(state);
        if let Some(candidate) = &slot.candidate {
            let (current, candidate) = (slot.app.version, candidate.app.version);
            return Err(FleetError::Split { app_id: app_id.to_owned(), current, candidate });
        }
        let module = match &update.module {
            Module::From(source) => module::Module::read(&source.clone().with_access(&self.access)).await?,
            Module::Bytes(bytes) => module::Module::of_bytes(bytes.clone()).await?,
        };
        entry.digest = module.program.digest.to_string();
        if entry.digest == digest(&slot.app) {
            entry.version = slot.app.version;
            entry.note = "it runs already".to_owned();
            return Ok(entry.clone());
        }
        fits(&slot, module.program.inspection.abi, update)?;
        let (base, _base_kept) = self.keep_base(&slot).await;
        let source = match &update.module {
            Module::From(source) => source.clone(),
            Module::Bytes(_) => Source::Stdin,
        };
        let (wasm, digest) = (module.wasm.clone(), entry.digest.clone());
        let kept = self.blocking(move |store| store.keep(&digest, &wasm).map(Some)).await?;
        let stored = kept.as_ref().map(|kept| kept.path.clone());
        let spec = AppSpec { source, stored, ..slot.spec.clone() };
        let signer = slot.app.auditor.signer().filter(|_| !update.any_signer).cloned();
        let succession = Succession { signer, ..Succession::default() };
        let app = self.host.prepare_after(spec.clone(), Ok(Arc::new(module)), version, succession).await?;
        let before = update.share.is_none().then_some(&slot.app);
        if let Err(reason) = app.check(before).await {
            if let Some(service) = app.service() {
                service.close();
            }
            return Err(FleetError::Refused(format!(
                "app {app_id:?}: the new version is not well: {reason}"
            )));
        }
        entry.version = version;
        if let Some(share) = &update.share {
            entry.note = shown(share);
        }
        if update.window.is_some() {
            entry.outcome = Outcome::Watched;
        }
        let committed = self.commit(update, entry, spec, Arc::clone(&app), base).await;
        if committed.is_err()
            && let Some(service) = app.service()
        {
            service.close();
        }
        committed
    }

    /// Remembers the new version, and swaps the table.
    async fn commit(
        self: &Arc<Self>,
        update: &Update,
        entry: &Entry,
        spec: AppSpec,
        app: Arc<App>,
        base: Base,
    ) -> Result<Entry, FleetError> {
        let app_id = &spec.app_id.clone();
        let mut state = self.state.lock().await;
        self.still_may_run(&[&app]).await?;
        let slot = state.slot(app_id)?.clone();
        let mut next = state.kept.clone();
        let kept = touch(&mut next, &slot);
        let before = slot.app.version;
        let number = kept.add(entry.clone());
        kept.instead_of.get_or_insert(base.clone());
        match &update.share {
            Some(share) => {
                kept.split = Some(KeptSplit {
                    version: app.version,
                    weight: share.weight,
                    header: share.header.as_ref().map(|(name, value)| {
                        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    }),
                });
            }
            None => {
                kept.instead_of = (base.digest.as_ref() != Some(&entry.digest)).then_some(base);
            }
        }
        kept.window = update.window.map(|window| KeptWindow {
            version: app.version,
            entry: number,
            millis: u64::try_from(window.length.min(MAX_WINDOW).as_millis()).unwrap_or(u64::MAX),
            max_errors: window.max_errors,
            before,
        });
        let (digest, from) = (entry.digest.clone(), spec.origin());
        kept.add_version(app.version, KeptVersion { digest, from, before: None });
        if update.share.is_none() {
            kept.take_over(app.version);
        }
        let window = kept.window.clone();
        self.remember(&mut state, next).await?;
        if let Some(slot) = state.slots.get_mut(app_id) {
            match &update.share {
                Some(share) => {
                    let share = share.clone();
                    slot.candidate = Some(Candidate { spec, app: Arc::clone(&app), share });
                }
                None => slot.take_over(spec, Arc::clone(&app)),
            }
        }
        self.publish(&state);
        let (from, who, version) = (&entry.from, &entry.who, app.version);
        tracing::info!(app_id, version, who, digest = entry.digest, "updated from {from} {}", entry.note);
        if let Some(window) = window {
            tokio::spawn(watch(Arc::downgrade(self), app, window));
        }
        Ok(Entry { number, ..entry.clone() })
    }

    /// Goes back to this version, or to the one that ran before. With a split open, ends that.
    pub async fn rollback(
        self: &Arc<Self>,
        app_id: &str,
        to: Option<u64>,
        who: &str,
    ) -> Result<Entry, FleetError> {
        let _turn = self.beside_others().await?;
        self.state.lock().await.slot(app_id)?;
        let _mark = self.mark(app_id, &format!("a rollback by {who}"))?;
        self.go_back(app_id, to, Entry::new(who, Action::Rollback, String::new())).await
    }

    /// Gives the version that is tried all invocations.
    pub async fn promote(self: &Arc<Self>, app_id: &str, who: &str) -> Result<Entry, FleetError> {
        let _turn = self.beside_others().await?;
        self.state.lock().await.slot(app_id)?;
        let _mark = self.mark(app_id, &format!("a promotion by {who}"))?;
        let slot = self.state.lock().await.slot(app_id)?.clone();
        let Some(Candidate { spec, app, .. }) = slot.candidate.clone() else {
            return Err(FleetError::NoSplit { app_id: app_id.to_owned() });
        };
        app.check(Some(&slot.app)).await.map_err(|reason| not_well(app_id, app.version, &reason))?;
        let (base, _base_kept) = self.keep_base(&slot).await;
        let mut state = self.state.lock().await;
        self.host.may_run(&app).await.map_err(FleetError::Refused)?;
        let mut next = state.kept.clone();
        let kept = touch(&mut next, &slot);
        let mut entry = Entry::new(who, Action::Promote, spec.origin());
        (entry.version, entry.digest) = (app.version, digest(&app));
        kept.split = None;
        kept.take_over(app.version);
        kept.instead_of = (base.digest.as_ref() != Some(&entry.digest)).then_some(base);
        entry.number = kept.add(entry.clone());
        self.remember(&mut state, next).await?;
        if let Some(slot) = state.slots.get_mut(app_id) {
            slot.take_over(spec, app);
        }
        self.publish(&state);
        tracing::info!(app_id, version = entry.version, who, "promoted");
        Ok(entry)
    }

    async fn go_back(
        self: &Arc<Self>,
        app_id: &str,
        to: Option<u64>,
        mut entry: Entry,
    ) -> Result<Entry, FleetError> {
        let state = self.state.lock().await;
        let slot = state.slot(app_id)?.clone();
        let kept = state.kept.apps.get(app_id).cloned().unwrap_or_default();
        drop(state);
        let current = slot.app.version;
        let target = match (to, &slot.candidate) {
            (Some(version), _) => Some(version),
            (None, Some(_)) => Some(current),
            (None, None) => kept.before(current),
        };
        let known = target.filter(|version| *version == current || kept.versions.contains_key(version));
        let Some(version) = known.filter(|version| slot.candidate.is_some() || *version != current) else {
            let others: Vec<String> =
                kept.versions.keys().filter(|known| **known != current).map(u64::to_string).collect();
            return Err(FleetError::NoVersion {
                app_id: app_id.to_owned(),
                wanted: to.map(|version| format!(" as {version}")).unwrap_or_default(),
                there: match others.as_slice() {
                    [] => format!("version {current} only"),
                    others => format!("version {current}, which runs, and {}", others.join(", ")),
                },
            });
        };
        let back = match version == current {
            true => (slot.spec.clone(), Arc::clone(&slot.app)),
            false => self.earlier(&slot, &kept, version).await?,
        };
        let (base, _base_kept) = self.keep_base(&slot).await;
        (entry.version, entry.digest, entry.from) = (version, digest(&back.1), back.0.origin());
        let mut state = self.state.lock().await;
        // Who ends a split goes on with what runs.
        if version != current {
            self.host.may_run(&back.1).await.map_err(FleetError::Refused)?;
        }
        let mut next = state.kept.clone();
        let kept = touch(&mut next, &slot);
        (kept.split, kept.current) = (None, version);
        kept.instead_of = (base.digest.as_ref() != Some(&entry.digest)).then_some(base);
        if let Some(window) = kept.window.take()
            && let Some(watched) = kept.entry_mut(window.entry)
            && watched.outcome == Outcome::Watched
        {
            watched.outcome = Outcome::RolledBack;
            watched.note = match entry.note.is_empty() {
                true => format!("by {}", entry.who),
                false => entry.note.clone(),
            };
        }
        entry.number = kept.add(entry.clone());
        self.remember(&mut state, next).await?;
        if let Some(slot) = state.slots.get_mut(app_id) {
            match version == current {
                true => slot.candidate = None,
                false => slot.take_over(back.0, back.1),
            }
        }
        self.publish(&state);
        tracing::warn!(app_id, version, who = entry.who, "rolled back: {}", entry.note);
        Ok(entry)
    }

    /// A version that ran before: as it is kept ready, or made again.
    async fn earlier(
        &self,
        slot: &Slot,
        kept: &super::KeptApp,
        version: u64,
    ) -> Result<(AppSpec, Arc<App>), FleetError> {
        if let Some(ready) = slot.past.iter().find(|(_, app)| app.version == version) {
            ready
                .1
                .check(Some(&slot.app))
                .await
                .map_err(|reason| not_well(&slot.spec.app_id, version, &reason))?;
            return Ok(ready.clone());
        }
        let missing = || FleetError::NoVersion {
            app_id: slot.spec.app_id.clone(),
            wanted: format!(" as {version}"),
            there: format!("version {}", slot.app.version),
        };
        let spec = self.spec_of_version(&slot.base, kept, version).ok_or_else(missing)?;
        let spec = AppSpec { bindings: slot.spec.bindings.clone(), ..spec };
        let wanted = kept.versions.get(&version).ok_or_else(missing)?;
        let app = self.prepare_again(&spec, &wanted.digest, version, Succession::default()).await?;
        if let Err(reason) = app.check(Some(&slot.app)).await {
            if let Some(service) = app.service() {
                service.close();
            }
            return Err(not_well(&spec.app_id, version, &reason));
        }
        Ok((spec, app))
    }

    /// The manifest's module as it is now; if it is what runs, it is kept, to come back to. What a tag of a registry leads
    /// to now is not asked: what was downloaded is looked at.
    async fn keep_base(&self, slot: &Slot) -> (Base, Option<Pinned>) {
        let source = slot.base.source.to_string();
        let is_path = matches!(slot.base.source, Source::Path(_));
        let here = Access { offline: true, ..self.access.clone() };
        let module = match slot.base.source.clone().with_access(&here) {
            Source::Url(_) | Source::Stdin => None,
            here => module::Module::read(&here).await.ok(),
        };
        let Some(module) = module else { return (Base { source, digest: None }, None) };
        let found = module.program.digest.to_string();
        let mut pinned = None;
        if found == digest(&slot.app) {
            let (wasm, digest) = (module.wasm.clone(), found.clone());
            match self.blocking(move |store| store.keep(&digest, &wasm).map(Some)).await {
                Ok(kept) => pinned = kept,
                Err(error) => tracing::warn!("the module that runs is not kept to come back to: {error}"),
            }
        }
        (Base { source, digest: is_path.then_some(found) }, pinned)
    }

    /// Ends the watching of a version.
    async fn settle(&self, app_id: &str, window: &KeptWindow, note: &str) {
        let mut state = self.state.lock().await;
        let mut next = state.kept.clone();
        let Some(kept) = next.apps.get_mut(app_id) else { return };
        if kept.window.as_ref().is_some_and(|current| current.entry == window.entry) {
            kept.window = None;
        }
        let Some(entry) = kept.entry_mut(window.entry) else { return };
        if entry.outcome == Outcome::Watched {
            entry.outcome = Outcome::Done;
            let gap = if entry.note.is_empty() { "" } else { "; " };
            entry.note = format!("{}{gap}{note}", entry.note);
        }
        if let Err(error) = self.remember(&mut state, next).await {
            tracing::error!(app_id, "{error}");
        }
    }

    /// Watches the versions that were watched when the host ended; their time begins anew.
    pub(super) fn watch_again(self: &Arc<Self>, state: &State) {
        for (app_id, slot) in &state.slots {
            let Some(window) = state.kept.apps.get(app_id).and_then(|kept| kept.window.clone()) else {
                continue;
            };
            let candidate = slot.candidate.as_ref().map(|candidate| &candidate.app);
            for app in [Some(&slot.app), candidate].into_iter().flatten() {
                if app.version == window.version {
                    tokio::spawn(watch(Arc::downgrade(self), Arc::clone(app), window.clone()));
                }
            }
        }
    }
}

/// What is remembered of an app; from its first change on.
pub(super) fn touch<'a>(kept: &'a mut Kept, slot: &Slot) -> &'a mut super::KeptApp {
    let kept = kept.apps.entry(slot.base.app_id.clone()).or_default();
    if kept.history.is_empty() {
        kept.add(slot.beginning());
        kept.current = slot.app.version;
        let (digest, from) = (digest(&slot.app), slot.spec.origin());
        kept.add_version(slot.app.version, KeptVersion { digest, from, before: None });
    }
    kept
}

fn not_well(app_id: &str, version: u64, reason: &str) -> FleetError {
    FleetError::Refused(format!("app {app_id:?}: version {version} is not well: {reason}"))
}

/// Whether a module can stand in the place of the one that runs.
fn fits(slot: &Slot, abi: Abi, update: &Update) -> Result<(), FleetError> {
    let app_id = &slot.spec.app_id;
    let Some(module) = slot.app.module() else { return Ok(()) };
    let current = module.program.inspection.abi;
    let family = |abi: Abi| match abi {
        Abi::Http2 | Abi::Http3 => 0,
        Abi::Cli2 | Abi::Cli3 | Abi::Preview1 => 1,
        Abi::Events => 2,
        Abi::ProxyWasm => 3,
        Abi::Wapc => 4,
        Abi::Unknown | Abi::Step => 5,
    };
    if slot.app.is_filter() && update.share.is_some() {
        return Err(FleetError::Invalid(format!(
            "app {app_id:?} is a proxy-wasm module, which others may stand behind: it is updated as a whole, without a \
             split"
        )));
    }
    if !update.any_interface && family(abi) != family(current) {
        return Err(FleetError::Refused(format!(
            "app {app_id:?} speaks {current}, and the new module {abi}: whoever calls it would not be understood; \
             --any-interface updates it all the same"
        )));
    }
    Ok(())
}

fn shown(share: &Share) -> String {
    let mut parts = Vec::new();
    if share.weight > 0 {
        parts.push(format!("{}% of invocations", f64::from(share.weight) * 100.0 / f64::from(WHOLE)));
    }
    if let Some((name, value)) = &share.header {
        parts.push(format!("those with {name}={}", String::from_utf8_lossy(value.as_bytes())));
    }
    if parts.is_empty() { "no invocations".to_owned() } else { parts.join(", ") }
}

impl Share {
    /// What was remembered of it.
    pub(super) fn of(kept: &KeptSplit) -> Share {
        let found = kept.header.as_ref().and_then(|(name, value)| header(name, value).ok());
        Share { weight: kept.weight.min(WHOLE), header: found }
    }
}

/// Looks at a version until its time is over, and takes it back if it fails too often. The version may be made anew
/// meanwhile, with other components or routes.
async fn watch(fleet: Weak<Fleet>, app: Arc<App>, window: KeptWindow) {
    let (begun, length) = (Instant::now(), Duration::from_millis(window.millis));
    let (answered_before, failed_before) = app.outcomes.so_far();
    let app_id = Arc::clone(&app.app_id);
    drop(app);
    // Why it is to be taken back, while somebody else changes the app.
    let mut failing = None;
    let mut waits = false;
    let mut health = Instant::now();
    let mut unwell = 0;
    loop {
        let left = length.saturating_sub(begun.elapsed());
        tokio::time::sleep(if failing.is_some() { LOOK } else { LOOK.min(left) }).await;
        let Some(fleet) = fleet.upgrade() else { return };
        let Some(app) = fleet.watched(&app_id, &window).await else {
            return fleet.settle(&app_id, &window, "another change came before the time was over").await;
        };
        let is_over = begun.elapsed() >= length;
        let (answered, failed) = app.outcomes.so_far();
        let (answered, failed) = (answered - answered_before, failed - failed_before);
        let too_many = failed * u64::from(WHOLE) > answered.max(1) * u64::from(window.max_errors);
        let mut reason = failing.take();
        reason = reason.or_else(|| {
            (failed > 0 && too_many && (is_over || answered >= LEAST))
                .then(|| format!("{failed} of {answered} invocations failed"))
        });
        if reason.is_none() && (is_over || health.elapsed() >= HEALTH) {
            health = Instant::now();
            unwell = match app.is_well().await {
                Ok(()) => 0,
                Err(error) if unwell > 0 || is_over => {
                    reason = Some(error);
                    0
                }
                Err(_) => unwell + 1,
            };
        }
        match reason {
            Some(reason) => match fleet.take_back(&app_id, &window, &reason).await {
                Err(busy @ (FleetError::Busy { .. } | FleetError::HostBusy)) => {
                    if !waits {
                        tracing::warn!(
                            app_id = &*app_id,
                            "{reason}; it is rolled back as soon as it can be: {busy}"
                        );
                    }
                    (failing, waits) = (Some(reason), true);
                }
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(app_id = &*app_id, "{reason}, and it cannot be rolled back: {error}");
                    let note = format!("{reason}, and it could not be rolled back: {error}");
                    return fleet.settle(&app_id, &window, &note).await;
                }
            },
            None if is_over => {
                let note = format!("{failed} of {answered} invocations failed in {length:?}");
                return fleet.settle(&app_id, &window, &note).await;
            }
            None => {}
        }
    }
}

impl Fleet {
    /// The version that somebody wanted to be watched, as it runs now; none if another change came.
    async fn watched(&self, app_id: &str, window: &KeptWindow) -> Option<Arc<App>> {
        let state = self.state.lock().await;
        let is_open = state.kept.apps.get(app_id).is_some_and(|kept| kept.window.as_ref() == Some(window));
        let slot = state.slots.get(app_id).filter(|_| is_open)?;
        slot.apps().find(|app| app.version == window.version).cloned()
    }

    /// Goes back from a version that fails.
    async fn take_back(
        self: &Arc<Self>,
        app_id: &str,
        window: &KeptWindow,
        reason: &str,
    ) -> Result<(), FleetError> {
        let _turn = self.beside_others().await?;
        let _mark = self.mark(app_id, "its automatic rollback")?;
        // Whoever had the app before may have changed it.
        if self.watched(app_id, window).await.is_none() {
            return Ok(());
        }
        let mut entry = Entry::new("dhow", Action::Rollback, String::new());
        reason.clone_into(&mut entry.note);
        self.go_back(app_id, Some(window.before), entry).await.map(drop)
    }
}
