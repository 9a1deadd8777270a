//! One running guest: its root context, and the one stream that it serves at a time.

use super::Proxy;
use super::abi::{CONTINUE, CONTINUE_AND_END, Direction};
use super::buffer::Buffer;
use super::callbacks::{Callbacks, On};
use super::calls::{Calls, Event, Received, What};
use super::headers::Map;
use super::shared::Wake;
use super::state::{ProxyState, ROOT};
use super::stream::{HttpStream, Properties, Unread, collected};
use crate::counted::announced;
use crate::failure::Failure;
use crate::outbound::Outbound;
use crate::setup::Stdio;
use crate::sockets::Ports;
use crate::store::{Origin, command, interruptible, preview1, undisturbed};
use bytes::Bytes;
use dhow_blocks::invoke::Body;
use dhow_engine::Limiter;
use http::{HeaderMap, request};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;
use tokio::time::sleep_until;
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi::I32Exit;

pub(super) struct Instance {
    pub(super) store: Store<ProxyState>,
    callbacks: Callbacks,
    /// Numbers are never used again.
    next_context: u32,
    pub(super) served: u32,
    pub(super) idle_since: Instant,
}

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// The guest has answered itself, or closed the stream.
    Over,
}

/// What a root context is called for.
pub(super) enum Come {
    Tick,
    Event(Event),
}

// === impl Instance ===

impl Instance {
    /// A guest with its root context, ready to serve.
    pub(super) async fn start(
        proxy: &Proxy,
        origin: Origin,
        wake: Option<Arc<Wake>>,
    ) -> Result<Instance, Failure> {
        let mut instance = Instance::bare(proxy, origin, wake).await?;
        instance.make_root().await?;
        Ok(instance)
    }

    /// A guest that was initialised and knows of no context yet.
    pub(super) async fn bare(
        proxy: &Proxy,
        origin: Origin,
        wake: Option<Arc<Wake>>,
    ) -> Result<Instance, Failure> {
        let setup = &proxy.setup;
        let wasi = command(setup, &setup.args, Stdio::Lines, &Ports::new())
            .map_err(|error| Failure::Host(format!("{error:#}")))?;
        let wasi = preview1(wasi, setup);
        let state = ProxyState {
            wasi,
            limiter: Limiter::new(setup.bounds.engine),
            memory: None,
            setup: Arc::clone(setup),
            outbound: Outbound::new(Arc::clone(setup), origin),
            about: Arc::clone(&proxy.about),
            allocate: None,
            allocating: false,
            effective: ROOT,
            stream: None,
            properties: Properties::default(),
            calls: Calls::default(),
            tick: None,
            call_data: Buffer::default(),
            wake,
        };
        let mut store = Store::new(proxy.pre.module().engine(), state);
        store.limiter(|state| &mut state.limiter);
        interruptible(&mut store);
        let started = async {
            let instance = proxy.pre.instantiate_async(&mut store).await?;
            let callbacks = proxy.exports.of(&instance, &mut store);
            let allocator = ["proxy_on_memory_allocate", "malloc"].into_iter();
            let mut allocators = allocator.map(|name| instance.get_typed_func(&mut store, name));
            let allocate = allocators.find_map(Result::ok);
            store.data_mut().allocate = allocate;
            initialise(&instance, &mut store).await?;
            Ok(callbacks)
        };
        match started.await {
            Ok(callbacks) => Ok(Instance {
                store,
                callbacks,
                next_context: ROOT + 1,
                served: 0,
                idle_since: Instant::now(),
            }),
            Err(error) => Err(Failure::of(&error, store.data().limiter.refused())),
        }
    }

    async fn make_root(&mut self) -> Result<(), Failure> {
        self.call(On::ContextCreate, [ROOT, 0, 0, 0, 0]).await?;
        let about = Arc::clone(&self.store.data().about);
        for (on, configuration) in
            [(On::VmStart, &about.vm_configuration), (On::Configure, &about.plugin_configuration)]
        {
            // The first number is no use to the ABI; SDKs look their root context up by it.
            let accepted = self.call(on, [ROOT, length(configuration), 0, 0, 0]).await?;
            if accepted == Some(0) && !about.is_layotto {
                return Err(Failure::ErrorAnswer(format!("its {} refused to start", on.name())));
            }
        }
        Ok(())
    }

