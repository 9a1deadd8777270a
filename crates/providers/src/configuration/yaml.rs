//! A YAML file of values: maps of text, with no more of YAML than that takes.

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};

/// A value, its fields, and the fields of its metadata.
const MAX_DEPTH: usize = 8;

/// A list or map that is still open.
enum Open {
    List(Vec<Value>),
    Map { entries: Map<String, Value>, key: Option<String> },
}

/// Reads one document. Every scalar is text as it stands there; aliases are refused, because nothing here
/// needs them and a few of them can make a small file large.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut document = None;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        let at = |reason: &str| format!("line {}: {reason}", span.start.line());
        let value = match event {
            Event::Alias(_) => return Err(at("an alias is not allowed here")),
            Event::Scalar(text, ..) => match open.last_mut() {
                Some(Open::Map { key: key @ None, entries }) => {
                    if entries.contains_key(&*text) {
                        return Err(at(&format!("key {text:?} stands here twice")));
                    }
                    *key = Some(text.into_owned());
                    continue;
                }
                _ => Value::String(text.into_owned()),
            },
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if matches!(open.last(), Some(Open::Map { key: None, .. })) {
                    return Err(at("a key has to be a single value"));
                }
                if open.len() >= MAX_DEPTH {
                    return Err(at("nested too deep"));
                }
                open.push(match event {
                    Event::SequenceStart(..) => Open::List(Vec::new()),
                    _ => Open::Map { entries: Map::new(), key: None },
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Value::Array(items),
                Some(Open::Map { entries, .. }) => Value::Object(entries),
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            Some(Open::List(items)) => items.push(value),
            Some(Open::Map { entries, key }) => {
                if let Some(key) = key.take() {
                    entries.insert(key, value);
                }
            }
            None if document.is_some() => return Err(at("expected one document")),
            None => document = Some(value),
        }
    }
    // An empty file, or one of comments.
    Ok(document.unwrap_or_else(|| Value::Object(Map::new())))
}
