//! The memory of a core module, as host functions see it.
//!
//! Core modules pass addresses, lengths and strings as plain numbers. They are checked here and nowhere else, whichever
//! ABI they belong to: nothing outside of the memory is reachable, no sum wraps around, and no length makes the host
//! allocate. What comes back is an error that the ABI turns into its own code.

use std::ops::Range;
use wasmtime::{Caller, Extern, Store};

/// Vectors of one scattered read or write (`IOV_MAX`).
const MAX_VECTORS: u32 = 1024;

/// A module's whole memory, for the time of one host call.
pub(crate) struct Memory<'a>(&'a mut [u8]);

/// Where something lies in a module's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: u32,
    pub(crate) length: u32,
}

/// A module named something that cannot be.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadMemory {
    #[error("the module exports no memory named \"memory\"")]
    Missing,
    #[error("the {} bytes at {} are not in the module's memory", .0.length, .0.at)]
    Outside(Place),
    #[error("the text at {} is not UTF-8", .0.at)]
    NotText(Place),
    #[error("{0} vectors at once; at most {MAX_VECTORS} are possible")]
    TooManyVectors(u32),
}

/// Data of a store with one module, whose memory is looked up by its name once.
pub(crate) trait Remembers {
    fn memory(&mut self) -> &mut Option<wasmtime::Memory>;
}

/// The memory of the module that calls, and the data of its store.
pub(crate) fn of<'a, T: Remembers>(
    caller: &'a mut Caller<'_, T>,
) -> Result<(Memory<'a>, &'a mut T), BadMemory> {
    let (bytes, state) = handle(caller)?.data_and_store_mut(caller);
    Ok((Memory(bytes), state))
}

/// The memory of the module that calls.
pub(crate) fn handle<T: Remembers>(caller: &mut Caller<'_, T>) -> Result<wasmtime::Memory, BadMemory> {
    if let Some(memory) = *caller.data_mut().memory() {
        return Ok(memory);
    }
    let found = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = found.ok_or(BadMemory::Missing)?;
    *caller.data_mut().memory() = Some(memory);
    Ok(memory)
}

/// The memory of a module that is not running.
pub(crate) fn whole<T>(store: &mut Store<T>, memory: wasmtime::Memory) -> Memory<'_> {
    Memory(memory.data_mut(store))
}

// === impl Memory ===

impl Memory<'_> {
    pub(crate) fn bytes(&self, place: impl Into<Place>) -> Result<&[u8], BadMemory> {
        let place = place.into();
        self.0.get(place.range()).ok_or(BadMemory::Outside(place))
    }

    pub(crate) fn bytes_mut(&mut self, place: impl Into<Place>) -> Result<&mut [u8], BadMemory> {
        let place = place.into();
        self.0.get_mut(place.range()).ok_or(BadMemory::Outside(place))
    }

    pub(crate) fn text(&self, place: impl Into<Place>) -> Result<&str, BadMemory> {
        let place = place.into();
        std::str::from_utf8(self.bytes(place)?).map_err(|_| BadMemory::NotText(place))
    }

    /// Writes all of these bytes, or nothing.
    pub(crate) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), BadMemory> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes_mut(Place { at, length })?.copy_from_slice(bytes);
        Ok(())
    }

    /// Little endian, at any address.
    pub(crate) fn u32(&self, at: u32) -> Result<u32, BadMemory> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(crate) fn array<const N: usize>(&self, at: u32) -> Result<[u8; N], BadMemory> {
        let place = Place { at, length: N as u32 };
        self.0.get(place.range()).and_then(|bytes| bytes.try_into().ok()).ok_or(BadMemory::Outside(place))
    }

    /// The vectors of a scattered read or write: address and length, four bytes each. All lie in the memory; they may
    /// overlap.
    pub(crate) fn vectors(&self, at: u32, count: u32) -> Result<Vec<Place>, BadMemory> {
        if count > MAX_VECTORS {
            return Err(BadMemory::TooManyVectors(count));
        }
        let list = self.bytes(Place { at, length: count * 8 })?;
        let place = |bytes: &[u8]| {
            let number = |from: usize| {
                bytes[from..from + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
            };
            let place = Place { at: number(0), length: number(4) };
            self.bytes(place).map(|_| place)
        };
        list.chunks_exact(8).map(place).collect()
    }
}

// === impl Place ===

impl Place {
    fn range(self) -> Range<usize> {
        let at = self.at as usize;
        at..at + self.length as usize
    }
}

impl From<(u32, u32)> for Place {
    fn from((at, length): (u32, u32)) -> Place {
        Place { at, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_reachable() {
        let mut bytes = [7_u8; 16];
        let mut memory = Memory(&mut bytes);
        for (at, length) in [(0, 17), (16, 1), (17, 0), (u32::MAX, 0), (u32::MAX, u32::MAX), (1, u32::MAX)] {
            let outside = BadMemory::Outside(Place { at, length });
            assert_eq!(memory.bytes((at, length)), Err(outside));
            assert_eq!(memory.bytes_mut((at, length)), Err(outside));
            assert_eq!(memory.text((at, length)), Err(outside));
        }
        for (at, length) in [(0, 0), (0, 16), (16, 0), (15, 1)] {
            assert_eq!(memory.bytes((at, length)).unwrap().len(), length as usize);
        }
        assert_eq!(memory.write(13, b"four"), Err(BadMemory::Outside(Place { at: 13, length: 4 })));
        assert_eq!(memory.bytes((13, 3)).unwrap(), [7; 3], "nothing was written");
        memory.write(12, b"four").unwrap();
        assert_eq!(memory.text((12, 4)).unwrap(), "four");
        assert_eq!(memory.u32(12).unwrap(), u32::from_le_bytes(*b"four"));
        assert!(memory.u32(13).is_err());
        memory.write(0, b"\xff").unwrap();
        assert_eq!(memory.text((0, 1)), Err(BadMemory::NotText(Place { at: 0, length: 1 })));
    }

    #[test]
    fn vectors_are_checked_before_any_is_used() {
        let mut bytes = [0_u8; 32];
        let mut memory = Memory(&mut bytes);
        memory.write(0, &[16, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let places = [Place { at: 16, length: 4 }, Place { at: 17, length: 0 }];
        assert_eq!(memory.vectors(0, 2).unwrap(), places);
        memory.write(8, &[30, 0, 0, 0, 3, 0, 0, 0]).unwrap();
        assert_eq!(memory.vectors(0, 2), Err(BadMemory::Outside(Place { at: 30, length: 3 })));
        assert_eq!(memory.vectors(8, 4), Err(BadMemory::Outside(Place { at: 8, length: 32 })));
        assert_eq!(memory.vectors(0, 1025), Err(BadMemory::TooManyVectors(1025)));
        assert_eq!(memory.vectors(0, u32::MAX), Err(BadMemory::TooManyVectors(u32::MAX)));
    }
}
