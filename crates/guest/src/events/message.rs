//! Messages, out of their envelopes.

use super::{content_type, metadata};
use crate::messaging::wasi;
use crate::runtime::generated::exports::dhow::runtime::topic_handler;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use dhow_blocks::cloud_event::{CloudEvent, is_cloud_event, is_json};
use dhow_blocks::events::Metadata;
use dhow_blocks::invoke::EventOf;
use dhow_blocks::pubsub::REPLY_TO;
use http::request::Parts;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Attributes of an envelope that have a field of their own, or are the data.
const NAMED: [&str; 9] =
    ["data", "data_base64", "datacontenttype", "id", "pubsubname", "source", "subject", "topic", "type"];

/// A message as every interface gets it.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) data: Bytes,
    /// Empty where nobody said.
    content_type: String,
    pubsub: String,
    path: String,
    id: String,
    source: String,
    kind: String,
    subject: Option<String>,
    attributes: Vec<(String, String)>,
    metadata: Vec<(String, String)>,
}

/// The data as they stand in an envelope: numbers keep all their digits.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Several messages in one request (`dhow_host::triggers::bulk`).
#[derive(Deserialize)]
struct Bulk<'a> {
    #[serde(borrow)]
    entries: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    entry_id: String,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(default)]
    metadata: Metadata,
}

/// The messages of a bulk; `None` if the request brings a single one.
pub(crate) fn bulk(
    head: &Parts,
    of: &EventOf,
    body: &[u8],
) -> Result<Option<Vec<(String, Message)>>, String> {
    if is_cloud_event(content_type(&head.headers)) {
        return Ok(None);
    }
    let bulk: Bulk<'_> =
        serde_json::from_slice(body).map_err(|error| format!("not a bulk of messages: {error}"))?;
    let messages = bulk.entries.into_iter().map(|entry| {
        let metadata = entry.metadata.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        // What is no JSON comes as Base64.
        let envelope = match serde_json::from_str::<String>(entry.event.get()) {
            Ok(text) => BASE64_STANDARD.decode(text).map_err(|error| format!("entry: {error}"))?,
            Err(_) => entry.event.get().as_bytes().to_vec(),
        };
        Ok((entry.entry_id, Message::open(&envelope, of, head.uri.path(), metadata.collect())?))
    });
    messages.collect::<Result<_, String>>().map(Some)
}

/// The one message of a request.
pub(crate) fn single(head: &Parts, of: &EventOf, body: &[u8]) -> Result<Message, String> {
    Message::open(body, of, head.uri.path(), metadata(&head.headers))
}

// === impl Message ===

impl Message {
    fn open(
        envelope: &[u8],
        of: &EventOf,
        path: &str,
        metadata: Vec<(String, String)>,
    ) -> Result<Message, String> {
        let event = CloudEvent::parse(envelope)?;
        let (data, content_type) = event.data();
        let as_it_stands = || serde_json::from_slice::<Data<'_>>(envelope).ok()?.data;
        let data = match event.0.contains_key("data_base64") {
            false if is_json(&content_type) => {
                as_it_stands().map_or(data, |raw| Bytes::copy_from_slice(raw.get().as_bytes()))
            }
            _ => data,
        };
        let text = |name: &str| event.text(name).unwrap_or_default().to_owned();
        // An envelope that was not made by Dapr need not say where it was published.
        let known = |name: &str, otherwise: &str| event.text(name).unwrap_or(otherwise).to_owned();
        let attributes = event.0.iter().filter(|(name, _)| !NAMED.contains(&name.as_str()));
        let attributes = attributes.map(|(name, value)| match value {
            Value::String(text) => (name.clone(), text.clone()),
            value => (name.clone(), value.to_string()),
        });
        Ok(Message {
            topic: known("topic", &of.name),
            pubsub: known("pubsubname", &of.component),
            path: path.to_owned(),
            id: text("id"),
            source: text("source"),
            kind: text("type"),
            subject: event.text("subject").map(str::to_owned),
            attributes: attributes.collect(),
            data,
            content_type,
            metadata,
        })
    }

