//! The messages and services of `/proto`, generated at build time.

#![allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all, clippy::pedantic)]

/// `dapr.proto.common.v1`
pub mod common {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/dapr.proto.common.v1.rs"));
    }
}

/// `dapr.proto.runtime.v1`
pub mod runtime {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/dapr.proto.runtime.v1.rs"));
    }
}

/// All of it, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
