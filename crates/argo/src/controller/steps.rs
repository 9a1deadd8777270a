//! A template of steps: groups one after the other, the steps of a group at once.

use super::Controller;
use super::call::{Call, Frame};
use super::expand::Items;
use crate::model::Step;
use crate::node::{NodeKind, Phase};
use crate::substitute::Scope;
use std::sync::Arc;

impl Controller {
    pub(super) fn steps(&mut self, call: &Call, frame: &Frame) -> Result<Phase, String> {
        let groups = frame.template.steps.clone().unwrap_or_default();
        let mut scope = Arc::new(Scope::inside(&frame.scope));
        for (index, group) in groups.iter().enumerate() {
            let name = format!("{}[{index}]", call.name);
            let inner = Frame { scope: Arc::clone(&scope), ..frame.clone() };
            let phase = self.step_group(call, &name, index, group, &inner)?;
            if !phase.is_fulfilled() {
                return Ok(Phase::Running);
            }
            if phase.is_failed() {
                let message = self.nodes.get(&name).map(|node| node.message.clone()).unwrap_or_default();
                return Ok(self.end(&call.name, phase, &message));
            }
            let mut next = Scope::clone(&scope);
            for step in group {
                self.set_outputs(&mut next, "steps", &step.name, &format!("{name}.{}", step.name), step);
            }
            scope = Arc::new(next);
        }
        let outputs = self.composed_outputs(&frame.template.outputs, &scope)?;
        Ok(self.end_with(&call.name, Phase::Succeeded, "", outputs))
    }

    fn step_group(
        &mut self,
        call: &Call,
        group: &str,
        index: usize,
        steps: &[Step],
        frame: &Frame,
    ) -> Result<Phase, String> {
        if let Some(phase) = self.phase_of(group).filter(|phase| phase.is_fulfilled()) {
            return Ok(phase);
        }
        if !self.nodes.contains_key(group) {
            let node = Call::group(group, &format!("[{index}]"), &call.name, &call.name);
            self.begin(&node, NodeKind::StepGroup, Phase::Running);
        }
        let mut all_done = true;
        let mut failed: Option<(Phase, String)> = None;
        // One failed: what has not begun does not begin any more.
        let stops = frame.template.fail_fast == Some(true);
        let mut has_failed = stops && self.has_failure(group, steps);
        for step in steps {
            let name = format!("{group}.{}", step.name);
            let children = match self.items(&name, step, frame) {
                Ok(Items::Single) => vec![(name.clone(), step.name.clone(), None)],
                Ok(Items::None) => {
                    let node = Call::group(&name, &step.name, &call.name, group);
                    self.skip(&node, "Skipped, empty params");
                    continue;
                }
                Ok(Items::Many(items)) => super::expand::children(&name, &step.name, &items),
                Err(message) => {
                    let node = Call::group(&name, &step.name, &call.name, group);
                    self.fail_to_begin(&node, &message);
                    failed.get_or_insert((Phase::Error, format!("child '{}' errored", step.name)));
                    has_failed |= stops;
                    continue;
                }
            };
            for (name, display, item) in children {
                if has_failed && !self.nodes.contains_key(&name) {
                    continue;
                }
                let (phase, is_done) =
                    self.child(&name, &display, step, item.as_ref(), frame, (&call.name, group));
                if !is_done {
                    all_done = false;
                    continue;
                }
                if is_failure(phase, step) {
                    has_failed |= stops;
                    let id = self.nodes.get(&name).map(|node| node.id.clone()).unwrap_or_default();
                    failed.get_or_insert((phase, format!("child '{id}' {}", word(phase))));
                }
            }
        }
        if !all_done {
            return Ok(Phase::Running);
        }
        Ok(match failed {
            Some((_, message)) => self.end(group, Phase::Failed, &message),
            None => self.end(group, Phase::Succeeded, ""),
        })
    }

    /// Whether one of the steps of a group, or an item of it, has failed.
    fn has_failure(&self, group: &str, steps: &[Step]) -> bool {
        self.children_of(group).filter(|node| node.phase.is_failed()).any(|node| {
            let name = node.name.strip_prefix(group).and_then(|name| name.strip_prefix('.'));
            let name = name.and_then(|name| name.split('(').next());
            steps.iter().any(|step| Some(step.name.as_str()) == name && is_failure(node.phase, step))
        })
    }

    /// One step or task, for one item: its phase, and whether it and its hooks are done.
    pub(super) fn child(
        &mut self,
        name: &str,
        display: &str,
        step: &Step,
        item: Option<&serde_json::Value>,
        frame: &Frame,
        (boundary, parent): (&str, &str),
    ) -> (Phase, bool) {
        let mut scope = Scope::inside(&frame.scope);
        scope.set(format!("{}.name", frame.template.kind_of_parts()), display);
        if let Some(item) = item {
            scope.set_item(item);
        }
        let phase = match self.phase_of(name).filter(|phase| phase.is_fulfilled()) {
            Some(phase) => phase,
            None => {
                let node = Call::group(name, display, boundary, parent);
                match self.begin_child(&node, step, &scope, frame) {
                    Ok(phase) => phase,
                    Err(message) => self.fail_to_begin(&node, &message),
                }
            }
        };
        let hooks_done = self.hooks_of(name, step, scope, frame, boundary);
        (phase, phase.is_fulfilled() && hooks_done)
    }

    fn begin_child(
        &mut self,
        node: &Call,
        step: &Step,
        scope: &Scope,
        frame: &Frame,
    ) -> Result<Phase, String> {
        if !self.nodes.contains_key(&node.name) {
            let when = scope.text(&step.when).map_err(|error| format!("when: {error}"))?;
            let runs = crate::expression::when(&when);
            if !runs.map_err(|error| format!("Invalid 'when' expression '{when}': {error}"))? {
                return Ok(self.skip(node, &format!("when '{when}' evaluated false")));
            }
        }
        let arguments = self.arguments(&step.arguments, scope)?;
        let mut call = Call::of_step(&node.name, &node.display, step, arguments, frame, scope);
        if let super::call::Wanted::Named(template) = &mut call.wanted {
            *template = scope.text(template).map_err(|error| format!("template: {error}"))?;
        }
        let (boundary, parent) =
            (node.boundary.clone().unwrap_or_default(), node.parent.clone().unwrap_or_default());
        Ok(self.execute(&call.under(&boundary, &parent)))
    }

    /// A node for what does not run.
    pub(super) fn skip(&mut self, node: &Call, message: &str) -> Phase {
        if let Some(phase) = self.phase_of(&node.name) {
            return phase;
        }
        self.begin(node, NodeKind::Skipped, Phase::Skipped);
        self.set_message(&node.name, message);
        Phase::Skipped
    }
}

/// Whether a step has failed and its `continueOn` does not excuse that.
fn is_failure(phase: Phase, step: &Step) -> bool {
    let continues = step.continue_on.unwrap_or_default();
    let is_excused =
        (phase == Phase::Failed && continues.failed) || (phase == Phase::Error && continues.error);
    phase.is_failed() && !is_excused
}

pub(super) fn word(phase: Phase) -> &'static str {
    if phase == Phase::Error { "errored" } else { "failed" }
}