    /// Asks the guest which function it is.
    pub(super) async fn id(&mut self) -> Result<Bytes, Failure> {
        self.call(On::GetId, [0; 5]).await?;
        Ok(std::mem::take(&mut self.data().call_data.bytes))
    }

    pub(super) fn data(&mut self) -> &mut ProxyState {
        self.store.data_mut()
    }

    /// The stream that is served.
    pub(super) fn stream(&mut self) -> Result<&mut HttpStream, Failure> {
        let stream = self.store.data_mut().stream.as_mut();
        stream.ok_or_else(|| Failure::Host("a guest was asked about no stream".to_owned()))
    }

    pub(super) fn has(&self, on: On) -> bool {
        self.callbacks.get(on).is_some()
    }

    /// Calls a callback, if there is one.
    pub(super) async fn call(&mut self, on: On, args: [u32; 5]) -> Result<Option<u32>, Failure> {
        let Some(callback) = self.callbacks.get(on) else { return Ok(None) };
        let called = callback.call(&mut self.store, args).await;
        called.map_err(|error| Failure::of(&error, self.store.data().limiter.refused()))
    }

    /// Begins to serve a request.
    pub(super) async fn begin(
        &mut self,
        is_app: bool,
        request: request::Parts,
        origin: Origin,
    ) -> Result<(), Failure> {
        let id = self.next_context;
        self.next_context += 1;
        let state = self.data();
        state.outbound.origin = origin;
        state.effective = id;
        state.stream = Some(HttpStream::new(id, is_app, request));
        self.call(On::ContextCreate, [id, ROOT, 0, 0, 0]).await?;
        Ok(())
    }

    /// Calls a callback of the stream, and waits as long as the guest pauses it.
    pub(super) async fn step(&mut self, on: On, args: [u32; 3]) -> Result<Flow, Failure> {
        let stream = self.stream()?;
        stream.continued = false;
        let id = stream.id;
        self.data().effective = id;
        let [first, second, third] = args;
        let action = self.call(on, [first, second, third, 0, 0]).await?;
        let goes_on = |state: &ProxyState| {
            state.stream.as_ref().is_none_or(|stream| stream.continued || stream.is_over())
        };
        // SDKs of 0.1.0 and 0.2.0 hand on the statuses of Envoy's filters, of which there are more than CONTINUE and
        // PAUSE: of those for headers one more goes on, all others stop in one way or another.
        let goes_on_anyway = match on {
            On::RequestHeaders | On::ResponseHeaders => [CONTINUE, CONTINUE_AND_END].as_slice(),
            _ => &[CONTINUE],
        };
        let pauses = action.is_some_and(|action| !goes_on_anyway.contains(&action));
        if pauses && !Box::pin(self.wait(goes_on)).await? && !self.data().about.is_layotto {
            return Err(Failure::Paused);
        }
        Ok(if self.stream()?.is_over() { Flow::Over } else { Flow::On })
    }

