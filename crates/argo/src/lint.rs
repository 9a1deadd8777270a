//! What is wrong with a workflow, with file, line, column and field.
//!
//! | file | subject |
//! |---|---|
//! | `schema` | which fields there are, and what may stand in them |
//! | `object` | an object with templates, as the following see it |
//! | `references` | whether everything that is named is there |
//! | `artifacts` | whether artifacts are in one place, and packed as can be |
//! | `cron` | schedules |
//! | `repeats` | warnings: what Argo's plugin protocol cannot tell apart |
//! | `tags` | whether every `{{tag}}` can have a value |
//!
//! All findings of a file are told at once; a field that cannot be read is left out of what comes behind.

mod artifacts;
mod cron;
mod object;
mod references;
mod repeats;
mod schema;
mod tags;

use crate::manifest::locate;
use dhow_resources::error::{MAX_FINDINGS, ResourceError};
use dhow_resources::tree::{Node, Position};
use std::path::{Path, PathBuf};

/// What a workflow is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be run here: what needs a cluster is an error.
    Run,
    /// To be given to Argo: `wasm` templates have to be converted first, and other kinds of template are fine.
    Cluster,
    /// Either.
    Any,
}

/// Findings about one document.
pub(crate) struct Findings<'a> {
    file: &'a Path,
    root: &'a Node,
    pub(crate) errors: Vec<ResourceError>,
    /// Fields whose value is of a kind that cannot be read.
    unreadable: Vec<String>,
}

/// The kinds of object that hold templates, and where the spec is.
pub(crate) const KINDS: [(&str, &str); 4] = [
    ("Workflow", "spec"),
    ("WorkflowTemplate", "spec"),
    ("ClusterWorkflowTemplate", "spec"),
    ("CronWorkflow", "spec.workflowSpec"),
];

