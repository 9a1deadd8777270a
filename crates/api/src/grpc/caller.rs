//! What a request tells about its caller: its token and its trace.
//!
//! Sources: W3C trace context, and for `grpc-trace-bin` the binary format of OpenCensus
//! (<https://github.com/census-instrumentation/opencensus-specs/blob/master/encodings/BinaryEncoding.md>).

use crate::dapr::same;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use dhow_blocks::trace::TraceContext;
use http::header::{HeaderMap, HeaderName};
use tonic::Status;

const TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");

/// The trace that a request belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) trace: TraceContext,
    pub(crate) trace_state: String,
}

impl Caller {
    /// The next step of the caller's trace, or a new trace.
    pub(crate) fn read(headers: &HeaderMap) -> Caller {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let sent = text("traceparent").and_then(TraceContext::parse);
        let sent = sent.or_else(|| text("grpc-trace-bin").and_then(binary));
        Caller {
            trace: sent.map(TraceContext::child).unwrap_or_default(),
            trace_state: text("tracestate").unwrap_or_default().to_owned(),
        }
    }

    /// The caller of a request to the Dapr service.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Caller {
        request.extensions().get::<Caller>().cloned().unwrap_or_default()
    }
}

/// Takes the token off and compares it, if one is asked for.
pub(crate) fn authenticate(headers: &mut HeaderMap, token: Option<&str>) -> Result<(), Status> {
    let Some(token) = token else { return Ok(()) };
    match headers.remove(TOKEN) {
        None => Err(Status::unauthenticated("missing dapr-api-token in the request's metadata")),
        Some(sent) if same(sent.as_bytes(), token.as_bytes()) => Ok(()),
        Some(_) => Err(Status::unauthenticated("authentication error: api token mismatch")),
    }
}

/// A trace as the value of `grpc-trace-bin`.
pub(crate) fn trace_bin(trace: TraceContext) -> String {
    let mut bytes = [0; 29];
    bytes[2..18].copy_from_slice(&trace.trace_id.to_be_bytes());
    bytes[18] = 1;
    bytes[19..27].copy_from_slice(&trace.span_id.to_be_bytes());
    bytes[27] = 2;
    bytes[28] = u8::from(trace.sampled);
    BASE64_STANDARD_NO_PAD.encode(bytes)
}

/// Version 0, then the fields trace id (0), span id (1) and options (2), each behind its number.
fn binary(encoded: &str) -> Option<TraceContext> {
    let engine = if encoded.ends_with('=') { &BASE64_STANDARD } else { &BASE64_STANDARD_NO_PAD };
    let bytes = engine.decode(encoded).ok()?;
    let ([0, 0], rest) = bytes.split_first_chunk()? else { return None };
    let (trace_id, rest) = rest.split_first_chunk()?;
    let ([1], rest) = rest.split_first_chunk()? else { return None };
    let (span_id, rest) = rest.split_first_chunk()?;
    let sampled = matches!(rest, [2, options, ..] if options & 1 == 1);
    let (trace_id, span_id) = (u128::from_be_bytes(*trace_id), u64::from_be_bytes(*span_id));
    (trace_id != 0 && span_id != 0).then_some(TraceContext { trace_id, span_id, parent_id: 0, sampled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_read_in_both_forms() {
        let mut bytes = vec![0, 0];
        bytes.extend(7u128.to_be_bytes());
        bytes.push(1);
        bytes.extend(9u64.to_be_bytes());
        bytes.extend([2, 1]);
        let encoded = BASE64_STANDARD_NO_PAD.encode(&bytes);
        assert_eq!(binary(&encoded).map(trace_bin), Some(encoded.clone()));
        let text = "00-00000000000000000000000000000007-0000000000000009-01";
        for (name, value, expected) in [
            ("grpc-trace-bin", encoded.as_str(), Some(7)),
            ("grpc-trace-bin", BASE64_STANDARD.encode(&bytes).as_str(), Some(7)),
            ("grpc-trace-bin", BASE64_STANDARD.encode(&bytes[..20]).as_str(), None),
            ("grpc-trace-bin", "AQ", None),
            ("grpc-trace-bin", "!", None),
            ("traceparent", text, Some(7)),
            ("traceparent", "nonsense", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let trace = Caller::read(&headers).trace;
            match expected {
                Some(expected) => assert!(trace.trace_id == expected && trace.sampled, "{name}: {value}"),
                None => assert!(trace.trace_id != 7, "{name}: {value}"),
            }
        }
    }

    #[test]
    fn tokens_are_compared_and_taken_off() {
        for (asked, sent, allowed) in [
            (None, None, true),
            (None, Some("any"), true),
            (Some("secret"), Some("secret"), true),
            (Some("secret"), Some("secreT"), false),
            (Some("secret"), None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(TOKEN, sent.parse().unwrap());
            }
            assert_eq!(authenticate(&mut headers, asked).is_ok(), allowed, "{asked:?} {sent:?}");
            assert!(asked.is_none() || !headers.contains_key(TOKEN));
        }
    }
}
