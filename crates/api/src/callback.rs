//! The events that an app gets, as messages of `AppCallback`: out of the requests that HTTP apps get, and the
//! answers back.
//!
//! Every trigger has the form of an HTTP request (Dapr's convention); a gRPC app gets the same content in
//! messages, and its answers become the replies that an HTTP app would have given. No connection here: that is
//! `crate::channel::grpc`.

use crate::proto::common::v1::StateItem;
use crate::proto::runtime::v1::binding_event_response::BindingEventConcurrency;
use crate::proto::runtime::v1::topic_event_bulk_request_entry::Event;
use crate::proto::runtime::v1::topic_event_response::TopicEventResponseStatus;
use crate::proto::runtime::v1::{
    BindingEventResponse, TopicEventBulkRequest, TopicEventBulkRequestEntry, TopicEventBulkResponse,
    TopicEventCeRequest, TopicEventRequest, TopicSubscription,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use dhow_blocks::cloud_event::CloudEvent;
use dhow_blocks::events::Metadata;
use dhow_blocks::invoke::EventOf;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Fields of an envelope that have fields of their own in a message; the others are extensions.
const NAMED: [&str; 9] =
    ["id", "source", "type", "specversion", "datacontenttype", "data", "data_base64", "topic", "pubsubname"];

/// Several events in one request.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Bulk<'a> {
    id: String,
    r#type: String,
    topic: String,
    pubsubname: String,
    metadata: Metadata,
    #[serde(borrow)]
    entries: Vec<BulkEntry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BulkEntry<'a> {
    entry_id: String,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    content_type: String,
}

/// An event, out of its envelope; the path is for the caller to add. The topic is the one that it came from: in the
/// envelope a dead letter still has the one that it was published to. The error says what is wrong with the envelope.
pub(crate) fn topic_event(envelope: &[u8], of: Option<&EventOf>) -> Result<TopicEventRequest, String> {
    let event = CloudEvent::parse(envelope)?;
    let (data, data_content_type) = event.data();
    let text = |name: &str| event.text(name).unwrap_or_default().to_owned();
    let (pubsub_name, topic) = match of {
        Some(of) => (of.component.clone(), of.name.clone()),
        None => (text("pubsubname"), text("topic")),
    };
    Ok(TopicEventRequest {
        id: text("id"),
        source: text("source"),
        r#type: text("type"),
        spec_version: text("specversion"),
        data_content_type,
        data,
        topic,
        pubsub_name,
        path: String::new(),
        extensions: Some(extensions(&event)),
    })
}

/// Several events, out of the request that an HTTP app would get.
pub(crate) fn bulk_topic_event(body: &[u8]) -> Result<TopicEventBulkRequest, String> {
    let Bulk { id, r#type, topic, pubsubname, metadata, entries } =
        serde_json::from_slice(body).map_err(|error| format!("not a bulk of events: {error}"))?;
    let entries = entries.into_iter().map(|entry| {
        Ok(TopicEventBulkRequestEntry {
            event: Some(bulk_event(entry.event)?),
            entry_id: entry.entry_id,
            content_type: entry.content_type,
            metadata: entry.metadata,
        })
    });
    Ok(TopicEventBulkRequest {
        id,
        entries: entries.collect::<Result<_, String>>()?,
        metadata,
        topic,
        pubsub_name: pubsubname,
        r#type,
        path: String::new(),
    })
}

fn bulk_event(event: &RawValue) -> Result<Event, String> {
    // Without an envelope, bytes come as text.
    if let Ok(encoded) = serde_json::from_str::<String>(event.get()) {
        let bytes = BASE64_STANDARD.decode(&encoded).map_or_else(|_| encoded.into(), Bytes::from);
        return Ok(Event::Bytes(bytes));
    }
    let TopicEventRequest { id, source, r#type, spec_version, data_content_type, data, extensions, .. } =
        topic_event(event.get().as_bytes(), None)?;
    let event = TopicEventCeRequest { id, source, r#type, spec_version, data_content_type, data, extensions };
    Ok(Event::CloudEvent(event))
}

fn extensions(event: &CloudEvent) -> Struct {
    let fields = event.0.iter().filter(|(name, _)| !NAMED.contains(&name.as_str()));
    Struct { fields: fields.map(|(name, value)| (name.clone(), proto(value))).collect() }
}

fn proto(json: &Value) -> prost_types::Value {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(proto).collect() }),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), proto(value)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    prost_types::Value { kind: Some(kind) }
}

