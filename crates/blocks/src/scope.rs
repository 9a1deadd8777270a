//! One app's view of the blocks.
//!
//! A guest interface never sees a provider: it sees the [`Scope`] of its app, which checks the grant,
//! prefixes the key, applies the policy, measures and passes the request on. Whatever has to happen on every
//! use of a block happens here.
//!
//! | file | subject |
//! |---|---|
//! | `bound` | a provider with its policy and its measurements |
//! | `state` | keys with the app's prefix |
//! | `outbox` | events of what transactions write |
//! | `lock` | locks with the app's prefix |
//! | `delayed` | publishing later |
//! | `sequencer` | ids, in segments |
//! | `layotto` | keys by Layotto's rules |
//! | `pubsub` | topic rules, envelopes, publishing |
//! | `secrets` | which secrets an app may read |

mod bound;
mod delayed;
mod layotto;
mod lock;
mod outbox;
mod pubsub;
mod secrets;
mod sequencer;
mod state;

pub use bound::{Bound, ComponentInfo, Meter};
pub use delayed::{delayed_event, delayed_of, delayed_owner};
pub use outbox::{Outbox, Step};
pub use pubsub::{Event, PubSubBinding, PublishError, TopicRules, is_true};
pub use secrets::{SecretAccess, SecretBinding, SecretError};
pub use sequencer::{Increment, SequencerBinding};
pub use state::State;

use crate::binding::{Binding, BindingRequest, BindingResponse};
use crate::blob::BlobStore;
use crate::configuration::ConfigurationStore;
use crate::cryption::Cryption;
use crate::email::{Email, Mail};
use crate::error::BlockError;
use crate::grants::{Ask, By, Denied, Grants};
use crate::invoke::{Body, Invocation, InvokeError, Invoker, Reply};
use crate::jobs::{Job, JobError, Jobs};
use crate::lock::LockStore;
use crate::policy::{Code, Policies, Resilient};
use crate::update::LiveUpdate;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The store that a guest gets when it names none (Dapr's usual name).
pub const DEFAULT_STATE_STORE: &str = "statestore";

/// Apps may call each other this many steps deep; more is taken for a circle.
pub const MAX_INVOKE_DEPTH: u8 = 16;

/// Largest body of an invocation that is kept to be sent again by a retry, in bytes. Larger ones are sent once.
const MAX_REPEATED_BODY: u64 = 4 << 20;

/// Everything outside itself that an app can reach.
pub struct Scope {
    /// The app's identity.
    pub app_id: Arc<str>,
    /// The namespace of the host and all its apps.
    pub namespace: Arc<str>,
    /// What its manifest allows, and its module's token, if it has one.
    pub grants: Grants,
    /// Hears of what it was denied.
    pub audit: Arc<dyn Audit>,
    /// The components that are open to this app.
    pub components: Providers,
    /// The app's configuration values, from its manifest.
    pub config: BTreeMap<String, String>,
    /// The host, which knows the other apps.
    pub invoker: Arc<dyn Invoker>,
    /// Who replaces modules of apps; none where they cannot be.
    pub updates: Option<Weak<dyn LiveUpdate>>,
    /// Resiliency of invocations; none where no resource asks for any.
    pub policies: Option<Arc<dyn Policies>>,
}

/// Hears of every denial; what becomes of it, metrics and logs, is above.
pub trait Audit: Send + Sync {
    /// The app wanted something that it may not.
    fn denied(&self, app_id: &str, denied: &Denied);
}

/// The components of a host that are open to one app, by name.
#[derive(Clone, Default)]
pub struct Providers {
    /// State stores.
    pub state: HashMap<String, State>,
    /// Message brokers.
    pub pubsub: HashMap<String, PubSubBinding>,
    /// Bindings.
    pub bindings: HashMap<String, Bound<dyn Binding>>,
    /// Secret stores.
    pub secrets: HashMap<String, SecretBinding>,
    /// Configuration stores.
    pub configuration: HashMap<String, Bound<dyn ConfigurationStore>>,
    /// Lock stores, with what stands before each resource of this app.
    pub locks: HashMap<String, (Bound<dyn LockStore>, Arc<str>)>,
    /// Sequencers.
    pub sequencers: HashMap<String, SequencerBinding>,
    /// Files and objects.
    pub blobs: HashMap<String, Bound<dyn BlobStore>>,
    /// Encryption.
    pub cryption: HashMap<String, Bound<dyn Cryption>>,
    /// E-mail.
    pub email: HashMap<String, Bound<dyn Email>>,
    /// The host's jobs.
    pub jobs: Option<Arc<dyn Jobs>>,
}

/// A building block, as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// State.
    State,
    /// Publish and subscribe.
    PubSub,
    /// Bindings.
    Binding,
    /// Secrets.
    Secrets,
    /// Configuration.
    Configuration,
    /// Locks.
    Lock,
    /// Sequencers.
    Sequencer,
    /// Files and objects.
    Blob,
    /// Encryption.
    Cryption,
    /// E-mail.
    Email,
    /// Jobs.
    Jobs,
}

