//! Whether a workflow has all that it needs to begin: what [`lint`](crate::lint) cannot know, because a command line may
//! give it.

use crate::artifacts::{Artifact, Location};
use crate::definition::Definition;
use crate::model::{Parameter, ValueFrom};
use dhow_resources::error::{nearest, quote};

/// What is missing, in one text; each with what to do.
pub fn check(definition: &Definition) -> Result<(), String> {
    let spec = &definition.workflow.spec;
    let Some(main) = definition.template("", &spec.entrypoint) else {
        let near = nearest(&spec.entrypoint, &definition.template_names(""));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(format!("entrypoint: there is no template {}{near}", quote(&spec.entrypoint)));
    };
    let (arguments, inputs) = (&spec.arguments, &main.inputs);
    let mut missing = Vec::new();
    for parameter in arguments.parameters.iter().filter(|parameter| !has_value(parameter)) {
        let name = &parameter.name;
        let is_entry = |from: &ValueFrom| from.others.contains_key("configMapKeyRef");
        let why = match parameter.value_from.as_ref().filter(|from| is_entry(from)) {
            Some(_) => {
                "is an entry of a ConfigMap that is in none of the files: name its file behind this one, or"
            }
            None => "has no value:",
        };
        missing.push(format!("the parameter {} {why} give it one with -p {name}=VALUE", quote(name)));
    }
    for parameter in inputs.parameters.iter().filter(|parameter| !has_value(parameter)) {
        if arguments.parameters.iter().all(|given| given.name != parameter.name) {
            missing.push(format!(
                "template {} begins and needs the parameter {}: expected it in spec.arguments.parameters",
                quote(&main.name),
                quote(&parameter.name)
            ));
        }
    }
    let is_nowhere = |artifact: &&Artifact| {
        artifact.location() == Location::None && artifact.from.is_empty() && !artifact.optional
    };
    let given = arguments.artifacts.iter().filter(is_nowhere);
    let needed = inputs.artifacts.iter().filter(is_nowhere);
    let needed = needed.filter(|wanted| arguments.artifacts.iter().all(|given| given.name != wanted.name));
    for Artifact { name, .. } in given.chain(needed) {
        missing.push(format!("the artifact {} is nowhere: give it with --artifact {name}=PATH", quote(name)));
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

fn has_value(parameter: &Parameter) -> bool {
    let composes = |from: &ValueFrom| !from.parameter.is_empty() || !from.expression.is_empty();
    parameter.known().is_some() || parameter.value_from.as_ref().is_some_and(composes)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::definition::Definition;
    use crate::manifest::Manifest;
    use std::path::Path;

    #[test]
    fn what_is_missing_is_told_before_anything_begins() {
        // The arguments, the inputs of the template that begins, and what is missing.
        let cases = [
            ("{}", "{}", ""),
            ("{parameters: [{name: a, value: ''}]}", "{parameters: [{name: a}, {name: b, default: x}]}", ""),
            (
                "{parameters: [{name: a}]}",
                "{}",
                "the parameter `a` has no value: give it one with -p a=VALUE",
            ),
            (
                "{}",
                "{parameters: [{name: a}]}",
                "template `m` begins and needs the parameter `a`: expected it in spec.arguments.parameters",
            ),
            (
                "{parameters: [{name: a, valueFrom: {configMapKeyRef: {name: other, key: k}}}]}",
                "{}",
                "the parameter `a` is an entry of a ConfigMap that is in none of the files: name its file behind \
                 this one, or give it one with -p a=VALUE",
            ),
            ("{parameters: [{name: a, valueFrom: {configMapKeyRef: {name: c, key: k}}}]}", "{}", ""),
            (
                "{parameters: [{name: a, valueFrom: {configMapKeyRef: {name: c, key: no}, default: d}}]}",
                "{}",
                "",
            ),
            (
                "{artifacts: [{name: a}, {name: b, optional: true}]}",
                "{artifacts: [{name: a, path: /a}, {name: c, path: /c, raw: {data: x}}, {name: d, path: /d}]}",
                "the artifact `a` is nowhere: give it with --artifact a=PATH\nthe artifact `d` is nowhere: give it \
                 with --artifact d=PATH",
            ),
        ];
        for (arguments, inputs, expected) in cases {
            let text = format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{k: v}}\n---\napiVersion: \
                 argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  entrypoint: m\n  arguments: \
                 {arguments}\n  templates:\n  - {{name: m, inputs: {inputs}, wasm: {{image: t.wasm}}}}\n"
            );
            let manifest = Manifest::parse(&text, Path::new("w")).unwrap();
            let definition = Definition::new(&manifest.objects().unwrap()).unwrap();
            assert_eq!(check(&definition).err().unwrap_or_default(), expected, "{arguments} {inputs}");
        }
    }
}
