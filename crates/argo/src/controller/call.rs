//! One template with its arguments: inputs, parallelism, memoization, and then its work.

use super::retry::set_last_retry;
use super::values::input_scope;
use super::{Controller, MAX_DEPTH, MAX_NODES};
use crate::definition::home;
use crate::model::{Arguments, Hook, Inputs, Spec, Step, Template, TemplateRef, Work};
use crate::node::{NodeKind, Phase, Time};
use crate::substitute::Scope;
use dhow_resources::error::quote;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A template that is to be run, and what it is given.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The node.
    pub(super) name: String,
    pub(super) display: String,
    pub(super) wanted: Wanted,
    /// The object that names are looked up in.
    pub(super) home: String,
    /// All tags replaced, all references to artifacts resolved.
    pub(super) arguments: Arguments,
    pub(super) boundary: Option<String>,
    pub(super) parent: Option<String>,
    /// It belongs to an exit handler, which a stop does not stop.
    pub(super) is_exit: bool,
    /// How many children of the boundary run at once.
    pub(super) parallelism: Option<usize>,
    /// `steps` or `tasks`, if it is one of those.
    pub(super) part_of: Option<&'static str>,
}

/// Which template.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Named(String),
    Of(TemplateRef),
    /// One that stands in its step, with the item of the step: tags in it see that.
    Inline(Arc<Template>, Option<Value>),
    /// No template: a group.
    None,
}

/// A template under way: what its parts see.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) template: Arc<Template>,
    pub(super) scope: Arc<Scope>,
    pub(super) home: String,
    pub(super) is_exit: bool,
}

// === impl Call ===

impl Call {
    pub(super) fn entrypoint(name: &str, spec: &Spec) -> Call {
        Call {
            name: name.to_owned(),
            display: name.to_owned(),
            wanted: Wanted::Named(spec.entrypoint.clone()),
            home: String::new(),
            arguments: Arguments::default(),
            boundary: None,
            parent: None,
            is_exit: false,
            parallelism: None,
            part_of: None,
        }
    }

    /// A node without a template, inside a template.
    pub(super) fn group(name: &str, display: &str, boundary: &str, parent: &str) -> Call {
        Call {
            name: name.to_owned(),
            display: display.to_owned(),
            wanted: Wanted::None,
            home: String::new(),
            arguments: Arguments::default(),
            boundary: Some(boundary.to_owned()),
            parent: Some(parent.to_owned()),
            is_exit: false,
            parallelism: None,
            part_of: None,
        }
    }

    /// A step or task of a template, which sees `scope`.
    pub(super) fn of_step(
        name: &str,
        display: &str,
        step: &Step,
        arguments: Arguments,
        frame: &Frame,
        scope: &Scope,
    ) -> Call {
        let wanted = match (&step.inline, &step.template_ref) {
            (Some(template), _) => Wanted::Inline(Arc::new((**template).clone()), scope.item().cloned()),
            (None, Some(reference)) => Wanted::Of(reference.clone()),
            (None, None) => Wanted::Named(step.template.clone()),
        };
        Call {
            name: name.to_owned(),
            display: display.to_owned(),
            wanted,
            home: frame.home.clone(),
            arguments,
            boundary: None,
            parent: None,
            is_exit: frame.is_exit,
            parallelism: frame.template.parallelism,
            part_of: Some(frame.template.kind_of_parts()),
        }
    }

    pub(super) fn of_hook(
        name: String,
        display: String,
        hook: &Hook,
        arguments: Arguments,
        home: &str,
    ) -> Call {
        let wanted = match &hook.template_ref {
            Some(reference) => Wanted::Of(reference.clone()),
            None => Wanted::Named(hook.template.clone()),
        };
        Call {
            name,
            display,
            wanted,
            home: home.to_owned(),
            arguments,
            boundary: None,
            parent: None,
            is_exit: true,
            parallelism: None,
            part_of: None,
        }
    }

    pub(super) fn under(self, boundary: &str, parent: &str) -> Call {
        Call { boundary: Some(boundary.to_owned()), parent: Some(parent.to_owned()), ..self }
    }

    pub(super) fn template_name(&self) -> String {
        match &self.wanted {
            Wanted::Named(name) => name.clone(),
            Wanted::Of(reference) => format!("{}/{}", reference.name, reference.template),
            Wanted::Inline(template, _) => template.name.clone(),
            Wanted::None => String::new(),
        }
    }
}

impl Controller {
    /// Runs a template as far as it goes now. Pending: it has to wait for its turn and there is no node yet.
    pub(super) fn execute(&mut self, call: &Call) -> Phase {
        if let Some(phase) = self.phase_of(&call.name).filter(|phase| phase.is_fulfilled()) {
            return phase;
        }
        if self.depth >= MAX_DEPTH {
            return self
                .fail_to_begin(call, &format!("templates call each other deeper than {MAX_DEPTH} levels"));
        }
        self.depth += 1;
        let phase = self.try_execute(call).unwrap_or_else(|message| self.fail_to_begin(call, &message));
        self.depth -= 1;
        phase
    }

