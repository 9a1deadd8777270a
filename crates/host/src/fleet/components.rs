//! Components and bindings that change while the host runs: added, removed, given to apps and taken from them.
//!
//! The apps that a change concerns are prepared anew, with the module that they have, and the table is swapped. What runs
//! goes on with the components that it began with; those that are not declared any more are closed when the last of it
//! has ended.

use super::configure::AT_ONCE;
use super::record::{AddedResource, Kept};
use super::update::touch;
use super::{Fleet, FleetError, Slot, State, addable, digest};
use crate::app::App;
use crate::binding::{Binding, Block};
use crate::prepare::{AppSpec, Succession};
use dhow_resources::component::Component;
use dhow_resources::error::nearest;
use dhow_resources::load::{self, Resources};
use dhow_resources::subscription::Subscription;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Apps have this long to begin and end what they receive, and invocations to end, before a component is closed.
const DRAIN: Duration = Duration::from_secs(30);

/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// A component of the host, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentState {
    /// Its name.
    pub name: String,
    /// `state.redis` and the like.
    #[serde(rename = "type")]
    pub component_type: String,
    /// The file and line that declare it.
    pub file: String,
    /// Apps that see it; empty: all.
    pub scopes: Vec<String>,
    /// It was added while the host ran.
    pub added: bool,
    /// Why it could not be opened, if it could not.
    pub failure: Option<String>,
}

/// What is declared, with all changes.
type Declared = (Vec<Component>, Vec<Subscription>);

impl Fleet {
    /// The components of the host, those of files first.
    pub async fn components(&self) -> Vec<ComponentState> {
        let state = self.state.lock().await;
        let failures = self.host.components().failures();
        let declared = self.host.components().declared();
        let components = declared.iter().map(|component| ComponentState {
            name: component.name.clone(),
            component_type: component.component_type.clone(),
            file: format!("{}:{}", component.file.display(), component.line),
            scopes: component.scopes.clone(),
            added: !state.declared.contains(component),
            failure: failures.get(&component.name).cloned(),
        });
        components.collect()
    }

    /// Declares what is in a text of resources: components, and subscriptions to them. `file` stands for its origin. A
    /// component whose name there is takes the place of that one only with `replace`. The answer is their names.
    pub async fn add_components(
        self: &Arc<Self>,
        text: &str,
        file: &Path,
        replace: bool,
    ) -> Result<Vec<String>, FleetError> {
        let parsed = load::parse(text, file).map_err(|errors| FleetError::Invalid(errors.to_string()))?;
        addable(&parsed)?;
        let known = |component: &&Component| crate::components::is_served(component);
        if let Some(strange) = parsed.components.iter().find(|component| !known(component)) {
            let (name, kind) = (&strange.name, &strange.component_type);
            return Err(FleetError::Invalid(format!(
                "component {name:?}: type {kind:?} is not part of this version of dhow"
            )));
        }
        let _alone = self.alone().await?;
        let declared = self.host.components().declared();
        let names: BTreeSet<String> =
            parsed.components.iter().map(|component| component.name.clone()).collect();
        if let Some(there) = declared.iter().find(|component| names.contains(&component.name) && !replace) {
            let (name, file, line) = (&there.name, there.file.display(), there.line);
            return Err(FleetError::Exists(format!(
                "component {name:?} is there already: {file}:{line}; --replace puts this one in its place"
            )));
        }
        let mut state = self.state.lock().await;
        let mut next = state.kept.clone();
        next.removed.retain(|name| !names.contains(name));
        next.added.push(AddedResource { text: text.to_owned(), file: file.to_owned() });
        self.change(&mut state, next, &names, &parsed).await?;
        Ok(names.into_iter().collect())
    }

    /// Takes a component away from all apps, and closes it when nobody uses it any more.
    pub async fn remove_component(self: &Arc<Self>, name: &str) -> Result<(), FleetError> {
        let _alone = self.alone().await?;
        let declared = self.host.components().declared();
        if !declared.iter().any(|component| component.name == name) {
            let names: Vec<&str> = declared.iter().map(|component| component.name.as_str()).collect();
            let near = nearest(name, &names);
            let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            return Err(FleetError::Missing(format!("there is no component {name:?}{near}")));
        }
        let mut state = self.state.lock().await;
        let bound: Vec<String> = state.slots.values().flat_map(|slot| bound_to(slot, name)).collect();
        if !bound.is_empty() {
            let by = format!("first `{}`", bound.join("`, `"));
            return Err(FleetError::Bound { component: name.to_owned(), by });
        }
        let mut next = state.kept.clone();
        next.removed.insert(name.to_owned());
        // Resources that were added for nothing but this are forgotten.
        next.added.retain(|added| match load::parse(&added.text, &added.file) {
            Ok(found) => found.components.iter().any(|component| !next.removed.contains(&component.name)),
            Err(_) => false,
        });
        self.change(&mut state, next, &BTreeSet::from([name.to_owned()]), &Resources::default()).await
    }

