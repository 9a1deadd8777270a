//! Workflows as tables: what a workflow's YAML and the outcomes of its steps lead to. What names mean in them is in
//! `values`.

mod resumed;
mod values;

use super::{Controller, Identity, Shutdown, Start, Status};
use crate::definition::{Definition, Objects};
use crate::manifest::Manifest;
use crate::model::{Outputs, Parameter};
use crate::node::{Outcome, Phase, Time};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A workflow that is run by a function in the place of modules. Time passes when it is waited for.
struct Trial {
    controller: Controller,
    now: Time,
    /// The leaves in the order in which they began.
    began: Vec<String>,
    most_at_once: usize,
}

fn definition(yaml: &str) -> Objects {
    let text =
        format!("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n{yaml}");
    let manifest = Manifest::parse(&text, Path::new("w.yaml")).unwrap();
    manifest.objects().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn controller(objects: &Objects, status: Status, nodes: Vec<crate::node::Node>) -> Controller {
    let identity = Identity {
        name: "w".to_owned(),
        uid: "u".to_owned(),
        namespace: "default".to_owned(),
        created: 1_000_000,
    };
    Controller::new(Arc::new(Definition::new(objects).unwrap()), identity, status, nodes, BTreeMap::new())
}

impl Trial {
    fn new(yaml: &str) -> Trial {
        let controller = controller(&definition(yaml), Status::default(), Vec::new());
        Trial { controller, now: 1_000_000, began: Vec::new(), most_at_once: 0 }
    }

    /// Runs to the end, or until nothing can happen any more. The step's answer is its outcome by its arguments.
    fn run(&mut self, answer: impl Fn(&Start, &[String]) -> Outcome) -> Phase {
        let mut open: Vec<Start> = Vec::new();
        for _ in 0..10_000 {
            let turn = self.controller.operate(self.now);
            if self.controller.status().phase.is_fulfilled() {
                break;
            }
            open.retain(|start| !turn.cancel.contains(&start.name));
            for start in turn.start {
                self.began.push(start.name.clone());
                open.push(start);
            }
            self.most_at_once = self.most_at_once.max(open.len());
            if open.is_empty() {
                match turn.wake {
                    Some(at) => self.now = self.now.max(at),
                    None => break,
                }
                continue;
            }
            let start = open.remove(0);
            let outcome = answer(&start, &self.began);
            self.controller.finished(&start.name, outcome, self.now);
        }
        self.controller.status().phase
    }

    fn phase(&self, name: &str) -> Phase {
        self.controller.node(name).unwrap_or_else(|| panic!("no node {name}")).phase
    }

    fn output(&self, name: &str) -> String {
        let main = self.controller.node("w").unwrap();
        let found = main.outputs.parameters.iter().find(|parameter| parameter.name == name);
        found.unwrap_or_else(|| panic!("no output {name}")).value.clone().unwrap()
    }
}

/// What a step is called with.
fn args(start: &Start) -> Vec<String> {
    let options = start.template.wasm_options();
    let args = options.get("args").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    args.iter().map(crate::model::scalar_text).collect()
}

fn printed(text: &str) -> Outcome {
    let outputs =
        Outputs { result: Some(text.to_owned()), exit_code: Some("0".to_owned()), ..Outputs::default() };
    Outcome { phase: Phase::Succeeded, message: String::new(), outputs }
}

/// `fail` fails, `error` errs, `x=y` yields an output parameter as well, everything is printed.
fn echo(start: &Start, _: &[String]) -> Outcome {
    let text = args(start).join(" ");
    match text.split_once('=') {
        _ if text == "fail" => Outcome {
            outputs: Outputs { exit_code: Some("3".to_owned()), ..Outputs::default() },
            ..Outcome::failed("it failed")
        },
        _ if text == "error" => Outcome::error("no machine"),
        Some((name, value)) => {
            let mut outcome = printed(&text);
            let (name, value) = (name.to_owned(), Some(value.to_owned()));
            let declared = start.template.outputs.parameters.iter().find(|parameter| parameter.name == name);
            let global_name = declared.map(|parameter| parameter.global_name.clone()).unwrap_or_default();
            outcome.outputs.parameters.push(Parameter { name, value, global_name, ..Parameter::default() });
            outcome
        }
        None => printed(&text),
    }
}

const ECHO: &str = "
  - name: echo
    inputs: {parameters: [{name: text, default: hello}]}
    wasm: {image: e.wasm, args: ['{{inputs.parameters.text}}']}
    outputs: {parameters: [{name: 'n'}, {name: v}, {name: x}, {name: nothing}]}
";

fn with_echo(yaml: &str) -> String {
    format!("{yaml}{ECHO}")
}

#[test]
fn steps_run_in_groups_and_hand_over_results() {
    let mut trial = Trial::new(&with_echo(
        "
  entrypoint: main
  arguments: {parameters: [{name: who, value: Ada}]}
  templates:
  - name: main
    inputs: {parameters: [{name: who}]}
    steps:
    - - {name: a, template: echo, arguments: {parameters: [{name: text, value: '{{inputs.parameters.who}}'}]}}
      - {name: b, template: echo, arguments: {parameters: [{name: text, value: n=4}]}}
    - - name: c
        template: echo
        arguments: {parameters: [{name: text, value: '{{steps.a.outputs.result}}-{{=asInt(steps.b.outputs.parameters.n) + 1}}-{{workflow.parameters.who}}'}]}
    outputs:
      parameters:
      - {name: all, valueFrom: {parameter: '{{steps.c.outputs.result}}'}}
      - {name: code, valueFrom: {expression: \"steps.c.exitCode + '!'\"}}
      - {name: other, valueFrom: {parameter: '{{steps.c.outputs.parameters.nothing}}', default: none}}
",
    ));
    assert_eq!(trial.run(echo), Phase::Succeeded);
    assert_eq!(trial.began, ["w[0].a", "w[0].b", "w[1].c"]);
    assert_eq!(trial.output("all"), "Ada-5-Ada");
    assert_eq!(trial.output("code"), "0!");
    assert_eq!(trial.output("other"), "none");
}

#[test]
fn what_happens_to_a_template_of_steps() {
    // A group of steps, what becomes of the workflow, and which leaves began.
    let cases: &[(&str, Phase, &[&str])] = &[
        ("- - {name: a, template: echo}", Phase::Succeeded, &["w[0].a"]),
        (
            "- - {name: a, template: echo, when: '1 > 2'}\n    - - {name: b, template: echo}",
            Phase::Succeeded,
            &["w[1].b"],
        ),
        ("- - {name: a, template: echo, when: 'true && hello == hello'}", Phase::Succeeded, &["w[0].a"]),
        ("- - {name: a, template: echo, when: '{{workflow.name}} words'}", Phase::Failed, &[]),
        (
            "- - {name: a, template: echo, arguments: {parameters: [{name: text, value: fail}]}}\n    - - {name: b, template: echo}",
            Phase::Failed,
            &["w[0].a"],
        ),
        (
            "- - {name: a, template: echo, continueOn: {failed: true}, arguments: {parameters: [{name: text, value: fail}]}}\n    - - {name: b, template: echo}",
            Phase::Succeeded,
            &["w[0].a", "w[1].b"],
        ),
        (
            "- - {name: a, template: echo, continueOn: {failed: true}, arguments: {parameters: [{name: text, value: error}]}}\n    - - {name: b, template: echo}",
            Phase::Failed,
            &["w[0].a"],
        ),
        (
            "- - {name: a, template: echo, withItems: [x, 2, {k: v}], arguments: {parameters: [{name: text, value: '{{item}}'}]}}",
            Phase::Succeeded,
            &["w[0].a(0:x)", "w[0].a(1:2)", "w[0].a(2:k:v)"],
        ),
        ("- - {name: a, template: echo, withItems: []}", Phase::Succeeded, &[]),
        (
            "- - {name: a, template: echo, withParam: '[1,\"b\"]', when: '{{item}} != 1'}",
            Phase::Succeeded,
            &["w[0].a(1:b)"],
        ),
        ("- - {name: a, template: echo, withParam: 'no list'}", Phase::Failed, &[]),
        (
            "- - {name: a, template: echo, withSequence: {start: 3, end: 1, format: f%02d}}",
            Phase::Succeeded,
            &["w[0].a(0:f03)", "w[0].a(1:f02)", "w[0].a(2:f01)"],
        ),
        (
            "- - {name: a, template: echo}\n    - - {name: b, template: echo, when: '{{steps.a.outputs.result}} == hello'}",
            Phase::Succeeded,
            &["w[0].a", "w[1].b"],
        ),
    ];
    for (steps, phase, began) in cases {
        let yaml =
            with_echo(&format!("  entrypoint: m\n  templates:\n  - name: m\n    steps:\n    {steps}\n"));
        let mut trial = Trial::new(&yaml);
        assert_eq!(trial.run(echo), *phase, "{steps}\n{:?}", trial.controller.status());
        assert_eq!(trial.began, *began, "{steps}");
    }
}

#[test]
fn what_happens_to_a_dag() {
    let task = |name: &str, text: &str, more: &str| {
        format!(
            "      - {{name: {name}, template: echo, arguments: {{parameters: [{{name: text, value: '{text}'}}]}}{more}}}\n"
        )
    };
    let plain = |name: &str, more: &str| task(name, "hello", more);
    let cases: Vec<(&str, String, Phase, &[&str])> = vec![
        (
            "diamond",
            plain("a", "")
                + &plain("b", ", dependencies: [a]")
                + &plain("c", ", dependencies: [a]")
                + &plain("d", ", dependencies: [b, c]"),
            Phase::Succeeded,
            &["w.a", "w.b", "w.c", "w.d"],
        ),
        (
            "results reach those behind, near and far",
            task("a", "v=1", "")
                + &task("b", "{{tasks.a.outputs.parameters.v}}", ", dependencies: [a]")
                + &task(
                    "c",
                    "{{tasks.a.outputs.parameters.v}}{{tasks.b.outputs.result}}",
                    ", dependencies: [b]",
                ),
            Phase::Succeeded,
            &["w.a", "w.b", "w.c"],
        ),
        (
            "a failure stops what is behind and beside",
            task("a", "fail", "")
                + &plain("b", ", dependencies: [a]")
                + &plain("c", "")
                + &plain("d", ", dependencies: [c]"),
            Phase::Failed,
            &["w.a", "w.c"],
        ),
        (
            "depends on a failure",
            task("a", "fail", "")
                + &plain("b", ", depends: a.Failed")
                + &plain("c", ", depends: a.Succeeded"),
            Phase::Failed,
            &["w.a", "w.b"],
        ),
        (
            "a failure that was expected",
            task("a", "fail", "") + &plain("b", ", depends: 'a.Failed || a.Succeeded'"),
            Phase::Succeeded,
            &["w.a", "w.b"],
        ),
        (
            "continueOn",
            task("a", "fail", ", continueOn: {failed: true}") + &plain("b", ", dependencies: [a]"),
            Phase::Succeeded,
            &["w.a", "w.b"],
        ),
        (
            "skipped counts as done",
            plain("a", ", when: 'false'")
                + &plain("b", ", depends: a")
                + &plain("c", ", depends: a.Succeeded"),
            Phase::Succeeded,
            &["w.b"],
        ),
        (
            "items, all together and any of them",
            plain("a", ", withItems: [1, 2]")
                + &task("b", "{{tasks.a.outputs.result}}", ", depends: a.AnySucceeded")
                + &plain("c", ", depends: a.AllFailed"),
            Phase::Succeeded,
            &["w.a(0:1)", "w.a(1:2)", "w.b"],
        ),
    ];
    for (what, tasks, phase, began) in cases {
        let yaml = with_echo(&format!(
            "  entrypoint: m\n  templates:\n  - name: m\n    dag:\n      tasks:\n{tasks}"
        ));
        let mut trial = Trial::new(&yaml);
        assert_eq!(trial.run(echo), phase, "{what}: {:?}", trial.controller.status());
        assert_eq!(trial.began, began, "{what}");
    }
}

#[test]
fn a_dag_without_fail_fast_goes_on_beside_a_failure_and_a_target_leaves_the_rest_out() {
    let fail = "arguments: {parameters: [{name: text, value: fail}]}";
    let tasks = format!(
        "{{name: a, template: echo, {fail}}}, {{name: b, template: echo}}, {{name: c, template: echo, dependencies: [b]}}"
    );
    for (more, began) in
        [(", failFast: false", vec!["w.a", "w.b", "w.c"]), (", target: c", vec!["w.b", "w.c"])]
    {
        let yaml =
            format!("  entrypoint: m\n  templates:\n  - name: m\n    dag: {{tasks: [{tasks}]{more}}}\n");
        let mut trial = Trial::new(&with_echo(&yaml));
        trial.run(echo);
        assert_eq!(trial.began, began, "{more}");
    }
}

#[test]
fn retries() {
    // The strategy, what fails, and how often it is tried; seconds that pass.
    let cases = [
        ("{limit: 3}", "fail", 4, 0),
        ("{limit: '0'}", "fail", 1, 0),
        ("{limit: 3}", "error", 1, 0),
        ("{limit: 2, retryPolicy: OnError}", "error", 3, 0),
        ("{limit: 2, retryPolicy: Always}", "error", 3, 0),
        ("{limit: 9, expression: 'asInt(lastRetry.exitCode) != 3'}", "fail", 1, 0),
        ("{limit: 9, expression: 'asInt(retries) < 2'}", "fail", 3, 0),
        ("{limit: 3, backoff: {duration: '1', factor: 2}}", "fail", 4, 7),
        ("{limit: 9, backoff: {duration: 10s, factor: 3, cap: 20s, maxDuration: 1m}}", "fail", 4, 50),
        ("{limit: 3}", "hello", 1, 0),
    ];
    for (strategy, text, count, seconds) in cases {
        let yaml = format!(
            "  entrypoint: m\n  templates:\n  - name: m\n    retryStrategy: {strategy}\n    wasm: {{image: e.wasm, args: [{text}]}}\n"
        );
        let mut trial = Trial::new(&yaml);
        let phase = trial.run(echo);
        assert_eq!(trial.began.len(), count, "{strategy}: {:?}", trial.began);
        assert_eq!(trial.now, 1_000_000 + seconds * 1000, "{strategy}");
        assert_eq!(phase.is_failed(), text != "hello", "{strategy}");
    }
    // It may succeed later, and knows which try it is.
    let yaml = "  entrypoint: m\n  templates:\n  - name: m\n    retryStrategy: {limit: 5}\n    wasm: {image: e.wasm, args: ['{{retries}}']}\n";
    let mut trial = Trial::new(yaml);
    let phase = trial.run(|start, began| match args(start).join("").as_str() {
        "2" => echo(start, began),
        _ => Outcome::failed("not yet"),
    });
    assert_eq!((phase, trial.began.len()), (Phase::Succeeded, 3));
    assert_eq!(trial.controller.node("w").unwrap().outputs.result.as_deref(), Some("2"));
}

#[test]
fn exit_handlers_and_hooks() {
    let yaml = "
  entrypoint: m
  onExit: bye
  templates:
  - name: m
    steps:
    - - name: a
        template: echo
        arguments: {parameters: [{name: text, value: TEXT}]}
        hooks:
          exit: {template: echo, arguments: {parameters: [{name: text, value: 'a was {{steps.a.status}}'}]}}
          late: {template: echo, expression: 'steps.a.status == \"Succeeded\"'}
  - name: bye
    steps:
    - - {name: tell, template: echo, arguments: {parameters: [{name: text, value: '{{workflow.status}}'}]}}
";
    for (text, phase, began) in [
        ("hello", Phase::Succeeded, vec!["w[0].a", "w[0].a.onExit", "w[0].a.hooks.late", "w.onExit[0].tell"]),
        ("fail", Phase::Failed, vec!["w[0].a", "w[0].a.onExit", "w.onExit[0].tell"]),
    ] {
        let mut trial = Trial::new(&with_echo(&yaml.replace("TEXT", text)));
        let said = std::cell::RefCell::new(Vec::new());
        let found = trial.run(|start, began| {
            said.borrow_mut().push(args(start).join(" "));
            echo(start, began)
        });
        assert_eq!(found, phase);
        assert_eq!(trial.began, began);
        let said = said.into_inner();
        assert!(said.contains(&format!("a was {}", phase.name())), "{said:?}");
        assert_eq!(said.last().unwrap(), phase.name());
    }
}

#[test]
fn a_suspended_step_waits_for_its_time_or_for_somebody() {
    let yaml = "
  entrypoint: m
  templates:
  - name: m
    steps:
    - - {name: pause, template: pause}
    - - {name: ask, template: ask}
    - - {name: a, template: echo, arguments: {parameters: [{name: text, value: '{{steps.ask.outputs.parameters.ok}}'}]}}
  - {name: pause, suspend: {duration: '90'}}
  - name: ask
    suspend: {}
    outputs: {parameters: [{name: ok, enum: ['YES', 'NO'], valueFrom: {supplied: {}}}]}
";
    let mut trial = Trial::new(&with_echo(yaml));
    assert_eq!(trial.run(echo), Phase::Running);
    assert_eq!(trial.now, 1_000_000 + 90_000);
    assert_eq!(trial.controller.suspended(), ["w[1].ask"]);
    let now = trial.now;
    let values = |value: &str| vec![("ok".to_owned(), value.to_owned())];
    assert!(trial.controller.resume(None, &[], now).is_err());
    assert!(trial.controller.resume(None, &values("PERHAPS"), now).is_err());
    assert_eq!(trial.controller.resume(Some("other"), &[], now), Ok(0));
    assert_eq!(trial.controller.resume(Some("ask"), &values("YES"), now), Ok(1));
    assert_eq!(trial.run(echo), Phase::Succeeded);
    assert_eq!(trial.controller.node("w[2].a").unwrap().outputs.result.as_deref(), Some("YES"));
}

#[test]
fn a_stop_ends_what_runs_and_lets_the_exit_handler_run() {
    for (how, began) in [(Shutdown::Stop, vec!["w[0].a", "w.onExit"]), (Shutdown::Terminate, vec!["w[0].a"])]
    {
        let mut trial = Trial::new(&with_echo(
            "  entrypoint: m\n  onExit: echo\n  templates:\n  - name: m\n    steps: [[{name: a, template: echo}], [{name: b, template: echo}]]\n",
        ));
        let turn = trial.controller.operate(trial.now);
        trial.began.extend(turn.start.iter().map(|start| start.name.clone()));
        trial.controller.shut_down(how);
        let turn = trial.controller.operate(trial.now);
        assert_eq!(turn.cancel, ["w[0].a"]);
        for start in turn.start {
            trial.began.push(start.name.clone());
            trial.controller.finished(&start.name, printed("bye"), trial.now);
        }
        assert_eq!(trial.run(echo), Phase::Failed);
        assert_eq!(trial.began, began, "{how:?}");
        assert!(trial.controller.status().message.contains(&format!("{how:?}")));
    }
}

#[test]
fn deadlines_and_parallelism() {
    let items = "{name: a, template: echo, withItems: [1, 2, 3, 4, 5]}";
    for (spec, template, most) in
        [("", "", 5), ("parallelism: 2\n  ", "", 2), ("", "    parallelism: 3\n", 3)]
    {
        let yaml = with_echo(&format!(
            "  {spec}entrypoint: m\n  templates:\n  - name: m\n{template}    steps: [[{items}]]\n"
        ));
        let mut trial = Trial::new(&yaml);
        assert_eq!(trial.run(echo), Phase::Succeeded);
        assert_eq!((trial.began.len(), trial.most_at_once), (5, most), "{spec}{template}");
    }
    // One failed: what waits for room does not begin any more.
    let one = "- - {name: a, template: echo, withItems: [fail, x, y], arguments: {parameters: [{name: text, value: '{{item}}'}]}}";
    let two = "- - {name: a, template: echo, arguments: {parameters: [{name: text, value: fail}]}}\n      - {name: b, template: echo}";
    let dag = "dag: {tasks: [{name: a, template: echo, withItems: [fail, x, y], arguments: {parameters: [{name: text, value: '{{item}}'}]}}]}";
    for (spec, template, parts, began) in [
        ("", "", format!("steps:\n    {one}"), 3),
        ("parallelism: 1\n  ", "", format!("steps:\n    {one}"), 3),
        ("parallelism: 1\n  ", "failFast: true\n    ", format!("steps:\n    {one}"), 1),
        ("", "failFast: true\n    parallelism: 1\n    ", format!("steps:\n    {one}"), 1),
        ("parallelism: 1\n  ", "failFast: true\n    ", format!("steps:\n    {two}"), 1),
        ("parallelism: 1\n  ", "", format!("steps:\n    {two}"), 2),
        ("parallelism: 1\n  ", "failFast: true\n    ", dag.to_owned(), 1),
    ] {
        let yaml =
            with_echo(&format!("  {spec}entrypoint: m\n  templates:\n  - name: m\n    {template}{parts}\n"));
        let mut trial = Trial::new(&yaml);
        assert_eq!(trial.run(echo), Phase::Failed, "{yaml}");
        assert_eq!(trial.began.len(), began, "{yaml}");
    }
    let mut trial = Trial::new(
        "  entrypoint: m\n  activeDeadlineSeconds: 60\n  templates:\n  - name: m\n    suspend: {}\n",
    );
    assert_eq!(trial.run(echo), Phase::Failed);
    assert_eq!(trial.now, 1_000_000 + 60_000);
    // A leaf is told until when it may run.
    let mut trial =
        Trial::new("  entrypoint: m\n  templates:\n  - {name: m, timeout: 30s, wasm: {image: e.wasm}}\n");
    let turn = trial.controller.operate(5_000);
    assert_eq!(turn.start.first().unwrap().deadline, Some(35_000));
    trial.now = 5_000;
}

#[test]
fn global_outputs_recursion_inline_templates_and_memoization() {
    let mut trial = Trial::new(
        "
  entrypoint: m
  templates:
  - name: m
    steps:
    - - {name: a, template: set}
    - - name: b
        inline: {wasm: {image: e.wasm, args: ['{{workflow.outputs.parameters.shared}}']}}
    - - {name: c, template: down, arguments: {parameters: [{name: num, value: 2}]}}
    - - {name: d, template: set}
  - name: set
    memoize: {key: same, cache: {configMap: {name: c}}}
    outputs: {parameters: [{name: x, globalName: shared, valueFrom: {path: /tmp/x}}]}
    wasm: {image: e.wasm, args: [x=7]}
  - name: down
    inputs: {parameters: [{name: num}]}
    steps:
    - - name: less
        template: down
        when: '{{inputs.parameters.num}} > 0'
        arguments: {parameters: [{name: num, value: '{{=asInt(inputs.parameters.num) - 1}}'}]}
",
    );
    assert_eq!(trial.run(echo), Phase::Succeeded, "{:?}", trial.controller.status());
    assert_eq!(trial.began, ["w[0].a", "w[1].b"]);
    assert_eq!(trial.controller.node("w[1].b").unwrap().outputs.result.as_deref(), Some("7"));
    assert_eq!(trial.phase("w[2].c[0].less[0].less[0].less"), Phase::Skipped);
    assert!(trial.controller.node("w[3].d").unwrap().memoized);
    // As deep as in Argo.
    let deep = |num: usize| {
        format!(
            "  entrypoint: m\n  arguments: {{parameters: [{{name: num, value: {num}}}]}}\n  templates:\n  - name: m\n    \
             inputs: {{parameters: [{{name: num}}]}}\n    steps:\n    - - {{name: a, template: m, when: '{{{{inputs.parameters.num}}}} > \
             1', arguments: {{parameters: [{{name: num, value: '{{{{=asInt(inputs.parameters.num) - 1}}}}'}}]}}}}\n"
        )
    };
    for (num, phase) in [(100, Phase::Succeeded), (101, Phase::Failed)] {
        let mut trial = Trial::new(&deep(num));
        assert_eq!(trial.run(echo), phase, "{num}: {:?}", trial.controller.status());
    }
    // Recursion that never ends is ended.
    let mut trial =
        Trial::new("  entrypoint: m\n  templates:\n  - {name: m, steps: [[{name: a, template: m}]]}\n");
    assert!(trial.run(echo).is_failed());
}

#[test]
fn a_chain_of_tasks_is_as_long_as_it_is() {
    let task = |number: usize| {
        let depends = number.checked_sub(1).map(|last| format!("depends: t{last}")).unwrap_or_default();
        format!("      - {{name: t{number}, inline: {{suspend: {{}}}}, {depends}}}\n")
    };
    let tasks: String = (0..1500).map(task).collect();
    let text = format!(
        "kind: Workflow\nspec:\n  entrypoint: m\n  templates:\n  - name: m\n    dag:\n      tasks:\n{tasks}"
    );
    let manifest = Manifest::parse(&text, Path::new("w.yaml")).unwrap();
    // Unchecked: that is another subject, and takes longer.
    let objects = Objects::new(manifest.values()).unwrap();
    let (mut controller, now) = (controller(&objects, Status::default(), Vec::new()), 1_000_000);
    for number in 0..3 {
        controller.operate(now);
        assert_eq!(controller.suspended(), [format!("w.t{number}")], "{:?}", controller.status());
        assert_eq!(controller.resume(None, &[], now), Ok(1));
    }
}

#[test]
fn all_that_is_asked_for_goes_on_or_nothing_does() {
    let yaml = "
  entrypoint: m
  templates:
  - name: m
    steps: [[{name: any, template: any}, {name: ask, template: ask}]]
  - {name: any, suspend: {}}
  - {name: ask, suspend: {}, outputs: {parameters: [{name: ok, valueFrom: {supplied: {}}}]}}
";
    let mut trial = Trial::new(yaml);
    trial.controller.operate(trial.now);
    assert!(trial.controller.resume(None, &[], trial.now).is_err());
    assert_eq!(trial.controller.suspended(), ["w[0].any", "w[0].ask"]);
}
