//! `{{tags}}` and what they stand for.
//!
//! A simple tag (`{{inputs.parameters.x}}`) is a name with a value; an expression tag (`{{=…}}`) is evaluated over all
//! of them. Tags are replaced inside texts only, so a value can never change the structure around it.
//! <https://argo-workflows.readthedocs.io/en/latest/variables/>

use crate::artifacts::Artifact;
use crate::expression::{Expression, Language};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest text that comes out, in bytes.
const MAX_TEXT: usize = 4 << 20;

/// Names and their values, as one template sees them; from the innermost to the outermost.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    names: BTreeMap<String, String>,
    artifacts: BTreeMap<String, Artifact>,
    /// The item as expressions see it, where it is more than text.
    item: Option<Value>,
    outer: Option<Arc<Scope>>,
}

/// Why a text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Nothing has that name.
    #[error("failed to resolve {{{{{0}}}}}")]
    Unresolved(String),
    /// The expression cannot be evaluated.
    #[error("failed to evaluate {{{{={expression}}}}}: {reason}")]
    Expression {
        /// The expression.
        expression: String,
        /// What is wrong.
        reason: String,
    },
    /// More than [`MAX_TEXT`].
    #[error("the text becomes longer than {MAX_TEXT} bytes")]
    TooLong,
}

/// A tag in a text, without its braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag<'a> {
    /// A name.
    Simple(&'a str),
    /// An expression.
    Expression(&'a str),
}

/// Tags may stand in the names of others this deep.
const MAX_NESTING: usize = 8;

/// The tags of a text, each with what stands before it; at last the rest.
fn pieces(text: &str) -> (Vec<(&str, Tag<'_>)>, &str) {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some(end) = end_of_tag(behind, MAX_NESTING).or_else(|| behind.find("}}")) else { break };
        let (tag, after) = behind.split_at(end);
        let tag = match tag.strip_prefix('=') {
            Some(expression) => Tag::Expression(expression.trim()),
            None => Tag::Simple(tag.trim()),
        };
        pieces.push((before, tag));
        rest = after.get(2..).unwrap_or_default();
    }
    (pieces, rest)
}

/// Where a tag ends, from behind its braces. In a name there may be other tags: `{{inputs.parameters.{{item}}}}`.
fn end_of_tag(text: &str, depth: usize) -> Option<usize> {
    if text.starts_with('=') {
        // An expression may hold braces itself: the tag ends where as many were closed as opened.
        return end_of_expression(text);
    }
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        let end = rest.find("}}")?;
        let Some(open) = rest.find("{{").filter(|open| *open < end) else { return Some(at + end) };
        let inner = at + open + 2;
        at = inner + end_of_tag(text.get(inner..)?, depth.checked_sub(1)?)? + 2;
    }
}

fn end_of_expression(text: &str) -> Option<usize> {
    let (mut open, mut quote) = (0_usize, None);
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (Some(mark), byte) if mark == byte && bytes.get(at.wrapping_sub(1)) != Some(&b'\\') => {
                quote = None
            }
            (Some(_), _) => {}
            (None, b'"' | b'\'' | b'`') => quote = Some(byte),
            (None, b'{') => open += 1,
            (None, b'}') if open > 0 => open -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
    }
    text.find("}}")
}

/// The text of which, all its tags replaced, this one is left: whatever stands in it, it is no tag.
pub fn literal(text: &str) -> String {
    text.replace("{{", "{{='{{'}}")
}

/// The tags of a text.
pub fn tags(text: &str) -> Vec<Tag<'_>> {
    pieces(text).0.into_iter().map(|(_, tag)| tag).collect()
}

/// Whether a tag begins in a text and does not end.
pub(crate) fn is_unclosed(text: &str) -> bool {
    pieces(text).1.contains("{{")
}

/// A text whose tags became other texts, by their number.
pub(crate) fn filled_in(text: &str, with: impl Fn(usize) -> &'static str) -> String {
    let (pieces, rest) = pieces(text);
    let filled = pieces.iter().enumerate().map(|(index, (before, _))| format!("{before}{}", with(index)));
    filled.collect::<String>() + rest
}

/// Adds the tags of all texts inside a value.
pub fn tags_of<'a>(value: &'a Value, found: &mut Vec<Tag<'a>>) {
    match value {
        Value::String(text) => found.extend(tags(text)),
        Value::Array(list) => list.iter().for_each(|value| tags_of(value, found)),
        Value::Object(map) => map.values().for_each(|value| tags_of(value, found)),
        _ => {}
    }
}

