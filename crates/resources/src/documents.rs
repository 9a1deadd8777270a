//! YAML whose fields another crate knows: read into the tree, positions and bounds as everywhere.

use crate::error::ResourceError;
use crate::tree::{Node, Value};
use crate::{text_file, yaml_tree};
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
