//! Programs with an accept loop of their own: started when they are registered, started again when they end, and let go
//! without breaking off who is connected.
//!
//! A service is a program whose app may listen. It runs from the moment that the host has it, in a task of its own; what
//! it prints are lines of the app. When it ends, for whatever reason, it is started again: after 100 ms, then after twice
//! as long each time up to 30 s, and after 100 ms again once it ran for a minute. When the app goes its listeners close
//! first; connections under way have [`DRAIN`] to end; then the program is ended. When it is replaced, the new version
//! begins beside it with the same listening sockets; the old one takes no connections any more once the new one does.

use crate::app::{App, Kind};
use crate::metrics::ServiceMetrics;
use dhow_blocks::invoke::{Invocation, InvokeError, Reply};
use dhow_guest::setup::UNLIMITED;
use dhow_guest::{Failure, Ports, Stdio};
use dhow_providers::backoff::Backoff;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Connections under way have this long when a service goes.
pub const DRAIN: Duration = Duration::from_secs(10);

/// A new version that listens has this long to take the other ports of the one before.
const TAKING: Duration = Duration::from_secs(1);

/// A service that ran for so long was well: it is started again soon.
const WELL: Duration = Duration::from_secs(60);

/// A program that listens, and its life.
pub struct Service {
    state: watch::Sender<State>,
    /// Those of the program that runs, or ran last.
    ports: watch::Sender<Arc<Ports>>,
    closing: watch::Sender<bool>,
    /// The version that has its ports now: requests that meet this one while it goes are for that one.
    successor: OnceLock<Weak<App>>,
    metrics: ServiceMetrics,
}

/// Where a service is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was not started yet.
    Registered,
    /// It runs.
    Running,
    /// It ended, and will be started again.
    Restarting {
        /// How it ended.
        last_exit: String,
    },
    /// Its listeners are closed, and connections under way end.
    Draining,
    /// It is gone.
    Stopped,
}

// === impl Service ===

