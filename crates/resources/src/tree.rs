//! Values that know where they stand, and the checks that every field passes.
//!
//! `toml_tree`, `yaml_tree` and `json_tree` build a [`Node`]; `manifest` and the kinds of Dapr take it apart through
//! [`Findings`] and [`Table`]. A table collects the names it was asked for, so the list of known fields in an
//! error is the list of fields that the code reads, and cannot fall behind it.

use crate::error::{MAX_FINDINGS, MAX_QUOTED, ResourceError, nearest, quote};
use std::path::{Path, PathBuf};

/// Deepest nesting of lists and maps in a file.
pub(crate) const MAX_DEPTH: usize = 64;

/// Most values in one file.
pub(crate) const MAX_NODES: usize = 200_000;

/// Where something stands in its file; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A value and its place.
#[derive(Clone)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// The value.
    pub value: Value,
}

/// What a value is. Scalars carry their canonical text.
#[derive(Clone)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, in decimal digits.
    Integer(String),
    /// Another number, as JSON writes it.
    Float(String),
    /// A date of TOML.
    Date(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map.
    Map(Vec<Entry>),
}

/// A field of a map. Keys of one map differ.
#[derive(Clone)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Where the name stands.
    pub at: Position,
    /// What is behind it.
    pub node: Node,
}

/// What was found wrong in one file so far.
pub(crate) struct Findings {
    file: PathBuf,
    errors: Vec<ResourceError>,
}

/// A map whose fields are being read.
pub(crate) struct Table<'a> {
    /// The path of the map, e.g. `apps.front`; empty for the whole document.
    pub(crate) path: String,
    /// Where the map stands.
    pub(crate) at: Position,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

// === impl Node ===

impl Node {
    /// The kind of value, with its article, for "expected …, found …".
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a decimal number",
            Value::Date(_) => "a date",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Any scalar as the text it stands for; nothing is the empty string.
    pub fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Null => Some(String::new()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Integer(text) | Value::Float(text) | Value::Date(text) | Value::Text(text) => {
                Some(text.clone())
            }
            Value::List(_) | Value::Map(_) => None,
        }
    }
}

// === impl Findings ===

impl Findings {
    pub(crate) fn new(file: &Path) -> Findings {
        Findings { file: file.to_owned(), errors: Vec::new() }
    }

    pub(crate) fn add(
        &mut self,
        at: Position,
        field: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.errors.len() < MAX_FINDINGS {
            self.errors.push(ResourceError {
                file: self.file.clone(),
                line: at.line,
                column: at.column,
                field: field.to_owned(),
                message: message.into(),
                hint: hint.into(),
            });
        }
    }

    pub(crate) fn into_vec(self) -> Vec<ResourceError> {
        self.errors
    }

    /// How many there are; equal numbers before and after a reading mean that nothing was wrong.
    pub(crate) fn count(&self) -> usize {
        self.errors.len()
    }

    /// A finding about the type of a value.
    pub(crate) fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        self.add(node.at, path, format!("must be {expected}, found {}", node.kind()), "");
    }

    /// The fields of a map.
    pub(crate) fn table<'a>(&mut self, node: &'a Node, path: String) -> Option<Table<'a>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, &path, "a map");
            return None;
        };
        Some(Table { path, at: node.at, entries, known: Vec::new() })
    }

    /// Text.
    pub(crate) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        let Value::Text(text) = &node.value else {
            self.wrong_type(node, path, "a string in quotes");
            return None;
        };
        Some(text.clone())
    }

    /// Any scalar as text.
    pub(crate) fn scalar(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = node.scalar();
        if text.is_none() {
            self.wrong_type(node, path, "a single value");
        }
        text
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        let Value::Bool(value) = node.value else {
            self.wrong_type(node, path, "true or false");
            return None;
        };
        Some(value)
    }

    /// The elements of a list.
    pub(crate) fn list<'a>(&mut self, node: &'a Node, path: &str, expected: &str) -> &'a [Node] {
        let Value::List(nodes) = &node.value else {
            self.wrong_type(node, path, expected);
            return &[];
        };
        nodes
    }

    /// A list of texts with the place of each.
    pub(crate) fn texts(&mut self, node: &Node, path: &str) -> Vec<(String, Position)> {
        let nodes = self.list(node, path, "a list of strings");
        nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((self.text(node, &format!("{path}[{index}]"))?, node.at)))
            .collect()
    }
}

// === impl Table ===

impl<'a> Table<'a> {
    /// A map without fields, for a name with nothing behind it.
    pub(crate) fn empty(path: String, at: Position) -> Table<'a> {
        Table { path, at, entries: &[], known: Vec::new() }
    }

    /// The path of a field of this map.
    pub(crate) fn path_of(&self, field: &str) -> String {
        let is_odd =
            field.contains(|c: char| c.is_control() || c == '.') || field.chars().count() > MAX_QUOTED;
        let shown = if is_odd { quote(field) } else { field.to_owned() };
        if self.path.is_empty() { shown } else { format!("{}.{shown}", self.path) }
    }

    /// The value of a field, which from now on is a known one.
    pub(crate) fn get(&mut self, field: &'static str) -> Option<&'a Node> {
        self.entry(field).map(|entry| &entry.node)
    }

    /// The field with its own position.
    pub(crate) fn entry(&mut self, field: &'static str) -> Option<&'a Entry> {
        if !self.known.contains(&field) {
            self.known.push(field);
        }
        self.entries.iter().find(|entry| entry.key == field)
    }

    /// Whether there is something behind a field, which from now on is a known one.
    pub(crate) fn has(&mut self, field: &'static str) -> bool {
        self.get(field).is_some_and(|node| !matches!(node.value, Value::Null))
    }

    /// All fields, for maps whose names the user chooses.
    pub(crate) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Reads a field with one of the methods of [`Findings`] or a function of the same form.
    pub(crate) fn read<T>(
        &mut self,
        findings: &mut Findings,
        field: &'static str,
        read: impl FnOnce(&mut Findings, &'a Node, &str) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(field)?;
        read(findings, node, &self.path_of(field))
    }

    /// Reads a field like [`Table::read`]. A field with nothing behind it is as good as not there: so it is to
    /// Dapr.
    pub(crate) fn optional<T>(
        &mut self,
        findings: &mut Findings,
        field: &'static str,
        read: impl FnOnce(&mut Findings, &'a Node, &str) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(field).filter(|node| !matches!(node.value, Value::Null))?;
        read(findings, node, &self.path_of(field))
    }

    /// Ends the reading of a map whose other fields have no effect: where they are.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, usize)> {
        let Table { path, at, entries, known } = self;
        let others = entries.iter().filter(move |entry| !known.contains(&entry.key.as_str()));
        let whole = Table { path, at, entries: &[], known: Vec::new() };
        others.map(move |entry| (whole.path_of(&entry.key), entry.at.line))
    }

    /// Ends the reading: every field that was not asked for is unknown.
    pub(crate) fn finish(self, findings: &mut Findings) {
        self.finish_beside(findings, "", &[]);
    }

    /// The same; a field that would be one of `section` is told where it belongs.
    pub(crate) fn finish_beside(self, findings: &mut Findings, section: &str, fields: &[&str]) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let mut hint = format!("expected one of {}", self.known.join(", "));
            if fields.contains(&entry.key.as_str()) {
                hint = format!("it is a field of `[{section}]`: write it below that line");
            } else if let Some(name) = nearest(&entry.key, &self.known) {
                hint.push_str(&format!("; did you mean `{name}`?"));
            }
            findings.add(entry.at, &self.path, format!("unknown field {}", quote(&entry.key)), hint);
        }
    }
}
