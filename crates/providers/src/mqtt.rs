//! MQTT 3.1.1: `pubsub.mqtt3` and `bindings.mqtt3`.
//!
//! Packets are read and written by rumqttc; its event loop is not used, because it does not tell which
//! publish an acknowledgement belongs to, and sends again what was answered as failed.
//!
//! | file | subject |
//! |---|---|
//! | this one | the broker's address and the client's identity, from Dapr's metadata fields |
//! | `filter` | what can be a topic or a topic filter |
//! | `link` | one connection: packets in, packets out |
//! | `session` | one client id: connects again and again, knows what is not acknowledged |
//! | `subscription` | from a session to a handler |
//! | `pubsub`, `binding` | the two components |

pub(crate) mod binding;
mod filter;
mod link;
pub(crate) mod pubsub;
mod session;
mod subscription;

use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use crate::tls::Tls;
use bytes::Bytes;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Publish;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const URL: &[&str] = &["url"];

/// The broker answers within this time, or the request has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the broker is and who connects to it. Its `Debug` shows no password.
#[derive(Clone)]
struct Server {
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// User and password.
    login: Option<(String, String)>,
    /// Whether the broker forgets subscriptions and messages of a client that goes away.
    clean: bool,
}

/// How messages are published.
#[derive(Clone, Copy, Debug)]
struct Publishing {
    qos: QoS,
    retain: bool,
}

// === impl Server ===

impl Server {
    fn of(component: &ComponentSpec) -> Result<Server, OpenError> {
        const EXPECTED: &str = "the broker's address: tcp://host:1883, or ssl://host:8883 for TLS";
        let invalid = || component.invalid(URL, EXPECTED);
        let url = url::Url::parse(component.field(URL).ok_or_else(invalid)?).map_err(|_| invalid())?;
        let tls = match url.scheme() {
            "tcp" | "mqtt" => None,
            "ssl" | "tls" | "tcps" | "mqtts" => {
                Some(Tls::of(component)?.client_config().map_err(|error| component.backend(error))?)
            }
            _ => return Err(invalid()),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let decoded = |text: &str| crate::metadata::percent_decode(text).ok_or_else(invalid);
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decoded(user)?, decoded(password.unwrap_or_default())?)),
        };
        Ok(Server {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(if tls.is_some() { 8883 } else { 1883 }),
            tls: tls.map(Arc::new),
            login,
            clean: component.truthy(&["cleanSession"]),
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { host, port, tls, login, clean } = self;
        f.debug_struct("Server")
            .field("host", host)
            .field("port", port)
            .field("tls", &tls.is_some())
            .field("login", &login.is_some())
            .field("clean", clean)
            .finish()
    }
}

// === impl Publishing ===

impl Publishing {
    fn of(component: &ComponentSpec) -> Result<Publishing, OpenError> {
        let qos = match component.number(&["qos"], 2, "0 or 1")? {
            Some(0) => QoS::AtMostOnce,
            Some(2) => {
                tracing::warn!(component = component.name, "qos 2 is not supported; 1 is used");
                QoS::AtLeastOnce
            }
            _ => QoS::AtLeastOnce,
        };
        Ok(Publishing { qos, retain: component.truthy(&["retain"]) })
    }

    /// A packet, or why there can be none. The metadata field `retain` of the request decides before the
    /// component's.
    fn packet(self, topic: &str, data: Bytes, metadata: &Metadata) -> Result<Publish, BlockError> {
        if !filter::is_topic(topic) {
            return Err(BlockError::invalid(format!(
                "{topic:?} cannot be published to: a topic has 1 to 65535 bytes, no + and no #"
            )));
        }
        if data.len() > dhow_blocks::pubsub::MAX_MESSAGE_BYTES {
            return Err(BlockError::invalid(format!("the message has {} bytes, too many", data.len())));
        }
        let retain = match value(metadata, "retain").filter(|text| !text.is_empty()) {
            None => self.retain,
            Some(text) => text
                .trim()
                .to_ascii_lowercase()
                .parse()
                .map_err(|_| BlockError::invalid("the metadata field retain must be true or false"))?,
        };
        let mut publish = Publish::from_bytes(topic, self.qos, data);
        publish.retain = retain;
        Ok(publish)
    }
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
        for (url, host, port, tls) in [
            ("tcp://broker:1884", "broker", 1884, false),
            ("mqtt://broker", "broker", 1883, false),
            ("ssl://broker", "broker", 8883, true),
            ("mqtts://[::1]:99", "::1", 99, true),
        ] {
            let server = server(&[("url", url)]).unwrap();
            assert_eq!((server.host.as_str(), server.port, server.tls.is_some()), (host, port, tls), "{url}");
        }
        let server = server(&[("url", "tcp://user:p%40ss@broker"), ("cleanSession", "true")]).unwrap();
        assert_eq!(server.login, Some(("user".to_owned(), "p@ss".to_owned())));
        assert!(server.clean && !format!("{server:?}").contains("p@ss"));
    }

    #[test]
    fn wrong_addresses_are_named_without_their_secrets() {
        for url in ["", "broker", "http://broker", "tcp://", "tcp://user:hunter2@", "tcp://u:hunter2@b:port"]
        {
            let error = server(&[("url", url)]).unwrap_err();
            assert!(matches!(error, OpenError::InvalidMetadata { .. }), "{url}");
            assert!(!error.to_string().contains("hunter2"), "{url}");
        }
    }
}
