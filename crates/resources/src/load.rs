//! Folders of Dapr resources: which files, which documents, which kinds.
//!
//! As Dapr does it: the files `*.yaml` and `*.yml` of the folder itself, several documents a file, unknown
//! kinds passed over. Unlike Dapr, what is passed over is reported, and a wrong field is an error.

use crate::component::Component;
use crate::error::{ResourceError, ResourceErrors, nearest, quote};
use crate::text_file::{check_size, read_text};
use crate::tree::{Entry, Findings, Node, Value};
use crate::yaml_tree;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Kinds of Dapr that are kept for a later reader.
const LATER: &[&str] =
    &["Configuration", "HTTPEndpoint", "MCPServer", "Resiliency", "Subscription", "WorkflowAccessPolicy"];

/// What the folders hold.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Components, in the order of files and documents. Their names differ.
    pub components: Vec<Component>,
    /// Other kinds of Dapr, which are known and not read yet.
    pub later: Vec<LaterResource>,
    /// Documents that are not for Dapr.
    pub ignored: Vec<IgnoredDocument>,
}

/// A document of a Dapr kind that is not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaterResource {
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The line of the document's first field.
    pub line: usize,
}

/// A document that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredDocument {
    /// `kind`, empty when there is none.
    pub kind: String,
    /// The kind that was perhaps meant.
    pub nearest: Option<&'static str>,
    /// The file.
    pub file: PathBuf,
    /// The line of the document's first field.
    pub line: usize,
}

/// Reads one folder.
pub fn load_dir(dir: &Path) -> Result<Resources, ResourceErrors> {
    load_dirs(&[dir])
}

/// Reads several folders as if they were one: component names differ across all of them.
pub fn load_dirs<P: AsRef<Path>>(dirs: &[P]) -> Result<Resources, ResourceErrors> {
    let mut resources = Resources::default();
    let mut errors = Vec::new();
    for dir in dirs {
        match files_of(dir.as_ref()) {
            Err(error) => errors.push(error),
            Ok(files) => {
                for file in files {
                    match read_text(&file).map_err(ResourceErrors::from).and_then(|text| parse(&text, &file))
                    {
                        Ok(found) => resources.add(found),
                        Err(found) => errors.extend(found.into_vec()),
                    }
                }
            }
        }
    }
    errors.extend(double_names(&resources.components));
    ResourceErrors::check(errors)?;
    Ok(resources)
}

/// Reads the documents of one text; `file` stands in the errors. Names of components are not compared here.
pub fn parse(text: &str, file: &Path) -> Result<Resources, ResourceErrors> {
    check_size(text.len(), file)?;
    let mut resources = Resources::default();
    let mut findings = Findings::new(file);
    for document in yaml_tree::parse(text, file)? {
        resources.read(&mut findings, &document, file);
    }
    ResourceErrors::check(findings.into_vec())?;
    Ok(resources)
}

// === impl Resources ===

impl Resources {
    fn add(&mut self, other: Resources) {
        self.components.extend(other.components);
        self.later.extend(other.later);
        self.ignored.extend(other.ignored);
    }

    fn read(&mut self, findings: &mut Findings, document: &Node, file: &Path) {
        let entries = match &document.value {
            // An empty document: three dashes at the end of a file make one.
            Value::Null => return,
            Value::Map(entries) => entries,
            _ => {
                findings.wrong_type(document, "", "a resource (a map with apiVersion, kind, metadata, spec)");
                return;
            }
        };
        let (file, line) = (file.to_owned(), document.at.line);
        let scalar = |name: &str| field(entries, name).and_then(Node::scalar).unwrap_or_default();
        let is_dapr = scalar("apiVersion").starts_with("dapr.io/");
        match scalar("kind").as_str() {
            "Component" => self.components.extend(Component::read(findings, document, &file)),
            "" if is_dapr => {
                let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
                let (at, message) =
                    match nearest("kind", &keys).and_then(|key| entries.iter().find(|e| e.key == key)) {
                        Some(entry) => {
                            (entry.at, format!("unknown field {}; did you mean `kind`?", quote(&entry.key)))
                        }
                        None => (document.at, "`kind` is missing".to_owned()),
                    };
                findings.add(at, "", message, "expected kind: Component or another kind of Dapr");
            }
            kind if LATER.contains(&kind) && is_dapr => {
                let object = field(entries, "metadata").and_then(|node| match &node.value {
                    Value::Map(entries) => field(entries, "name").and_then(Node::scalar),
                    _ => None,
                });
                let name = object.unwrap_or_default();
                self.later.push(LaterResource { kind: kind.to_owned(), name, file, line });
            }
            kind => {
                let known: Vec<&'static str> = LATER.iter().copied().chain(["Component"]).collect();
                let nearest = if is_dapr { nearest(kind, &known) } else { None };
                self.ignored.push(IgnoredDocument { kind: kind.to_owned(), nearest, file, line });
            }
        }
    }
}

fn field<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Node> {
    entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node)
}

/// Components of one name: the error stands at the later one and names the earlier.
fn double_names(components: &[Component]) -> Vec<ResourceError> {
    let mut first: HashMap<&str, &Component> = HashMap::new();
    let mut errors = Vec::new();
    for component in components {
        match first.get(component.name.as_str()) {
            None => {
                first.insert(&component.name, component);
            }
            Some(other) => errors.push(ResourceError {
                file: component.file.clone(),
                line: component.line,
                column: 1,
                field: "metadata.name".to_owned(),
                message: format!(
                    "a component named {} is already in {}:{}",
                    quote(&component.name),
                    other.file.display(),
                    other.line
                ),
                hint: "expected every component to have its own name: rename or remove one".to_owned(),
            }),
        }
    }
    errors
}

/// The YAML files of a folder by name, so that every run reads them in the same order.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, ResourceError> {
    let unreadable = |error: std::io::Error| {
        ResourceError::whole_file(
            dir,
            format!("the folder cannot be read: {error}"),
            "expected a folder with YAML files",
        )
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_yaml =
            path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
        if is_yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
