//! One socket. The system's never waits: an operation is tried first, and waited for only when it must be.

use super::errno::Errno;
use super::os;
use super::ports::{Accepted, Listening};
use socket2::{Domain, Protocol, SockAddr, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An open socket of a guest.
pub(super) struct Socket {
    io: Io,
    pub(super) is_stream: bool,
    /// The guest wants to be told instead of waiting.
    pub(super) nonblocking: bool,
    pub(super) receive_timeout: Option<Duration>,
    pub(super) send_timeout: Option<Duration>,
    /// It was bound to an address where the app may listen; none before it is bound.
    pub(super) may_listen: Option<bool>,
    /// What it was to be bound to; the system may have chosen the port.
    pub(super) asked: Option<SocketAddr>,
    /// It is the socket of the version before, too.
    pub(super) inherited: bool,
    /// The address that it says it is connected to, where the system knows another.
    pub(super) peer: Option<SocketAddr>,
    /// Whom datagrams were allowed to go to last.
    pub(super) allowed: Option<SocketAddr>,
    pub(super) told: Told,
    pub(super) listening: Option<Listening>,
    /// Counts it among the connections that came in.
    _accepted: Option<Accepted>,
}

/// What a guest that waits has been told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// The call that it last wanted to read in, and write.
    pub(super) read_in: u64,
    pub(super) write_in: u64,
    /// So many bytes can be received.
    pub(super) readable: Option<u32>,
    pub(super) writable: bool,
}

enum Io {
    /// Nothing can become ready yet. A stream that is neither connected nor listening counts as hung up, which the
    /// executor would never forget.
    Idle(Arc<socket2::Socket>),
    Watched(AsyncFd<Arc<socket2::Socket>>),
}

// === impl Socket ===

impl Socket {
    pub(super) fn open(domain: Domain, is_stream: bool) -> Result<Socket, Errno> {
        let (kind, protocol) =
            if is_stream { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
        let raw = socket2::Socket::new(domain, kind.nonblocking(), Some(protocol))?;
        if is_stream {
            // Programs write the head and the body of an answer apart, and the interface has no option for this one:
            // the second would wait for the acknowledgement of the first. Connections that come in inherit it.
            raw.set_tcp_nodelay(true)?;
        }
        let mut socket = Socket::new(raw, is_stream);
        if !is_stream {
            socket.watch()?;
        }
        Ok(socket)
    }

    /// A connection that came in.
    pub(super) fn accepted(
        raw: socket2::Socket,
        nonblocking: bool,
        accepted: Accepted,
    ) -> Result<Socket, Errno> {
        raw.set_nonblocking(true)?;
        let mut socket = Socket { nonblocking, _accepted: Some(accepted), ..Socket::new(raw, true) };
        socket.watch()?;
        Ok(socket)
    }

    fn new(raw: socket2::Socket, is_stream: bool) -> Socket {
        Socket {
            io: Io::Idle(Arc::new(raw)),
            is_stream,
            nonblocking: false,
            receive_timeout: None,
            send_timeout: None,
            may_listen: None,
            asked: None,
            inherited: false,
            peer: None,
            allowed: None,
            told: Told::default(),
            listening: None,
            _accepted: None,
        }
    }

    /// The system's socket.
    pub(super) fn raw(&self) -> &Arc<socket2::Socket> {
        match &self.io {
            Io::Idle(raw) => raw,
            Io::Watched(io) => io.get_ref(),
        }
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.raw().as_raw_fd()
    }

    /// What tells when it becomes ready; none while it cannot.
    pub(super) fn watched(&self) -> Option<&AsyncFd<Arc<socket2::Socket>>> {
        match &self.io {
            Io::Idle(_) => None,
            Io::Watched(io) => Some(io),
        }
    }

    /// Whom it is connected to, if it is.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        self.peer.or_else(|| self.raw().peer_addr().ok()?.as_socket())
    }

