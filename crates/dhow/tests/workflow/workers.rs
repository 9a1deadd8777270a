//! Steps that other processes run: a NATS server, workers with folders of their own, and whoever hands steps over.

use crate::{Desk, Ended, PATIENCE, guest, node, python};
use dhow_servers::Process;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A worker, killed with its test.
pub(crate) struct Worker(Child);

impl Worker {
    pub(crate) fn start(desk: &Desk, nats: &Process, name: &str, more: &[&str]) -> Worker {
        let args = ["workflow", "worker", "--connect", &url(nats), "--name", name, "--data-dir", name];
        Worker::ready(desk.start(&[&args[..], more].concat()), name)
    }

    /// A worker that was started, as soon as it takes steps.
    pub(crate) fn ready(mut process: Child, name: &str) -> Worker {
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("worker {name}: {said:?}")).unwrap();
            if line.contains("takes steps") {
                break;
            }
            said.push(line);
        }
        // The pipe is read on, so that the worker never waits for it.
        std::thread::spawn(move || lines.for_each(drop));
        Worker(process)
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn url(nats: &Process) -> String {
    format!("nats://{}", nats.address())
}

pub(crate) fn ended(child: Child) -> Ended {
    child.wait_with_output().unwrap().into()
}

fn is_running(status: &Value, name: &str) -> bool {
    let nodes = status["status"]["nodes"].as_object();
    nodes
        .into_iter()
        .flat_map(|nodes| nodes.values())
        .any(|node| node["displayName"] == name && node["phase"] == "Running")
}

