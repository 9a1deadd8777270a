//! Whether everything that is named is there, once, and fits.

use super::object::{Object, other};
use super::{Findings, Purpose, artifacts};
use crate::controller::duration;
use crate::definition::home;
use crate::depends;
use crate::expression::{Expression, Language};
use crate::model::{Arguments, Hook, Inputs, Parameter, RetryStrategy, Step, Template, TemplateRef, Work};
use crate::name;
use crate::step::options::Options;
use crate::substitute::{filled_in, tags};
use dhow_resources::error::{nearest, quote};
use std::collections::{BTreeMap, BTreeSet};

struct Check<'a, 'f> {
    object: &'a Object<'a>,
    others: &'a [Object<'a>],
    purpose: Purpose,
    findings: &'a mut Findings<'f>,
}

pub(super) fn check(
    object: &Object<'_>,
    others: &[Object<'_>],
    purpose: Purpose,
    findings: &mut Findings<'_>,
) {
    Check { object, others, purpose, findings }.spec();
}

// === impl Check ===

impl Check<'_, '_> {
    fn add(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.add(path, message, hint);
    }

    fn spec(&mut self) {
        let (place, spec) = (self.object.place, &self.object.workflow.spec);
        let metadata = &self.object.workflow.metadata;
        if metadata.name.is_empty() && metadata.generate_name.is_empty() {
            self.add("metadata", "has neither `name` nor `generateName`", "expected one of them");
        }
        for (field, text, check) in [
            ("name", &metadata.name, name::object as fn(&str) -> Result<(), String>),
            ("generateName", &metadata.generate_name, name::object_prefix),
        ] {
            if let Some(wrong) = Some(text).filter(|text| !text.is_empty()).and_then(|text| check(text).err())
            {
                self.add(&format!("metadata.{field}"), wrong, "");
            }
        }
        // What it makes is called by its name and the moment.
        let longest = if self.object.workflow.kind == "CronWorkflow" { 52 } else { 63 };
        if metadata.name.len() > longest {
            let message = format!("has {} characters", metadata.name.len());
            self.add("metadata.name", message, format!("expected at most {longest}"));
        }
        self.not_here(place, &["synchronization"]);
        artifacts::check(&spec.arguments.artifacts, &format!("{place}.arguments.artifacts"), self.findings);
        self.parameters(&spec.arguments.parameters, &format!("{place}.arguments.parameters"));
        let borrowed = spec.workflow_template_ref.as_ref();
        if let Some(reference) = borrowed {
            let path = format!("{place}.workflowTemplateRef");
            if self.purpose == Purpose::Run && other(self.others, &home(reference)).is_none() {
                let message = format!("{} is in none of the files", quote(&reference.name));
                self.add(&path, message, "name its file behind this one");
            }
        }
        if spec.templates.is_empty() && borrowed.is_none() {
            self.add(place, "has no `templates`", "expected at least one");
        }
        let needs_entrypoint = self.object.workflow.kind != "WorkflowTemplate"
            && self.object.workflow.kind != "ClusterWorkflowTemplate"
            && borrowed.is_none();
        if spec.entrypoint.is_empty() && needs_entrypoint {
            self.add(place, "has no `entrypoint`", "expected the name of the template that begins");
        }
        if borrowed.is_none() {
            self.named(&spec.entrypoint, &format!("{place}.entrypoint"));
            self.named(&spec.on_exit, &format!("{place}.onExit"));
            if let Some(template) = spec.templates.iter().find(|template| template.name == spec.entrypoint) {
                // A template that others run is given its parameters by them.
                if needs_entrypoint {
                    self.supplied(
                        &template.inputs,
                        &spec.arguments,
                        &format!("{place}.arguments"),
                        &template.name,
                        true,
                    );
                }
            }
        }
        self.hooks(&spec.hooks, &format!("{place}.hooks"));
        for (key, from) in spec.workflow_metadata.iter().flat_map(|metadata| &metadata.labels_from) {
            self.expression(
                &from.expression,
                &format!("{place}.workflowMetadata.labelsFrom.{key}.expression"),
            );
        }
        if let Some(retries) = &spec.retry_strategy {
            self.retries(retries, &format!("{place}.retryStrategy"));
        }
        let mut names = BTreeSet::new();
        for (index, template) in spec.templates.iter().enumerate() {
            let path = format!("{place}.templates[{index}]");
            if template.name.is_empty() {
                self.add(&path, "has no `name`", "");
            } else if !names.insert(template.name.as_str()) {
                self.add(&format!("{path}.name"), format!("{} is there twice", quote(&template.name)), "");
            }
            self.name(&template.name, &path);
            self.template(template, &path);
        }
    }

    /// The name of a template, a step or a task.
    fn name(&mut self, name: &str, path: &str) {
        if let Some(wrong) =
            Some(name).filter(|name| !name.is_empty()).and_then(|name| name::template(name).err())
        {
            self.add(&format!("{path}.name"), wrong, "");
        }
    }

    fn template(&mut self, template: &Template, path: &str) {
        if let Some(retries) = &template.retry_strategy {
            self.retries(retries, &format!("{path}.retryStrategy"));
        }
        for (field, text) in [
            ("timeout", Some(&template.timeout)),
            ("activeDeadlineSeconds", template.active_deadline_seconds.as_ref()),
            ("suspend.duration", template.suspend.as_ref().and_then(|suspend| suspend.duration.as_ref())),
            ("memoize.maxAge", template.memoize.as_ref().map(|memoize| &memoize.max_age)),
        ] {
            self.time(text.map(String::as_str), &format!("{path}.{field}"));
        }
        let mut not_here = vec!["synchronization", "initContainers", "sidecars"];
        if template.daemon == Some(true) {
            not_here.push("daemon");
        }
        self.not_here(path, &not_here);
        let is_composed = matches!(template.work(), Some(Work::Steps | Work::Dag));
        for field in ["timeout", "activeDeadlineSeconds"] {
            let path = format!("{path}.{field}");
            if is_composed && self.object.has(&path) {
                let hint =
                    "set it in the templates of its steps, or `activeDeadlineSeconds` of the whole spec";
                self.add(&path, "is not for templates that are made of others", hint);
            }
        }
        let parallelism = format!("{path}.parallelism");
        if !is_composed && self.object.has(&parallelism) {
            self.add(&parallelism, "is for templates that are made of others", "");
        }
        for (field, parameters, artifacts) in [
            ("inputs", &template.inputs.parameters, &template.inputs.artifacts),
            ("outputs", &template.outputs.parameters, &template.outputs.artifacts),
        ] {
            self.parameters(parameters, &format!("{path}.{field}.parameters"));
            let path = format!("{path}.{field}.artifacts");
            self.names(artifacts.iter().map(|artifact| &artifact.name), &path);
            artifacts::check(artifacts, &path, self.findings);
            let with_path = artifacts.iter().enumerate().filter(|(_, artifact)| !artifact.path.is_empty());
            for (index, _) in with_path.filter(|_| is_composed) {
                let hint = "it belongs to the templates of its steps";
                self.add(
                    &format!("{path}[{index}].path"),
                    "is not for templates that are made of others",
                    hint,
                );
            }
        }
        // A module may say itself what it yields; Argo wants to know from where.
        if !is_composed && (template.work() != Some(Work::Wasm) || self.purpose == Purpose::Cluster) {
            for (index, parameter) in template.outputs.parameters.iter().enumerate() {
                if parameter.value_from.is_none() && parameter.known().is_none() {
                    let path = format!("{path}.outputs.parameters[{index}]");
                    self.add(&path, "has neither `value` nor `valueFrom`", "expected one of them");
                }
            }
        }
        match template.work() {
            Some(Work::Steps) => self.steps(template, path),
            Some(Work::Dag) => self.dag(template, path),
            Some(Work::Suspend) => {}
            Some(Work::Wasm) => self.wasm(template, path),
            Some(Work::Elsewhere(kind)) => self.elsewhere(kind, template, path),
            None => {
                let kinds = "steps, dag, suspend, wasm, plugin, container, script, resource, http, data, containerSet";
                self.add(path, "must be of exactly one kind", format!("expected one of {kinds}"));
            }
        }
    }

    /// Fields that only a cluster heeds.
    fn not_here(&mut self, path: &str, fields: &[&str]) {
        for field in fields.iter().filter(|_| self.purpose == Purpose::Run) {
            let path = format!("{path}.{field}");
            if self.object.has(&path) {
                let hint = "leave it out here, or run the workflow in a cluster";
                self.findings.add(&path, "is not part of `dhow workflow run`", hint);
            }
        }
    }

    fn elsewhere(&mut self, kind: &'static str, template: &Template, path: &str) {
        if kind == "plugin" {
            let keys = template
                .plugin
                .as_ref()
                .and_then(serde_json::Value::as_object)
                .map_or(0, serde_json::Map::len);
            if keys != 1 {
                self.add(&format!("{path}.plugin"), format!("expected exactly one key, got {keys}"), "");
                return;
            }
        }
        if self.purpose == Purpose::Run {
            let what = match kind {
                "container" | "script" | "containerSet" => "runs a container, which needs a cluster",
                "plugin" => "is for another plugin than `wasm`, which needs a cluster",
                _ => "needs a cluster",
            };
            let hint = "here templates do their work in WebAssembly modules: `wasm: {image: step.wasm}`, see \
                        docs/run-workflows.md";
            self.add(&format!("{path}.{kind}"), what, hint);
        }
    }

    fn wasm(&mut self, template: &Template, path: &str) {
        let place =
            if template.wasm.is_some() { format!("{path}.wasm") } else { format!("{path}.plugin.wasm") };
        if template.wasm.is_some() && self.purpose == Purpose::Cluster {
            let hint = "`dhow argo convert` makes it `plugin: {wasm: …}`";
            self.add(&place, "is no kind of template to Argo", hint);
        }
        if let Some(plugin) =
            template.plugin.as_ref().and_then(serde_json::Value::as_object).filter(|map| map.len() > 1)
        {
            self.add(
                &format!("{path}.plugin"),
                format!("expected exactly one key, got {}", plugin.len()),
                "",
            );
        }
        if let Err(wrong) = Options::read(&template.wasm_options()) {
            let field = if wrong.field.is_empty() { place } else { format!("{place}.{}", wrong.field) };
            self.add(&field, wrong.message, wrong.hint);
        }
        for (index, artifact) in template.inputs.artifacts.iter().enumerate() {
            self.path(&artifact.path, &format!("{path}.inputs.artifacts[{index}]"));
            if !artifact.from.is_empty() || !artifact.from_expression.is_empty() {
                let message = "`from` belongs to the arguments of the step that runs this template";
                self.add(&format!("{path}.inputs.artifacts[{index}].from"), message, "");
            }
        }
        for (index, artifact) in template.outputs.artifacts.iter().enumerate() {
            let path = format!("{path}.outputs.artifacts[{index}]");
            self.path(&artifact.path, &path);
        }
        for (index, parameter) in template.outputs.parameters.iter().enumerate() {
            let path = format!("{path}.outputs.parameters[{index}]");
            match &parameter.value_from {
                Some(from) if !from.path.is_empty() => {
                    self.inside(&from.path, &format!("{path}.valueFrom.path"))
                }
                Some(_) => self.add(
                    &format!("{path}.valueFrom"),
                    "has no `path`",
                    "expected the file with the value",
                ),
                // The module may say it itself, in /work/result.json.
                None => {}
            }
        }
    }

    fn path(&mut self, path: &str, place: &str) {
        if path.is_empty() {
            self.add(
                place,
                "has no `path`",
                "expected where the module finds or leaves it, such as /tmp/data",
            );
        } else {
            self.inside(path, &format!("{place}.path"));
        }
    }

    fn inside(&mut self, path: &str, place: &str) {
        if path.split('/').any(|part| part == "..") {
            self.add(place, format!("{} leads out of its folder", quote(path)), "leave out `..`");
        }
    }

    fn steps(&mut self, template: &Template, path: &str) {
        let groups = template.steps.as_deref().unwrap_or_default();
        let mut names = BTreeSet::new();
        for (group, steps) in groups.iter().enumerate() {
            for (index, step) in steps.iter().enumerate() {
                let path = format!("{path}.steps[{group}][{index}]");
                if !step.name.is_empty() && !names.insert(step.name.as_str()) {
                    self.add(&format!("{path}.name"), format!("{} is there twice", quote(&step.name)), "");
                }
                self.step(step, &path);
            }
        }
        if groups.is_empty() {
            self.add(&format!("{path}.steps"), "is empty", "");
        }
        self.composed(template, path);
    }

    fn dag(&mut self, template: &Template, path: &str) {
        let Some(dag) = &template.dag else { return };
        let names: Vec<&str> = dag.tasks.iter().map(|task| task.name.as_str()).collect();
        if names.is_empty() {
            self.add(&format!("{path}.dag"), "has no `tasks`", "");
        }
        // Both forms in one template, even of different tasks, are an error in Argo.
        let uses_depends = dag.tasks.iter().any(|task| !task.depends.is_empty());
        let mut seen = BTreeSet::new();
        let mut needs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (index, task) in dag.tasks.iter().enumerate() {
            let path = format!("{path}.dag.tasks[{index}]");
            if !task.name.is_empty() && !seen.insert(task.name.as_str()) {
                self.add(&format!("{path}.name"), format!("{} is there twice", quote(&task.name)), "");
            }
            self.step(task, &path);
            let field = if task.depends.is_empty() { "dependencies" } else { "depends" };
            let place = format!("{path}.{field}");
            if uses_depends && !task.dependencies.is_empty() {
                let hint = format!("use one of them: `depends: {}`", task.dependencies.join(" && "));
                let message = "stands in a DAG that uses `depends`";
                self.add(&format!("{path}.dependencies"), message, hint);
            }
            if uses_depends && task.continue_on.is_some() {
                let hint = format!(
                    "say it in the `depends` of what comes behind it: `{0}.Succeeded || {0}.Failed`",
                    task.name
                );
                let message = "has no meaning in a DAG that uses `depends`";
                self.add(&format!("{path}.continueOn"), message, hint);
            }
            match depends::condition(task, |_, _| false) {
                Ok(condition) => {
                    for need in condition.tasks() {
                        if !names.contains(&need) {
                            let near = nearest(need, &names).map(|name| format!("did you mean `{name}`?"));
                            let message = format!("there is no task {}", quote(need));
                            self.add(&place, message, near.unwrap_or_default());
                        }
                        needs.entry(&task.name).or_default().push(need.to_owned());
                    }
                }
                Err(error) => self.add(&place, error, ""),
            }
        }
        for name in dag.target.split_whitespace().filter(|name| !name.contains("{{")) {
            if !names.contains(&name) {
                self.add(&format!("{path}.dag.target"), format!("there is no task {}", quote(name)), "");
            }
        }
        if let Some(name) = circle(&needs) {
            self.add(&format!("{path}.dag.tasks"), format!("task {} depends on itself", quote(&name)), "");
        }
        self.composed(template, path);
    }

    fn composed(&mut self, template: &Template, path: &str) {
        for (index, parameter) in template.outputs.parameters.iter().enumerate() {
            let path = format!("{path}.outputs.parameters[{index}]");
            let Some(from) = &parameter.value_from else {
                if parameter.value.is_none() && parameter.default_value.is_none() {
                    self.add(
                        &path,
                        "has no `valueFrom`",
                        "expected valueFrom.parameter or valueFrom.expression",
                    );
                }
                continue;
            };
            self.expression(&from.expression, &format!("{path}.valueFrom.expression"));
            if from.parameter.is_empty() && from.expression.is_empty() {
                let message = "has neither `parameter` nor `expression`";
                self.add(&format!("{path}.valueFrom"), message, "this template is made of others");
            }
        }
        for (index, artifact) in template.outputs.artifacts.iter().enumerate() {
            let path = format!("{path}.outputs.artifacts[{index}]");
            self.expression(&artifact.from_expression, &format!("{path}.fromExpression"));
            if artifact.from.is_empty() && artifact.from_expression.is_empty() {
                self.add(&path, "has neither `from` nor `fromExpression`", "this template is made of others");
            }
        }
    }

    fn step(&mut self, step: &Step, path: &str) {
        if step.name.is_empty() {
            self.add(path, "has no `name`", "");
        }
        self.name(&step.name, path);
        let ways = [!step.template.is_empty(), step.template_ref.is_some(), step.inline.is_some()];
        if ways.iter().filter(|is_there| **is_there).count() != 1 {
            self.add(path, "must have exactly one of `template`, `templateRef` and `inline`", "");
        }
        if let Some(template) = &step.inline {
            self.template(template, &format!("{path}.inline"));
        }
        self.named(&step.template, &format!("{path}.template"));
        if let Some(reference) = &step.template_ref {
            self.reference(reference, &format!("{path}.templateRef"));
        }
        let (object, others) = (self.object, self.others);
        if let Some(template) = object.template_of(step, others) {
            self.supplied(&template.inputs, &step.arguments, path, &template.name, false);
        }
        for (index, parameter) in step.arguments.parameters.iter().enumerate() {
            let path = format!("{path}.arguments.parameters[{index}]");
            if let Some(from) = &parameter.value_from {
                self.expression(&from.expression, &format!("{path}.valueFrom.expression"));
            }
        }
        artifacts::check(&step.arguments.artifacts, &format!("{path}.arguments.artifacts"), self.findings);
        for (index, artifact) in step.arguments.artifacts.iter().enumerate() {
            let path = format!("{path}.arguments.artifacts[{index}].fromExpression");
            self.expression(&artifact.from_expression, &path);
        }
        if let Some(sequence) = &step.with_sequence
            && sequence.count.is_some() == sequence.end.is_some()
        {
            let both = if sequence.count.is_some() { "both" } else { "neither" };
            let message = format!("has {both} of `count` and `end`");
            self.add(&format!("{path}.withSequence"), message, "expected one of them");
        }
        let with = [step.with_items.is_some(), !step.with_param.is_empty(), step.with_sequence.is_some()];
        if with.iter().filter(|is_there| **is_there).count() > 1 {
            self.add(path, "has more than one of `withItems`, `withParam` and `withSequence`", "");
        }
        if let Err(error) = when(&step.when) {
            self.add(&format!("{path}.when"), error, "");
        }
        self.named(&step.on_exit, &format!("{path}.onExit"));
        self.hooks(&step.hooks, &format!("{path}.hooks"));
    }

    /// Whether a template gets what it needs.
    fn supplied(
        &mut self,
        inputs: &Inputs,
        arguments: &Arguments,
        path: &str,
        template: &str,
        is_whole: bool,
    ) {
        for wanted in &inputs.parameters {
            let given = arguments.parameters.iter().enumerate().find(|(_, given)| given.name == wanted.name);
            if let Some((index, Parameter { value: Some(value), .. })) = given {
                let path = if is_whole { path } else { &format!("{path}.arguments") };
                self.allowed(wanted, value, &format!("{path}.parameters[{index}].value"));
            }
            let is_given = given.is_some_and(|(_, given)| {
                given.value.is_some()
                    || given.value_from.is_some()
                    || (is_whole && given.default_value.is_some())
            });
            let is_there = is_given
                || wanted.value.is_some()
                || wanted.default_value.is_some()
                || wanted.value_from.is_some();
            if !is_there {
                let message =
                    format!("template {} needs the parameter {}", quote(template), quote(&wanted.name));
                // Of the whole it may come from the command line.
                if !(is_whole && self.purpose == Purpose::Run) {
                    self.add(path, message, "expected it in `arguments.parameters`");
                }
            }
        }
        for wanted in inputs.artifacts.iter().filter(|artifact| !artifact.optional) {
            let is_there = !wanted.location.is_empty()
                || arguments.artifacts.iter().any(|given| given.name == wanted.name);
            if !is_there && !is_whole {
                let message =
                    format!("template {} needs the artifact {}", quote(template), quote(&wanted.name));
                self.add(path, message, "expected it in `arguments.artifacts`");
            }
        }
    }

    /// Whether a parameter may have a value, if that is known.
    fn allowed(&mut self, parameter: &Parameter, value: &str, path: &str) {
        if !value.contains("{{")
            && let Err(wrong) = parameter.check(value)
        {
            self.add(path, wrong, "`enum` lists what it may be");
        }
    }

    fn hooks(&mut self, hooks: &BTreeMap<String, Hook>, path: &str) {
        for (name, hook) in hooks {
            let path = format!("{path}.{name}");
            self.named(&hook.template, &format!("{path}.template"));
            if let Some(reference) = &hook.template_ref {
                self.reference(reference, &format!("{path}.templateRef"));
            }
            if hook.template.is_empty() && hook.template_ref.is_none() {
                self.add(&path, "has no `template`", "");
            }
            if name != "exit" && hook.expression.is_empty() {
                self.add(&path, "has no `expression`", "expected when it runs; only `exit` needs none");
            }
            self.expression(&hook.expression, &format!("{path}.expression"));
        }
    }

    fn retries(&mut self, retries: &RetryStrategy, path: &str) {
        let policies = ["Always", "OnFailure", "OnError", "OnTransientError"];
        if !retries.retry_policy.is_empty() && !policies.contains(&retries.retry_policy.as_str()) {
            let message = format!("{} is no policy", quote(&retries.retry_policy));
            self.add(
                &format!("{path}.retryPolicy"),
                message,
                format!("expected one of {}", policies.join(", ")),
            );
        }
        let limit = retries.limit.as_deref().unwrap_or("0");
        if !limit.contains("{{") && limit.parse::<usize>().is_err() {
            self.add(&format!("{path}.limit"), format!("{} is no number", quote(limit)), "");
        }
        self.expression(&retries.expression, &format!("{path}.expression"));
        if let Some(backoff) = &retries.backoff {
            let path = format!("{path}.backoff");
            self.time(backoff.duration.as_deref(), &format!("{path}.duration"));
            self.time(backoff.cap.as_deref(), &format!("{path}.cap"));
            self.time(backoff.max_duration.as_deref(), &format!("{path}.maxDuration"));
        }
    }

    fn expression(&mut self, text: &str, path: &str) {
        let text = text.trim();
        let text = text.strip_prefix("{{=").and_then(|text| text.strip_suffix("}}")).unwrap_or(text);
        if text.is_empty() || text.contains("{{") {
            return;
        }
        if let Err(error) = Expression::parse(text, Language::Expr) {
            self.add(path, error, "");
        }
    }

    fn time(&mut self, text: Option<&str>, path: &str) {
        let Some(text) = text.filter(|text| !text.is_empty() && !text.contains("{{")) else { return };
        if let Err(error) = duration(text) {
            self.add(path, error, "");
        }
    }

    fn named(&mut self, name: &str, path: &str) {
        if name.is_empty() || name.contains("{{") {
            return;
        }
        let names: Vec<&str> =
            self.object.workflow.spec.templates.iter().map(|template| template.name.as_str()).collect();
        // Those of a workflowTemplateRef are here, too.
        let is_borrowed = self.object.workflow.spec.workflow_template_ref.is_some();
        if !names.contains(&name) && !is_borrowed {
            let hint =
                nearest(name, &names).map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
            self.add(path, format!("there is no template {}", quote(name)), hint);
        }
    }

    fn reference(&mut self, reference: &TemplateRef, path: &str) {
        let Some(templates) = other(self.others, &home(reference)) else {
            if self.purpose == Purpose::Run {
                let message = format!("{} is in none of the files", quote(&reference.name));
                self.add(path, message, "name its file behind this one");
            }
            return;
        };
        let names: Vec<&str> = templates.iter().map(|template| template.name.as_str()).collect();
        if !names.contains(&reference.template.as_str()) {
            let hint = nearest(&reference.template, &names).map(|name| format!("did you mean `{name}`?"));
            let message =
                format!("{} has no template {}", quote(&reference.name), quote(&reference.template));
            self.add(path, message, hint.unwrap_or_default());
        }
    }

    /// The names of parameters or artifacts: there, right, and different.
    fn names<'n>(&mut self, names: impl Iterator<Item = &'n String>, path: &str) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.enumerate() {
            if name.is_empty() {
                self.add(&format!("{path}[{index}]"), "has no `name`", "");
                continue;
            }
            let place = format!("{path}[{index}].name");
            if let Err(wrong) = name::parameter(name) {
                self.add(&place, wrong, "");
            }
            if !seen.insert(name.as_str()) {
                self.add(&place, format!("{} is there twice", quote(name)), "");
            }
        }
    }

    fn parameters(&mut self, parameters: &[Parameter], path: &str) {
        self.names(parameters.iter().map(|parameter| &parameter.name), path);
        for (index, parameter) in parameters.iter().enumerate() {
            for (field, value) in [("value", &parameter.value), ("default", &parameter.default_value)] {
                if let Some(value) = value {
                    self.allowed(parameter, value, &format!("{path}[{index}].{field}"));
                }
            }
        }
    }
}