/// Why a scope did not hand out a block.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScopeError {
    /// The manifest does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no component of that name for this app.
    #[error("{block} {name} is not found")]
    NotFound {
        /// The block.
        block: Block,
        /// The name asked for.
        name: String,
    },
    /// There is no component of this kind at all.
    #[error("{block} is not configured")]
    NotConfigured {
        /// The block.
        block: Block,
    },
}

/// Why a module was not replaced.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum UpdateError {
    /// The manifest does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nothing changed, for this reason.
    #[error("{0}")]
    Refused(String),
}

/// Why an operation of a block was not carried out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum UseError {
    /// The component is not there, or not for this app.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The provider failed.
    #[error(transparent)]
    Provider(#[from] BlockError),
}

// === impl Scope ===

impl Scope {
    /// Allows or refuses; a refusal is heard of. Whoever only wants to know asks [`Grants::allows`].
    pub fn check(&self, ask: Ask<'_>) -> Result<(), Denied> {
        self.grants.check(ask).inspect_err(|denied| self.audit.denied(&self.app_id, denied))
    }

    /// The state store of that name.
    pub fn state(&self, name: &str) -> Result<State, ScopeError> {
        let state = find(&self.components.state, Block::State, name)?;
        self.check(Ask::State(name))?;
        Ok(state.clone())
    }

    /// The message broker of that name; what may be done with it depends on the topic.
    pub fn pubsub(&self, name: &str) -> Result<&PubSubBinding, ScopeError> {
        find(&self.components.pubsub, Block::PubSub, name)
    }

    /// The configuration store of that name.
    pub fn configuration(&self, name: &str) -> Result<&Bound<dyn ConfigurationStore>, ScopeError> {
        let store = find(&self.components.configuration, Block::Configuration, name)?;
        self.check(Ask::Configuration(name))?;
        Ok(store)
    }

    /// The host's jobs, if the app may have a job of that name.
    pub fn jobs(&self, name: &str) -> Result<&Arc<dyn Jobs>, ScopeError> {
        let jobs = self.components.jobs.as_ref();
        let jobs = jobs.ok_or(ScopeError::NotConfigured { block: Block::Jobs })?;
        self.check(Ask::Job(name))?;
        Ok(jobs)
    }

    /// All jobs of this app that it may have.
    pub async fn list_jobs(&self) -> Result<Vec<Job>, JobError> {
        let Some(jobs) = &self.components.jobs else {
            let missing = ScopeError::NotConfigured { block: Block::Jobs };
            return Err(BlockError::failed(missing.to_string()).into());
        };
        let mut jobs = jobs.list(&self.app_id).await?;
        jobs.retain(|job| self.grants.allows(Ask::Job(&job.name)));
        Ok(jobs)
    }

    /// Carries out one operation of an output binding.
    pub async fn call_binding(
        &self,
        name: &str,
        request: BindingRequest,
    ) -> Result<BindingResponse, UseError> {
        let bound = find(&self.components.bindings, Block::Binding, name)?;
        self.check(Ask::Binding(name)).map_err(ScopeError::from)?;
        let provider = &bound.provider;
        let operations = provider.operations();
        if !operations.contains(&request.operation.as_str()) {
            let reason = format!(
                "binding {name} does not support operation {}. supported operations: {}",
                request.operation,
                operations.join(" ")
            );
            return Err(BlockError::invalid(reason).into());
        }
        let operation = request.operation.clone();
        Ok(bound.call_for("invoke", &operation, request, |request| provider.invoke(request)).await?)
    }