pub(crate) fn check(documents: &[(PathBuf, Node)], purpose: Purpose) -> Vec<ResourceError> {
    let mut errors = Vec::new();
    let mut read = Vec::new();
    for (file, root) in documents {
        let mut findings = Findings::new(file, root);
        if let Some(place) = schema::check(root, &mut findings) {
            let object = object::Object::read(file, root, place, &findings.unreadable);
            // What is wrong in a field is told already; where nothing is, the object has to be readable.
            match object {
                Ok(object) => read.push((object, findings.errors.clone())),
                Err(error) if findings.errors.is_empty() => findings.add("", error, ""),
                Err(_) => {}
            }
        }
        errors.append(&mut findings.errors);
    }
    let (objects, known): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    for (object, known) in objects.iter().zip(known) {
        let mut findings = Findings::new(object.file, object.root);
        cron::check(object, &mut findings);
        references::check(object, &objects, purpose, &mut findings);
        tags::check(object, &objects, purpose, &mut findings);
        // What is missing in a thing is not told if something else is wrong in it: that may be what is missing.
        let is_inside = |path: &str, of: &str| {
            path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        findings.errors.retain(|error| !known.iter().any(|known| is_inside(&known.field, &error.field)));
        errors.append(&mut findings.errors);
    }
    errors
}

/// What works, and may surprise.
pub(crate) fn warnings(documents: &[(PathBuf, Node)], purpose: Purpose) -> Vec<ResourceError> {
    let read = documents.iter().filter_map(|(file, root)| {
        let place = schema::check(root, &mut Findings::new(file, root))?;
        object::Object::read(file, root, place, &[]).ok()
    });
    let objects: Vec<_> = read.collect();
    let mut warnings = Vec::new();
    for object in &objects {
        let mut findings = Findings::new(object.file, object.root);
        repeats::check(object, &objects, purpose, &mut findings);
        warnings.append(&mut findings.errors);
    }
    warnings
}

// === impl Findings ===

impl<'a> Findings<'a> {
    fn new(file: &'a Path, root: &'a Node) -> Findings<'a> {
        Findings { file, root, errors: Vec::new(), unreadable: Vec::new() }
    }

    /// A finding about the field of that path.
    pub(crate) fn add(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add_at(locate(self.root, path), path, message, hint);
    }

    pub(crate) fn add_at(
        &mut self,
        at: Position,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.errors.len() >= MAX_FINDINGS {
            return;
        }
        self.errors.push(ResourceError {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            field: path.to_owned(),
            message: message.into(),
            hint: hint.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Purpose::{self, Any, Cluster, Run};
    use crate::manifest::Manifest;
    use std::path::Path;

    /// What is found in a spec, without the file's name and the hints.
    fn findings(spec: &str, purpose: Purpose) -> Vec<String> {
        let text = format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  entrypoint: main\n{spec}"
        );
        let manifest = Manifest::parse(&text, Path::new("w")).unwrap();
        let found = manifest.check(purpose).err().map(|found| found.errors().to_vec()).unwrap_or_default();
        found.into_iter().map(|found| format!("{}: {}", found.field, found.message)).collect()
    }

    /// A template `main` with that step, and `t`, which takes `m` and yields `o`.
    fn step(step: &str) -> String {
        format!(
            "  templates:\n  - name: main\n    steps:\n    - - {{name: a, template: t, arguments: {{parameters: [{{name: m, \
             value: x}}]}}}}\n    - - {{name: b, template: t, {step}}}\n  - name: t\n    inputs: {{parameters: [{{name: m, \
             enum: [x, \"2\"]}}]}}\n    wasm: {{image: t.wasm}}\n    outputs: {{parameters: [{{name: o, valueFrom: {{path: \
             /o}}}}], artifacts: [{{name: f, path: /f}}]}}\n"
        )
    }

    #[test]
    fn what_would_fail_in_the_middle_of_the_work_is_found_before() {
        let given = |value: &str| format!("arguments: {{parameters: [{{name: m, value: \"{value}\"}}]}}");
        let cases = [
            (given("x"), ""),
            (given("{{steps.a.outputs.parameters.o}} {{steps.a.outputs.result}} {{steps.a.status}}"), ""),
            (given("{{=steps.a.outputs.parameters.o}}"), ""),
            (given("{{=steps.a.outputs.parameters.no ?? 'x'}}"), ""),
            (given("{{steps.a.status"), ".arguments.parameters[0].value: a `{{` is not closed"),
            (given("{{item.b}}") + ", withItems: [{b: 1, c: 2}, {b: 3}]", ""),
            (
                given("{{item.c}}") + ", withItems: [{b: 1, c: 2}, {b: 3}]",
                ".arguments.parameters[0].value: nothing has the name `item.c` here",
            ),
            (given("{{item.c}}") + ", withItems: [{b: 1}, \"{{steps.a.outputs.result}}\"]", ""),
            (given("{{steps.name}} {{=steps.name}}"), ""),
            (
                given("{{tasks.name}}"),
                ".arguments.parameters[0].value: nothing has the name `tasks.name` here",
            ),
            (
                given("x")
                    + ", hooks: {exit: {template: t, arguments: {parameters: [{name: m, value: \"{{steps.name}}\"}]}}}",
                "",
            ),
            (given("{{steps.a.{{item}}}}") + ", withItems: [status, id]", ""),
            (
                given("{{steps.no-{{item}}}}") + ", withItems: [status, id]",
                ".arguments.parameters[0].value: nothing has the name `steps.no-{{item}}` here",
            ),
            (given("{{steps.a.{{no}}}}"), ".arguments.parameters[0].value: nothing has the name `no` here"),
            (given("{{workflow.creationTimestamp.Y}} {{workflow.creationTimestamp.RFC3339}}"), ""),
            (
                given("{{workflow.creationTimestamp.%Y}}"),
                ".arguments.parameters[0].value: nothing has the name `workflow.creationTimestamp.%Y` here",
            ),
            (
                given("{{workflow.labels.no}}"),
                ".arguments.parameters[0].value: nothing has the name `workflow.labels.no` here",
            ),
            (given("{{workflow.labels.workflows.argoproj.io/creator}} {{workflow.labels.json}}"), ""),
            (given("{{retries}}"), ".arguments.parameters[0].value: nothing has the name `retries` here"),
            (
                given("{{=nosuch(1)}}"),
                ".arguments.parameters[0].value: `nosuch(1)`: there is no function `nosuch`",
            ),
            (
                given("{{=sprig.trm(1)}}"),
                ".arguments.parameters[0].value: `sprig.trm(1)`: there is no function `sprig.trm`; did you mean \
                 `sprig.trim`?",
            ),
            (
                given("{{steps.a.outputs.parameters.no}}"),
                ".arguments.parameters[0].value: nothing has the name `steps.a.outputs.parameters.no` here",
            ),
            (
                given("{{=steps.a.outputs.parameters.no}}"),
                ".arguments.parameters[0].value: nothing has the name `steps.a.outputs.parameters.no` in \
                 `steps.a.outputs.parameters.no`",
            ),
            (
                "arguments: {parameters: [{name: m, value: x}], artifacts: [{name: q, from: \
                 \"{{steps.a.outputs.artifacts.no}}\"}]}"
                    .to_owned(),
                ".arguments.artifacts[0].from: nothing has the name `steps.a.outputs.artifacts.no` here",
            ),
            ("arguments: {parameters: [{name: m}]}".to_owned(), ": template `t` needs the parameter `m`"),
            (given("y"), ".arguments.parameters[0].value: `y` is none of x, 2"),
            (given("x") + ", withSequence: {count: 1}", ""),
            (
                given("x") + ", withSequence: {count: 1, end: 3}",
                ".withSequence: has both of `count` and `end`",
            ),
            (given("x") + ", withSequence: {start: 1}", ".withSequence: has neither of `count` and `end`"),
            (given("x") + ", when: \"{{steps.a.outputs.result}} == 1\"", ""),
            (
                given("x") + ", when: \"{{steps.a.outputs.result}} {{steps.a.status}} '{{steps.a.status}}'\"",
                "",
            ),
            (given("x") + ", when: \"{{=steps.a.status == 'x'}}\"", ""),
            (
                given("x") + ", when: \"{{steps.a.outputs.result}} = 1\"",
                ".when: \"=\" stands behind the end of the expression",
            ),
            (
                given("x") + ", when: \"{{=steps.a.status}} === 1)\"",
                ".when: \"=\" stands where a value should be",
            ),
        ];
        for (text, expected) in cases {
            let expected = match expected {
                "" => Vec::new(),
                expected => vec![format!("spec.templates[0].steps[1][0]{expected}")],
            };
            assert_eq!(findings(&step(&text), Any), expected, "{text}");
        }
    }

    #[test]
    fn what_has_no_effect_and_what_argo_refuses_is_found() {
        let wasm = "plugin: {wasm: {image: t.wasm}}";
        let main = format!("  templates:\n  - name: main\n    {wasm}\n");
        let cases = [
            (main.clone(), Run, vec![]),
            (
                format!("{main}    retryStrategy: {{expression: \"asIn(lastRetry.exitCode) > 1\"}}\n"),
                Any,
                vec![
                    "spec.templates[0].retryStrategy.expression: there is no function `asIn`; did you mean `asInt`?",
                ],
            ),
            (
                format!("{main}  - {{name: \"bad name!\", {wasm}}}\n"),
                Cluster,
                vec![
                    "spec.templates[1].name: `bad name!` is no name; expected letters, digits and `-`, at the begin no `-`",
                ],
            ),
            (
                format!(
                    "{main}  - name: c\n    timeout: 1s\n    activeDeadlineSeconds: 5\n    steps: [[{{name: Bad_Name, template: main}}]]\n"
                ),
                Any,
                vec![
                    "spec.templates[1].activeDeadlineSeconds: is not for templates that are made of others",
                    "spec.templates[1].steps[0][0].name: `Bad_Name` is no name; expected letters, digits and `-`, at the begin no `-`",
                    "spec.templates[1].timeout: is not for templates that are made of others",
                ],
            ),
            (
                format!(
                    "  synchronization: {{mutex: {{name: m}}}}\n{main}    initContainers: []\n    sidecars: []\n"
                ),
                Run,
                vec![
                    "spec.synchronization: is not part of `dhow workflow run`",
                    "spec.templates[0].initContainers: is not part of `dhow workflow run`",
                    "spec.templates[0].sidecars: is not part of `dhow workflow run`",
                ],
            ),
            (format!("  synchronization: {{mutex: {{name: m}}}}\n{main}    sidecars: []\n"), Cluster, vec![]),
            (
                format!("  arguments: {{parameters: [{{name: e, value: z, enum: [a, b]}}]}}\n{main}"),
                Any,
                vec!["spec.arguments.parameters[0].value: `z` is none of a, b"],
            ),
            (
                format!("{main}    parallelism: 2\n    outputs: {{parameters: [{{name: o}}]}}\n"),
                Cluster,
                vec![
                    "spec.templates[0].outputs.parameters[0]: has neither `value` nor `valueFrom`",
                    "spec.templates[0].parallelism: is for templates that are made of others",
                ],
            ),
            (
                format!(
                    "{main}    retryStrategy: {{backoff: {{duration: 5}}}}\n  - {{name: s, suspend: {{duration: 3}}, outputs: \
                     {{parameters: [{{name: o}}]}}}}\n"
                ),
                Any,
                vec![
                    "spec.templates[0].retryStrategy.backoff.duration: must be a string in quotes, found an integer",
                    "spec.templates[1].outputs.parameters[0]: has neither `value` nor `valueFrom`",
                    "spec.templates[1].suspend.duration: must be a string in quotes, found an integer",
                ],
            ),
            (
                format!(
                    "{main}    metadata: {{labels: {{a: 1, b: x}}}}\n    inputs:\n      artifacts:\n      - {{name: a, path: /a, \
                     s3: {{key: k}}, raw: {{data: x}}}}\n      - {{name: b, path: /b, mode: 01000, raw: {{data: x}}}}\n      - \
                     {{name: c, path: /c, mode: 0777, raw: {{data: x}}}}\n    outputs:\n      artifacts:\n      - {{name: d, path: \
                     /d, archive: {{tar: {{compressionLevel: 10}}}}}}\n      - {{name: e, path: /e, archive: {{tar: \
                     {{compressionLevel: -1}}}}}}\n"
                ),
                Any,
                vec![
                    "spec.templates[0].inputs.artifacts[0]: is in several places: raw, s3",
                    "spec.templates[0].inputs.artifacts[1].mode: 512 has more bits than permissions have",
                    "spec.templates[0].metadata.labels.a: must be a string in quotes, found an integer",
                    "spec.templates[0].outputs.artifacts[0].archive.tar.compressionLevel: 10 is no level",
                ],
            ),
            (
                format!(
                    "{main}    inputs: {{artifacts: [{{name: a, path: /a, raw: {{data: x}}}}]}}\n  - name: c\n    inputs: \
                     {{artifacts: [{{name: a, path: /a}}]}}\n    steps: [[{{name: s, template: main}}]]\n"
                ),
                Any,
                vec![
                    "spec.templates[1].inputs.artifacts[0].path: is not for templates that are made of others",
                ],
            ),
            (
                "  templateDefaults: {wasm: {image: t.wasm}, timeout: 5s}\n  templates:\n  - {name: main, steps: [[{name: a, \
                 template: b}]]}\n  - {name: b, wasm: {args: [x]}}\n"
                    .to_owned(),
                Run,
                vec![],
            ),
            (
                format!(
                    "  workflowMetadata: {{labels: {{a: x}}, annotations: {{note: why}}, labelsFrom: {{b: {{expression: '1 +'}}}}}}\n  \
                     templates:\n  - {{name: main, {wasm}, outputs: {{parameters: [{{name: o, value: '{{{{workflow.labels.a}}}} \
                     {{{{workflow.labels.b}}}} {{{{workflow.annotations.note}}}}'}}]}}}}\n"
                ),
                Run,
                vec!["spec.workflowMetadata.labelsFrom.b.expression: the expression ends where a value should be"],
            ),
            (
                "  templates:\n  - name: main\n    dag:\n      tasks:\n      - {name: a, template: t, continueOn: {failed: \
                 true}}\n      - {name: b, template: t, dependencies: [a]}\n      - {name: c, template: t, depends: b}\n  - {name: \
                 t, wasm: {image: t.wasm, args: ['{{item}}']}}\n"
                    .to_owned(),
                Any,
                vec![
                    "spec.templates[0].dag.tasks[0].continueOn: has no meaning in a DAG that uses `depends`",
                    "spec.templates[0].dag.tasks[1].dependencies: stands in a DAG that uses `depends`",
                    "spec.templates[1].wasm.args[0]: nothing has the name `item` here",
                ],
            ),
            // One mistake hides no other.
            (
                format!(
                    "  parallelism: many\n  templatess: []\n{main}    wasmm: {{}}\n  - {{name: b, timeout: 5, steps: [[{{name: a, template: nope}}]]}}\n"
                ),
                Any,
                vec![
                    "spec.parallelism: must be an integer, found a string",
                    "spec.templates[0]: unknown field `wasmm`",
                    "spec.templates[1].steps[0][0].template: there is no template `nope`",
                    "spec.templates[1].timeout: must be a string in quotes, found an integer",
                    "spec: unknown field `templatess`",
                ],
            ),
        ];
        for (text, purpose, expected) in cases {
            let mut found = findings(&text, purpose);
            found.sort();
            assert_eq!(found, expected, "{text}");
        }
        let empty =
            Manifest::parse("# nothing\n---\n", Path::new("w")).unwrap().check(Any).unwrap_err().to_string();
        assert!(empty.starts_with("w: there is nothing in it"), "{empty}");
    }

    #[test]
    fn what_a_module_does_not_declare_is_found() {
        let text = "  templates:\n  - name: main\n    steps:\n    - - {name: a, template: t}\n    - - {name: b, template: u, \
                    arguments: {parameters: [{name: m, value: \"{{steps.a.outputs.parameters.x}}\"}]}}\n  - {name: t, wasm: \
                    {image: t.wasm}}\n  - {name: u, inputs: {parameters: [{name: m}]}, wasm: {image: t.wasm}}\n";
        let place = "spec.templates[0].steps[1][0].arguments.parameters[0].value";
        let expected = format!("{place}: nothing has the name `steps.a.outputs.parameters.x` here");
        assert_eq!(findings(text, Run), [expected]);
        // It may say itself what is declared.
        let declared = text.replace("{name: t, wasm", "{name: t, outputs: {parameters: [{name: x}]}, wasm");
        assert_eq!(findings(&declared, Run), Vec::<String>::new());
    }

    #[test]
    fn what_argo_takes_for_no_cron_workflow_is_found() {
        let long = "n".repeat(53);
        let cases = [
            ("c", "schedules: ['0 3 * * *'], timezone: Europe/Zurich, concurrencyPolicy: Forbid", vec![]),
            ("c", "schedule: '@daily'", vec![]),
            (long.as_str(), "schedule: '@daily'", vec!["metadata.name: has 53 characters"]),
            ("c", "timezone: ''", vec!["spec: has no `schedules`"]),
            (
                "c",
                "schedules: ['@daily', '61 * * * *'], timezone: No/Where, concurrencyPolicy: Maybe",
                vec![
                    "spec.schedules[1]: `61` is none of 0 to 59",
                    "spec.timezone: there is no time zone `No/Where`",
                    "spec.concurrencyPolicy: `Maybe` is no policy",
                ],
            ),
        ];
        for (name, fields, expected) in cases {
            let text = format!(
                "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {{name: {name}}}\nspec: {{{fields}, \
                 workflowSpec: {{entrypoint: a, templates: [{{name: a, wasm: {{image: t.wasm, args: \
                 ['{{{{cronworkflow.name}}}}']}}}}]}}}}\n"
            );
            let checked = Manifest::parse(&text, Path::new("w")).unwrap().check(Any);
            let found = checked.err().map(|found| found.errors().to_vec()).unwrap_or_default();
            let found: Vec<_> =
                found.iter().map(|found| format!("{}: {}", found.field, found.message)).collect();
            assert_eq!(found, expected, "{fields}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_found() {
        let (longest, too_long) = ("n".repeat(63), "n".repeat(64));
        for (metadata, is_right) in [
            ("{name: report-1}", true),
            (&format!("{{name: {longest}}}"), true),
            (&format!("{{name: {too_long}}}"), false),
            ("{name: a, labels: {a: x, b: true}}", false),
            ("{generateName: report-}", true),
            ("{name: ../../evil}", false),
            ("{name: Report}", false),
            ("{generateName: ../}", false),
        ] {
            let text = format!(
                "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {metadata}\nspec:\n  entrypoint: a\n  \
                 templates: [{{name: a, suspend: {{}}}}]\n"
            );
            let checked = Manifest::parse(&text, Path::new("w")).unwrap().check(Any);
            assert_eq!(checked.is_ok(), is_right, "{metadata}: {checked:?}");
        }
    }
}