/// Whether a condition can be read. Whoever writes it does not know what its tags become, nor do we: a value, an
/// operator, or nothing.
fn when(text: &str) -> Result<(), String> {
    const BECOMES: [&str; 3] = ["x", "==", ""];
    let count = u32::try_from(tags(text).len()).unwrap_or(u32::MAX);
    if count == 0 {
        return crate::expression::when(text).map(|_| ());
    }
    let filled = |way: usize| {
        let becomes = |index: usize| {
            let power = u32::try_from(index).ok().and_then(|index| 3_usize.checked_pow(index));
            BECOMES.get(power.map_or(0, |power| way / power % 3)).copied().unwrap_or_default()
        };
        Expression::parse(&filled_in(text, becomes), Language::When).map(|_| ())
    };
    // All ways of the first tags; many of them are too many to try.
    let ways = 3_usize.pow(count.min(4));
    filled(0).or_else(|error| (1..ways).find_map(|way| filled(way).ok()).ok_or(error))
}

/// A task that depends on itself.
fn circle(needs: &BTreeMap<&str, Vec<String>>) -> Option<String> {
    // What is left when everything without open needs is taken away again and again.
    let mut open: BTreeMap<&str, BTreeSet<&str>> =
        needs.iter().map(|(name, needs)| (*name, needs.iter().map(String::as_str).collect())).collect();
    loop {
        let names: BTreeSet<&str> = open.keys().copied().collect();
        let free: Vec<&str> =
            open.iter().filter(|(_, needs)| needs.is_disjoint(&names)).map(|(name, _)| *name).collect();
        if free.is_empty() {
            return names.first().map(|name| (*name).to_owned());
        }
        for name in free {
            open.remove(name);
        }
    }
}
