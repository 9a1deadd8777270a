//! The executor plugin beside an agent that behaves as Argo's own does.

use crate::agent::{Plugin, TOKEN};
use crate::cluster::{ApiServer, EXECUTE, Flow, Pod, Sidecar};
use crate::foreign::{HERA, run_python};
use crate::workers::wait_for;
use crate::{Desk, guest, python};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn sidecar(plugin: &Plugin) -> Sidecar {
    Sidecar { address: plugin.address.clone(), token: TOKEN.to_owned(), method: EXECUTE }
}

/// A workflow with an agent of its own; its nodes.
fn run(server: &ApiServer, pod: &Pod<'_>, name: &str, yaml: &str) -> BTreeMap<String, Value> {
    std::thread::scope(|scope| {
        let agent = scope.spawn(|| pod.run());
        let nodes = Flow::new(server, name, yaml).run();
        pod.kill();
        agent.join().unwrap();
        nodes
    })
}

/// Requests and replies are what others take them for: hera's models are made of Argo's published schema.
pub(crate) fn check_with_hera(desk: &Desk, calls: &[(Value, Value)]) {
    let script = r#"
import json, re, sys
from hera.workflows import models as m
# What Argo's published definitions say of ExecuteTemplateReply, NodeResult and ArtifactLocation besides hera's models.
LOCATIONS = {"s3", "git", "http", "artifactory", "hdfs", "raw", "oss", "gcs", "azure", "plugin"}
count = 0
for request, reply in json.load(open("calls.json")):
    assert set(request) == {"workflow", "template"}, request
    m.Template.model_validate({k: v for k, v in request["template"].items() if k != "plugin"})
    assert set(reply) <= {"node", "requeue"}, reply
    assert re.fullmatch(r"([0-9.]+(h|ms|m|s))+", reply.get("requeue", "1s")), reply
    node = reply.get("node")
    if node is None:
        continue
    assert set(node) <= {"phase", "message", "outputs", "progress"}, node
    assert node["phase"] in {"Pending", "Running", "Succeeded", "Failed", "Error"}, node
    assert isinstance(node.get("message", ""), str)
    assert re.fullmatch("[0-9]+/[0-9]+", node.get("progress", "0/1")), node
    for artifact in node.get("outputs", {}).get("artifacts", []):
        assert re.fullmatch("[-a-zA-Z0-9_{}.]+", artifact["name"]), artifact
        assert len(LOCATIONS & set(artifact)) <= 1 and 0 <= artifact.get("mode", 0) <= 0o777, artifact
    for parameter in node.get("outputs", {}).get("parameters", []):
        assert isinstance(parameter.get("value", ""), str), parameter
    known = m.Outputs.model_validate(node.get("outputs", {})).model_dump(by_alias=True, exclude_none=True)
    assert known == node.get("outputs", {}), (known, node)
    count += 1
print(count)
"#;
    std::fs::write(desk.path("calls.json"), json!(calls).to_string()).unwrap();
    let output = Command::new(python()).args(["-c", script]).current_dir(desk.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(count > 0);
}

#[test]
fn a_workflow_that_hera_wrote_runs_beside_argos_agent() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let plugin = Plugin::start(&desk);
    let pod = Pod::new(&server, "hera", sidecar(&plugin));
    let nodes = run(&server, &pod, "hera", &run_python(&desk, HERA));
    assert_eq!(nodes["b"]["outputs"]["result"], r#"["args","7"]"#, "{nodes:#?}");
    assert_eq!(nodes["c(2:3)"]["outputs"]["result"], r#"["args","3"]"#);
    assert_eq!(nodes["one"]["outputs"]["result"], r#"["args","Ada"]"#);
    let seen = pod.seen.lock().unwrap();
    assert!(seen.longest < Duration::from_secs(15), "{:?}", seen.longest);
    check_with_hera(&desk, &seen.calls);
}

#[test]
fn letterflow_runs_beside_argos_agent() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/letterflow/letterflow.yaml");
    std::fs::create_dir(desk.path("build")).unwrap();
    std::fs::copy(guest("letterflow-pages"), desk.path("build/pages.wasm")).unwrap();
    let plugin = Plugin::start(&desk);
    let pod = Pod::new(&server, "letters", sidecar(&plugin));
    // The templates say `build/pages.wasm`, which is a path because of its ending.
    let nodes = run(&server, &pod, "letters", &std::fs::read_to_string(example).unwrap());
    assert_eq!(nodes["join"]["phase"], "Succeeded", "{nodes:#?}");
    let key = nodes["join"]["outputs"]["artifacts"][0]["s3"]["key"].as_str().unwrap();
    let stored = desk.path(".dhow/plugin/artifacts").join(key);
    let script = format!(
        "import json, pypdf; print(json.dumps([p.extract_text() for p in pypdf.PdfReader({:?}).pages]))",
        stored.to_str().unwrap()
    );
    let pages: Vec<String> = serde_json::from_str(&run_python(&desk, &script)).unwrap();
    assert_eq!(pages.len(), 3);
    assert!(pages[2].contains("nothing is left to go to") && pages[2].contains("Received"), "{pages:?}");
    check_with_hera(&desk, &pod.seen.lock().unwrap().calls);
}

const LONG: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: long}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: clock, template: clock}
    - - {name: sleep, template: sleep}
      - {name: fails, template: exit, continueOn: {failed: true}}
    - - {name: last, template: echo, arguments: {parameters: [{name: text, value: "{{steps.clock.outputs.result}}"}]}}
  - {name: clock, plugin: {wasm: {image: ./tool.wasm, args: [clock]}}}
  - {name: sleep, plugin: {wasm: {image: ./tool.wasm, args: [sleep, "12000"]}}}
  - {name: exit, retryStrategy: {limit: 1}, plugin: {wasm: {image: ./tool.wasm, args: [exit, "3"]}}}
  - {name: echo, inputs: {parameters: [{name: text}]}, plugin: {wasm: {image: ./tool.wasm, args: [args, "{{inputs.parameters.text}}"]}}}
