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
    /// Sockets of the version before, which this one takes by binding to the same address.
    inherited: Mutex<Vec<Inherited>>,
    /// The version before still takes connections from what was inherited: that is not ours to shut down.
    shares: AtomicBool,
    pub(super) forward: Forward,
}

/// An open listener, or a socket that datagrams come to.
struct Listener {
    bound: Bound,
    /// It was that of the version before.
    inherited: bool,
    socket: Weak<socket2::Socket>,
}

/// What a socket is bound to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bound {
    /// What the program wanted to be bound to; its port may be 0.
    asked: SocketAddr,
    /// What it is bound to.
    address: SocketAddr,
    is_stream: bool,
}

/// A socket of the version before.
struct Inherited {
    bound: Bound,
    socket: socket2::Socket,
}

/// What others wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The first of the listeners, as one connects to it.
    address: Option<SocketAddr>,
    /// Something can come to it: connections, or datagrams.
    is_open: bool,
    /// Sockets of the version before that it has not taken yet.
    untaken: usize,
    /// Connections that came in and are open.
    connections: usize,
    /// The listener is one of a component.
    elsewhere: bool,
}

/// A listener, as long as it is open.
pub(super) struct Listening {
    ports: Arc<Ports>,
    bound: Bound,
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
    /// socket, so that both take what comes from one queue until [`Ports::hand_over`].
    pub fn beside(before: &Ports) -> Arc<Ports> {
        let ports = Ports::new();
        let listeners = before.listeners.lock();
        let sockets = listeners.iter().filter_map(|listener| {
            let socket = listener.socket.upgrade()?.try_clone().ok()?;
            Some(Inherited { bound: listener.bound, socket })
        });
        *ports.inherited.lock() = sockets.collect();
        ports.shares.store(true, Ordering::SeqCst);
        drop(listeners);
        ports.look();
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

    /// Waits until connections or datagrams can come to the program.
    pub async fn open(&self) {
        // Fails only without a sender, which `self` is.
        let _ = self.seen.subscribe().wait_for(|seen| seen.is_open).await;
    }

    /// Waits until it has taken all that the version before has open.
    pub async fn taken(&self) {
        let _ = self.seen.subscribe().wait_for(|seen| seen.untaken == 0).await;
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
        let passed_on: Vec<Bound> = next.listeners.lock().iter().map(|listener| listener.bound).collect();
        // What it did not want is not kept open by it; but a port of datagrams is free only when its last socket is
        // closed, which that of this program is when it ends.
        next.inherited.lock().retain(|inherited| !inherited.bound.is_stream);
        next.shares.store(false, Ordering::SeqCst);
        next.look();
        self.close_but(&passed_on)
    }

    fn close_but(&self, passed_on: &[Bound]) -> bool {
        self.closed.store(true, Ordering::SeqCst);
        self.forward.close();
        self.inherited.lock().clear();
        for listener in std::mem::take(&mut *self.listeners.lock()) {
            let is_shared = listener.inherited && self.shares.load(Ordering::SeqCst);
            // To datagrams, a socket that is shut down is one that is ready for ever; nobody reads them any more.
            let stays = is_shared || !listener.bound.is_stream || listener.bound.is_among(passed_on);
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

    /// A socket of the program listens, or datagrams come to it.
    pub(super) fn listens(self: &Arc<Self>, socket: &Socket, address: SocketAddr) -> Listening {
        let asked = socket.asked.unwrap_or(address);
        let bound = Bound { asked, address, is_stream: socket.is_stream };
        self.listeners.lock().push(Listener {
            bound,
            inherited: socket.inherited,
            socket: Arc::downgrade(socket.raw()),
        });
        self.look();
        if self.is_closed() {
            self.close();
        }
        Listening { ports: Arc::clone(self), bound }
    }

    /// The socket of the version before, if it has one of this address.
    pub(super) fn inherit(&self, asked: SocketAddr, is_stream: bool) -> Option<socket2::Socket> {
        let mut inherited = self.inherited.lock();
        let find = |of: fn(&Bound) -> SocketAddr| {
            inherited.iter().position(|known| known.bound.is_stream == is_stream && of(&known.bound) == asked)
        };
        let found = find(|bound| bound.address).or_else(|| find(|bound| bound.asked))?;
        Some(inherited.remove(found).socket)
    }

    /// A program whose sockets are not ours listens.
    pub(crate) fn listens_elsewhere(&self, address: SocketAddr) {
        self.seen.send_modify(|seen| {
            (seen.address, seen.is_open, seen.elsewhere) = (Some(reachable(address)), true, true);
        });
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
        let listeners = self.listeners.lock();
        let first = listeners.iter().find(|listener| listener.bound.is_stream);
        let first = first.map(|listener| reachable(listener.bound.address));
        let is_open = !listeners.is_empty();
        drop(listeners);
        let untaken = self.inherited.lock().len();
        self.seen.send_modify(|seen| (seen.address, seen.is_open, seen.untaken) = (first, is_open, untaken));
    }
}

// === impl Bound ===

impl Bound {
    /// Whether another program has it as well, whatever it asked for to get it.
    fn is_among(&self, others: &[Bound]) -> bool {
        others.iter().any(|other| (other.address, other.is_stream) == (self.address, self.is_stream))
    }
}

// === impl Listening ===

impl Listening {
    /// Whether the host has closed it, or handed it over.
    pub(super) fn is_closed(&self) -> bool {
        self.ports.is_closed()
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
        if let Some(place) = listeners.iter().position(|listener| listener.bound == self.bound) {
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
