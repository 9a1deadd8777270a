//! Whatever is killed or cut off at whatever moment, a workflow of two hundred steps comes to its right end, and each of
//! its steps ends once.
//!
//! `DHOW_FAULT_ROUNDS` says how many rounds there are (1), `DHOW_FAULT_SEED` the seed of the first (1); each round has the
//! next one. A seed replays what is done, and after how many steps.

use crate::agent::{Plugin, TOKEN};
use crate::buckets::{look, repository};
use crate::cluster::{ApiServer, EXECUTE, Flow, Pod, Sidecar};
use crate::native::Agent;
use crate::outage::Relay;
use crate::workers::{Worker, ended, url};
use crate::{Desk, node};
use dhow_servers::Process;
use serde_json::Value;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Scope, ScopedJoinHandle};

/// A workflow of two hundred steps in pairs, the second of which reads what the first one left.
const MANY: &str = r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: pair, template: pair, withSequence: {count: 100}, arguments: {parameters: [{name: num, value: "{{item}}"}]}}
    outputs: {parameters: [{name: all, valueFrom: {parameter: "{{steps.pair.outputs.parameters.num}}"}}]}
  - name: pair
    inputs: {parameters: [{name: num}]}
    steps:
    - - {name: write, template: write, arguments: {parameters: [{name: num, value: "{{inputs.parameters.num}}"}]}}
    - - {name: read, template: read, arguments: {artifacts: [{name: num, from: "{{steps.write.outputs.artifacts.num}}"}]}}
    outputs: {parameters: [{name: num, valueFrom: {parameter: "{{steps.read.outputs.result}}"}}]}
  - name: write
    inputs: {parameters: [{name: num}]}
    wasm: {image: ./tool.wasm, args: [write, /num, "{{inputs.parameters.num}}"]}
    outputs: {artifacts: [{name: num, path: /num}]}
  - name: read
    inputs: {artifacts: [{name: num, path: /num}]}
    wasm: {image: ./tool.wasm, args: [cat, /num]}
"#;

/// Faults in a round.
const FAULTS: usize = 6;

/// Steps between two faults, at most.
const APART: u64 = 50;

/// Who turns up at a bucket in vain before it is back: attempts are repeated, but not for ever.
const IN_VAIN: usize = 3;

/// A small generator, so that a seed replays a failure.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The seeds of the rounds.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let first = number("DHOW_FAULT_SEED").unwrap_or(1);
    first..first + number("DHOW_FAULT_ROUNDS").unwrap_or(1)
}

