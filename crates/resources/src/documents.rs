//! YAML whose fields another crate knows: read into the tree, positions and bounds as everywhere.

use crate::error::ResourceError;
use crate::tree::{Node, Value};
use crate::{text_file, yaml_tree};
use serde_json::{Number, Value as Json};
use std::path::Path;

/// The documents of a file; empty ones are left out.
pub fn read(file: &Path) -> Result<Vec<Node>, ResourceError> {
    parse(&text_file::read_text(file)?, file)
}

/// The documents of a text; `file` is what findings call it. JSON is YAML, too.
pub fn parse(text: &str, file: &Path) -> Result<Vec<Node>, ResourceError> {
    text_file::check_size(text.len(), file)?;
    let documents = yaml_tree::parse(text, file)?;
    Ok(documents.into_iter().filter(|node| !matches!(node.value, Value::Null)).collect())
}

/// The one document of a text as JSON, as programs that read YAML by way of JSON have it (Kubernetes, OPA); nothing is
/// null.
pub fn parse_json(text: &str, file: &Path) -> Result<Json, ResourceError> {
    text_file::check_size(text.len(), file)?;
    Ok(yaml_tree::parse_one(text, file)?.as_ref().map_or(Json::Null, json))
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Integer(text) | Value::Float(text) => number(text),
        Value::Date(text) | Value::Text(text) => Json::String(text.clone()),
        Value::List(nodes) => Json::Array(nodes.iter().map(json).collect()),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect())
        }
    }
}

/// The canonical text of a number in a tree as a number of JSON.
pub fn number(text: &str) -> Json {
    let integer = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
    let number = integer.ok().or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    number.map_or_else(|| Json::String(text.to_owned()), Json::Number)
}
