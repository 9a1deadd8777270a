//! Argo's own agent for one workflow, with the plugin beside it, by the rules that its source has: 16 workers, 30 seconds
//! a call, 404 for ever, 503 and lost connections again after 1, 2, 4 and 8 seconds, results written by a ticker, and a
//! memory that is gone with the pod.

use super::{ApiServer, tasks_of};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// `ARGO_AGENT_TASK_WORKERS`.
const WORKERS: usize = 16;

/// One call of a plugin.
const CALL: Duration = Duration::from_secs(30);

/// Calls of one task, with the pauses between them.
const STEPS: u32 = 5;

/// A plugin, as the agent knows it.
#[derive(Clone)]
pub(crate) struct Sidecar {
    pub(crate) address: String,
    pub(crate) token: String,
    /// What the agent calls.
    pub(crate) method: &'static str,
}

/// The only method that there is.
pub(crate) const EXECUTE: &str = "template.execute";

/// What the agent saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// Requests and replies.
    pub(crate) calls: Vec<(Value, Value)>,
    /// The longest call.
    pub(crate) longest: Duration,
    /// Calls that were made again after 503 or a lost connection.
    pub(crate) repeated: usize,
    /// What 503 said.
    pub(crate) unavailable: Vec<String>,
    /// Calls that were answered with 404.
    pub(crate) invalid: usize,
    /// Calls that found the step still under way.
    pub(crate) polled: usize,
}

/// What a call came to.
enum Reply {
    Body(Value),
    /// No such method; not called again.
    Invalid,
    /// Worth another call.
    Transient(String),
    Fatal(String),
}

/// The agent of one workflow.
pub(crate) struct Pod<'a> {
    server: &'a ApiServer,
    workflow: &'a str,
    sidecar: Sidecar,
    /// `ARGO_AGENT_PATCH_RATE`.
    pub(crate) patch_rate: Duration,
    /// How long a requeue of a second takes: tests do not wait as long as a cluster does.
    pub(crate) requeue: f64,
    pub(crate) seen: Mutex<Seen>,
    considered: Mutex<HashSet<String>>,
    results: Mutex<BTreeMap<String, Value>>,
    is_invalid: AtomicBool,
    stopped: AtomicBool,
}