    /// What an app finds beside what its manifest grants.
    pub async fn bindings(&self, app_id: &str) -> Result<Vec<Binding>, FleetError> {
        let state = self.state.lock().await;
        Ok(state.slot(app_id)?.spec.bindings.clone())
    }

    /// Gives an app components, each under a name of its own: pairs of that name and the component's. With a capability,
    /// such as `keyvalue`, the names are those of its bindings, too.
    pub async fn bind(
        self: &Arc<Self>,
        app_id: &str,
        (block, capability): (Block, Option<&str>),
        names: &[(String, String)],
        who: &str,
    ) -> Result<Vec<Binding>, FleetError> {
        let bound = names.iter().map(|(name, component)| Binding {
            block,
            name: name.clone(),
            component: Some(component.clone()),
            capability: capability.map(str::to_owned),
        });
        let bound: Vec<Binding> = bound.collect();
        self.rebind(app_id, who, |slot| {
            let mut bindings = without(&slot.spec.bindings, block, names.iter().map(|(name, _)| name));
            bindings.extend(bound);
            Ok(bindings)
        })
        .await
    }

    /// Takes components from an app, by the names under which it finds them.
    pub async fn unbind(
        self: &Arc<Self>,
        app_id: &str,
        block: Block,
        names: &[String],
        who: &str,
    ) -> Result<Vec<Binding>, FleetError> {
        self.rebind(app_id, who, |slot| {
            let mut bindings = without(&slot.spec.bindings, block, names.iter());
            for name in names {
                let was_bound = slot
                    .spec
                    .bindings
                    .iter()
                    .any(|found| found.block.is_kin(block) && found.name == *name && found.component.is_some());
                if block.allows(&slot.base.grants, name) {
                    let name = name.clone();
                    bindings.push(Binding { block, name, component: None, capability: None });
                } else if !was_bound {
                    return Err(FleetError::Missing(format!(
                        "app {app_id:?} is not bound to {name:?} of the block {block}, and its manifest does not grant it"
                    )));
                }
            }
            Ok(bindings)
        })
        .await
    }

    async fn rebind(
        self: &Arc<Self>,
        app_id: &str,
        who: &str,
        change: impl FnOnce(&Slot) -> Result<Vec<Binding>, FleetError>,
    ) -> Result<Vec<Binding>, FleetError> {
        let _turn = self.beside_others().await?;
        self.state.lock().await.slot(app_id)?;
        let _mark = self.mark(app_id, &format!("a binding by {who}"))?;
        let slot = self.state.lock().await.slot(app_id)?.clone();
        let bindings = change(&slot)?;
        let mut slot = slot;
        slot.spec.bindings = bindings.clone();
        if let Some(candidate) = &mut slot.candidate {
            candidate.spec.bindings = bindings.clone();
        }
        let slot = self.renewed(slot).await?;
        let mut state = self.state.lock().await;
        self.still_may_run(&slot.apps().collect::<Vec<_>>()).await?;
        let mut next = state.kept.clone();
        touch(&mut next, &slot).bindings = bindings.clone();
        self.remember(&mut state, next).await?;
        state.slots.insert(app_id.to_owned(), slot);
        self.publish(&state);
        tracing::info!(app_id, who, "bound anew: {} bindings beside the manifest's grants", bindings.len());
        Ok(bindings)
    }

    /// Puts what was changed in an earlier life of the host on top of the resource files.
    pub(super) fn restore_components(&self) {
        let Ok(state) = self.state.try_lock() else { return };
        if state.kept.added.is_empty() && state.kept.removed.is_empty() {
            return;
        }
        for name in &state.kept.removed {
            if let Some(there) = state.declared.iter().find(|component| component.name == *name) {
                let (file, line) = (there.file.display(), there.line);
                tracing::warn!(
                    "{file}:{line}: component {name:?} was removed while the host ran; `dhow provider add {file}` brings \
                     it back"
                );
            }
        }
        let (components, subscriptions) = effective(&state, &state.kept);
        self.host.components().declare(components);
        self.host.triggers().declare(subscriptions);
    }

