//! YAML into the tree: several documents a file, anchors, aliases and merge keys, all bounded.
//!
//! Scalars are resolved as the YAML 1.1 library of Kubernetes and Dapr does it (`yes` is true, `010` is
//! eight), and their text becomes the one that JSON would show, because that is what Dapr hands to a
//! component for `value: 1.50`.

use crate::error::{ResourceError, quote};
use crate::tree::{Entry, Findings, MAX_DEPTH, MAX_NODES, Node, Position, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Most bytes that anchors and aliases of one file may copy.
const MAX_COPIED_BYTES: usize = 4 * 1024 * 1024;

/// Reads the documents of a file. After the first mistake the rest cannot be trusted, so there is one error.
pub(crate) fn parse(text: &str, file: &Path) -> Result<Vec<Node>, ResourceError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    let failed = builder.build(text).err();
    match failed {
        None => Ok(builder.documents),
        Some(Failed { at, message }) => {
            let mut findings = Findings::new(file);
            findings.add(at, "", message, "");
            findings.into_vec().pop().map_or_else(|| Ok(Vec::new()), Err)
        }
    }
}

/// Reads a file of one document; `None` when there is nothing in it.
pub(crate) fn parse_one(text: &str, file: &Path) -> Result<Option<Node>, ResourceError> {
    let documents = parse(text, file)?;
    // An empty document: three dashes at the end of a file make one.
    let mut documents = documents.into_iter().filter(|node| !matches!(node.value, Value::Null));
    let first = documents.next();
    match (&first, documents.next()) {
        (Some(first), Some(second)) => Err(ResourceError {
            line: second.at.line,
            column: second.at.column,
            ..ResourceError::whole_file(
                file,
                format!("the file has a second document; the first is in line {}", first.at.line),
                "expected one document: put the rest into other files",
            )
        }),
        _ => Ok(first),
    }
}

struct Failed {
    at: Position,
    message: String,
}

/// A list or map that is still open.
struct Frame {
    at: Position,
    anchor: usize,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        keys: HashSet<String>,
        merges: Vec<Node>,
        key: Option<(String, Position, bool)>,
    },
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    /// The last anchor of the documents before this one.
    former: usize,
    nodes: usize,
    copied: usize,
}

// === impl Builder ===