// === impl Scope ===

impl Scope {
    /// A scope inside another one.
    pub fn inside(outer: &Arc<Scope>) -> Scope {
        Scope { outer: Some(Arc::clone(outer)), ..Scope::default() }
    }

    /// Gives a name a value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.names.insert(name.into(), value.into());
    }

    /// Gives `item` and, if it is a map, `item.key` their values.
    pub fn set_item(&mut self, item: &Value) {
        self.set("item", crate::expression::text(item));
        if let Value::Object(map) = item {
            for (key, value) in map {
                self.set(format!("item.{key}"), crate::expression::text(value));
            }
        }
        self.item = Some(item.clone());
    }

    /// The item, of the innermost scope that has one.
    pub(crate) fn item(&self) -> Option<&Value> {
        let mut scope = Some(self);
        while let Some(found) = scope {
            if found.item.is_some() {
                return found.item.as_ref();
            }
            scope = found.outer.as_deref();
        }
        None
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut scope = Some(self);
        while let Some(found) = scope {
            if let Some(value) = found.names.get(name) {
                return Some(value);
            }
            scope = found.outer.as_deref();
        }
        None
    }

    /// Gives a name an artifact.
    pub fn set_artifact(&mut self, name: impl Into<String>, artifact: Artifact) {
        self.artifacts.insert(name.into(), artifact);
    }

    /// The artifact of a name, which may stand in braces.
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        let name = name.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
        let mut scope = Some(self);
        while let Some(found) = scope {
            if let Some(artifact) = found.artifacts.get(name) {
                return Some(artifact);
            }
            scope = found.outer.as_deref();
        }
        None
    }

    /// The artifact that an expression chooses.
    pub fn artifact_of(&self, expression: &str) -> Result<Option<Artifact>, TagError> {
        let mut root = self.variables();
        let mut scope = Some(self);
        while let Some(found) = scope {
            if let Value::Object(root) = &mut root {
                // In expressions an artifact's value is its own name.
                found.artifacts.keys().for_each(|name| insert(root, name, name));
            }
            scope = found.outer.as_deref();
        }
        let failed = |reason| TagError::Expression { expression: expression.to_owned(), reason };
        let parsed = Expression::parse(expression, Language::Expr).map_err(failed)?;
        let chosen = parsed.evaluate(&root).map_err(failed)?;
        Ok(self.artifact(&crate::expression::text(&chosen)).cloned())
    }

    /// All names as nested maps, for expressions.
    pub fn variables(&self) -> Value {
        let mut root = Map::new();
        self.collect(&mut root);
        Value::Object(root)
    }

    fn collect(&self, root: &mut Map<String, Value>) {
        if let Some(outer) = &self.outer {
            outer.collect(root);
        }
        for (name, value) in &self.names {
            insert(root, name, value);
        }
        if let Some(item) = &self.item {
            root.insert("item".to_owned(), item.clone());
        }
    }

    /// The text with all tags replaced.
    pub fn text(&self, text: &str) -> Result<String, TagError> {
        if !text.contains("{{") {
            return Ok(text.to_owned());
        }
        let (pieces, rest) = pieces(text);
        let mut whole = String::with_capacity(text.len());
        for (before, tag) in pieces {
            whole.push_str(before);
            match tag {
                Tag::Simple(name) => whole.push_str(self.named(name)?),
                Tag::Expression(expression) => whole.push_str(&self.expression_text(expression)?),
            }
            if whole.len() > MAX_TEXT {
                return Err(TagError::TooLong);
            }
        }
        whole.push_str(rest);
        Ok(whole)
    }

    /// The value of a name, tags in the name replaced first. What they stand for makes no tag.
    fn named(&self, name: &str) -> Result<&str, TagError> {
        let full = self.text(name)?;
        let value = self.get(&full).filter(|_| !full.contains("{{"));
        value.ok_or_else(|| TagError::Unresolved(name.to_owned()))
    }

    /// The value with the tags of all its texts replaced.
    pub fn value(&self, value: &Value) -> Result<Value, TagError> {
        Ok(match value {
            Value::String(text) => Value::String(self.text(text)?),
            Value::Array(list) => {
                Value::Array(list.iter().map(|value| self.value(value)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| Ok((key.clone(), self.value(value)?)));
                Value::Object(entries.collect::<Result<_, TagError>>()?)
            }
            other => other.clone(),
        })
    }

    /// An expression's value over the names here.
    pub fn evaluate(&self, expression: &str) -> Result<Value, TagError> {
        let failed = |reason| TagError::Expression { expression: expression.to_owned(), reason };
        let parsed = Expression::parse(expression, Language::Expr).map_err(failed)?;
        parsed.evaluate(&self.variables()).map_err(failed)
    }

    /// An expression's value as text; nothing is an error, as in Argo.
    pub fn expression_text(&self, expression: &str) -> Result<String, TagError> {
        match self.evaluate(expression)? {
            Value::Null => Err(TagError::Expression {
                expression: expression.to_owned(),
                reason: "there is nothing of that name".to_owned(),
            }),
            value => Ok(crate::expression::text(&value)),
        }
    }
}

