//! Workflows that are killed, suspended, stopped, and that go on.

use crate::{Desk, Ended, node};
use serde_json::Value;
use std::io::{BufRead, BufReader};

/// Nodes of a phase that are steps, by name, with the moments at which they began and ended.
fn ended_steps(status: &Value) -> Vec<(String, Value, Value)> {
    let nodes = status["status"]["nodes"].as_object().unwrap();
    let mut found: Vec<_> = nodes
        .values()
        .filter(|node| node["type"] == "Plugin" && node["phase"] == "Succeeded")
        .map(|node| {
            (node["name"].as_str().unwrap().to_owned(), node["startedAt"].clone(), node["finishedAt"].clone())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn a_killed_workflow_goes_on_where_it_was() {
    let desk = Desk::new();
    desk.workflow(
        "long",
        r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: work, template: work, withSequence: {count: 40}, arguments: {parameters: [{name: num, value: "{{item}}"}]}}
    - - name: sum
        template: echo
        arguments: {parameters: [{name: text, value: "{{steps.work.outputs.parameters.num}}"}]}
    outputs: {parameters: [{name: all, valueFrom: {parameter: "{{steps.sum.outputs.result}}"}}]}
  - name: work
    inputs: {parameters: [{name: num}]}
    wasm: {image: tool.wasm, args: [write, /num, "{{inputs.parameters.num}}"]}
    outputs: {parameters: [{name: num, valueFrom: {path: /num}}], artifacts: [{name: num, path: /num}]}
  - name: echo
    inputs: {parameters: [{name: text}]}
    wasm: {image: tool.wasm, args: [args, "{{inputs.parameters.text}}"]}
"#,
    );
    let mut kept: Vec<(String, Value, Value)> = Vec::new();
    let mut args = vec!["workflow", "run", "long.yaml", "--parallel", "2"];
    for wanted in [5, 15, 25] {
        let mut run = desk.start(&args);
        let status = desk.wait("long", |status| {
            ended_steps(status).len() >= wanted || status["status"]["phase"] == "Succeeded"
        });
        run.kill().unwrap();
        run.wait().unwrap();
        let ended = ended_steps(&status);
        // What had ended before it was killed was not done again.
        assert!(kept.iter().all(|step| ended.contains(step)), "{kept:?}\n{ended:?}");
        kept = ended;
        args = vec!["workflow", "resume", "long"];
    }
    if desk.status("long")["status"]["phase"] != "Succeeded" {
        let ended = desk.dhow(&["workflow", "resume", "long"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let status = desk.status("long");
    let ended = ended_steps(&status);
    assert_eq!(ended.len(), 41);
    assert!(kept.iter().all(|step| ended.contains(step)), "{kept:?}\n{ended:?}");
    let numbers: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let all = &node(&status, "long")["outputs"]["parameters"][0]["value"];
    let expected = serde_json::json!(["args", format!("[{}]", numbers.join(","))]);
    assert_eq!(serde_json::from_str::<Value>(all.as_str().unwrap()).unwrap(), expected);
    // Nothing half-written is left.
    let incomplete = desk.path(".dhow/workflows/artifacts/.incomplete");
    let left = std::fs::read_dir(incomplete).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn somebody_else_resumes_and_stops() {
    let desk = Desk::new();
    desk.workflow(
        "asks",
        r#"
  entrypoint: main
  onExit: bye
  templates:
  - name: main
    steps:
    - - {name: ask, template: ask}
    - - {name: sleep, template: sleep, when: "{{steps.ask.outputs.parameters.go}} == yes"}
  - name: ask
    suspend: {}
    outputs: {parameters: [{name: go, valueFrom: {supplied: {}}}]}
  - {name: sleep, wasm: {image: tool.wasm, args: [sleep, "60000"]}}
  - {name: bye, wasm: {image: tool.wasm, args: [args, "{{workflow.status}}"]}}
"#,
    );
    let run = desk.start(&["workflow", "run", "asks.yaml"]);
    let is_running = |status: &Value, name: &str| {
        let nodes = status["status"]["nodes"].as_object();
        let mut nodes = nodes.into_iter().flat_map(|nodes| nodes.values());
        nodes.any(|node| node["displayName"] == name && node["phase"] == "Running")
    };
    desk.wait("asks", |status| is_running(status, "ask"));
    let list = desk.dhow(&["workflow", "list"]);
    assert!(list.out.contains("asks") && list.out.contains("Running"), "{list:?}");
    let resumed = desk.dhow(&["workflow", "resume", "asks", "--node", "ask", "-p", "go=yes"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    desk.wait("asks", |status| is_running(status, "sleep"));
    let stopped = desk.dhow(&["workflow", "stop", "asks"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    let ended: Ended = run.wait_with_output().unwrap().into();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("Stopped with strategy 'Stop'"), "{ended:?}");
    let status = desk.status("asks");
    assert_eq!(node(&status, "sleep")["phase"], "Failed");
    assert_eq!(node(&status, "onExit")["outputs"]["result"], r#"["args","Failed"]"#);
}

#[test]
fn a_killed_workflow_that_waited_waits_on() {
    let desk = Desk::new();
    desk.workflow(
        "gate",
        r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: each, template: echo, withItems: [a, b], arguments: {parameters: [{name: text, value: "{{item}}"}]}}
    - - {name: approve, template: approve}
    - - name: deploy
        template: echo
        arguments:
          parameters:
          - {name: text, value: "{{steps.approve.outputs.parameters.go}} {{steps.each.outputs.result}}"}
  - name: approve
    suspend: {}
    outputs: {parameters: [{name: go, enum: ["yes", nah], valueFrom: {supplied: {}, default: nah}}]}
  - name: echo
    inputs: {parameters: [{name: text}]}
    wasm: {image: tool.wasm, args: [args, "{{inputs.parameters.text}}"]}
"#,
    );
    let waits = |status: &Value| {
        let nodes = status["status"]["nodes"].as_object();
        let mut nodes = nodes.into_iter().flat_map(|nodes| nodes.values());
        nodes.any(|node| node["displayName"] == "approve" && node["phase"] == "Running")
    };
    let mut run = desk.start(&["workflow", "run", "gate.yaml"]);
    desk.wait("gate", waits);
    run.kill().unwrap();
    run.wait().unwrap();
    let mut run = desk.start(&["workflow", "resume", "gate"]);
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    let hint = "approve waits. Let it go on with: dhow workflow resume gate --node approve";
    assert!(said.by_ref().any(|line| line == hint));
    assert!(waits(&desk.status("gate")));
    // A request that leads to nothing is told to whoever makes it.
    for wrong in [&["--node", "nobody"][..], &["-p", "go=perhaps"], &["-p", "other=1"]] {
        let ended = desk.dhow(&[&["workflow", "resume", "gate"][..], wrong].concat());
        assert_eq!(ended.code, Some(2), "{wrong:?}: {ended:?}");
    }
    let ended = desk.dhow(&["workflow", "resume", "gate", "--node", "approve", "-p", "go=yes"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    said.for_each(drop);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    let expected = r#"["args","yes [[\"args\",\"a\"],[\"args\",\"b\"]]"]"#;
    assert_eq!(node(&desk.status("gate"), "deploy")["outputs"]["result"], expected);
}
