//! What names mean in a workflow: tries, callers, numbers, defaults, what comes from outside and goes there.

use super::*;

#[test]
fn a_step_knows_its_name_and_its_tries() {
    let last = "{{lastRetry.exitCode}} {{lastRetry.duration}} {{lastRetry.status}} {{lastRetry.message}}";
    let leaf = "inputs: {parameters: [{name: text}]}\n    wasm: {image: e.wasm, args: ['{{inputs.parameters.text}}']}";
    let step = "{name: a, template: x, arguments: {parameters: [{name: text, value: '{{retries}}'}]}}";
    // The template that begins, and what its leaf is called with, one try after the other.
    let cases: [(String, &[&str]); 6] = [
        (
            format!("retryStrategy: {{limit: 1}}\n    wasm: {{image: e.wasm, args: ['{last}']}}"),
            &["0 0  ", "3 0 Failed it failed"],
        ),
        (
            "retryStrategy: {limit: 2}\n    inputs: {parameters: [{name: q, value: 'try {{retries}}'}]}\n    wasm: {image: \
             e.wasm, args: ['{{inputs.parameters.q}} of {{retries}}']}"
                .to_owned(),
            &["try 0 of 0", "try 1 of 1", "try 2 of 2"],
        ),
        (format!("retryStrategy: {{limit: 1}}\n    steps: [[{step}]]"), &["0", "1"]),
        (format!("retryStrategy: {{limit: 1}}\n    dag: {{tasks: [{step}]}}"), &["0", "1"]),
        (
            "steps:\n    - - {name: first, template: say, withItems: [p]}\n    - - name: second\n        inline: {wasm: {image: \
             e.wasm, args: ['{{steps.name}}']}}\n  - name: say\n    wasm: {image: e.wasm, args: ['{{steps.name}} in \
             {{node.name}}']}"
                .to_owned(),
            &["first(0:p) in w[0].first(0:p)"],
        ),
        (
            "dag: {tasks: [{name: one, template: inner}]}\n  - name: inner\n    steps: [[{name: two, template: x, arguments: \
             {parameters: [{name: text, value: '{{tasks.name}}'}]}}]]"
                .to_owned(),
            &["one"],
        ),
    ];
    for (template, expected) in cases {
        let yaml =
            format!("  entrypoint: m\n  templates:\n  - name: m\n    {template}\n  - name: x\n    {leaf}\n");
        let said = std::cell::RefCell::new(Vec::new());
        Trial::new(&yaml).run(|start, _| {
            said.borrow_mut().push(args(start).join(" "));
            let outputs = Outputs { exit_code: Some("3".to_owned()), ..Outputs::default() };
            Outcome { outputs, ..Outcome::failed("it failed") }
        });
        assert_eq!(said.into_inner(), expected, "{template}");
    }
}

#[test]
fn numbers_are_whole_where_they_are() {
    let mut trial = Trial::new(&with_echo(
        "
  entrypoint: m
  arguments: {parameters: [{name: pages, value: '10'}, {name: list, value: '[1e3, 2.5, 6.0]'}]}
  templates:
  - name: m
    steps:
    - - {name: a, template: echo, withSequence: {count: '{{=asInt(workflow.parameters.pages)/5}}'}}
      - {name: b, template: echo, withParam: '{{workflow.parameters.list}}', arguments: {parameters: [{name: text, value: '{{item}}'}]}}
    outputs: {parameters: [{name: all, value: '{{steps.b.outputs.result}} {{=2**3}} {{=[6/2]}}'}]}
",
    ));
    assert_eq!(trial.run(echo), Phase::Succeeded, "{:?}", trial.controller.status());
    assert_eq!(trial.began.iter().filter(|name| name.starts_with("w[0].a")).count(), 2);
    assert_eq!(trial.output("all"), "[1000,2.5,6] 8 [3]");
}

#[test]
fn defaults_are_for_templates_of_their_kind() {
    let mut trial = Trial::new(
        "
  entrypoint: m
  templateDefaults:
    wasm: {image: t.wasm, args: [usual]}
    container: {image: alpine}
    retryStrategy: {limit: 1}
  templates:
  - {name: m, steps: [[{name: a, template: own}], [{name: b, template: usual}]]}
  - {name: own, wasm: {args: [own]}}
  - {name: usual, wasm: {}}
",
    );
    let said = std::cell::RefCell::new(Vec::new());
    let phase = trial.run(|start, began| {
        let image = start.template.wasm_options()["image"].clone();
        said.borrow_mut().push(format!("{image} {}", args(start).join(" ")));
        echo(start, began)
    });
    assert_eq!(phase, Phase::Succeeded, "{:?}", trial.controller.status());
    assert_eq!(said.into_inner(), ["\"t.wasm\" own", "\"t.wasm\" usual"]);
}

