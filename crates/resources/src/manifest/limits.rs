//! `[defaults.limits]` and `[apps.<id>.limits]`.

use super::LimitsConfig;
use crate::error::quote;
use crate::tree::{Findings, Node, Value};
use crate::units::{parse_duration, parse_size};
use std::time::Duration;

/// Elements of all tables of an instance.
const MOST_ELEMENTS: u32 = 100_000;

/// Reads a table of limits.
pub(super) fn read(findings: &mut Findings, node: &Node, path: &str) -> Option<LimitsConfig> {
    let mut table = findings.table(node, path.to_owned())?;
    let limits = LimitsConfig {
        memory: table.read(findings, "memory", size),
        timeout: table.read(findings, "timeout", duration),
        concurrency: table.read(findings, "concurrency", count),
        queue: table.read(findings, "queue", count_or_zero),
        request_body: table.read(findings, "request_body", size),
        response_body: table.read(findings, "response_body", size),
        tables: table.read(findings, "tables", elements),
        instances: table.read(findings, "instances", count),
        host_calls: table.read(findings, "host_calls", count),
        handles: table.read(findings, "handles", count),
    };
    table.finish(findings);
    Some(limits)
}

/// A number from 1.
pub(super) fn count(findings: &mut Findings, node: &Node, path: &str) -> Option<u32> {
    let number = number(findings, node, path, 1)?;
    not_zero(findings, node, path, number)
}

/// Elements of tables: as many as the pools have room for at most.
fn elements(findings: &mut Findings, node: &Node, path: &str) -> Option<u32> {
    let number = count(findings, node, path)?;
    if number > MOST_ELEMENTS {
        let message = format!("{number} elements are more than there is room for");
        findings.add(node.at, path, message, format!("expected 1 to {MOST_ELEMENTS}"));
        return None;
    }
    Some(number)
}

fn count_or_zero(findings: &mut Findings, node: &Node, path: &str) -> Option<u32> {
    number(findings, node, path, 0)
}

/// A number that fits; who says that one cannot begins with `least`.
fn number(findings: &mut Findings, node: &Node, path: &str, least: u32) -> Option<u32> {
    let Value::Integer(text) = &node.value else {
        findings.wrong_type(node, path, "an integer");
        return None;
    };
    let number = text.parse().ok();
    if number.is_none() {
        findings.add(
            node.at,
            path,
            format!("{} is out of range", quote(text)),
            format!("expected {least} to {}", u32::MAX),
        );
    }
    number
}

fn size(findings: &mut Findings, node: &Node, path: &str) -> Option<u64> {
    let (Value::Integer(text) | Value::Text(text)) = &node.value else {
        findings.wrong_type(node, path, "a size: a number of bytes, or a string such as \"64KiB\"");
        return None;
    };
    match parse_size(text) {
        Ok(bytes) => not_zero(findings, node, path, bytes),
        Err(expected) => {
            findings.add(node.at, path, format!("{} is not a size", quote(text)), expected);
            None
        }
    }
}

/// A duration with its unit, not zero.
pub(super) fn duration(findings: &mut Findings, node: &Node, path: &str) -> Option<Duration> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Integer(text) => {
            let hint = format!("write the unit: \"{text}s\" for seconds, \"{text}ms\" for milliseconds");
            findings.add(node.at, path, format!("{} has no unit", quote(text)), hint);
            return None;
        }
        _ => {
            findings.wrong_type(node, path, "a duration such as \"30s\"");
            return None;
        }
    };
    match parse_duration(text) {
        Ok(duration) => not_zero(findings, node, path, duration),
        Err(expected) => {
            findings.add(node.at, path, format!("{} is not a duration", quote(text)), expected);
            None
        }
    }
}

fn not_zero<T: Default + PartialEq>(findings: &mut Findings, node: &Node, path: &str, limit: T) -> Option<T> {
    if limit != T::default() {
        return Some(limit);
    }
    findings.add(
        node.at,
        path,
        "a limit of 0 would refuse every invocation; 0 does not mean unlimited",
        "expected at least 1; leave the field out for the default",
    );
    None
}
