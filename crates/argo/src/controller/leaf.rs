//! Templates without parts: modules, and those that wait.

use super::call::{Call, Frame, duration, milliseconds};
use super::{Controller, Start};
use crate::model::{Outputs, Parameter, Template};
use crate::node::{Node, NodeKind, Phase, Time, pod_name};
use crate::substitute::Scope;

impl Controller {
    /// A module: it is handed out when there is room, and waited for.
    pub(super) fn leaf(&mut self, call: &Call, frame: &Frame) -> Result<Phase, String> {
        if !call.is_exit
            && let Some(why) = self.is_ending()
        {
            if self.in_flight.remove(&call.name) {
                self.turn.cancel.push(call.name.clone());
            }
            return Ok(self.end(&call.name, Phase::Failed, &why));
        }
        let began = self.nodes.get(&call.name).map_or(self.now, |node| node.started_at);
        if self.in_flight.contains(&call.name) {
            return Ok(Phase::Running);
        }
        // What ran when the process was killed begins anew, and counts already.
        let counts_already = self.phase_of(&call.name) == Some(Phase::Running);
        let limit = self.definition.workflow.spec.parallelism.filter(|limit| *limit > 0);
        if !counts_already && limit.is_some_and(|limit| self.running >= limit) {
            return Ok(Phase::Pending);
        }
        let start = self.start(call, frame, began)?;
        if !counts_already {
            self.running += 1;
        }
        if let Some(node) = self.nodes.get_mut(&call.name) {
            node.phase = Phase::Running;
            self.changed.insert(call.name.clone());
        }
        self.in_flight.insert(call.name.clone());
        self.turn.start.push(start);
        Ok(Phase::Running)
    }

    /// Everything that an executor has to know.
    fn start(&self, call: &Call, frame: &Frame, began: Time) -> Result<Start, String> {
        let template = &frame.template;
        let pod = pod_name(&self.identity.name, &call.name, &template.name);
        let mut scope = Scope::inside(&frame.scope);
        scope.set("pod.name", pod.clone());
        scope.set("node.name", call.name.clone());
        if scope.get("retries").is_none() {
            scope.set("retries", "0");
        }
        let outputs = &template.outputs;
        let artifacts =
            outputs.artifacts.iter().map(|output| ("artifacts", &output.name, Some(&output.path)));
        let parameters = outputs
            .parameters
            .iter()
            .map(|output| ("parameters", &output.name, output.value_from.as_ref().map(|from| &from.path)));
        for (kind, name, path) in artifacts.chain(parameters) {
            let Some(path) = path.filter(|path| !path.is_empty()) else { continue };
            let place = format!("outputs.{kind}.{name}.path");
            let path = scope.text(path).map_err(|error| format!("{place}: {error}"))?;
            scope.set(place, path);
        }
        // Inputs come as they were resolved: their values may hold braces of their own.
        let plain =
            Template { inputs: Default::default(), retry_strategy: None, ..Template::clone(template) };
        let value = serde_json::to_value(plain).map_err(|error| error.to_string())?;
        let value = scope.value(&value).map_err(|error| error.to_string())?;
        let mut template: Template = serde_json::from_value(value).map_err(|error| error.to_string())?;
        template.inputs = self.nodes.get(&call.name).map(|node| node.inputs.clone()).unwrap_or_default();
        let mut deadlines: Vec<Time> = self.deadline().filter(|_| !call.is_exit).into_iter().collect();
        if !template.timeout.is_empty() {
            let timeout = duration(&template.timeout).map_err(|error| format!("timeout: {error}"))?;
            deadlines.push(began.saturating_add(milliseconds(timeout)));
        }
        if let Some(seconds) = &template.active_deadline_seconds {
            let limit = duration(seconds).map_err(|error| format!("activeDeadlineSeconds: {error}"))?;
            deadlines.push(self.now.saturating_add(milliseconds(limit)));
        }
        Ok(Start { name: call.name.clone(), pod, template, deadline: deadlines.into_iter().min() })
    }

