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
//! | `certificates` | certificates for those that speak TLS |
//! | `clouds` | Azurite and fake-gcs-server, which speak as Azure and Google do, and the vendors' clients |
//! | `docker_registry` | Docker's registry |
//! | `containerd` | containerd, to fetch and push images |
//! | `etcd` | etcd |
//! | `mariadb` | MariaDB |
//! | `mosquitto` | Mosquitto, an MQTT broker |
//! | `moto` | moto, a server of S3, and boto3 beside it |
//! | `nats` | NATS with JetStream |
//! | `postgres` | PostgreSQL |
//! | `rabbitmq` | RabbitMQ |
//! | `redis` | Redis |
//! | `smtp` | aiosmtpd, a mail server that keeps what it gets |

mod certificates;
mod clouds;
mod containerd;
mod docker_registry;
mod etcd;
mod mariadb;
mod mosquitto;
mod moto;
mod nats;
mod postgres;
mod process;
mod rabbitmq;
mod redis;
mod smtp;

pub use certificates::{Certificates, TlsServer};
pub use clouds::{AZURITE_ACCOUNT, azurite, fake_gcs, python_with_clouds};
pub use containerd::containerd;
pub use docker_registry::{REGISTRY_USER, docker_registry, docker_registry_with_users};
pub use etcd::etcd;
pub use mariadb::mariadb;
pub use mosquitto::{mosquitto, mosquitto_with_tls};
pub use moto::{MOTO_KEYS, moto, moto_to_be, python_with_boto3};
pub use nats::{nats, nats_with_narrow_user, nats_with_tls, nats_with_token, nats_with_users};
pub use postgres::{postgres, postgres_with_tls};
pub use process::{Process, StartError, free_port};
pub use rabbitmq::{rabbitmq, rabbitmq_with_tls};
pub use redis::{TlsRedis, redis, redis_with_tls};
pub use smtp::{MailServer, SMTP_LOGIN, smtp};
