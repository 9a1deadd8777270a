//! From a manifest to the apps that run, with what was changed on top of it.

use super::record::{Action, Entry, Kept, KeptApp, KeptVersion};
use super::{Candidate, Fleet, FleetError, Slot, digest};
use crate::app::App;
use crate::binding::Binding;
use crate::module::{Module, ModuleError};
use crate::prepare::{AppSpec, PrepareError, Succession};
use crate::split::Share;
use dhow_artifacts::Source;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

/// Apps that are prepared at the same time. Compiling one uses all cores; this many keep them busy while others are read
/// and linked.
pub(super) const AT_ONCE: usize = 4;

/// A module and the apps that share it: read when the first of them needs it, gone with the last.
struct Shared {
    source: Source,
    module: OnceCell<Result<Arc<Module>, ModuleError>>,
}

/// An app as it is to run.
struct Prepared {
    slot: Slot,
    is_new: bool,
    /// What runs is what the manifest says, and not what was put in its place.
    is_base: bool,
}

impl Fleet {
    /// Makes the host run these apps, with what was changed on top of them; the answer is how many are new, changed or
    /// gone. `verify` gets the apps by their ids and says what is wrong with them together; `progress` hears of each app
    /// twice, when it is begun with its id, and when it is done with none. If anything is wrong, everything stays as it
    /// was, and the errors are for people.
    pub async fn configure(
        self: &Arc<Self>,
        specs: Vec<AppSpec>,
        verify: impl FnOnce(&BTreeMap<String, Arc<App>>) -> Vec<String>,
        progress: impl Fn(Option<&str>) + Clone + Send + 'static,
    ) -> Result<usize, Vec<String>> {
        let _alone = self.gate.write().await;
        let (current, kept) = {
            let state = self.state.lock().await;
            (state.slots.clone(), Arc::new(state.kept.clone()))
        };
        // Apps of one module come one after the other, so that no more modules are held than are at work.
        let mut shares: BTreeMap<Source, Vec<AppSpec>> = BTreeMap::new();
        for spec in specs {
            shares.entry(spec.source.clone()).or_default().push(spec);
        }
        let is_first = current.is_empty();
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let mut preparing = JoinSet::new();
        for (source, specs) in shares {
            let shared = Arc::new(Shared { source, module: OnceCell::new() });
            for spec in specs {
                // The semaphore is never closed.
                let place = Arc::clone(&slots).acquire_owned().await;
                let (this, shared, kept) = (Arc::clone(self), Arc::clone(&shared), Arc::clone(&kept));
                let (known, progress) = (current.get(&spec.app_id).cloned(), progress.clone());
                // One module that is not trusted keeps the host from nothing else when it starts.
                let stands_refused =
                    known.as_ref().map_or(is_first, |slot: &Slot| slot.app.permit.is_refused());
                preparing.spawn(async move {
                    let _place = place;
                    progress(Some(&spec.app_id));
                    let prepared = this.prepare_slot(spec, &shared, known, &kept, stands_refused).await;
                    progress(None);
                    prepared
                });
            }
        }
        let mut next = BTreeMap::new();
        let mut failures = Vec::new();
        while let Some(prepared) = preparing.join_next().await {
            match prepared {
                Ok(Ok(prepared)) => {
                    next.insert(prepared.slot.base.app_id.clone(), prepared);
                }
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(panicked) => failures.push(panicked.to_string()),
            }
        }
        let is_refused = |prepared: &Prepared| prepared.slot.app.permit.is_refused();
        if is_first && failures.is_empty() && next.values().all(is_refused) {
            // A host on which nothing runs helps nobody.
            failures.extend(next.values().map(|Prepared { slot, .. }| {
                let reason = slot.app.permit.reason().unwrap_or_default();
                format!("app {:?}: {}: {reason}", slot.base.app_id, slot.spec.source)
            }));
        }
        let apps =
            next.iter().map(|(app_id, prepared)| (app_id.clone(), Arc::clone(&prepared.slot.app))).collect();
        failures.extend(verify(&apps));
        if !failures.is_empty() {
            failures.sort();
            return Err(failures);
        }
        let gone = current.keys().filter(|app_id| !next.contains_key(*app_id)).count();
        let changed = gone + next.values().filter(|prepared| prepared.is_new).count();
        self.take(next).await.map_err(|error| vec![error.to_string()])?;
        Ok(changed)
    }

