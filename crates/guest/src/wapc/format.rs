//! Payloads on their way in and out: MessagePack of waPC modules, protobuf of the older ones.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// How payloads are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Structures are maps from names of fields.
    MessagePack,
    Protobuf,
}

/// A message of an operation, in both formats.
pub(super) trait Payload: Message + Default + PartialEq + Serialize + DeserializeOwned {
    /// Its name in the first protobuf ABI, package and type.
    const NAME: &'static str;
}

/// What an operation answers.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The message's [`Payload::NAME`]; empty where there is no message.
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl Format {
    /// Reads a message. Fields that are missing have their defaults, and others are passed over. MessagePack may also
    /// have the message as the only argument of an operation, under the argument's name, as interfaces of 2021 do.
    pub(super) fn read<M: Payload>(self, bytes: &[u8]) -> Result<M, String> {
        let kind = M::NAME;
        match self {
            Format::Protobuf => {
                M::decode(bytes).map_err(|error| format!("the payload is no {kind}: {error}"))
            }
            Format::MessagePack if bytes.is_empty() => Ok(M::default()),
            Format::MessagePack => {
                let message: M = rmp_serde::from_slice(bytes)
                    .map_err(|error| format!("the payload is no {kind}: {error}"))?;
                if message == M::default()
                    && let Ok(arguments) = rmp_serde::from_slice::<BTreeMap<String, M>>(bytes)
                    && arguments.len() == 1
                    && let Some(argument) = arguments.into_values().next()
                {
                    return Ok(argument);
                }
                Ok(message)
            }
        }
    }

    pub(super) fn write<M: Payload>(self, message: &M) -> Result<Vec<u8>, String> {
        match self {
            Format::Protobuf => Ok(message.encode_to_vec()),
            Format::MessagePack => rmp_serde::to_vec_named(message)
                .map_err(|error| format!("{} cannot be encoded: {error}", M::NAME)),
        }
    }
}

/// Bytes in MessagePack: written as such, read from bytes, from a list of numbers, or from nothing.
pub(super) mod octets {
    use serde::de::{Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::Serializer;
    use std::fmt;

    /// Numbers of a list that room is made for before they are seen.
    const AT_FIRST: usize = 4096;

    struct Octets;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_any(Octets)
    }

    impl<'de> Visitor<'de> for Octets {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }

        fn visit_unit<E: Error>(self) -> Result<Vec<u8>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::with_capacity(list.size_hint().unwrap_or(0).min(AT_FIRST));
            while let Some(byte) = list.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wapc::payloads::{BrokerMessage, GetRequest, Request, SetRequest, SetUnionRequest};

    #[test]
    fn messages_are_the_same_in_both_formats() {
        let request = Request {
            method: "PUT".to_owned(),
            path: "/a".to_owned(),
            query_string: "b=c".to_owned(),
            header: [("x-one".to_owned(), "1".to_owned())].into(),
            body: vec![0, 255],
        };
        for format in [Format::MessagePack, Format::Protobuf] {
            let bytes = format.write(&request).unwrap();
            assert_eq!(format.read::<Request>(&bytes).unwrap(), request, "{format:?}");
        }
        let bytes = Format::MessagePack.write(&request).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(b"\xabqueryString") && has(b"\xc4\x02\x00\xff"), "{}", bytes.escape_ascii());
    }

    #[test]
    fn what_programs_leave_out_or_wrap_is_read() {
        let read = |bytes: &[u8]| Format::MessagePack.read::<BrokerMessage>(bytes);
        let expected = BrokerMessage { subject: "s".to_owned(), ..BrokerMessage::default() };
        assert_eq!(read(b"\x81\xa7subject\xa1s").unwrap(), expected);
        assert_eq!(read(b"\x81\xa7message\x81\xa7subject\xa1s").unwrap(), expected);
        // A list of numbers, unknown fields.
        let listed = read(b"\x83\xa7subject\xa1s\xa4body\x92\x01\x02\xa1x\xc0").unwrap();
        assert_eq!(listed.body, [1, 2]);
        assert_eq!(read(b"").unwrap(), BrokerMessage::default());
        let keys = Format::MessagePack.read::<SetUnionRequest>(b"\x81\xa4keys\x92\xa1a\xa1b").unwrap();
        assert_eq!(keys.keys, ["a", "b"]);
        let set =
            Format::MessagePack.read::<SetRequest>(b"\x83\xa3key\xa1k\xa5value\xa1v\xa7expires\x05").unwrap();
        assert_eq!((set.key.as_str(), set.expires_s), ("k", 5));
    }

    #[test]
    fn what_is_no_message_is_an_error_that_names_it() {
        for bytes in [&b"\x81\xa3key\x05"[..], b"\xc1", b"\x81\xa3key\xdb\xff\xff\xff\xff", b"text", b"\x91"]
        {
            let error = Format::MessagePack.read::<GetRequest>(bytes).unwrap_err();
            assert!(error.starts_with("the payload is no keyvalue.GetRequest"), "{error}");
        }
        let deep = vec![0x91; 100_000];
        assert!(Format::MessagePack.read::<GetRequest>(&deep).is_err());
        assert!(Format::Protobuf.read::<GetRequest>(b"\x0a\xff").is_err());
    }
}
