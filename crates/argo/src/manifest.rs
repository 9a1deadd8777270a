//! Files of Argo's YAML: read, with the place of everything for those who find something wrong.

use crate::definition::{DefinitionError, Objects};
use crate::lint;
use dhow_resources::documents;
use dhow_resources::error::{ResourceError, ResourceErrors};
use dhow_resources::tree::{Node, Position, Value as Tree};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The documents of some files.
pub struct Manifest {
    /// Each with the file that it stands in.
    pub(crate) documents: Vec<(PathBuf, Node)>,
    /// The files without any.
    empty: Vec<PathBuf>,
}

/// Why files are no workflow that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Something in them is wrong.
    #[error(transparent)]
    Findings(#[from] ResourceErrors),
    /// They do not belong together.
    #[error("{file}: {error}")]
    Definition {
        /// The first file.
        file: String,
        /// Why.
        #[source]
        error: DefinitionError,
    },
}

// === impl Manifest ===

impl Manifest {
    /// Reads files.
    pub fn read(files: &[PathBuf]) -> Result<Manifest, ResourceErrors> {
        let (mut all, mut empty) = (Vec::new(), Vec::new());
        let mut errors = Vec::new();
        for file in files {
            match documents::read(file) {
                Ok(found) if found.is_empty() => empty.push(file.clone()),
                Ok(found) => all.extend(found.into_iter().map(|node| (file.clone(), node))),
                Err(error) => errors.push(error),
            }
        }
        ResourceErrors::check(errors)?;
        Ok(Manifest { documents: all, empty })
    }

    /// Reads a text, which findings call `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Manifest, ResourceErrors> {
        let found = documents::parse(text, file)?;
        let empty = if found.is_empty() { vec![file.to_owned()] } else { Vec::new() };
        Ok(Manifest { documents: found.into_iter().map(|node| (file.to_owned(), node)).collect(), empty })
    }

    /// Everything that is wrong with it, for that purpose; in the order of the files.
    pub fn check(&self, purpose: lint::Purpose) -> Result<(), ResourceErrors> {
        ResourceErrors::check(self.findings(purpose))
    }

    /// What works for that purpose, and may surprise; of what [`check`](Manifest::check) finds nothing wrong with.
    pub fn warnings(&self, purpose: lint::Purpose) -> Vec<ResourceError> {
        lint::warnings(&self.documents, purpose)
    }

    fn findings(&self, purpose: lint::Purpose) -> Vec<ResourceError> {
        let nothing = |file: &PathBuf| ResourceError {
            file: file.clone(),
            line: 0,
            column: 0,
            field: String::new(),
            message: "there is nothing in it".to_owned(),
            hint: "expected a Workflow, or another object with templates".to_owned(),
        };
        self.empty.iter().map(nothing).chain(lint::check(&self.documents, purpose)).collect()
    }

    /// The objects as JSON.
    pub fn values(&self) -> Vec<Value> {
        self.documents.iter().map(|(_, node)| json(node)).collect()
    }

    /// Checks it, and puts together what is to be run here.
    pub fn objects(&self) -> Result<Objects, ManifestError> {
        self.check(lint::Purpose::Run)?;
        Objects::new(self.values()).map_err(|error| {
            let file = self.documents.first().map(|(file, _)| file.display().to_string()).unwrap_or_default();
            ManifestError::Definition { file, error }
        })
    }
}

/// A tree as JSON. Fields with nothing behind them are left out, as they mean nothing.
pub(crate) fn json(node: &Node) -> Value {
    match &node.value {
        Tree::Null => Value::Null,
        Tree::Bool(flag) => Value::Bool(*flag),
        Tree::Integer(text) | Tree::Float(text) => documents::number(text),
        Tree::Date(text) | Tree::Text(text) => Value::String(text.clone()),
        Tree::List(nodes) => Value::Array(nodes.iter().map(json).collect()),
        Tree::Map(entries) => {
            let known = entries.iter().filter(|entry| !matches!(entry.node.value, Tree::Null));
            Value::Object(known.map(|entry| (entry.key.clone(), json(&entry.node))).collect::<Map<_, _>>())
        }
    }
}

/// Where the value of a dotted path stands, such as `spec.templates[2].dag.tasks[0].depends`; of what is not there, the
/// place of what would hold it.
pub(crate) fn locate(root: &Node, path: &str) -> Position {
    let mut place = root;
    let mut at = root.at;
    for segment in path.split('.') {
        let (name, indexes) = segment.split_once('[').map_or((segment, ""), |(name, rest)| (name, rest));
        if !name.is_empty() {
            let Tree::Map(entries) = &place.value else { return at };
            let Some(entry) = entries.iter().find(|entry| entry.key == name) else { return at };
            at = entry.at;
            place = &entry.node;
        }
        for index in indexes.split(['[', ']']).filter(|index| !index.is_empty()) {
            let Tree::List(nodes) = &place.value else { return at };
            let Some(node) = index.parse::<usize>().ok().and_then(|index| nodes.get(index)) else {
                return at;
            };
            at = node.at;
            place = node;
        }
    }
    at
}
