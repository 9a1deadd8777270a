//! Opening, binding, connecting, accepting, addresses.

use super::address::{self, INET4, INET6, UNIX, aligned, has_room, put};
use super::errno::{Errno, code};
use super::socket::Socket;
use super::{NAME, OTHER, Sockets, parts};
use crate::command::ModuleState;
use socket2::Domain;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use wasmtime::{Caller, Linker};

type Guest<'a> = Caller<'a, ModuleState>;

const DATAGRAM: u32 = 1;
const STREAM: u32 = 2;

/// The flag of descriptors that makes a socket not wait (`fdflags` in preview 1).
pub(super) const NONBLOCK: u32 = 4;

/// Connections that may wait to be accepted.
const BACKLOG: std::ops::RangeInclusive<i32> = 1..=4096;

pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    for name in ["sock_open", "sock_open_v2"] {
        linker.func_wrap(NAME, name, |mut guest: Guest<'_>, family: u32, kind: u32, fd: u32| {
            code(open(&mut guest, family, kind, fd))
        })?;
    }
    for name in ["sock_bind", "sock_bind_v2"] {
        linker.func_wrap(NAME, name, |mut guest: Guest<'_>, fd: u32, address: u32, port: u32| {
            code(bind(&mut guest, fd, address, port))
        })?;
    }
    for name in ["sock_listen", "sock_listen_v2"] {
        linker.func_wrap(NAME, name, |mut guest: Guest<'_>, fd: u32, backlog: u32| {
            code(listen(&mut guest, fd, backlog))
        })?;
    }
    for name in ["sock_connect", "sock_connect_v2"] {
        linker.func_wrap_async(
            NAME,
            name,
            |mut guest: Guest<'_>, (fd, address, port): (u32, u32, u32)| {
                Box::new(async move { code(connect(&mut guest, fd, address, port).await) })
            },
        )?;
    }
    for name in ["sock_accept", "sock_accept_v2"] {
        linker.func_wrap_async(
            NAME,
            name,
            |mut guest: Guest<'_>, (fd, flags, accepted): (u32, u32, u32)| {
                Box::new(async move { code(accept(&mut guest, fd, flags, accepted).await) })
            },
        )?;
    }
    linker.func_wrap_async(OTHER, "sock_accept", |mut guest: Guest<'_>, (fd, accepted): (u32, u32)| {
        Box::new(async move { code(accept(&mut guest, fd, 0, accepted).await) })
    })?;
    linker.func_wrap(NAME, "sock_shutdown", |mut guest: Guest<'_>, fd: u32, how: u32| {
        code(shutdown(&mut guest, fd, how))
    })?;
    linker.func_wrap(
        NAME,
        "sock_getlocaladdr",
        |mut guest: Guest<'_>, fd: u32, address: u32, kind: u32, port: u32| {
            code(tell(&mut guest, (fd, End::Local), address, Some(kind), port))
        },
    )?;
    linker.func_wrap(
        NAME,
        "sock_getpeeraddr",
        |mut guest: Guest<'_>, fd: u32, address: u32, kind: u32, port: u32| {
            code(tell(&mut guest, (fd, End::Peer), address, Some(kind), port))
        },
    )?;
    for (module, names) in [
        (NAME, ["sock_getlocaladdr_v2", "sock_getpeeraddr_v2"]),
        (OTHER, ["sock_getlocaladdr", "sock_getpeeraddr"]),
    ] {
        let [local, peer] = names;
        linker.func_wrap(module, local, |mut guest: Guest<'_>, fd: u32, address: u32, port: u32| {
            code(tell(&mut guest, (fd, End::Local), address, None, port))
        })?;
        linker.func_wrap(module, peer, |mut guest: Guest<'_>, fd: u32, address: u32, port: u32| {
            code(tell(&mut guest, (fd, End::Peer), address, None, port))
        })?;
    }
    Ok(())
}

fn open(guest: &mut Guest<'_>, family: u32, kind: u32, out: u32) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    has_room(&mut memory, out, 4)?;
    let domain = match u8::try_from(family) {
        Ok(INET4) => Domain::IPV4,
        Ok(INET6) => Domain::IPV6,
        Ok(UNIX) => return Err(Errno::NOSYS),
        _ => return Err(Errno::INVAL),
    };
    let is_stream = match kind {
        STREAM => true,
        DATAGRAM => false,
        _ => return Err(Errno::INVAL),
    };
    sockets.has_room()?;
    let fd = sockets.insert(Socket::open(domain, is_stream)?)?;
    put(&mut memory, out, fd)
}

