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

/// Layotto's packages; messages that Dapr has, too, are Dapr's (`build.rs`).
pub mod layotto {
    /// `spec.proto.runtime.v1`
    pub mod runtime {
        include!(concat!(env!("OUT_DIR"), "/spec.proto.runtime.v1.rs"));
    }

    /// `spec.proto.extension.v1.cryption`
    pub mod cryption {
        include!(concat!(env!("OUT_DIR"), "/spec.proto.extension.v1.cryption.rs"));
    }

    /// `spec.proto.extension.v1.delay_queue`
    pub mod delay_queue {
        include!(concat!(env!("OUT_DIR"), "/spec.proto.extension.v1.delay_queue.rs"));
    }

    /// `spec.proto.extension.v1.email`
    pub mod email {
        include!(concat!(env!("OUT_DIR"), "/spec.proto.extension.v1.email.rs"));
    }

    /// `spec.proto.extension.v1.phone`
    pub mod phone {
        include!(concat!(env!("OUT_DIR"), "/spec.proto.extension.v1.phone.rs"));
    }

    /// `spec.proto.extension.v1.s3`
    pub mod s3 {
        include!(concat!(env!("OUT_DIR"), "/spec.proto.extension.v1.s3.rs"));
    }

    /// `spec.proto.extension.v1.sms`
    pub mod sms {
        include!(concat!(env!("OUT_DIR"), "/spec.proto.extension.v1.sms.rs"));
    }
}

/// All of it, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
