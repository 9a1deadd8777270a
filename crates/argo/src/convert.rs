//! `wasm:` templates into what a stock Argo accepts: `plugin: {wasm: …}`.
//!
//! The text is edited, not written anew: comments and layout stay as they are. What comes out is read again and
//! compared with what it has to mean, so that a layout nobody thought of is an error and never a broken file.

use crate::lint::KINDS;
use crate::manifest::{json, locate};
use crate::step::options::Options;
use dhow_resources::documents;
use dhow_resources::error::{ResourceError, ResourceErrors, quote};
use dhow_resources::tree::{Entry, Node, Position, Value as Tree};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Fields of containers that mean the same for modules.
const CONTAINER_FIELDS: [&str; 8] =
    ["image", "command", "args", "env", "source", "resources", "imagePullPolicy", "name"];

/// A change of the text: at a byte some bytes go, and others come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Splice {
    at: usize,
    goes: usize,
    comes: String,
}

/// A text that is being converted.
struct Converter<'a> {
    text: &'a str,
    /// The byte that each line begins with.
    lines: Vec<usize>,
    file: &'a Path,
    images: &'a BTreeMap<String, String>,
    /// A set: what several templates share by an alias is changed once.
    splices: BTreeSet<Splice>,
    errors: Vec<ResourceError>,
    /// Where the templates are that were changed.
    changed: Vec<Position>,
}

/// The field of a template that becomes a plugin's.
struct Found<'a> {
    entry: &'a Entry,
    /// Of a container: where its image is named, and what it becomes.
    image: Option<(Position, String, String)>,
}

/// Converts a text. Containers become modules if their image is in `images`. The second answer is how many templates
/// were changed.
pub fn convert(
    text: &str,
    file: &Path,
    images: &BTreeMap<String, String>,
) -> Result<(String, usize), ResourceErrors> {
    let documents = documents::parse(text, file)?;
    let begin = text.len() - text.trim_start_matches('\u{feff}').len();
    let lines = std::iter::once(begin).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let (splices, errors, changed) = Default::default();
    let mut converter = Converter { text, lines, file, images, splices, errors, changed };
    // What the result has to mean.
    let mut meant = Vec::new();
    for document in &documents {
        let mut value = json(document);
        converter.object(document, &mut value);
        meant.push(value);
    }
    let Converter { splices, mut errors, changed, .. } = converter;
    let Some(first) = changed.first().filter(|_| errors.is_empty()) else {
        ResourceErrors::check(errors)?;
        return Ok((text.to_owned(), 0));
    };
    let mut whole = text.to_owned();
    // From the end on, so that what comes before keeps its place.
    for splice in splices.iter().rev() {
        whole.replace_range(splice.at..splice.at + splice.goes, &splice.comes);
    }
    let read = documents::parse(&whole, file).map(|read| read.iter().map(json).collect::<Vec<_>>());
    if read.as_ref() != Ok(&meant) {
        let hint =
            "write its `wasm:` on a line of its own, with its fields indented below, and without anchors";
        errors.push(finding(file, *first, "the template is written in a way that cannot be converted", hint));
    }
    ResourceErrors::check(errors)?;
    Ok((whole, changed.len()))
}

fn finding(file: &Path, at: Position, message: impl Into<String>, hint: &str) -> ResourceError {
    ResourceError {
        file: file.to_owned(),
        line: at.line,
        column: at.column,
        field: String::new(),
        message: message.into(),
        hint: hint.to_owned(),
    }
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Entry> {
    let Tree::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == name)
}

/// A field of a map, in the tree and in what it means.
fn below<'a, 'v>(node: &'a Node, value: &'v mut Value, name: &str) -> Option<(&'a Node, &'v mut Value)> {
    Some((&field(node, name)?.node, value.get_mut(name)?))
}

/// The elements of a list, in the tree and in what they mean.
fn each<'a, 'v>(list: Option<(&'a Node, &'v mut Value)>) -> Vec<(&'a Node, &'v mut Value)> {
    match list {
        Some((Node { value: Tree::List(nodes), .. }, Value::Array(values))) => {
            nodes.iter().zip(values).collect()
        }
        _ => Vec::new(),
    }
}

// === impl Converter ===

