//! proxy-wasm (github.com/proxy-wasm/spec): modules made for Envoy and its kin, and for Layotto.
//!
//! A guest is a set of callbacks around HTTP streams. As an app it answers requests itself; as a filter it stands before
//! another app. All versions of the ABI are served at once: names that only some of them have exist for all, and what
//! differs in parameters is read from the module.
//!
//! | file | subject |
//! |---|---|
//! | `abi` | numbers of the ABI |
//! | `callbacks` | what a guest exports |
//! | `imports` | what a guest imports: the host functions |
//! | `instance` | one running guest: contexts, pauses, what comes for it |
//! | `state` | what host functions find and change |
//! | `stream` | one request on its way through a guest |
//! | `headers`, `buffer` | maps and bodies as a guest sees them |
//! | `calls`, `grpc` | requests of a guest, whose answers come as callbacks |
//! | `filter` | a guest before another app |
//! | `root` | what a guest does without a request: ticks, queues |
//! | `shared` | values and queues that guests share |
//!
//! Instances are kept and used again, for that is the contract: a guest sees one long life, with a root context that
//! keeps what its streams need. An instance serves one request at a time, so a guest that is asked while it waits gets a
//! second instance and never an entry into the first.

mod abi;
mod buffer;
mod callbacks;
mod calls;
mod filter;
mod grpc;
mod headers;
mod imports;
mod instance;
mod root;
pub(crate) mod shared;
mod state;
mod stream;

pub use filter::{Passed, Passing};
pub(crate) use imports::{add_to_linker, is_provided, pre};
pub(crate) use state::ProxyState;
pub(crate) use stream::unframed;

use crate::failure::Failure;
use crate::run::Run;
use crate::setup::Setup;
use crate::store::{Origin, undisturbed};
use bytes::Bytes;
use callbacks::{Exports, On};
use dhow_blocks::invoke::{Body, Invocation, Reply};
use dhow_engine::Engine;
use http::{Response, StatusCode};
use instance::Instance;
use parking_lot::Mutex;
use state::About;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::HttpStream;
use wasmtime::InstancePre;

/// An instance is let go after this long without work.
const IDLE: Duration = Duration::from_secs(10);

/// Idle instances that are kept.
const MAX_IDLE: usize = 64;

/// Keys of an app's configuration that are not part of what its guest is configured with.
const OF_THE_HOST: [&str; 3] = ["vm", "vm_id", "root_id"];

/// An app that speaks proxy-wasm.
pub(crate) struct Proxy {
    pre: InstancePre<ProxyState>,
    exports: Exports,
    about: Arc<About>,
    setup: Arc<Setup>,
    engine: Engine,
    /// Instances that may serve; the last one is the warmest.
    #[allow(clippy::vec_box, reason = "an instance is large, and goes from hand to hand with each request")]
    idle: Mutex<Vec<Box<Instance>>>,
}

/// What an instance still has to do when nobody waits for it any more.
enum Rest {
    /// It does not want to let go of its stream yet.
    Stream,
    /// Its root context waits for answers.
    Root,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn new(
        engine: &Engine,
        pre: InstancePre<ProxyState>,
        setup: Arc<Setup>,
    ) -> wasmtime::Result<Proxy> {
        let module = pre.module();
        let exports = Exports::find(module)?;
        let speaks = |version: &str| module.get_export(&format!("proxy_abi_version_{version}")).is_some();
        let config = &setup.scope.config;
        let text = |key: &str| config.get(key).cloned().unwrap_or_default();
        let about = About {
            is_layotto: exports.has(On::GetId),
            is_legacy: speaks("0_1_0") && !speaks("0_2_0") && !speaks("0_2_1"),
            vm_configuration: text("vm").into(),
            plugin_configuration: plugin_configuration(config)?,
            root_id: text("root_id"),
            vm: Arc::clone(&setup.vm),
        };
        Ok(Proxy {
            exports,
            about: Arc::new(about),
            setup,
            engine: engine.clone(),
            idle: Mutex::new(Vec::new()),
            pre,
        })
    }

