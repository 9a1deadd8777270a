//! Bindings: a clock, HTTP servers, files, buckets.

#[cfg(feature = "s3")]
pub mod aws_s3;
pub mod cron;
#[cfg(feature = "http")]
pub mod http;
pub mod local_storage;

use bytes::Bytes;
use dhow_blocks::error::BlockError;

/// Data as they were meant: what reaches a binding through Dapr's HTTP API as a JSON string loses its quotes.
fn unquoted(data: Bytes) -> Bytes {
    if data.first() != Some(&b'"') {
        return data;
    }
    match serde_json::from_slice::<String>(&data) {
        Ok(text) => text.into(),
        Err(_) => data,
    }
}

/// What is said to an operation that the binding does not have.
fn unknown_operation(operation: &str, known: &[&str]) -> BlockError {
    BlockError::invalid(format!("operation {operation:?} is not known; known are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        for (data, expected) in [
            ("plain", "plain"),
            ("\"text\"", "text"),
            ("\"a\\n\\u00fc\"", "a\nü"),
            ("\"a\" b", "\"a\" b"),
            ("\"", "\""),
            ("", ""),
            ("{\"a\":1}", "{\"a\":1}"),
        ] {
            assert_eq!(unquoted(Bytes::from(data)), expected);
        }
    }
}
