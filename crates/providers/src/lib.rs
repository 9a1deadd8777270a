//! Implementations of the blocks, one module a backend.
//!
//! A provider knows keys and bytes, never an app: keys arrive already scoped. Which provider serves which
//! component type is written in one table, in [`registry`].
//!
//! | file | subject |
//! |---|---|
//! | [`state`] | state stores: in memory, SQLite |
//! | `redis` | state, pub/sub, locks, configuration and a binding on Redis |
//! | [`schedule`] | cron expressions, times and durations as Dapr reads them |
//! | [`bindings`] | a clock, HTTP servers, files, buckets |
//! | [`blob`] | files and objects: a folder, buckets of S3 |
//! | `cryption` | encryption with keys of a file |
//! | `email` | e-mail by SMTP |
//! | `s3` | what the components of S3 have in common |
//! | [`secrets`] | secret stores: a file, the environment |
//! | [`configuration`] | configuration stores: a file that is watched |
//! | `jobs` | work that is due later, in SQLite |
//! | `file` | a small file that is read again when it changes |
//! | [`watch`] | tells when files change, also for `--watch` |
//! | [`http_client`] | the client of the providers that speak HTTP |
//! | `database` | a small SQLite database that a provider keeps beside the state |
//! | [`pubsub`] | message brokers: in memory, SQLite |
//! | [`lock`] | locks: in memory, SQLite |
//! | [`sequencer`] | ids that only grow: in memory, SQLite, etcd |
//! | [`resolve`] | where an app is that does not run in this host |
//! | [`nats`] | NATS: pub/sub with JetStream, binding |
//! | `mqtt` | MQTT 3.1.1: pub/sub, binding |
//! | `rabbitmq` | RabbitMQ: pub/sub, binding |
//! | `postgresql` | PostgreSQL: state, configuration, binding |
//! | `mysql` | MySQL and MariaDB: state, binding |
//! | `sql` | what bindings to SQL databases have in common |
//! | `pluggable` | components in processes of their own |
//! | `pool` | connections to a database, each lent to one request at a time |
//! | [`tls`] | TLS to a server: whom to trust, and who one is |
//! | [`task`] | a task that receives in the background |
//! | [`deliveries`] | events on their way through the handler |
//! | [`backoff`] | waits between attempts |
//! | [`shutdown`] | the end of a provider |
//! | [`lazy`] | a store that opens when somebody first uses it |
//! | [`registry`] | component types and their constructors |
//! | [`metadata`] | reading a component's metadata as Dapr does |

pub mod backoff;
pub mod bindings;
pub mod blob;
pub mod configuration;
#[cfg(feature = "cryption")]
pub mod cryption;
#[cfg(feature = "sqlite")]
mod database;
pub mod deliveries;
#[cfg(feature = "smtp")]
pub mod email;
mod file;
#[cfg(feature = "http")]
pub mod http_client;
#[cfg(feature = "sqlite")]
pub mod jobs;
pub mod lazy;
pub mod lock;
pub mod metadata;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "pluggable")]
mod pluggable;
#[cfg(any(feature = "mysql", feature = "postgresql"))]
mod pool;
#[cfg(feature = "postgresql")]
mod postgresql;
pub mod pubsub;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
pub mod registry;
pub mod resolve;
#[cfg(feature = "s3")]
pub mod s3;
pub mod schedule;
pub mod secrets;
pub mod sequencer;
pub mod shutdown;
#[cfg(any(feature = "mysql", feature = "postgresql"))]
mod sql;
pub mod state;
pub mod task;
#[cfg(feature = "tls")]
pub mod tls;
mod uuid;
pub mod watch;