impl Builder {
    fn build(&mut self, text: &str) -> Result<(), Failed> {
        if let Some((line, column)) = control_character(text) {
            return Err(Failed {
                at: Position { line, column },
                message: "a control character stands here; YAML allows none but tabs and line breaks"
                    .to_owned(),
            });
        }
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event
                .map_err(|error| Failed { at: position(error.marker()), message: error.info().to_owned() })?;
            self.event(event, position(&span.start))?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Failed> {
        match event {
            Event::DocumentEnd => {
                self.former = self.anchors.keys().copied().max().unwrap_or(0).max(self.former);
                self.anchors.clear();
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge = style == ScalarStyle::Plain && text == "<<";
                let value = scalar(&text, style, tag.as_deref());
                if let Some(Frame { open: Open::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
                    *key = Some((text.into_owned(), at, is_merge));
                    return Ok(());
                }
                self.close(Node { at, value }, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.enter(at, anchor, Open::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => {
                let (entries, keys, merges) = Default::default();
                self.enter(at, anchor, Open::Map { entries, keys, merges, key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Frame { at, anchor, open }) = self.open.pop() {
                    let value = match open {
                        Open::List(nodes) => Value::List(nodes),
                        Open::Map { entries, keys, merges, .. } => Value::Map(merged(entries, keys, merges)),
                    };
                    self.close(Node { at, value }, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                // An alias inside its own anchor finds nothing: the anchor is stored when it is complete.
                let Some(node) = self.anchors.get(&anchor) else {
                    let message = match anchor <= self.former {
                        true => "this alias refers to an anchor of another document; anchors hold for one",
                        false => "this alias refers to a value that contains it",
                    };
                    return Err(Failed { at, message: message.to_owned() });
                };
                let copy = Node { at, ..node.clone() };
                self.charge(&copy, at, self.open.len())?;
                self.close(copy, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
        Ok(())
    }

    fn enter(&mut self, at: Position, anchor: usize, open: Open) -> Result<(), Failed> {
        if let Some(Frame { open: Open::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(Failed { at, message: "a key must be a single value, not a list or map".to_owned() });
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Failed { at, message: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        self.open.push(Frame { at, anchor, open });
        Ok(())
    }

    /// A value is complete: it goes where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Failed> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Failed {
                at: node.at,
                message: format!("the file has more than {MAX_NODES} values"),
            });
        }
        if anchor > 0 {
            self.charge(&node, node.at, 0)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|frame| &mut frame.open) {
            None => self.documents.push(node),
            Some(Open::List(nodes)) => nodes.push(node),
            Some(Open::Map { entries, keys, merges, key }) => match key.take() {
                None => {
                    return Err(Failed {
                        at: node.at,
                        message: "a key must be written out, not an alias".to_owned(),
                    });
                }
                Some((_, _, true)) => merges.push(node),
                Some((key, at, false)) => {
                    if !keys.insert(key.clone()) {
                        return Err(Failed {
                            at,
                            message: format!("the field {} stands here twice", quote(&key)),
                        });
                    }
                    entries.push(Entry { key, at, node });
                }
            },
        }
        Ok(())
    }

    /// Counts a copy against the bound that makes alias bombs harmless.
    fn charge(&mut self, node: &Node, at: Position, depth: usize) -> Result<(), Failed> {
        if depth > MAX_DEPTH {
            return Err(Failed { at, message: format!("nested deeper than {MAX_DEPTH} levels by aliases") });
        }
        self.copied += 64;
        match &node.value {
            Value::Integer(text) | Value::Float(text) | Value::Date(text) | Value::Text(text) => {
                self.copied += text.len();
            }
            Value::List(nodes) => {
                for node in nodes {
                    self.charge(node, at, depth + 1)?;
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.copied += entry.key.len();
                    self.charge(&entry.node, at, depth + 1)?;
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        if self.copied > MAX_COPIED_BYTES {
            return Err(Failed {
                at,
                message: format!("anchors and aliases copy more than {MAX_COPIED_BYTES} bytes"),
            });
        }
        Ok(())
    }
}

/// `<<: *base`: fields of the base that the map does not have itself. Anything but maps is left to the reader,
/// to whom it is an unknown field.
fn merged(mut entries: Vec<Entry>, mut keys: HashSet<String>, merges: Vec<Node>) -> Vec<Entry> {
    for base in merges {
        let at = base.at;
        let bases = match base.value {
            Value::List(nodes) => nodes,
            _ => vec![base],
        };
        for base in bases {
            match base.value {
                Value::Map(inherited) => {
                    entries.extend(inherited.into_iter().filter(|entry| keys.insert(entry.key.clone())));
                }
                value => entries.push(Entry { key: "<<".to_owned(), at, node: Node { at, value } }),
            }
        }
    }
    entries
}

/// The meaning of a scalar.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_string = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || is_string {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    // Only digits, signs and dots can begin a number: words such as "inf" and "nan" stay text.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Text(text.to_owned());
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain) {
        return Value::Integer(number.to_string());
    }
    let is_decimal =
        plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    match plain.parse::<f64>() {
        Ok(number) if is_decimal && number.is_finite() => Value::Float(json_number(number)),
        _ => Value::Text(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, digits.get(2..)?),
        Some("0b" | "0B") => (2, digits.get(2..)?),
        Some("0o" | "0O") => (8, digits.get(2..)?),
        Some(_) if digits.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    let number =
        if digits.starts_with(['+', '-']) { None } else { i128::from_str_radix(digits, radix).ok() }?;
    // What does not fit 64 bits is a decimal number to Dapr's library.
    (number <= i128::from(u64::MAX)).then_some(number * sign).filter(|number| *number >= i128::from(i64::MIN))
}

/// A number as JSON encoders of Dapr's language write it: shortest digits, an exponent only when very small
/// or very large.
fn json_number(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
    }
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn control_character(text: &str) -> Option<(usize, usize)> {
    let allowed = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    text.lines()
        .enumerate()
        .find_map(|(line, text)| text.chars().position(|c| !allowed(c)).map(|column| (line + 1, column + 1)))
}
