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
    /// The key that goes, and where its value begins.
    at: Position,
    key: String,
    value: Position,
    /// The template is `{…}`: line ends and indentation mean nothing there.
    is_in_braces: bool,
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
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for document in documents::parse(text, file)? {
        for template in templates(&document) {
            match edit(template, &lines, file, images) {
                Ok(edit) => edits.extend(edit),
                Err(error) => errors.push(*error),
            }
        }
    }
    ResourceErrors::check(errors)?;
    // From the end on, so that what comes before keeps its place.
    edits.sort_by_key(|edit| std::cmp::Reverse((edit.at.line, edit.at.column)));
    let count = edits.len();
    for edit in edits {
        name_module(&mut lines, &edit);
        match edit.is_in_braces {
            true => wrap(&mut lines, &edit),
            false => indent(&mut lines, &edit),
        }
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
    let mut found = Vec::new();
    for template in
        spec.and_then(|spec| field(spec, "templates")).into_iter().flat_map(|entry| list(&entry.node))
    {
        found.push(template);
        let steps = field(template, "steps").into_iter().flat_map(|entry| list(&entry.node));
        // Steps are lists of lists, and each may be without its own.
        let steps = steps
            .flat_map(|step| if list(step).is_empty() { std::slice::from_ref(step) } else { list(step) });
        let dag = field(template, "dag").and_then(|dag| field(&dag.node, "tasks"));
        let tasks = dag.into_iter().flat_map(|entry| list(&entry.node));
        found.extend(steps.chain(tasks).filter_map(|step| Some(&field(step, "inline")?.node)));
    }
    found
}

fn list(node: &Node) -> &[Node] {
    match &node.value {
        Tree::List(nodes) => nodes,
        _ => &[],
    }
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Entry> {
    let Tree::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == name)
}

fn edit(
    template: &Node,
    lines: &[String],
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
    let begin = lines.get(template.at.line.saturating_sub(1));
    let begin = begin.map_or("", |line| parted(line, template.at.column.saturating_sub(1)).1);
    // An anchor may stand before it.
    let begin =
        if begin.starts_with('&') { begin.split_once(' ').map_or("", |(_, rest)| rest) } else { begin };
    let begin = begin.trim_start().chars().next();
    let is_in_braces = match begin {
        // What stands there was written, and is converted, elsewhere.
        Some('*') => return Ok(None),
        begin => begin == Some('{'),
    };
    let change = |entry: &Entry, image| Edit {
        at: entry.at,
        key: entry.key.clone(),
        value: entry.node.at,
        is_in_braces,
        image,
    };
    if let Some(entry) = field(template, "wasm") {
        Options::read(&crate::manifest::json(&entry.node)).map_err(|wrong| {
            let at = locate(&entry.node, &wrong.field);
            error(at, format!("wasm.{}: {}", wrong.field, wrong.message), &wrong.hint)
        })?;
        return Ok(Some(change(entry, None)));
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
        return Ok(Some(change(entry, Some(place))));
    }
    Ok(None)
}

/// The image becomes the module.
fn name_module(lines: &mut [String], edit: &Edit) {
    let Some((at, old, new)) = &edit.image else { return };
    let Some(line) = lines.get_mut(at.line.saturating_sub(1)) else { return };
    let (begin, rest) = parted(line, at.column.saturating_sub(1));
    *line = format!("{begin}{}", rest.replacen(old.as_str(), new, 1));
}

/// A line before and after so many characters.
fn parted(line: &str, count: usize) -> (&str, &str) {
    line.split_at(line.char_indices().nth(count).map_or(line.len(), |(byte, _)| byte))
}

/// `{wasm: VALUE}` becomes `{plugin: {wasm: VALUE}}`.
fn wrap(lines: &mut [String], edit: &Edit) {
    let Some((line, column)) = end_of_flow(lines, edit.value) else { return };
    if let Some(line) = lines.get_mut(line) {
        let (begin, rest) = parted(line, column);
        *line = format!("{begin}}}{rest}");
    }
    if let Some(line) = lines.get_mut(edit.at.line.saturating_sub(1)) {
        let (begin, rest) = parted(line, edit.at.column.saturating_sub(1));
        let (_, rest) = parted(rest, edit.key.chars().count());
        *line = format!("{begin}plugin: {{wasm{rest}");
    }
}

/// Where a value inside braces ends: line and character, from 0.
fn end_of_flow(lines: &[String], value: Position) -> Option<(usize, usize)> {
    let (mut depth, mut quote, mut end) = (0usize, None, None);
    let first = value.line.saturating_sub(1);
    for (number, line) in lines.iter().enumerate().skip(first) {
        let skipped = if number == first { value.column.saturating_sub(1) } else { 0 };
        let (mut before, mut is_escaped) = (' ', false);
        for (column, c) in line.chars().enumerate().skip(skipped) {
            match (quote, c) {
                (Some(_), _) if is_escaped => is_escaped = false,
                (Some('"'), '\\') => is_escaped = true,
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '#') if before.is_whitespace() => break,
                // Inside a plain word they are letters.
                (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
                (None, '{' | '[') => depth += 1,
                (None, ',' | '}' | ']') if depth == 0 => return end,
                (None, '}' | ']') => depth -= 1,
                (None, _) => {}
            }
            if !c.is_whitespace() {
                end = Some((number, column + 1));
            }
            before = c;
        }
    }
    None
}

/// What is on lines of its own goes one level deeper.
fn indent(lines: &mut Vec<String>, edit: &Edit) {
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
    fn templates_in_braces_and_in_steps_are_rewritten() {
        let images = BTreeMap::from([("sh".to_owned(), "sh.wasm".to_owned())]);
        for (template, expected, count) in [
            ("{name: a, wasm: {image: z}}", "{name: a, plugin: {wasm: {image: z}}}", 1),
            (
                r#"{wasm: {image: z, args: ["}\"", '}''', it's]} , name: a}"#,
                r#"{plugin: {wasm: {image: z, args: ["}\"", '}''', it's]}} , name: a}"#,
                1,
            ),
            (
                "{name: sh, container: {image: sh, # }\n     args: [x]}, inputs: {}}",
                "{name: sh, plugin: {wasm: {image: sh.wasm, # }\n     args: [x]}}, inputs: {}}",
                1,
            ),
            (
                "name: a\n    steps:\n    - - name: b\n        inline:\n          wasm: &w {image: z}\n      - {name: c, inline: {wasm: *w}}",
                "name: a\n    steps:\n    - - name: b\n        inline:\n          plugin:\n            wasm: &w {image: z}\n      - {name: c, inline: {plugin: {wasm: *w}}}",
                2,
            ),
            (
                "name: a\n    dag: {tasks: [{name: b, inline: &t {wasm: {image: z}}}, {name: c, inline: *t}]}",
                "name: a\n    dag: {tasks: [{name: b, inline: &t {plugin: {wasm: {image: z}}}}, {name: c, inline: *t}]}",
                1,
            ),
        ] {
            let whole = |template: &str| format!("kind: Workflow\nspec:\n  templates:\n  - {template}\n");
            let (converted, is) = convert(&whole(template), Path::new("w.yaml"), &images).unwrap();
            assert_eq!((converted.as_str(), is), (whole(expected).as_str(), count));
            assert_eq!(convert(&converted, Path::new("w.yaml"), &images).unwrap().1, 0);
        }
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
