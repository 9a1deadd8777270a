//! What starts invocations by itself: topics, input bindings, jobs.
//!
//! Each app that is there is asked what it wants ([`Triggers::refresh`]); what it wants and may have is
//! received from then on, and what it wants no longer is not. Messages go to whatever version of the app is
//! registered when they come, so a reload interrupts nothing.
//!
//! | file | subject |
//! |---|---|
//! | [`subscription`] | what an app subscribes to |
//! | [`delivery`] | one message on its way to its app |
//! | `bulk` | several messages in one request |
//! | `binding` | events of input bindings |
//! | `job` | jobs that are due |
//! | `outbox` | events of what transactions wrote |

mod binding;
mod bulk;
pub mod delivery;
mod job;
mod outbox;
pub mod subscription;

use crate::app::App;
use crate::host::Host;
use binding::Events;
use delivery::{Delivery, Sink};
use dhow_blocks::events::Running;
use dhow_blocks::grants::Ask;
use dhow_blocks::invoke::{Body, Invocation, InvokeError, Invoker, Reply, Trigger};
use dhow_blocks::pubsub::Subscribe;
use dhow_blocks::scope::{Outbox, Scope, ScopeError, delayed_owner};
use dhow_blocks::trace::TraceContext;
use dhow_resources::resiliency::defaults::{ComponentBlock, Direction};
use dhow_resources::subscription as resource;
use futures::future::join_all;
use http::{Request, StatusCode};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use subscription::{Origin, Subscription};
use tokio::sync::Mutex;

/// An app has this long to say what it subscribes to.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// An app has this long to say whether it wants the events of a binding (Dapr's default).
pub const BINDING_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two tries to begin what could not begin, at first and at most.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// An app that cannot be asked is asked this often.
const ASK_TRIES: u32 = 6;

/// An app, wherever its current version is; does not keep the host alive.
#[derive(Clone)]
pub(crate) struct Target {
    host: Weak<Host>,
    app_id: Arc<str>,
}

/// What an app's status says about an event.
enum Taken {
    /// 2xx.
    Yes,
    /// 404: it has no such path.
    Unknown,
    /// Anything else.
    No,
}

/// Everything that is received for the apps of a host.
#[derive(Default)]
pub struct Triggers {
    declared: RwLock<Arc<Vec<resource::Subscription>>>,
    running: Mutex<HashMap<Key, Box<dyn Running>>>,
    jobs: Mutex<Option<Jobs>>,
    /// For the metadata API.
    subscriptions: RwLock<BTreeMap<Arc<str>, Vec<Subscription>>>,
    /// Programs outside whose events may wait for their time.
    delaying: RwLock<BTreeSet<String>>,
    /// Apps that are not well: they get nothing until they are.
    unwell: RwLock<HashSet<Arc<str>>>,
}

/// The jobs that are being triggered: whose they are, and the triggering.
type Jobs = (Vec<String>, Box<dyn Running>);

/// What tells one received thing from another: the app, and what exactly it gets.
type Key = (Arc<str>, String);

/// Something that an app is to receive.
enum Wanted {
    Topic(Box<Subscription>),
    Binding {
        name: String,
        path: String,
    },
    /// All that have one inner topic at one broker.
    Outbox(Vec<Arc<Outbox>>),
}

/// What an app said that it wants.
struct Wishes {
    wanted: Vec<Wanted>,
    /// It could not be asked everything; what it had wanted before stays.
    partial: bool,
}

/// Why a subscription did not begin.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The component is not there, or not for this app.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The component's topic rules.
    #[error("topic {topic} is not allowed for app id {app_id}")]
    Forbidden {
        /// The topic.
        topic: String,
        /// The app.
        app_id: String,
    },
    /// The broker refused.
    #[error("{0}")]
    Provider(#[from] dhow_blocks::error::BlockError),
}

// === impl Triggers ===

impl Triggers {
    /// Nothing is received yet.
    pub fn new(declared: Vec<resource::Subscription>) -> Triggers {
        Triggers { declared: RwLock::new(Arc::new(declared)), ..Triggers::default() }
    }

    /// The subscriptions that resources declare.
    pub(crate) fn declared(&self) -> Arc<Vec<resource::Subscription>> {
        Arc::clone(&self.declared.read())
    }