fn bind(guest: &mut Guest<'_>, fd: u32, address: u32, port: u32) -> Result<(), Errno> {
    let (memory, sockets) = parts(guest)?;
    let address = address::read(&memory, address, port)?;
    sockets.get(fd)?;
    let may_listen = sockets.may_bind(address)?;
    let ports = std::sync::Arc::clone(&sockets.ports);
    let socket = sockets.get_mut(fd)?;
    let inherited = if socket.asked.is_none() { ports.inherit(address, socket.is_stream) } else { None };
    match inherited {
        Some(raw) => socket.inherit(raw)?,
        None => {
            if socket.is_stream {
                // A program that starts again finds its port free, though old connections are not forgotten yet.
                socket.raw().set_reuse_address(true)?;
            }
            socket.raw().bind(&address.into())?;
        }
    }
    (socket.may_listen, socket.asked) = (Some(may_listen), Some(address));
    // Datagrams come from here on, to a port that others can know.
    if may_listen && !socket.is_stream && address.port() != 0 {
        socket.listening = Some(ports.listens(socket, address));
    }
    Ok(())
}

fn listen(guest: &mut Guest<'_>, fd: u32, backlog: u32) -> Result<(), Errno> {
    let (_, sockets) = parts(guest)?;
    let socket = sockets.get(fd)?;
    if !socket.is_stream {
        return Err(Errno::NOTSUP);
    }
    let local = socket.raw().local_addr()?.as_socket();
    if socket.may_listen != Some(true) {
        // The system chooses the address, or chose it when the socket was bound to none in particular.
        let ip = local.map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        sockets.may_listen(SocketAddr::new(ip, 0))?;
    }
    let ports = std::sync::Arc::clone(&sockets.ports);
    let socket = sockets.get_mut(fd)?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX).clamp(*BACKLOG.start(), *BACKLOG.end());
    socket.listen(backlog)?;
    if socket.listening.is_none()
        && let Some(address) = socket.raw().local_addr()?.as_socket()
    {
        socket.listening = Some(ports.listens(socket, address));
    }
    Ok(())
}

async fn connect(guest: &mut Guest<'_>, fd: u32, address: u32, port: u32) -> Result<(), Errno> {
    let (memory, sockets) = parts(guest)?;
    let address = address::read(&memory, address, port)?;
    if sockets.get(fd)?.is_stream && sockets.is_runtime(address) {
        return sockets.connect_runtime(fd, address);
    }
    sockets.setup.may_connect(address)?;
    sockets.let_go();
    let socket = sockets.get_mut(fd)?;
    if !socket.is_stream {
        // It has one peer now, and is nobody else's port.
        socket.listening = None;
    }
    socket.connect(address).await
}

async fn accept(guest: &mut Guest<'_>, fd: u32, flags: u32, out: u32) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    sockets.let_go();
    has_room(&mut memory, out, 4)?;
    if flags & !NONBLOCK != 0 {
        return Err(Errno::INVAL);
    }
    sockets.get_mut(fd)?.told.readable = None;
    sockets.has_room()?;
    let raw = connection(sockets, fd).await?;
    let accepted = Socket::accepted(raw, flags & NONBLOCK != 0, sockets.ports.accepted())?;
    let fd = sockets.insert(accepted)?;
    put(&mut memory, out, fd)
}

/// The next connection to a listener; none any more when the host has closed it.
async fn connection(sockets: &Sockets, fd: u32) -> Result<socket2::Socket, Errno> {
    let listener = sockets.get(fd)?;
    loop {
        match listener.take(socket2::Socket::accept).await {
            Ok((raw, _)) => return Ok(raw),
            // The client went away while it waited.
            Err(Errno::CONNABORTED) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn shutdown(guest: &mut Guest<'_>, fd: u32, how: u32) -> Result<(), Errno> {
    let (_, sockets) = parts(guest)?;
    let how = match how {
        1 => Shutdown::Read,
        2 => Shutdown::Write,
        3 => Shutdown::Both,
        _ => return Err(Errno::INVAL),
    };
    Ok(sockets.get(fd)?.raw().shutdown(how)?)
}

#[derive(Clone, Copy)]
enum End {
    Local,
    Peer,
}

/// Tells the address of one end. The first generation wants its kind, too; the second takes only the long form.
fn tell(
    guest: &mut Guest<'_>,
    (fd, end): (u32, End),
    address: u32,
    kind: Option<u32>,
    port: u32,
) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    let socket = sockets.get(fd)?;
    if address::is_storage(&memory, address)? == kind.is_some() {
        return Err(Errno::INVAL);
    }
    has_room(&mut memory, port, 4)?;
    if let Some(kind) = kind {
        aligned(kind, 4)?;
        has_room(&mut memory, kind, 4)?;
    }
    let any = || match socket.peer {
        Some(SocketAddr::V6(_)) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        _ => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let found = match (end, socket.peer) {
        (End::Peer, Some(peer)) => Some(peer),
        (End::Local, Some(_)) => Some(any()),
        (End::Local, None) => socket.raw().local_addr()?.as_socket(),
        (End::Peer, None) => socket.raw().peer_addr()?.as_socket(),
    };
    let found = found.ok_or(Errno::NOTCONN)?;
    address::write(&mut memory, address, found.ip())?;
    put(&mut memory, port, found.port().into())?;
    match kind {
        Some(kind) => put(&mut memory, kind, address::kind(found.ip())),
        None => Ok(()),
    }
}
