//! The executor plugin, asked as Argo's agent asks: a bearer token, 30 seconds a call, the same call again while it
//! runs, and again after a restart of either.

use crate::{Desk, PATIENCE};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

pub(crate) const TOKEN: &str = "a token of thirty-two characters";

pub(crate) struct Plugin {
    process: Child,
    pub(crate) address: String,
}

impl Plugin {
    pub(crate) fn start(desk: &Desk) -> Plugin {
        Plugin::with(desk, &[])
    }

    pub(crate) fn start_at(desk: &Desk, address: &str) -> Plugin {
        Plugin::with(desk, &["--addr", address])
    }

    /// Without an address the system chooses the port.
    pub(crate) fn with(desk: &Desk, flags: &[&str]) -> Plugin {
        std::fs::write(desk.path("token"), TOKEN).unwrap();
        let plugin = ["argo", "plugin", "--token-file", "token"];
        let port = if flags.contains(&"--addr") { &[][..] } else { &["--addr", "127.0.0.1:0"] };
        let mut process = desk.start(&[&plugin[..], port, flags].concat());
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let line =
            lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("on http://"))).unwrap().unwrap();
        let address = line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        // The pipe is read on, so that the plugin never waits for it.
        std::thread::spawn(move || lines.for_each(drop));
        Plugin { process, address }
    }

    /// One call: status and body.
    fn call(&self, body: &str, token: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        write!(
            stream,
            "POST /api/v1/template.execute HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{token}\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Asks as the agent does until the node is done; how often it was asked.
    pub(crate) fn run(&self, template: &Value) -> (Value, usize) {
        let since = Instant::now();
        for count in 1.. {
            let (status, body) = self.call(&request(template), Some(TOKEN));
            assert_eq!(status, 200, "{body}");
            let reply: Value = serde_json::from_str(&body).unwrap();
            if reply["node"]["phase"] != "Running" {
                return (reply, count);
            }
            let requeue = reply["requeue"].as_str().unwrap();
            assert!(requeue.ends_with('s') && since.elapsed() < PATIENCE, "{reply}");
        }
        unreachable!()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        let asked = std::process::Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(asked.success());
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(template: &Value) -> String {
    let metadata = json!({"name": "wf", "namespace": "argo", "uid": "5f0e"});
    json!({"workflow": {"metadata": metadata}, "template": template}).to_string()
}

pub(crate) fn template(args: &[&str]) -> Value {
    json!({
        "name": "step", "inputs": {}, "metadata": {},
        "outputs": {"parameters": [{"name": "p", "valueFrom": {"path": "/p", "default": "none"}}]},
        "plugin": {"wasm": {"image": "./tool.wasm", "args": args}},
    })
}

#[test]
fn calls_and_their_answers() {
    let desk = Desk::new();
    let plugin = Plugin::start(&desk);
    let (reply, _) = plugin.run(&template(&["args", "x"]));
    let outputs = json!({
        "parameters": [{"name": "p", "value": "none"}], "result": "[\"args\",\"x\"]", "exitCode": "0",
    });
    assert_eq!(reply["node"]["phase"], "Succeeded");
    assert_eq!(reply["node"]["outputs"], outputs);
    assert!(reply.get("requeue").is_none(), "{reply}");
    let (reply, _) = plugin.run(&template(&["exit", "7"]));
    assert_eq!(
        (&reply["node"]["phase"], &reply["node"]["outputs"]["exitCode"]),
        (&json!("Failed"), &json!("7"))
    );
    let mut missing = template(&[]);
    missing["plugin"]["wasm"]["image"] = json!("./missing.wasm");
    assert_eq!(plugin.run(&missing).0["node"]["phase"], "Error");
    // Another plugin's template, and calls that are none.
    let other = json!({"name": "o", "plugin": {"slack": {}}});
    assert_eq!(plugin.call(&request(&other), Some(TOKEN)), (200, "{}".to_owned()));
    // Names that lead out of the folder of logs.
    let named = |name: &str| request(&template(&[])).replace("\"wf\"", &format!("{name:?}"));
    let mut outside = template(&[]);
    outside["name"] = json!("../../outside");
    for (body, token, status) in [
        (named("../../../outside"), Some(TOKEN), 400),
        (named(""), Some(TOKEN), 400),
        (request(&outside), Some(TOKEN), 400),
        (request(&other), None, 403),
        (request(&other), Some("wrong"), 403),
        ("no json".to_owned(), Some(TOKEN), 400),
        ("{}".to_owned(), Some(TOKEN), 400),
    ] {
        assert_eq!(plugin.call(&body, token).0, status, "{body}");
    }
}

#[test]
fn a_step_that_takes_long_is_found_again() {
    let desk = Desk::new();
    let plugin = Plugin::start(&desk);
    let (reply, count) = plugin.run(&template(&["sleep", "7000"]));
    assert_eq!(reply["node"]["phase"], "Succeeded");
    // It was asked for again, and ran once: no call of the agent came near its 30 seconds.
    assert!(count >= 2, "{count}");
    let slept: u64 = reply["node"]["outputs"]["result"].as_str().unwrap().parse().unwrap();
    assert!((7000..14_000).contains(&slept), "{slept}");
    // The template's own limit is kept here: Argo does not keep it.
    let mut limited = template(&["sleep", "60000"]);
    limited["timeout"] = json!("1s");
    assert_eq!(plugin.run(&limited).0["node"]["phase"], "Failed");
}

#[test]
fn a_call_that_comes_again_gets_the_same_answer_after_a_restart() {
    let desk = Desk::new();
    let plugin = Plugin::start(&desk);
    // What it yields is different each time that it runs.
    let clock = template(&["clock"]);
    let (first, _) = plugin.run(&clock);
    // Killed in the middle of a step, which then begins anew.
    let long = template(&["sleep", "6000"]);
    let (status, body) = plugin.call(&request(&long), Some(TOKEN));
    assert!(status == 200 && body.contains("Running"), "{body}");
    plugin.kill();
    let since = Instant::now();
    let plugin = Plugin::start(&desk);
    // A clock that ran again would say another second by now.
    while since.elapsed() < Duration::from_secs(1) {
        assert_eq!(plugin.run(&clock).0, first);
    }
    assert_eq!(plugin.run(&clock).0, first);
    assert_eq!(plugin.run(&long).0["node"]["phase"], "Succeeded");
}
