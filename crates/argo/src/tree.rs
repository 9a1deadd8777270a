//! A workflow as a tree of lines for people.

use crate::controller::{Controller, timestamp};
use crate::node::{Node, NodeKind, Phase, Time, workflow_outputs};
use std::collections::HashMap;
use std::time::Duration;

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// With colours.
    pub colors: bool,
    /// Most lines; what is done is left out first.
    pub lines: usize,
    /// Now.
    pub now: Time,
}

/// The tree of a workflow's nodes.
pub fn draw(controller: &Controller, style: Style) -> String {
    let nodes: Vec<&Node> = controller.nodes().collect();
    draw_nodes(&nodes, &controller.identity().name, style)
}

/// The same, of nodes alone.
pub fn draw_nodes(nodes: &[&Node], workflow: &str, style: Style) -> String {
    let mut children: HashMap<Option<&str>, Vec<&Node>> = HashMap::new();
    for node in nodes {
        let parent = node.parent.as_deref().filter(|_| node.name != workflow);
        children.entry(parent).or_default().push(node);
    }
    children.values_mut().for_each(|list| list.sort_by_key(|node| node.sequence));
    let mut lines = Vec::new();
    for root in children.get(&None).into_iter().flatten() {
        lines.push((root.phase, line(root, "", style)));
        below(root, "", &children, style, &mut lines);
    }
    let hidden = lines.len().saturating_sub(style.lines);
    if hidden > 0 {
        let mut left = hidden + 1;
        lines.retain(|(phase, _)| {
            let is_hidden = left > 0 && matches!(phase, Phase::Succeeded | Phase::Skipped | Phase::Omitted);
            left -= usize::from(is_hidden);
            !is_hidden
        });
        lines.truncate(style.lines.saturating_sub(1));
        lines.push((Phase::Pending, format!("  … and more, {} in all", nodes.len())));
    }
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

fn below<'a>(
    node: &'a Node,
    indent: &str,
    children: &HashMap<Option<&'a str>, Vec<&'a Node>>,
    style: Style,
    lines: &mut Vec<(Phase, String)>,
) {
    let mut shown: Vec<&Node> = Vec::new();
    let all = children.get(&Some(node.name.as_str())).map(Vec::as_slice).unwrap_or_default();
    for child in all {
        let is_only_try = node.kind == NodeKind::Retry && all.len() == 1;
        // A group of steps is no step, and a single try says nothing new: what is in them stands in their place.
        if child.kind == NodeKind::StepGroup || is_only_try {
            shown.extend(children.get(&Some(child.name.as_str())).into_iter().flatten());
        } else {
            shown.push(child);
        }
    }
    for (index, child) in shown.iter().enumerate() {
        let is_last = index + 1 == shown.len();
        let (branch, next) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push((child.phase, line(child, &format!("{indent}{branch}"), style)));
        below(child, &format!("{indent}{next}"), children, style, lines);
    }
}

fn line(node: &Node, indent: &str, style: Style) -> String {
    let (sign, color) = match node.phase {
        Phase::Pending => ("◷", "90"),
        Phase::Running if node.kind == NodeKind::Suspend => ("‖", "33"),
        Phase::Running => ("●", "36"),
        Phase::Succeeded => ("✔", "32"),
        Phase::Failed => ("✖", "31"),
        Phase::Error => ("⚠", "31"),
        Phase::Skipped | Phase::Omitted => ("○", "90"),
    };
    let sign = if style.colors { format!("\u{1b}[{color}m{sign}\u{1b}[0m") } else { sign.to_owned() };
    let end = node.finished_at.unwrap_or(style.now);
    let took = if matches!(node.phase, Phase::Pending | Phase::Skipped | Phase::Omitted) {
        String::new()
    } else {
        format!("  {}", took(node.started_at, end))
    };
    let name = harmless(&node.display_name, 60);
    let message = match node.message.as_str() {
        "" if node.memoized => "  (memoized)".to_owned(),
        "" => String::new(),
        message => format!("  {}", harmless(message, 100)),
    };
    format!("{indent}{sign} {name}{took}{message}")
}

/// Text of others, cut, without what a terminal would obey.
pub fn harmless(text: &str, longest: usize) -> String {
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(longest).collect();
    if text.chars().count() > longest {
        shown.push('…');
    }
    shown
}

/// The time between two moments, for people.
pub fn took(from: Time, to: Time) -> String {
    let time = Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0));
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        1..=59 => format!("{:.1}s", time.as_secs_f64()),
        seconds @ 60..=3599 => format!("{}m{}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A workflow as Argo's `status` has it.
pub fn status(record: &crate::history::Record) -> serde_json::Value {
    let mut nodes = serde_json::Map::new();
    let by_parent = |parent: &str| {
        let mut found: Vec<&Node> =
            record.nodes.iter().filter(|node| node.parent.as_deref() == Some(parent)).collect();
        found.sort_by_key(|node| node.sequence);
        found.into_iter().map(|node| node.id.clone()).collect::<Vec<_>>()
    };
    for node in &record.nodes {
        let boundary = node.boundary.as_ref().map(|name| crate::node::node_id(&record.identity.name, name));
        nodes.insert(
            node.id.clone(),
            serde_json::json!({
                "id": node.id, "name": node.name, "displayName": node.display_name, "type": node.kind,
                "templateName": node.template_name, "phase": node.phase, "message": node.message,
                "startedAt": timestamp(node.started_at), "finishedAt": node.finished_at.map(timestamp),
                "inputs": node.inputs, "outputs": node.outputs, "boundaryID": boundary,
                "children": by_parent(&node.name),
            }),
        );
    }
    let mut workflow = record.objects.workflow.clone();
    if let Some(metadata) = workflow.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.insert("name".to_owned(), record.identity.name.clone().into());
        metadata.insert("namespace".to_owned(), record.identity.namespace.clone().into());
        metadata.insert("uid".to_owned(), record.identity.uid.clone().into());
        metadata.insert("creationTimestamp".to_owned(), timestamp(record.identity.created).into());
    }
    let status = &record.status;
    let status = serde_json::json!({
        "phase": status.phase, "message": status.message, "startedAt": status.started_at.map(timestamp),
        "finishedAt": status.finished_at.map(timestamp), "nodes": nodes,
        "outputs": workflow_outputs(&record.identity.name, &record.nodes),
    });
    if let Some(whole) = workflow.as_object_mut() {
        whole.insert("status".to_owned(), status);
    }
    workflow
}
