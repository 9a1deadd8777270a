//! RabbitMQ (AMQP 0.9.1): `pubsub.rabbitmq` and `bindings.rabbitmq`.
//!
//! | file | subject |
//! |---|---|
//! | this one | the connection, from Dapr's metadata fields |
//! | `topology` | exchanges and queues, declared or found |
//! | `publisher` | a channel with confirmations |
//! | `consumer` | from a queue to a handler |
//! | `pubsub`, `binding` | the two components |

pub(crate) mod binding;
mod consumer;
mod publisher;
pub(crate) mod pubsub;
mod topology;

use crate::backoff::Backoff;
use crate::deliveries::STOP_DEADLINE;
use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use crate::shutdown::{Alive, Shutdown};
use crate::tls::Tls;
use dhow_blocks::error::BlockError;
use futures::StreamExt;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::ShortString;
use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{ConnectionProperties, ErrorKind};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const CONNECTION_STRING: &[&str] = &["connectionString", "host"];
const SASL_EXTERNAL: &[&str] = &["saslExternal", "externalSasl"];

/// The broker answers within this time, or the request has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Dapr's default, in seconds.
const HEARTBEAT: u16 = 10;

/// Not every loss of a connection is told; what is not is seen within this time.
const LOOK: Duration = Duration::from_secs(1);

/// Where the broker is and who connects to it. Its `Debug` shows no password.
#[derive(Clone)]
struct Server {
    uri: AMQPUri,
    tls: Tls,
    name: String,
}

/// A connection that comes back by itself.
#[derive(Debug)]
struct Connection {
    current: watch::Receiver<Option<Arc<lapin::Connection>>>,
    /// Ends the task that connects again. Apart from that of the subscriptions, which end before.
    connecting: Shutdown,
    subscriptions: Shutdown,
}

// === impl Server ===

impl Server {
    fn of(component: &ComponentSpec) -> Result<Server, OpenError> {
        let mut uri = match component.field(CONNECTION_STRING) {
            Some(text) => text.parse().map_err(|_| {
                component.invalid(CONNECTION_STRING, "an address such as amqp://user:password@localhost:5672")
            })?,
            None => address(component)?,
        };
        // lapin knows the difference; Dapr's client does not.
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        let seconds = component.duration(&["heartBeat"])?.map(|heartbeat| heartbeat.as_secs());
        let seconds = seconds.map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX));
        uri.query.heartbeat = seconds.or(uri.query.heartbeat).or(Some(HEARTBEAT));
        uri.query.connection_timeout =
            uri.query.connection_timeout.or(u64::try_from(TIMEOUT.as_millis()).ok());
        if component.truthy(SASL_EXTERNAL) {
            uri.query.auth_mechanism = Some(SASLMechanism::External);
        }
        let name = component.field(&["clientName"]).unwrap_or(&component.name).to_owned();
        Ok(Server { uri, tls: Tls::of(component)?, name })
    }

    async fn connect(&self) -> Result<lapin::Connection, BlockError> {
        let identity = self.tls.identity.clone().map(|(pem, key)| OwnedIdentity::PKCS8 { pem, key });
        let authorities = self.tls.authorities.as_deref().map(String::from_utf8_lossy);
        let tls = OwnedTLSConfig { identity, cert_chain: authorities.map(Cow::into_owned) };
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let runtime = lapin::runtime::default_runtime().map_err(failed)?;
        let connected =
            lapin::Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime);
        in_time(connected).await
    }
}

/// The address from its parts; each has a default.
fn address(component: &ComponentSpec) -> Result<AMQPUri, OpenError> {
    let scheme = match component.field(&["protocol"]) {
        None | Some("amqp") => AMQPScheme::AMQP,
        Some("amqps") => AMQPScheme::AMQPS,
        Some(_) => return Err(component.invalid(&["protocol"], "amqp or amqps")),
    };
    let host = component.field(&["hostname"]).unwrap_or("localhost");
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => {
                return Err(component.invalid(&["hostname"], "a host, or a host and its port: host:5672"));
            }
        },
        None => (host, scheme.default_port()),
    };
    let text = |name: &str| component.field(&[name]).map(str::to_owned);
    let userinfo = match (text("username"), text("password")) {
        (None, None) => AMQPUserInfo { username: "guest".to_owned(), password: "guest".to_owned() },
        (user, password) => {
            AMQPUserInfo { username: user.unwrap_or_default(), password: password.unwrap_or_default() }
        }
    };
    let authority = AMQPAuthority { userinfo, host: host.to_owned(), port };
    Ok(AMQPUri { scheme, authority, ..AMQPUri::default() })
}

// === impl Connection ===

impl Connection {
    async fn open(component: &ComponentSpec) -> Result<Connection, OpenError> {
        let server = Server::of(component)?;
        let first = server.connect().await.map_err(|error| component.backend(error.to_string()))?;
        let (sender, current) = watch::channel(Some(Arc::new(first)));
        let connecting = Shutdown::new();
        if let Ok(alive) = connecting.alive() {
            tokio::spawn(keep_connected(server, sender, alive));
        }
        Ok(Connection { current, connecting, subscriptions: Shutdown::new() })
    }

