//! JSON in the well-known messages of protobuf, as jobs carry it.
//!
//! Source: <https://protobuf.dev/reference/protobuf/google.protobuf/#value>.

use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Proto};
use serde_json::Value;

/// JSON as a serialised `google.protobuf.Value`.
pub(super) fn encode(json: &Value) -> Vec<u8> {
    proto(json).encode_to_vec()
}

/// A serialised message of that name as JSON; `None` if it is another message or damaged.
pub(super) fn decode(name: &str, bytes: &[u8]) -> Option<Value> {
    Some(match name {
        "google.protobuf.Value" => json(Proto::decode(bytes).ok()?),
        "google.protobuf.Struct" => object(Struct::decode(bytes).ok()?),
        "google.protobuf.ListValue" => list(ListValue::decode(bytes).ok()?),
        "google.protobuf.StringValue" => String::decode(bytes).ok()?.into(),
        "google.protobuf.BoolValue" => bool::decode(bytes).ok()?.into(),
        "google.protobuf.DoubleValue" => f64::decode(bytes).ok()?.into(),
        "google.protobuf.FloatValue" => f32::decode(bytes).ok()?.into(),
        "google.protobuf.Int32Value" => i32::decode(bytes).ok()?.into(),
        "google.protobuf.Int64Value" => i64::decode(bytes).ok()?.into(),
        "google.protobuf.UInt32Value" => u32::decode(bytes).ok()?.into(),
        "google.protobuf.UInt64Value" => u64::decode(bytes).ok()?.into(),
        _ => return None,
    })
}

fn proto(json: &Value) -> Proto {
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
    Proto { kind: Some(kind) }
}

fn json(proto: Proto) -> Value {
    match proto.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        // A message knows one kind of number; whole ones are written without a fraction.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            (number as i64).into()
        }
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(values)) => list(values),
        Some(Kind::StructValue(fields)) => object(fields),
    }
}

fn list(values: ListValue) -> Value {
    values.values.into_iter().map(json).collect()
}

fn object(fields: Struct) -> Value {
    Value::Object(fields.fields.into_iter().map(|(name, value)| (name, json(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives() {
        for value in [
            json!(null),
            json!(true),
            json!(12),
            json!(-1.5),
            json!("text"),
            json!([1, [2, {"a": null}]]),
            json!({"droid": "R2-D2", "tasks": ["oil"], "n": {"x": 1}}),
        ] {
            assert_eq!(decode("google.protobuf.Value", &encode(&value)), Some(value));
        }
        assert_eq!(
            decode("google.protobuf.StringValue", &"hi".to_owned().encode_to_vec()),
            Some(json!("hi"))
        );
        assert_eq!(decode("google.protobuf.Value", b"\xff\xff"), None);
        assert_eq!(decode("my.Message", b""), None);
    }
}
