//! Wasmtime: compile, cache, pools, limits, instances.