#[test]
fn a_workflow_is_the_same_on_other_machines() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let (_one, _two) = (
        Worker::start(&desk, &nats, "one", &["--concurrency", "2"]),
        Worker::start(&desk, &nats, "two", &["--concurrency", "2"]),
    );
    desk.workflow(
        "flow",
        r#"
  entrypoint: main
  arguments: {artifacts: [{name: given}]}
  templates:
  - name: main
    inputs: {artifacts: [{name: given}]}
    steps:
    - - {name: write, template: write, arguments: {parameters: [{name: num, value: "{{item}}"}]}, withSequence: {count: 6}}
      - {name: nap, template: nap, withSequence: {count: 4}}
      - {name: read-given, template: read, arguments: {artifacts: [{name: file, from: "{{inputs.artifacts.given}}"}]}}
    - - name: keyed
        template: keyed
    - - name: read-keyed
        template: read
        arguments: {artifacts: [{name: file, s3: {key: shared/name}}]}
      - name: folder
        template: list
        arguments: {artifacts: [{name: folder, from: "{{steps.keyed.outputs.artifacts.folder}}"}]}
      - {name: fails, template: fails, continueOn: {failed: true}}
    outputs:
      parameters: [{name: all, valueFrom: {parameter: "{{steps.write.outputs.parameters.num}}"}}]
      artifacts: [{name: folder, from: "{{steps.keyed.outputs.artifacts.folder}}"}]
  - name: write
    inputs: {parameters: [{name: num}]}
    wasm: {image: tool.wasm, args: [write, /num, "{{inputs.parameters.num}}"]}
    outputs: {parameters: [{name: num, valueFrom: {path: /num}}], artifacts: [{name: num, path: /num}]}
  - name: keyed
    wasm: {image: tool.wasm, args: [write, /out/deep/name, kept]}
    outputs:
      artifacts:
      - {name: file, path: /out/deep/name, s3: {key: shared/name}}
      - {name: folder, path: /out, archive: {none: {}}}
  - name: read
    inputs: {artifacts: [{name: file, path: /in}]}
    wasm: {image: tool.wasm, args: [cat, /in]}
  - name: list
    inputs: {artifacts: [{name: folder, path: /in}]}
    wasm: {image: tool.wasm, args: [ls, /in]}
  - {name: fails, wasm: {image: tool.wasm, args: [nonsense]}}
  - {name: nap, wasm: {image: tool.wasm, args: [sleep, "1500"]}}
"#,
    );
    // More than one chunk.
    let given = "0123456789abcdef".repeat(10_000);
    std::fs::write(desk.path("given"), &given).unwrap();
    let url = url(&nats);
    let mut seen = Vec::new();
    for (name, more) in [("here", &[][..]), ("there", &["--workers", &url][..])] {
        let args =
            ["workflow", "run", "flow.yaml", "--name", name, "--artifact", "given=given", "--output", name];
        let ended = desk.dhow(&[&args[..], more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let status = desk.status(name);
        let results: Vec<Value> = ["read-given", "read-keyed", "folder", "fails"]
            .iter()
            .map(|step| {
                let node = node(&status, step);
                json!([
                    node["phase"],
                    node["message"],
                    node["outputs"]["result"],
                    node["outputs"]["exitCode"]
                ])
            })
            .collect();
        let left = std::fs::read_to_string(desk.path(name).join("out/deep/name")).unwrap();
        let log = desk.dhow(&["workflow", "logs", name, "read-keyed"]).out;
        seen.push((ended.out, results, left, log));
    }
    assert_eq!(seen[0], seen[1]);
    let (out, results, left, log) = &seen[1];
    assert_eq!(out, "all=[0,1,2,3,4,5]\n");
    assert_eq!((results[0][2].as_str(), results[2][2].as_str()), (Some(given.as_str()), Some(r#"["deep"]"#)));
    assert_eq!((left.as_str(), log.as_str()), ("kept", "kept\n"));
    // Both had a part in it.
    for worker in ["one", "two"] {
        let logs = std::fs::read_dir(desk.path(worker).join("logs")).unwrap().count();
        assert!(logs > 0, "{worker} ran nothing");
    }
}

#[test]
fn who_waits_for_workers_that_are_not_there_is_told() {
    let (desk, nats) = (Desk::new(), dhow_servers::nats().unwrap());
    desk.workflow(
        "flow",
        "  entrypoint: main\n  templates: [{name: main, wasm: {image: tool.wasm, args: [args]}}]",
    );
    let mut waiting = desk.start(&["workflow", "run", "flow.yaml", "--workers", &url(&nats)]);
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains("no worker has taken a step for")).unwrap();
    assert!(told.contains("1 step waits in the queue DHOW_STEPS"), "{told}");
    let _worker = Worker::start(&desk, &nats, "one", &[]);
    assert!(lines.all(|line| !line.contains("no worker")));
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn a_step_outlives_its_worker_and_its_submitter() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let url = url(&nats);
    desk.workflow(
        "lives",
        r#"
  entrypoint: main
  templates:
  - {name: main, steps: [[{name: sleep, template: sleep}], [{name: quick, template: quick}]]}
  - {name: sleep, wasm: {image: tool.wasm, args: [sleep, "3000"]}}
  - {name: quick, wasm: {image: tool.wasm, args: [args, quick]}}
"#,
    );
    let first = Worker::start(&desk, &nats, "first", &["--lease", "1s"]);
    let mut run = desk.start(&["workflow", "run", "lives.yaml", "--workers", &url]);
    wait_for(|| std::fs::read_dir(desk.path("first/rooms")).is_ok_and(|mut rooms| rooms.next().is_some()));
    run.kill().unwrap();
    run.wait().unwrap();
    first.kill();
    // Another worker finds the step, another submitter its end.
    let second = Worker::start(&desk, &nats, "second", &["--lease", "1s"]);
    wait_for(|| std::fs::read_dir(desk.path("second/rooms")).is_ok_and(|mut rooms| rooms.next().is_some()));
    // A worker that is told to stop ends what it does, and takes nothing more.
    second.signal("TERM");
    let mut second = second;
    assert_eq!(second.0.wait().unwrap().code(), Some(0));
    // With nobody there to run it again, its end is found.
    let run = desk.start(&["workflow", "resume", "lives", "--workers", &url]);
    desk.wait("lives", |status| is_running(status, "quick"));
    let _third = Worker::start(&desk, &nats, "third", &["--lease", "1s"]);
    let ended = ended(run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = desk.status("lives");
    let slept: u64 = node(&status, "sleep")["outputs"]["result"].as_str().unwrap().parse().unwrap();
    assert!(slept >= 3000, "{slept}");
}

#[test]
fn a_worker_that_is_paused_for_too_long_ends_nothing_twice() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let url = url(&nats);
    desk.workflow(
        "fenced",
        r#"
  entrypoint: main
  templates:
  - {name: main, steps: [[{name: sleep, template: sleep}]], outputs: {parameters: [{name: slept, valueFrom: {parameter: "{{steps.sleep.outputs.result}}"}}]}}
  - {name: sleep, wasm: {image: tool.wasm, args: [sleep, "1500"]}}
"#,
    );
    let first = Worker::start(&desk, &nats, "first", &["--lease", "1s"]);
    let run = desk.start(&["workflow", "run", "fenced.yaml", "--workers", &url]);
    wait_for(|| std::fs::read_dir(desk.path("first/rooms")).is_ok_and(|mut rooms| rooms.next().is_some()));
    first.signal("STOP");
    let _second = Worker::start(&desk, &nats, "second", &["--lease", "1s"]);
    let ended = ended(run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // The first one goes on, and finds that its step has ended.
    first.signal("CONT");
    wait_for(|| std::fs::read_dir(desk.path("first/rooms")).is_ok_and(|rooms| rooms.count() == 0));
    let again = desk.dhow(&["workflow", "get", "fenced", "--json"]);
    assert!(again.out.contains("Succeeded"), "{again:?}");
    assert!(std::fs::read_dir(desk.path("second/logs")).unwrap().count() == 1);
}

#[test]
fn a_stopped_workflow_ends_its_steps_elsewhere() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let url = url(&nats);
    desk.workflow(
        "long",
        r#"
  entrypoint: main
  templates:
  - {name: main, steps: [[{name: sleep, template: sleep, withItems: [1, 2]}]]}
  - {name: sleep, wasm: {image: tool.wasm, args: [sleep, "600000"]}}
"#,
    );
    desk.workflow(
        "quick",
        "  entrypoint: m\n  templates:\n  - {name: m, wasm: {image: tool.wasm, args: [args]}}",
    );
    desk.workflow(
        "late",
        "  entrypoint: m\n  templates:\n  - {name: m, timeout: 1s, wasm: {image: tool.wasm, args: [sleep, '600000']}}",
    );
    // One step runs, the other one waits in the queue.
    let _worker = Worker::start(&desk, &nats, "one", &["--concurrency", "1"]);
    let run = desk.start(&["workflow", "run", "long.yaml", "--workers", &url]);
    wait_for(|| std::fs::read_dir(desk.path("one/rooms")).is_ok_and(|mut rooms| rooms.next().is_some()));
    desk.wait("long", |status| is_running(status, "sleep(0:1)") && is_running(status, "sleep(1:2)"));
    assert_eq!(desk.dhow(&["workflow", "stop", "long"]).code, Some(0));
    let stopped = ended(run);
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    // The only place is free again.
    let quick = desk.dhow(&["workflow", "run", "quick.yaml", "--workers", &url]);
    assert_eq!(quick.code, Some(0), "{quick:?}");
    let late = desk.dhow(&["workflow", "run", "late.yaml", "--workers", &url]);
    assert!(late.code == Some(1) && late.err.contains("deadline"), "{late:?}");
    let quick = desk.dhow(&["workflow", "run", "quick.yaml", "--name", "again", "--workers", &url]);
    assert_eq!(quick.code, Some(0), "{quick:?}");
}

#[test]
fn what_workers_cannot_do_is_told() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let url = url(&nats);
    std::fs::copy(guest("http-hello"), desk.path("service.wasm")).unwrap();
    let shared = desk.path("shared");
    let _worker = Worker::start(&desk, &nats, "one", &[]);
    for (index, (module, more, message)) in [
        ("missing.wasm", &[][..], "missing.wasm does not exist"),
        ("service.wasm", &[][..], "is no program"),
        ("tool.wasm", &["--artifacts", shared.to_str().unwrap()][..], "start it with the same --artifacts"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("case-{index}");
        desk.workflow(
            &name,
            &format!(
                "  entrypoint: m\n  templates:\n  - {{name: m, wasm: {{image: {module}, args: [args]}}}}"
            ),
        );
        let file = format!("{name}.yaml");
        let ended = desk.dhow(&[&["workflow", "run", &file, "--workers", &url][..], more].concat());
        assert!(ended.code == Some(1) && ended.err.contains(message), "{module}: {ended:?}");
        assert_eq!(node(&desk.status(&name), &name)["phase"], "Error");
    }
    let nobody =
        desk.dhow(&["workflow", "run", "case-0.yaml", "--name", "x", "--workers", "nats://127.0.0.1:1"]);
    assert!(nobody.code == Some(1) && nobody.err.contains("is the server there"), "{nobody:?}");
    let wrong =
        desk.dhow(&["workflow", "run", "case-0.yaml", "--name", "x", "--workers", "nats://u:hush@:x"]);
    assert!(wrong.code == Some(1) && !wrong.err.contains("hush"), "{wrong:?}");
}

#[test]
fn a_shared_folder_is_a_repository_for_all() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let url = url(&nats);
    let shared = desk.path("shared");
    let shared = shared.to_str().unwrap();
    let _worker = Worker::start(&desk, &nats, "one", &["--artifacts", shared]);
    desk.workflow(
        "shares",
        r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: write, template: write}
    - - {name: read, template: read, arguments: {artifacts: [{name: file, from: "{{steps.write.outputs.artifacts.file}}"}]}}
    outputs: {artifacts: [{name: file, from: "{{steps.write.outputs.artifacts.file}}"}]}
  - name: write
    wasm: {image: tool.wasm, args: [write, /file, shared]}
    outputs: {artifacts: [{name: file, path: /file}]}
  - name: read
    inputs: {artifacts: [{name: file, path: /in}]}
    wasm: {image: tool.wasm, args: [cat, /in]}
"#,
    );
    let args =
        ["workflow", "run", "shares.yaml", "--workers", &url, "--artifacts", shared, "--output", "out"];
    let ended = desk.dhow(&args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(node(&desk.status("shares"), "read")["outputs"]["result"], "shared");
    assert_eq!(std::fs::read_to_string(desk.path("out/file")).unwrap(), "shared");
}

/// Waits until something is so that nobody tells of.
pub(crate) fn wait_for(is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "it did not become so");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Makes a folder as another one is.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_server_that_has_kept_less_of_its_queue_than_it_delivered_is_reminded() {
    let desk = Desk::new();
    let mut nats = dhow_servers::nats().unwrap();
    let url = url(&nats);
    let (messages, kept) = (nats.folder().join("jetstream/$G/streams/DHOW_STEPS/msgs"), desk.path("kept"));
    desk.workflow(
        "many",
        r#"
  entrypoint: main
  arguments: {parameters: [{name: count, value: "2"}]}
  templates:
  - {name: main, steps: [[{name: step, template: step, withSequence: {count: "{{workflow.parameters.count}}"}}]]}
  - {name: step, wasm: {image: tool.wasm, args: [args]}}
"#,
    );
    let _worker = Worker::start(&desk, &nats, "one", &[]);
    let run = |name: &str, count: &str| {
        let count = format!("count={count}");
        let ended =
            desk.dhow(&["workflow", "run", "many.yaml", "--name", name, "-p", &count, "--workers", &url]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };
    run("first", "2");
    nats.kill();
    copy(&messages, &kept);
    nats.start().unwrap();
    run("second", "40");
    // The disk that comes back is older than what the server knows of its workers.
    nats.kill();
    copy(&kept, &messages);
    nats.start().unwrap();
    run("third", "3");
}

/// What the server says of a consumer, as autoscalers ask for it.
fn consumer(nats: &Process, stream: &str, consumer: &str) -> Value {
    ask(nats, &format!("CONSUMER.INFO.{stream}.{consumer}"), "")
}

/// A request of the server's own protocol.
fn ask(nats: &Process, what: &str, payload: &str) -> Value {
    let mut server = BufReader::new(TcpStream::connect(nats.address()).unwrap());
    let length = payload.len();
    let request = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{what} answer {length}\r\n{payload}\r\n"
    );
    server.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    while !line.starts_with("MSG answer") {
        line.clear();
        assert!(server.read_line(&mut line).unwrap() > 0, "the server closed the connection");
    }
    let mut answer = String::new();
    server.read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// Takes a step out of the queue and says again and again that it is at work, as a server that was killed may believe of
/// somebody who is no more.
fn hold(nats: &Process) {
    let mut server = BufReader::new(TcpStream::connect(nats.address()).unwrap());
    let next = "$JS.API.CONSUMER.MSG.NEXT.DHOW_STEPS.workers";
    let request = format!("CONNECT {{\"verbose\":false}}\r\nSUB mine 1\r\nPUB {next} mine 1\r\n1\r\n");
    server.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    while !line.starts_with("MSG ") {
        line.clear();
        assert!(server.read_line(&mut line).unwrap() > 0, "the server closed the connection");
    }
    // MSG subject number reply length
    let reply = line.split_whitespace().nth(3).unwrap().to_owned();
    let mut stream = server.get_ref().try_clone().unwrap();
    // It ends with the server.
    std::thread::spawn(move || {
        while stream.write_all(format!("PUB {reply} 4\r\n+WPI\r\n").as_bytes()).is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn a_step_that_nobody_has_is_handed_over_anew() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    desk.workflow(
        "lost",
        "  entrypoint: step\n  templates:\n  - {name: step, wasm: {image: tool.wasm, args: [args]}}\n",
    );
    let run = desk.start(&["workflow", "run", "lost.yaml", "--workers", &url(&nats)]);
    wait_for(|| consumer(&nats, "DHOW_STEPS", "workers")["num_pending"] == 1);
    hold(&nats);
    let _worker = Worker::start(&desk, &nats, "one", &["--lease", "2s"]);
    let ended = ended(run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("NATS has forgotten the step"), "{ended:?}");
}

#[test]
fn a_queue_that_gives_nothing_to_workers_is_mended() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let spec = "  entrypoint: step\n  templates:\n  - {name: step, wasm: {image: tool.wasm, args: [args]}}\n";
    let run = |name: &str| {
        desk.workflow(name, spec);
        desk.start(&["workflow", "run", &format!("{name}.yaml"), "--workers", &url(&nats)])
    };
    let held = run("held");
    wait_for(|| consumer(&nats, "DHOW_STEPS", "workers")["num_pending"] == 1);
    hold(&nats);
    let _worker = Worker::start(&desk, &nats, "one", &[]);
    // From here on the server has given out as much as it may.
    let mut config = consumer(&nats, "DHOW_STEPS", "workers")["config"].take();
    config["max_ack_pending"] = json!(1);
    let update = json!({"stream_name": "DHOW_STEPS", "config": config}).to_string();
    let updated = ask(&nats, "CONSUMER.DURABLE.CREATE.DHOW_STEPS.workers", &update);
    assert!(updated.get("error").is_none(), "{updated}");
    let waits = ended(run("waits"));
    assert_eq!(waits.code, Some(0), "{waits:?}");
    // The one that somebody held comes again as well.
    let held = ended(held);
    assert_eq!(held.code, Some(0), "{held:?}");
    let said = format!("{}{}", held.err, waits.err);
    assert!(said.contains("its consumer is made anew") && !said.contains("handed over anew"), "{said}");
}

#[test]
fn an_autoscaler_finds_what_the_manifest_names() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/argo/worker.yaml");
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let read = Command::new(python()).args(["-c", script]).arg(file).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let documents: Value = serde_json::from_slice(&read.stdout).unwrap();
    let (deployment, scaler) = (&documents[0], &documents[1]);
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    // The command line is one that the program takes: what it waits for is the server.
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<&str> =
        container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    // Not everything is here as it is there.
    let here = |arg| match arg {
        "/data/worker" => "data",
        "0.0.0.0:9090" => "127.0.0.1:0",
        arg => arg,
    };
    let args: Vec<&str> = args.into_iter().map(here).collect();
    let mut command = desk.command(&args);
    let mut waits = command.env("NATS_URL", "nats://127.0.0.1:1").spawn().unwrap();
    let mut lines = BufReader::new(waits.stderr.take().unwrap()).lines().map(Result::unwrap);
    let is_waiting = lines.any(|line| line.contains("is the server there? Waiting for it"));
    waits.kill().unwrap();
    waits.wait().unwrap();
    assert!(is_waiting);
    // Before there is a worker, the steps that wait are counted.
    desk.workflow(
        "waits",
        r#"
  entrypoint: main
  templates:
  - {name: main, steps: [[{name: step, template: step, withItems: [1, 2, 3]}]]}
  - {name: step, wasm: {image: tool.wasm, args: [args]}}
"#,
    );
    let run = desk.start(&["workflow", "run", "waits.yaml", "--workers", &url(&nats)]);
    let metadata = &scaler["spec"]["triggers"][0]["metadata"];
    let [stream, name] = ["stream", "consumer"].map(|field| metadata[field].as_str().unwrap());
    // The streams come with whoever uses them first.
    wait_for(|| consumer(&nats, stream, name)["num_pending"] == 3);
    let _worker = Worker::start(&desk, &nats, "one", &[]);
    let ended = ended(run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    wait_for(|| consumer(&nats, stream, name)["num_pending"] == 0);
}

#[test]
fn what_waits_for_workers_is_not_done_by_whoever_resumes() {
    let desk = Desk::new();
    let nats = dhow_servers::nats().unwrap();
    let url = url(&nats);
    desk.workflow(
        "queued",
        "
  entrypoint: main
  templates:
  - {name: main, steps: [[{name: a, template: a}], [{name: b, template: a}]]}
  - {name: a, wasm: {image: tool.wasm, args: [args, done]}}
",
    );
    let run = desk.start(&["workflow", "run", "queued.yaml", "--workers", &url]);
    desk.wait("queued", |status| is_running(status, "a"));
    let id = run.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    let interrupted = ended(run);
    let hint = format!("Go on with: dhow workflow resume queued --workers {url}");
    assert!(interrupted.code == Some(130) && interrupted.err.contains(&hint), "{interrupted:?}");
    // Also whoever does not read it leaves the steps where they are.
    let run = desk.start(&["workflow", "resume", "queued"]);
    let _worker = Worker::start(&desk, &nats, "one", &[]);
    let ended = ended(run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!desk.path(".dhow/workflows/rooms").exists(), "steps ran here");
}