impl<'a> Converter<'a> {
    fn object(&mut self, root: &Node, value: &mut Value) {
        let kind = field(root, "kind").and_then(|entry| entry.node.scalar()).unwrap_or_default();
        let Some((_, place)) = KINDS.iter().find(|(known, _)| *known == kind) else { return };
        let spec = place.split('.').try_fold((root, value), |(node, value), name| below(node, value, name));
        let Some((node, value)) = spec else { return };
        for (node, value) in each(below(node, value, "templates")) {
            self.template(node, value);
        }
    }

    fn template(&mut self, node: &Node, value: &mut Value) {
        match self.find(node).and_then(|found| found.map(|found| self.edit(node, &found, value)).transpose())
        {
            Ok(Some(())) => self.changed.push(node.at),
            Ok(None) => {}
            Err(error) => self.errors.push(*error),
        }
        for (node, value) in each(below(node, value, "steps")) {
            each(Some((node, value))).into_iter().for_each(|(step, value)| self.inline(step, value));
        }
        let tasks = below(node, value, "dag").and_then(|(node, value)| below(node, value, "tasks"));
        each(tasks).into_iter().for_each(|(task, value)| self.inline(task, value));
    }

    fn inline(&mut self, step: &Node, value: &mut Value) {
        if let Some((node, value)) = below(step, value, "inline") {
            self.template(node, value);
        }
    }

    /// What of a template is to be changed.
    fn find<'n>(&self, template: &'n Node) -> Result<Option<Found<'n>>, Box<ResourceError>> {
        let error = |at, message: String, hint: &str| Err(Box::new(finding(self.file, at, message, hint)));
        if let Some(entry) = field(template, "wasm") {
            if let Err(wrong) = Options::read(&json(&entry.node)) {
                let at = locate(&entry.node, &wrong.field);
                return error(at, format!("wasm.{}: {}", wrong.field, wrong.message), &wrong.hint);
            }
            return Ok(Some(Found { entry, image: None }));
        }
        for kind in ["container", "script"] {
            let Some(entry) = field(template, kind) else { continue };
            let Some(image) = field(&entry.node, "image") else { continue };
            let name = image.node.scalar().unwrap_or_default();
            let Some(module) = self.images.get(&name) else { continue };
            let Tree::Map(fields) = &entry.node.value else { continue };
            if let Some(other) = fields.iter().find(|other| !CONTAINER_FIELDS.contains(&other.key.as_str())) {
                let hint = "leave it out, or keep the container: without --image for it";
                return error(other.at, format!("{kind}.{}: a module has no such thing", other.key), hint);
            }
            return Ok(Some(Found { entry, image: Some((image.node.at, name, module.clone())) }));
        }
        Ok(None)
    }

    fn edit(
        &mut self,
        template: &Node,
        found: &Found<'_>,
        value: &mut Value,
    ) -> Result<(), Box<ResourceError>> {
        let Found { entry, image } = found;
        let unclear = |at, what: &str| {
            let message = format!("{} does not stand here as it is", quote(what));
            Box::new(finding(self.file, at, message, "write it out: without an alias, a tag or escapes"))
        };
        if let Value::Object(map) = value
            && let Some(mut module) = map.remove(&entry.key)
        {
            if let (Some((_, _, new)), Value::Object(module)) = (image, &mut module) {
                module.insert("image".to_owned(), new.clone().into());
            }
            map.insert("plugin".to_owned(), json!({"wasm": module}));
        }
        if let Some((at, old, new)) = image {
            let splice = self.image(*at, old, new).ok_or_else(|| unclear(*at, old))?;
            self.splices.insert(splice);
        }
        let place = self.offset(entry.at).ok_or_else(|| unclear(entry.at, &entry.key))?;
        let rest = self.text.get(place..).unwrap_or_default();
        let mark = rest.get(..1).filter(|first| matches!(*first, "\"" | "'")).unwrap_or_default();
        let key = format!("{mark}{}{mark}", entry.key);
        if !rest.starts_with(&key) {
            return Err(unclear(entry.at, &entry.key));
        }
        if self.is_in_braces(template, place) {
            let end = end_in_braces(rest, key.len()).ok_or_else(|| unclear(entry.at, &entry.key))?;
            let comes = format!("{mark}plugin{mark}: {{{mark}wasm{mark}");
            self.splices.insert(Splice { at: place, goes: key.len(), comes });
            self.splices.insert(Splice { at: place + end, goes: 0, comes: "}".to_owned() });
        } else {
            self.indent(entry.at, Splice { at: place, goes: key.len(), comes: format!("{mark}wasm{mark}") });
        }
        Ok(())
    }

    /// The byte at a place.
    fn offset(&self, at: Position) -> Option<usize> {
        let line = *self.lines.get(at.line.checked_sub(1)?)?;
        let (column, _) = self
            .text
            .get(line..)?
            .char_indices()
            .chain([(self.text.len() - line, ' ')])
            .nth(at.column.checked_sub(1)?)?;
        Some(line + column)
    }

    /// An image in the place of another one.
    fn image(&self, at: Position, old: &str, new: &str) -> Option<Splice> {
        let place = self.offset(at)?;
        let line = self.text.get(place..)?.lines().next()?;
        let (before, _) = line.split_once(old)?;
        // Quotes and an anchor may stand before it, but nothing else.
        let is_its_own = !before.contains([',', ':', '{', '[', '}', ']', '*', '#']);
        is_its_own.then(|| Splice { at: place + before.len(), goes: old.len(), comes: new.to_owned() })
    }

    /// Whether a field of the template stands between braces, not on a line of its own in a block.
    fn is_in_braces(&self, template: &Node, place: usize) -> bool {
        let before = self.text.get(..place).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let begins = self.offset(template.at).and_then(|at| self.text.get(at..));
        line.contains(|c: char| !matches!(c, ' ' | '-')) || begins.is_some_and(|text| text.starts_with('{'))
    }

    /// A field of a block becomes the only one of `plugin:`: what belongs to it is indented further.
    fn indent(&mut self, at: Position, mut key: Splice) {
        let column = at.column.saturating_sub(1);
        for begin in self.lines.iter().skip(at.line) {
            let line = self.text.get(*begin..).and_then(|rest| rest.lines().next()).unwrap_or_default();
            let text = line.trim_start_matches(' ');
            let is_inside = line.len() - text.len() > column;
            // A comment may stand anywhere.
            if text.trim().is_empty() || (!is_inside && text.starts_with('#')) {
                continue;
            }
            if !is_inside {
                break;
            }
            self.splices.insert(Splice { at: *begin, goes: 0, comes: "  ".to_owned() });
        }
        let line = self.text.get(key.at..).and_then(|rest| rest.split('\n').next()).unwrap_or_default();
        let end = if line.ends_with('\r') { "\r\n" } else { "\n" };
        key.comes = format!("plugin:{end}{}  {}", " ".repeat(column), key.comes);
        self.splices.insert(key);
    }
}