    fn watch(&mut self) -> Result<(), Errno> {
        if let Io::Idle(raw) = &self.io {
            self.io = Io::Watched(os::watch(Arc::clone(raw))?);
        }
        Ok(())
    }

    /// Makes it one end of a connection within the process, whatever it was before.
    pub(super) fn become_connected(&mut self, raw: socket2::Socket, peer: SocketAddr) -> Result<(), Errno> {
        raw.set_nonblocking(true)?;
        self.io = Io::Idle(Arc::new(raw));
        self.peer = Some(peer);
        self.watch()
    }

    /// Makes it the socket that the version before had for the same address.
    pub(super) fn inherit(&mut self, raw: socket2::Socket) -> Result<(), Errno> {
        (self.io, self.inherited) = (Io::Idle(Arc::new(raw)), true);
        // A stream waits for nothing before it listens.
        if self.is_stream { Ok(()) } else { self.watch() }
    }

    pub(super) async fn connect(&mut self, address: SocketAddr) -> Result<(), Errno> {
        let address = SockAddr::from(address);
        match self.raw().connect(&address) {
            Ok(()) => return self.watch(),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => self.watch()?,
            Err(error) => return Err(error.into()),
        }
        if self.nonblocking {
            return Err(Errno::INPROGRESS);
        }
        let Io::Watched(io) = &self.io else { return Err(Errno::IO) };
        let connected = async {
            loop {
                let mut ready = io.writable().await?;
                // Asked once more, the system tells what came of it; the socket can then try again if it failed.
                match io.get_ref().connect(&address) {
                    Err(error)
                        if matches!(error.raw_os_error(), Some(libc::EALREADY | libc::EINPROGRESS)) =>
                    {
                        ready.clear_ready();
                    }
                    other => return other,
                }
            }
        };
        // As the system does, which goes on connecting.
        Ok(within(self.send_timeout, connected, Errno::INPROGRESS).await??)
    }

    pub(super) fn listen(&mut self, backlog: i32) -> Result<(), Errno> {
        self.raw().listen(backlog)?;
        self.watch()
    }

    /// Whether the host has closed what connections, or datagrams, come to.
    pub(super) fn is_closed(&self) -> bool {
        self.listening.as_ref().is_some_and(Listening::is_closed)
    }

    /// [`Socket::attempt`] to take what came to the program's own port; nothing comes to one that the host has closed.
    pub(super) async fn take<T>(
        &self,
        mut operation: impl FnMut(&socket2::Socket) -> io::Result<T>,
    ) -> Result<T, Errno> {
        // One that was handed over to another version is open, and what comes is not ours. One that was closed may be
        // ready for ever, so that waiting for it would never end.
        let taken = self.attempt(Interest::READABLE, |raw| match self.is_closed() {
            true => Err(io::ErrorKind::NotConnected.into()),
            false => operation(raw),
        });
        match taken.await {
            Err(_) if self.is_closed() && self.nonblocking => Err(Errno::AGAIN),
            Err(_) if self.is_closed() => std::future::pending().await,
            taken => taken,
        }
    }

    /// Tries, and goes on trying as long as the guest waits. `Err(AGAIN)` when it does not, or not so long.
    pub(super) async fn attempt<T>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&socket2::Socket) -> io::Result<T>,
    ) -> Result<T, Errno> {
        loop {
            match operation(self.raw()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                other => return Ok(other?),
            }
        }
        let Io::Watched(io) = &self.io else { return Err(Errno::AGAIN) };
        if self.nonblocking {
            return Err(Errno::AGAIN);
        }
        let limit = if interest.is_writable() { self.send_timeout } else { self.receive_timeout };
        Ok(within(limit, io.async_io(interest, |raw| operation(raw)), Errno::AGAIN).await??)
    }
}

async fn within<T>(limit: Option<Duration>, wait: impl Future<Output = T>, late: Errno) -> Result<T, Errno> {
    match limit {
        None => Ok(wait.await),
        Some(limit) => tokio::time::timeout(limit, wait).await.map_err(|_| late),
    }
}
