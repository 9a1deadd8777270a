//! Calls of preview 1 that take any descriptor or clock: sockets, and clocks that there are not, are answered here, the
//! rest by preview 1 itself.

use super::address::aligned;
use super::errno::{Errno, code};
use super::table::Sockets;
use super::{NAME, calls, parts, poll, transfer};
use crate::command::ModuleState;
use crate::memory;
use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as preview1, WasiSnapshotPreview1};
use wasmtime_wasi::p1::{WasiP1Ctx, types};
use wiggle::{GuestError, GuestMemory};

type Guest<'a> = Caller<'a, ModuleState>;

const STREAM_SOCKET: u8 = 6;
const DATAGRAM_SOCKET: u8 = 5;

/// Reading, writing, flags, status, waiting, and all that WasmEdge has for sockets (bits 28 to 35).
const RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27 | 0xff << 28;

/// Bytes that preview 1 may copy for one `poll_oneoff`; what it is given is bounded before.
const POLL_FUEL: usize = 64 << 20;

pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        NAME,
        "fd_read",
        |mut guest: Guest<'_>, (fd, vectors, count, length): (u32, u32, u32, u32)| {
            Box::new(async move {
                if Sockets::owns(fd) {
                    return Ok(code(transfer::read(&mut guest, fd, (vectors, count), length).await));
                }
                // Input may be long in coming.
                guest.data_mut().sockets.let_go();
                let (mut memory, wasi) = others(&mut guest)?;
                let [fd, vectors, count, length] = [fd, vectors, count, length].map(u32::cast_signed);
                answered(preview1::fd_read(wasi, &mut memory, fd, vectors, count, length).await)
            })
        },
    )?;
    linker.func_wrap_async(
        NAME,
        "fd_write",
        |mut guest: Guest<'_>, (fd, vectors, count, length): (u32, u32, u32, u32)| {
            Box::new(async move {
                if Sockets::owns(fd) {
                    return Ok(code(transfer::write(&mut guest, fd, (vectors, count), length).await));
                }
                write(&mut guest, fd, (vectors, count), length).await
            })
        },
    )?;
    linker.func_wrap_async(NAME, "fd_close", |mut guest: Guest<'_>, (fd,): (u32,)| {
        Box::new(async move {
            if Sockets::owns(fd) {
                return Ok(code(parts(&mut guest).and_then(|(_, sockets)| sockets.close(fd))));
            }
            let (mut memory, wasi) = others(&mut guest)?;
            answered(preview1::fd_close(wasi, &mut memory, fd.cast_signed()).await)
        })
    })?;
    linker.func_wrap_async(NAME, "fd_fdstat_get", |mut guest: Guest<'_>, (fd, stat): (u32, u32)| {
        Box::new(async move {
            if Sockets::owns(fd) {
                return Ok(code(fdstat(&mut guest, fd, stat)));
            }
            let (mut memory, wasi) = others(&mut guest)?;
            answered(preview1::fd_fdstat_get(wasi, &mut memory, fd.cast_signed(), stat.cast_signed()).await)
        })
    })?;
    linker.func_wrap_async(NAME, "fd_filestat_get", |mut guest: Guest<'_>, (fd, stat): (u32, u32)| {
        Box::new(async move {
            if Sockets::owns(fd) {
                return Ok(code(filestat(&mut guest, fd, stat)));
            }
            let (mut memory, wasi) = others(&mut guest)?;
            answered(preview1::fd_filestat_get(wasi, &mut memory, fd.cast_signed(), stat.cast_signed()).await)
        })
    })?;
    linker.func_wrap(
        NAME,
        "clock_time_get",
        |mut guest: Guest<'_>, id: u32, precision: u64, time: u32| {
            let (mut memory, wasi) = others(&mut guest)?;
            let [id, time] = [id, time].map(u32::cast_signed);
            answered(preview1::clock_time_get(wasi, &mut memory, id, precision.cast_signed(), time))
        },
    )?;
    linker.func_wrap(NAME, "clock_res_get", |mut guest: Guest<'_>, id: u32, resolution: u32| {
        let (mut memory, wasi) = others(&mut guest)?;
        answered(preview1::clock_res_get(wasi, &mut memory, id.cast_signed(), resolution.cast_signed()))
    })?;
    linker.func_wrap(NAME, "fd_fdstat_set_flags", |mut guest: Guest<'_>, fd: u32, flags: u32| {
        if Sockets::owns(fd) {
            return Ok(code(set_flags(&mut guest, fd, flags)));
        }
        let (mut memory, wasi) = others(&mut guest)?;
        answered(preview1::fd_fdstat_set_flags(wasi, &mut memory, fd.cast_signed(), flags.cast_signed()))
    })?;
    linker.func_wrap_async(NAME, "fd_renumber", |mut guest: Guest<'_>, (from, to): (u32, u32)| {
        Box::new(async move {
            match (Sockets::owns(from), Sockets::owns(to)) {
                (true, true) => {
                    Ok(code(parts(&mut guest).and_then(|(_, sockets)| sockets.renumber(from, to))))
                }
                (false, false) => {
                    let (mut memory, wasi) = others(&mut guest)?;
                    answered(
                        preview1::fd_renumber(wasi, &mut memory, from.cast_signed(), to.cast_signed()).await,
                    )
                }
                // Files and sockets are kept apart, by their numbers.
                _ => Ok(code(Err(Errno::NOTSUP))),
            }
        })
    })?;
    Ok(())
}

