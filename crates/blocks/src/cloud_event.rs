//! The CloudEvents 1.0 envelope that messages travel in, as Dapr makes and reads it.
//!
//! Source: Dapr's pub/sub documentation, "Publishing & subscribing messages with Cloudevents", and
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.

use crate::events::{Metadata, value};
use crate::trace::TraceContext;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The media type of an envelope.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The type of an event that names none.
pub const DEFAULT_TYPE: &str = "com.dapr.event.sent";

/// The type of a bulk of events.
pub const BULK_TYPE: &str = "com.dapr.event.sent.bulk";

/// What an envelope is made of.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'a> {
    /// Data of the event.
    pub data: &'a [u8],
    /// Media type of the data.
    pub content_type: Option<&'a str>,
    /// `cloudevent.id`, `cloudevent.source` and the like, `ttlInSeconds`.
    pub metadata: &'a Metadata,
    /// Name of the pub/sub component.
    pub pubsub: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Who publishes.
    pub app_id: &'a str,
    /// [`DEFAULT_TYPE`] or [`BULK_TYPE`].
    pub event_type: &'a str,
    /// The trace of the publishing request.
    pub trace: TraceContext,
    /// Its `tracestate`.
    pub trace_state: &'a str,
    /// Whether the envelope has to carry the time to live, because the broker knows none.
    pub expires: bool,
    /// The time of publishing.
    pub now: SystemTime,
}

/// An envelope as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent(pub Map<String, Value>);

/// Whether this is the media type of an envelope.
pub fn is_cloud_event(content_type: &str) -> bool {
    essence(content_type).eq_ignore_ascii_case(CONTENT_TYPE)
}

/// Whether this is a media type of JSON.
pub fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type).to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Whether data of this media type are bytes rather than text.
pub fn is_binary(content_type: &str) -> bool {
    let essence = essence(content_type);
    ["application/octet-stream", "application/cloudevents+protobuf"]
        .iter()
        .any(|binary| essence.eq_ignore_ascii_case(binary))
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Seconds that a message lives, from its metadata; the error is for the publisher.
pub fn ttl(metadata: &Metadata) -> Result<Option<Duration>, String> {
    match value(metadata, "ttlInSeconds").map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(seconds) if seconds > 0 && seconds <= u64::from(u32::MAX) => {
                Ok(Some(Duration::from_secs(seconds)))
            }
            _ => Err(format!("ttlInSeconds must be a positive number of seconds; found {text:?}")),
        },
    }
}

/// A random UUID (version 4).
pub fn uuid() -> String {
    let bits = fastrand::u128(..);
    hyphenated((bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62))
}

fn hyphenated(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Like [`uuid`], with its time in front (RFC 9562 section 5.7).
pub fn uuid_of(time: SystemTime) -> String {
    let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let bits = fastrand::u128(..) & !(u128::MAX << 80);
    let bits = (millis << 80) | (bits & !(0xf << 76) & !(0x3 << 62)) | (0x7 << 76) | (0x2 << 62);
    hyphenated(bits)
}

/// When an id of [`uuid_of`] was made; `None` for any other text.
pub fn time_of(uuid: &str) -> Option<SystemTime> {
    let hex: String = uuid.split('-').collect();
    let bits = u128::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 32)?;
    let is_timed = bits >> 76 & 0xf == 7;
    let millis = u64::try_from(bits >> 80).ok().filter(|_| is_timed)?;
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// The envelope of an event. Data that say they are an envelope are taken as one, and only what is missing in
/// it is added. The error says what is wrong with the data.
pub fn wrap(event: &NewEvent<'_>) -> Result<Bytes, String> {
    if event.content_type.is_some_and(is_cloud_event) {
        return complete(event);
    }
    let envelope = Envelope { event, expires: expiration(event)? };
    serde_json::to_vec(&envelope).map(Bytes::from).map_err(|error| error.to_string())
}

fn expiration(event: &NewEvent<'_>) -> Result<Option<SystemTime>, String> {
    let ttl = ttl(event.metadata)?;
    Ok(ttl.filter(|_| event.expires).and_then(|ttl| event.now.checked_add(ttl)))
}

fn complete(event: &NewEvent<'_>) -> Result<Bytes, String> {
    let mut fields: Map<String, Value> = serde_json::from_slice(event.data)
        .map_err(|error| format!("the body is not a CloudEvent in JSON: {error}"))?;
    let trace = event.trace.to_string();
    let mut missing = |name: &str, value: Value| {
        if !fields.contains_key(name) {
            fields.insert(name.to_owned(), value);
        }
    };
    missing("topic", event.topic.into());
    missing("pubsubname", event.pubsub.into());
    missing("traceid", trace.clone().into());
    missing("traceparent", trace.into());
    missing("tracestate", event.trace_state.into());
    missing("time", rfc3339(event.now).into());
    if let Some(expires) = expiration(event)? {
        missing("expiration", rfc3339(expires).into());
    }
    serde_json::to_vec(&fields).map(Bytes::from).map_err(|error| error.to_string())
}

/// The envelope around a message that was published bare.
pub fn wrap_raw(data: &[u8], pubsub: &str, topic: &str) -> CloudEvent {
    let mut fields = Map::new();
    let text: [(&str, String); 8] = [
        ("id", uuid()),
        ("specversion", "1.0".to_owned()),
        ("datacontenttype", "application/octet-stream".to_owned()),
        ("source", "Dapr".to_owned()),
        ("type", DEFAULT_TYPE.to_owned()),
        ("topic", topic.to_owned()),
        ("pubsubname", pubsub.to_owned()),
        ("data_base64", BASE64_STANDARD.encode(data)),
    ];
    for (name, value) in text {
        fields.insert(name.to_owned(), value.into());
    }
    CloudEvent(fields)
}

/// RFC 3339 with seconds, as Dapr writes times.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

struct Envelope<'a> {
    event: &'a NewEvent<'a>,
    expires: Option<SystemTime>,
}

