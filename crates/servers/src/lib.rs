//! Real servers for tests.
//!
//! Each server is a process of its own, on a loopback port and in a folder of its own, started by the test
//! that needs it and stopped by its process id: tests never share a server and never touch one that runs on
//! the machine. `cargo xtask setup` installs the programs; where one is missing, the error names it and its
//! package.
//!
//! | file | subject |
//! |---|---|
//! | `process` | starting, waiting until a port answers, stopping, losing and returning |
//! | `mosquitto` | Mosquitto, an MQTT broker |
//! | `nats` | NATS with JetStream |
//! | `rabbitmq` | RabbitMQ |
//! | `redis` | Redis |

mod mosquitto;
mod nats;
mod process;
mod rabbitmq;
mod redis;

pub use mosquitto::mosquitto;
pub use nats::nats;
pub use process::{Process, StartError};
pub use rabbitmq::rabbitmq;
pub use redis::{TlsRedis, redis, redis_with_tls};
