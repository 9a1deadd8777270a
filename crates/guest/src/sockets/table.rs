//! The open sockets of a module, by descriptor, and what they may reach.

use super::errno::Errno;
use super::ports::Ports;
use super::socket::Socket;
use crate::setup::Setup;
use crate::store::Origin;
use dhow_blocks::grants::Ask;
use std::net::SocketAddr;
use std::sync::Arc;

/// Descriptors of sockets begin here, far behind those of files.
const FIRST: u32 = 1 << 20;

/// The sockets of one running module.
pub(crate) struct Sockets {
    pub(super) setup: Arc<Setup>,
    pub(super) origin: Origin,
    pub(super) ports: Arc<Ports>,
    open: Vec<Option<Socket>>,
    /// Places that were used and are free.
    free: Vec<u32>,
    pub(super) poll: super::poll::Scratch,
    /// The socket whose last bytes the system still holds back, see [`Sockets::hold`].
    held: Option<u32>,
}

/// The standard streams are there and no sockets; any other descriptor is not there.
fn missing(fd: u32) -> Errno {
    if fd < 3 { Errno::NOTSOCK } else { Errno::BADF }
}

// === impl Sockets ===

impl Sockets {
    pub(crate) fn new(setup: Arc<Setup>, origin: Origin, ports: Arc<Ports>) -> Sockets {
        let (open, free) = (Vec::new(), Vec::new());
        Sockets { setup, origin, ports, open, free, poll: Default::default(), held: None }
    }

    /// Whether a descriptor is in the range of sockets.
    pub(super) fn owns(fd: u32) -> bool {
        fd >= FIRST
    }

    pub(super) fn get(&self, fd: u32) -> Result<&Socket, Errno> {
        let place = fd.checked_sub(FIRST).and_then(|place| self.open.get(place as usize));
        place.and_then(Option::as_ref).ok_or(missing(fd))
    }

    pub(super) fn get_mut(&mut self, fd: u32) -> Result<&mut Socket, Errno> {
        let place = fd.checked_sub(FIRST).and_then(|place| self.open.get_mut(place as usize));
        place.and_then(Option::as_mut).ok_or(missing(fd))
    }

    /// Notes that the system holds back what was sent last. Libraries of guests send the head and the body of an answer
    /// one after the other: held back, the first is no packet of its own.
    pub(super) fn hold(&mut self, fd: u32) {
        self.held = Some(fd);
    }

    /// Has the system send what it holds back. Whoever may wait, or sends elsewhere, calls this before. A program that
    /// only computes loses a fifth of a second at most: then the system sends by itself (tcp(7), `TCP_CORK`).
    pub(super) fn let_go(&mut self) {
        if let Some(fd) = self.held.take()
            && let Ok(socket) = self.get(fd)
        {
            // It is set already; setting it once more pushes what waits. A connection that failed says so when it is used.
            let _ = socket.raw().set_tcp_nodelay(true);
        }
    }

    /// [`Sockets::let_go`], if it is another socket that is about to be used.
    pub(super) fn let_go_but(&mut self, fd: u32) {
        if self.held.is_some_and(|held| held != fd) {
            self.let_go();
        }
    }

    /// Whether one more socket may be opened; asked before one is made.
    pub(super) fn has_room(&self) -> Result<(), Errno> {
        let open = self.open.len() - self.free.len();
        if open < self.setup.bounds.handles { Ok(()) } else { Err(Errno::NFILE) }
    }

    /// The most subscriptions that make sense at once: each socket read and write, and as many others.
    pub(super) fn most_subscriptions(&self) -> u32 {
        u32::try_from(self.setup.bounds.handles).unwrap_or(u32::MAX / 4).saturating_mul(4).max(64)
    }

    pub(super) fn insert(&mut self, socket: Socket) -> Result<u32, Errno> {
        self.has_room()?;
        match self.free.pop() {
            Some(place) => {
                self.open[place as usize] = Some(socket);
                Ok(FIRST + place)
            }
            None => {
                let fd = u32::try_from(self.open.len()).ok().and_then(|place| FIRST.checked_add(place));
                self.open.push(Some(socket));
                fd.ok_or(Errno::NFILE)
            }
        }
    }

    pub(super) fn close(&mut self, fd: u32) -> Result<(), Errno> {
        self.get(fd)?;
        self.open[(fd - FIRST) as usize] = None;
        self.free.push(fd - FIRST);
        Ok(())
    }

    /// Gives a socket the descriptor of another one, which is closed.
    pub(super) fn renumber(&mut self, from: u32, to: u32) -> Result<(), Errno> {
        self.get(from)?;
        self.get(to)?;
        if from != to {
            let socket = self.open[(from - FIRST) as usize].take();
            self.open[(to - FIRST) as usize] = socket;
            self.free.push(from - FIRST);
        }
        Ok(())
    }

    /// Allows or refuses to take this address for a socket; `true` allows to listen there, too.
    pub(super) fn may_bind(&self, address: SocketAddr) -> Result<bool, Errno> {
        // Any address of the system's choice, which is what a socket that sends or connects has anyway.
        let is_any = address.ip().to_canonical().is_unspecified() && address.port() == 0;
        if is_any && !self.setup.scope.grants.connect.is_empty() {
            return Ok(false);
        }
        self.may_listen(address).map(|()| true)
    }

    /// Allows or refuses to listen at this address.
    pub(super) fn may_listen(&self, address: SocketAddr) -> Result<(), Errno> {
        let host = &address.ip().to_canonical().to_string();
        Ok(self.setup.scope.check(Ask::Listen { host, port: address.port() })?)
    }
}
