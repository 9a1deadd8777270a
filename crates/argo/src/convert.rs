//! `wasm:` templates into what a stock Argo accepts: `plugin: {wasm: …}`.
//!
//! The text is edited, not written anew: comments and layout stay as they are.

use crate::lint::KINDS;
use crate::manifest::locate;
use crate::step::options::Options;
use dhow_resources::documents;
use dhow_resources::error::{ResourceError, ResourceErrors};
use dhow_resources::tree::{Entry, Node, Position, Value as Tree};
use std::collections::BTreeMap;
use std::path::Path;

/// Fields of containers that mean the same for modules.
const CONTAINER_FIELDS: [&str; 8] =
    ["image", "command", "args", "env", "source", "resources", "imagePullPolicy", "name"];

/// A change of the text.
struct Edit {
    /// The key that goes.
    at: Position,
    key: String,
    /// Where the image is named, and what it becomes.
    image: Option<(Position, String, String)>,
}

/// Converts a text. Containers become modules if their image is in `images`. The second answer is how many templates
/// were changed.
pub fn convert(
    text: &str,
    file: &Path,
    images: &BTreeMap<String, String>,
) -> Result<(String, usize), ResourceErrors> {
    let mut edits = Vec::new();
    let mut errors = Vec::new();
    for document in documents::parse(text, file)? {
        for template in templates(&document) {
            match edit(template, file, images) {
                Ok(edit) => edits.extend(edit),
                Err(error) => errors.push(*error),
            }
        }
    }
    ResourceErrors::check(errors)?;
    let count = edits.len();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // From the end on, so that what comes before keeps its place.
    edits.sort_by_key(|edit| std::cmp::Reverse((edit.at.line, edit.at.column)));
    for edit in edits {
        apply(&mut lines, &edit);
    }
    let mut whole = lines.join("\n");
    if text.ends_with('\n') {
        whole.push('\n');
    }
    Ok((whole, count))
}

fn templates(root: &Node) -> Vec<&Node> {
    let kind = field(root, "kind").and_then(|entry| entry.node.scalar()).unwrap_or_default();
    let Some((_, place)) = KINDS.iter().find(|(known, _)| *known == kind) else { return Vec::new() };
    let spec = place.split('.').try_fold(root, |node, name| field(node, name).map(|entry| &entry.node));
    let Some(templates) = spec.and_then(|spec| field(spec, "templates")) else { return Vec::new() };
    match &templates.node.value {
        Tree::List(nodes) => nodes.iter().collect(),
        _ => Vec::new(),
    }
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Entry> {
    let Tree::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == name)
}

fn edit(
    template: &Node,
    file: &Path,
    images: &BTreeMap<String, String>,
) -> Result<Option<Edit>, Box<ResourceError>> {
    let error = |at: Position, message: String, hint: &str| {
        Box::new(ResourceError {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            field: String::new(),
            message,
            hint: hint.to_owned(),
        })
    };
    if let Some(entry) = field(template, "wasm") {
        Options::read(&crate::manifest::json(&entry.node)).map_err(|wrong| {
            let at = locate(&entry.node, &wrong.field);
            error(at, format!("wasm.{}: {}", wrong.field, wrong.message), &wrong.hint)
        })?;
        if entry.at.line == template.at.line && entry.at.column != template.at.column {
            let hint = "write `wasm:` on a line of its own";
            return Err(error(entry.at, "a template in braces cannot be converted".to_owned(), hint));
        }
        return Ok(Some(Edit { at: entry.at, key: entry.key.clone(), image: None }));
    }
    for kind in ["container", "script"] {
        let Some(entry) = field(template, kind) else { continue };
        let Some(image) = field(&entry.node, "image") else { continue };
        let name = image.node.scalar().unwrap_or_default();
        let Some(module) = images.get(&name) else { continue };
        let Tree::Map(fields) = &entry.node.value else { continue };
        if let Some(other) = fields.iter().find(|other| !CONTAINER_FIELDS.contains(&other.key.as_str())) {
            let message = format!("{kind}.{}: a module has no such thing", other.key);
            return Err(error(
                other.at,
                message,
                "leave it out, or keep the container: without --image for it",
            ));
        }
        let place = (image.node.at, name, module.clone());
        return Ok(Some(Edit { at: entry.at, key: entry.key.clone(), image: Some(place) }));
    }
    Ok(None)
}

fn apply(lines: &mut Vec<String>, edit: &Edit) {
    if let Some((at, old, new)) = &edit.image
        && let Some(line) = lines.get_mut(at.line.saturating_sub(1))
    {
        *line = line.replacen(old.as_str(), new, 1);
    }
    let first = edit.at.line.saturating_sub(1);
    let column = edit.at.column.saturating_sub(1);
    let Some(line) = lines.get(first).cloned() else { return };
    let begin: String = line.chars().take(column).collect();
    let rest: String = line.chars().skip(column + edit.key.chars().count()).collect();
    let indent = " ".repeat(column);
    // What belongs to it is indented further, but for blank lines.
    for line in lines.iter_mut().skip(first + 1) {
        let depth = line.chars().take_while(|c| *c == ' ').count();
        if line.trim().is_empty() {
            continue;
        }
        if depth <= column {
            break;
        }
        line.insert_str(0, "  ");
    }
    if let Some(line) = lines.get_mut(first) {
        *line = format!("{begin}plugin:");
    }
    lines.insert(first + 1, format!("{indent}  wasm{rest}"));
}

#[cfg(test)]
mod tests {
    use super::convert;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn templates_are_rewritten_and_all_else_stays() {
        let text = "\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: x-} # a name
spec:
  entrypoint: a
  templates:
  - name: a
    wasm:
      image: ghcr.io/x/y:1 # the module

      args: [a, b]
    inputs: {}
  - wasm: {image: z.wasm}
    name: b
  - name: c
    container:
      image: debian:12
      command: [sh]
  - name: d
    container: {image: alpine}
";
        let expected = "\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: x-} # a name
spec:
  entrypoint: a
  templates:
  - name: a
    plugin:
      wasm:
        image: ghcr.io/x/y:1 # the module

        args: [a, b]
    inputs: {}
  - plugin:
      wasm: {image: z.wasm}
    name: b
  - name: c
    plugin:
      wasm:
        image: sh.wasm
        command: [sh]
  - name: d
    container: {image: alpine}
";
        let images = BTreeMap::from([("debian:12".to_owned(), "sh.wasm".to_owned())]);
        let (converted, count) = convert(text, Path::new("w.yaml"), &images).unwrap();
        assert_eq!(converted, expected);
        assert_eq!(count, 3);
        // Converting twice changes nothing more.
        assert_eq!(convert(&converted, Path::new("w.yaml"), &images).unwrap(), (converted, 0));
    }

    #[test]
    fn what_a_module_has_not_is_an_error() {
        let text =
            "kind: Workflow\nspec:\n  templates:\n  - container:\n      image: i\n      volumeMounts: []\n";
        let images = BTreeMap::from([("i".to_owned(), "i.wasm".to_owned())]);
        let error = convert(text, Path::new("w.yaml"), &images).unwrap_err().to_string();
        assert!(error.starts_with("w.yaml:6:7: container.volumeMounts"), "{error}");
    }
}
