//! Memory, tables and instances that one guest may use.

use wasmtime::ResourceLimiter;

/// Table elements that the pooled tables have room for; [`Limits::table_elements`] cannot go beyond.
pub const MAX_TABLE_ELEMENTS: usize = 100_000;

/// Bounds of one guest (one component or module instance with everything inside it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory, all memories together.
    pub memory: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Core instances.
    pub instances: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { memory: 256 << 20, table_elements: MAX_TABLE_ELEMENTS, instances: 64 }
    }
}

/// Counts what a guest takes and refuses what is beyond its limits; the guest sees a failed `memory.grow`.
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    memory: usize,
    table_elements: usize,
    refused: Option<&'static str>,
}

impl Limiter {
    /// Nothing taken yet.
    pub fn new(limits: Limits) -> Limiter {
        Limiter { limits, memory: 0, table_elements: 0, refused: None }
    }

    /// The limit that the guest ran into, in words for an error message; `None` if it never did.
    pub fn refused(&self) -> Option<&'static str> {
        self.refused
    }

    /// Bytes of linear memory that the guest has.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.limits.memory {
            self.refused = Some("its memory limit");
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > self.limits.table_elements {
            self.refused = Some("its table limit");
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    fn tables(&self) -> usize {
        self.limits.instances.saturating_mul(4)
    }

    fn memories(&self) -> usize {
        self.limits.instances
    }
}
