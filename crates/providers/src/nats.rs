//! NATS: pub/sub with JetStream (`pubsub.jetstream`), and of core NATS pub/sub (`pubsub.nats`) and a binding (`bindings.nats`).
//!
//! | file | subject |
//! |---|---|
//! | this one | the connection, from Dapr's metadata fields |
//! | [`login`] | who asks, and TLS; for others as well |
//! | `jetstream` | publishing, streams, and the component |
//! | `consumer` | a subscription: a durable pull consumer |
//! | `core` | messages and requests without storage |
//! | `pubsub`, `binding` | the components of core NATS |

pub(crate) mod binding;
mod consumer;
mod core;
pub(crate) mod jetstream;
pub mod login;
pub(crate) mod pubsub;

use crate::backoff::Backoff;
use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use crate::shutdown::Shutdown;
use crate::tls::Tls;
use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind, ServerError};
use bytes::Bytes;
use dhow_blocks::error::BlockError;
use login::{Login, LoginError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Metadata fields of a connection.
const URL: &[&str] = &["natsURL", "url"];
const CLIENT_CERTIFICATE: &[&str] = &["tls_client_cert", "clientCert"];
const CLIENT_KEY: &[&str] = &["tls_client_key", "clientKey"];

/// The metadata fields of the way to the server, with those of one provider behind them.
macro_rules! fields {
    ($($own:literal),*) => {
        &[
            "natsURL", "url", "name", "jwt", "seedKey", "token", "tls_client_cert", "tls_client_key", "clientCert",
            "clientKey", "caCert", $($own),*
        ]
    };
}
use fields;

/// A request to the server is answered within this time, or has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How many messages of one subscription wait here; more are dropped (JetStream: never asked for).
const BUFFERED: usize = 1024;

/// A connection that comes back by itself.
#[derive(Debug)]
struct Connection {
    client: Client,
    /// Counts the connections that were made; what waits at the old server has to be asked for again.
    connects: watch::Receiver<u64>,
    /// Whether the server forbids what asks it whether it is done.
    forbids_probes: watch::Receiver<bool>,
    shutdown: Shutdown,
}

/// One connection of those that follow each other.
#[derive(Debug, PartialEq, Eq)]
struct Session {
    server_id: String,
    client_id: u64,
}

// === impl Connection ===

impl Connection {
    async fn open(component: &ComponentSpec, name: &str) -> Result<Connection, OpenError> {
        let url = component.field(URL).ok_or_else(|| {
            component.invalid(URL, "given: the server's address, such as nats://localhost:4222")
        })?;
        let (connected, connects) = watch::channel(0);
        let (forbidden, forbids_probes) = watch::channel(false);
        let component_name = component.name.clone();
        let options = ConnectOptions::new()
            .name(component.field(&["name"]).unwrap_or(name))
            .connection_timeout(REQUEST_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .subscription_capacity(BUFFERED)
            .reconnect_delay_callback(Backoff::after)
            .event_callback(move |event| {
                match event {
                    Event::Connected => {
                        forbidden.send_replace(false);
                        connected.send_modify(|count| *count += 1);
                    }
                    Event::ServerError(ServerError::Other(text)) if forbids_inbox(&text) => {
                        forbidden.send_replace(true);
                    }
                    Event::Disconnected => {
                        tracing::warn!(
                            component = component_name,
                            "the connection to NATS is lost; reconnecting"
                        );
                    }
                    event => tracing::debug!(component = component_name, "NATS: {event}"),
                }
                std::future::ready(())
            });
        let options = authenticate(component, url, options).await?;
        let client = options.connect(url).await.map_err(|error| match error.kind() {
            // The parser's text holds the address, and with it perhaps a password.
            ConnectErrorKind::ServerParse => {
                component.invalid(URL, "an address such as nats://localhost:4222, or several with commas")
            }
            _ => component.backend(format!("NATS: {error}")),
        })?;
        Ok(Connection { client, connects, forbids_probes, shutdown: Shutdown::new() })
    }

    /// `Unavailable` at once while the server is away: a request would wait in a buffer.
    fn check(&self) -> Result<(), BlockError> {
        self.shutdown.check()?;
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err(BlockError::unavailable("the connection to NATS is lost; dhow reconnects by itself")),
        }
    }

    /// The connection of now. What is sent from now on went through it if it is still the same afterwards.
    fn session(&self) -> Session {
        let info = self.client.server_info();
        Session { server_id: info.server_id, client_id: info.client_id }
    }

    /// Waits until the server has dealt with what was sent to it since that session was asked for. `Unavailable` if
    /// that may be gone with a connection that was lost meanwhile.
    async fn flush(&self, session: &Session) -> Result<(), BlockError> {
        self.probe().await?;
        if self.session() != *session {
            let reason = "the connection to NATS was lost meanwhile; what was sent has perhaps not arrived";
            return Err(BlockError::unavailable(reason));
        }
        Ok(())
    }

    /// A request that nobody can answer comes back from the server, after all that was sent before. The server
    /// answers a user who may not send it, too, with an error; from then on only the socket is waited for, as the
    /// client's own `flush` does.
    async fn probe(&self) -> Result<(), BlockError> {
        let mut forbids = self.forbids_probes.clone();
        let answer = tokio::select! {
            biased;
            Ok(_) = forbids.wait_for(|forbids| *forbids) => None,
            answer = self.client.request(self.client.new_inbox(), Bytes::new()) => Some(answer),
        };
        let Some(answer) = answer else {
            let written = timeout(REQUEST_TIMEOUT, self.client.flush()).await.map_err(|_| late())?;
            return written.map_err(|error| BlockError::unavailable(format!("NATS: {error}")));
        };
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Err(error) if error.kind() == RequestErrorKind::TimedOut => Err(late()),
            Err(error) => Err(BlockError::unavailable(format!("NATS: {error}"))),
        }
    }

    async fn close(&self) {
        self.shutdown.shut_down(crate::deliveries::STOP_DEADLINE + REQUEST_TIMEOUT).await;
        // Sends what is left; without a connection there is nothing to wait for.
        if self.client.connection_state() == State::Connected {
            let _ = timeout(REQUEST_TIMEOUT, self.client.drain()).await;
        }
    }
}