impl Service {
    pub(crate) fn new(metrics: ServiceMetrics) -> Service {
        Service {
            state: watch::Sender::new(State::Registered),
            ports: watch::Sender::new(Ports::new()),
            closing: watch::Sender::new(false),
            successor: OnceLock::new(),
            metrics,
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Where it listens, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.ports.borrow().address()
    }

    /// Connections that came in and are open.
    pub fn connections(&self) -> usize {
        self.ports.borrow().connections()
    }

    /// Why nobody can connect to it, while that is so.
    pub(crate) fn silence(&self) -> Option<String> {
        if self.address().is_some() {
            return None;
        }
        Some(match self.state() {
            State::Restarting { last_exit } => format!("it ended ({last_exit}), and is started again"),
            State::Running => "it runs, and listens for no connections".to_owned(),
            state => format!("it is {state}"),
        })
    }

    /// Closes its listeners for good; the program is ended when its connections are. `false` if the listeners are
    /// those of a component, which are closed only when it ends.
    pub(crate) fn close(&self) -> bool {
        self.closing.send_replace(true);
        let was_registered = self.state.send_if_modified(|state| {
            let is_registered = *state == State::Registered;
            if is_registered {
                *state = State::Stopped;
            }
            is_registered
        });
        let closed = self.ports.borrow().close();
        closed || was_registered
    }

    /// Waits until the program listens; the error is how it ended instead.
    pub(crate) async fn begun(&self) -> Result<(), String> {
        let mut state = self.state.subscribe();
        let ended = async {
            let ended = state.wait_for(|state| !matches!(state, State::Registered | State::Running)).await;
            match ended.as_deref() {
                Ok(State::Restarting { last_exit }) => format!("the service ended: {last_exit}"),
                _ => "the service was stopped".to_owned(),
            }
        };
        tokio::select! {
            biased;
            () = self.open() => Ok(()),
            reason = ended => Err(reason),
        }
    }

    /// Takes no connections any more; what listens at the same address in `next` does. Those under way go on.
    fn hand_over(&self, next: &Arc<App>) {
        let _ = self.successor.set(Arc::downgrade(next));
        if let Some(service) = &next.service {
            // Before anybody hears of it: what is only told to close shuts its listeners down, for the other, too.
            let next = Arc::clone(&*service.ports.borrow());
            self.ports.borrow().hand_over(&next);
            self.closing.send_replace(true);
        }
    }

    /// Waits until the program is gone.
    pub(crate) async fn stopped(&self) {
        // Fails only without a sender, which `self` is.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Stopped).await;
    }

    /// Sends a request to the port of the service; waits until it listens, if it does not.
    pub(crate) async fn invoke(
        &self,
        app_id: &str,
        invocation: Invocation,
        limit: u64,
    ) -> Result<Reply, InvokeError> {
        let mut closing = self.closing.subscribe();
        let gone = async {
            let _ = closing.wait_for(|is_closing| *is_closing).await;
        };
        let (ports, address) = tokio::select! {
            biased;
            found = self.listening() => found,
            () = gone => return match self.successor.get().and_then(Weak::upgrade) {
                Some(next) => match &next.service {
                    Some(service) => Box::pin(service.invoke(app_id, invocation, limit)).await,
                    None => Err(InvokeError::ShuttingDown),
                },
                None => Err(InvokeError::ShuttingDown),
            },
        };
        ports.forward(address, invocation, limit).await.map_err(|failure| match failure {
            Failure::RequestTooLarge(limit) => {
                InvokeError::RequestTooLarge { app_id: app_id.to_owned(), limit }
            }
            failure => InvokeError::Unreachable {
                app_id: app_id.to_owned(),
                reason: format!("on {address}: {failure}"),
            },
        })
    }

    /// Waits until something can come to the program: a connection, or a datagram.
    async fn open(&self) {
        let mut current = self.ports.subscribe();
        loop {
            let ports = Arc::clone(&current.borrow_and_update());
            tokio::select! {
                () = ports.open() => return,
                Ok(()) = current.changed() => {}
            }
        }
    }

    async fn listening(&self) -> (Arc<Ports>, SocketAddr) {
        let mut current = self.ports.subscribe();
        loop {
            let ports = Arc::clone(&current.borrow_and_update());
            tokio::select! {
                address = ports.opened() => return (ports, address),
                Ok(()) = current.changed() => {}
            }
        }
    }

    /// Ports for the next run, shared with the version before as long as that one has them; none when there is to be
    /// none.
    fn begin(&self, before: Option<&Arc<App>>) -> Option<Arc<Ports>> {
        let before = before.and_then(|app| app.service.as_ref());
        let ports = match before {
            Some(before) => Ports::beside(&before.ports.borrow()),
            None => Ports::new(),
        };
        self.ports.send_replace(Arc::clone(&ports));
        // Looked at after the ports are known: who closes them sets this first.
        if *self.closing.borrow() {
            return None;
        }
        self.state.send_replace(State::Running);
        self.metrics.running.set(1);
        Some(ports)
    }
}

impl App {
    /// The service that it is, if it is one.
    pub fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// Whether it can listen at the ports of that version while that one still runs: the sockets of components are their
    /// own, and cannot be passed on.
    pub(crate) fn can_share_ports(&self, before: Option<&Arc<App>>) -> bool {
        let is_core = |app: &App| {
            app.module().is_some_and(|module| module.program.inspection.kind == dhow_engine::Kind::Module)
        };
        match before.filter(|before| before.service.is_some()) {
            Some(before) => is_core(self) && is_core(before),
            None => true,
        }
    }

