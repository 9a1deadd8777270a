//! `spec.policies` of a resiliency resource.

use super::{Backoff, CircuitBreaker, Policies, Retry, StatusCodes};
use crate::error::quote;
use crate::tree::{Findings, Node, Table, Value};
use crate::values::{self, count_or_default, duration, integer, named_tables, word};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The codes that there are. Sources: RFC 9110, section 15; gRPC, "Status codes and their use".
const HTTP_CODES: RangeInclusive<u16> = 100..=599;
const GRPC_CODES: RangeInclusive<u16> = 0..=16;

pub(super) fn read(findings: &mut Findings, table: &mut Table<'_>) -> Option<Policies> {
    let timeouts = table.optional(findings, "timeouts", timeouts);
    let retries = table.optional(findings, "retries", named_tables(retry));
    let circuit_breakers = table.optional(findings, "circuitBreakers", named_tables(circuit_breaker));
    Some(Policies {
        timeouts: timeouts.unwrap_or_default(),
        retries: retries.unwrap_or_default(),
        circuit_breakers: circuit_breakers.unwrap_or_default(),
    })
}

fn timeouts(findings: &mut Findings, node: &Node, path: &str) -> Option<BTreeMap<String, Duration>> {
    let table = findings.table(node, path.to_owned())?;
    let mut timeouts = BTreeMap::new();
    for entry in table.entries() {
        let path = table.path_of(&entry.key);
        match entry.node.scalar().as_deref() {
            Some("") => findings.add(entry.node.at, &path, "is empty", "expected a duration such as \"5s\""),
            _ => {
                if let Some(timeout) = duration(findings, &entry.node, &path) {
                    timeouts.insert(entry.key.clone(), timeout);
                }
            }
        }
    }
    Some(timeouts)
}

fn retry(findings: &mut Findings, table: &mut Table<'_>) -> Option<Retry> {
    const POLICIES: &[(&str, bool)] = &[("constant", false), ("exponential", true)];
    let is_exponential = table.optional(findings, "policy", word(POLICIES)).unwrap_or(false);
    // Both times may stand there; the policy says which of them counts.
    let wait = table.optional(findings, "duration", duration);
    let max = table.optional(findings, "maxInterval", duration);
    let max_retries = table.optional(findings, "maxRetries", integer(-1..=u32::MAX.into()));
    let matching = table.optional(findings, "matching", values::table(matching));
    let (http_status_codes, grpc_status_codes) = matching.unwrap_or_default();
    Some(Retry {
        backoff: if is_exponential {
            Backoff::exponential(max.unwrap_or(Duration::from_secs(60)))
        } else {
            Backoff::Constant { wait: wait.unwrap_or(Duration::from_secs(5)) }
        },
        // -1, for which there is no u32, is without limit.
        max_retries: max_retries.and_then(|number| number.try_into().ok()),
        http_status_codes,
        grpc_status_codes,
    })
}

fn matching(
    findings: &mut Findings,
    table: &mut Table<'_>,
) -> Option<(Option<StatusCodes>, Option<StatusCodes>)> {
    let http = table.optional(findings, "httpStatusCodes", status_codes(HTTP_CODES));
    let grpc = table.optional(findings, "gRPCStatusCodes", status_codes(GRPC_CODES));
    Some((http, grpc))
}

/// Codes and ranges of codes with commas between them. No text means every code.
fn status_codes(
    valid: RangeInclusive<u16>,
) -> impl FnOnce(&mut Findings, &Node, &str) -> Option<StatusCodes> {
    move |findings, node, path| {
        let text = findings.scalar(node, path)?;
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let range = code_range(part).filter(|range| {
                valid.contains(range.start()) && valid.contains(range.end()) && !range.is_empty()
            });
            match range {
                Some(range) => ranges.push(range),
                None => {
                    let (low, high) = (valid.start(), valid.end());
                    let message = format!("{} is neither a status code nor a range of them", quote(part));
                    let example = if *high > 100 { "\"429,500-599\"" } else { "\"1,3-5\"" };
                    let hint = format!("expected codes from {low} to {high}, such as {example}");
                    findings.add(node.at, path, message, hint);
                    return None;
                }
            }
        }
        (!ranges.is_empty()).then(|| StatusCodes::new(ranges))
    }
}

fn code_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| {
        let text = text.trim();
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
    };
    Some(code(start)?..=code(end)?)
}

fn circuit_breaker(findings: &mut Findings, table: &mut Table<'_>) -> Option<CircuitBreaker> {
    let default = CircuitBreaker::default();
    let max_requests = table.optional(findings, "maxRequests", count_or_default);
    let interval = table.optional(findings, "interval", duration);
    // Zero would never refuse anything; Dapr takes the default for it.
    let timeout = table.optional(findings, "timeout", duration).filter(|timeout| !timeout.is_zero());
    let trip = table.optional(findings, "trip", trip);
    Some(CircuitBreaker {
        max_requests: max_requests.unwrap_or(default.max_requests),
        interval: interval.unwrap_or(default.interval),
        timeout: timeout.unwrap_or(default.timeout),
        trip: trip.unwrap_or(default.trip),
    })
}

fn trip(findings: &mut Findings, node: &Node, path: &str) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        _ => {
            findings.wrong_type(node, path, "a condition such as \"consecutiveFailures > 5\"");
            None
        }
    }
}

// === impl StatusCodes ===

impl StatusCodes {
    /// Ranges in any order, which may overlap.
    fn new(mut ranges: Vec<RangeInclusive<u16>>) -> StatusCodes {
        ranges.sort_by_key(|range| (*range.start(), *range.end()));
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        StatusCodes(merged)
    }
}