    fn try_execute(&mut self, call: &Call) -> Result<Phase, String> {
        let (template, home) = self.lookup(call)?;
        let exists = self.nodes.contains_key(&call.name);
        if !exists {
            if self.nodes.len() >= MAX_NODES {
                return Err(format!("the workflow has more than {MAX_NODES} nodes"));
            }
            if !self.has_turn(call) {
                return Ok(Phase::Pending);
            }
        }
        let spec_retries = self.definition.workflow.spec.retry_strategy.clone();
        let is_leaf = matches!(template.work(), Some(Work::Wasm | Work::Elsewhere(_)));
        let retries = template.retry_strategy.clone().or_else(|| spec_retries.filter(|_| is_leaf));
        let outer = self.around(call, retries.as_ref().map(|_| 0));
        let inputs = match self.nodes.get(&call.name).filter(|node| node.inputs != Inputs::default()) {
            Some(node) => node.inputs.clone(),
            None => self.inputs(&template, &call.arguments, &outer)?,
        };
        let frame = Frame {
            scope: Arc::new(input_scope(&inputs, &outer)),
            home,
            is_exit: call.is_exit,
            template: Arc::clone(&template),
        };
        let memo_key = super::values::memo_key(&frame)?;
        let remembered = match memo_key.as_ref().filter(|_| !exists) {
            Some(key) => self.remembered(key, &frame)?,
            None => None,
        };
        if let Some(outputs) = remembered {
            let kind = kind_of(&template);
            let node = self.begin(call, kind, Phase::Running);
            node.inputs = inputs;
            node.memoized = true;
            return Ok(self.end_with(&call.name, Phase::Succeeded, "", outputs));
        }
        if !exists {
            let (kind, phase) = match (&retries, is_leaf) {
                (Some(_), _) => (NodeKind::Retry, Phase::Running),
                (None, true) => (NodeKind::Plugin, Phase::Pending),
                (None, false) => (kind_of(&template), Phase::Running),
            };
            let node = self.begin(call, kind, phase);
            node.inputs = inputs;
            node.memo_key = memo_key;
        }
        match retries {
            Some(retries) => self.retry(call, &frame, &retries),
            None => self.work(call, &frame),
        }
    }

    /// What a template sees besides its inputs: who calls it, and how often it was tried before.
    pub(super) fn around(&self, call: &Call, attempt: Option<usize>) -> Arc<Scope> {
        if call.part_of.is_none() && attempt.is_none() {
            return Arc::clone(&self.global);
        }
        let mut scope = Scope::inside(&self.global);
        if let Wanted::Inline(_, Some(item)) = &call.wanted {
            scope.set_item(item);
        }
        if let Some(parts) = call.part_of {
            scope.set(format!("{parts}.name"), call.display.clone());
        }
        if let Some(attempt) = attempt {
            scope.set("retries", attempt.to_string());
            let last = attempt.checked_sub(1).map(|last| format!("{}({last})", call.name));
            set_last_retry(&mut scope, last.and_then(|last| self.nodes.get(&last)));
        }
        Arc::new(scope)
    }

    fn lookup(&self, call: &Call) -> Result<(Arc<Template>, String), String> {
        let (home, name) = match &call.wanted {
            Wanted::Inline(template, _) => return Ok((Arc::clone(template), call.home.clone())),
            Wanted::Named(name) => (call.home.clone(), name.as_str()),
            Wanted::Of(reference) => (home(reference), reference.template.as_str()),
            Wanted::None => return Err("a group has no template".to_owned()),
        };
        match self.definition.template(&home, name) {
            Some(template) => Ok((Arc::clone(template), home)),
            None if home.is_empty() => Err(format!("there is no template {name:?}")),
            None => Err(format!("there is no template {name:?} in {home:?}; name its file behind this one")),
        }
    }

    /// Whether the `parallelism` of the whole and that of its boundary leave room for one more.
    fn has_turn(&mut self, call: &Call) -> bool {
        let limit = self.definition.workflow.spec.parallelism.filter(|limit| *limit > 0);
        let is_full = limit.is_some_and(|limit| self.running >= limit);
        // Whoever ends the whole waits for nobody: all that would begin fails at once.
        if is_full && (call.is_exit || self.is_ending().is_none()) {
            return false;
        }
        let Some(boundary) = &call.boundary else { return true };
        let Some(limit) = call.parallelism.filter(|limit| *limit > 0) else { return true };
        self.active.get(boundary).copied().unwrap_or(0) < limit
    }

    /// What a template does, once it has a node.
    pub(super) fn work(&mut self, call: &Call, frame: &Frame) -> Result<Phase, String> {
        match frame.template.work() {
            Some(Work::Steps) => self.steps(call, frame),
            Some(Work::Dag) => self.dag(call, frame),
            Some(Work::Suspend) => self.suspension(call, frame),
            Some(Work::Wasm) => self.leaf(call, frame),
            Some(Work::Elsewhere(kind)) => Err(format!(
                "template {:?} is of kind `{kind}`, which needs a cluster; here only `wasm` templates do work",
                frame.template.name
            )),
            None => Err(format!("template {:?} must be of exactly one kind", frame.template.name)),
        }
    }
}

pub(super) fn kind_of(template: &Template) -> NodeKind {
    match template.work() {
        Some(Work::Steps) => NodeKind::Steps,
        Some(Work::Dag) => NodeKind::Dag,
        Some(Work::Suspend) => NodeKind::Suspend,
        _ => NodeKind::Plugin,
    }
}

pub(crate) fn milliseconds(duration: Duration) -> Time {
    // A hundred years are as good as for ever, and can be added to.
    const LONGEST: i64 = 100 * 365 * 24 * 3600 * 1000;
    i64::try_from(duration.as_millis()).unwrap_or(LONGEST).min(LONGEST)
}

/// Seconds, or a duration as Go writes it: `1h30m`, `2.5s`, `300ms`; also days, which Argo adds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no duration; expected seconds, or such as 30s, 5m, 1h30m", quote(text));
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = behind;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}