    /// Declares other subscriptions; they count for apps that are asked from here on.
    pub(crate) fn declare(&self, declared: Vec<resource::Subscription>) {
        *self.declared.write() = Arc::new(declared);
    }

    /// The subscriptions in force of an app.
    pub fn subscriptions(&self, app_id: &str) -> Vec<Subscription> {
        self.subscriptions.read().get(app_id).cloned().unwrap_or_default()
    }

    /// Asks these apps what they want, begins what is new and ends what is not wanted any more. What cannot
    /// begin, because a broker is away, is tried again until it can; an app that does not answer, a few times.
    pub async fn refresh(&self, host: &Arc<Host>, mut apps: Vec<Arc<App>>) {
        let mut delay = FIRST_DELAY;
        let mut tries = 1;
        while !self.try_refresh(host, &apps, tries < ASK_TRIES).await && !host.is_stopping() {
            // Not all at once, where many hosts wait for the same broker.
            tokio::time::sleep(delay.mul_f64(0.5 + fastrand::f64())).await;
            delay = (delay * 2).min(LONGEST_DELAY);
            tries += 1;
            // A later version of an app has its own refresh.
            apps.retain(|app| host.app(&app.app_id).is_some_and(|current| Arc::ptr_eq(&current, app)));
            if apps.is_empty() {
                return;
            }
        }
    }

    /// One try; `false` when something could not begin, or an app could not be asked and is to be asked again.
    async fn try_refresh(&self, host: &Arc<Host>, apps: &[Arc<App>], ask_again: bool) -> bool {
        let wishes = join_all(apps.iter().map(|app| self.wishes(host, app))).await;
        let mut running = self.running.lock().await;
        // Whoever ends everything had the lock before.
        if host.is_stopping() {
            return true;
        }
        let mut late = false;
        for (app, Wishes { mut wanted, partial }) in apps.iter().zip(wishes) {
            // It may have fallen ill while it was asked.
            let is_well = !self.unwell.read().contains(&app.app_id);
            if !is_well {
                wanted.retain(|wanted| matches!(wanted, Wanted::Outbox(_)));
            }
            let partial = partial && is_well;
            late |= partial && ask_again;
            if !partial {
                let keep: HashSet<String> =
                    wanted.iter().map(|wanted| wanted.fingerprint(app.scope())).collect();
                end(&mut running, |key| key.0 == app.app_id && !keep.contains(&key.1)).await;
            }
            let mut in_force = Vec::new();
            for wanted in wanted {
                let key = (Arc::clone(&app.app_id), wanted.fingerprint(app.scope()));
                let began = match running.contains_key(&key) {
                    true => Ok(None),
                    false => self.begin(host, app, &wanted).await.map(Some),
                };
                match began {
                    Ok(began) => {
                        if let Some(began) = began {
                            running.insert(key, began);
                        }
                        if let Wanted::Topic(subscription) = wanted {
                            in_force.push(*subscription);
                        }
                    }
                    Err(error @ SubscribeError::Provider(_)) => {
                        late = true;
                        tracing::error!(app_id = &*app.app_id, "{wanted} cannot begin yet: {error}");
                    }
                    Err(error) => tracing::error!(app_id = &*app.app_id, "{wanted} is refused: {error}"),
                }
            }
            let mut subscriptions = self.subscriptions.write();
            let of_app = subscriptions.entry(Arc::clone(&app.app_id)).or_default();
            let identity = |subscription: &Subscription| {
                Wanted::Topic(Box::new(subscription.clone())).fingerprint(app.scope())
            };
            let known: HashSet<String> = in_force.iter().map(identity).collect();
            of_app.retain(|subscription| {
                let fingerprint = identity(subscription);
                let runs = || running.contains_key(&(Arc::clone(&app.app_id), fingerprint.clone()));
                subscription.origin == Origin::Streaming || (!known.contains(&fingerprint) && runs())
            });
            of_app.extend(in_force);
        }
        !late
    }

