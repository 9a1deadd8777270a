//! Options of sockets. There is one level, `SOL_SOCKET`; names and values are WASI's, not the system's.

use super::address::{aligned, has_room, put};
use super::errno::{Errno, code};
use super::socket::Socket;
use super::{NAME, os, parts};
use crate::command::ModuleState;
use crate::memory::Memory;
use std::time::Duration;
use wasmtime::{Caller, Linker};

type Guest<'a> = Caller<'a, ModuleState>;

const SOL_SOCKET: u32 = 0;

const TYPE: u32 = 1;
const ERROR: u32 = 2;
const LINGER: u32 = 9;
const RCVTIMEO: u32 = 11;
const SNDTIMEO: u32 = 12;
const ACCEPTCONN: u32 = 13;
const BINDTODEVICE: u32 = 14;

/// Options that are numbers, the same on both sides.
const NUMBERS: [(u32, libc::c_int); 8] = [
    (0, libc::SO_REUSEADDR),
    (3, libc::SO_DONTROUTE),
    (4, libc::SO_BROADCAST),
    (5, libc::SO_SNDBUF),
    (6, libc::SO_RCVBUF),
    (7, libc::SO_KEEPALIVE),
    (8, libc::SO_OOBINLINE),
    (10, libc::SO_RCVLOWAT),
];

/// Bytes of `timeval`: seconds and microseconds, eight bytes each.
const TIMEVAL: u32 = 16;

/// What an option is worth.
enum Value {
    Number(i32),
    /// `linger`: whether, and seconds.
    Pair(i32, i32),
    Time(Option<Duration>),
    Nothing,
}

pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        NAME,
        "sock_getsockopt",
        |mut guest: Guest<'_>, fd: u32, level: u32, name: u32, value: u32, length: u32| {
            code(get(&mut guest, fd, (level, name), value, length))
        },
    )?;
    linker.func_wrap(
        NAME,
        "sock_setsockopt",
        |mut guest: Guest<'_>, fd: u32, level: u32, name: u32, value: u32, length: u32| {
            code(set(&mut guest, fd, (level, name), value, length))
        },
    )?;
    Ok(())
}

fn get(
    guest: &mut Guest<'_>,
    fd: u32,
    (level, name): (u32, u32),
    value: u32,
    length: u32,
) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    let socket = sockets.get(fd)?;
    has_room(&mut memory, length, 4)?;
    let room = memory.u32(length)?;
    memory.bytes_mut((value, room))?;
    if level != SOL_SOCKET {
        return Err(Errno::INVAL);
    }
    let mut bytes = Vec::with_capacity(TIMEVAL as usize);
    match socket.option(name)? {
        Value::Nothing => {}
        Value::Number(number) => bytes.extend(number.to_le_bytes()),
        Value::Pair(one, other) => bytes.extend([one.to_le_bytes(), other.to_le_bytes()].concat()),
        Value::Time(time) => {
            let time = time.unwrap_or_default();
            bytes.extend(time.as_secs().to_le_bytes());
            bytes.extend(u64::from(time.subsec_micros()).to_le_bytes());
        }
    }
    if bytes.len() > room as usize {
        return Err(Errno::INVAL);
    }
    memory.write(value, &bytes)?;
    put(&mut memory, length, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

fn set(
    guest: &mut Guest<'_>,
    fd: u32,
    (level, name): (u32, u32),
    value: u32,
    length: u32,
) -> Result<(), Errno> {
    let (memory, sockets) = parts(guest)?;
    let socket = sockets.get_mut(fd)?;
    memory.bytes((value, length))?;
    if level != SOL_SOCKET {
        return Err(Errno::INVAL);
    }
    match name {
        RCVTIMEO => socket.receive_timeout = time(&memory, value, length)?,
        SNDTIMEO => socket.send_timeout = time(&memory, value, length)?,
        LINGER => {
            let on = number(&memory, value, length)?;
            let seconds = number(&memory, value.wrapping_add(4), length - 4)?;
            let seconds = u64::try_from(seconds).map_err(|_| Errno::INVAL)?;
            socket.raw().set_linger((on != 0).then(|| Duration::from_secs(seconds)))?;
        }
        // They can only be read.
        TYPE | ERROR | ACCEPTCONN => return Err(Errno::NOPROTOOPT),
        // Devices are no address, and nothing grants them.
        BINDTODEVICE => return Err(Errno::ACCES),
        _ => {
            let option = system_name(name)?;
            os::set_option(socket.raw(), option, number(&memory, value, length)?)?;
        }
    }
    Ok(())
}

fn system_name(name: u32) -> Result<libc::c_int, Errno> {
    NUMBERS.iter().find(|(ours, _)| *ours == name).map(|(_, system)| *system).ok_or(Errno::INVAL)
}

fn number(memory: &Memory<'_>, at: u32, length: u32) -> Result<i32, Errno> {
    if length < 4 {
        return Err(Errno::INVAL);
    }
    Ok(i32::from_le_bytes(memory.array(aligned(at, 4)?)?))
}

/// How long to wait; zero stands for ever.
fn time(memory: &Memory<'_>, at: u32, length: u32) -> Result<Option<Duration>, Errno> {
    if length < TIMEVAL {
        return Err(Errno::INVAL);
    }
    let part = |at: u32| -> Result<u64, Errno> {
        u64::try_from(i64::from_le_bytes(memory.array(at)?)).map_err(|_| Errno::INVAL)
    };
    let (seconds, micros) = (part(at)?, part(at + 8)?);
    if micros >= 1_000_000 {
        return Err(Errno::INVAL);
    }
    let time = Duration::from_secs(seconds) + Duration::from_micros(micros);
    Ok((!time.is_zero()).then_some(time))
}

// === impl Socket ===

impl Socket {
    fn option(&self, name: u32) -> Result<Value, Errno> {
        Ok(match name {
            TYPE => Value::Number(if self.is_stream { 2 } else { 1 }),
            ERROR => {
                let error = self.raw().take_error()?;
                Value::Number(error.map_or(0, |error| i32::from(Errno::from(error).0)))
            }
            ACCEPTCONN => Value::Number(i32::from(self.is_stream && self.listening.is_some())),
            LINGER => match self.raw().linger()? {
                Some(time) => Value::Pair(1, i32::try_from(time.as_secs()).unwrap_or(i32::MAX)),
                None => Value::Pair(0, 0),
            },
            RCVTIMEO => Value::Time(self.receive_timeout),
            SNDTIMEO => Value::Time(self.send_timeout),
            BINDTODEVICE => Value::Nothing,
            _ => Value::Number(os::option(self.raw(), system_name(name)?)?),
        })
    }
}