    /// Keeps its service running until it is closed. It takes the ports of `before`, while that has any.
    pub(crate) async fn supervise(self: Arc<Self>, before: Option<Arc<App>>) {
        let Some(service) = &self.service else { return };
        let app_id = &*self.app_id;
        let mut backoff = Backoff::new();
        let mut closing = service.closing.subscribe();
        while let Some(ports) = service.begin(before.as_ref()) {
            let began = Instant::now();
            let opened = async {
                let address = ports.opened().await;
                tracing::info!(app_id, version = self.version, "the service listens on {address}");
                std::future::pending::<()>().await
            };
            let closed = async {
                let _ = closing.wait_for(|is_closing| *is_closing).await;
                service.state.send_replace(State::Draining);
                // Also of a program that was just starting.
                ports.close();
                let _ = tokio::time::timeout(DRAIN, ports.quiet()).await;
                ports.connections()
            };
            let last_exit = tokio::select! {
                last_exit = self.run_service(&ports) => last_exit,
                () = opened => break,
                cut_off = closed => {
                    if cut_off > 0 {
                        tracing::warn!(app_id, "{cut_off} connections of the service were cut off");
                    }
                    break;
                }
            };
            service.metrics.running.set(0);
            // The requests that wait for the next program must not find the port of this one.
            ports.close();
            if *service.closing.borrow() {
                break;
            }
            if began.elapsed() >= WELL {
                backoff.reset();
            }
            let wait = backoff.wait();
            service.metrics.restarts.inc();
            tracing::warn!(
                app_id,
                version = self.version,
                "the service ended: {last_exit}; it is started again in {wait:.1?}"
            );
            service.state.send_replace(State::Restarting { last_exit });
            let closed = closing.wait_for(|is_closing| *is_closing);
            let _ = tokio::time::timeout(wait, closed).await;
        }
        service.metrics.running.set(0);
        service.state.send_replace(State::Stopped);
    }

    /// Runs the program once; the answer is how it ended, in words.
    async fn run_service(&self, ports: &Arc<Ports>) -> String {
        let Kind::Wasm(module) = &self.kind else { return "it is no module".to_owned() };
        let guest = match self.guest(module).await {
            Ok(guest) => guest,
            Err(error) => return error.to_string(),
        };
        match guest.run(&[], Stdio::Lines, Arc::clone(ports), UNLIMITED).await {
            Some(Ok(code)) => format!("exit code {code}"),
            Some(Err(failure)) => failure.to_string(),
            None => "it is no program".to_owned(),
        }
    }
}

/// Starts the services among the new apps, and lets go of those that are not among them. A new version begins beside
/// the old one and takes its ports over when it listens; where it cannot share them, when they are closed.
pub(crate) fn settle<'a>(old: impl Iterator<Item = &'a Arc<App>>, new: impl Iterator<Item = &'a Arc<App>>) {
    let new: Vec<&Arc<App>> = new.filter(|app| app.service.is_some()).collect();
    let mut before: HashMap<&str, Arc<App>> = HashMap::new();
    let mut leaving: HashMap<&str, Arc<App>> = HashMap::new();
    for app in old {
        let Some(service) = &app.service else { continue };
        if new.iter().any(|known| Arc::ptr_eq(known, app)) {
            continue;
        }
        match new.iter().find(|next| next.app_id == app.app_id) {
            Some(next) if next.can_share_ports(Some(app)) => {
                before.insert(&app.app_id, Arc::clone(app));
                tokio::spawn(pass_on(Arc::clone(app), Arc::clone(next)));
            }
            _ if service.close() => {}
            _ => {
                leaving.insert(&app.app_id, Arc::clone(app));
            }
        }
    }
    for app in new {
        // It may have begun before it was registered, to see whether it can.
        if app.service.as_ref().is_none_or(|service| service.state() != State::Registered) {
            continue;
        }
        let (before, leaving) = (before.get(&*app.app_id).cloned(), leaving.get(&*app.app_id).cloned());
        let app = Arc::clone(app);
        tokio::spawn(async move {
            if let Some(service) = leaving.as_ref().and_then(|app| app.service.as_ref()) {
                service.stopped().await;
            }
            app.supervise(before).await;
        });
    }
}

/// Lets an old version go when the new one listens, or goes itself.
async fn pass_on(old: Arc<App>, next: Arc<App>) {
    let (Some(service), Some(following)) = (&old.service, &next.service) else { return };
    let mut closing = following.closing.subscribe();
    let begun = tokio::select! {
        biased;
        () = following.open() => true,
        _ = closing.wait_for(|is_closing| *is_closing) => false,
    };
    if begun {
        let ports = Arc::clone(&*following.ports.borrow());
        let _ = tokio::time::timeout(TAKING, ports.taken()).await;
        service.hand_over(&next);
    } else {
        service.close();
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Registered => "registered",
            State::Running => "running",
            State::Restarting { .. } => "restarting",
            State::Draining => "draining",
            State::Stopped => "stopped",
        })
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}
