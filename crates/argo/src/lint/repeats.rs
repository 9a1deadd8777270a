//! Nodes that Argo's plugin protocol cannot tell apart: what runs more than once, in the same words each time.
//!
//! The agent does not say which node a request is for, so the plugin answers equal requests from memory for a while
//! (`plugin/tasks`). That is harmless for most modules, and a surprise for one that counts, so it is a warning.

use super::object::Object;
use super::{Findings, Purpose};
use crate::controller::duration;
use crate::model::{Step, Template};
use serde_json::Value;
use std::time::Duration;

/// For so long a failure is remembered: a retry that comes later is one.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(2);

const HINT: &str = "say what makes them different in `env` or an input: `{{retries}}`, or `{{item}}`";

pub(super) fn check(
    object: &Object<'_>,
    others: &[Object<'_>],
    purpose: Purpose,
    findings: &mut Findings<'_>,
) {
    if purpose != Purpose::Cluster {
        return;
    }
    for (index, template) in object.workflow.spec.templates.iter().enumerate() {
        let path = format!("{}.templates[{index}]", object.place);
        retried(template, &path, findings);
        for (group, steps) in template.steps.iter().flatten().enumerate() {
            for (index, step) in steps.iter().enumerate() {
                let path = format!("{path}.steps[{group}][{index}]");
                looped(object, others, step, &path, findings);
            }
        }
        for (index, task) in template.dag.iter().flat_map(|dag| &dag.tasks).enumerate() {
            let path = format!("{path}.dag.tasks[{index}]");
            looped(object, others, task, &path, findings);
        }
    }
}

fn retried(template: &Template, path: &str, findings: &mut Findings<'_>) {
    let (Some(plugin), Some(retries)) = (plugin(template), &template.retry_strategy) else { return };
    let pause = retries.backoff.as_ref().and_then(|backoff| backoff.duration.as_deref());
    let is_later = pause.is_some_and(|pause| duration(pause).is_ok_and(|pause| pause > FAILURE_REMEMBERED));
    if !is_later && !mentions(plugin, "retries") {
        let what =
            "a retry within 2 s after a failure asks the plugin in the same words, and gets the same answer";
        findings.add(&format!("{path}.retryStrategy"), what, HINT);
    }
}

fn looped(object: &Object<'_>, others: &[Object<'_>], step: &Step, path: &str, findings: &mut Findings<'_>) {
    if !step.is_expanded() {
        return;
    }
    let Some(template) = object.template_of(step, others).filter(|template| plugin(template).is_some())
    else {
        return;
    };
    let arguments = serde_json::to_value(&step.arguments).unwrap_or_default();
    let inline = step.inline.as_ref().and_then(|inline| plugin(inline));
    if !mentions(&arguments, "item") && !inline.is_some_and(|plugin| mentions(plugin, "item")) {
        let what = format!(
            "the items of the loop ask the plugin of template `{}` in the same words, so some share one run",
            template.name
        );
        findings.add(path, what, HINT);
    }
}

/// What a template says to the plugin.
fn plugin(template: &Template) -> Option<&Value> {
    template.plugin.as_ref()?.get("wasm")
}

/// Whether a tag with that name is anywhere in it.
fn mentions(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => {
            let mut tags = text.split("{{").skip(1);
            tags.any(|tag| tag.split("}}").next().unwrap_or_default().contains(name))
        }
        Value::Array(list) => list.iter().any(|value| mentions(value, name)),
        Value::Object(map) => map.values().any(|value| mentions(value, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Purpose;
    use crate::manifest::Manifest;
    use std::path::Path;

    #[test]
    fn what_is_asked_in_the_same_words_is_told() {
        let step = |step: &str, env: &str, more: &str| {
            format!(
                "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  entrypoint: main\n  \
                 templates:\n  - name: main\n    steps: [[{{name: a, template: t{step}}}]]\n  - name: t\n    plugin: \
                 {{wasm: {{image: t.wasm, env: [{{name: N, value: \"{env}\"}}]}}}}\n{more}"
            )
        };
        let loops = ", withItems: [1, 2]";
        let with =
            |text: &str| format!("{loops}, arguments: {{parameters: [{{name: p, value: \"{text}\"}}]}}");
        let retries = "    retryStrategy: {limit: 3}\n";
        let later = "    retryStrategy: {limit: 3, backoff: {duration: 3s}}\n";
        for (text, purpose, expected) in [
            (step("", "", ""), Purpose::Cluster, ""),
            (step("", "x", retries), Purpose::Cluster, "spec.templates[1].retryStrategy"),
            (step("", "x", retries), Purpose::Run, ""),
            (step("", "{{retries}}", retries), Purpose::Cluster, ""),
            (step("", "{{=asInt(retries) + 1}}", retries), Purpose::Cluster, ""),
            (step("", "x", later), Purpose::Cluster, ""),
            (step(loops, "", ""), Purpose::Cluster, "spec.templates[0].steps[0][0]"),
            (step(&with("x"), "", ""), Purpose::Cluster, "spec.templates[0].steps[0][0]"),
            (step(&with("{{item}}"), "", ""), Purpose::Cluster, ""),
            (step(&with("{{=item.name}}"), "", ""), Purpose::Cluster, ""),
        ] {
            let found = Manifest::parse(&text, Path::new("w")).unwrap().warnings(purpose);
            let fields: Vec<&str> = found.iter().map(|found| found.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{text}");
        }
    }
}