impl<'a> Pod<'a> {
    pub(crate) fn new(server: &'a ApiServer, workflow: &'a str, sidecar: Sidecar) -> Pod<'a> {
        Pod {
            server,
            workflow,
            sidecar,
            patch_rate: Duration::from_millis(100),
            requeue: 1.0,
            seen: Mutex::default(),
            considered: Mutex::default(),
            results: Mutex::default(),
            is_invalid: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// The pod is killed: what it considered and did not write is forgotten with it.
    pub(crate) fn kill(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.server.change(|_| {});
    }

    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Works until it is killed, or its task set is gone.
    pub(crate) fn run(&self) {
        let (sender, receiver) = mpsc::channel::<(String, Value)>();
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                let (receiver, sender) = (&receiver, sender.clone());
                scope.spawn(move || {
                    loop {
                        let next = receiver.lock().unwrap().recv_timeout(Duration::from_millis(20));
                        match next {
                            Ok((node, template)) => self.work(&node, &template, &sender),
                            Err(_) if self.is_over() => return,
                            Err(_) => {}
                        }
                    }
                });
            }
            scope.spawn(|| {
                while !self.is_over() {
                    std::thread::sleep(self.patch_rate);
                    self.patch();
                }
            });
            let mut version = 0;
            while !self.is_over() {
                let was_there = version > 0;
                version = self.server.wait("a change of the task set", |state| {
                    let is_gone = was_there && state.set(self.workflow).is_none();
                    if self.is_over() || is_gone {
                        return Some(u64::MAX);
                    }
                    let set = state.set(self.workflow)?;
                    let is: u64 = set["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
                    (is != version).then_some(is)
                });
                if version == u64::MAX {
                    return self.kill();
                }
                for task in tasks_of(self.server, self.workflow) {
                    sender.send(task).unwrap();
                }
            }
        });
    }

    fn patch(&self) {
        let results = std::mem::take(&mut *self.results.lock().unwrap());
        if results.is_empty() || self.is_over() {
            return;
        }
        self.server.change(|state| {
            if state.set(self.workflow).is_some() {
                state.patch_set(self.workflow, &json!({"status": {"nodes": results}}));
            }
        });
    }

    fn work(&self, node: &str, template: &Value, queue: &mpsc::Sender<(String, Value)>) {
        if self.is_over() || !self.considered.lock().unwrap().insert(node.to_owned()) {
            return;
        }
        let uid = self
            .server
            .state()
            .set(self.workflow)
            .map(|set| set["metadata"]["ownerReferences"][0]["uid"].clone());
        let metadata = json!({"name": self.workflow, "namespace": "argo", "uid": uid.unwrap_or_default()});
        let request = json!({"workflow": {"metadata": metadata}, "template": template});
        let (result, requeue) = match self.call(&request) {
            Ok(reply) if reply.get("node").is_some_and(|node| !node.is_null()) => {
                let requeue = reply["requeue"].as_str().map(seconds);
                (reply["node"].clone(), requeue.filter(|_| reply["node"]["phase"] != "Succeeded"))
            }
            Ok(_) => (json!({"phase": "Failed", "message": "no plugin executed the template"}), None),
            Err(message) => (json!({"phase": "Failed", "message": message}), None),
        };
        if self.is_over() {
            return;
        }
        if result["phase"].as_str().is_some_and(|phase| !phase.is_empty()) {
            self.results.lock().unwrap().insert(node.to_owned(), result);
        }
        if let Some(requeue) = requeue {
            self.seen.lock().unwrap().polled += 1;
            std::thread::sleep(requeue.mul_f64(self.requeue));
            self.considered.lock().unwrap().remove(node);
            let _ = queue.send((node.to_owned(), template.clone()));
        }
    }

    fn call(&self, request: &Value) -> Result<Value, String> {
        let mut pause = Duration::from_secs(1);
        for step in 1.. {
            if self.is_invalid.load(Ordering::SeqCst) {
                return Ok(json!({}));
            }
            let began = Instant::now();
            let reply = self.call_once(request);
            {
                let mut seen = self.seen.lock().unwrap();
                seen.longest = seen.longest.max(began.elapsed());
                if let Reply::Body(body) = &reply {
                    seen.calls.push((request.clone(), body.clone()));
                }
            }
            match reply {
                Reply::Body(body) => return Ok(body),
                Reply::Invalid => {
                    self.seen.lock().unwrap().invalid += 1;
                    self.is_invalid.store(true, Ordering::SeqCst);
                }
                Reply::Fatal(message) => return Err(message),
                Reply::Transient(message) if step == STEPS || self.is_over() => return Err(message),
                Reply::Transient(_) => {
                    self.seen.lock().unwrap().repeated += 1;
                    std::thread::sleep(pause.mul_f64(1.0 + 0.2 * f64::from(step) / f64::from(STEPS)));
                    pause *= 2;
                }
            }
        }
        unreachable!()
    }

    fn call_once(&self, request: &Value) -> Reply {
        let exchange = || -> std::io::Result<String> {
            let address: SocketAddr = self.sidecar.address.parse().map_err(std::io::Error::other)?;
            let mut stream = TcpStream::connect_timeout(&address, CALL)?;
            stream.set_read_timeout(Some(CALL))?;
            let body = request.to_string();
            write!(
                stream,
                "POST /api/v1/{} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
                 Authorization: Bearer {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                self.sidecar.method,
                self.sidecar.token,
                body.len(),
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            match answer.contains("\r\n\r\n") {
                true => Ok(answer),
                false => Err(ErrorKind::UnexpectedEof.into()),
            }
        };
        let answer = match exchange() {
            Ok(answer) => answer,
            Err(error) => return Reply::Transient(error.to_string()),
        };
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.lines().next().unwrap().split_once(' ').unwrap().1;
        match status.split(' ').next().unwrap() {
            "200" => match serde_json::from_str(body) {
                Ok(body) => Reply::Body(body),
                Err(error) => Reply::Fatal(error.to_string()),
            },
            "404" => Reply::Invalid,
            "503" => {
                self.seen.lock().unwrap().unavailable.push(body.to_owned());
                Reply::Transient(body.to_owned())
            }
            _ => Reply::Fatal(format!("{status}: {body}")),
        }
    }
}

/// A Go duration of seconds.
fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.strip_suffix('s').unwrap().parse().unwrap())
}