    /// Everything up to the end of the request. What is left is the body, if the guest did not want to see it.
    pub(super) async fn request_side(&mut self, body: Body) -> Result<(Flow, Body), Failure> {
        let state = self.data();
        let (limit, is_layotto) = (state.setup.bounds.request_body, state.about.is_layotto);
        let stream = self.stream()?;
        if announced(&stream.request.headers).is_some_and(|length| length > limit) {
            return Err(Failure::RequestTooLarge(limit));
        }
        let (id, is_app) = (stream.id, stream.is_app);
        let query = stream.request.uri.query().filter(|_| is_layotto && is_app).map(str::to_owned);
        let headers = count(Map::Request(&mut stream.request).len());
        let has_ended = http_body::Body::is_end_stream(&body) && query.is_none();
        let sees_body = !has_ended && self.has(On::RequestBody);
        match self.step(On::RequestHeaders, [id, headers, u32::from(has_ended)]).await {
            Ok(Flow::Over) => return Ok((Flow::Over, body)),
            Ok(Flow::On) if !sees_body => return Ok((Flow::On, body)),
            Ok(Flow::On) => {}
            // It may want to see the body first.
            Err(Failure::Paused) if sees_body => {}
            Err(failure) => return Err(failure),
        }
        let patience = self.data().setup.bounds.deadline;
        let (mut bytes, trailers) =
            collected(body, limit, patience).await.map_err(|unread| match unread {
                Unread::TooLarge => Failure::RequestTooLarge(limit),
                Unread::Broken(reason) => Failure::Host(format!("the request body ended early: {reason}")),
            })?;
        if let Some(query) = query.filter(|_| bytes.is_empty()) {
            bytes = query.into();
        }
        let (size, in_trailers) = (length(&bytes), count(trailers.len()));
        let stream = self.stream()?;
        stream.request_body = Buffer::new(bytes);
        stream.request_trailers = trailers;
        let mut flow = self.step(On::RequestBody, [id, size, u32::from(in_trailers == 0)]).await?;
        if flow == Flow::On && in_trailers > 0 {
            flow = self.step(On::RequestTrailers, [id, in_trailers, 0]).await?;
        }
        let stream = self.stream()?;
        let trailers = std::mem::take(&mut stream.request_trailers);
        let body = super::stream::body(stream.request_body.bytes.clone(), trailers);
        Ok((flow, body))
    }

    /// The head of the response; `true` if the guest wants to see its body, too.
    pub(super) async fn response_head(&mut self, has_ended: bool) -> Result<(Flow, bool), Failure> {
        let stream = self.stream()?;
        stream.direction = Direction::Response;
        let id = stream.id;
        let headers = count(Map::Response(&mut stream.response).len());
        let sees_body = !has_ended && self.has(On::ResponseBody);
        match self.step(On::ResponseHeaders, [id, headers, u32::from(has_ended)]).await {
            Ok(flow) => Ok((flow, sees_body && flow == Flow::On)),
            // It may want to see the body first.
            Err(Failure::Paused) if sees_body => Ok((Flow::On, true)),
            Err(failure) => Err(failure),
        }
    }

    /// The body of the response, whole, and its end. What is left is what the guest made of it.
    pub(super) async fn response_body(
        &mut self,
        bytes: Bytes,
        trailers: HeaderMap,
    ) -> Result<(Flow, Body), Failure> {
        let (size, in_trailers) = (length(&bytes), count(trailers.len()));
        let stream = self.stream()?;
        let id = stream.id;
        stream.response_body = Buffer::new(bytes);
        stream.response_trailers = trailers;
        let mut flow = self.step(On::ResponseBody, [id, size, u32::from(in_trailers == 0)]).await?;
        if flow == Flow::On && in_trailers > 0 {
            flow = self.step(On::ResponseTrailers, [id, in_trailers, 0]).await?;
        }
        let stream = self.stream()?;
        let trailers = std::mem::take(&mut stream.response_trailers);
        let body = super::stream::body(stream.response_body.bytes.clone(), trailers);
        Ok((flow, body))
    }

    /// Tells the guest that its stream has ended; `false` when it has still something to do for it.
    pub(super) async fn end(&mut self) -> Result<bool, Failure> {
        let id = self.stream()?.id;
        self.data().effective = id;
        let answer = self.call(On::Done, [id, 0, 0, 0, 0]).await?;
        Ok(answer != Some(0) || self.stream()?.done)
    }

    /// Lets go of the stream.
    pub(super) async fn delete(&mut self) -> Result<(), Failure> {
        let id = self.stream()?.id;
        self.call(On::Log, [id, 0, 0, 0, 0]).await?;
        self.call(On::Delete, [id, 0, 0, 0, 0]).await?;
        let state = self.data();
        state.calls.release(id);
        state.stream = None;
        state.effective = ROOT;
        Ok(())
    }