    /// Delivers one request to the app.
    pub(crate) async fn invoke(self: &Arc<Self>, invocation: Invocation) -> Result<Reply, Failure> {
        let execution = Box::pin(Arc::clone(self).serve(invocation));
        Run::new(execution, self.setup.bounds.deadline).await
    }

    /// The id under which the guest wants to be known, if it is a function made for Layotto.
    pub(crate) async fn layotto_id(&self) -> Result<Option<String>, Failure> {
        if !self.about.is_layotto {
            return Ok(None);
        }
        let _running = self.engine.running();
        let asked = async {
            let mut instance = Instance::bare(self, Origin::default(), None).await?;
            instance.id().await
        };
        let deadline = self.setup.bounds.deadline;
        let id = tokio::time::timeout(deadline, asked).await.map_err(|_| Failure::Deadline(deadline))??;
        match std::str::from_utf8(&id) {
            Ok("") => Err(Failure::ErrorAnswer("its proxy_get_id tells no id".to_owned())),
            Ok(id) => Ok(Some(id.to_owned())),
            Err(_) => Err(Failure::ErrorAnswer("the id that its proxy_get_id tells is not UTF-8".to_owned())),
        }
    }

    /// Makes an instance with its root context, and keeps it as the next request would.
    pub(crate) async fn probe(self: &Arc<Self>) -> Result<(), Failure> {
        let instance = self.instance(Origin::default()).await?;
        self.keep(instance);
        Ok(())
    }

    /// Lets go of instances without work, but for so many.
    pub(crate) fn sweep(&self, kept: usize) {
        let gone: Vec<Box<Instance>> = {
            let mut idle = self.idle.lock();
            let gone = expired(&idle, |instance| instance.idle_since.elapsed() > IDLE, kept);
            idle.drain(..gone).collect()
        };
        drop(gone);
    }

    async fn serve(self: Arc<Self>, invocation: Invocation) -> Result<Reply, Failure> {
        let origin = Origin { trace: invocation.trace, depth: invocation.depth };
        let mut instance = self.instance(origin).await?;
        let (head, body) = invocation.request.into_parts();
        instance.begin(true, head, origin).await?;
        instance.request_side(body).await?;
        // A guest that let the request go on may still answer with what it asked for meanwhile.
        instance.wait(|state| has_answered(state) || !state.calls.will_end()).await?;
        let reply = answer(instance.stream()?, &self.setup.scope.app_id)?;
        self.finish(instance).await;
        Ok(reply)
    }

    /// An instance that serves nobody.
    async fn instance(&self, origin: Origin) -> Result<Box<Instance>, Failure> {
        let idle = self.idle.lock().pop();
        let mut used = None;
        if let Some(mut instance) = idle {
            undisturbed(&mut instance.store);
            match instance.catch_up().await {
                Ok(()) => used = Some(instance),
                // The tick was no part of this request.
                Err(failure) => self.tell(&failure),
            }
        }
        let mut instance = match used {
            Some(instance) => instance,
            None => {
                // Boxed, so that a request that finds an instance does not carry the room for starting one.
                let started = Box::pin(async {
                    let mut instance = Box::new(Instance::start(self, origin, None).await?);
                    // What it has asked for to be able to serve comes first.
                    instance.settle().await?;
                    Ok::<_, Failure>(instance)
                });
                started.await?
            }
        };
        instance.served += 1;
        Ok(instance)
    }

    /// Ends the stream of an instance, and keeps the instance for the next one. A guest that has still something to
    /// do has it done without anybody waiting.
    async fn finish(self: &Arc<Self>, mut instance: Box<Instance>) {
        match instance.end().await {
            Ok(true) => match instance.delete().await {
                Ok(()) => self.keep(instance),
                Err(failure) => self.tell(&failure),
            },
            Ok(false) => self.in_the_background(instance, Rest::Stream),
            Err(failure) => self.tell(&failure),
        }
    }

