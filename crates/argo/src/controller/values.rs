//! Inputs, outputs, and what names mean.

use super::{Controller, Identity};
use crate::artifacts::{Artifact, Location};
use crate::definition::CRON_LABEL;
use crate::expression::json;
use crate::model::{Arguments, Inputs, Outputs, Parameter, Step, Template};
use crate::node::{Phase, Time, global_outputs};
use crate::substitute::Scope;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Letters of `strftime` that `{{workflow.creationTimestamp.X}}` knows.
pub(crate) const TIME_LETTERS: &str = "aAbBdeHIjmMpSyYZ";

/// Labels or annotations.
type Pairs = BTreeMap<String, String>;

/// A moment as RFC 3339 has it.
pub fn timestamp(time: Time) -> String {
    let time = jiff::Timestamp::from_millisecond(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `{{workflow.…}}` that say who a workflow is.
pub(crate) fn identity_scope(identity: &Identity, scope: &mut Scope) {
    let named = [("name", &identity.name), ("namespace", &identity.namespace), ("uid", &identity.uid)];
    for (name, value) in named {
        scope.set(format!("workflow.{name}"), value.clone());
    }
    // Argo's agent does not say when a workflow was made.
    if identity.created == 0 {
        return;
    }
    let created = jiff::Timestamp::from_millisecond(identity.created).unwrap_or_default();
    for (name, value) in [
        ("creationTimestamp", timestamp(identity.created)),
        ("creationTimestamp.RFC3339", timestamp(identity.created)),
        ("creationTimestamp.s", (identity.created / 1000).to_string()),
    ] {
        scope.set(format!("workflow.{name}"), value);
    }
    for letter in TIME_LETTERS.chars() {
        let text = created.strftime(&format!("%{letter}")).to_string();
        scope.set(format!("workflow.creationTimestamp.{letter}"), text);
    }
}

impl Controller {
    /// `{{workflow.…}}`.
    pub(super) fn global_scope(&self) -> Scope {
        let mut scope = Scope::default();
        let spec = &self.definition.workflow.spec;
        let metadata = &self.definition.workflow.metadata;
        identity_scope(&self.identity, &mut scope);
        let began = self.status.started_at.unwrap_or(self.now);
        #[allow(clippy::cast_precision_loss, reason = "seconds of a run")]
        let seconds = (self.now - began).max(0) as f64 / 1000.0;
        for (name, value) in [
            ("mainEntrypoint", spec.entrypoint.clone()),
            ("serviceAccountName", spec.service_account_name.clone()),
            ("priority", spec.priority.unwrap_or(0).to_string()),
            ("duration", format!("{seconds:.6}")),
            ("status", self.status.phase.name().to_owned()),
        ] {
            scope.set(format!("workflow.{name}"), value);
        }
        // A CronWorkflow that is run by hand runs now.
        if let Some(cron) = metadata.labels.get(CRON_LABEL) {
            scope.set("cronworkflow.name", cron.clone());
            scope.set("workflow.scheduledTime", timestamp(self.identity.created));
        }
        for (kind, pairs) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            set_pairs(&mut scope, kind, pairs);
        }
        let mut list = Vec::new();
        for parameter in &spec.arguments.parameters {
            // A parameter may be made of those before it.
            let Some(Ok(value)) = parameter.known().map(|value| scope.text(value)) else { continue };
            list.push(serde_json::json!({"name": parameter.name, "value": value}));
            scope.set(format!("workflow.parameters.{}", parameter.name), value);
        }
        let list = Value::Array(list).to_string();
        scope.set("workflow.parameters", list.clone());
        scope.set("workflow.parameters.json", list);
        // What cannot be read here has no value; `whole_arguments` says so.
        let (labels, annotations, _) = self.given_metadata(&scope);
        for (kind, own, given) in
            [("labels", &metadata.labels, labels), ("annotations", &metadata.annotations, annotations)]
        {
            let mut pairs = own.clone();
            pairs.extend(given);
            set_pairs(&mut scope, kind, &pairs);
        }
        for artifact in &spec.arguments.artifacts {
            if let Ok(artifact) = located(artifact, &scope) {
                scope.set_artifact(format!("workflow.artifacts.{}", artifact.name), artifact);
            }
        }
        let outputs = global_outputs(self.nodes.values());
        for parameter in outputs.parameters {
            let value = parameter.value.unwrap_or_default();
            scope.set(format!("workflow.outputs.parameters.{}", parameter.name), value);
        }
        for artifact in outputs.artifacts {
            scope.set_artifact(format!("workflow.outputs.artifacts.{}", artifact.name), artifact);
        }
        scope
    }

    /// The labels and annotations of `workflowMetadata`, all tags replaced, and what is wrong with one that has no value.
    fn given_metadata(&self, scope: &Scope) -> (Pairs, Pairs, Result<(), String>) {
        let given = self.definition.workflow.spec.workflow_metadata.clone().unwrap_or_default();
        let (mut labels, mut annotations, mut whole) = (Pairs::new(), Pairs::new(), Ok(()));
        for (kind, given, pairs) in
            [("labels", given.labels, &mut labels), ("annotations", given.annotations, &mut annotations)]
        {
            for (key, value) in given {
                match scope.text(&value) {
                    Ok(value) => drop(pairs.insert(key, value)),
                    Err(error) => whole = Err(format!("workflowMetadata.{kind}.{key}: {error}")),
                }
            }
        }
        for (key, from) in given.labels_from {
            let wrong = |error| format!("workflowMetadata.labelsFrom.{key}: {error}");
            match scope.evaluate(&from.expression) {
                Ok(Value::String(value)) => drop(labels.insert(key, value)),
                Ok(other) => whole = Err(wrong(format!("it is {}, which is no text", json(&other)))),
                Err(error) => whole = Err(wrong(error.to_string())),
            }
        }
        (labels, annotations, whole)
    }

    /// What a step hands over, all tags replaced.
    pub(super) fn arguments(&self, arguments: &Arguments, scope: &Scope) -> Result<Arguments, String> {
        let mut given = Arguments::default();
        for parameter in &arguments.parameters {
            let wrong = |error| format!("arguments.parameters.{}: {error}", parameter.name);
            let value = match (&parameter.value, &parameter.value_from) {
                (Some(value), _) => Some(scope.text(value).map_err(|error| wrong(error.to_string()))?),
                (None, Some(_)) => Some(composed(parameter, scope).map_err(wrong)?),
                (None, None) => None,
            };
            given.parameters.push(Parameter { value, value_from: None, ..parameter.clone() });
        }
        for artifact in &arguments.artifacts {
            let wrong = |error: String| format!("arguments.artifacts.{}: {error}", artifact.name);
            match referred(artifact, scope).map_err(wrong)? {
                Some(found) => given.artifacts.push(found),
                None if artifact.optional => {}
                // The template may take it for optional.
                None => given.artifacts.push(Artifact { name: artifact.name.clone(), ..Artifact::default() }),
            }
        }
        Ok(given)
    }

    /// The arguments of the whole, as the entrypoint gets them.
    pub(super) fn whole_arguments(&self) -> Result<Arguments, String> {
        let spec = &self.definition.workflow.spec;
        let (.., metadata) = self.given_metadata(&self.global);
        metadata?;
        let mut arguments = self.arguments(&spec.arguments, &Scope::inside(&self.global))?;
        for parameter in arguments.parameters.iter_mut().filter(|parameter| parameter.value.is_none()) {
            parameter.value.clone_from(&parameter.default_value);
        }
        for parameter in &arguments.parameters {
            let checked = parameter.value.as_deref().map_or(Ok(()), |value| parameter.check(value));
            checked.map_err(|error| format!("arguments.parameters.{}: {error}", parameter.name))?;
        }
        Ok(arguments)
    }

    /// What a template is given: arguments, else its own values and defaults.
    pub(super) fn inputs(
        &self,
        template: &Template,
        arguments: &Arguments,
        outer: &Arc<Scope>,
    ) -> Result<Inputs, String> {
        let mut inputs = Inputs::default();
        let mut scope = Scope::inside(outer);
        for wanted in &template.inputs.parameters {
            let wrong = |error: String| format!("inputs.parameters.{}: {error}", wanted.name);
            let given = arguments.parameters.iter().find(|given| given.name == wanted.name);
            let value = match given.and_then(|given| given.value.clone()) {
                Some(value) => value,
                None => match wanted.value.as_ref().or(wanted.default_value.as_ref()) {
                    Some(value) => scope.text(value).map_err(|error| wrong(error.to_string()))?,
                    None if wanted.value_from.is_some() => composed(wanted, &scope).map_err(wrong)?,
                    None => return Err(wrong("was not supplied".to_owned())),
                },
            };
            wanted.check(&value).map_err(wrong)?;
            scope.set(format!("inputs.parameters.{}", wanted.name), value.clone());
            inputs.parameters.push(Parameter {
                name: wanted.name.clone(),
                value: Some(value),
                description: wanted.description.clone(),
                ..Parameter::default()
            });
        }
        for wanted in &template.inputs.artifacts {
            let given = arguments.artifacts.iter().find(|given| given.name == wanted.name);
            let mut artifact = located(wanted, &scope)?;
            if let Some(given) = given {
                if given.location() != Location::None {
                    artifact.location.clone_from(&given.location);
                    // How it was packed belongs to where it is.
                    artifact.archive = given.archive.clone().or(artifact.archive);
                }
                if !given.sub_path.is_empty() {
                    artifact.sub_path.clone_from(&given.sub_path);
                }
                artifact.optional |= given.optional;
            }
            if artifact.location() == Location::None && !artifact.optional {
                return Err(format!("required artifact '{}' not supplied", wanted.name));
            }
            inputs.artifacts.push(artifact);
        }
        Ok(inputs)
    }

    /// `{{steps.name.…}}` of a step, of all its items together if it has any.
    pub(super) fn set_outputs(&self, scope: &mut Scope, prefix: &str, name: &str, node: &str, step: &Step) {
        self.set_node_outputs(scope, prefix, name, node);
        if !step.is_expanded() {
            return;
        }
        let children = self.item_nodes(node, name);
        // Without items it was skipped; one that never began has nothing to tell.
        if children.is_empty() && self.phase_of(node) != Some(Phase::Skipped) {
            return;
        }
        let mut results = Vec::new();
        let mut all = Vec::new();
        let mut lists: std::collections::BTreeMap<&str, Vec<Value>> = Default::default();
        let mut phases = Vec::new();
        for found in children {
            phases.push(found.phase);
            if let Some(result) = &found.outputs.result {
                results.push(json_or_text(result));
            }
            if found.outputs.parameters.is_empty() {
                continue;
            }
            let mut map = Map::new();
            for parameter in &found.outputs.parameters {
                let value = parameter.value.clone().unwrap_or_default();
                lists.entry(&parameter.name).or_default().push(json_or_text(&value));
                map.insert(parameter.name.clone(), value.into());
            }
            all.push(Value::Object(map));
        }
        let prefix = format!("{prefix}.{name}");
        scope.set(format!("{prefix}.outputs.result"), json(&Value::Array(results)));
        scope.set(format!("{prefix}.outputs.parameters"), json(&Value::Array(all)));
        for (name, list) in lists {
            scope.set(format!("{prefix}.outputs.parameters.{name}"), json(&Value::Array(list)));
        }
        if scope.get(&format!("{prefix}.status")).is_none() {
            let failed = phases.iter().find(|phase| phase.is_failed());
            scope.set(format!("{prefix}.status"), failed.unwrap_or(&Phase::Succeeded).name());
        }
    }

    /// `{{steps.name.…}}` of one node.
    pub(super) fn set_node_outputs(&self, scope: &mut Scope, prefix: &str, name: &str, node: &str) {
        let Some(node) = self.nodes.get(node) else { return };
        let prefix = format!("{prefix}.{name}");
        scope.set(format!("{prefix}.id"), node.id.clone());
        scope.set(format!("{prefix}.status"), node.phase.name());
        scope.set(format!("{prefix}.message"), node.message.clone());
        scope.set(format!("{prefix}.startedAt"), timestamp(node.started_at));
        if let Some(time) = node.finished_at {
            scope.set(format!("{prefix}.finishedAt"), timestamp(time));
        }
        if let Some(code) = &node.outputs.exit_code {
            scope.set(format!("{prefix}.exitCode"), code.clone());
            scope.set(format!("{prefix}.outputs.exitCode"), code.clone());
        }
        if let Some(result) = &node.outputs.result {
            scope.set(format!("{prefix}.outputs.result"), result.clone());
        }
        for parameter in &node.outputs.parameters {
            let value = parameter.value.clone().unwrap_or_default();
            scope.set(format!("{prefix}.outputs.parameters.{}", parameter.name), value);
        }
        for artifact in &node.outputs.artifacts {
            scope.set_artifact(format!("{prefix}.outputs.artifacts.{}", artifact.name), artifact.clone());
        }
    }

    /// The outputs of a template that is made of others.
    pub(super) fn composed_outputs(&self, declared: &Outputs, scope: &Scope) -> Result<Outputs, String> {
        let mut outputs = Outputs::default();
        for parameter in &declared.parameters {
            let value = composed(parameter, scope)
                .map_err(|error| format!("outputs.parameters.{}: {error}", parameter.name))?;
            outputs.parameters.push(Parameter { value: Some(value), value_from: None, ..parameter.clone() });
        }
        for artifact in &declared.artifacts {
            let wrong = |error: String| format!("outputs.artifacts.{}: {error}", artifact.name);
            match referred(artifact, scope).map_err(wrong)? {
                Some(found) => outputs.artifacts.push(found),
                None if artifact.optional => {}
                None => return Err(wrong("there is no such artifact".to_owned())),
            }
        }
        Ok(outputs)
    }

    /// What an earlier node of the same key yielded, if that is not too long ago.
    pub(super) fn remembered(
        &self,
        key: &str,
        frame: &super::call::Frame,
    ) -> Result<Option<Outputs>, String> {
        let Some((made, outputs)) = self.memos.get(key) else { return Ok(None) };
        let age = frame.template.memoize.as_ref().map(|memoize| memoize.max_age.as_str()).unwrap_or_default();
        if !age.is_empty() {
            let age = super::call::duration(age).map_err(|error| format!("memoize.maxAge: {error}"))?;
            if self.now - made > super::call::milliseconds(age) {
                return Ok(None);
            }
        }
        Ok(Some(outputs.clone()))
    }
}

/// `{{workflow.labels.…}}` or `{{workflow.annotations.…}}`.
fn set_pairs(scope: &mut Scope, kind: &str, pairs: &Pairs) {
    scope.set(format!("workflow.{kind}.json"), json_of(pairs.iter()));
    for (key, value) in pairs {
        scope.set(format!("workflow.{kind}.{key}"), value.clone());
    }
}

/// `{{inputs.…}}`.
pub(super) fn input_scope(inputs: &Inputs, outer: &Arc<Scope>) -> Scope {
    let mut scope = Scope::inside(outer);
    let mut list = Vec::new();
    for parameter in &inputs.parameters {
        let value = parameter.value.clone().unwrap_or_default();
        list.push(serde_json::json!({"name": parameter.name, "value": value}));
        scope.set(format!("inputs.parameters.{}", parameter.name), value);
    }
    scope.set("inputs.parameters", Value::Array(list).to_string());
    for artifact in &inputs.artifacts {
        scope.set(format!("inputs.artifacts.{}.path", artifact.name), artifact.path.clone());
        if artifact.location() != Location::None {
            scope.set_artifact(format!("inputs.artifacts.{}", artifact.name), artifact.clone());
        }
    }
    scope
}

pub(super) fn memo_key(frame: &super::call::Frame) -> Result<Option<String>, String> {
    let Some(memoize) = &frame.template.memoize else { return Ok(None) };
    let key = frame.scope.text(&memoize.key).map_err(|error| format!("memoize.key: {error}"))?;
    let cache = memoize.cache.pointer("/configMap/name").and_then(Value::as_str).unwrap_or_default();
    let cache = frame.scope.text(cache).map_err(|error| format!("memoize.cache: {error}"))?;
    Ok(Some(format!("{cache}/{key}")))
}

/// The value of a parameter that is made of other values.
fn composed(parameter: &Parameter, scope: &Scope) -> Result<String, String> {
    if let Some(value) = &parameter.value {
        return scope.text(value).map_err(|error| error.to_string());
    }
    let Some(from) = &parameter.value_from else {
        return parameter.default_value.clone().ok_or_else(|| "it has no value".to_owned());
    };
    let found = if !from.parameter.is_empty() {
        scope.text(&from.parameter).map_err(|error| error.to_string())
    } else if !from.expression.is_empty() {
        let expression = from.expression.trim();
        let bare =
            expression.strip_prefix("{{=").and_then(|text| text.strip_suffix("}}")).unwrap_or(expression);
        match scope.text(bare) {
            Ok(bare) => scope.expression_text(&bare).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    } else if from.others.contains_key("configMapKeyRef") {
        Err("there is no such entry of a ConfigMap in the files of the workflow".to_owned())
    } else if let Some(kind) = from.others.keys().next() {
        Err(format!("`valueFrom.{kind}` needs a cluster"))
    } else {
        Err("`valueFrom` says nothing that is known here".to_owned())
    };
    match (found, &from.default_value) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(default)) => scope.text(default).map_err(|error| error.to_string()),
        (Err(error), None) => Err(error),
    }
}

