//! A workflow that goes on after an interruption.

use super::*;

#[test]
fn a_workflow_goes_on_from_its_nodes_alone() {
    let yaml = with_echo(
        "
  entrypoint: m
  onExit: echo
  templates:
  - name: m
    retryStrategy: {limit: 1}
    dag:
      tasks:
      - {name: a, template: echo, withItems: [1, 2, 3]}
      - {name: b, template: echo, dependencies: [a], arguments: {parameters: [{name: text, value: '{{tasks.a.outputs.result}}'}]}}
",
    );
    let objects = definition(&yaml);
    let whole = {
        let mut trial = Trial::new(&yaml);
        assert_eq!(trial.run(echo), Phase::Succeeded);
        trial.began
    };
    // Killed after every possible number of steps, it does the rest, and nothing twice that had ended.
    for killed_after in 0..=whole.len() {
        let mut first = controller(&objects, Status::default(), Vec::new());
        let mut ended = Vec::new();
        let mut open = Vec::new();
        while ended.len() < killed_after && !first.status().phase.is_fulfilled() {
            open.extend(first.operate(1_000_000).start);
            if open.is_empty() {
                continue;
            }
            let start: Start = open.remove(0);
            first.finished(&start.name, echo(&start, &[]), 1_000_000);
            ended.push(start.name);
        }
        let nodes = first.nodes().cloned().collect();
        let mut trial = Trial {
            controller: controller(&objects, first.status().clone(), nodes),
            now: 1_000_000,
            began: Vec::new(),
            most_at_once: 0,
        };
        assert_eq!(trial.run(echo), Phase::Succeeded, "killed after {killed_after}");
        ended.extend(trial.began);
        assert_eq!(ended, whole, "killed after {killed_after}");
        let result = &trial.controller.node("w(0).b").unwrap().outputs.result;
        assert_eq!(result.as_deref(), Some("[\"hello\",\"hello\",\"hello\"]"));
    }
}

#[test]
fn what_ended_before_an_interruption_is_handed_over_after_it() {
    let each = "template: echo, arguments: {parameters: [{name: text, value: 'x={{item}}'}]}";
    let steps = |items: &str, output: &str| {
        format!(
            "
  entrypoint: m
  templates:
  - name: m
    outputs: {{parameters: [{{name: all, valueFrom: {{parameter: '{{{{steps.each.outputs.{output}}}}}'}}}}]}}
    steps:
    - - {{name: each, {items}, {each}}}
    - - {{name: between, template: echo}}
    - - {{name: join, template: echo, arguments: {{parameters: [{{name: text, value: '{{{{steps.each.outputs.{output}}}}}'}}]}}}}
"
        )
    };
    let dag = |items: &str, output: &str| {
        format!(
            "
  entrypoint: m
  templates:
  - name: m
    outputs: {{parameters: [{{name: all, valueFrom: {{parameter: '{{{{tasks.each.outputs.{output}}}}}'}}}}]}}
    dag:
      tasks:
      - {{name: each, {items}, {each}}}
      - {{name: between, template: echo, depends: each}}
      - {{name: join, template: echo, depends: between, arguments: {{parameters: [{{name: text, value: '{{{{tasks.each.outputs.{output}}}}}'}}]}}}}
"
        )
    };
    let eleven = "withSequence: {count: 11}";
    let cases = [
        ("withItems: [1, 2]", "result", r#"["x=1","x=2"]"#),
        ("withParam: '[\"a(0:b)\", 2]'", "parameters.x", r#"["a(0:b)",2]"#),
        ("withItems: [1, 2]", "parameters", r#"[{"x":"1"},{"x":"2"}]"#),
        (eleven, "parameters.x", "[0,1,2,3,4,5,6,7,8,9,10]"),
        ("withParam: '[]'", "result", "[]"),
    ];
    for (items, output, expected) in cases {
        for yaml in [steps(items, output), dag(items, output)] {
            let yaml = with_echo(&yaml);
            let mut lives_on = Trial::new(&yaml);
            assert_eq!(lives_on.run(echo), Phase::Succeeded, "{yaml}");
            let mut controller = Trial::new(&yaml).controller;
            // What runs begins anew with each new process, so one step ends in each.
            while let Some(start) = controller.operate(1_000_000).start.first() {
                controller.finished(&start.name, echo(start, &[]), 1_000_000);
                let (status, nodes) = (controller.status().clone(), controller.nodes().cloned().collect());
                controller = self::controller(&definition(&yaml), status, nodes);
            }
            assert_eq!(controller.status().phase, Phase::Succeeded, "{:?}\n{yaml}", controller.status());
            let resumed = Trial { controller, now: 0, began: Vec::new(), most_at_once: 0 };
            for trial in [lives_on, resumed] {
                assert_eq!(trial.output("all"), expected, "{yaml}");
            }
        }
    }
}
