//! Names: `sock_getaddrinfo`, with a list of results that the guest has prepared.

use super::address::{INET4, INET6, aligned, has_room, put};
use super::errno::{Errno, code};
use super::names::Unresolved;
use super::{NAME, parts};
use crate::command::ModuleState;
use crate::memory::{Memory, Place};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use wasmtime::{Caller, Linker};

/// Addresses of one name at most, however many a guest has room for.
const MAX_RESULTS: u32 = 64;

/// The longest name that there can be (RFC 1035), and a NUL.
const MAX_NAME: usize = 254;

const PASSIVE: u16 = 1;
const NUMERICHOST: u16 = 4;
const NUMERICSERV: u16 = 8;
const ALL_FLAGS: u16 = 127;

const STREAM: u8 = 2;

/// What the hint asks for.
struct Hint {
    flags: u16,
    family: u8,
    kind: u8,
    protocol: u8,
}

/// Services that programs name; numbers go everywhere else.
const SERVICES: [(&str, u16); 14] = [
    ("domain", 53),
    ("ftp", 21),
    ("http", 80),
    ("https", 443),
    ("imap", 143),
    ("mqtt", 1883),
    ("mysql", 3306),
    ("nats", 4222),
    ("ntp", 123),
    ("postgresql", 5432),
    ("redis", 6379),
    ("smtp", 25),
    ("ssh", 22),
    ("amqp", 5672),
];

pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        NAME,
        "sock_getaddrinfo",
        |mut guest: Caller<'_, ModuleState>,
         (node, node_length, service, service_length, hint, results, room, count): (
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
                let names = [(node, node_length).into(), (service, service_length).into()];
                code(resolve(&mut guest, names, hint, (results, room), count).await)
            })
        },
    )?;
    Ok(())
}

async fn resolve(
    guest: &mut Caller<'_, ModuleState>,
    [node, service]: [Place; 2],
    hint: u32,
    (results, room): (u32, u32),
    count: u32,
) -> Result<(), Errno> {
    let (mut memory, sockets) = parts(guest)?;
    sockets.let_go();
    has_room(&mut memory, results, 4)?;
    has_room(&mut memory, count, 4)?;
    let (node, service) = (name(&memory, node)?.to_owned(), name(&memory, service)?.to_owned());
    let hint = Hint::read(&memory, hint)?;
    if node.is_empty() && service.is_empty() {
        return Err(Errno::AINONAME);
    }
    if room == 0 {
        return Err(Errno::AIMEMORY);
    }
    let port = port(&service, &hint)?;
    let mut found = match node.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) if node.is_empty() && hint.flags & PASSIVE != 0 => {
            vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        }
        Err(_) if node.is_empty() => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Err(_) if hint.flags & NUMERICHOST != 0 => return Err(Errno::AINONAME),
        Err(_) => sockets.setup.look_up(&node).await.map_err(|why| match why {
            Unresolved::Denied(denied) => denied.into(),
            Unresolved::Late => Errno::AIAGAIN,
            Unresolved::Unknown => Errno::AINONAME,
        })?,
    };
    found.retain(|ip| match hint.family {
        INET4 => ip.is_ipv4(),
        INET6 => ip.is_ipv6(),
        _ => true,
    });
    if found.is_empty() {
        return Err(Errno::AINODATA);
    }
    found.truncate(room.min(MAX_RESULTS) as usize);
    let mut at = memory.u32(results)?;
    for (index, ip) in found.iter().enumerate() {
        let is_last = index + 1 == found.len();
        at = write(&mut memory, at, SocketAddr::new(*ip, port), &hint, is_last)?;
    }
    put(&mut memory, count, u32::try_from(found.len()).unwrap_or(u32::MAX))
}

/// A text with one or more NULs behind it, which belong to its length.
fn name<'a>(memory: &'a Memory<'_>, place: Place) -> Result<&'a str, Errno> {
    let bytes = memory.bytes(place)?;
    let end = bytes.iter().take(MAX_NAME + 1).position(|byte| *byte == 0).unwrap_or(bytes.len());
    let length = u32::try_from(end).ok().filter(|_| end <= MAX_NAME).ok_or(Errno::AINONAME)?;
    memory.text((place.at, length)).map_err(|_| Errno::AINONAME)
}

fn port(service: &str, hint: &Hint) -> Result<u16, Errno> {
    match service.parse() {
        Ok(port) => Ok(port),
        Err(_) if service.is_empty() => Ok(0),
        Err(_) if hint.flags & NUMERICSERV != 0 => Err(Errno::AINONAME),
        Err(_) => {
            let known = SERVICES.iter().find(|(name, _)| *name == service);
            known.map(|(_, port)| *port).ok_or(Errno::AISERVICE)
        }
    }
}

/// Fills one element of the list, and tells where the next one is.
fn write(
    memory: &mut Memory<'_>,
    at: u32,
    address: SocketAddr,
    hint: &Hint,
    is_last: bool,
) -> Result<u32, Errno> {
    let mut element: [u8; 28] = memory.array(aligned(at, 4)?)?;
    let number =
        |at: usize| u32::from_le_bytes([element[at], element[at + 1], element[at + 2], element[at + 3]]);
    let (sockaddr, next) = (aligned(number(12), 4)?, number(24));
    let data = memory.u32(sockaddr.checked_add(8).ok_or(Errno::FAULT)?)?;
    let mut bytes = Vec::with_capacity(26);
    bytes.extend(address.port().to_be_bytes());
    let (family, system_length) = match address {
        SocketAddr::V4(address) => {
            bytes.extend(address.ip().octets());
            bytes.resize(14, 0);
            (INET4, 16_u32)
        }
        SocketAddr::V6(address) => {
            bytes.extend(address.flowinfo().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.extend(address.scope_id().to_le_bytes());
            (INET6, 28)
        }
    };
    memory.write(data, &bytes)?;
    memory.write(sockaddr, &[family])?;
    put(memory, sockaddr + 4, bytes.len() as u32)?;
    element[0..2].copy_from_slice(&hint.flags.to_le_bytes());
    element[2] = family;
    element[3] = if hint.kind == 0 { STREAM } else { hint.kind };
    element[4] = hint.protocol;
    element[8..12].copy_from_slice(&system_length.to_le_bytes());
    // Canonical names are not told: nothing says how much room there is for them.
    element[20..24].fill(0);
    if is_last {
        element[24..28].fill(0);
    }
    memory.write(at, &element)?;
    Ok(next)
}

// === impl Hint ===

impl Hint {
    /// At address zero there is no hint.
    fn read(memory: &Memory<'_>, at: u32) -> Result<Hint, Errno> {
        if at == 0 {
            return Ok(Hint { flags: 0, family: 0, kind: 0, protocol: 0 });
        }
        let bytes: [u8; 28] = memory.array(aligned(at, 4)?)?;
        let hint = Hint {
            flags: u16::from_le_bytes([bytes[0], bytes[1]]),
            family: bytes[2],
            kind: bytes[3],
            protocol: bytes[4],
        };
        match hint {
            Hint { flags, .. } if flags & !ALL_FLAGS != 0 => Err(Errno::AIBADFLAG),
            Hint { family, .. } if family > INET6 => Err(Errno::AIFAMILY),
            Hint { kind, protocol, .. } if kind > STREAM || protocol > 2 => Err(Errno::AISOCKTYPE),
            hint => Ok(hint),
        }
    }
}