/// `a.b.c` becomes nested maps. A name that is both a value and a map of more keeps the map.
fn insert(root: &mut Map<String, Value>, name: &str, value: &str) {
    // Names of tasks and parameters may hold no dot, keys of labels may: those come last.
    let mut segments: Vec<Cow<'_, str>> = name.split('.').map(Cow::Borrowed).collect();
    if let ["workflow", "labels" | "annotations", ..] =
        segments.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..]
    {
        let key = segments.split_off(2).join(".");
        segments.push(Cow::Owned(key));
    }
    let Some(last) = segments.pop() else { return };
    let mut place = root;
    for segment in segments {
        let entry = place.entry(segment.into_owned()).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        let Value::Object(inner) = entry else { return };
        place = inner;
    }
    if !place.get(last.as_ref()).is_some_and(Value::is_object) {
        place.insert(last.into_owned(), Value::String(value.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tags_are_replaced_inside_texts() {
        let mut outer = Scope::default();
        outer.set("workflow.name", "wf");
        outer.set("workflow.labels.a.b/c", "label");
        outer.set("inputs.parameters.n", "outer");
        let mut scope = Scope::inside(&Arc::new(outer));
        scope.set("inputs.parameters.n", "3");
        scope.set("inputs.parameters.quote", "\"}]");
        scope.set("inputs.parameters.which", "n");
        scope.set("inputs.parameters.braces", "{{item.os}}");
        scope.set("steps.a-b.outputs.result", "{\"x\": 1}");
        scope.set_item(&json!({"os": "debian", "n": 2}));
        let cases = [
            ("plain", Ok("plain")),
            ("{{workflow.name}}-{{ inputs.parameters.n }}", Ok("wf-3")),
            ("{{item.os}}{{item.n}}", Ok("debian2")),
            ("{{item}}", Ok("{\"n\":2,\"os\":\"debian\"}")),
            ("{{inputs.parameters.{{inputs.parameters.which}}}}{{item.os}}", Ok("3debian")),
            ("{{ inputs.parameters.{{='n'}} }}{{item.n}}", Ok("32")),
            ("{{inputs.parameters.{{item.os}}}}", Err(())),
            ("{{inputs.parameters.{{inputs.parameters.braces}}}}", Err(())),
            ("{{a {{item.os}}", Err(())),
            ("{{= asInt(inputs.parameters.n) + item.n }}", Ok("5")),
            ("{{=workflow.labels['a.b/c']}}", Ok("label")),
            ("{{=jsonpath(steps['a-b'].outputs.result, '$.x')}}!", Ok("1!")),
            ("{{={'a': {'b': 'c'}}.a.b}}", Ok("c")),
            ("{{='}}'}}", Ok("}}")),
            ("{{unclosed", Ok("{{unclosed")),
            ("{{nobody}}", Err(())),
            ("{{=nobody}}", Err(())),
            ("{{=inputs.parameters.nobody}}", Err(())),
        ];
        for (text, expected) in cases {
            assert_eq!(scope.text(text).map_err(|_| ()), expected.map(str::to_owned), "{text}");
        }
        let value = json!({"a": ["{{inputs.parameters.quote}}", 1]});
        assert_eq!(scope.value(&value), Ok(json!({"a": ["\"}]", 1]})));
    }

    #[test]
    fn hostile_texts_end() {
        for text in ["{{".repeat(100_000), "{{".repeat(100_000) + "}}", "{{".repeat(50) + &"}}".repeat(50)] {
            let found = Scope::default().text(&text);
            assert!(found.is_err() || found == Ok(text));
        }
    }

    #[test]
    fn a_literal_has_no_tags() {
        for text in
            ["plain", "{{name}}", "{{=1+1}}", "{{{{", "{{{a}}}", "[\"{{a}}\", '{{=\"x\"}}']", "}}{{", "{ {"]
        {
            assert_eq!(Scope::default().text(&literal(text)).as_deref(), Ok(text));
        }
    }
}
