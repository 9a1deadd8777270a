//! Folders of Dapr resources: which files, which documents, which kinds.
//!
//! As Dapr does it: the files `*.yaml` and `*.yml` of the folder itself, several documents a file, unknown
//! kinds passed over. Unlike Dapr, what is passed over is reported, and a wrong field is an error.

use crate::component::Component;
use crate::configuration::Configuration;
use crate::error::{ResourceError, ResourceErrors, nearest, quote};
use crate::http_endpoint::HttpEndpoint;
use crate::resiliency::{Resiliency, unknown_policies};
use crate::subscription::Subscription;
use crate::text_file::{check_size, read_text};
use crate::tree::{Entry, Findings, Node, Value};
use crate::yaml_tree;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Kinds of Dapr that are kept for a later reader.
const LATER: &[&str] = &["MCPServer", "WorkflowAccessPolicy"];

/// Kinds of Dapr that are read.
const READ: &[&str] = &["Component", "Configuration", "HTTPEndpoint", "Resiliency", "Subscription"];

/// What the folders hold.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Components, in the order of files and documents. Their names differ.
    pub components: Vec<Component>,
    /// Subscriptions. Their names differ.
    pub subscriptions: Vec<Subscription>,
    /// Configurations. Their names differ.
    pub configurations: Vec<Configuration>,
    /// HTTP endpoints. Their names differ.
    pub http_endpoints: Vec<HttpEndpoint>,
    /// Resiliency resources. Their names differ, and the policies that they name are there.
    pub resiliencies: Vec<Resiliency>,
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

/// A field that Dapr knows and dhow has no use for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedField {
    /// Its path, e.g. `spec.mtls`.
    pub name: String,
    /// Its line.
    pub line: usize,
}

impl std::fmt::Display for UnusedField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {} is read and has no effect", self.line, self.name)
    }
}

/// Reads one folder.
pub fn load_dir(dir: &Path) -> Result<Resources, ResourceErrors> {
    load_dirs(&[dir])
}

/// Reads several folders as if they were one: names differ across all of them.
pub fn load_dirs<P: AsRef<Path>>(dirs: &[P]) -> Result<Resources, ResourceErrors> {
    let mut resources = Resources::default();
    let mut errors = Vec::new();
    for dir in dirs {
        match files_of(dir.as_ref()) {
            Err(error) => errors.push(error),
            Ok(files) => {
                for file in files {
                    let text = read_text(&file).map_err(ResourceErrors::from);
                    match text.and_then(|text| documents(&text, &file)) {
                        Ok(found) => resources.add(found),
                        Err(found) => errors.extend(found.into_vec()),
                    }
                }
            }
        }
    }
    // What a file that cannot be read would have held is not missed.
    if errors.is_empty() {
        errors.extend(unknown_policies(&resources.resiliencies));
    }
    errors.extend(resources.double_names());
    ResourceErrors::check(errors)?;
    Ok(resources)
}

/// Reads one text as if it were alone in a folder; `file` stands in the errors.
pub fn parse(text: &str, file: &Path) -> Result<Resources, ResourceErrors> {
    let resources = documents(text, file)?;
    let mut errors = unknown_policies(&resources.resiliencies);
    errors.extend(resources.double_names());
    ResourceErrors::check(errors)?;
    Ok(resources)
}

/// Reads the documents of a text, without a look from one to another.
fn documents(text: &str, file: &Path) -> Result<Resources, ResourceErrors> {
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
        self.subscriptions.extend(other.subscriptions);
        self.configurations.extend(other.configurations);
        self.http_endpoints.extend(other.http_endpoints);
        self.resiliencies.extend(other.resiliencies);
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
        let line = document.at.line;
        let scalar = |name: &str| field(entries, name).and_then(Node::scalar).unwrap_or_default();
        let is_dapr = scalar("apiVersion").starts_with("dapr.io/");
        // The words for the other kinds are everybody's: an apiVersion that is not Dapr's makes them foreign.
        let may_be_dapr = is_dapr || field(entries, "apiVersion").is_none();
        let kind = scalar("kind");
        match kind.as_str() {
            "Component" => self.components.extend(Component::read(findings, document, file)),
            "Configuration" if may_be_dapr => {
                self.configurations.extend(Configuration::read(findings, document, file));
            }
            "HTTPEndpoint" if may_be_dapr => {
                self.http_endpoints.extend(HttpEndpoint::read(findings, document, file));
            }
            "Resiliency" if may_be_dapr => {
                self.resiliencies.extend(Resiliency::read(findings, document, file));
            }
            "Subscription" if may_be_dapr => {
                self.subscriptions.extend(Subscription::read(findings, document, file));
            }
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
                self.later.push(LaterResource { kind: kind.to_owned(), name, file: file.to_owned(), line });
            }
            kind => {
                let known: Vec<&'static str> = READ.iter().chain(LATER).copied().collect();
                let nearest = if is_dapr { nearest(kind, &known) } else { None };
                let file = file.to_owned();
                self.ignored.push(IgnoredDocument { kind: kind.to_owned(), nearest, file, line });
            }
        }
    }

    fn double_names(&self) -> Vec<ResourceError> {
        let components = self.components.iter().map(|c| (c.name.as_str(), c.file.as_path(), c.line));
        let subscriptions = self.subscriptions.iter().map(|s| (s.name.as_str(), s.file.as_path(), s.line));
        let configurations =
            self.configurations.iter().filter_map(|c| Some((c.name.as_deref()?, c.file.as_path(), c.line)));
        let endpoints = self.http_endpoints.iter().map(|e| (e.name.as_str(), e.file.as_path(), e.line));
        let resiliencies = self.resiliencies.iter().map(|r| (r.name.as_str(), r.file.as_path(), r.line));
        [
            double_names("component", "a", components),
            double_names("subscription", "a", subscriptions),
            double_names("configuration", "a", configurations),
            double_names("HTTP endpoint", "an", endpoints),
            double_names("resiliency resource", "a", resiliencies),
        ]
        .concat()
    }
}

fn field<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Node> {
    entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node)
}

/// Resources of one kind and name: the error stands at the later one and names the earlier.
fn double_names<'a>(
    kind: &str,
    article: &str,
    resources: impl Iterator<Item = (&'a str, &'a Path, usize)>,
) -> Vec<ResourceError> {
    let mut first: HashMap<&str, (&Path, usize)> = HashMap::new();
    let mut errors = Vec::new();
    for (name, file, line) in resources {
        match first.get(name) {
            None => {
                first.insert(name, (file, line));
            }
            Some((other, other_line)) => errors.push(ResourceError {
                file: file.to_owned(),
                line,
                column: 1,
                field: "metadata.name".to_owned(),
                message: format!(
                    "{article} {kind} named {} is already in {}:{other_line}",
                    quote(name),
                    other.display(),
                ),
                hint: format!("expected every {kind} to have its own name: rename or remove one"),
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