/// The word for a verdict in JSON. A number that this version does not know is none of Dapr's words, and so makes
/// the event come again.
pub(crate) fn verdict(status: i32) -> &'static str {
    match TopicEventResponseStatus::try_from(status) {
        Ok(TopicEventResponseStatus::Success) => "SUCCESS",
        Ok(TopicEventResponseStatus::Retry) => "RETRY",
        Ok(TopicEventResponseStatus::Drop) => "DROP",
        Err(_) => "UNKNOWN",
    }
}

pub(crate) fn bulk_verdicts(response: &TopicEventBulkResponse) -> Value {
    let statuses = response
        .statuses
        .iter()
        .map(|entry| json!({ "entryId": entry.entry_id, "status": verdict(entry.status) }));
    json!({ "statuses": statuses.collect::<Vec<_>>() })
}

/// Subscriptions in the form of `/dapr/subscribe`. One without a path gets the path `/`: a gRPC app tells topics
/// apart by their names.
pub(crate) fn subscriptions(subscriptions: &[TopicSubscription]) -> Value {
    let subscriptions = subscriptions.iter().map(|subscription| {
        let routes = subscription.routes.clone().unwrap_or_default();
        let rules =
            routes.rules.iter().map(|rule| json!({ "match": rule.r#match, "path": absolute(&rule.path) }));
        let mut json = json!({
            "pubsubname": subscription.pubsub_name,
            "topic": subscription.topic,
            "metadata": subscription.metadata,
            "routes": { "rules": rules.collect::<Vec<_>>(), "default": absolute(&routes.default) },
        });
        if !routes.rules.is_empty() && routes.default.is_empty() {
            json["routes"]["default"].take();
        }
        if !subscription.dead_letter_topic.is_empty() {
            json["deadLetterTopic"] = subscription.dead_letter_topic.as_str().into();
        }
        if let Some(bulk) = &subscription.bulk_subscribe {
            json["bulkSubscribe"] = json!({
                "enabled": bulk.enabled,
                "maxMessagesCount": bulk.max_messages_count,
                "maxAwaitDurationMs": bulk.max_await_duration_ms,
            });
        }
        json
    });
    Value::Array(subscriptions.collect())
}

/// The path of a request for what an app calls so.
pub(crate) fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// An answer to a binding's event, in the form that HTTP apps answer in.
pub(crate) fn binding_answer(response: &BindingEventResponse) -> Value {
    let state = response.states.iter().map(|StateItem { key, value, etag, metadata, .. }| {
        let etag = etag.as_ref().map(|etag| etag.value.as_str());
        json!({ "key": key, "value": data(value), "etag": etag, "metadata": metadata })
    });
    let concurrency = match response.concurrency() {
        BindingEventConcurrency::Sequential => "sequential",
        BindingEventConcurrency::Parallel => "parallel",
    };
    json!({
        "storeName": response.store_name,
        "state": state.collect::<Vec<_>>(),
        "to": response.to,
        "data": data(&response.data),
        "concurrency": concurrency,
    })
}

/// JSON as it is, other text in quotes.
fn data(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::common::v1::Etag;
    use crate::proto::runtime::v1::{
        BulkSubscribeConfig, TopicEventBulkResponseEntry, TopicRoutes, TopicRule,
    };

    #[test]
    fn envelopes_become_messages() {
        let envelope = json!({
            "id": "7", "source": "shop", "type": "t", "specversion": "1.0", "topic": "orders",
            "pubsubname": "pubsub", "datacontenttype": "application/json", "data": {"a": 1},
            "traceparent": "00-x", "nested": {"list": [1, "two", null, true]},
        });
        let event = topic_event(envelope.to_string().as_bytes(), None).unwrap();
        let TopicEventRequest { id, source, data, extensions, pubsub_name, .. } = event;
        assert_eq!((id.as_str(), source.as_str(), pubsub_name.as_str()), ("7", "shop", "pubsub"));
        assert_eq!(&data[..], br#"{"a":1}"#);
        let extensions = extensions.unwrap();
        assert_eq!(extensions.fields.keys().collect::<Vec<_>>(), ["nested", "traceparent"]);
        for wrong in [&b"[]"[..], b"", b"\xff"] {
            assert!(topic_event(wrong, None).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn bulks_have_envelopes_and_bytes() {
        let body = json!({
            "id": "b", "type": "com.dapr.event.sent.bulk", "topic": "orders", "pubsubname": "pubsub",
            "metadata": {"k": "v"}, "entries": [
                {"entryId": "1", "event": {"id": "7", "datacontenttype": "text/plain", "data": "hi"}},
                {"entryId": "2", "event": "AP8=", "contentType": "application/octet-stream"},
                {"entryId": "3", "event": "no base64!"},
            ],
        });
        let bulk = bulk_topic_event(body.to_string().as_bytes()).unwrap();
        let events: Vec<_> = bulk.entries.into_iter().map(|entry| entry.event.unwrap()).collect();
        let Event::CloudEvent(event) = &events[0] else { panic!("{events:?}") };
        assert_eq!((event.id.as_str(), &event.data[..]), ("7", &b"hi"[..]));
        assert_eq!(events[1], Event::Bytes(Bytes::from_static(b"\x00\xff")));
        assert_eq!(events[2], Event::Bytes(Bytes::from_static(b"no base64!")));
        assert!(bulk_topic_event(b"{\"entries\": 1}").is_err());
    }

    #[test]
    fn answers_become_json() {
        let entry =
            |entry_id: &str, status| TopicEventBulkResponseEntry { entry_id: entry_id.to_owned(), status };
        let verdicts = TopicEventBulkResponse { statuses: vec![entry("1", 0), entry("2", 2), entry("3", 9)] };
        let expected = json!({"statuses": [
            {"entryId": "1", "status": "SUCCESS"}, {"entryId": "2", "status": "DROP"}, {"entryId": "3", "status": "UNKNOWN"},
        ]});
        assert_eq!(bulk_verdicts(&verdicts), expected);
        let answer = BindingEventResponse {
            store_name: "store".to_owned(),
            states: vec![StateItem {
                key: "k".to_owned(),
                value: Bytes::from_static(b"{\"a\":1}"),
                etag: Some(Etag { value: "1".to_owned() }),
                ..StateItem::default()
            }],
            to: vec!["queue".to_owned()],
            data: Bytes::from_static(b"text"),
            concurrency: 1,
        };
        let expected = json!({
            "storeName": "store", "to": ["queue"], "data": "text", "concurrency": "parallel",
            "state": [{"key": "k", "value": {"a": 1}, "etag": "1", "metadata": {}}],
        });
        assert_eq!(binding_answer(&answer), expected);
    }

    #[test]
    fn subscriptions_always_have_a_route() {
        let rule = TopicRule { r#match: "event.type == 'x'".to_owned(), path: "x".to_owned() };
        let bulk = BulkSubscribeConfig { enabled: true, max_messages_count: 5, max_await_duration_ms: 9 };
        let list = [
            TopicSubscription { topic: "a".to_owned(), ..TopicSubscription::default() },
            TopicSubscription {
                topic: "b".to_owned(),
                routes: Some(TopicRoutes { rules: vec![rule], default: String::new() }),
                dead_letter_topic: "dead".to_owned(),
                bulk_subscribe: Some(bulk),
                ..TopicSubscription::default()
            },
        ];
        let json = subscriptions(&list);
        assert_eq!(json[0]["routes"], json!({"rules": [], "default": "/"}));
        assert_eq!(json[1]["routes"]["rules"], json!([{"match": "event.type == 'x'", "path": "/x"}]));
        assert_eq!(json[1]["routes"]["default"], Value::Null);
        assert_eq!(json[1]["deadLetterTopic"], "dead");
        assert_eq!(json[1]["bulkSubscribe"]["maxMessagesCount"], 5);
    }
}