    async fn alone(&self) -> Result<tokio::sync::RwLockWriteGuard<'_, ()>, FleetError> {
        let alone = tokio::time::timeout(super::PATIENCE, self.gate.write()).await;
        alone.map_err(|_| FleetError::HostBusy)
    }

    /// Declares what is in `next`, where the components of these names differ, prepares the apps that it concerns, and
    /// closes what is not declared any more. On an error all is as it was.
    async fn change(
        self: &Arc<Self>,
        state: &mut State,
        next: Kept,
        names: &BTreeSet<String>,
        added: &Resources,
    ) -> Result<(), FleetError> {
        let (components, triggers) = (self.host.components(), self.host.triggers());
        let before: Declared = (components.declared().to_vec(), triggers.declared().to_vec());
        let (declared, subscriptions) = effective(state, &next);
        let concerns = |component: &&Component| names.contains(&component.name);
        let changed: Vec<Component> = before.0.iter().chain(&declared).filter(concerns).cloned().collect();
        let concerned: Vec<Slot> = state
            .slots
            .values()
            // One that was refused from the start uses nothing.
            .filter(|slot| !slot.app.permit.is_refused())
            .filter(|slot| changed.iter().any(|component| is_concerned(slot, component)))
            .cloned()
            .collect();
        let aside = components.set_aside(names);
        components.declare(declared);
        triggers.declare(subscriptions);
        let renewed = async {
            // What no app may use yet is tried all the same: a mistake is told to who makes it.
            for component in &added.components {
                components.try_open(component).await?;
            }
            let renewed: Vec<Slot> = stream::iter(concerned.clone())
                .map(|slot| self.renewed(slot))
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await?;
            self.host.refresh_outside().await.map_err(|error| FleetError::Refused(error.to_string()))?;
            self.remember(state, next).await?;
            Ok(renewed)
        };
        let renewed = match renewed.await {
            Ok(renewed) => renewed,
            Err(error) => {
                components.declare(before.0);
                triggers.declare(before.1);
                let opened = components.set_aside(names);
                components.put_back(aside);
                if let Err(error) = self.host.refresh_outside().await {
                    tracing::error!("{error}");
                }
                opened.close().await;
                return Err(error);
            }
        };
        let old = concerned.iter().flat_map(|slot| {
            let candidate = slot.candidate.as_ref().map(|candidate| Arc::clone(&candidate.app));
            std::iter::once(Arc::clone(&slot.app)).chain(candidate)
        });
        let old: Vec<Arc<App>> = old.collect();
        for slot in renewed {
            state.slots.insert(slot.base.app_id.clone(), slot);
        }
        let settled = self.publish(state);
        let listed = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::info!("components changed: {listed}; {} apps see it", concerned.len());
        let deadline = Instant::now() + DRAIN;
        if let Some(settled) = settled {
            // What cannot begin is tried again there, for longer than anybody wants to wait here.
            let _ = tokio::time::timeout_at(deadline, settled).await;
        }
        while old.iter().any(|app| app.running() > 0) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        aside.close().await;
        Ok(())
    }

    /// The same versions of an app with the components as they are declared now.
    async fn renewed(&self, mut slot: Slot) -> Result<Slot, FleetError> {
        slot.app = self.again(&slot.spec, &slot.app).await?;
        if let Some(candidate) = &mut slot.candidate {
            candidate.app = self.again(&candidate.spec, &candidate.app).await?;
        }
        // They were prepared with other components.
        slot.past.clear();
        Ok(slot)
    }

    /// The same version; a window that it is watched in goes on.
    async fn again(&self, spec: &AppSpec, app: &App) -> Result<Arc<App>, FleetError> {
        let succession = Succession { outcomes: Some(Arc::clone(&app.outcomes)), ..Succession::default() };
        self.prepare_again(spec, &digest(app), app.version, succession).await
    }
}

/// The commands that unbind an app from a component.
fn bound_to(slot: &Slot, component: &str) -> Vec<String> {
    let bindings =
        slot.spec.bindings.iter().filter(|binding| binding.component.as_deref() == Some(component));
    bindings
        .map(|binding| format!("dhow unbind {} {} {}", slot.base.app_id, binding.block, binding.name))
        .collect()
}

/// Whether a change of this component is one for the app.
fn is_concerned(slot: &Slot, component: &Component) -> bool {
    if !component.is_in_scope(&slot.spec.app_id) {
        return false;
    }
    let mentioned =
        slot.spec.bindings.iter().any(|binding| binding.component.as_ref() == Some(&component.name));
    let grants = &slot.spec.grants;
    mentioned
        || match Block::of_type(&component.component_type) {
            // The outbox of a state store publishes by itself.
            Some(Block::PubSub) => Block::PubSub.is_granted(grants) || Block::State.is_granted(grants),
            // Other components may refer to it.
            Some(Block::Secrets) | None => true,
            Some(block) => block.is_granted(grants),
        }
}

/// Bindings but those of these names.
fn without<'a>(bindings: &[Binding], block: Block, names: impl Iterator<Item = &'a String>) -> Vec<Binding> {
    let names: BTreeSet<&String> = names.collect();
    let others = bindings.iter().filter(|found| !(found.block.is_kin(block) && names.contains(&found.name)));
    others.cloned().collect()
}

/// What is declared in files, and what lies on top of it.
fn effective(state: &State, kept: &Kept) -> Declared {
    let (mut components, mut subscriptions) = (state.declared.clone(), state.subscriptions.clone());
    for added in &kept.added {
        match load::parse(&added.text, &added.file) {
            Ok(found) => {
                for component in found.components {
                    components.retain(|known| known.name != component.name);
                    components.push(component);
                }
                for subscription in found.subscriptions {
                    subscriptions.retain(|known| known.name != subscription.name);
                    subscriptions.push(subscription);
                }
            }
            Err(errors) => tracing::error!("a resource that was added cannot be read any more: {errors}"),
        }
    }
    components.retain(|component| !kept.removed.contains(&component.name));
    subscriptions.retain(|subscription| !kept.removed.contains(&subscription.pubsub_name));
    (components, subscriptions)
}