    /// Ends what apps receive that are not there any more, and begins the jobs of those that are.
    pub async fn settle(&self, host: &Arc<Host>) {
        let apps = host.apps();
        let here: HashSet<&Arc<str>> = apps.iter().map(|app| &app.app_id).collect();
        end(&mut *self.running.lock().await, |key| !here.contains(&key.0)).await;
        self.subscriptions.write().retain(|app_id, _| here.contains(app_id));
        let owners = apps.iter().filter(|app| !app.scope().grants.jobs.is_empty());
        let mut owners: Vec<String> = owners.map(|app| app.app_id.to_string()).collect();
        owners.extend(self.delaying.read().iter().map(|app_id| delayed_owner(app_id)));
        let mut jobs = self.jobs.lock().await;
        if jobs.as_ref().is_some_and(|(running, _)| *running == owners) {
            return;
        }
        if let Some((_, running)) = jobs.take() {
            running.stop().await;
        }
        let Some(store) = host.components().jobs().filter(|_| !owners.is_empty()) else { return };
        let handler = job::DueJobs { host: Arc::downgrade(host), metrics: host.metrics().clone() };
        match store.start(owners.clone(), Arc::new(handler)).await {
            Ok(running) => *jobs = Some((owners, running)),
            Err(error) => tracing::error!("jobs are not triggered: {error}"),
        }
    }

    /// Publishes what this app has waiting, when its time comes.
    pub async fn publish_delayed(&self, host: &Arc<Host>, app_id: &str) {
        if self.delaying.write().insert(app_id.to_owned()) {
            self.settle(host).await;
        }
    }

    /// Says whether an app is well. One that is not receives nothing until it is.
    pub async fn set_well(&self, host: &Arc<Host>, app: &Arc<App>, well: bool) {
        let changed = match well {
            true => self.unwell.write().remove(&app.app_id),
            false => self.unwell.write().insert(Arc::clone(&app.app_id)),
        };
        if changed && !self.try_refresh(host, std::slice::from_ref(app), true).await {
            // What asks whether the app is well must not wait for a broker.
            let (host, app) = (Arc::clone(host), Arc::clone(app));
            tokio::spawn(async move { host.triggers().refresh(&host, vec![app]).await });
        }
    }

    /// Begins a subscription that lives as long as what is returned. Whoever holds the scope may have one: a
    /// program outside that only subscribes is no app of the host.
    pub async fn stream(
        &self,
        host: &Arc<Host>,
        scope: &Scope,
        subscription: Subscription,
        sink: Arc<dyn Sink>,
    ) -> Result<Box<dyn Running>, SubscribeError> {
        let running = self.subscribe(host, scope, &subscription, sink).await?;
        self.subscriptions.write().entry(Arc::clone(&scope.app_id)).or_default().push(subscription);
        Ok(running)
    }

    /// A stream ended: it is not shown any more.
    pub fn stream_ended(&self, app_id: &str, pubsub: &str, topic: &str) {
        if let Some(subscriptions) = self.subscriptions.write().get_mut(app_id) {
            let is_it = |found: &Subscription| {
                found.origin == Origin::Streaming && found.pubsub == pubsub && found.topic == topic
            };
            if let Some(index) = subscriptions.iter().position(is_it) {
                subscriptions.remove(index);
            }
        }
    }

    /// Ends everything. Events under way are finished.
    pub async fn stop(&self) {
        let subscriptions = async {
            end(&mut *self.running.lock().await, |_| true).await;
        };
        let jobs = async {
            if let Some((_, jobs)) = self.jobs.lock().await.take() {
                jobs.stop().await;
            }
        };
        tokio::join!(subscriptions, jobs);
        self.subscriptions.write().clear();
    }

    async fn wishes(&self, host: &Arc<Host>, app: &Arc<App>) -> Wishes {
        let scope = app.scope();
        let mut wanted = outboxes(scope);
        let mut partial = false;
        if self.unwell.read().contains(&app.app_id) {
            return Wishes { wanted, partial };
        }
        let target = Target { host: Arc::downgrade(host), app_id: Arc::clone(&app.app_id) };
        for resource in self.declared().iter().filter(|resource| resource.is_in_scope(&app.app_id)) {
            match Subscription::declarative(resource) {
                Ok(subscription) => wanted.push(Wanted::Topic(Box::new(subscription))),
                Err(reason) => {
                    let (file, line) = (resource.file.display(), resource.line);
                    tracing::error!("{file}:{line}: {reason}");
                }
            }
        }
        // An app that may not receive anything is not asked: asking would start it.
        if !scope.grants.subscribe.is_empty() {
            match ask(&target).await {
                Ok((subscriptions, problems)) => {
                    for problem in problems {
                        tracing::error!(app_id = &*app.app_id, "{problem}");
                    }
                    wanted.extend(subscriptions.into_iter().map(|found| Wanted::Topic(Box::new(found))));
                }
                Err(reason) => {
                    partial = true;
                    tracing::error!(app_id = &*app.app_id, "{reason}");
                }
            }
        }
        for input in host.components().inputs(&scope.components) {
            let (name, path) = (input.bound.component.name.clone(), format!("/{}", input.route));
            if !scope.grants.allows(Ask::Binding(&name)) {
                continue;
            }
            match binding::wants(&target, &path, BINDING_TIMEOUT).await {
                Ok(true) => wanted.push(Wanted::Binding { name, path }),
                Ok(false) => {}
                Err(reason) => {
                    partial = true;
                    tracing::error!(app_id = &*app.app_id, binding = name, "{reason}");
                }
            }
        }
        Wishes { wanted, partial }
    }

