//! Templates that run at moments: when a step ends or comes to some point, and at the end of the whole.

use super::call::{Call, Frame};
use super::{Controller, Shutdown};
use crate::model::{Hook, Step};
use crate::node::Phase;
use crate::substitute::Scope;
use serde_json::{Value, json};
use std::sync::Arc;

impl Controller {
    /// Runs the hooks of a step whose moment has come; true when all that began are done.
    pub(super) fn hooks_of(
        &mut self,
        name: &str,
        step: &Step,
        mut scope: Scope,
        frame: &Frame,
        boundary: &str,
    ) -> bool {
        if step.hooks.is_empty() && step.on_exit.is_empty() {
            return true;
        }
        let Some(node) = self.nodes.get(name) else { return true };
        let phase = node.phase;
        if matches!(phase, Phase::Skipped | Phase::Omitted) {
            return true;
        }
        self.set_node_outputs(&mut scope, frame.template.kind_of_parts(), &step.name, name);
        let mut all_done = true;
        for (hook_name, hook) in step.all_hooks() {
            let is_exit = hook_name == "exit";
            if is_exit && !phase.is_fulfilled() {
                continue;
            }
            let (node, display) = if is_exit {
                (format!("{name}.onExit"), format!("{}.onExit", step.name))
            } else {
                (format!("{name}.hooks.{hook_name}"), format!("{}.hooks.{hook_name}", step.name))
            };
            all_done &= self.hook(node, display, &hook, &scope, frame, (boundary, name));
        }
        all_done
    }

    fn hook(
        &mut self,
        node: String,
        display: String,
        hook: &Hook,
        scope: &Scope,
        frame: &Frame,
        (boundary, parent): (&str, &str),
    ) -> bool {
        if !self.nodes.contains_key(&node) && !hook.expression.is_empty() && !is_now(&hook.expression, scope)
        {
            return true;
        }
        let placeholder = Call::group(&node, &display, boundary, parent);
        match self.arguments(&hook.arguments, scope) {
            Ok(arguments) => {
                let call = Call::of_hook(node, display, hook, arguments, &frame.home).under(boundary, parent);
                self.execute(&call).is_fulfilled()
            }
            Err(message) => self.fail_to_begin(&placeholder, &message).is_fulfilled(),
        }
    }

    /// Runs the hooks of the workflow whose moment has come, but for `exit`; true when all that began are done.
    pub(super) fn workflow_hooks(&mut self, phase: Phase) -> bool {
        let hooks = self.definition.workflow.spec.hooks.clone();
        let mut all_done = true;
        for (hook_name, hook) in hooks.iter().filter(|(name, _)| *name != "exit") {
            let mut scope = Scope::inside(&self.global);
            let status = if phase.is_fulfilled() { phase } else { Phase::Running };
            scope.set("workflow.status", status.name());
            let workflow = self.identity.name.clone();
            let (name, display) = (format!("{workflow}.hooks.{hook_name}"), format!("hooks.{hook_name}"));
            let frame = self.outermost(&scope);
            all_done &= self.hook(name, display, hook, &scope, &frame, (&workflow, &workflow));
        }
        all_done
    }

    /// The end of the whole: the exit handler if there is one, and then the last word.
    pub(super) fn exit_handler(&mut self, phase: Phase) {
        let spec = &self.definition.workflow.spec;
        let hook = match spec.hooks.get("exit") {
            Some(hook) => Some(hook.clone()),
            None if spec.on_exit.is_empty() => None,
            None => Some(Hook {
                template: spec.on_exit.clone(),
                arguments: spec.arguments.clone(),
                ..Hook::default()
            }),
        };
        let main = self.nodes.get(&self.identity.name);
        let mut message = main.map(|node| node.message.clone()).unwrap_or_default();
        let mut last = phase;
        if let Some(hook) = hook.filter(|_| self.status.shutdown != Some(Shutdown::Terminate)) {
            let mut scope = Scope::inside(&self.global);
            scope.set("workflow.status", phase.name());
            // In quotes, as in Argo: whoever wants the list reads text as JSON first.
            let failures = Value::String(self.failures().to_string());
            scope.set("workflow.failures", failures.to_string());
            // What the handler does sees the same.
            self.global = Arc::new(scope.clone());
            let workflow = self.identity.name.clone();
            let name = format!("{workflow}.onExit");
            let frame = self.outermost(&scope);
            if !self.hook(name.clone(), "onExit".to_owned(), &hook, &scope, &frame, (&workflow, &workflow)) {
                return;
            }
            if let Some(node) =
                self.nodes.get(&name).filter(|node| node.phase.is_failed() && !phase.is_failed())
            {
                last = node.phase;
                message = format!("exit handler: {}", node.message);
            }
        }
        if let Some(how) = self.status.shutdown.filter(|_| last.is_failed()) {
            message = format!("Stopped with strategy '{how:?}'");
        }
        self.status.phase = last;
        self.status.message = message;
        self.status.finished_at = Some(self.now);
    }

    fn outermost(&self, scope: &Scope) -> Frame {
        Frame { template: Arc::default(), scope: Arc::new(scope.clone()), home: String::new(), is_exit: true }
    }

    /// `{{workflow.failures}}`.
    fn failures(&self) -> Value {
        let mut failed: Vec<_> = self.nodes.values().filter(|node| node.phase.is_failed()).collect();
        failed.sort_by_key(|node| node.sequence);
        let failure = |node: &&crate::node::Node| {
            let pod = crate::node::pod_name(&self.identity.name, &node.name, &node.template_name);
            json!({
                "displayName": node.display_name, "message": node.message, "templateName": node.template_name,
                "phase": node.phase.name(), "podName": pod,
                "finishedAt": node.finished_at.map(super::values::timestamp),
            })
        };
        failed.iter().map(failure).collect()
    }
}

/// Whether the moment of a hook has come. Before a step has outputs, an expression over them is not true yet.
fn is_now(expression: &str, scope: &Scope) -> bool {
    match scope.text(expression).and_then(|expression| scope.evaluate(&expression)) {
        Ok(Value::Bool(truth)) => truth,
        Ok(other) => {
            tracing::warn!("the hook's expression {expression:?} is {other}, neither true nor false");
            false
        }
        Err(error) => {
            tracing::debug!("a hook's expression: {error}");
            false
        }
    }
}