    /// An attribute of the envelope that has no field of its own.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The subject that an answer is expected on: the broker says it, or the envelope.
    pub(crate) fn reply_to(&self) -> Option<&str> {
        let told = self.metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case(REPLY_TO));
        told.map(|(_, subject)| subject.as_str()).or_else(|| self.attribute("replyto"))
    }

    /// For `dhow:runtime/topic-handler`.
    pub(super) fn into_event(self) -> topic_handler::Event {
        topic_handler::Event {
            id: self.id,
            source: self.source,
            type_: self.kind,
            subject: self.subject,
            pubsub: self.pubsub,
            topic: self.topic,
            path: self.path,
            content_type: self.content_type,
            data: self.data.into(),
            attributes: self.attributes,
            metadata: self.metadata,
        }
    }

    /// For `wasi:messaging/incoming-handler`, where the envelope's attributes are metadata, by the names under
    /// which a publisher sets them.
    pub(super) fn into_wasi(self) -> wasi::Message {
        let mut metadata: Metadata = self.metadata.into_iter().collect();
        let named = [("id", Some(self.id)), ("source", Some(self.source)), ("type", Some(self.kind))];
        let named = named.into_iter().chain([("subject", self.subject)]);
        let named =
            named.filter_map(|(name, value)| Some((name.to_owned(), value.filter(|v| !v.is_empty())?)));
        let attributes = named.chain(self.attributes);
        metadata.extend(attributes.map(|(name, value)| (format!("cloudevent.{name}"), value)));
        wasi::Message {
            topic: Some(self.topic),
            content_type: Some(self.content_type).filter(|text| !text.is_empty()),
            data: self.data.into(),
            metadata: Some(metadata),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use serde_json::json;

    fn head(content_type: &str) -> Parts {
        let request = Request::post("/orders").header("content-type", content_type).header("Key", "k1");
        request.body(()).unwrap().into_parts().0
    }

    fn of() -> EventOf {
        EventOf { component: "broker".to_owned(), name: "subscribed".to_owned() }
    }

    #[test]
    fn data_come_out_of_the_envelope_as_they_went_in() {
        let head = head("application/cloudevents+json");
        let cases = [
            (
                r#""datacontenttype":"application/json","data":{"n": 12345678901234567890.10}"#,
                r#"{"n": 12345678901234567890.10}"#,
            ),
            (r#""datacontenttype":"application/json","data":"text""#, r#""text""#),
            (r#""datacontenttype":"application/json","data":null"#, ""),
            (r#""datacontenttype":"text/plain","data":"text""#, "text"),
            (r#""datacontenttype":"application/json","data_base64":"cmF3""#, "raw"),
            (r#""data_base64":"cmF3""#, "raw"),
            (r#""data":{"a":1}"#, r#"{"a":1}"#),
            (r#""x":1"#, ""),
        ];
        for (fields, data) in cases {
            let message = single(&head, &of(), format!("{{{fields}}}").as_bytes()).unwrap();
            assert_eq!(message.data, data, "{fields}");
        }
        assert!(single(&head, &of(), b"[]").is_err());
    }

    #[test]
    fn every_attribute_has_its_place() {
        let envelope = json!({
            "id": "1", "source": "me", "type": "t", "subject": "s", "topic": "orders", "pubsubname": "pubsub",
            "specversion": "1.0", "traceparent": "00-x", "extension": {"a": 1}, "datacontenttype": "text/plain",
            "data": "hi",
        });
        let open =
            || single(&head("application/cloudevents+json"), &of(), envelope.to_string().as_bytes()).unwrap();
        let event = open().into_event();
        assert_eq!((event.id.as_str(), event.source.as_str(), event.type_.as_str()), ("1", "me", "t"));
        assert_eq!(
            (event.pubsub.as_str(), event.topic.as_str(), event.path.as_str()),
            ("pubsub", "orders", "/orders")
        );
        assert_eq!((event.subject.as_deref(), event.content_type.as_str()), (Some("s"), "text/plain"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(event.metadata, [pair("key", "k1")]);
        let mut attributes = event.attributes;
        attributes.sort();
        let expected =
            [pair("extension", r#"{"a":1}"#), pair("specversion", "1.0"), pair("traceparent", "00-x")];
        assert_eq!(attributes, expected);
        let message = open().into_wasi();
        let metadata = message.metadata.unwrap();
        assert_eq!(message.topic.as_deref(), Some("orders"));
        assert_eq!((metadata["key"].as_str(), metadata["cloudevent.subject"].as_str()), ("k1", "s"));
        assert_eq!(metadata["cloudevent.id"], "1");
    }

    #[test]
    fn a_foreign_envelope_is_of_the_topic_that_was_subscribed_to() {
        let message = single(&head("application/cloudevents+json"), &of(), b"{}").unwrap();
        assert_eq!((message.pubsub.as_str(), message.topic.as_str()), ("broker", "subscribed"));
    }

    #[test]
    fn a_bulk_is_several_messages() {
        let envelope = json!({"id": "1", "datacontenttype": "text/plain", "data": "one"});
        let encoded = BASE64_STANDARD.encode(json!({"id": "2"}).to_string());
        let body = json!({"id": "b", "topic": "t", "entries": [
            {"entryId": "e1", "event": envelope, "metadata": {"Key": "k"}, "contentType": "x"},
            {"entryId": "e2", "event": encoded},
        ]});
        let head = head("application/json");
        let messages = bulk(&head, &of(), body.to_string().as_bytes()).unwrap().unwrap();
        let found: Vec<_> = messages.iter().map(|(id, message)| (id.as_str(), message.id.as_str())).collect();
        assert_eq!(found, [("e1", "1"), ("e2", "2")]);
        assert_eq!(messages[0].1.metadata, [("key".to_owned(), "k".to_owned())]);
        for bad in [
            json!({}),
            json!({"entries": [{"entryId": "e"}]}),
            json!({"entries": [{"entryId": "e", "event": "!"}]}),
        ] {
            assert!(bulk(&head, &of(), bad.to_string().as_bytes()).is_err(), "{bad}");
        }
    }
}