    /// A template that waits: for a time, or for somebody.
    pub(super) fn suspension(&mut self, call: &Call, frame: &Frame) -> Result<Phase, String> {
        if !call.is_exit
            && let Some(why) = self.is_ending()
        {
            return Ok(self.end(&call.name, Phase::Failed, &why));
        }
        let suspend = frame.template.suspend.clone().unwrap_or_default();
        let Some(text) = suspend.duration.filter(|text| !text.is_empty()) else { return Ok(Phase::Running) };
        let text = frame.scope.text(&text).map_err(|error| format!("suspend.duration: {error}"))?;
        let wait = duration(&text).map_err(|error| format!("suspend.duration: {error}"))?;
        let began = self.nodes.get(&call.name).map_or(self.now, |node| node.started_at);
        let until = began.saturating_add(milliseconds(wait));
        if self.now < until {
            self.wake(until);
            return Ok(Phase::Running);
        }
        match supplied(&frame.template, &[]) {
            Ok(outputs) => Ok(self.end_with(&call.name, Phase::Succeeded, "", outputs)),
            Err(message) => Ok(self.end(&call.name, Phase::Error, &message)),
        }
    }

    /// The names of the nodes that wait for somebody.
    pub fn suspended(&self) -> Vec<String> {
        let is_suspended = |node: &&Node| node.kind == NodeKind::Suspend && node.phase == Phase::Running;
        let mut names: Vec<(u64, String)> =
            self.nodes.values().filter(is_suspended).map(|node| (node.sequence, node.name.clone())).collect();
        names.sort();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Whether a suspended node goes on by itself, when its time has come.
    pub fn goes_on_by_itself(&self, name: &str) -> bool {
        let node = self.nodes.get(name);
        let suspend = node.and_then(|node| self.template_of(node)?.suspend.as_ref());
        suspend.and_then(|suspend| suspend.duration.as_ref()).is_some_and(|duration| !duration.is_empty())
    }

    /// The template of a node, if it is one of this workflow's own.
    fn template_of(&self, node: &Node) -> Option<&Template> {
        let mut templates = self.definition.templates();
        templates.find(|(_, template)| template.name == node.template_name).map(|(_, template)| &**template)
    }

    /// Whether the whole waits before it begins.
    pub fn is_suspended(&self) -> bool {
        self.definition.workflow.spec.suspend && !self.status.resumed
    }

    /// Lets what waits go on: `spec.suspend`, and suspended nodes: of one short name, or all. `values` are the outputs
    /// that somebody supplies. The answer is how many went on.
    pub fn resume(
        &mut self,
        display_name: Option<&str>,
        values: &[(String, String)],
        now: Time,
    ) -> Result<usize, String> {
        self.now = now;
        let mut count = 0;
        let mut ended = Vec::new();
        for name in self.suspended() {
            let Some(node) = self.nodes.get(&name) else { continue };
            if display_name.is_some_and(|wanted| wanted != node.display_name && wanted != node.name) {
                continue;
            }
            // Those that are in no template of this workflow have no outputs to supply.
            let outputs = match self.template_of(node) {
                Some(template) => supplied(template, values)?,
                None => Outputs::default(),
            };
            ended.push((name, outputs));
        }
        // All of it can be done, or none of it is.
        if self.definition.workflow.spec.suspend && !self.status.resumed && display_name.is_none() {
            self.status.resumed = true;
            count += 1;
        }
        for (name, outputs) in ended {
            self.end_with(&name, Phase::Succeeded, "", outputs);
            count += 1;
        }
        Ok(count)
    }
}

/// The outputs of a suspended node, from what somebody supplies and from defaults.
fn supplied(template: &Template, values: &[(String, String)]) -> Result<Outputs, String> {
    let mut outputs = Outputs::default();
    for output in &template.outputs.parameters {
        let given = values.iter().find(|(name, _)| *name == output.name).map(|(_, value)| value.clone());
        let default = output.value_from.as_ref().and_then(|from| from.default_value.clone());
        let value =
            given.or_else(|| output.value.clone()).or(default).or_else(|| output.default_value.clone());
        let Some(value) = value else {
            return Err(format!(
                "output parameter {:?} of {:?} has to be supplied: resume with --parameter {0}=VALUE",
                output.name, template.name
            ));
        };
        if !output.allowed.is_empty() && !output.allowed.contains(&value) {
            return Err(format!(
                "{value:?} is not allowed for {:?}; expected one of {}",
                output.name,
                output.allowed.join(", ")
            ));
        }
        outputs.parameters.push(Parameter { value: Some(value), value_from: None, ..output.clone() });
    }
    if let Some((name, _)) =
        values.iter().find(|(name, _)| outputs.parameters.iter().all(|known| known.name != *name))
    {
        return Err(format!("{:?} has no output parameter {name:?} to supply", template.name));
    }
    Ok(outputs)
}
