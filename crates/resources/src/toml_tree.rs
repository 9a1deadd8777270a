//! TOML 1.1 into the tree. The nesting bound is the parser's own (80 levels), below which nothing recurses.

use crate::error::{MAX_FINDINGS, ResourceErrors};
use crate::tree::{Entry, Findings, Node, Position, Value};
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Reads a document; the error tells all mistakes in its syntax.
pub(crate) fn parse(text: &str, file: &Path) -> Result<Node, ResourceErrors> {
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut findings = Findings::new(file);
        for error in errors.into_iter().take(MAX_FINDINGS) {
            let at = lines.position(error.span().map_or(text.len(), |span| span.start));
            findings.add(at, "", error.message().trim().replace('\n', ", "), "");
        }
        ResourceErrors::check(findings.into_vec())?;
    }
    Ok(table(&lines, document.span(), document.get_ref()))
}

fn table(lines: &Lines<'_>, span: Range<usize>, table: &DeTable<'_>) -> Node {
    let entries = table.iter().map(|(key, value)| Entry {
        key: key.get_ref().to_string(),
        at: lines.position(key.span().start),
        node: node(lines, value.span(), value.get_ref()),
    });
    Node { at: lines.position(span.start), value: Value::Map(entries.collect()) }
}

fn node(lines: &Lines<'_>, span: Range<usize>, value: &DeValue<'_>) -> Node {
    let at = lines.position(span.start);
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        // A number beyond 128 bits keeps its digits, and fails where a number is asked for.
        DeValue::Integer(integer) => Value::Integer(
            i128::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| integer.as_str().to_owned(), |number| number.to_string()),
        ),
        DeValue::Float(float) => Value::Float(float.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(array) => {
            Value::List(array.iter().map(|value| node(lines, value.span(), value.get_ref())).collect())
        }
        DeValue::Table(inner) => return table(lines, span, inner),
    };
    Node { at, value }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

// === impl Lines ===

impl Lines<'_> {
    fn new(text: &str) -> Lines<'_> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        // A column counts characters; on a line of megabytes (a minified file) bytes have to do.
        let column = match self.text.get(start..offset) {
            Some(before) if before.len() <= 4096 => before.chars().count(),
            _ => offset - start,
        };
        Position { line, column: column + 1 }
    }
}