/// `fd_write` on what is no socket. Preview 1's own writes the first vector that is not empty and leaves it to the program
/// to come back with the others, which the libraries of old do not do: here all are written, as far as it goes.
async fn write(
    guest: &mut Guest<'_>,
    fd: u32,
    (vectors, count): (u32, u32),
    length: u32,
) -> wasmtime::Result<i32> {
    let places = match parts(guest).map(|(memory, _)| memory.vectors(vectors, count)) {
        Ok(Ok(places)) if places.iter().filter(|place| place.length > 0).count() > 1 => places,
        _ => return write_first(guest, fd, (vectors, count), length).await,
    };
    let mut written = 0_u32;
    for (at, place) in (0_u32..).zip(&places).filter(|(_, place)| place.length > 0) {
        let at = vectors.wrapping_add(8 * at);
        let errno = write_first(guest, fd, (at, 1), length).await?;
        if errno != 0 && written == 0 {
            return Ok(errno);
        }
        let now = match parts(guest).map(|(memory, _)| memory.u32(length)) {
            Ok(Ok(now)) if errno == 0 => now,
            _ => 0,
        };
        written = written.saturating_add(now);
        if now < place.length {
            break;
        }
    }
    let (mut memory, _) = memory::of(guest)?;
    memory.write(length, &written.to_le_bytes())?;
    Ok(0)
}

async fn write_first(
    guest: &mut Guest<'_>,
    fd: u32,
    (vectors, count): (u32, u32),
    length: u32,
) -> wasmtime::Result<i32> {
    let (mut memory, wasi) = others(guest)?;
    let [fd, vectors, count, length] = [fd, vectors, count, length].map(u32::cast_signed);
    answered(preview1::fd_write(wasi, &mut memory, fd, vectors, count, length).await)
}

/// Preview 1's state and the module's memory, in the form that it wants it.
fn others<'a>(guest: &'a mut Guest<'_>) -> wasmtime::Result<(GuestMemory<'a>, &'a mut WasiP1Ctx)> {
    use wasmtime::AsContextMut;
    let fuel = guest.as_context_mut().hostcall_fuel();
    let (bytes, state) = memory::handle(guest)?.data_and_store_mut(guest);
    state.wasi.set_hostcall_fuel(fuel);
    Ok((GuestMemory::Unshared(bytes), &mut state.wasi))
}

