//! `pubsub.mqtt3`: topics are MQTT topics, a consumer is the front of a client id.
//!
//! A consumer's messages wait at the broker under the client id `<consumer>-<topic>`. In Dapr all topics of a
//! consumer have one client id; why not here, says `session`. As there, two hosts with one consumer would push
//! each other out of the broker: hosts that share the work each need a `consumerID` of their own and topics of
//! the form `$share/<group>/<topic>`. Publishing has a connection of its own.

use super::session::Session;
use super::subscription::Subscribing;
use super::{Publishing, Server};
use crate::deliveries::{PARALLEL, STOP_DEADLINE};
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use crate::shutdown::{Shutdown, closed};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running, value};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use parking_lot::Mutex;
use rumqttc::mqttbytes::v4::Publish;
use std::collections::HashMap;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "pubsub.mqtt3",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::PubSub(|component, _| {
        Box::pin(async move { Ok(Arc::new(Mqtt::open(&component).await?) as Arc<dyn PubSub>) })
    }),
};

const FIELDS: &[&str] = &[
    "url",
    "qos",
    "retain",
    "cleanSession",
    "caCert",
    "clientCert",
    "clientKey",
    "backOffMaxRetries",
    "concurrency",
    "concurrencyMode",
];

/// An open component.
struct Mqtt {
    server: Server,
    publishing: Publishing,
    /// Handler calls of a subscription at once.
    limit: usize,
    retries: Option<usize>,
    shutdown: Shutdown,
    sessions: Mutex<Option<Sessions>>,
}

/// The connections of an open component.
struct Sessions {
    publisher: Arc<Session>,
    /// By client id. One that no longer receives keeps its entry, without a connection.
    subscribers: HashMap<String, Session>,
}

/// The number of retries; `None` is without a limit.
pub(super) fn retries(component: &ComponentSpec) -> Result<Option<usize>, OpenError> {
    const FIELD: &[&str] = &["backOffMaxRetries"];
    if component.field(FIELD).is_some_and(|value| value.trim() == "-1") {
        return Ok(None);
    }
    let retries = component.number(FIELD, u64::from(u32::MAX), "a number of retries, or -1 for no limit")?;
    Ok(retries.and_then(|retries| usize::try_from(retries).ok()))
}

/// The client id of a connection that only publishes. Nothing waits for it, so it needs no lasting name.
pub(super) fn publisher_id() -> String {
    // At most 23 letters and digits: what every broker has to accept.
    format!("dhow{:016x}", fastrand::u64(..))
}

// === impl Mqtt ===

impl Mqtt {
    async fn open(component: &ComponentSpec) -> Result<Mqtt, OpenError> {
        let server = Server::of(component)?;
        let publishing = Publishing::of(component)?;
        let limit = if component.is_single(false)? { 1 } else { PARALLEL };
        let retries = retries(component)?;
        let publisher = Session::publisher(server.clone(), publisher_id()).await;
        let publisher = Arc::new(publisher.map_err(|error| component.backend(format!("MQTT: {error}")))?);
        let sessions = Mutex::new(Some(Sessions { publisher, subscribers: HashMap::new() }));
        Ok(Mqtt { server, publishing, limit, retries, shutdown: Shutdown::new(), sessions })
    }

    fn publisher(&self) -> Result<Arc<Session>, BlockError> {
        self.shutdown.check()?;
        let sessions = self.sessions.lock();
        sessions.as_ref().map(|sessions| Arc::clone(&sessions.publisher)).ok_or_else(closed)
    }
}

#[async_trait]
impl PubSub for Mqtt {
    fn features(&self) -> &'static [Feature] {
        &[Feature::SubscribeWildcards]
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        let Outgoing { topic, data, metadata, .. } = message;
        let packet = self.publishing.packet(&topic, data, &metadata)?;
        self.publisher()?.publish(packet).await
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<(), BlockError>> {
        // All are on their way at once; the queue to the session keeps their order.
        futures::future::join_all(messages.into_iter().map(|message| self.publish(message))).await
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        let Subscribe { topic, consumer, metadata } = subscribe;
        if !super::filter::is_filter(&topic) {
            return Err(BlockError::invalid(format!(
                "{topic:?} is not an MQTT topic filter: + stands for one level, # at the end for all that follow"
            )));
        }
        let control = {
            let mut sessions = self.sessions.lock();
            let sessions = sessions.as_mut().ok_or_else(closed)?;
            let client = format!("{consumer}-{topic}");
            let (server, qos) = (&self.server, self.publishing.qos);
            let session = || Session::subscriber(server.clone(), client.clone(), topic, qos);
            sessions.subscribers.entry(client.clone()).or_insert_with(session).control()
        };
        let unsubscribe = value(&metadata, "unsubscribeOnClose");
        let subscribing = Subscribing {
            limit: self.limit,
            retries: self.retries,
            unsubscribe: unsubscribe.is_some_and(|text| text.eq_ignore_ascii_case("true")),
        };
        Ok(Box::new(subscribing.begin(control, handler, message, alive).await?))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.publisher()?.check()
    }

    async fn close(&self) {
        self.shutdown.shut_down(STOP_DEADLINE + super::TIMEOUT).await;
        let Some(Sessions { publisher, subscribers }) = self.sessions.lock().take() else { return };
        for session in subscribers.into_values().chain(Arc::into_inner(publisher)) {
            session.end().await;
        }
    }
}

fn message(publish: &Publish) -> Message {
    Message {
        topic: publish.topic.clone(),
        data: publish.payload.clone(),
        content_type: None,
        metadata: Metadata::from([("retained".to_owned(), publish.retain.to_string())]),
    }
}
