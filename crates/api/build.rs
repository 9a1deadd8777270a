//! Compiles `/proto` to messages, to the server side of what apps call and to the client side of what apps offer,
//! without an installed `protoc`.
//!
//! Layotto's API grew out of Dapr's, and many of its messages are Dapr's under another package. Those become one type
//! for both, so that what one face does the other one does with the same code; that they are the same on the wire
//! is checked here, field by field.

use prost::Message;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::path::PathBuf;
use std::{env, fs, io};

const FILES: [&str; 11] = [
    "dapr/proto/runtime/v1/dapr.proto",
    "dapr/proto/runtime/v1/appcallback.proto",
    "spec/proto/runtime/v1/runtime.proto",
    "spec/proto/runtime/v1/appcallback.proto",
    "spec/proto/runtime/v1/lifecycle.proto",
    "spec/proto/extension/v1/cryption/cryption.proto",
    "spec/proto/extension/v1/delay_queue/delay_queue.proto",
    "spec/proto/extension/v1/email/email.proto",
    "spec/proto/extension/v1/phone/phone.proto",
    "spec/proto/extension/v1/s3/oss.proto",
    "spec/proto/extension/v1/sms/sms.proto",
];

const LAYOTTO: &str = ".spec.proto.runtime.v1";
const DAPR: &str = ".dapr.proto.runtime.v1";
const DAPR_COMMON: &str = ".dapr.proto.common.v1";

/// Messages of Layotto and the package and name that Dapr has them under.
const SAME: [(&str, &str, &str); 33] = [
    ("BulkStateItem", DAPR, "BulkStateItem"),
    ("CommonInvokeRequest", DAPR_COMMON, "InvokeRequest"),
    ("DeleteBulkStateRequest", DAPR, "DeleteBulkStateRequest"),
    ("DeleteStateRequest", DAPR, "DeleteStateRequest"),
    ("Etag", DAPR_COMMON, "Etag"),
    ("ExecuteStateTransactionRequest", DAPR, "ExecuteStateTransactionRequest"),
    ("GetBulkSecretRequest", DAPR, "GetBulkSecretRequest"),
    ("GetBulkSecretResponse", DAPR, "GetBulkSecretResponse"),
    ("GetBulkStateRequest", DAPR, "GetBulkStateRequest"),
    ("GetBulkStateResponse", DAPR, "GetBulkStateResponse"),
    ("GetSecretRequest", DAPR, "GetSecretRequest"),
    ("GetSecretResponse", DAPR, "GetSecretResponse"),
    ("GetStateRequest", DAPR, "GetStateRequest"),
    ("GetStateResponse", DAPR, "GetStateResponse"),
    ("HTTPExtension", DAPR_COMMON, "HTTPExtension"),
    ("InvokeBindingRequest", DAPR, "InvokeBindingRequest"),
    ("InvokeBindingResponse", DAPR, "InvokeBindingResponse"),
    ("InvokeResponse", DAPR_COMMON, "InvokeResponse"),
    ("InvokeServiceRequest", DAPR, "InvokeServiceRequest"),
    ("PublishEventRequest", DAPR, "PublishEventRequest"),
    ("SaveStateRequest", DAPR, "SaveStateRequest"),
    ("SecretResponse", DAPR, "SecretResponse"),
    ("StateItem", DAPR_COMMON, "StateItem"),
    ("StateOptions", DAPR_COMMON, "StateOptions"),
    ("SubscribeTopicEventsRequest", DAPR, "SubscribeTopicEventsRequestAlpha1"),
    ("SubscribeTopicEventsRequestInitial", DAPR, "SubscribeTopicEventsRequestInitialAlpha1"),
    ("SubscribeTopicEventsRequestProcessed", DAPR, "SubscribeTopicEventsRequestProcessedAlpha1"),
    ("TopicEventResponse", DAPR, "TopicEventResponse"),
    ("TransactionalStateOperation", DAPR, "TransactionalStateOperation"),
    ("TryLockRequest", DAPR, "TryLockRequest"),
    ("TryLockResponse", DAPR, "TryLockResponse"),
    ("UnlockRequest", DAPR, "UnlockRequest"),
    ("UnlockResponse", DAPR, "UnlockResponse"),
];

fn main() -> io::Result<()> {
    let folder = PathBuf::from("../../proto");
    println!("cargo::rerun-if-changed={}", folder.display());
    let descriptors = protox::compile(FILES, [&folder]).map_err(io::Error::other)?;
    // For server reflection.
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::configure()
        .build_transport(false)
        // Blocks that are not there yet answer "unimplemented"; `grpc::missing` adds which block it is.
        .generate_default_stubs(true)
        // The same map as the metadata of all blocks.
        .btree_map(".")
        .bytes(".");
    for (layotto, package, dapr) in SAME {
        if !same(&descriptors, &format!("{LAYOTTO}.{layotto}"), &format!("{package}.{dapr}")) {
            let problem = format!("{layotto} of Layotto is not {dapr} of Dapr on the wire");
            return Err(io::Error::other(problem));
        }
        let module = if package == DAPR { "runtime" } else { "common" };
        let name = if dapr == "HTTPExtension" { "HttpExtension" } else { dapr };
        config =
            config.extern_path(format!("{LAYOTTO}.{layotto}"), format!("crate::proto::{module}::v1::{name}"));
    }
    config.compile_fds(descriptors)
}

/// Whether two messages have the same fields: numbers, types, and the fields of these. Names may differ.
fn same(descriptors: &FileDescriptorSet, one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (find(descriptors, one), find(descriptors, other)) else { return false };
    let fields = |message: &DescriptorProto| {
        let mut fields = message.field.clone();
        fields.sort_by_key(FieldDescriptorProto::number);
        fields
    };
    let (one, other) = (fields(one), fields(other));
    one.len() == other.len()
        && one.iter().zip(&other).all(|(one, other)| {
            let kind = |field: &FieldDescriptorProto| {
                (field.number(), field.r#type(), field.label(), field.oneof_index, field.proto3_optional())
            };
            let (types, enums) = ((one.type_name(), other.type_name()), one.r#type() as i32 == 14);
            kind(one) == kind(other) && (enums || types.0 == types.1 || same(descriptors, types.0, types.1))
        })
}

/// The message of that full name, which may be inside of another one.
fn find<'a>(descriptors: &'a FileDescriptorSet, name: &str) -> Option<&'a DescriptorProto> {
    descriptors.file.iter().find_map(|file| {
        let inside = name.strip_prefix(&format!(".{}.", file.package()))?;
        let mut parts = inside.split('.');
        let first = parts.next()?;
        let first = file.message_type.iter().find(|message| message.name() == first)?;
        parts.try_fold(first, |outer, part| outer.nested_type.iter().find(|inner| inner.name() == part))
    })
}
