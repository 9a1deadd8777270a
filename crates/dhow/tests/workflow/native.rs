//! The native agent, against an API server that forgets, refuses and cuts off.

use crate::cluster::{ApiServer, Flow, SETS, tasks_of};
use crate::simulator::check_with_hera;
use crate::workers::{Worker, url};
use crate::{Desk, foreign::run_python};
use http::StatusCode;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;

/// An agent as a user starts it; killed when it is dropped.
pub(crate) struct Agent(Child);

impl Agent {
    pub(crate) fn start(desk: &Desk, server: &ApiServer, name: &str, more: &[&str]) -> Agent {
        let token = server.state().token.clone();
        std::fs::write(desk.path("token"), token).unwrap();
        let place = ["--server", &server.address, "--token-file", "token", "--namespace", "argo"];
        Agent::start_at(desk, name, &[&place[..], more].concat())
    }

    fn start_at(desk: &Desk, name: &str, more: &[&str]) -> Agent {
        let data_dir = desk.path(name);
        let data_dir = data_dir.to_str().unwrap();
        let mut args = vec!["argo", "agent", "--identity", name, "--data-dir", data_dir];
        args.extend(["--artifacts", "artifacts"]);
        args.extend(more);
        let mut process = desk.start(&args);
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("Argo agent"))).unwrap().unwrap();
        // The pipe is read on, so that the agent never waits for it.
        std::thread::spawn(move || lines.for_each(drop));
        Agent(process)
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    fn stop(mut self) {
        let killed = std::process::Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(killed.success());
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tool(args: &[&str]) -> Value {
    json!({"name": "step", "inputs": {}, "outputs": {}, "metadata": {}, "plugin": {"wasm": {"image": "./tool.wasm", "args": args}}})
}

fn with(mut template: Value, more: Value) -> Value {
    crate::cluster::merge(&mut template, &more);
    template
}

/// The status of a node says that it runs.
fn wait_until_it_runs(server: &ApiServer, set: &str, node: &str) {
    server.wait(node, |state| {
        let result = &state.set(set)?["status"]["nodes"][node];
        // A deadline of the controller counts for Pending nodes only.
        assert_ne!(result["phase"], "Running");
        result["message"].as_str()?.starts_with("running on").then_some(())
    });
}

#[test]
fn what_becomes_of_tasks() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let _agent = Agent::start(&desk, &server, "one", &[]);
    let outputs = json!({"outputs": {
        "parameters": [{"name": "p", "valueFrom": {"path": "/p", "default": "none"}}],
        "artifacts": [{"name": "a", "path": "/out/a"}],
    }});
    // Task, phase, a part of the message, the result.
    let cases = [
        (with(tool(&["write", "/out/a", "x"]), outputs), "Succeeded", "", json!("")),
        (tool(&["args", "y"]), "Succeeded", "", json!("[\"args\",\"y\"]")),
        (tool(&["exit", "7"]), "Failed", "Error (exit code 7)", json!("")),
        (with(tool(&["sleep", "60000"]), json!({"timeout": "1s"})), "Failed", "deadline", Value::Null),
        (
            with(tool(&["sleep", "60000"]), json!({"activeDeadlineSeconds": 1})),
            "Failed",
            "deadline",
            Value::Null,
        ),
        (
            with(tool(&[]), json!({"plugin": {"wasm": {"image": "./none.wasm"}}})),
            "Error",
            "none.wasm does not exist",
            Value::Null,
        ),
        (
            with(tool(&[]), json!({"plugin": {"wasm": {"imge": "x"}}})),
            "Error",
            "did you mean `image`?",
            Value::Null,
        ),
        (
            json!({"name": "o", "plugin": {"slack": {}}}),
            "Failed",
            "no plugin executed the template",
            Value::Null,
        ),
        (json!({"name": "o", "container": {"image": "x"}}), "Error", "dhow's agent runs", Value::Null),
        (json!({"name": 7}), "Error", "the template cannot be read", Value::Null),
    ];
    let tasks: serde_json::Map<String, Value> =
        cases.iter().enumerate().map(|(n, case)| (format!("wf-{n}"), case.0.clone())).collect();
    server.change(|state| state.put_tasks("wf", "5f0e", tasks.into()));
    for (number, (task, phase, message, result)) in cases.iter().enumerate() {
        let found = server.result("wf", &format!("wf-{number}"));
        assert_eq!(found["phase"], *phase, "{task}: {found}");
        assert!(found["message"].as_str().unwrap().contains(message), "{task}: {found}");
        assert_eq!(found["outputs"]["result"], *result, "{task}: {found}");
    }
    let first = server.result("wf", "wf-0");
    assert_eq!(first["progress"], "1/1");
    let outputs = json!({
        "parameters": [{"name": "p", "value": "none"}],
        // As Argo calls the pod of that node, so that logs and artifacts are found where they are looked for.
        "artifacts": [{"name": "a", "path": "/out/a", "s3": {"key": "wf/wf-step-0/a.tgz"}}],
        "result": "", "exitCode": "0",
    });
    assert_eq!(first["outputs"], outputs);
    assert!(desk.path("artifacts/wf/wf-step-0/a.tgz").exists());
    assert!(desk.path("one/logs/wf-step-1.log").exists());
}