    fn keep(self: &Arc<Self>, mut instance: Box<Instance>) {
        if instance.served >= self.setup.reuse.unwrap_or(u32::MAX) {
            return;
        }
        if instance.data().calls.will_end() {
            return self.in_the_background(instance, Rest::Root);
        }
        instance.idle_since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(instance);
        }
    }

    /// Lets a guest go on by itself, under its deadline, and keeps its instance.
    fn in_the_background(self: &Arc<Self>, mut instance: Box<Instance>, rest: Rest) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let _running = this.engine.running();
            let deadline = this.setup.bounds.deadline;
            let work = async {
                match rest {
                    Rest::Root => instance.settle().await,
                    Rest::Stream => {
                        let is_done =
                            |state: &ProxyState| state.stream.as_ref().is_none_or(|stream| stream.done);
                        instance.wait(is_done).await?;
                        instance.delete().await
                    }
                }
            };
            match tokio::time::timeout(deadline, work).await {
                Ok(Ok(())) => this.keep(instance),
                Ok(Err(failure)) => this.tell(&failure),
                Err(_) => this.tell(&Failure::Deadline(deadline)),
            }
        });
    }

    /// Says that a guest failed where nobody waits for it; the instance is gone.
    fn tell(&self, failure: &Failure) {
        tracing::error!(app_id = &*self.setup.scope.app_id, "a proxy-wasm instance failed: {failure}");
    }
}

/// How many of those at the front, where the oldest are, may go, so that `kept` are left.
fn expired<T>(idle: &[T], is_old: impl Fn(&T) -> bool, kept: usize) -> usize {
    idle.partition_point(is_old).min(idle.len().saturating_sub(kept))
}

fn has_answered(state: &ProxyState) -> bool {
    state.stream.as_ref().is_none_or(|stream| stream.is_over() || stream.is_written())
}

/// What a guest answers as an app: what it sent itself, or what it wrote, or that there is nothing.
fn answer(stream: &mut HttpStream, app_id: &str) -> Result<Reply, Failure> {
    if let Some(local) = stream.take_answer() {
        return Ok(local);
    }
    if stream.closed {
        return Err(Failure::ErrorAnswer("it closed the stream".to_owned()));
    }
    if stream.is_written() {
        let head = &stream.response;
        let mut reply = Response::new(stream::body(
            std::mem::take(&mut stream.response_body.bytes),
            std::mem::take(&mut stream.response_trailers),
        ));
        *reply.status_mut() = head.status;
        *reply.headers_mut() = std::mem::take(&mut stream.response.headers);
        unframed(reply.headers_mut());
        return Ok(reply);
    }
    let mut reply = Response::new(Body::from(format!("app {app_id:?} has no answer to this request\n")));
    *reply.status_mut() = StatusCode::NOT_FOUND;
    Ok(reply)
}

/// What a guest is configured with: the text of the key `plugin` if there is no other, else all keys as JSON.
fn plugin_configuration(config: &BTreeMap<String, String>) -> wasmtime::Result<Bytes> {
    let rest: BTreeMap<&str, &str> = config
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(key, _)| !OF_THE_HOST.contains(key))
        .collect();
    Ok(match rest.first_key_value() {
        None => Bytes::new(),
        Some((&"plugin", text)) if rest.len() == 1 => Bytes::copy_from_slice(text.as_bytes()),
        Some(_) => serde_json::to_vec(&rest)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::expired;

    #[test]
    fn instances_without_work_go_but_for_those_to_be_kept() {
        // Seconds without work, and how many are old after ten.
        let idle = [30, 20, 11, 9, 1];
        for (kept, gone) in [(0, 3), (1, 3), (2, 3), (3, 2), (4, 1), (5, 0), (100, 0)] {
            assert_eq!(expired(&idle, |seconds| *seconds > 10, kept), gone, "{kept} are kept");
        }
        assert_eq!(expired(&[] as &[u32], |_| true, 1), 0);
    }
}
