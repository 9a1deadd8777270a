//! W3C trace context (<https://www.w3.org/TR/trace-context/>, version 00): which trace an invocation
//! belongs to.

use std::fmt;

/// The identity of an invocation in a distributed trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Identity of the whole trace; never zero.
    pub trace_id: u128,
    /// Identity of this step; never zero.
    pub span_id: u64,
    /// Identity of the step that this one is part of; zero where the trace begins, or came in from outside.
    pub parent_id: u64,
    /// The caller records this trace.
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace that nobody records.
    pub fn new() -> TraceContext {
        TraceContext {
            trace_id: fastrand::u128(1..),
            span_id: fastrand::u64(1..),
            parent_id: 0,
            sampled: false,
        }
    }

    /// The next step of the same trace.
    pub fn child(self) -> TraceContext {
        TraceContext { span_id: fastrand::u64(1..), parent_id: self.span_id, ..self }
    }

    /// Reads a `traceparent` header; `None` when it is not a valid one, and then a new trace begins.
    pub fn parse(header: &str) -> Option<TraceContext> {
        let mut parts = header.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = hex(parts.next()?, 16)? as u64;
        let flags = hex(parts.next()?, 2)?;
        let extra = parts.next().is_some();
        // Version 00 has exactly four fields; later versions may add some; ff is forbidden.
        if version == 0xff || (version == 0 && extra) || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(TraceContext { trace_id, span_id, parent_id: 0, sampled: flags & 1 == 1 })
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        TraceContext::new()
    }
}

/// The value of a `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Lower-case hexadecimal of exactly `digits` digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    #[test]
    fn traceparent_follows_the_specification() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(valid).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), valid);
        assert_eq!(context.child().trace_id, context.trace_id);
        assert_ne!(context.child().span_id, context.span_id);
        assert_eq!(context.child().parent_id, context.span_id);

        let rejected = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ];
        for header in rejected {
            assert_eq!(TraceContext::parse(header), None, "{header:?}");
        }
        assert!(
            TraceContext::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-later").is_some()
        );
    }
}