    async fn begin(
        &self,
        host: &Arc<Host>,
        app: &Arc<App>,
        wanted: &Wanted,
    ) -> Result<Box<dyn Running>, SubscribeError> {
        let target = Target { host: Arc::downgrade(host), app_id: Arc::clone(&app.app_id) };
        match wanted {
            Wanted::Topic(subscription) => {
                let Subscription { pubsub, topic, bulk, .. } = &**subscription;
                let sink = bulk::sink(target, pubsub, topic, *bulk);
                self.subscribe(host, app.scope(), subscription, sink).await
            }
            Wanted::Binding { name, path } => {
                let scope = app.scope();
                let Some(bound) = scope.components.bindings.get(name) else {
                    let block = dhow_blocks::scope::Block::Binding;
                    return Err(ScopeError::NotFound { block, name: name.clone() }.into());
                };
                let resiliency = host.components().resiliency();
                let events = Events {
                    target,
                    scope: Arc::clone(scope),
                    name: name.clone(),
                    path: path.clone(),
                    policy: resiliency.component(
                        &app.app_id,
                        name,
                        ComponentBlock::Binding,
                        Direction::Inbound,
                    ),
                    meter: host.metrics().component("input_binding", &app.app_id, name),
                };
                Ok(bound.provider.read(Arc::new(events)).await?)
            }
            Wanted::Outbox(outboxes) => {
                let not_here = ScopeError::NotConfigured { block: dhow_blocks::scope::Block::State };
                let outbox = outboxes.first().ok_or(not_here)?;
                let subscribe = Subscribe {
                    topic: outbox.inner_topic.clone(),
                    consumer: app.app_id.to_string(),
                    ..Subscribe::default()
                };
                let passing = outbox::Passing { host: target.host, outboxes: outboxes.clone() };
                Ok(outbox.inner.provider.subscribe(subscribe, Arc::new(passing)).await?)
            }
        }
    }

    async fn subscribe(
        &self,
        host: &Arc<Host>,
        scope: &Scope,
        subscription: &Subscription,
        sink: Arc<dyn Sink>,
    ) -> Result<Box<dyn Running>, SubscribeError> {
        let Subscription { pubsub, topic, .. } = subscription;
        let binding = scope.pubsub(pubsub)?;
        scope.check(Ask::Subscribe { pubsub, topic }).map_err(ScopeError::from)?;
        if !binding.topics.may_subscribe(topic) {
            let (topic, app_id) = (topic.clone(), scope.app_id.to_string());
            return Err(SubscribeError::Forbidden { topic, app_id });
        }
        let resiliency = host.components().resiliency();
        let delivery = Delivery {
            target: Target { host: Arc::downgrade(host), app_id: Arc::clone(&scope.app_id) },
            broker: Arc::clone(&binding.bound.provider),
            policy: resiliency.component(&scope.app_id, pubsub, ComponentBlock::Pubsub, Direction::Inbound),
            sink,
            meter: host.metrics().component("pubsub_ingress", &scope.app_id, pubsub),
            subscription: subscription.clone(),
        };
        let subscribe = Subscribe {
            topic: topic.clone(),
            consumer: binding.consumer.clone(),
            metadata: subscription.metadata.clone(),
        };
        Ok(binding.bound.provider.subscribe(subscribe, Arc::new(delivery)).await?)
    }
}

