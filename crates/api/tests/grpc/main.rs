//! The gRPC API and the ways to apps outside, over real sockets: a host as `dhow` makes it, the face on a port, a
//! client with generated stubs, apps that are servers of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod app;
mod apps;
mod face;
mod files;
mod http_apps;
mod layotto;
mod layotto_apps;
mod layotto_blobs;
mod layotto_more;
mod layotto_objects;
mod messages;
mod state;
mod support;
mod telemetry;