#[test]
fn what_a_workflow_is_given_and_yields() {
    let mut trial = Trial::new(
        "
  entrypoint: m
  onExit: bye
  arguments:
    parameters:
    - {name: entry, valueFrom: {configMapKeyRef: {name: c, key: k}, default: unknown}}
    - {name: made, value: 'of {{workflow.parameters.entry}}'}
  templates:
  - name: m
    steps: [[{name: a, template: yields}]]
    outputs: {parameters: [{name: own, value: '{{workflow.parameters.made}}'}]}
  - name: yields
    inputs: {parameters: [{name: d, value: /out dir}]}
    wasm: {image: e.wasm, args: ['x={{outputs.parameters.x.path}}']}
    outputs: {parameters: [{name: x, globalName: shared, valueFrom: {path: '{{inputs.parameters.d}}/x'}}]}
  - {name: bye, wasm: {image: e.wasm, args: ['{{workflow.failures}}']}}
",
    );
    let said = std::cell::RefCell::new(String::new());
    let phase = trial.run(|start, began| {
        *said.borrow_mut() = args(start).join(" ");
        match start.name.as_str() {
            "w.onExit" => Outcome::failed("no more"),
            _ => echo(start, began),
        }
    });
    assert_eq!(phase, Phase::Failed);
    assert_eq!(said.into_inner(), r#""[]""#);
    let outputs = crate::node::workflow_outputs("w", trial.controller.nodes());
    let outputs: Vec<_> =
        outputs.parameters.iter().map(|found| (&*found.name, found.value.as_deref())).collect();
    assert_eq!(outputs, [("own", Some("of unknown")), ("shared", Some("/out dir/x"))]);
    // The failures are text that is a list in JSON.
    let mut trial = Trial::new(&with_echo(
        "  entrypoint: f\n  onExit: bye\n  templates:\n  - {name: f, wasm: {image: e.wasm, args: [fail]}}\n  - {name: bye, \
         wasm: {image: e.wasm, args: ['{{workflow.failures}}']}}\n",
    ));
    trial.run(echo);
    let told = trial.controller.node("w.onExit").unwrap().outputs.result.clone().unwrap();
    assert!(told.starts_with(r#""[{\"displayName\":\"w\","#), "{told}");
    let told: String = serde_json::from_str(&told).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["message"], "it failed");
}

#[test]
fn a_cron_workflow_runs_now() {
    let text = "
apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
metadata: {name: nightly}
spec:
  schedules: ['0 3 * * *']
  workflowMetadata: {labels: {team: a}}
  workflowSpec:
    entrypoint: m
    templates:
    - {name: m, wasm: {image: e.wasm, args: ['{{workflow.scheduledTime}} {{cronworkflow.name}} {{workflow.labels.team}}']}}
";
    let manifest = Manifest::parse(text, Path::new("w.yaml")).unwrap();
    let controller = controller(&manifest.objects().unwrap(), Status::default(), Vec::new());
    let mut trial = Trial { controller, now: 1_000_000, began: Vec::new(), most_at_once: 0 };
    assert_eq!(trial.run(echo), Phase::Succeeded, "{:?}", trial.controller.status());
    let result = trial.controller.node("w").unwrap().outputs.result.clone();
    assert_eq!(result.as_deref(), Some("1970-01-01T00:16:40Z nightly a"));
}

#[test]
fn an_inline_template_sees_the_item_of_its_step() {
    let leaf = "wasm: {image: e.wasm, args: ['{{item}} {{steps.name}}']}";
    let cases = [
        (leaf.to_owned(), ["x a(0:x)", "z a(1:z)"]),
        (format!("retryStrategy: {{limit: 1}}, {leaf}"), ["x a(0:x)", "z a(1:z)"]),
        (format!("steps: [[{{name: b, when: '{{{{item}}}} != 1', inline: {{{leaf}}}}}]]"), ["x b", "z b"]),
    ];
    for (inline, expected) in cases {
        let yaml = format!(
            "  entrypoint: m\n  templates:\n  - name: m\n    steps: [[{{name: a, withItems: [x, z], inline: {{{inline}}}}}]]\n"
        );
        let said = std::cell::RefCell::new(Vec::new());
        let phase = Trial::new(&yaml).run(|start, began| {
            said.borrow_mut().push(args(start).join(" "));
            echo(start, began)
        });
        assert_eq!(
            (phase, said.into_inner()),
            (Phase::Succeeded, expected.map(str::to_owned).to_vec()),
            "{inline}"
        );
    }
}

#[test]
fn a_workflow_has_the_labels_that_it_is_given() {
    let metadata = "{labels: {team: 'of {{workflow.parameters.who}}'}, annotations: {note: x}, labelsFrom: {who: {expression: EXPRESSION}}}";
    let names = "{{workflow.labels.team}}, {{workflow.labels.who}}, {{workflow.annotations.note}}, {{workflow.labels.json}}";
    for (expression, expected) in [
        ("workflow.parameters.who + '!'", Ok("of Ada, Ada!, x, {\"team\":\"of Ada\",\"who\":\"Ada!\"}")),
        ("1 + 1", Err("workflowMetadata.labelsFrom.who: it is 2, which is no text")),
    ] {
        let mut trial = Trial::new(&format!(
            "  entrypoint: m\n  arguments: {{parameters: [{{name: who, value: Ada}}]}}\n  workflowMetadata: {}\n  templates:\n  \
             - {{name: m, wasm: {{image: e.wasm, args: ['{names}']}}}}\n",
            metadata.replace("EXPRESSION", &format!("\"{expression}\""))
        ));
        trial.run(echo);
        let node = trial.controller.node("w").unwrap();
        let found = node.outputs.result.as_deref().ok_or(node.message.as_str());
        assert_eq!(found, expected);
    }
}