    /// The files and objects of that name.
    pub fn blobs(&self, name: &str) -> Result<&Bound<dyn BlobStore>, ScopeError> {
        let store = find(&self.components.blobs, Block::Blob, name)?;
        self.check(Ask::Blob(name))?;
        Ok(store)
    }

    /// The encryption of that name.
    pub fn cryption(&self, name: &str) -> Result<&Bound<dyn Cryption>, ScopeError> {
        let found = find(&self.components.cryption, Block::Cryption, name)?;
        self.check(Ask::Cryption(name))?;
        Ok(found)
    }

    /// Sends a message and returns its id.
    pub async fn send_mail(&self, name: &str, mail: Mail) -> Result<String, UseError> {
        let bound = find(&self.components.email, Block::Email, name)?;
        self.check(Ask::Email(name)).map_err(ScopeError::from)?;
        let provider = &bound.provider;
        Ok(bound.call("send", mail, |mail| provider.send(mail)).await?)
    }

    /// Which secret store an app means; what may be read depends on the secret.
    fn secret_store(&self, name: &str) -> Result<&SecretBinding, ScopeError> {
        find(&self.components.secrets, Block::Secrets, name)
    }

    /// Replaces the module of an app. Its own, too, only where that is granted.
    pub async fn update(&self, app_id: &str, module: Bytes) -> Result<(), UpdateError> {
        self.check(Ask::Update(app_id))?;
        let Some(updates) = self.updates.as_ref().and_then(Weak::upgrade) else {
            let reason = "this host does not replace modules while it runs";
            return Err(UpdateError::Refused(reason.to_owned()));
        };
        updates.update(&self.app_id, app_id, module).await.map_err(UpdateError::Refused)
    }

    /// Whether the app may invoke another one, or itself. A target that is a URL needs the grant for its host, every
    /// other one that for its name.
    pub fn may_invoke(&self, target: &str) -> bool {
        if !target.contains("://") {
            return target == &*self.app_id || self.grants.allows(Ask::Invoke(target));
        }
        let uri = target.parse::<http::Uri>().ok();
        uri.as_ref().and_then(http_ask).is_some_and(|ask| self.grants.allows(ask))
    }

    /// The same as an error, which is heard of.
    fn check_invoke(&self, target: &str) -> Result<(), InvokeError> {
        if self.may_invoke(target) {
            return Ok(());
        }
        let uri = target.parse::<http::Uri>().ok();
        let ask = uri.as_ref().filter(|_| target.contains("://")).and_then(http_ask);
        let by =
            self.check(ask.unwrap_or(Ask::Invoke(target))).map_or_else(|denied| denied.by, |()| By::Manifest);
        Err(InvokeError::Denied { caller: self.app_id.to_string(), app_id: target.to_owned(), by })
    }

    /// Invokes another app, or this one, under the resiliency policy of the target.
    pub async fn invoke(&self, app_id: &str, mut invocation: Invocation) -> Result<Reply, InvokeError> {
        self.check_invoke(app_id)?;
        if invocation.depth >= MAX_INVOKE_DEPTH {
            return Err(InvokeError::TooDeep { app_id: app_id.to_owned(), depth: invocation.depth });
        }
        invocation.depth += 1;
        let Some(policies) = &self.policies else { return self.invoker.invoke(app_id, invocation).await };
        let policy = policies.app(app_id);
        if policy.is_none() {
            return self.invoker.invoke(app_id, invocation).await;
        }
        let attempt = |invocation: Invocation| async {
            match self.invoker.invoke(app_id, invocation).await {
                // What is no success counts as a failure for retries and circuit breakers.
                Ok(reply) if Code::of(&reply).is_failure() => Err(Attempt::Answered(reply)),
                Ok(reply) => Ok(reply),
                Err(error) => Err(Attempt::Failed(error)),
            }
        };
        let size = http_body::Body::size_hint(invocation.request.body()).upper();
        let answer = if policy.repeats() && size.is_some_and(|size| size <= MAX_REPEATED_BODY) {
            let (head, body) = invocation.request.into_parts();
            let body = body.collect(MAX_REPEATED_BODY as usize).await;
            let body = body.map_err(|error| InvokeError::GuestFailed {
                app_id: self.app_id.to_string(),
                reason: format!("its request broke off: {error}"),
            })?;
            let Invocation { trigger, trace, depth, .. } = invocation;
            policy
                .run((head, body), |(head, body)| {
                    let request = http::Request::from_parts(head, Body::from(body));
                    attempt(Invocation { request, trigger, trace, depth })
                })
                .await
        } else {
            let once = crate::policy::Policy { retry: None, ..policy };
            let mut invocation = Some(invocation);
            once.run((), |()| {
                let invocation = invocation.take();
                async {
                    match invocation {
                        Some(invocation) => attempt(invocation).await,
                        None => Err(Attempt::Failed(InvokeError::ShuttingDown)),
                    }
                }
            })
            .await
        };
        match answer {
            Ok(reply) | Err(Attempt::Answered(reply)) => Ok(reply),
            Err(Attempt::Failed(error)) => Err(error),
            Err(Attempt::TimedOut(limit)) => {
                let seconds = limit.as_secs_f64();
                Err(InvokeError::DeadlineExceeded { app_id: app_id.to_owned(), seconds })
            }
            Err(Attempt::Open(breaker)) => {
                Err(InvokeError::CircuitOpen { app_id: app_id.to_owned(), breaker })
            }
        }
    }
}

