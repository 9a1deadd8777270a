//! The small kinds of values of Dapr's files: durations, numbers, words out of a list, lists and maps of text.

use crate::error::{nearest, quote};
use crate::object::required_scalar;
use crate::tree::{Findings, Node, Table, Value};
use crate::units::parse_dapr_duration;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A duration; a bare integer is milliseconds. Nothing is none.
pub(crate) fn duration(findings: &mut Findings, node: &Node, path: &str) -> Option<Duration> {
    let text = findings.scalar(node, path).filter(|text| !text.is_empty())?;
    match parse_dapr_duration(&text) {
        Ok(duration) => Some(duration),
        Err(expected) => {
            findings.add(node.at, path, format!("{} is not a duration", quote(&text)), expected);
            None
        }
    }
}

/// Text that is not empty.
pub(crate) fn name(findings: &mut Findings, node: &Node, path: &str) -> Option<String> {
    findings.scalar(node, path).filter(|text| !text.is_empty())
}

/// An integer out of a range.
pub(crate) fn integer(range: RangeInclusive<i64>) -> impl FnOnce(&mut Findings, &Node, &str) -> Option<i64> {
    move |findings, node, path| {
        let Value::Integer(text) = &node.value else {
            findings.wrong_type(node, path, "an integer");
            return None;
        };
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let hint = format!("expected {} to {}", range.start(), range.end());
            findings.add(node.at, path, format!("{} is out of range", quote(text)), hint);
        }
        number
    }
}

/// An integer from 0.
pub(crate) fn count(findings: &mut Findings, node: &Node, path: &str) -> Option<u32> {
    integer(0..=u32::MAX.into())(findings, node, path).and_then(|number| number.try_into().ok())
}

/// An integer from 1. 0 is none: in Dapr's types it cannot be told from a field that is not there.
pub(crate) fn count_or_default(findings: &mut Findings, node: &Node, path: &str) -> Option<u32> {
    count(findings, node, path).filter(|number| *number > 0)
}

/// A word out of a list, upper and lower case being the same. Nothing is none.
pub(crate) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl FnOnce(&mut Findings, &Node, &str) -> Option<T> {
    move |findings, node, path| {
        let text = findings.scalar(node, path).filter(|text| !text.is_empty())?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let mut hint = format!("expected {}", known.join(" or "));
            if let Some(near) = nearest(&text, &known) {
                hint.push_str(&format!("; did you mean `{near}`?"));
            }
            findings.add(node.at, path, format!("{} is unknown", quote(&text)), hint);
        }
        found.map(|(_, value)| *value)
    }
}

/// A list of words out of a list.
pub(crate) fn words<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl FnOnce(&mut Findings, &Node, &str) -> Option<Vec<T>> {
    move |findings, node, path| {
        let nodes = findings.list(node, path, "a list of strings").iter().enumerate();
        let found =
            nodes.filter_map(|(index, node)| word(words)(findings, node, &format!("{path}[{index}]")));
        Some(found.collect())
    }
}

/// A list of texts, none of them empty.
pub(crate) fn texts(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<String>> {
    let nodes = findings.list(node, path, "a list of strings");
    let texts = nodes.iter().enumerate().filter_map(|(index, node)| {
        let path = format!("{path}[{index}]");
        let text = findings.scalar(node, &path)?;
        if text.is_empty() {
            findings.add(node.at, &path, "is empty", "expected a text");
        }
        Some(text)
    });
    Some(texts.collect())
}

/// Names and single values, as text.
pub(crate) fn text_map(findings: &mut Findings, node: &Node, path: &str) -> Option<BTreeMap<String, String>> {
    let table = findings.table(node, path.to_owned())?;
    let pairs = table.entries().iter().filter_map(|entry| {
        let value = findings.scalar(&entry.node, &table.path_of(&entry.key))?;
        Some((entry.key.clone(), value))
    });
    Some(pairs.collect())
}

/// A list of maps, each read by the same function, which is to ask for all fields it knows.
pub(crate) fn tables<T>(
    expected: &'static str,
    mut read: impl FnMut(&mut Findings, &mut Table<'_>) -> Option<T>,
) -> impl FnOnce(&mut Findings, &Node, &str) -> Option<Vec<T>> {
    move |findings, node, path| {
        let mut items = Vec::new();
        for (index, node) in findings.list(node, path, expected).iter().enumerate() {
            let Some(mut table) = findings.table(node, format!("{path}[{index}]")) else { continue };
            let item = read(findings, &mut table);
            table.finish(findings);
            items.extend(item);
        }
        Some(items)
    }
}

/// A map whose names the user chooses, each value being a map that the same function reads.
pub(crate) fn named_tables<T>(
    mut read: impl FnMut(&mut Findings, &mut Table<'_>) -> Option<T>,
) -> impl FnOnce(&mut Findings, &Node, &str) -> Option<BTreeMap<String, T>> {
    move |findings, node, path| {
        let named = findings.table(node, path.to_owned())?;
        let mut items = BTreeMap::new();
        for entry in named.entries() {
            let path = named.path_of(&entry.key);
            let table = match &entry.node.value {
                Value::Null => Some(Table::empty(path, entry.node.at)),
                _ => findings.table(&entry.node, path),
            };
            let Some(mut table) = table else { continue };
            let item = read(findings, &mut table);
            table.finish(findings);
            items.extend(item.map(|item| (entry.key.clone(), item)));
        }
        Some(items)
    }
}

/// One map, read by a function that is to ask for all fields it knows.
pub(crate) fn table<T>(
    read: impl FnOnce(&mut Findings, &mut Table<'_>) -> Option<T>,
) -> impl FnOnce(&mut Findings, &Node, &str) -> Option<T> {
    move |findings, node, path| {
        let mut table = findings.table(node, path.to_owned())?;
        let value = read(findings, &mut table);
        table.finish(findings);
        value
    }
}

/// A word out of a list that must be there.
pub(crate) fn required_word<T: Copy>(
    findings: &mut Findings,
    parent: &mut Table<'_>,
    field: &'static str,
    words: &'static [(&'static str, T)],
) -> Option<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    required_scalar(findings, parent, field, &format!("expected {}", known.join(" or ")))?;
    parent.read(findings, field, word(words))
}