"#;

#[test]
fn agent_and_plugin_are_killed_and_the_workflow_ends() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let first = Plugin::start(&desk);
    let sidecar = sidecar(&first);
    let nodes = std::thread::scope(|scope| {
        let flow = scope.spawn(|| Flow::new(&server, "long", LONG).run());
        let pod = Pod::new(&server, "long", sidecar.clone());
        std::thread::scope(|scope| {
            let agent = scope.spawn(|| pod.run());
            // The long step runs: the agent is killed, and forgets everything.
            server.wait("a step under way", |state| {
                let nodes = state.set("long")?["status"]["nodes"].as_object()?;
                nodes.values().any(|node| node["phase"] == "Running").then_some(())
            });
            pod.kill();
            agent.join().unwrap();
        });
        // The plugin is killed as well, in the middle of the step.
        first.kill();
        let pod = Pod::new(&server, "long", sidecar.clone());
        std::thread::scope(|scope| {
            let agent = scope.spawn(|| pod.run());
            // The agent finds no plugin and calls again; then there is one.
            server.wait("a call that failed", |_| (pod.seen.lock().unwrap().repeated > 0).then_some(()));
            let second = Plugin::start_at(&desk, &sidecar.address);
            let nodes = flow.join().unwrap();
            pod.kill();
            agent.join().unwrap();
            assert!(pod.seen.lock().unwrap().polled > 0);
            drop(second);
            nodes
        })
    });
    assert_eq!(nodes["sleep"]["phase"], "Succeeded", "{nodes:#?}");
    // Each try of what fails is a node of its own.
    assert_eq!(
        (&nodes["fails(0)"]["phase"], &nodes["fails(1)"]["phase"]),
        (&json!("Failed"), &json!("Failed"))
    );
    assert_eq!(nodes["fails(1)"]["outputs"]["exitCode"], "3");
    let clock = nodes["clock"]["outputs"]["result"].as_str().unwrap();
    assert_eq!(nodes["last"]["outputs"]["result"], format!(r#"["args","{clock}"]"#));
}

#[test]
fn without_its_token_nothing_runs() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let plugin = Plugin::start(&desk);
    let wrong = Sidecar { token: "wrong".to_owned(), ..sidecar(&plugin) };
    let pod = Pod::new(&server, "long", wrong);
    let nodes = run(&server, &pod, "long", LONG);
    assert_eq!(nodes["clock"]["phase"], "Failed");
    let message = nodes["clock"]["message"].as_str().unwrap();
    assert!(message.starts_with("403 Forbidden: the token"), "{message}");
}

#[test]
fn a_method_that_the_plugin_does_not_have_is_not_called_again() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let plugin = Plugin::start(&desk);
    let pod = Pod::new(&server, "long", Sidecar { method: "template.compile", ..sidecar(&plugin) });
    let nodes = run(&server, &pod, "long", LONG);
    assert_eq!(nodes["clock"]["message"], "no plugin executed the template");
    let seen = pod.seen.lock().unwrap();
    assert_eq!((seen.invalid, seen.calls.len()), (1, 0));
}

/// Steps at the same time, of which each takes a while.
const SLOW: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: slow}
spec:
  entrypoint: main
  templates:
  - {name: main, steps: [[{name: sleep, template: sleep, withItems: [1500, 1501, 1502], arguments: {parameters: [{name: time, value: "{{item}}"}]}}]]}
  - {name: sleep, inputs: {parameters: [{name: time}]}, plugin: {wasm: {image: ./tool.wasm, args: [sleep, "{{inputs.parameters.time}}"]}}}
"#;

#[test]
fn a_plugin_without_room_is_asked_again() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let plugin = Plugin::with(&desk, &["--parallel", "1", "--queue", "2"]);
    let pod = Pod::new(&server, "slow", sidecar(&plugin));
    let nodes = run(&server, &pod, "slow", SLOW);
    for item in ["sleep(0:1500)", "sleep(1:1501)", "sleep(2:1502)"] {
        assert_eq!(nodes[item]["phase"], "Succeeded", "{nodes:#?}");
    }
    let seen = pod.seen.lock().unwrap();
    assert!(
        seen.unavailable.iter().any(|said| said.contains("2 steps are under way")),
        "{:?}",
        seen.unavailable
    );
    assert!(seen.repeated > 0);
}

#[test]
fn a_plugin_that_stops_sends_its_callers_to_the_next_one() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let first = Plugin::start(&desk);
    let pod = Pod::new(&server, "slow", sidecar(&first));
    let nodes = std::thread::scope(|scope| {
        let agent = scope.spawn(|| pod.run());
        let flow = scope.spawn(|| Flow::new(&server, "slow", SLOW).run());
        wait_for(|| std::fs::read_dir(desk.path(".dhow/plugin/rooms")).is_ok_and(|rooms| rooms.count() == 3));
        let address = first.address.clone();
        first.stop();
        let _second = Plugin::start_at(&desk, &address);
        let nodes = flow.join().unwrap();
        pod.kill();
        agent.join().unwrap();
        nodes
    });
    assert_eq!(nodes["sleep(0:1500)"]["phase"], "Succeeded", "{nodes:#?}");
    let seen = pod.seen.lock().unwrap();
    assert_eq!(seen.unavailable, vec!["the plugin is stopping\n"; 3]);
}