#[test]
fn workflows_that_hera_wrote_run() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let agents = [
        Agent::start(&desk, &server, "zero", &["--shard", "0/2"]),
        Agent::start(&desk, &server, "one", &["--shard", "1/2"]),
    ];
    let yaml = run_python(&desk, crate::foreign::HERA);
    let flows: Vec<_> = std::thread::scope(|scope| {
        let flows: Vec<_> = (0..4)
            .map(|number| {
                let (server, yaml) = (&server, &yaml);
                scope.spawn(move || Flow::new(server, &format!("hera-{number}"), yaml).run())
            })
            .collect();
        flows.into_iter().map(|flow| flow.join().unwrap()).collect()
    });
    for nodes in flows {
        assert_eq!(nodes["b"]["outputs"]["result"], r#"["args","7"]"#, "{nodes:#?}");
        assert_eq!(nodes["c(2:3)"]["outputs"]["result"], r#"["args","3"]"#);
        assert_eq!(nodes["one"]["outputs"]["result"], r#"["args","Ada"]"#);
        assert_eq!(nodes["three"]["phase"], "Skipped");
    }
    // Each node was written once, by the agent of its workflow's shard.
    let mut written = std::collections::BTreeMap::new();
    let mut results = Vec::new();
    for patch in &server.state().patches {
        for (node, result) in patch["status"]["nodes"].as_object().unwrap() {
            results.push((json!({"workflow": {}, "template": {}}), json!({"node": result})));
            if result["phase"] != "Pending" {
                *written.entry(node.clone()).or_insert(0) += 1;
            }
        }
    }
    assert!(written.len() == 4 * 7 && written.values().all(|times| *times == 1), "{written:?}");
    check_with_hera(&desk, &results);
    agents.into_iter().for_each(Agent::stop);
    // Whoever stops lets go of its Lease.
    let state = server.state();
    for shard in ["dhow-argo-agent-0-of-2", "dhow-argo-agent-1-of-2"] {
        let lease = &state.objects[&("leases".to_owned(), "argo".to_owned(), shard.to_owned())];
        assert_eq!(
            (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
            (&json!(""), &json!(0))
        );
    }
}

#[test]
fn many_short_steps_make_few_patches() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let _agent = Agent::start(&desk, &server, "one", &["--no-lease"]);
    server.change(|state| state.put_tasks("warm", "0", json!({"warm-1": tool(&["args"])})));
    server.result("warm", "warm-1");
    let count = 200;
    let tasks: serde_json::Map<String, Value> =
        (0..count).map(|n| (format!("wf-{n}"), tool(&["args", &n.to_string()]))).collect();
    server.change(|state| state.put_tasks("wf", "5f0e", tasks.into()));
    for number in 0..count {
        let result = server.result("wf", &format!("wf-{number}"));
        assert_eq!(result["outputs"]["result"], format!(r#"["args","{number}"]"#), "{result}");
    }
    let patches = server.state().patches.len();
    assert!(patches < count, "{patches}");
}

#[test]
fn an_api_server_that_fails() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let agent = Agent::start(&desk, &server, "one", &["--no-lease"]);
    let mut number = 0;
    let mut is_still_at_work = |what: &str| {
        number += 1;
        let node = format!("wf-{number}");
        server.change(|state| state.put_tasks("wf", "5f0e", json!({&node: tool(&["args", what])})));
        assert_eq!(server.result("wf", &node)["phase"], "Succeeded", "{what}");
    };
    is_still_at_work("nothing");
    server.disconnect();
    is_still_at_work("a watch that was cut off");
    let watches = server.state().watches;
    server.change(|state| {
        state.oldest = state.version + 1;
        state.events.clear();
    });
    server.disconnect();
    // The version is too old; after the list the version is one that the server knows.
    server.wait("a list", |state| {
        (state.asked[&("GET".to_owned(), SETS.to_owned())] > 1 && state.watches > watches).then_some(())
    });
    server.change(|state| state.oldest = 0);
    is_still_at_work("a version that is too old");
    // The kubelet writes the new token before the old one is refused.
    std::fs::write(desk.path("token"), "second").unwrap();
    server.change(|state| state.token = "second".to_owned());
    server.disconnect();
    is_still_at_work("a token that was replaced");
    for (status, reason) in [
        (StatusCode::CONFLICT, "Conflict"),
        (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        (StatusCode::FORBIDDEN, "Forbidden"),
    ] {
        server.change(|state| state.refusals = vec![(status, reason); 2]);
        is_still_at_work(reason);
    }
    // What the server will never take becomes an error that it does take.
    server.change(|state| {
        state.refusals = vec![(StatusCode::UNPROCESSABLE_ENTITY, "Invalid"); 6];
        state.put_tasks("wf", "5f0e", json!({"wf-bad": tool(&["args"])}));
    });
    let bad = server.result("wf", "wf-bad");
    assert_eq!(bad["phase"], "Error", "{bad}");
    assert!(bad["message"].as_str().unwrap().contains("its result cannot be stored"), "{bad}");
    agent.stop();
}

#[test]
fn what_nobody_waits_for_is_ended() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    // One at a time: a step that is not ended keeps the next one from beginning.
    let agent = Agent::start(&desk, &server, "one", &["--no-lease", "--parallel", "1"]);
    let endless = || json!({"wf-1": tool(&["sleep", "3600000"])});
    let is_free = |name: &str| {
        server.change(|state| state.put_tasks(name, name, json!({"n-1": tool(&["args"])})));
        assert_eq!(server.result(name, "n-1")["phase"], "Succeeded");
    };
    // The controller gave up the node: `argo stop`, or a deadline of the workflow.
    server.change(|state| state.put_tasks("wf", "a", endless()));
    wait_until_it_runs(&server, "wf", "wf-1");
    server.change(|state| {
        state
            .patch_set("wf", &json!({"spec": {"tasks": {"wf-1": null}}, "status": {"nodes": {"wf-1": null}}}))
    });
    is_free("stopped");
    // It comes again, with the same id: `argo retry`.
    server.change(|state| state.put_tasks("wf", "a", json!({"wf-1": tool(&["args", "again"])})));
    assert_eq!(server.result("wf", "wf-1")["outputs"]["result"], "[\"args\",\"again\"]");
    // The workflow is done.
    server.change(|state| state.put_tasks("done", "b", endless()));
    wait_until_it_runs(&server, "done", "wf-1");
    let labels = json!({"workflows.argoproj.io/completed": "true"});
    server.change(|state| state.patch_set("done", &json!({"metadata": {"labels": labels}})));
    is_free("completed");
    // It is deleted, and another one of that name comes.
    server.change(|state| state.put_tasks("gone", "c", endless()));
    wait_until_it_runs(&server, "gone", "wf-1");
    server.change(|state| {
        state.store(SETS, "argo", "gone", None);
        state.put_tasks("gone", "d", json!({"wf-1": tool(&["args", "other"])}));
    });
    assert_eq!(server.result("gone", "wf-1")["outputs"]["result"], "[\"args\",\"other\"]");
    // It is gone while nobody watches.
    server.change(|state| state.put_tasks("unseen", "e", endless()));
    wait_until_it_runs(&server, "unseen", "wf-1");
    server.change(|state| {
        state.store(SETS, "argo", "unseen", None);
        state.oldest = state.version + 1;
        state.events.clear();
    });
    server.disconnect();
    server.wait("a list", |state| (state.asked[&("GET".to_owned(), SETS.to_owned())] > 1).then_some(()));
    server.change(|state| state.oldest = 0);
    is_free("unseen-and-gone");
    agent.stop();
}

#[test]
fn another_agent_takes_over() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let first = Agent::start(&desk, &server, "first", &["--lease-seconds", "2"]);
    let place = ("leases".to_owned(), "argo".to_owned(), "dhow-argo-agent".to_owned());
    let holder = |name: &str| {
        server
            .wait(name, |state| (state.objects.get(&place)?["spec"]["holderIdentity"] == name).then_some(()));
    };
    holder("first");
    let second = Agent::start(&desk, &server, "second", &["--lease-seconds", "2"]);
    server.change(|state| {
        state.put_tasks("wf", "5f0e", json!({"wf-1": tool(&["clock"]), "wf-2": tool(&["sleep", "4000"])}));
    });
    let clock = server.result("wf", "wf-1");
    wait_until_it_runs(&server, "wf", "wf-2");
    first.kill();
    holder("second");
    // What was done stays as it was; what was in its middle begins anew.
    let slept = server.result("wf", "wf-2");
    assert_eq!(slept["phase"], "Succeeded", "{slept}");
    assert_eq!(server.result("wf", "wf-1"), clock);
    let state = server.state();
    let of_clock = state.patches.iter().filter(|patch| patch["status"]["nodes"].get("wf-1").is_some());
    assert_eq!(of_clock.count(), 1);
    assert_eq!(state.objects[&place]["spec"]["leaseTransitions"], 1);
    drop(state);
    second.stop();
    holder("");
}

#[test]
fn an_agent_without_its_lease_leaves_steps_to_the_next_one() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let nats = dhow_servers::nats().unwrap();
    let _worker = Worker::start(&desk, &nats, "worker", &["--artifacts", "artifacts"]);
    let url = url(&nats);
    let _first = Agent::start(&desk, &server, "first", &["--lease-seconds", "2", "--workers", &url]);
    server.change(|state| state.put_tasks("wf", "5f0e", json!({"wf-1": tool(&["sleep", "6000"])})));
    wait_until_it_runs(&server, "wf", "wf-1");
    // Somebody else has it, and is not heard of again.
    let place = ("leases".to_owned(), "argo".to_owned(), "dhow-argo-agent".to_owned());
    server.change(|state| {
        let mut lease = state.objects[&place].clone();
        lease["spec"]["holderIdentity"] = json!("nobody");
        state.store("leases", "argo", "dhow-argo-agent", Some(lease));
    });
    server.wait("first", |state| (state.objects[&place]["spec"]["leaseTransitions"] == 1).then_some(()));
    let slept = server.result("wf", "wf-1");
    assert_eq!(slept["phase"], "Succeeded", "{slept}");
    // Each attempt has a log of its own.
    let logs =
        walk(&desk.path("worker")).into_iter().filter(|file| file.extension().is_some_and(|is| is == "log"));
    assert_eq!(logs.count(), 1);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_result_that_was_not_written_is_written_after_a_restart() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let agent = Agent::start(&desk, &server, "one", &["--no-lease"]);
    server.change(|state| {
        state.refusals = vec![(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"); 1000];
        state.put_tasks("wf", "5f0e", json!({"wf-1": tool(&["clock"])}));
    });
    server.wait("a patch", |state| (state.refusals.len() < 1000).then_some(()));
    agent.kill();
    let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // A clock that ran again would say a later second.
    server.wait("the next second", |_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        (now > ended + 1).then_some(())
    });
    server.change(|state| state.refusals.clear());
    let agent = Agent::start(&desk, &server, "one", &["--no-lease"]);
    let result = server.result("wf", "wf-1");
    let said: u64 = result["outputs"]["result"].as_str().unwrap().parse().unwrap();
    assert!(said <= ended, "{said} {ended}");
    agent.stop();
}

#[test]
fn a_stopping_agent_lets_its_steps_end() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let agent = Agent::start(&desk, &server, "one", &[]);
    server.change(|state| state.put_tasks("wf", "5f0e", json!({"wf-1": tool(&["sleep", "3000"])})));
    wait_until_it_runs(&server, "wf", "wf-1");
    agent.stop();
    assert_eq!(server.result("wf", "wf-1")["phase"], "Succeeded");
    assert_eq!(tasks_of(&server, "wf").len(), 1);
}

#[test]
fn http_templates_are_run() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let _agent = Agent::start(&desk, &server, "one", &["--no-lease"]);
    let secret = json!({"metadata": {"name": "access"}, "data": {"header": "QmVhcmVyIGZpcnN0"}});
    let map = json!({"metadata": {"name": "colours"}, "data": {"red": "#f00"}});
    server.change(|state| {
        state.store("secrets", "argo", "access", Some(secret));
        state.store("configmaps", "argo", "colours", Some(map));
    });
    // The API server itself is asked: it wants a header that only the Secret knows.
    let colours = format!("{}/api/v1/namespaces/argo/configmaps/colours", server.address);
    let from = |key: &str| json!([{"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "access", "key": key}}}]);
    let made = format!("{}/api/v1/namespaces/argo/configmaps", server.address);
    let body = json!({"metadata": {"name": "made"}, "data": {}}).to_string();
    let cases = [
        (json!({"url": colours, "headers": from("header")}), "Succeeded", ""),
        (json!({"url": colours}), "Failed", "received non-2xx response code: 401"),
        (json!({"url": colours, "successCondition": "response.statusCode == 401"}), "Succeeded", ""),
        (
            json!({"url": colours, "headers": from("header"), "successCondition": "response.body contains \"blue\""}),
            "Failed",
            "evaluated false",
        ),
        (json!({"url": colours, "headers": from("nothing")}), "Failed", "there is no such key"),
        (
            json!({"url": made, "method": "POST", "body": body, "headers": from("header"), "timeoutSeconds": 20}),
            "Succeeded",
            "",
        ),
        (json!({"url": "http://127.0.0.1:1/"}), "Failed", "http://127.0.0.1:1/"),
        (json!({"url": "file:///etc/passwd"}), "Failed", "expected http or https"),
        (json!({"url": "nowhere"}), "Failed", "http.url"),
        (
            json!({"url": format!("{colours}?watch=true"), "headers": from("header"), "timeoutSeconds": 1}),
            "Failed",
            "no answer within 1 s",
        ),
    ];
    let tasks: serde_json::Map<String, Value> = cases
        .iter()
        .enumerate()
        .map(|(n, (http, ..))| (format!("wf-{n}"), json!({"name": "ask", "http": http})))
        .collect();
    server.change(|state| state.put_tasks("wf", "5f0e", tasks.into()));
    for (number, (http, phase, message)) in cases.iter().enumerate() {
        let found = server.result("wf", &format!("wf-{number}"));
        assert_eq!(found["phase"], *phase, "{http}: {found}");
        assert!(found["message"].as_str().unwrap().contains(message), "{http}: {found}");
    }
    let body: Value =
        serde_json::from_str(server.result("wf", "wf-0")["outputs"]["result"].as_str().unwrap()).unwrap();
    assert_eq!(body["data"]["red"], "#f00");
    assert!(server.state().objects.contains_key(&(
        "configmaps".to_owned(),
        "argo".to_owned(),
        "made".to_owned()
    )));
}

#[test]
fn kubernetes_own_client_gives_the_agent_work() {
    let (desk, server) = (Desk::new(), ApiServer::start());
    let agent = Agent::start(&desk, &server, "one", &[]);
    let script = r#"
import json, sys
from kubernetes import client, watch
from kubernetes.client.rest import ApiException

configuration = client.Configuration(host="ADDRESS")
configuration.api_key = {"authorization": "Bearer first"}
api = client.CustomObjectsApi(client.ApiClient(configuration))
sets = ("argoproj.io", "v1alpha1", "argo", "workflowtasksets")
task = {"name": "step", "plugin": {"wasm": {"image": "./tool.wasm", "args": ["args", "from python"]}}}
made = api.create_namespaced_custom_object(*sets, body={
    "apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskSet",
    "metadata": {"name": "wf", "namespace": "argo", "uid": "7"}, "spec": {"tasks": {"wf-1": task}},
})
listed = api.list_namespaced_custom_object(*sets)
assert [item["metadata"]["name"] for item in listed["items"]] == ["wf"], listed
version = made["metadata"]["resourceVersion"]
result = None
while result is None:
    stream = watch.Watch().stream(api.list_namespaced_custom_object, *sets, resource_version=version, timeout_seconds=60)
    for event in stream:
        version = event["object"]["metadata"]["resourceVersion"]
        result = event["object"].get("status", {}).get("nodes", {}).get("wf-1")
        if result is not None:
            break
# A change from a version that is no longer the newest is a conflict.
try:
    api.replace_namespaced_custom_object(*sets, "wf", made)
    sys.exit("no conflict")
except ApiException as error:
    assert error.status == 409, error
lease = client.CoordinationV1Api(api.api_client).read_namespaced_lease("dhow-argo-agent", "argo")
assert lease.spec.renew_time >= lease.spec.acquire_time and lease.spec.lease_duration_seconds == 15, lease
print(json.dumps({"result": result, "holder": lease.spec.holder_identity}))
"#;
    let printed = run_python(&desk, &script.replace("ADDRESS", &server.address));
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["result"]["outputs"]["result"], "[\"args\",\"from python\"]", "{printed}");
    assert_eq!(printed["holder"], "one");
    agent.stop();
}

#[test]
fn a_kubeconfig_says_whom_to_trust_and_who_asks() {
    let desk = Desk::new();
    let certificates = dhow_servers::Certificates::make(&desk.path("")).unwrap();
    let server = ApiServer::start_with_tls(&certificates);
    let config = format!(
        "
current-context: here
contexts: [{{name: here, context: {{cluster: here, user: me, namespace: argo}}}}]
clusters: [{{name: here, cluster: {{server: '{}', certificate-authority: ca.pem}}}}]
users: [{{name: me, user: {{client-certificate: certificate.pem, client-key: key.pem, token: first}}}}]
",
        server.address
    );
    std::fs::write(desk.path("config"), &config).unwrap();
    let agent = Agent::start_at(&desk, "one", &["--kubeconfig", "config"]);
    server.change(|state| state.put_tasks("wf", "5f0e", json!({"wf-1": tool(&["args"])})));
    assert_eq!(server.result("wf", "wf-1")["phase"], "Succeeded");
    agent.stop();
    // The certificate of somebody else is not taken, nor is none at all.
    for (index, (from, to)) in [
        ("certificate-authority: ca.pem", "x: y"),
        ("client-certificate: certificate.pem, client-key: key.pem, ", ""),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(desk.path("config"), config.replace(from, to)).unwrap();
        let mut wrong = desk.start(&["argo", "agent", "--kubeconfig", "config", "--data-dir", "wrong"]);
        let lines = BufReader::new(wrong.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.into_iter().find(|line| line.contains("cannot be reached"));
        wrong.kill().unwrap();
        wrong.wait().unwrap();
        assert!(said.is_some(), "{index}");
    }
    let asked = server.state().asked.values().sum::<usize>();
    assert!(asked > 0);
    for (args, message) in [
        (&["--kubeconfig", "none"][..], "none"),
        (&["--kubeconfig", "config", "--context", "x"][..], "there is no context \"x\""),
        (&["--server", "nowhere", "--namespace", "a"][..], "expected a URL"),
        (&["--server", "http://127.0.0.1:1"][..], "--all-namespaces"),
        (&["--namespace", "a"][..], "this is no pod of a cluster"),
        (&["--shard", "3/3"][..], "with I below N"),
    ] {
        let ended = desk.dhow(&[&["argo", "agent"][..], args].concat());
        assert!(ended.code == Some(2) && ended.err.contains(message), "{args:?}: {ended:?}");
    }
}