    /// The connection, or `Unavailable` at once while there is none.
    fn get(&self) -> Result<Arc<lapin::Connection>, BlockError> {
        self.subscriptions.check()?;
        let current = self.current.borrow().clone();
        current.filter(|connection| connection.status().connected()).ok_or_else(lost)
    }

    async fn close(&self) {
        self.subscriptions.shut_down(STOP_DEADLINE + TIMEOUT).await;
        self.connecting.shut_down(TIMEOUT).await;
    }
}

/// Connects again whenever the connection is lost; closes it at the end.
async fn keep_connected(
    server: Server,
    current: watch::Sender<Option<Arc<lapin::Connection>>>,
    mut alive: Alive,
) {
    let mut backoff = Backoff::new();
    loop {
        let connection = current.borrow().clone();
        let Some(connection) = connection else {
            let wait = backoff.wait();
            tokio::select! {
                () = alive.ended() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match server.connect().await {
                Ok(connection) => {
                    backoff.reset();
                    current.send_replace(Some(Arc::new(connection)));
                }
                Err(error) => tracing::warn!(component = server.name, "{error}; trying again"),
            }
            continue;
        };
        let mut events = Box::pin(connection.events_listener());
        while connection.status().connected() {
            tokio::select! {
                () = alive.ended() => {
                    current.send_replace(None);
                    let _ = in_time(connection.close(200, ShortString::default())).await;
                    return;
                }
                _ = tokio::time::timeout(LOOK, events.next()) => {}
            }
        }
        tracing::warn!(component = server.name, "the connection to RabbitMQ is lost; reconnecting");
        current.send_replace(None);
    }
}

/// The answer to a request, or `Unavailable` if it does not come.
async fn in_time<T>(request: impl Future<Output = lapin::Result<T>>) -> Result<T, BlockError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(BlockError::unavailable(format!("RabbitMQ did not answer within {TIMEOUT:?}"))),
    }
}

fn failed(error: lapin::Error) -> BlockError {
    let reason = format!("RabbitMQ: {error}");
    match error.kind() {
        ErrorKind::ProtocolError(error) if matches!(error.kind(), AMQPErrorKind::Soft(_)) => {
            BlockError::failed(reason)
        }
        _ => BlockError::unavailable(reason),
    }
}

/// Whether something exists with other properties than those that were asked for.
fn is_different(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
}

/// AMQP's short strings have at most 255 bytes.
fn short(text: &str, what: &str) -> Result<ShortString, BlockError> {
    ShortString::try_new(text)
        .map_err(|_| BlockError::invalid(format!("{what} {text:.40?}… is too long: at most 255 bytes")))
}

fn lost() -> BlockError {
    BlockError::unavailable("the connection to RabbitMQ is lost; dhow reconnects by itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(metadata: &[(&str, &str)]) -> Result<Server, OpenError> {
        let metadata =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Server::of(&ComponentSpec { metadata, ..ComponentSpec::default() })
    }

    #[test]
    fn addresses() {
        for (metadata, host, port, vhost, user, password) in [
            (&[("connectionString", "amqp://u:p%40@h:1/v")][..], "h", 1, "v", "u", "p@"),
            (&[("host", "amqp://h")], "h", 5672, "/", "guest", "guest"),
            (&[("connectionString", "amqp://h/")], "h", 5672, "/", "guest", "guest"),
            (&[], "localhost", 5672, "/", "guest", "guest"),
            (&[("hostname", "h:7"), ("username", "u"), ("password", "p:@/")], "h", 7, "/", "u", "p:@/"),
            (&[("hostname", "h"), ("protocol", "amqps")], "h", 5671, "/", "guest", "guest"),
        ] {
            let AMQPUri { authority, vhost: found_vhost, .. } = server(metadata).unwrap().uri;
            let AMQPUserInfo { username, password: found_password } = authority.userinfo;
            assert_eq!((authority.host.as_str(), authority.port), (host, port), "{metadata:?}");
            assert_eq!(
                (found_vhost.as_str(), username.as_str(), found_password.as_str()),
                (vhost, user, password)
            );
        }
        let uri = server(&[("heartBeat", "30s"), ("saslExternal", "true")]).unwrap().uri;
        assert_eq!(uri.query.heartbeat, Some(30));
        assert!(uri.query.auth_mechanism == Some(SASLMechanism::External));
    }

    #[test]
    fn wrong_addresses_are_named_without_their_secrets() {
        for (field, value) in [
            ("connectionString", "http://u:hunter2@h"),
            ("connectionString", "amqp://u:hunter2@h:port"),
            ("hostname", "hunter2:port"),
            ("protocol", "hunter2"),
        ] {
            let error = server(&[(field, value)]).map(|_| ()).unwrap_err();
            assert!(matches!(error, OpenError::InvalidMetadata { .. }), "{field}");
            assert!(!error.to_string().contains("hunter2"), "{field}");
        }
    }

    #[test]
    fn long_names_are_refused() {
        assert!(short(&"é".repeat(200), "topic").is_err());
        assert!(short(&"a".repeat(255), "topic").is_ok());
    }
}
