//! One template with its arguments: inputs, parallelism, memoization, retries, and then its work.

use super::{Controller, MAX_DEPTH, MAX_NODES};
use crate::definition::home;
use crate::model::{Arguments, Hook, Inputs, RetryStrategy, Spec, Step, Template, TemplateRef, Work};
use crate::node::{NodeKind, Phase, Time};
use crate::substitute::Scope;
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
}

/// Which template.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Named(String),
    Of(TemplateRef),
    Inline(Arc<Template>),
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
        }
    }

    /// A step or task of a template.
    pub(super) fn of_step(
        name: &str,
        display: &str,
        step: &Step,
        arguments: Arguments,
        frame: &Frame,
    ) -> Call {
        let wanted = match (&step.inline, &step.template_ref) {
            (Some(template), _) => Wanted::Inline(Arc::new((**template).clone())),
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
        }
    }

    pub(super) fn under(self, boundary: &str, parent: &str) -> Call {
        Call { boundary: Some(boundary.to_owned()), parent: Some(parent.to_owned()), ..self }
    }

    pub(super) fn template_name(&self) -> String {
        match &self.wanted {
            Wanted::Named(name) => name.clone(),
            Wanted::Of(reference) => format!("{}/{}", reference.name, reference.template),
            Wanted::Inline(template) => template.name.clone(),
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
        let inputs = match self.nodes.get(&call.name).filter(|node| node.inputs != Inputs::default()) {
            Some(node) => node.inputs.clone(),
            None => self.inputs(&template, &call.arguments)?,
        };
        let frame = Frame {
            scope: Arc::new(self.input_scope(&inputs)),
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
        let spec_retries = self.definition.workflow.spec.retry_strategy.clone();
        let is_leaf = matches!(template.work(), Some(Work::Wasm | Work::Elsewhere(_)));
        let retries = template.retry_strategy.clone().or_else(|| spec_retries.filter(|_| is_leaf));
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

    fn lookup(&self, call: &Call) -> Result<(Arc<Template>, String), String> {
        let (home, name) = match &call.wanted {
            Wanted::Inline(template) => return Ok((Arc::clone(template), call.home.clone())),
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

    /// Whether its boundary's `parallelism` leaves room for one more.
    fn has_turn(&self, call: &Call) -> bool {
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

    /// A template that is tried until it succeeds, or it is enough.
    fn retry(&mut self, call: &Call, frame: &Frame, retries: &RetryStrategy) -> Result<Phase, String> {
        let scope = &frame.scope;
        let text = |text: &Option<String>| text.as_ref().map(|text| scope.text(text)).transpose();
        let limit = text(&retries.limit).map_err(|error| error.to_string())?;
        let limit = match limit.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(limit) => Some(
                limit.parse::<usize>().map_err(|_| format!("retryStrategy.limit: {limit:?} is no number"))?,
            ),
        };
        let attempt = |number: usize| format!("{}({number})", call.name);
        let mut count = 0;
        while self.nodes.contains_key(&attempt(count)) {
            count += 1;
        }
        if let Some(last) = count.checked_sub(1) {
            let name = attempt(last);
            let (phase, message, outputs) = match self.nodes.get(&name) {
                Some(node) => (node.phase, node.message.clone(), node.outputs.clone()),
                None => return Ok(Phase::Running),
            };
            if !phase.is_fulfilled() {
                return self.attempt(call, frame, last);
            }
            if !phase.is_failed() {
                return Ok(self.end_with(&call.name, phase, &message, outputs));
            }
            let give_up = |this: &mut Self, why: &str| {
                let outputs = outputs.clone();
                let message = if why.is_empty() { message.clone() } else { format!("{why}: {message}") };
                Ok(this.end_with(&call.name, phase, message.trim_end_matches(": "), outputs))
            };
            if !call.is_exit && self.is_ending().is_some() {
                return give_up(self, "");
            }
            if limit.is_some_and(|limit| count > limit) {
                return give_up(self, "No more retries left");
            }
            if !self.is_worth_it(phase, &name, frame, retries, count)? {
                let why =
                    if retries.expression.is_empty() { "" } else { "retryStrategy.expression is false" };
                return give_up(self, why);
            }
            match self.pause(call, scope, retries, count, &name)? {
                Pause::Over => {}
                Pause::Until(time) => {
                    self.wake(time);
                    let seconds = (time - self.now).max(0) / 1000;
                    self.set_message(&call.name, &format!("Backoff for {seconds} seconds"));
                    return Ok(Phase::Running);
                }
                Pause::TooLong => return give_up(self, "Max duration limit exceeded"),
            }
        }
        self.set_message(&call.name, "");
        self.attempt(call, frame, count)
    }

    fn attempt(&mut self, call: &Call, frame: &Frame, number: usize) -> Result<Phase, String> {
        let name = format!("{}({number})", call.name);
        let inner = Call {
            display: format!("{}({number})", call.display),
            parent: Some(call.name.clone()),
            name,
            ..call.clone()
        };
        let mut scope = Scope::inside(&frame.scope);
        scope.set("retries", number.to_string());
        if let Some(last) =
            number.checked_sub(1).and_then(|last| self.nodes.get(&format!("{}({last})", call.name)))
        {
            set_last_retry(&mut scope, last);
        }
        let frame = Frame { scope: Arc::new(scope), ..frame.clone() };
        if !self.nodes.contains_key(&inner.name) {
            let inputs = self.nodes.get(&call.name).map(|node| node.inputs.clone()).unwrap_or_default();
            let is_leaf = matches!(frame.template.work(), Some(Work::Wasm | Work::Elsewhere(_)));
            let phase = if is_leaf { Phase::Pending } else { Phase::Running };
            self.begin(&inner, kind_of(&frame.template), phase).inputs = inputs;
        }
        let phase = match self.work(&inner, &frame) {
            Ok(phase) => phase,
            Err(message) => self.end(&inner.name, Phase::Error, &message),
        };
        if phase.is_fulfilled() {
            // What comes next is decided at once.
            let retries = self.nodes.get(&call.name).is_some_and(|node| !node.phase.is_fulfilled());
            if retries {
                self.wake(self.now);
            }
        }
        Ok(Phase::Running)
    }

    fn is_worth_it(
        &self,
        phase: Phase,
        last: &str,
        frame: &Frame,
        retries: &RetryStrategy,
        count: usize,
    ) -> Result<bool, String> {
        let policy = match (retries.retry_policy.as_str(), retries.expression.is_empty()) {
            ("", true) => "OnFailure",
            ("", false) => "Always",
            (policy, _) => policy,
        };
        let by_policy = match policy {
            "Always" => true,
            "OnFailure" => phase == Phase::Failed,
            // Whatever the host could not do may be different next time.
            "OnError" | "OnTransientError" => phase == Phase::Error,
            other => return Err(format!("retryStrategy.retryPolicy: {other:?} is none")),
        };
        if !by_policy || retries.expression.is_empty() {
            return Ok(by_policy);
        }
        let mut scope = Scope::inside(&frame.scope);
        scope.set("retries", count.saturating_sub(1).to_string());
        if let Some(node) = self.nodes.get(last) {
            set_last_retry(&mut scope, node);
        }
        let expression = scope.text(&retries.expression).map_err(|error| error.to_string())?;
        match scope.evaluate(&expression).map_err(|error| format!("retryStrategy.expression: {error}"))? {
            serde_json::Value::Bool(truth) => Ok(truth),
            other => Err(format!("retryStrategy.expression: {other} is neither true nor false")),
        }
    }

    /// Whether the time between two tries is over.
    fn pause(
        &self,
        call: &Call,
        scope: &Scope,
        retries: &RetryStrategy,
        count: usize,
        last: &str,
    ) -> Result<Pause, String> {
        let Some(backoff) = &retries.backoff else { return Ok(Pause::Over) };
        let read = |field: &'static str, text: &Option<String>| -> Result<Option<String>, String> {
            let text = text.as_ref().map(|text| scope.text(text)).transpose();
            let text = text.map_err(|error| format!("retryStrategy.backoff.{field}: {error}"))?;
            Ok(text.filter(|text| !text.is_empty()))
        };
        let time = |field, text: &Option<String>| -> Result<Option<Duration>, String> {
            let wrong = |error| format!("retryStrategy.backoff.{field}: {error}");
            read(field, text)?.map(|text| duration(&text)).transpose().map_err(wrong)
        };
        let mut wait = time("duration", &backoff.duration)?.unwrap_or_default().as_secs_f64();
        if let Some(factor) = read("factor", &backoff.factor)? {
            let wrong = || format!("retryStrategy.backoff.factor: {factor:?} is no number");
            let factor: f64 = factor.parse().map_err(|_| wrong())?;
            let exponent = i32::try_from(count.saturating_sub(1)).unwrap_or(i32::MAX);
            if factor > 1.0 {
                wait *= factor.powi(exponent);
            }
        }
        if let Some(cap) = time("cap", &backoff.cap)? {
            wait = wait.min(cap.as_secs_f64());
        }
        let ended = self.nodes.get(last).and_then(|node| node.finished_at).unwrap_or(self.now);
        let until =
            ended.saturating_add(milliseconds(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX)));
        if let Some(longest) = time("maxDuration", &backoff.max_duration)? {
            let began = self.nodes.get(&call.name).map_or(self.now, |node| node.started_at);
            let end = began.saturating_add(milliseconds(longest));
            if self.now > end || until > end {
                return Ok(Pause::TooLong);
            }
        }
        Ok(if until > self.now { Pause::Until(until) } else { Pause::Over })
    }
}

enum Pause {
    Over,
    Until(Time),
    TooLong,
}

fn set_last_retry(scope: &mut Scope, node: &crate::node::Node) {
    let ended = node.finished_at.unwrap_or(node.started_at);
    scope.set("lastRetry.status", node.phase.name());
    scope.set("lastRetry.exitCode", node.outputs.exit_code.clone().unwrap_or_else(|| "-1".to_owned()));
    scope.set("lastRetry.message", node.message.clone());
    scope.set("lastRetry.duration", ((ended - node.started_at) / 1000).to_string());
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
    let wrong = || format!("{text:?} is no duration; expected seconds, or such as 30s, 5m, 1h30m");
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
