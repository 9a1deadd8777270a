//! Sending and receiving.

use super::address::{self, aligned, has_room, put};
use super::errno::{Errno, code};
use super::socket::Socket;
use super::{NAME, OTHER, os, parts};
use crate::command::ModuleState;
use crate::memory::{Memory, Place};
use socket2::SockAddr;
use std::ffi::c_int;
use std::io::IoSlice;
use std::net::SocketAddr;
use tokio::io::Interest;
use wasmtime::{Caller, Linker};

type Guest<'a> = Caller<'a, ModuleState>;

const PEEK: u32 = 1;
const WAITALL: u32 = 2;

/// The bit of the answer that says that a datagram was longer than the room for it.
const TRUNCATED: u16 = 1;

/// A message up to this many bytes is held back until the guest does something else than sending.
const HELD: usize = 16 << 10;

/// What is received at once into several places; no datagram is longer.
const GATHERED: usize = 64 << 10;

/// Where a call says what came of it.
struct Answer {
    length: u32,
    /// None where the call has no such place.
    flags: Option<u32>,
    /// Where the sender's address and port go.
    sender: Option<(u32, Option<u32>)>,
}

pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    for name in ["sock_recv", "sock_recv_v2"] {
        linker.func_wrap_async(
            NAME,
            name,
            |mut guest: Guest<'_>,
             (fd, vectors, count, how, length, flags): (u32, u32, u32, u32, u32, u32)| {
                Box::new(async move {
                    let answer = Answer { length, flags: Some(flags), sender: None };
                    code(receive(&mut guest, fd, (vectors, count), how, answer).await)
                })
            },
        )?;
    }
    for name in ["sock_recv_from", "sock_recv_from_v2"] {
        linker.func_wrap_async(
            NAME,
            name,
            |mut guest: Guest<'_>,
             (fd, vectors, count, address, how, port, length, flags): (
                u32,
                u32,
                u32,
                u32,
                u32,
                u32,
                u32,
                u32,
            )| {
                Box::new(async move {
                    let answer = Answer { length, flags: Some(flags), sender: Some((address, Some(port))) };
                    code(receive(&mut guest, fd, (vectors, count), how, answer).await)
                })
            },
        )?;
    }
    linker.func_wrap_async(
        OTHER,
        "sock_recv_from",
        |mut guest: Guest<'_>,
         (fd, vectors, count, address, how, length, flags): (u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let answer = Answer { length, flags: Some(flags), sender: Some((address, None)) };
                code(receive(&mut guest, fd, (vectors, count), how, answer).await)
            })
        },
    )?;
    for name in ["sock_send", "sock_send_v2"] {
        linker.func_wrap_async(
            NAME,
            name,
            |mut guest: Guest<'_>, (fd, vectors, count, how, length): (u32, u32, u32, u32, u32)| {
                Box::new(async move { code(send(&mut guest, fd, (vectors, count), how, None, length).await) })
            },
        )?;
    }
    for name in ["sock_send_to", "sock_send_to_v2"] {
        linker.func_wrap_async(
            NAME,
            name,
            |mut guest: Guest<'_>,
             (fd, vectors, count, address, port, how, length): (u32, u32, u32, u32, u32, u32, u32)| {
                Box::new(async move {
                    let to = Some((address, port));
                    code(send(&mut guest, fd, (vectors, count), how, to, length).await)
                })
            },
        )?;
    }
    Ok(())
}

/// `fd_read` on a socket.
pub(super) async fn read(
    guest: &mut Guest<'_>,
    fd: u32,
    vectors: (u32, u32),
    length: u32,
) -> Result<(), Errno> {
    receive(guest, fd, vectors, 0, Answer { length, flags: None, sender: None }).await
}

/// `fd_write` on a socket.
pub(super) async fn write(
    guest: &mut Guest<'_>,
    fd: u32,
    vectors: (u32, u32),
    length: u32,
) -> Result<(), Errno> {
    send(guest, fd, vectors, 0, None, length).await
}