/// Ends what is received under these keys.
async fn end(running: &mut HashMap<Key, Box<dyn Running>>, which: impl Fn(&Key) -> bool) {
    let ended: Vec<Box<dyn Running>> =
        running.extract_if(|key, _| which(key)).map(|(_, running)| running).collect();
    join_all(ended.into_iter().map(|running| running.stop())).await;
}

/// The outboxes of an app, by inner topic.
fn outboxes(scope: &Scope) -> Vec<Wanted> {
    let mut groups: BTreeMap<(&str, &str), Vec<Arc<Outbox>>> = BTreeMap::new();
    for (name, state) in &scope.components.state {
        if let Some(outbox) = state.outbox.as_ref().filter(|_| scope.grants.allows(Ask::State(name))) {
            let group = (outbox.inner.component.name.as_str(), outbox.inner_topic.as_str());
            groups.entry(group).or_default().push(Arc::clone(outbox));
        }
    }
    groups.into_values().map(Wanted::Outbox).collect()
}

/// Asks an app what it subscribes to.
async fn ask(target: &Target) -> Result<(Vec<Subscription>, Vec<String>), String> {
    let mut request = Request::new(Body::Empty);
    *request.uri_mut() = http::Uri::from_static("/dapr/subscribe");
    let asked = async {
        let reply = target.invoke(request, Trigger::Host, TraceContext::new()).await;
        let reply = reply.map_err(|error| error.to_string())?;
        match reply.status() {
            StatusCode::OK => {
                let body = reply.into_body().collect(4 << 20).await;
                subscription::programmatic(&body.map_err(|error| error.to_string())?)
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(format!("it answered /dapr/subscribe with {}", reply.status()))
            }
            // Most apps have no such path, and some answer that in their own way.
            _ => Ok((Vec::new(), Vec::new())),
        }
    };
    let answer = tokio::time::timeout(ASK_TIMEOUT, asked).await;
    answer.unwrap_or_else(|_| Err(format!("it did not answer /dapr/subscribe within {ASK_TIMEOUT:?}")))
}

// === impl Target ===

impl Target {
    async fn invoke(
        &self,
        request: Request<Body>,
        trigger: Trigger,
        trace: TraceContext,
    ) -> Result<Reply, InvokeError> {
        let Some(host) = self.host.upgrade() else { return Err(InvokeError::ShuttingDown) };
        host.invoke(&self.app_id, Invocation { request, trigger, trace, depth: 0 }).await
    }

    fn is_stopping(&self) -> bool {
        self.host.upgrade().is_none_or(|host| host.is_stopping())
    }
}

// === impl Wanted ===

impl Wanted {
    /// What tells it from others of the same app. The same name may stand for another provider when components change,
    /// so the provider is part of it; it stays where it is as long as something is received from it.
    fn fingerprint(&self, scope: &Scope) -> String {
        match self {
            Wanted::Topic(subscription) => {
                let broker = scope.components.pubsub.get(&subscription.pubsub);
                let broker = broker.map(|broker| Arc::as_ptr(&broker.bound.provider).addr());
                format!("{broker:x?} {}", subscription.fingerprint())
            }
            Wanted::Binding { name, path } => {
                let provider = scope.components.bindings.get(name);
                let provider = provider.map(|bound| Arc::as_ptr(&bound.provider).addr());
                format!("{provider:x?} binding {name} {path}")
            }
            Wanted::Outbox(outboxes) => {
                let mut stores: Vec<&str> = stores(outboxes).collect();
                stores.sort_unstable();
                let topic = outboxes.first().map_or("", |outbox| &outbox.inner_topic);
                let broker = outboxes.first().map(|outbox| Arc::as_ptr(&outbox.inner.provider).addr());
                format!("{broker:x?} outbox {} {topic}", stores.join(","))
            }
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Topic(subscription) => {
                write!(f, "the subscription to topic {} of {}", subscription.topic, subscription.pubsub)
            }
            Wanted::Binding { name, .. } => write!(f, "the input binding {name}"),
            Wanted::Outbox(outboxes) => {
                write!(f, "the outbox of {}", stores(outboxes).collect::<Vec<_>>().join(" and "))
            }
        }
    }
}

/// Names of the state stores.
fn stores(outboxes: &[Arc<Outbox>]) -> impl Iterator<Item = &str> {
    outboxes.iter().map(|outbox| outbox.store.component.name.as_str())
}
