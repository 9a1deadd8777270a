//! A template that is tried again: until it succeeds, or it is enough.

use super::Controller;
use super::call::{Call, Frame, duration, kind_of, milliseconds};
use super::values::input_scope;
use crate::model::{RetryStrategy, Work};
use crate::node::{Node, Phase, Time};
use crate::substitute::Scope;
use std::sync::Arc;
use std::time::Duration;

enum Pause {
    Over,
    Until(Time),
    TooLong,
}

impl Controller {
    /// A template that is tried until it succeeds, or it is enough.
    pub(super) fn retry(
        &mut self,
        call: &Call,
        frame: &Frame,
        retries: &RetryStrategy,
    ) -> Result<Phase, String> {
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
        let outer = self.around(call, Some(number));
        let begun = self.nodes.get(&inner.name).map(|node| node.inputs.clone());
        let is_begun = begun.is_some();
        // The number of the attempt may be part of them.
        let inputs = begun.map_or_else(|| self.inputs(&frame.template, &call.arguments, &outer), Ok)?;
        let frame = Frame { scope: Arc::new(input_scope(&inputs, &outer)), ..frame.clone() };
        if !is_begun {
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
        set_last_retry(&mut scope, self.nodes.get(last));
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

/// `{{lastRetry.…}}`; before the first attempt has ended Argo's own defaults.
pub(super) fn set_last_retry(scope: &mut Scope, node: Option<&Node>) {
    let (mut status, mut exit_code, mut message, mut seconds) = ("", "0".to_owned(), String::new(), 0);
    if let Some(node) = node {
        status = node.phase.name();
        exit_code = node.outputs.exit_code.clone().unwrap_or_else(|| "-1".to_owned());
        message.clone_from(&node.message);
        seconds = (node.finished_at.unwrap_or(node.started_at) - node.started_at) / 1000;
    }
    scope.set("lastRetry.status", status);
    scope.set("lastRetry.exitCode", exit_code);
    scope.set("lastRetry.message", message);
    scope.set("lastRetry.duration", seconds.to_string());
}