    /// Runs an app that was prepared already, and no other.
    pub async fn adopt(self: &Arc<Self>, spec: AppSpec, app: Arc<App>) {
        let mut state = self.state.lock().await;
        let slot = Slot { base: spec.clone(), spec, app, candidate: None, past: Vec::new() };
        state.slots = BTreeMap::from([(slot.base.app_id.clone(), slot)]);
        self.publish(&state);
    }

    async fn take(self: &Arc<Self>, next: BTreeMap<String, Prepared>) -> Result<(), FleetError> {
        let mut state = self.state.lock().await;
        for Prepared { slot, is_new, .. } in next.values() {
            if *is_new && !slot.app.permit.is_refused() {
                self.still_may_run(&slot.apps().collect::<Vec<_>>()).await?;
            }
        }
        let mut kept = state.kept.clone();
        for (app_id, prepared) in &next {
            let Some(app) = kept.apps.get_mut(app_id) else { continue };
            if prepared.is_base {
                // The manifest has the last word when it says something new.
                (app.instead_of, app.split, app.window) = (None, None, None);
            }
            let (version, digest) = (prepared.slot.app.version, digest(&prepared.slot.app));
            let is_known = app.versions.get(&version).is_some_and(|known| known.digest == digest);
            if !app.history.is_empty() && (app.current != version || !is_known) {
                let from = prepared.slot.spec.origin();
                let kept = KeptVersion { digest: digest.clone(), from: from.clone(), before: None };
                app.add_version(version, kept);
                app.take_over(version);
                let mut entry = Entry::new("manifest", Action::Manifest, from);
                (entry.version, entry.digest) = (version, digest);
                app.add(entry);
            }
        }
        if kept != state.kept {
            self.remember(&mut state, kept).await?;
        }
        let is_first = state.slots.is_empty();
        state.slots = next.into_iter().map(|(app_id, prepared)| (app_id, prepared.slot)).collect();
        self.publish(&state);
        if is_first {
            self.watch_again(&state);
        }
        Ok(())
    }

    async fn prepare_slot(
        &self,
        base: AppSpec,
        shared: &Shared,
        known: Option<Slot>,
        kept: &Kept,
        stands_refused: bool,
    ) -> Result<Prepared, FleetError> {
        let remembered = kept.apps.get(&base.app_id);
        if let Some(app) = remembered
            && let Some(slot) = self.instead(&base, shared, known.as_ref(), app, stands_refused).await?
        {
            return Ok(slot);
        }
        let known = known.filter(|slot| slot.candidate.is_none());
        if let Some(slot) = &known
            && slot.base == base
            && !slot.app.permit.is_refused()
            && shared.is_still(&slot.app).await
        {
            return Ok(Prepared { slot: slot.clone(), is_new: false, is_base: true });
        }
        let bindings = remembered.map(|app| self.possible(&base.app_id, app)).unwrap_or_default();
        let spec = AppSpec { bindings, ..base.clone() };
        let module = shared.module().await;
        let found = module.as_ref().map(|module| module.program.digest.to_string()).ok();
        let version = match (remembered, &known) {
            (Some(app), known) if !app.history.is_empty() => {
                let same = app.versions.get(&app.current).map(|version| &version.digest);
                let is_same = known.is_none() && same.is_some() && same == found.as_ref();
                if is_same { app.current } else { app.next_version() }
            }
            (_, Some(slot)) => slot.app.version + 1,
            (_, None) => 1,
        };
        let succession = Succession { stands_refused, ..Succession::default() };
        let app = self.host.prepare_after(spec.clone(), module, version, succession).await?;
        let slot = Slot { base, spec, app, candidate: None, past: Vec::new() };
        Ok(Prepared { slot, is_new: true, is_base: true })
    }

    /// The bindings of an app, but those to components that are not there any more: the app goes without.
    fn possible(&self, app_id: &str, kept: &KeptApp) -> Vec<Binding> {
        let is_possible = |binding: &&Binding| {
            let missing =
                binding.component.as_ref().filter(|name| !self.host.components().sees(app_id, name));
            if let Some(name) = missing {
                tracing::error!(app_id, "bound to {name:?}, which is not there for it: it goes without");
            }
            missing.is_none()
        };
        kept.bindings.iter().filter(is_possible).cloned().collect()
    }

