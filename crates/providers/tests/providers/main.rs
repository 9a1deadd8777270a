//! Every provider against its block's promises: those that need a server against a real one, which each test starts
//! for itself. One program, because linking one for each provider takes minutes.
//!
//! | module | subject |
//! |---|---|
//! | [`bindings`] | Bindings against what they are for: the clock, files, an HTTP server |
//! | [`jobs`] | Jobs in SQLite: nothing scheduled is lost, what is due comes at least once |
//! | [`kill9`] | A process that is killed in the middle of its work has lost nothing that it acknowledged |
//! | [`lock_conformance`] | Every embedded lock store keeps every promise of the lock block |
//! | [`mqtt`] | `pubsub.mqtt3` and `bindings.mqtt3` against a real broker |
//! | [`mysql`] | MySQL's components against a real server (MariaDB), which one test starts once: starting takes seconds |
//! | [`nats`] | `pubsub.jetstream`, `pubsub.nats` and `bindings.nats` against a real server |
//! | [`operator_files`] | Secrets and configuration that an operator keeps in files or in the environment |
//! | [`postgresql`] | PostgreSQL's components against a real server, which one test starts once: starting takes seconds |
//! | [`pubsub_conformance`] | Every embedded broker keeps every promise of the pub/sub block |
//! | [`queue`] | The embedded queue beyond the suite: several hosts on one file, limits, and what is left behind |
//! | [`queue_kill9`] | A host that is killed in the middle of its work has lost no message that it acknowledged |
//! | [`rabbitmq`] | `pubsub.rabbitmq` and `bindings.rabbitmq` against a real broker |
//! | [`redis`] | The Redis providers against a real server, which is started once, killed in the middle of work and started again |
//! | [`registry`] | Components are opened by type; mistakes in them are named |
//! | [`s3`] | `bindings.aws.s3` against a server that checks every signature (s3s over a folder) |
//! | [`blobs`] | Every store of files and objects keeps every promise of its block |
//! | [`cryption`] | Every provider of encryption keeps every promise of its block |
//! | [`mail`] | E-mail reaches mail servers, and keeps every promise of its block |
//! | [`sequencers`] | Every embedded sequencer keeps every promise of its block |
//! | [`sqlite_faults`] | SQLite on bad terms with its disk: every fault is an error that says what to do, and loses nothing |
//! | [`sqlite_sharing`] | Several hosts on one file, and files that Dapr wrote |
//! | [`state_conformance`] | Every state provider keeps every promise of the state block |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail"
)]

mod bindings;
mod blobs;
#[cfg(any(feature = "mqtt", feature = "nats", feature = "rabbitmq"))]
mod brokers;
#[cfg(feature = "cryption")]
mod cryption;
#[cfg(feature = "sqlite")]
mod jobs;
#[cfg(feature = "sqlite")]
mod kill9;
mod lock_conformance;
#[cfg(feature = "smtp")]
mod mail;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "nats")]
mod nats;
mod operator_files;
#[cfg(feature = "postgresql")]
mod postgresql;
mod pubsub_conformance;
#[cfg(feature = "sqlite")]
mod queue;
#[cfg(feature = "sqlite")]
mod queue_kill9;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
mod registry;
#[cfg(feature = "s3")]
mod s3;
mod sequencers;
#[cfg(feature = "sqlite")]
mod sqlite_faults;
#[cfg(feature = "sqlite")]
mod sqlite_sharing;
mod state_conformance;
