//! `bindings.mqtt3`: publishes to a topic, and receives from it.

use super::pubsub::{publisher_id, retries};
use super::session::Session;
use super::subscription::Subscribing;
use super::{Publishing, Server};
use crate::deliveries::{PARALLEL, STOP_DEADLINE};
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use crate::shutdown::{Shutdown, closed};
use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running, value};
use parking_lot::Mutex;
use rumqttc::mqttbytes::v4::Publish;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.mqtt3",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::Binding(|component, _| {
        Box::pin(async move { Ok(Arc::new(Mqtt::open(&component).await?) as Arc<dyn Binding>) })
    }),
};

const FIELDS: &[&str] = &[
    "url",
    "topic",
    "consumerID",
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

/// Names the topic in a request, and in an event.
const TOPIC: &str = "topic";
const MQTT_TOPIC: &str = "mqttTopic";

/// An open component.
struct Mqtt {
    topic: String,
    publishing: Publishing,
    /// Handler calls at once.
    limit: usize,
    retries: Option<usize>,
    shutdown: Shutdown,
    sessions: Mutex<Option<Sessions>>,
}

/// The connections of an open component.
struct Sessions {
    publisher: Arc<Session>,
    subscriber: Session,
}

// === impl Mqtt ===

impl Mqtt {
    async fn open(component: &ComponentSpec) -> Result<Mqtt, OpenError> {
        let topic = component.field(&[TOPIC]).filter(|topic| super::filter::is_filter(topic));
        let topic = topic.ok_or_else(|| component.invalid(&[TOPIC], "an MQTT topic"))?.to_owned();
        let server = Server::of(component)?;
        let publishing = Publishing::of(component)?;
        let limit = if component.is_single(false)? { 1 } else { PARALLEL };
        let retries = retries(component)?;
        let publisher = Session::publisher(server.clone(), publisher_id()).await;
        let publisher = Arc::new(publisher.map_err(|error| component.backend(format!("MQTT: {error}")))?);
        // As in Dapr; there, a component without a consumerID is an error.
        let client = format!("{}-consumer", component.field(&["consumerID"]).unwrap_or(&component.name));
        let subscriber = Session::subscriber(server, client, topic.clone(), publishing.qos);
        let sessions = Mutex::new(Some(Sessions { publisher, subscriber }));
        Ok(Mqtt { topic, publishing, limit, retries, shutdown: Shutdown::new(), sessions })
    }

    fn publisher(&self) -> Result<Arc<Session>, BlockError> {
        self.shutdown.check()?;
        let sessions = self.sessions.lock();
        sessions.as_ref().map(|sessions| Arc::clone(&sessions.publisher)).ok_or_else(closed)
    }
}

#[async_trait]
impl Binding for Mqtt {
    fn operations(&self) -> Vec<&str> {
        vec!["create"]
    }

    fn is_input(&self) -> bool {
        true
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let BindingRequest { operation, data, metadata } = request;
        if operation != "create" {
            return Err(BlockError::invalid(format!("operation {operation:?} is not known; use create")));
        }
        let topic = value(&metadata, TOPIC).or_else(|| value(&metadata, MQTT_TOPIC));
        let topic = topic.filter(|topic| !topic.is_empty()).unwrap_or(&self.topic);
        let packet = self.publishing.packet(topic, data, &metadata)?;
        self.publisher()?.publish(packet).await?;
        Ok(BindingResponse::default())
    }

    async fn read(&self, handler: Arc<dyn Handler<BindingEvent>>) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        let control = self.sessions.lock().as_ref().map(|sessions| sessions.subscriber.control());
        let subscribing = Subscribing { limit: self.limit, retries: self.retries, unsubscribe: false };
        Ok(Box::new(subscribing.begin(control.ok_or_else(closed)?, handler, event, alive).await?))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.publisher()?.check()
    }

    async fn close(&self) {
        self.shutdown.shut_down(STOP_DEADLINE + super::TIMEOUT).await;
        let Some(Sessions { publisher, subscriber }) = self.sessions.lock().take() else { return };
        subscriber.end().await;
        if let Some(publisher) = Arc::into_inner(publisher) {
            publisher.end().await;
        }
    }
}

fn event(publish: &Publish) -> BindingEvent {
    let topic = publish.topic.clone();
    let metadata = [(MQTT_TOPIC, topic.clone()), (TOPIC, topic)];
    let metadata: Metadata = metadata.map(|(name, topic)| (name.to_owned(), topic)).into();
    BindingEvent { data: publish.payload.clone(), metadata }
}
