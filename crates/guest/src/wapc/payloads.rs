//! The messages of all operations, in both formats.
//!
//! Names and numbers of fields are those of Waxosuit's protobuf files (2019), names in MessagePack those of waSCC's
//! structures (2020): the same in camel case. What came with waSCC has no protobuf form; its numbers are in the order of
//! the fields and used by nobody.

use super::format::{Payload, octets};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

macro_rules! payloads {
    ($($(#[$attribute:meta])* $name:literal $message:ident { $($fields:tt)* })*) => {
        $(
            $(#[$attribute])*
            #[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub(crate) struct $message { $($fields)* }

            impl Payload for $message {
                const NAME: &'static str = $name;
            }
        )*
    };
}

payloads! {
    /// An HTTP request: one that a module answers, or one that it sends, with the URL as `path`.
    "http.Request" Request {
        #[prost(string, tag = "1")]
        pub(crate) method: String,
        #[prost(string, tag = "2")]
        pub(crate) path: String,
        #[prost(string, tag = "3")]
        pub(crate) query_string: String,
        #[prost(map = "string, string", tag = "4")]
        pub(crate) header: HashMap<String, String>,
        #[prost(bytes = "vec", tag = "5")]
        #[serde(with = "octets")]
        pub(crate) body: Vec<u8>,
    }
    /// An HTTP response.
    "http.Response" Response {
        #[prost(uint32, tag = "1")]
        pub(crate) status_code: u32,
        #[prost(string, tag = "2")]
        pub(crate) status: String,
        #[prost(map = "string, string", tag = "3")]
        pub(crate) header: HashMap<String, String>,
        #[prost(bytes = "vec", tag = "4")]
        #[serde(with = "octets")]
        pub(crate) body: Vec<u8>,
    }
    "keyvalue.GetRequest" GetRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
    }
    "keyvalue.GetResponse" GetResponse {
        #[prost(string, tag = "1")]
        pub(crate) value: String,
        #[prost(bool, tag = "2")]
        pub(crate) exists: bool,
    }
    "keyvalue.SetRequest" SetRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
        #[prost(int32, tag = "3")]
        #[serde(rename = "expires", alias = "expiresS")]
        pub(crate) expires_s: i32,
    }
    "keyvalue.SetResponse" SetResponse {
        #[prost(string, tag = "1")]
        pub(crate) value: String,
    }
    "keyvalue.DelRequest" DelRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
    }
    "keyvalue.DelResponse" DelResponse {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
    }
    "keyvalue.AddRequest" AddRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(int32, tag = "2")]
        pub(crate) value: i32,
    }
    "keyvalue.AddResponse" AddResponse {
        #[prost(int32, tag = "1")]
        pub(crate) value: i32,
    }
    "keyvalue.ListPushRequest" ListPushRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
    }
    "keyvalue.ListDelItemRequest" ListDelItemRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
    }
    "keyvalue.ListClearRequest" ListClearRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
    }
    "keyvalue.ListRangeRequest" ListRangeRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(int32, tag = "2")]
        pub(crate) start: i32,
        #[prost(int32, tag = "3")]
        pub(crate) stop: i32,
    }
    "keyvalue.ListRangeResponse" ListRangeResponse {
        #[prost(string, repeated, tag = "1")]
        pub(crate) values: Vec<String>,
    }
    "keyvalue.ListResponse" ListResponse {
        #[prost(int32, tag = "1")]
        pub(crate) new_count: i32,
    }
    "keyvalue.SetAddRequest" SetAddRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
    }
    "keyvalue.SetRemoveRequest" SetRemoveRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
    }
    "keyvalue.SetQueryRequest" SetQueryRequest {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
    }
    "keyvalue.SetQueryResponse" SetQueryResponse {
        #[prost(string, repeated, tag = "1")]
        pub(crate) values: Vec<String>,
    }
    "keyvalue.SetUnionRequest" SetUnionRequest {
        #[prost(string, repeated, tag = "1")]
        pub(crate) keys: Vec<String>,
    }
    "keyvalue.SetIntersectionRequest" SetIntersectionRequest {
        #[prost(string, repeated, tag = "1")]
        pub(crate) keys: Vec<String>,
    }
    "keyvalue.SetOperationResponse" SetOperationResponse {
        #[prost(int32, tag = "1")]
        pub(crate) new_count: i32,
    }
    "keyvalue.KeyExistsQuery" KeyExistsQuery {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
    }
    "messaging.BrokerMessage" BrokerMessage {
        #[prost(string, tag = "1")]
        pub(crate) subject: String,
        #[prost(string, tag = "2")]
        pub(crate) reply_to: String,
        #[prost(bytes = "vec", tag = "3")]
        #[serde(with = "octets")]
        pub(crate) body: Vec<u8>,
    }
    "messaging.RequestMessage" RequestMessage {
        #[prost(string, tag = "1")]
        pub(crate) subject: String,
        #[prost(bytes = "vec", tag = "2")]
        #[serde(with = "octets")]
        pub(crate) body: Vec<u8>,
        #[prost(int64, tag = "3")]
        #[serde(alias = "timeout")]
        pub(crate) timeout_ms: i64,
    }
    /// What protobuf has around a message that goes.
    "messaging.PublishMessage" PublishMessage {
        #[prost(message, optional, tag = "2")]
        pub(crate) message: Option<BrokerMessage>,
    }
    /// What protobuf has around a message that comes.
    "messaging.DeliverMessage" DeliverMessage {
        #[prost(message, optional, tag = "1")]
        pub(crate) message: Option<BrokerMessage>,
    }
    "core.HealthRequest" HealthRequest {
        #[prost(bool, tag = "1")]
        pub(crate) placeholder: bool,
    }
    "core.LiveUpdate" LiveUpdate {
        #[prost(bytes = "vec", tag = "1")]
        #[serde(with = "octets")]
        pub(crate) new_module: Vec<u8>,
    }
    "blobstore.Container" Container {
        #[prost(string, tag = "1")]
        pub(crate) id: String,
    }
    "blobstore.Blob" Blob {
        #[prost(string, tag = "1")]
        pub(crate) id: String,
        #[prost(string, tag = "2")]
        pub(crate) container: String,
        #[prost(uint64, tag = "3")]
        pub(crate) byte_size: u64,
    }
    "blobstore.BlobList" BlobList {
        #[prost(message, repeated, tag = "1")]
        pub(crate) blobs: Vec<Blob>,
    }
    "blobstore.FileChunk" FileChunk {
        #[prost(uint64, tag = "1")]
        pub(crate) sequence_no: u64,
        #[prost(string, tag = "2")]
        pub(crate) container: String,
        #[prost(string, tag = "3")]
        pub(crate) id: String,
        #[prost(uint64, tag = "4")]
        pub(crate) total_bytes: u64,
        #[prost(uint64, tag = "5")]
        pub(crate) chunk_size: u64,
        #[prost(string, optional, tag = "6")]
        pub(crate) context: Option<String>,
        #[prost(bytes = "vec", tag = "7")]
        #[serde(with = "octets")]
        pub(crate) chunk_bytes: Vec<u8>,
    }
    "blobstore.StreamRequest" StreamRequest {
        #[prost(string, tag = "1")]
        pub(crate) id: String,
        #[prost(string, tag = "2")]
        pub(crate) container: String,
        #[prost(uint64, tag = "3")]
        pub(crate) chunk_size: u64,
        #[prost(string, optional, tag = "4")]
        pub(crate) context: Option<String>,
    }
    "eventstreams.Event" Event {
        #[prost(string, tag = "1")]
        pub(crate) event_id: String,
        #[prost(string, tag = "2")]
        pub(crate) stream: String,
        #[prost(map = "string, string", tag = "3")]
        pub(crate) values: HashMap<String, String>,
    }
    "eventstreams.WriteResponse" WriteResponse {
        #[prost(string, tag = "1")]
        pub(crate) event_id: String,
    }
    /// Milliseconds since 1970.
    "eventstreams.TimeRange" TimeRange {
        #[prost(uint64, tag = "1")]
        pub(crate) min_time: u64,
        #[prost(uint64, tag = "2")]
        pub(crate) max_time: u64,
    }
    "eventstreams.StreamQuery" StreamQuery {
        #[prost(string, tag = "1")]
        pub(crate) stream_id: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) range: Option<TimeRange>,
        #[prost(uint64, tag = "3")]
        pub(crate) count: u64,
    }
    "eventstreams.StreamResults" StreamResults {
        #[prost(message, repeated, tag = "1")]
        pub(crate) events: Vec<Event>,
    }
    "extras.GeneratorRequest" GeneratorRequest {
        #[prost(bool, tag = "1")]
        pub(crate) guid: bool,
        #[prost(bool, tag = "2")]
        pub(crate) sequence: bool,
        #[prost(bool, tag = "3")]
        pub(crate) random: bool,
        #[prost(uint32, tag = "4")]
        pub(crate) min: u32,
        #[prost(uint32, tag = "5")]
        pub(crate) max: u32,
    }
    "extras.GeneratorResult" GeneratorResult {
        #[prost(string, optional, tag = "1")]
        pub(crate) guid: Option<String>,
        #[prost(uint64, tag = "2")]
        pub(crate) sequence_number: u64,
        #[prost(uint32, tag = "3")]
        pub(crate) random_number: u32,
    }
    "logging.WriteLogRequest" WriteLogRequest {
        #[prost(uint32, tag = "1")]
        pub(crate) level: u32,
        #[prost(string, tag = "2")]
        pub(crate) body: String,
    }
}