    /// The versions that stand in the place of the manifest's module, if any do and it is still what it was.
    async fn instead(
        &self,
        base: &AppSpec,
        shared: &Shared,
        known: Option<&Slot>,
        kept: &KeptApp,
        stands_refused: bool,
    ) -> Result<Option<Prepared>, FleetError> {
        let source = base.source.to_string();
        let Some(before) = kept.instead_of.as_ref().filter(|before| before.source == source) else {
            return Ok(None);
        };
        // A file that cannot be read says nothing new.
        let is_path = matches!(base.source, Source::Path(_));
        let now = match is_path {
            true => shared.module().await.ok().map(|module| module.program.digest.to_string()),
            false => None,
        };
        if is_path && now.is_some() && before.digest.is_some() && now != before.digest {
            return Ok(None);
        }
        if let Some(slot) = known.filter(|slot| slot.base == *base && !slot.app.permit.is_refused()) {
            return Ok(Some(Prepared { slot: slot.clone(), is_new: false, is_base: false }));
        }
        let again = async |version: u64, stands_refused| -> Result<Option<(AppSpec, Arc<App>)>, FleetError> {
            let Some(wanted) = kept.versions.get(&version) else { return Ok(None) };
            // What the manifest names needs no copy.
            let spec = match now.as_ref() == Some(&wanted.digest) {
                true => Some(base.clone()),
                false => self.spec_of_version(base, kept, version),
            };
            let Some(spec) = spec else { return Ok(None) };
            let spec = AppSpec { bindings: self.possible(&base.app_id, kept), ..spec };
            // A window in which it is watched goes on.
            let running = known.into_iter().flat_map(Slot::apps).find(|app| app.version == version);
            let outcomes = running.map(|app| Arc::clone(&app.outcomes));
            let succession = Succession { outcomes, stands_refused, ..Succession::default() };
            match self.prepare_again(&spec, &wanted.digest, version, succession).await {
                Ok(app) => Ok(Some((spec, app))),
                // The host runs without what it kept, rather than not at all.
                Err(error @ (FleetError::Module(_) | FleetError::Changed { .. })) => {
                    let (app_id, source) = (&base.app_id, &base.source);
                    tracing::error!(
                        app_id,
                        version,
                        "the module that was kept of it is lost: {error}; {source} runs in its place"
                    );
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let Some((spec, app)) = again(kept.current, stands_refused).await? else { return Ok(None) };
        let candidate = match &kept.split {
            Some(split) => match again(split.version, false).await {
                Err(FleetError::Prepare(error @ PrepareError::NotTrusted { .. })) if stands_refused => {
                    tracing::error!(app_id = base.app_id, "it is not tried any more: {error}");
                    None
                }
                found => found?.map(|(spec, app)| Candidate { spec, app, share: Share::of(split) }),
            },
            None => None,
        };
        // For an operator who reads the manifest; where its own module runs, there is nothing to say.
        if now.as_ref() != Some(&digest(&app)) {
            let (app_id, version, source) = (&base.app_id, app.version, &base.source);
            let what = match spec.origin() == source.to_string() {
                true => format!("an earlier module of {source} runs, to which somebody went back"),
                false => format!("an updated version runs in the place of {source}"),
            };
            tracing::info!(app_id, version, "{what}; `dhow history {app_id}` tells more");
        }
        let slot = Slot { base: base.clone(), spec, app, candidate, past: Vec::new() };
        Ok(Some(Prepared { slot, is_new: true, is_base: false }))
    }
}

// === impl Shared ===

impl Shared {
    async fn module(&self) -> Result<Arc<Module>, ModuleError> {
        self.module.get_or_init(async || Module::read(&self.source).await.map(Arc::new)).await.clone()
    }

    /// Whether the app was made of the module as it is now. What is behind a URL is taken for the same; a tag may lead
    /// elsewhere now.
    async fn is_still(&self, app: &App) -> bool {
        !matches!(self.source, Source::Path(_) | Source::Oci(_))
            || self.module().await.is_ok_and(|module| {
                app.module().is_some_and(|known| known.program.digest == module.program.digest)
            })
    }
}