async fn receive(
    guest: &mut Guest<'_>,
    fd: u32,
    (vectors, count): (u32, u32),
    how: u32,
    answer: Answer,
) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    sockets.let_go();
    let socket = sockets.get_mut(fd)?;
    let vectors = memory.vectors(aligned(vectors, 4)?, count)?;
    has_room(&mut memory, answer.length, 4)?;
    if let Some(flags) = answer.flags {
        has_room(&mut memory, flags, 2)?;
    }
    if let Some((address, port)) = answer.sender {
        address::buffer(&memory, address)?;
        port.map_or(Ok(()), |port| has_room(&mut memory, port, 4))?;
    }
    if how & !(PEEK | WAITALL) != 0 {
        return Err(Errno::INVAL);
    }
    socket.told.readable = None;
    let mut vectors = vectors.into_iter().filter(|place| place.length > 0);
    let came = match (vectors.next(), vectors.next()) {
        (None, _) => socket.receive(&mut [], how).await?,
        (Some(place), None) => socket.receive(memory.bytes_mut(place)?, how).await?,
        (Some(first), Some(second)) => {
            let places: Vec<Place> = [first, second].into_iter().chain(vectors).collect();
            let room = places.iter().map(|place| place.length as usize).fold(0, usize::saturating_add);
            let mut bytes = vec![0; room.min(GATHERED)];
            let came = socket.receive(&mut bytes, how).await?;
            scatter(&mut memory, &places, &bytes[..came.length])?;
            came
        }
    };
    if let Some((address, port)) = answer.sender
        && let Some(sender) = came.sender.or_else(|| socket.peer_address())
    {
        address::write(&mut memory, address, sender.ip())?;
        // In the host's byte order. WasmEdge writes the network's, which its own crate does not expect.
        port.map_or(Ok(()), |port| put(&mut memory, port, sender.port().into()))?;
    }
    if let Some(flags) = answer.flags {
        let truncated = if came.is_truncated { TRUNCATED } else { 0 };
        memory.write(flags, &truncated.to_le_bytes())?;
    }
    put(&mut memory, answer.length, u32::try_from(came.length).unwrap_or(u32::MAX))
}

fn scatter(memory: &mut Memory<'_>, places: &[Place], mut bytes: &[u8]) -> Result<(), Errno> {
    for place in places {
        let (now, later) = bytes.split_at(bytes.len().min(place.length as usize));
        memory.write(place.at, now)?;
        bytes = later;
    }
    Ok(())
}

async fn send(
    guest: &mut Guest<'_>,
    fd: u32,
    (vectors, count): (u32, u32),
    how: u32,
    to: Option<(u32, u32)>,
    length: u32,
) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    sockets.get(fd)?;
    let vectors = memory.vectors(aligned(vectors, 4)?, count)?;
    has_room(&mut memory, length, 4)?;
    if how != 0 {
        return Err(Errno::INVAL);
    }
    let to = match to {
        Some((address, port)) => Some(address::read(&memory, address, port)?),
        None => None,
    };
    // A stream goes where it is connected, whatever the address.
    let to = to.filter(|_| sockets.get(fd).is_ok_and(|socket| !socket.is_stream));
    if let Some(to) = to
        && sockets.get(fd)?.allowed != Some(to)
    {
        sockets.setup.may_connect(to)?;
        sockets.get_mut(fd)?.allowed = Some(to);
    }
    sockets.let_go_but(fd);
    let socket = sockets.get_mut(fd)?;
    socket.told.writable = false;
    let slices: Result<Vec<IoSlice<'_>>, Errno> =
        vectors.iter().map(|place| Ok(IoSlice::new(memory.bytes(*place)?))).collect();
    let slices = slices?;
    let to = to.map(SockAddr::from);
    let size = vectors.iter().map(|place| place.length as usize).fold(0, usize::saturating_add);
    // Who waits for the socket itself has nothing else to do.
    let holds = socket.is_stream && socket.nonblocking && size <= HELD;
    let flags = libc::MSG_NOSIGNAL | if holds { libc::MSG_MORE } else { 0 };
    let sent = socket.attempt(Interest::WRITABLE, |raw| match &to {
        Some(to) => raw.send_to_vectored_with_flags(&slices, to, flags),
        None => raw.send_vectored_with_flags(&slices, flags),
    });
    let sent = sent.await;
    match (holds, &sent) {
        (true, Ok(_)) => sockets.hold(fd),
        _ => sockets.let_go(),
    }
    let sent = sent?;
    put(&mut memory, length, u32::try_from(sent).unwrap_or(u32::MAX))
}

/// What was received.
struct Came {
    length: usize,
    is_truncated: bool,
    /// Of a datagram.
    sender: Option<SocketAddr>,
}

// === impl Socket ===

impl Socket {
    async fn receive(&self, bytes: &mut [u8], how: u32) -> Result<Came, Errno> {
        let peek: c_int = if how & PEEK != 0 { libc::MSG_PEEK } else { 0 };
        if !self.is_stream {
            let room = bytes.len();
            let (whole, sender) = self.take(|raw| os::recv_from(raw, bytes, peek | libc::MSG_TRUNC)).await?;
            let length = whole.min(room);
            return Ok(Came { length, is_truncated: whole > room, sender: sender.as_socket() });
        }
        let mut length = 0;
        while length < bytes.len() {
            let rest = &mut bytes[length..];
            match self.attempt(Interest::READABLE, |raw| os::recv(raw, rest, peek)).await {
                Ok(0) => break,
                Ok(came) => length += came,
                // What is there already is not lost.
                Err(_) if length > 0 => break,
                Err(errno) => return Err(errno),
            }
            if how & WAITALL == 0 || self.nonblocking || peek != 0 {
                break;
            }
        }
        Ok(Came { length, is_truncated: false, sender: None })
    }
}