/// What a request to this URL asks for.
fn http_ask(uri: &http::Uri) -> Option<Ask<'_>> {
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some(Ask::Http { scheme, host: host.trim_start_matches('[').trim_end_matches(']'), port })
}

fn find<'a, T>(map: &'a HashMap<String, T>, block: Block, name: &str) -> Result<&'a T, ScopeError> {
    if map.is_empty() {
        return Err(ScopeError::NotConfigured { block });
    }
    map.get(name).ok_or_else(|| ScopeError::NotFound { block, name: name.to_owned() })
}

/// How a try to invoke an app ended.
enum Attempt {
    Answered(Reply),
    Failed(InvokeError),
    TimedOut(Duration),
    Open(String),
}

impl Resilient for Attempt {
    fn timed_out(limit: Duration) -> Attempt {
        Attempt::TimedOut(limit)
    }

    fn circuit_open(breaker: &str) -> Attempt {
        Attempt::Open(breaker.to_owned())
    }

    fn may_pass(&self) -> bool {
        !matches!(
            self,
            Attempt::Failed(
                InvokeError::Denied { .. }
                    | InvokeError::Forbidden { .. }
                    | InvokeError::Refused { .. }
                    | InvokeError::TooDeep { .. }
            )
        )
    }

    fn code(&self) -> Option<Code> {
        match self {
            Attempt::Answered(reply) => Some(Code::of(reply)),
            _ => None,
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Configuration values may be secret: names only.
        f.debug_struct("Scope")
            .field("app_id", &self.app_id)
            .field("grants", &self.grants)
            .field("components", &self.components)
            .field("config", &self.config.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

// === impl Providers ===

impl Providers {
    /// All components, by name.
    pub fn list(&self) -> Vec<Arc<ComponentInfo>> {
        let mut list: Vec<Arc<ComponentInfo>> = Vec::new();
        list.extend(self.state.values().map(|state| Arc::clone(&state.bound.component)));
        list.extend(self.pubsub.values().map(|pubsub| Arc::clone(&pubsub.bound.component)));
        list.extend(self.bindings.values().map(|bound| Arc::clone(&bound.component)));
        list.extend(self.secrets.values().map(|secrets| Arc::clone(&secrets.bound.component)));
        list.extend(self.configuration.values().map(|bound| Arc::clone(&bound.component)));
        list.extend(self.locks.values().map(|(bound, _)| Arc::clone(&bound.component)));
        list.extend(self.sequencers.values().map(|sequencer| Arc::clone(&sequencer.bound.component)));
        list.extend(self.blobs.values().map(|bound| Arc::clone(&bound.component)));
        list.extend(self.cryption.values().map(|bound| Arc::clone(&bound.component)));
        list.extend(self.email.values().map(|bound| Arc::clone(&bound.component)));
        list.sort_by(|one, other| one.name.cmp(&other.name));
        list
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list().iter().map(|component| component.name.clone())).finish()
    }
}

// === impl Block ===

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Block::State => "state store",
            Block::PubSub => "pubsub",
            Block::Binding => "output binding",
            Block::Secrets => "secret store",
            Block::Configuration => "configuration store",
            Block::Lock => "lock store",
            Block::Sequencer => "sequencer",
            Block::Blob => "file or object store",
            Block::Cryption => "cryption component",
            Block::Email => "email component",
            Block::Jobs => "jobs",
        })
    }
}
