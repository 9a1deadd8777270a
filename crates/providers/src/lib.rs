//! Implementations of the blocks, one module a backend.