// === impl Envelope ===

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let NewEvent { data, content_type, metadata, pubsub, topic, app_id, event_type, .. } = *self.event;
        let given = |name: &str| value(metadata, name).filter(|value| !value.is_empty());
        let mut map = serializer.serialize_map(None)?;
        match given("cloudevent.id") {
            Some(id) => map.serialize_entry("id", id)?,
            None => map.serialize_entry("id", &uuid())?,
        }
        let source = if app_id.is_empty() { "Dapr" } else { app_id };
        map.serialize_entry("source", given("cloudevent.source").unwrap_or(source))?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("type", given("cloudevent.type").unwrap_or(event_type))?;
        let content_type = content_type.filter(|text| !text.is_empty()).unwrap_or("text/plain");
        map.serialize_entry("datacontenttype", content_type)?;
        map.serialize_entry("topic", topic)?;
        map.serialize_entry("pubsubname", pubsub)?;
        let trace = self.event.trace.to_string();
        let trace_id = given("cloudevent.traceid").or(given("cloudevent.traceparent")).unwrap_or(&trace);
        map.serialize_entry("traceid", trace_id)?;
        map.serialize_entry("traceparent", given("cloudevent.traceparent").unwrap_or(trace_id))?;
        map.serialize_entry("tracestate", given("cloudevent.tracestate").unwrap_or(self.event.trace_state))?;
        map.serialize_entry("time", &rfc3339(self.event.now))?;
        if let Some(expires) = self.expires {
            map.serialize_entry("expiration", &rfc3339(expires))?;
        }
        if let Some(subject) = given("cloudevent.subject") {
            map.serialize_entry("subject", subject)?;
        }
        let json = is_json(content_type).then(|| serde_json::from_slice::<&RawValue>(data).ok()).flatten();
        match (json, std::str::from_utf8(data)) {
            // The publisher's own text: numbers keep all their digits.
            (Some(json), _) => map.serialize_entry("data", json)?,
            (None, Ok(text)) if !is_binary(content_type) => map.serialize_entry("data", text)?,
            // What is not text would be damaged in a string.
            _ => map.serialize_entry("data_base64", &BASE64_STANDARD.encode(data))?,
        }
        map.end()
    }
}

// === impl CloudEvent ===