/// What runs steps, whoever begins them.
struct Machines<'a> {
    desk: &'a Desk,
    nats: Process,
    bucket: Process,
    relay: Relay,
    workers: [(&'static str, Option<Worker>); 2],
}

/// How workers are told where artifacts are, as submitters are.
const REPOSITORY: [&str; 2] = ["--artifact-repository", "repository.yaml"];

impl<'a> Machines<'a> {
    fn start(desk: &'a Desk) -> Machines<'a> {
        let (nats, bucket) = (dhow_servers::nats().unwrap(), dhow_servers::moto().unwrap());
        let relay = Relay::before(&bucket);
        let text = repository(&relay.address(), "").replace("{{workflow.creationTimestamp.Y}}/", "");
        let text = text.replace("archiveLogs: true", "archiveLogs: false");
        std::fs::write(desk.path("repository.yaml"), text).unwrap();
        let mut machines = Machines { desk, nats, bucket, relay, workers: [("one", None), ("two", None)] };
        (0..2).for_each(|index| machines.start_worker(index));
        machines
    }

    fn start_worker(&mut self, index: usize) {
        let (name, worker) = &mut self.workers[index];
        let flags = [&["--lease", "1s", "--concurrency", "4"][..], &REPOSITORY].concat();
        *worker = Some(Worker::start(self.desk, &self.nats, name, &flags));
    }

    /// Kinds of faults.
    const FAULTS: u64 = 3;

    fn fail(&mut self, what: u64, random: &mut Seeded, is_over: impl Fn() -> bool) {
        match what {
            0 => {
                let index = random.below(2) as usize;
                self.workers[index].1.take().unwrap().kill();
                self.start_worker(index);
            }
            1 => {
                self.nats.kill();
                self.nats.start().unwrap();
            }
            _ => self.relay.cut(|refused| refused >= IN_VAIN || is_over()),
        }
    }

    /// What a workflow left in the bucket: an object of each step that writes. An attempt that was killed may have left
    /// one more, which nobody knows.
    fn check_bucket(&self, workflow: &str, seed: u64) {
        let found = look(&self.bucket, "artifacts");
        let mine =
            found.as_object().unwrap().iter().filter(|(key, _)| key.contains(&format!("/{workflow}/")));
        let mut numbers: Vec<u64> =
            mine.map(|(_, files)| files["num"].as_str().unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (0..100).collect::<Vec<u64>>(), "seed {seed}");
    }
}

/// Steps that ended well, as the history has them.
fn succeeded(status: &Value) -> usize {
    let nodes = status["status"]["nodes"].as_object().unwrap();
    nodes.values().filter(|node| node["type"] == "Plugin" && node["phase"] == "Succeeded").count()
}

fn is_over(status: &Value) -> bool {
    ["Succeeded", "Failed", "Error"].contains(&status["status"]["phase"].as_str().unwrap_or_default())
}

fn check_numbers(main: &Value, seed: u64) {
    let all = main["outputs"]["parameters"][0]["value"].as_str().unwrap();
    let all: Value = serde_json::from_str(all).unwrap();
    assert_eq!(all, (0..100).collect::<Value>(), "seed {seed}");
}

#[test]
fn a_workflow_of_this_machine() {
    let desk = Desk::new();
    let mut machines = Machines::start(&desk);
    let url = url(&machines.nats);
    for seed in seeds() {
        let mut random = Seeded(seed);
        let name = format!("many-{seed}");
        desk.workflow(&name, MANY);
        let file = format!("{name}.yaml");
        let begin =
            |args: &[&str]| -> Child { desk.start(&[&["workflow"], args, &["--workers", &url]].concat()) };
        let mut run = begin(&[&["run", &file][..], &REPOSITORY].concat());
        let mut wanted = 0;
        for _ in 0..FAULTS {
            // The moment is a count of steps, so that it is the same on a slow machine.
            wanted += 1 + random.below(APART) as usize;
            let status = desk.wait(&name, |status| {
                succeeded(status) >= wanted || is_over(status) || run.try_wait().unwrap().is_some()
            });
            if is_over(&status) {
                break;
            }
            match random.below(Machines::FAULTS + 1) {
                Machines::FAULTS => {
                    run.kill().unwrap();
                    run.wait().unwrap();
                    run = begin(&["resume", &name]);
                }
                what => machines.fail(what, &mut random, || run_is_over(&desk, &name)),
            }
        }
        let ended = ended(run);
        let status = desk.status(&name);
        // Who was killed after the last step had no more to do.
        assert_eq!(status["status"]["phase"], "Succeeded", "seed {seed}: {ended:?}");
        assert_eq!(succeeded(&status), 200, "seed {seed}");
        check_numbers(node(&status, &name), seed);
        machines.check_bucket(&name, seed);
    }
}

fn run_is_over(desk: &Desk, name: &str) -> bool {
    is_over(&desk.status(name))
}

/// Drives a workflow of a cluster through a round of faults. `fail_own` is for those of whoever begins its steps, of
/// which there are so many kinds.
fn cluster_round(
    machines: &mut Machines<'_>,
    server: &ApiServer,
    (name, seed): (&str, u64),
    own: u64,
    mut fail_own: impl FnMut(u64),
) {
    let yaml =
        format!("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec:{MANY}");
    let flow = Flow::new(server, name, &yaml);
    let taken = Arc::clone(&flow.taken);
    let taken = || taken.load(Ordering::SeqCst);
    let nodes = thread::scope(|scope| {
        let flow = scope.spawn(|| flow.run());
        let (mut random, mut wanted) = (Seeded(seed), 0);
        for _ in 0..FAULTS {
            wanted += 1 + random.below(APART) as usize;
            server.wait("steps", |_| (taken() >= wanted || flow.is_finished()).then_some(()));
            if flow.is_finished() {
                break;
            }
            match random.below(Machines::FAULTS + own) {
                what if what < Machines::FAULTS => machines.fail(what, &mut random, || flow.is_finished()),
                what => fail_own(what - Machines::FAULTS),
            }
        }
        flow.join().unwrap()
    });
    assert_eq!(nodes[name]["phase"], "Succeeded", "seed {seed}: {nodes:#?}");
    assert_eq!(taken(), 200, "seed {seed}");
    check_numbers(&nodes[name], seed);
    machines.check_bucket(name, seed);
}

/// Argo's agent, which ends with its round.
struct Running<'scope, 'a> {
    pod: Arc<Pod<'a>>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope, 'a: 'scope> Running<'scope, 'a> {
    fn start(scope: &'scope Scope<'scope, '_>, pod: Pod<'a>) -> Running<'scope, 'a> {
        let pod = Arc::new(pod);
        let runs = Arc::clone(&pod);
        Running { pod, thread: Some(scope.spawn(move || runs.run())) }
    }
}

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        self.pod.kill();
        let _ = self.thread.take().map(ScopedJoinHandle::join);
    }
}

#[test]
fn a_workflow_beside_argos_agent() {
    let desk = Desk::new();
    let mut machines = Machines::start(&desk);
    let url = url(&machines.nats);
    for seed in seeds() {
        let server = ApiServer::start();
        let name = format!("plugin-{seed}");
        let flags = [&["--workers", &url, "--parallel", "100"][..], &REPOSITORY].concat();
        let mut plugin = Some(Plugin::with(&desk, &flags));
        let address = plugin.as_ref().unwrap().address.clone();
        let again = [&flags[..], &["--addr", &address]].concat();
        let sidecar = Sidecar { address: address.clone(), token: TOKEN.to_owned(), method: EXECUTE };
        thread::scope(|scope| {
            let start = || Running::start(scope, Pod::new(&server, &name, sidecar.clone()));
            let mut agent = Some(start());
            cluster_round(&mut machines, &server, (&name, seed), 2, |what| match what {
                0 => {
                    drop(agent.take());
                    agent = Some(start());
                }
                _ => {
                    plugin.take().unwrap().kill();
                    plugin = Some(Plugin::with(&desk, &again));
                }
            });
        });
    }
}

#[test]
fn a_workflow_of_the_native_agent() {
    let desk = Desk::new();
    let mut machines = Machines::start(&desk);
    let url = url(&machines.nats);
    for seed in seeds() {
        let server = ApiServer::start();
        let name = format!("native-{seed}");
        let flags =
            [&["--workers", &url, "--parallel", "100", "--lease-seconds", "2"][..], &REPOSITORY].concat();
        // One works, and the other one takes over.
        let names = ["first", "second"];
        let mut agents = names.map(|name| Some(Agent::start(&desk, &server, name, &flags)));
        cluster_round(&mut machines, &server, (&name, seed), 2, |what| {
            let what = what as usize;
            agents[what].take().unwrap().kill();
            agents[what] = Some(Agent::start(&desk, &server, names[what], &flags));
        });
    }
}