/// Where the value of a field between braces ends: the byte behind its last one. `from` is behind the field's name.
fn end_in_braces(text: &str, from: usize) -> Option<usize> {
    let (mut depth, mut end, mut is_blank) = (0_usize, None, false);
    // What stands before, blanks left out: a quote begins a text only where a value begins.
    let mut before = ' ';
    let mut chars = text.char_indices().skip_while(|(at, _)| *at < from);
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | '}' | ']' if depth == 0 => return end,
            '}' | ']' => depth -= 1,
            '{' | '[' => depth += 1,
            '#' if is_blank => {
                chars.find(|(_, c)| *c == '\n')?;
                continue;
            }
            '"' if matches!(before, ':' | ',' | '[' | '{') => {
                while let Some((at, c)) = chars.next() {
                    end = Some(at + 1);
                    match c {
                        '"' => break,
                        '\\' => drop(chars.next()),
                        _ => {}
                    }
                }
                (before, is_blank) = (c, false);
                continue;
            }
            // Two of them are one inside of a text: the text ends and the next one begins.
            '\'' if matches!(before, ':' | ',' | '[' | '{' | '\'') => {
                end = chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
                (before, is_blank) = (c, false);
                continue;
            }
            _ => {}
        }
        is_blank = c.is_whitespace();
        if !is_blank {
            before = c;
            end = Some(at + c.len_utf8());
        }
    }
    None
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
    fn any_layout_is_converted() {
        let cases = [
            // Quoted keys.
            ("  - \"wasm\":\n      image: x\n", "  - plugin:\n      \"wasm\":\n        image: x\n"),
            (
                "  - name: a\n    'wasm' : {image: x}\n",
                "  - name: a\n    plugin:\n      'wasm' : {image: x}\n",
            ),
            // Comments to the left, and to the left of what follows.
            (
                "  - wasm:\n#  args: [x]\n      image: x\n# b\n  - name: b\n",
                "  - plugin:\n      wasm:\n#  args: [x]\n        image: x\n# b\n  - name: b\n",
            ),
            // What only looks like a field, and comments that are none.
            (
                "  - wasm:\n      image: x\n      source: |\n        wasm:\n        # y\n    name: a\n",
                "  - plugin:\n      wasm:\n        image: x\n        source: |\n          wasm:\n          # y\n    name: a\n",
            ),
            // The image, not what is written like it.
            (
                "  - container: {args: [\"old:1\"], image: \"old:1\"}\n",
                "  - plugin:\n      wasm: {args: [\"old:1\"], image: \"new\"}\n",
            ),
            // Braces.
            (
                "  - {name: q, wasm: {image: x, args: ['a, }', \"\\\"}\"]}}\n",
                "  - {name: q, plugin: {wasm: {image: x, args: ['a, }', \"\\\"}\"]}}}\n",
            ),
            (
                "  - {wasm: {image: x # } ,\n     }, name: it's}\n",
                "  - {plugin: {wasm: {image: x # } ,\n     }}, name: it's}\n",
            ),
            ("  - {container: {image: old:1}}\n", "  - {plugin: {wasm: {image: new}}}\n"),
            // Templates inside steps and tasks.
            (
                "  - steps:\n    - - name: a\n        inline:\n          wasm:\n            image: x\n",
                "  - steps:\n    - - name: a\n        inline:\n          plugin:\n            wasm:\n              image: x\n",
            ),
            (
                "  - dag: {tasks: [{name: a, inline: {wasm: {image: x}}}]}\n",
                "  - dag: {tasks: [{name: a, inline: {plugin: {wasm: {image: x}}}}]}\n",
            ),
            // Anchors.
            (
                "  - wasm: &w\n      image: x\n  - wasm: *w\n",
                "  - plugin:\n      wasm: &w\n        image: x\n  - plugin:\n      wasm: *w\n",
            ),
            (
                "  - <<: &base {wasm: {image: x}}\n    name: a\n  - <<: *base\n    name: b\n",
                "  - <<: &base {plugin: {wasm: {image: x}}}\n    name: a\n  - <<: *base\n    name: b\n",
            ),
            // Line ends of Windows, and ü before the place.
            ("  - wasm:\r\n      image: x\r\n", "  - plugin:\r\n      wasm:\r\n        image: x\r\n"),
            ("  - {name: \"ü\", wasm: {image: x}}", "  - {name: \"ü\", plugin: {wasm: {image: x}}}"),
        ];
        let images = BTreeMap::from([("old:1".to_owned(), "new".to_owned())]);
        let begin = "kind: Workflow\nspec:\n  templates:\n";
        for (text, expected) in cases {
            let converted = convert(&format!("{begin}{text}"), Path::new("w.yaml"), &images);
            let converted = converted.map(|(text, _)| text).map_err(|error| error.to_string());
            assert_eq!(converted, Ok(format!("{begin}{expected}")), "{text}");
        }
        let json =
            r#"{"kind":"Workflow","spec":{"templates":[{"name":"t","wasm":{"image":"x","args":["}"]}}]}}"#;
        let expected = r#"{"kind":"Workflow","spec":{"templates":[{"name":"t","plugin": {"wasm":{"image":"x","args":["}"]}}}]}}"#;
        assert_eq!(convert(json, Path::new("w.json"), &images).unwrap(), (expected.to_owned(), 1));
    }

    #[test]
    fn what_cannot_be_converted_is_an_error() {
        for text in [
            // The key has escapes, the image an alias.
            "  - \"was\\x6d\": {image: x}\n",
            "  - name: &i old:1\n    container: {image: *i, args: [old:1]}\n",
        ] {
            let text = format!("kind: Workflow\nspec:\n  templates:\n{text}");
            let images = BTreeMap::from([("old:1".to_owned(), "new".to_owned())]);
            let error = convert(&text, Path::new("w.yaml"), &images).unwrap_err().to_string();
            assert!(error.starts_with("w.yaml:"), "{error}");
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
