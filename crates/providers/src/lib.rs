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
//! | `jobs` | work that is due later, in SQLite |
//! | `database` | a small SQLite database that a provider keeps beside the state |
//! | [`pubsub`] | message brokers: in memory, SQLite |
//! | [`lock`] | locks: in memory, SQLite |
//! | `nats` | NATS: pub/sub with JetStream, binding |
//! | `mqtt` | MQTT 3.1.1: pub/sub, binding |
//! | `rabbitmq` | RabbitMQ: pub/sub, binding |
//! | `tls` | TLS to a broker |
//! | [`task`] | a task that receives in the background |
//! | `deliveries` | events on their way through the handler |
//! | `backoff` | waits between attempts |
//! | `shutdown` | the end of a provider |
//! | [`lazy`] | a store that opens when somebody first uses it |
//! | [`registry`] | component types and their constructors |
//! | [`metadata`] | reading a component's metadata as Dapr does |

mod backoff;
#[cfg(feature = "sqlite")]
mod database;
mod deliveries;
#[cfg(feature = "sqlite")]
pub mod jobs;
pub mod lazy;
pub mod lock;
pub mod metadata;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
pub mod pubsub;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
pub mod registry;
pub mod schedule;
mod shutdown;
pub mod state;
pub mod task;
#[cfg(any(feature = "mqtt", feature = "nats", feature = "rabbitmq"))]
mod tls;