/// The artifact that `from` or `fromExpression` names, or that is described right here; none if there is no such.
fn referred(artifact: &Artifact, scope: &Scope) -> Result<Option<Artifact>, String> {
    let found = if !artifact.from.is_empty() {
        scope.artifact(&artifact.from).cloned()
    } else if !artifact.from_expression.is_empty() {
        scope.artifact_of(&artifact.from_expression).map_err(|error| error.to_string())?
    } else {
        let own = located(artifact, scope)?;
        return Ok((own.location() != Location::None).then_some(own));
    };
    let Some(found) = found else { return Ok(None) };
    let sub_path = scope.text(&artifact.sub_path).map_err(|error| error.to_string())?;
    let sub_path = match (found.sub_path.is_empty(), sub_path.is_empty()) {
        (_, true) => found.sub_path.clone(),
        (true, false) => sub_path,
        (false, false) => format!("{}/{sub_path}", found.sub_path),
    };
    Ok(Some(Artifact {
        name: artifact.name.clone(),
        global_name: artifact.global_name.clone(),
        archive: artifact.archive.clone().or(found.archive),
        optional: artifact.optional,
        location: found.location,
        path: found.path,
        sub_path,
        ..Artifact::default()
    }))
}

/// An artifact with the tags of its location replaced.
fn located(artifact: &Artifact, scope: &Scope) -> Result<Artifact, String> {
    let value = serde_json::to_value(artifact).map_err(|error| error.to_string())?;
    let value = scope.value(&value).map_err(|error| format!("artifact {:?}: {error}", artifact.name))?;
    serde_json::from_value(value).map_err(|error| format!("artifact {:?}: {error}", artifact.name))
}

/// What is JSON is put into a list as such, everything else as text.
fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn json_of<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let map: Map<String, Value> = pairs.map(|(key, value)| (key.clone(), value.clone().into())).collect();
    Value::Object(map).to_string()
}