    /// Gives the guest what comes for it until this holds; `false` when it does not and nothing more will come.
    pub(super) async fn wait(&mut self, until: impl Fn(&ProxyState) -> bool) -> Result<bool, Failure> {
        while !until(self.store.data()) {
            match self.next().await {
                Some(come) => self.deliver(come).await?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Lets the root context finish what it has begun.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        self.wait(|state| !state.calls.will_end()).await.map(|_| ())
    }

    /// Makes up for a tick that was due while nobody served.
    pub(super) async fn catch_up(&mut self) -> Result<(), Failure> {
        match self.data().tick {
            Some(tick) if tick.due <= tokio::time::Instant::now() => Box::pin(self.deliver(Come::Tick)).await,
            _ => Ok(()),
        }
    }

    /// The next thing that comes for the guest; `None` when nothing will.
    pub(super) async fn next(&mut self) -> Option<Come> {
        let ticks = self.has(On::Tick);
        let state = self.store.data_mut();
        let mut alarm = state.tick.filter(|_| ticks).map(|tick| Box::pin(sleep_until(tick.due)));
        poll_fn(|cx| {
            if let Poll::Ready(Some(event)) = state.calls.poll(cx) {
                return Poll::Ready(Some(Come::Event(event)));
            }
            match &mut alarm {
                Some(alarm) => alarm.as_mut().poll(cx).map(|()| Some(Come::Tick)),
                None if state.calls.is_empty() => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    pub(super) async fn deliver(&mut self, come: Come) -> Result<(), Failure> {
        undisturbed(&mut self.store);
        let Event { id, context, what } = match come {
            Come::Event(event) => event,
            Come::Tick => {
                let state = self.data();
                state.effective = ROOT;
                if let Some(tick) = &mut state.tick {
                    tick.due = tokio::time::Instant::now() + tick.period;
                }
                return self.call(On::Tick, [ROOT, 0, 0, 0, 0]).await.map(|_| ());
            }
        };
        let state = self.data();
        state.effective = context;
        let received = &mut state.calls.received;
        let (on, rest) = match what {
            What::Answer(answer) => {
                let rest = answer.map_or([0; 3], |answer| {
                    received.head = Some(answer.head);
                    let headers = received.head.as_mut().map_or(0, |head| Map::Response(head).len());
                    let rest = [count(headers), length(&answer.body), count(answer.trailers.len())];
                    received.body = Some(answer.body);
                    received.trailers = answer.trailers;
                    rest
                });
                (On::HttpCallResponse, rest)
            }
            What::Metadata(metadata) => {
                received.metadata = metadata;
                (On::GrpcInitialMetadata, [count(received.metadata.len()), 0, 0])
            }
            What::Message(message) => {
                let size = length(&message);
                received.message = Some(message);
                (On::GrpcMessage, [size, 0, 0])
            }
            What::Trailers(trailers) => {
                received.trailers = trailers;
                (On::GrpcTrailingMetadata, [count(received.trailers.len()), 0, 0])
            }
            What::Closed { status, message } => {
                received.status = (status, message);
                (On::GrpcClose, [status, 0, 0])
            }
        };
        let [first, second, third] = rest;
        // Whatever asked: the SDKs look the plugin up, and find by the number who waits for it.
        self.call(on, [ROOT, id, first, second, third]).await?;
        let received = &mut self.data().calls.received;
        *received = Received { status: std::mem::take(&mut received.status), ..Received::default() };
        Ok(())
    }
}

/// The start that the module has: of a library and a `main` perhaps, or of a program.
async fn initialise(instance: &wasmtime::Instance, store: &mut Store<ProxyState>) -> wasmtime::Result<()> {
    let start = match instance.get_typed_func::<(), ()>(store.as_context_mut(), "_initialize") {
        Ok(initialize) => {
            initialize.call_async(&mut *store, ()).await?;
            let Ok(main) = instance.get_typed_func::<(u32, u32), u32>(&mut *store, "main") else {
                return Ok(());
            };
            main.call_async(&mut *store, (0, 0)).await.map(|_| ())
        }
        Err(_) => match instance.get_typed_func::<(), ()>(&mut *store, "_start") {
            Ok(start) => start.call_async(&mut *store, ()).await,
            Err(_) => Ok(()),
        },
    };
    match start {
        // A start that ends like a program has done its work.
        Err(error) if error.downcast_ref::<I32Exit>().is_some_and(|exit| exit.0 == 0) => Ok(()),
        other => other,
    }
}

pub(super) fn length(bytes: &Bytes) -> u32 {
    count(bytes.len())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
