//! What a running program listens on, as the host sees it: where, whether somebody is connected, how to end it, and how
//! to pass its listening sockets on to the version that follows it.

use super::forward::Forward;
use super::socket::Socket;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// The listening sockets of one running program. The program opens them; the host looks at them and closes them.
pub struct Ports {
    seen: watch::Sender<Seen>,
    closed: AtomicBool,
    /// The program accepted connections through sockets that are not ours, which nobody counts.
    uncounted: AtomicBool,
    listeners: Mutex<Vec<Listener>>,
    /// Listening sockets of the version before, which this one takes by binding to the same address.
    inherited: Mutex<Vec<(SocketAddr, SocketAddr, socket2::Socket)>>,
    /// The version before still takes connections from what was inherited: that is not ours to shut down.
    shares: AtomicBool,
    pub(super) forward: Forward,
}

/// An open listener.
struct Listener {
    /// What the program wanted to be bound to; its port may be 0.
    asked: SocketAddr,
    /// What it is bound to.
    address: SocketAddr,
    /// It was that of the version before.
    inherited: bool,
    socket: Weak<socket2::Socket>,
}

/// What others wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The first of the listeners, as one connects to it.
    address: Option<SocketAddr>,
    /// Connections that came in and are open.
    connections: usize,
    /// The listener is one of a component.
    elsewhere: bool,
}

/// A listener, as long as it is open.
pub(super) struct Listening {
    ports: Arc<Ports>,
    address: SocketAddr,
}

/// A connection that came in, as long as it is open.
pub(crate) struct Accepted(Arc<Ports>);

// === impl Ports ===

impl Ports {
    /// Of a program that has not begun.
    pub fn new() -> Arc<Ports> {
        Arc::new(Ports {
            seen: watch::Sender::new(Seen::default()),
            closed: AtomicBool::new(false),
            uncounted: AtomicBool::new(false),
            listeners: Mutex::default(),
            inherited: Mutex::default(),
            shares: AtomicBool::new(false),
            forward: Forward::default(),
        })
    }

    /// Of a program that begins while another version of it runs: binding to an address of that one gives it the very
    /// socket, so that both take connections from one queue until [`Ports::hand_over`].
    pub fn beside(before: &Ports) -> Arc<Ports> {
        let ports = Ports::new();
        let listeners = before.listeners.lock();
        let sockets = listeners.iter().filter_map(|listener| {
            let socket = listener.socket.upgrade()?.try_clone().ok()?;
            Some((listener.asked, listener.address, socket))
        });
        *ports.inherited.lock() = sockets.collect();
        ports.shares.store(true, Ordering::SeqCst);
        drop(listeners);
        ports
    }

    /// Where to connect to the program, if it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.seen.borrow().address
    }

    /// Waits until the program listens.
    pub async fn opened(&self) -> SocketAddr {
        let mut seen = self.seen.subscribe();
        let address = seen.wait_for(|seen| seen.address.is_some()).await.ok().and_then(|seen| seen.address);
        match address {
            Some(address) => address,
            // Nobody tells any more; cannot be while `self` is borrowed.
            None => std::future::pending().await,
        }
    }

    /// Connections that came in and are open.
    pub fn connections(&self) -> usize {
        self.seen.borrow().connections
    }

    /// Closes all listeners, for good: nobody can connect from here on, and the program, which is not told, waits for
    /// connections that never come. Those under way go on. `false` if the program listens with sockets of a component,
    /// which are closed when it ends; until then it gets no connection any more.
    pub fn close(&self) -> bool {
        self.close_but(&[])
    }

    /// Closes all listeners but those that `next` has as well: they go on, and only `next` takes connections from them.
    /// No connection is refused or lost on the way.
    pub fn hand_over(&self, next: &Ports) -> bool {
        let passed_on: Vec<SocketAddr> =
            next.listeners.lock().iter().map(|listener| listener.address).collect();
        // What it did not want is not kept open by it.
        next.inherited.lock().clear();
        next.shares.store(false, Ordering::SeqCst);
        self.close_but(&passed_on)
    }

    fn close_but(&self, passed_on: &[SocketAddr]) -> bool {
        self.closed.store(true, Ordering::SeqCst);
        self.forward.close();
        self.inherited.lock().clear();
        for listener in std::mem::take(&mut *self.listeners.lock()) {
            let is_shared = listener.inherited && self.shares.load(Ordering::SeqCst);
            let stays = is_shared || passed_on.contains(&listener.address);
            if let (false, Some(socket)) = (stays, listener.socket.upgrade()) {
                // A listener that is shut down listens no more, whoever holds it.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        let is_ours = !self.seen.borrow().elsewhere;
        self.look();
        is_ours
    }

    /// Whether it was told to close.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until no connection that came in is open; for ever if they cannot be counted.
    pub async fn quiet(&self) {
        if self.uncounted.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        // Fails only without a sender, which `self` is.
        let _ = self.seen.subscribe().wait_for(|seen| seen.connections == 0).await;
    }

    /// A socket of the program listens.
    pub(super) fn listens(self: &Arc<Self>, socket: &Socket, address: SocketAddr) -> Listening {
        self.listeners.lock().push(Listener {
            asked: socket.asked.unwrap_or(address),
            address,
            inherited: socket.inherited,
            socket: Arc::downgrade(socket.raw()),
        });
        self.look();
        if self.is_closed() {
            self.close();
        }
        Listening { ports: Arc::clone(self), address }
    }

    /// The listening socket of the version before, if it has one of this address.
    pub(super) fn inherit(&self, asked: SocketAddr) -> Option<socket2::Socket> {
        let mut inherited = self.inherited.lock();
        let place = inherited.iter().position(|(_, address, _)| *address == asked);
        let place = place.or_else(|| inherited.iter().position(|(wanted, ..)| *wanted == asked))?;
        Some(inherited.remove(place).2)
    }

    /// A program whose sockets are not ours listens.
    pub(crate) fn listens_elsewhere(&self, address: SocketAddr) {
        self.seen.send_modify(|seen| (seen.address, seen.elsewhere) = (Some(reachable(address)), true));
    }

    /// Whether a program whose sockets are not ours may accept one more connection.
    pub(crate) fn accepts_elsewhere(&self) -> bool {
        let is_open = !self.is_closed();
        if is_open {
            self.uncounted.store(true, Ordering::SeqCst);
        }
        is_open
    }

    /// A program whose sockets are not ours accepted a connection, which is counted after all.
    pub(super) fn accepted_elsewhere(self: &Arc<Self>) -> Accepted {
        self.uncounted.store(false, Ordering::SeqCst);
        self.accepted()
    }

    pub(super) fn accepted(self: &Arc<Self>) -> Accepted {
        self.seen.send_modify(|seen| seen.connections += 1);
        Accepted(Arc::clone(self))
    }

    fn look(&self) {
        let first = self.listeners.lock().first().map(|listener| reachable(listener.address));
        self.seen.send_modify(|seen| seen.address = first);
    }
}

/// Where a listener on all addresses is reached from here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = self.ports.listeners.lock();
        if let Some(place) = listeners.iter().position(|listener| listener.address == self.address) {
            listeners.remove(place);
        }
        drop(listeners);
        self.ports.look();
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.seen.send_modify(|seen| seen.connections -= 1);
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("seen", &*self.seen.borrow()).finish_non_exhaustive()
    }
}
