//! Addresses as guests write them: a buffer and its length, where the length says what is in it.
//!
//! | length | content |
//! |---|---|
//! | 4 | IPv4 |
//! | 16 | IPv6 |
//! | 128 | a family (two bytes, little endian), then what belongs to it |

use super::errno::Errno;
use crate::memory::{Memory, Place};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const INET4: u8 = 1;
pub(super) const INET6: u8 = 2;
pub(super) const UNIX: u8 = 3;

/// Length of the form that begins with the family.
const STORAGE: u32 = 128;

/// Where a number of `size` bytes, or a structure that begins with one, may lie.
pub(super) fn aligned(at: u32, size: u32) -> Result<u32, Errno> {
    if at.is_multiple_of(size) { Ok(at) } else { Err(Errno::ADDRNOTAVAIL) }
}

/// Writes a number where the guest wants it.
pub(super) fn put(memory: &mut Memory<'_>, at: u32, value: u32) -> Result<(), Errno> {
    Ok(memory.write(aligned(at, 4)?, &value.to_le_bytes())?)
}

/// Whether a number can be written there; asked before anything is done that cannot be undone.
pub(super) fn has_room(memory: &mut Memory<'_>, at: u32, size: u32) -> Result<(), Errno> {
    memory.bytes_mut((aligned(at, size)?, size))?;
    Ok(())
}

/// The buffer that an address structure names.
pub(super) fn buffer(memory: &Memory<'_>, at: u32) -> Result<Place, Errno> {
    let place = Place { at: memory.u32(aligned(at, 4)?)?, length: memory.u32(at.wrapping_add(4))? };
    memory.bytes(place)?;
    Ok(place)
}

/// The address that a guest names, with its port.
pub(super) fn read(memory: &Memory<'_>, at: u32, port: u32) -> Result<SocketAddr, Errno> {
    let bytes = memory.bytes(buffer(memory, at)?)?;
    let port = u16::try_from(port).map_err(|_| Errno::INVAL)?;
    let v4 = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
    let v6 = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(|ip| IpAddr::V6(Ipv6Addr::from(ip)));
    let ip = match bytes {
        bytes if bytes.len() == 4 => v4(bytes),
        bytes if bytes.len() == 16 => v6(bytes),
        [INET4, 0, rest @ ..] if bytes.len() == STORAGE as usize => v4(&rest[..4]),
        [INET6, 0, rest @ ..] if bytes.len() == STORAGE as usize => v6(&rest[..16]),
        [UNIX, 0, ..] if bytes.len() == STORAGE as usize => return Err(Errno::NOSYS),
        _ => None,
    };
    Ok(SocketAddr::new(ip.ok_or(Errno::INVAL)?, port))
}

/// Writes an address into the buffer that the guest prepared for it, in the form that its length asks for.
pub(super) fn write(memory: &mut Memory<'_>, at: u32, ip: IpAddr) -> Result<(), Errno> {
    let place = buffer(memory, at)?;
    let mut storage = [0_u8; STORAGE as usize];
    let (family, length) = match ip {
        IpAddr::V4(ip) => {
            storage[2..6].copy_from_slice(&ip.octets());
            (INET4, 4)
        }
        IpAddr::V6(ip) => {
            storage[2..18].copy_from_slice(&ip.octets());
            (INET6, 16)
        }
    };
    storage[0] = family;
    match place.length {
        STORAGE => memory.write(place.at, &storage)?,
        4 | 16 if length <= place.length => memory.write(place.at, &storage[2..2 + length as usize])?,
        4 | 16 => return Err(Errno::NOMEM),
        _ => return Err(Errno::INVAL),
    }
    Ok(())
}

/// Whether the buffer has the form that begins with the family.
pub(super) fn is_storage(memory: &Memory<'_>, at: u32) -> Result<bool, Errno> {
    Ok(buffer(memory, at)?.length == STORAGE)
}

/// What the first generation calls the kind of an address.
pub(super) fn kind(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 4 } else { 6 }
}
