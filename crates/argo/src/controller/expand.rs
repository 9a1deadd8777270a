//! `withItems`, `withParam`, `withSequence`: one step becomes several.

use super::Controller;
use super::call::Frame;
use crate::model::{Sequence, Step};
use crate::node::Node;
use dhow_resources::error::quote;
use serde_json::Value;
use std::sync::Arc;

/// Most items of one step.
const MAX_ITEMS: usize = 50_000;

/// How often a step runs.
pub(super) enum Items {
    /// Once; it has no items.
    Single,
    /// Never.
    None,
    /// Once for each.
    Many(Arc<Vec<Value>>),
}

impl Controller {
    /// The items of a step; the same at every turn, because everything before it is done.
    pub(super) fn items(&mut self, name: &str, step: &Step, frame: &Frame) -> Result<Items, String> {
        if !step.is_expanded() {
            return Ok(Items::Single);
        }
        let items = match self.expansions.get(name) {
            Some(items) => Arc::clone(items),
            None => {
                let items = Arc::new(items(step, frame)?);
                self.expansions.insert(name.to_owned(), Arc::clone(&items));
                items
            }
        };
        Ok(if items.is_empty() { Items::None } else { Items::Many(items) })
    }

    /// The nodes of the items of a step that has begun, in the order of the items. They are found by their names: the
    /// items themselves are known only to the process that expanded them.
    pub(super) fn item_nodes(&self, name: &str, step: &str) -> Vec<&Node> {
        let index = |node: &Node| {
            let (index, _) = node.name.strip_prefix(name)?.strip_prefix('(')?.split_once(':')?;
            index.parse::<usize>().ok()
        };
        // Items of a task are below its own node, those of a step below its group.
        let group = name.strip_suffix(step).and_then(|group| group.strip_suffix('.'));
        let parents = [Some(name), group].into_iter().flatten();
        let mut nodes: Vec<(usize, &Node)> = parents
            .flat_map(|parent| self.children_of(parent))
            .filter_map(|node| Some((index(node)?, node)))
            .collect();
        nodes.sort_by_key(|(index, _)| *index);
        nodes.into_iter().map(|(_, node)| node).collect()
    }
}

fn items(step: &Step, frame: &Frame) -> Result<Vec<Value>, String> {
    let scope = &frame.scope;
    let items = if let Some(items) = &step.with_items {
        let items = items.iter().map(|item| scope.value(item)).collect::<Result<Vec<_>, _>>();
        items.map_err(|error| format!("withItems: {error}"))?
    } else if !step.with_param.is_empty() {
        let text = scope.text(&step.with_param).map_err(|error| format!("withParam: {error}"))?;
        match serde_json::from_str(&text) {
            Ok(Value::Array(items)) => items,
            _ => return Err(format!("withParam: {} is no JSON list", quote(&text))),
        }
    } else if let Some(sequence) = &step.with_sequence {
        sequence_items(sequence, frame).map_err(|error| format!("withSequence: {error}"))?
    } else {
        Vec::new()
    };
    if items.len() > MAX_ITEMS {
        return Err(format!("{} items are more than {MAX_ITEMS}", items.len()));
    }
    Ok(items)
}

fn sequence_items(sequence: &Sequence, frame: &Frame) -> Result<Vec<Value>, String> {
    let number = |field: &'static str, text: &Option<String>| -> Result<Option<i64>, String> {
        let Some(text) = text else { return Ok(None) };
        let text = frame.scope.text(text).map_err(|error| format!("{field}: {error}"))?;
        text.trim().parse().map(Some).map_err(|_| format!("{field}: {} is no whole number", quote(&text)))
    };
    let start = number("start", &sequence.start)?.unwrap_or(0);
    let end = match (number("count", &sequence.count)?, number("end", &sequence.end)?) {
        (Some(_), Some(_)) => return Err("only one of `count` and `end` can be there".to_owned()),
        (Some(count), None) if count <= 0 => return Ok(Vec::new()),
        (Some(count), None) => start.saturating_add(count - 1),
        (None, Some(end)) => end,
        (None, None) => return Err("expected `count` or `end`".to_owned()),
    };
    if start.abs_diff(end) >= MAX_ITEMS as u64 {
        return Err(format!("it has more than {MAX_ITEMS} items"));
    }
    let format = frame.scope.text(&sequence.format).map_err(|error| format!("format: {error}"))?;
    let numbers: Box<dyn Iterator<Item = i64>> =
        if start <= end { Box::new(start..=end) } else { Box::new((end..=start).rev()) };
    numbers.map(|number| formatted(&format, number).map(Value::String)).collect()
}

/// `%d`, `%02d`, `%x`, … of C and Go, for one number.
fn formatted(format: &str, number: i64) -> Result<String, String> {
    if format.is_empty() {
        return Ok(number.to_string());
    }
    let mut whole = String::new();
    let mut rest = format;
    while let Some((before, behind)) = rest.split_once('%') {
        whole.push_str(before);
        if let Some(behind) = behind.strip_prefix('%') {
            whole.push('%');
            rest = behind;
            continue;
        }
        let wrong = || format!("format: {format:?} has more than %d, %0Nd, %x, %X, %o and %b");
        let end = behind.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
        let (width, verb) = behind.split_at(end);
        let mut verb_chars = verb.chars();
        let digits = match verb_chars.next() {
            Some('d' | 'v') => number.to_string(),
            Some('x') => format!("{number:x}"),
            Some('X') => format!("{number:X}"),
            Some('o') => format!("{number:o}"),
            Some('b') => format!("{number:b}"),
            _ => return Err(wrong()),
        };
        let is_zero = width.starts_with('0');
        let width: usize = if width.is_empty() { 0 } else { width.parse().map_err(|_| wrong())? };
        if width > 64 {
            return Err(wrong());
        }
        whole.push_str(&if is_zero { format!("{digits:0>width$}") } else { format!("{digits:>width$}") });
        rest = verb_chars.as_str();
    }
    whole.push_str(rest);
    Ok(whole)
}

/// Names, short names and items of an expanded step's children: `name(0:item)`.
pub(super) fn children(name: &str, display: &str, items: &[Value]) -> Vec<(String, String, Option<Value>)> {
    let child = |(index, item): (usize, &Value)| {
        let shown = match item {
            Value::Object(map) => {
                let mut pairs: Vec<String> = map
                    .iter()
                    .map(|(key, value)| format!("{key}:{}", crate::expression::text(value)))
                    .collect();
                pairs.sort();
                pairs.join(",")
            }
            other => crate::expression::text(other),
        };
        // Long items make long names, which nobody reads.
        let shown: String = shown.chars().filter(|c| !c.is_control()).take(100).collect();
        (format!("{name}({index}:{shown})"), format!("{display}({index}:{shown})"), Some(item.clone()))
    };
    items.iter().enumerate().map(child).collect()
}

#[cfg(test)]
mod tests {
    use super::formatted;

    #[test]
    fn numbers_of_a_sequence_are_formatted_as_c_does() {
        let cases = [
            ("", 7, Ok("7")),
            ("%d", 7, Ok("7")),
            ("file-%03d.txt", 7, Ok("file-007.txt")),
            ("%4d", 7, Ok("   7")),
            ("%x%%", 255, Ok("ff%")),
            ("%s", 1, Err(())),
            ("%999d", 1, Err(())),
            ("%", 1, Err(())),
        ];
        for (format, number, expected) in cases {
            assert_eq!(formatted(format, number).map_err(|_| ()), expected.map(str::to_owned), "{format}");
        }
    }
}