async fn authenticate(
    component: &ComponentSpec,
    url: &str,
    options: ConnectOptions,
) -> Result<ConnectOptions, OpenError> {
    let tls = Tls::of(&with_pem(component).await?)?;
    let mut login = Login { tls, ..Login::default() };
    match (component.field(&["jwt"]), component.field(&["seedKey"])) {
        (Some(_), None) => return Err(component.invalid(&["seedKey"], "given with jwt")),
        (None, Some(_)) => return Err(component.invalid(&["jwt"], "given with seedKey")),
        (Some(jwt), Some(seed)) => {
            login.credentials = Some(format!(
                "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            ));
        }
        // As in Dapr, a client certificate takes the place of a token.
        (None, None) if login.tls.identity.is_some() => {}
        (None, None) => login.token = component.field(&["token"]).map(str::to_owned),
    }
    login.or_as_in(url).apply(options).map_err(|error| match error {
        LoginError::Credentials | LoginError::Nkey => {
            component.invalid(&["seedKey"], "a seed of a user's nkey, such as SUA…")
        }
        LoginError::Tls(reason) => component.backend(reason),
    })
}

/// The component with the client's certificate and key under the names that all brokers share. NATS names
/// them differently, and takes the path of a file as well.
async fn with_pem(component: &ComponentSpec) -> Result<ComponentSpec, OpenError> {
    let mut renamed = ComponentSpec { metadata: Vec::new(), ..component.clone() };
    if let Some(ca) = component.field(&["caCert"]) {
        renamed.metadata.push(("caCert".to_owned(), ca.to_owned()));
    }
    for (names, name) in [(CLIENT_CERTIFICATE, "clientCert"), (CLIENT_KEY, "clientKey")] {
        let Some(value) = component.field(names) else { continue };
        let pem = match value.contains("-----BEGIN") {
            true => value.to_owned(),
            false => tokio::fs::read_to_string(value)
                .await
                .map_err(|_| component.invalid(names, "a PEM text, or the path of a file that holds one"))?,
        };
        renamed.metadata.push((name.to_owned(), pem));
    }
    Ok(renamed)
}

/// Whether a text can be a header's value: NATS keeps headers as lines.
fn is_header(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && !text.contains(['\r', '\n'])
}

/// Whether an error of the server is about the subjects of requests' answers.
fn forbids_inbox(error: &str) -> bool {
    error.to_ascii_lowercase().contains("permissions violation") && error.contains("\"_INBOX.")
}

fn late() -> BlockError {
    BlockError::unavailable(format!("NATS did not answer within {REQUEST_TIMEOUT:?}"))
}

/// A stream's or consumer's name for any text: what NATS does not allow in a name becomes `=` and two
/// hexadecimal digits, so that different texts stay different.
fn as_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            byte => name.push_str(&format!("={byte:02X}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_sent_through_a_lost_connection_does_not_count_as_sent() {
        let server = tokio::task::block_in_place(dhow_servers::nats).unwrap();
        let component = ComponentSpec {
            name: "component".to_owned(),
            component_type: "bindings.nats".to_owned(),
            version: "v1".to_owned(),
            metadata: vec![("natsURL".to_owned(), format!("nats://{}", server.address()))],
        };
        let connection = Connection::open(&component, "test").await.unwrap();
        let mut connects = connection.connects.clone();
        connects.wait_for(|count| *count == 1).await.unwrap();
        let session = connection.session();
        assert_eq!(connection.flush(&session).await, Ok(()));
        connection.client.force_reconnect().await.unwrap();
        connects.wait_for(|count| *count == 2).await.unwrap();
        let lost = connection.flush(&session).await;
        assert!(matches!(lost, Err(BlockError::Unavailable { .. })), "{lost:?}");
        assert_eq!(connection.flush(&connection.session()).await, Ok(()));
        connection.close().await;
    }

    #[test]
    fn errors_about_answers_are_told_from_others() {
        for (error, expected) in [
            ("Permissions Violation for Publish to \"_INBOX.abc\"", true),
            ("permissions violation for subscription to \"_INBOX.abc.*\"", true),
            ("Permissions Violation for Publish to \"orders\"", false),
            ("Authorization Violation", false),
        ] {
            assert_eq!(forbids_inbox(error), expected, "{error}");
        }
    }

    #[test]
    fn names() {
        for (text, expected) in [
            ("orders", "orders"),
            ("orders.new", "orders=2Enew"),
            ("orders.>", "orders=2E=3E"),
            ("a=b", "a=3Db"),
            ("ä/", "=C3=A4=2F"),
        ] {
            assert_eq!(as_name(text), expected);
        }
    }
}