impl CloudEvent {
    /// Reads an envelope; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<CloudEvent, String> {
        serde_json::from_slice(bytes).map(CloudEvent).map_err(|error| format!("not a CloudEvent: {error}"))
    }

    /// The field, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Whether its time to live is over.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        let expires = self.text("expiration").and_then(|text| humantime::parse_rfc3339_weak(text).ok());
        expires.is_some_and(|expires| expires <= now)
    }

    /// The data as bytes, and their media type.
    pub fn data(&self) -> (Bytes, String) {
        let content_type = self.text("datacontenttype").unwrap_or_default().to_owned();
        if let Some(encoded) = self.text("data_base64") {
            return (BASE64_STANDARD.decode(encoded).unwrap_or_default().into(), content_type);
        }
        let data = match self.0.get("data") {
            None | Some(Value::Null) => Bytes::new(),
            Some(Value::String(text)) if !is_json(&content_type) => text.clone().into(),
            Some(value) => value.to_string().into(),
        };
        (data, content_type)
    }

    /// The envelope in JSON.
    pub fn to_bytes(&self) -> Bytes {
        Value::Object(self.0.clone()).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn event<'a>(data: &'a [u8], content_type: Option<&'a str>, metadata: &'a Metadata) -> NewEvent<'a> {
        NewEvent {
            data,
            content_type,
            metadata,
            pubsub: "pubsub",
            topic: "orders",
            app_id: "shop",
            event_type: DEFAULT_TYPE,
            trace: TraceContext { trace_id: 1, span_id: 2, parent_id: 0, sampled: true },
            trace_state: "",
            expires: true,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    #[test]
    fn ids_tell_when_they_were_made() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let id = uuid_of(time);
        assert_eq!((id.len(), &id[14..15], time_of(&id)), (36, "7", Some(time)), "{id}");
        for other in ["", "no id", &uuid(), &id[1..], &id.replace('-', "x")] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }

    #[test]
    fn data_go_where_their_media_type_says() {
        let none = Metadata::new();
        for (data, content_type, name, expected) in [
            (&br#"{"a":12345678901234567890123}"#[..], Some("application/json"), "data", None),
            (b"text", None, "data", Some(json!("text"))),
            (b"text", Some("text/plain; charset=utf-8"), "data", Some(json!("text"))),
            (b"{oops", Some("application/json"), "data", Some(json!("{oops"))),
            (b"<a/>", Some("application/xml"), "data", Some(json!("<a/>"))),
            (b"\x00\xff", Some("application/octet-stream"), "data_base64", Some(json!("AP8="))),
            (b"\x00\xff", Some("image/png"), "data_base64", Some(json!("AP8="))),
            (b"7", Some("application/vnd.api+json"), "data", Some(json!(7))),
        ] {
            let bytes = wrap(&event(data, content_type, &none)).unwrap();
            let text = std::str::from_utf8(&bytes).unwrap();
            let parsed = CloudEvent::parse(&bytes).unwrap();
            match expected {
                Some(expected) => assert_eq!(parsed.0[name], expected, "{text}"),
                None => assert!(text.contains(r#""data":{"a":12345678901234567890123}"#), "{text}"),
            }
            assert_eq!(parsed.text("datacontenttype"), Some(content_type.unwrap_or("text/plain")));
        }
    }

    #[test]
    fn fields_are_dapr_s_and_can_be_chosen() {
        let none = Metadata::new();
        let made = CloudEvent::parse(&wrap(&event(b"x", None, &none)).unwrap()).unwrap();
        let trace = "00-00000000000000000000000000000001-0000000000000002-01";
        for (name, expected) in [
            ("specversion", "1.0"),
            ("source", "shop"),
            ("type", DEFAULT_TYPE),
            ("topic", "orders"),
            ("pubsubname", "pubsub"),
            ("traceid", trace),
            ("traceparent", trace),
            ("tracestate", ""),
            ("time", "2023-11-14T22:13:20Z"),
        ] {
            assert_eq!(made.text(name), Some(expected), "{name}");
        }
        assert!(!made.0.contains_key("expiration") && !made.0.contains_key("subject"));
        let chosen = metadata(&[
            ("cloudevent.id", "1"),
            ("cloudevent.source", "s"),
            ("cloudevent.type", "t"),
            ("cloudevent.subject", "about"),
            ("cloudevent.traceparent", "p"),
            ("ttlInSeconds", "5"),
        ]);
        let made = CloudEvent::parse(&wrap(&event(b"x", None, &chosen)).unwrap()).unwrap();
        let expected = [("id", "1"), ("source", "s"), ("type", "t"), ("subject", "about"), ("traceid", "p")];
        for (name, expected) in expected {
            assert_eq!(made.text(name), Some(expected), "{name}");
        }
        assert_eq!(made.text("expiration"), Some("2023-11-14T22:13:25Z"));
        let published = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(!made.is_expired(published) && made.is_expired(published + Duration::from_secs(5)));
        for bad in ["0", "-1", "x", "1.5", "99999999999"] {
            assert!(wrap(&event(b"x", None, &metadata(&[("TTLInSeconds", bad)]))).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_envelope_is_only_completed() {
        let none = Metadata::new();
        let given = br#"{"id":"7","source":"me","type":"mine","topic":"theirs","data":1.50}"#;
        let made = wrap(&event(given, Some("application/cloudevents+json; charset=utf-8"), &none)).unwrap();
        let made = CloudEvent::parse(&made).unwrap();
        assert_eq!((made.text("id"), made.text("type")), (Some("7"), Some("mine")));
        assert_eq!((made.text("topic"), made.text("pubsubname")), (Some("theirs"), Some("pubsub")));
        for bad in [&b"[]"[..], b"", b"{", b"\"x\""] {
            assert!(wrap(&event(bad, Some(CONTENT_TYPE), &none)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn data_come_back_as_they_were() {
        let none = Metadata::new();
        for (data, content_type) in [
            (&b"{\"a\":1}"[..], "application/json"),
            (b"\"quoted\"", "application/json"),
            (b"text", "text/plain"),
            (b"\x00\xff", "application/octet-stream"),
            (b"", "text/plain"),
        ] {
            let wrapped = wrap(&event(data, Some(content_type), &none)).unwrap();
            let (found, found_type) = CloudEvent::parse(&wrapped).unwrap().data();
            assert_eq!((&found[..], found_type.as_str()), (data, content_type));
        }
        assert_eq!(wrap_raw(b"\x00raw", "p", "t").data().0, &b"\x00raw"[..]);
    }

    #[test]
    fn uuids_are_version_4() {
        for _ in 0..100 {
            let id = uuid();
            assert_eq!(id.len(), 36);
            assert_eq!(&id[14..15], "4", "{id}");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        }
    }
}