/// What a call of preview 1 answered; arguments that cannot be are an error of the guest's to read, and do not end it.
fn answered(result: wasmtime::Result<i32>) -> wasmtime::Result<i32> {
    let error = match result {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    let Some(mut guest) = error.downcast_ref::<GuestError>() else { return Err(error) };
    while let GuestError::InFunc { err, .. } = guest {
        guest = err;
    }
    Ok(code(Err(match guest {
        GuestError::PtrOverflow | GuestError::PtrOutOfBounds(_) => Errno::FAULT,
        _ => Errno::INVAL,
    })))
}

/// `fdstat` in preview 1.
fn fdstat(guest: &mut Guest<'_>, fd: u32, at: u32) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    let socket = sockets.get(fd)?;
    let mut stat = [0_u8; 24];
    stat[0] = if socket.is_stream { STREAM_SOCKET } else { DATAGRAM_SOCKET };
    stat[2] = if socket.nonblocking { calls::NONBLOCK as u8 } else { 0 };
    stat[8..16].copy_from_slice(&RIGHTS.to_le_bytes());
    stat[16..24].copy_from_slice(&RIGHTS.to_le_bytes());
    Ok(memory.write(aligned(at, 8)?, &stat)?)
}

/// `filestat` in preview 1, of which a socket has nothing but its type.
fn filestat(guest: &mut Guest<'_>, fd: u32, at: u32) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    let socket = sockets.get(fd)?;
    let mut stat = [0_u8; 64];
    stat[8..16].copy_from_slice(&u64::from(fd).to_le_bytes());
    stat[16] = if socket.is_stream { STREAM_SOCKET } else { DATAGRAM_SOCKET };
    stat[24] = 1;
    Ok(memory.write(aligned(at, 8)?, &stat)?)
}

fn set_flags(guest: &mut Guest<'_>, fd: u32, flags: u32) -> Result<(), Errno> {
    let (_, sockets) = parts(guest)?;
    let socket = sockets.get_mut(fd)?;
    if flags & !calls::NONBLOCK != 0 {
        return Err(Errno::INVAL);
    }
    socket.nonblocking = flags & calls::NONBLOCK != 0;
    Ok(())
}

/// What a clock of the guest shows: the one that counts from its start, or the one on the wall.
pub(super) fn now(wasi: &mut WasiP1Ctx, of_the_wall: bool) -> u64 {
    let id = if of_the_wall { types::Clockid::Realtime } else { types::Clockid::Monotonic };
    wasi.clock_time_get(&mut GuestMemory::Unshared(&mut []), id, 0).unwrap_or_default()
}

/// Waits for descriptors other than sockets: takes subscriptions as a guest writes them, and answers with at least one
/// event in the same form.
pub(super) async fn poll(wasi: &mut WasiP1Ctx, subscriptions: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
    let errno = match poll_all(wasi, &subscriptions).await? {
        Ok(events) => return Ok(events),
        Err(errno) => errno,
    };
    // One that cannot be waited for fails the whole call: which is it?
    let mut events = Vec::new();
    for subscription in subscriptions.chunks_exact(48) {
        let clock_of_no_time = [&[0_u8; 16][..], &1_u32.to_le_bytes(), &[0; 28]].concat();
        let alone = [subscription, &clock_of_no_time].concat();
        if let Err(errno) = poll_all(wasi, &alone).await? {
            failed(&mut events, subscription, errno);
        }
    }
    if events.is_empty() {
        failed(&mut events, &subscriptions, errno);
    }
    Ok(events)
}

fn failed(events: &mut Vec<u8>, subscription: &[u8], errno: i32) {
    let userdata = subscription[..8].try_into().map(u64::from_le_bytes).unwrap_or_default();
    poll::event(events, userdata, u16::try_from(errno).unwrap_or(Errno::IO.0), subscription[8], 0, 0);
}

/// Preview 1's own `poll_oneoff`, over a memory of our making.
async fn poll_all(wasi: &mut WasiP1Ctx, subscriptions: &[u8]) -> wasmtime::Result<Result<Vec<u8>, i32>> {
    let count = subscriptions.len() / 48;
    let (events, told) = (count * 48, count * (48 + 32));
    let mut memory = subscriptions.to_vec();
    memory.resize(told + 4, 0);
    wasi.set_hostcall_fuel(POLL_FUEL);
    let [at, room, told_at] = [events, count, told].map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let mut shown = GuestMemory::Unshared(&mut memory);
    let errno = answered(preview1::poll_oneoff(wasi, &mut shown, 0, at, room, told_at).await)?;
    if errno != 0 {
        return Ok(Err(errno));
    }
    let found = u32::from_le_bytes(memory[told..told + 4].try_into().unwrap_or_default()) as usize;
    Ok(Ok(memory[events..events + found.min(count) * 32].to_vec()))
}
