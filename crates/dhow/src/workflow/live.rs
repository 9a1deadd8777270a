//! How a workflow goes, while it goes: a tree on a terminal, else a line for everything that begins or ends.

use dhow_argo::controller::Controller;
use dhow_argo::node::{NodeKind, Phase};
use dhow_argo::run::now;
use dhow_argo::tree::{self, Style, harmless, took};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

/// Lines of a tree on a terminal.
const LINES: usize = 24;

pub(super) struct Live {
    /// On a terminal.
    bar: Option<ProgressBar>,
    /// Else: what was told of each node.
    told: HashMap<String, Phase>,
}

// === impl Live ===

impl Live {
    pub(super) fn start() -> Live {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{msg}\n{spinner} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Live { bar, told: HashMap::new() }
    }

    /// The workflow after a turn.
    pub(super) fn show(&mut self, controller: &Controller) {
        match &self.bar {
            Some(bar) => bar.set_message(tree::draw(controller, style(LINES))),
            None => self.tell(controller),
        }
    }

    fn tell(&mut self, controller: &Controller) {
        let mut nodes: Vec<_> = controller
            .nodes()
            .filter(|node| !matches!(node.kind, NodeKind::StepGroup | NodeKind::TaskGroup))
            .filter(|node| node.phase != Phase::Pending && self.told.get(&node.name) != Some(&node.phase))
            .collect();
        nodes.sort_by_key(|node| node.sequence);
        for node in nodes {
            self.told.insert(node.name.clone(), node.phase);
            let name =
                harmless(node.name.strip_prefix(&controller.identity().name).unwrap_or(&node.name), 200);
            let name = name.trim_start_matches('.');
            if name.is_empty() {
                continue;
            }
            let ended =
                node.finished_at.map(|end| format!(" {}", took(node.started_at, end))).unwrap_or_default();
            let message = match node.message.as_str() {
                "" => String::new(),
                message => format!(": {}", harmless(message, 300)),
            };
            let suspended = node.kind == NodeKind::Suspend && node.phase == Phase::Running;
            let word = if suspended { "Suspended" } else { node.phase.name() };
            crate::say(format_args!("{word:9} {name}{ended}{message}"));
        }
    }

    /// The last picture stays.
    pub(super) fn finish(&mut self, controller: &Controller) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            crate::say(tree::draw(controller, style(1000)));
        }
    }
}

fn style(lines: usize) -> Style {
    let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Style { colors, lines, now: now() }
}
