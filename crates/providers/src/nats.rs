//! NATS: pub/sub with JetStream (`pubsub.jetstream`) and a binding of core NATS (`bindings.nats`).
//!
//! | file | subject |
//! |---|---|
//! | this one | the connection, from Dapr's metadata fields |
//! | `jetstream` | publishing, streams, and the component |
//! | `consumer` | a subscription: a durable pull consumer |
//! | `binding` | requests, messages and events without storage |

pub(crate) mod binding;
mod consumer;
pub(crate) mod jetstream;

use crate::backoff::Backoff;
use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use crate::shutdown::Shutdown;
use crate::tls::TlsOptions;
use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind};
use bytes::Bytes;
use dhow_blocks::error::BlockError;
use std::time::Duration;
use tokio::sync::watch;

/// Metadata fields of a connection.
const URL: &[&str] = &["natsURL", "url"];
const CLIENT_CERTIFICATE: &[&str] = &["tls_client_cert", "clientCert"];
const CLIENT_KEY: &[&str] = &["tls_client_key", "clientKey"];

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
    shutdown: Shutdown,
}

// === impl Connection ===

impl Connection {
    async fn open(component: &ComponentSpec, name: &str) -> Result<Connection, OpenError> {
        let url = component.field(URL).ok_or_else(|| {
            component.invalid(URL, "given: the server's address, such as nats://localhost:4222")
        })?;
        let (connected, connects) = watch::channel(0);
        let component_name = component.name.clone();
        let options = ConnectOptions::new()
            .name(component.field(&["name"]).unwrap_or(name))
            .connection_timeout(REQUEST_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .subscription_capacity(BUFFERED)
            .reconnect_delay_callback(Backoff::after)
            .event_callback(move |event| {
                match event {
                    Event::Connected => connected.send_modify(|count| *count += 1),
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
        let options = authenticate(component, options).await?;
        let client = options.connect(url).await.map_err(|error| match error.kind() {
            // The parser's text holds the address, and with it perhaps a password.
            ConnectErrorKind::ServerParse => {
                component.invalid(URL, "an address such as nats://localhost:4222, or several with commas")
            }
            _ => component.backend(format!("NATS: {error}")),
        })?;
        Ok(Connection { client, connects, shutdown: Shutdown::new() })
    }

    /// `Unavailable` at once while the server is away: a request would wait in a buffer.
    fn check(&self) -> Result<(), BlockError> {
        self.shutdown.check()?;
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err(BlockError::unavailable("the connection to NATS is lost; dhow reconnects by itself")),
        }
    }

    /// Waits until the server has dealt with what was sent to it. The client's own `flush` only waits for the socket;
    /// a request that nobody can answer comes back from the server, after all that was sent before.
    async fn flush(&self) -> Result<(), BlockError> {
        match self.client.request(self.client.new_inbox(), Bytes::new()).await {
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
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, self.client.drain()).await;
        }
    }
}

async fn authenticate(
    component: &ComponentSpec,
    options: ConnectOptions,
) -> Result<ConnectOptions, OpenError> {
    let tls = TlsOptions::of(&with_pem(component).await?)?;
    let options = match tls.ca.is_some() || tls.client.is_some() {
        true => options.tls_client_config(tls.client_config(component)?),
        false => options,
    };
    match (component.field(&["jwt"]), component.field(&["seedKey"])) {
        (Some(_), None) => Err(component.invalid(&["seedKey"], "given with jwt")),
        (None, Some(_)) => Err(component.invalid(&["jwt"], "given with seedKey")),
        (Some(jwt), Some(seed)) => {
            let credentials = format!(
                "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            );
            options
                .credentials(&credentials)
                .map_err(|_| component.invalid(&["seedKey"], "a seed of a user's nkey, such as SUA…"))
        }
        // As in Dapr, a client certificate takes the place of a token.
        (None, None) => Ok(match component.field(&["token"]) {
            Some(token) if tls.client.is_none() => options.token(token.to_owned()),
            _ => options,
        }),
    }
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
