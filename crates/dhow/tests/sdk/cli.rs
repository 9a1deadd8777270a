//! `dhow` in the place of Dapr's own command: a file `dapr` in PATH that hands its arguments on.

use crate::{free_port, installed, setting};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::{Setting, http};

/// Nothing that is waited for takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// An app with nothing but Python: prints the events of topic `orders`, and answers whatever it is asked.
const APP: &str = r#"
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self):
        body = self.rfile.read(int(self.headers.get('content-length', 0))).decode()
        text, code = '', 200
        if self.path == '/dapr/subscribe':
            text = json.dumps([{'pubsubname': 'pubsub', 'topic': 'orders', 'route': '/orders'}])
        elif self.path == '/orders':
            print('received', json.loads(body)['data'], flush=True)
        elif self.path == '/echo':
            text = f'{self.command} {body}'
        else:
            code = 404
        self.send_response(code)
        self.send_header('content-length', str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PUT = do_OPTIONS = answer

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(('127.0.0.1', int(os.environ['APP_PORT'])), Handler)
print(os.environ['APP_ID'], 'listens', os.environ.get('COLOR', ''), flush=True)
server.serve_forever()
"#;

/// A folder with a `dapr` in it.
struct Dapr {
    setting: Setting,
    path: std::ffi::OsString,
}

/// What was started, and what it prints.
struct Started {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Dapr {
    fn new() -> Dapr {
        let setting = setting();
        setting.file("app.py", APP.as_bytes());
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_dhow"));
        let dapr = setting.file("bin/dapr", script.as_bytes());
        fs::set_permissions(&dapr, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let dhow = Path::new(env!("CARGO_BIN_EXE_dhow")).parent().unwrap().to_owned();
        let folders =
            [dapr.parent().unwrap().to_owned(), dhow].into_iter().chain(std::env::split_paths(&path));
        Dapr { path: std::env::join_paths(folders).unwrap(), setting }
    }

    /// A shell in which `dapr` is there. Everything else is as for `dhow`.
    fn shell(&self, script: &str) -> Command {
        let model = self.setting.dhow(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-euc", script]).current_dir(self.setting.path());
        for (name, value) in model.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.env("PATH", &self.path).stdin(Stdio::null());
        shell
    }

    /// What a script prints; it has to succeed.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        let output = self.shell(script).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    }

    fn start(&self, script: &str) -> Started {
        let mut child = self.shell(&format!("exec 2>&1; exec {script}"));
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Started { child, lines, seen: Vec::new() }
    }
}

impl Started {
    /// The first line with this in it; waits for it.
    #[track_caller]
    fn line(&mut self, part: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(part)) {
            return line.clone();
        }
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("{part:?}: {error}; it printed:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Its exit code.
    fn ended(mut self) -> Option<i32> {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Its program ends with it.
            let pid = libc::pid_t::try_from(self.child.id()).unwrap();
            // SAFETY: takes two integers; the process is our child that was not waited for, so the id is its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
            let _ = self.child.wait();
        }
    }
}

#[test]
fn the_commands_of_dapr() {
    let dapr = Dapr::new();
    assert!(dapr.run("dapr --version").starts_with("dhow "));
    let port = free_port();
    let mut app = dapr.start(&format!(
        "dapr run --app-id shop --app-port {port} --app-protocol http --dapr-http-port 0 --log-level info \
         --resources-path ./resources --enable-api-logging -- python3 app.py"
    ));
    app.line("== APP == shop listens");
    app.line("app shop listens on port");

    let table = dapr.run("dapr list");
    assert!(table.contains("shop"), "{table}");
    let list: Value = serde_json::from_str(&dapr.run("dapr list -o json")).unwrap();
    assert_eq!(list[0]["appId"], "shop");
    assert_eq!(list[0]["appPort"], port.parse::<u16>().unwrap());
    assert_eq!(list[0]["command"], "python3 app.py");
    assert_eq!(list.as_array().unwrap().len(), 1);
    let api = list[0]["httpPort"].as_u64().unwrap();
    let metadata = http::get(format!("127.0.0.1:{api}").parse().unwrap(), "/v1.0/metadata").json();
    assert_eq!(metadata["id"], "shop");
    assert!(list[0]["grpcPort"].as_u64().unwrap() > 0);

    assert_eq!(dapr.run("dapr invoke --app-id shop --method echo --data '{\"a\": 1}'"), "POST {\"a\": 1}");
    assert_eq!(dapr.run("dapr invoke -a shop -m echo -v PUT -d x"), "PUT x");
    assert_eq!(dapr.run("dapr invoke -a shop -m echo --verb GET"), "GET ");
    let published =
        dapr.run("dapr publish --publish-app-id shop --pubsub pubsub --topic orders -d '{\"id\": 7}'");
    assert_eq!(published, "Event published successfully\n");
    app.line("== APP == received {'id': 7}");
    let published = dapr.run("dapr publish -i shop -p pubsub -t orders -d '{\"id\": 8}' --json");
    let published: Value = serde_json::from_str(&published).unwrap();
    assert_eq!(
        ["appId", "pubsub", "topic"].map(|field| published[field].as_str()),
        ["shop", "pubsub", "orders"].map(Some),
        "{published}"
    );
    app.line("== APP == received {'id': 8}");
    dapr.run(
        "echo '\"from a file\"' > data.json; dapr publish -i shop -p pubsub -t orders --data-file data.json",
    );
    app.line("== APP == received from a file");

    dapr.run("dapr stop --app-id shop");
    assert_eq!(app.ended(), Some(0));
    assert_eq!(serde_json::from_str::<Value>(&dapr.run("dapr list -o json")).unwrap(), json!([]));
}

#[test]
fn exit_codes_and_lone_sidecars() {
    let dapr = Dapr::new();
    let output =
        dapr.shell("dapr run --app-id quick -- sh -c 'echo $APP_ID $DAPR_HTTP_PORT; exit 7'").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("== APP == quick "));

    let mut alone = dapr.start("dapr run --app-id alone --resources-path resources");
    let line = alone.line("Dapr API of alone: HTTP ");
    let address = line.split("HTTP ").nth(1).unwrap().split(' ').next().unwrap();
    let address = address.parse().unwrap();
    let saved = http::send(address, "POST", "/v1.0/state/statestore", &[], br#"[{"key": "k", "value": 1}]"#);
    assert_eq!(saved.status, 204);
    assert_eq!(http::get(address, "/v1.0/state/statestore/k").text(), "1");
    assert_eq!(http::send(address, "POST", "/v1.0/shutdown", &[], b"").status, 204);
    assert_eq!(alone.ended(), Some(0));
}

#[test]
fn a_configuration_denies_components() {
    let dapr = Dapr::new();
    let deny = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: appconfig\n\
                spec:\n  components:\n    deny: [state.in-memory/v1, pubsub.in-memory/v2]\n";
    dapr.setting.file("config.yaml", deny.as_bytes());
    let script = r#"dapr run --app-id shop --config config.yaml --resources-path resources -- \
        sh -c 'curl -s http://127.0.0.1:$DAPR_HTTP_PORT/v1.0/metadata' 2>&1"#;
    let printed = dapr.run(script);
    assert!(printed.contains("\"statestore\" of type \"state.in-memory\" is denied"), "{printed}");
    assert!(printed.contains("pubsub.in-memory"), "{printed}");
    assert!(!printed.contains("\"type\":\"state.in-memory\""), "{printed}");
}

#[test]
fn many_apps_of_one_file() {
    let dapr = Dapr::new();
    let file = format!(
        "version: 1\ncommon:\n  resourcesPath: ./resources\n  env:\n    COLOR: blue\napps:\n\
         - appID: one\n  appDirPath: .\n  appPort: {}\n  command: [python3, app.py]\n\
         - appID: two\n  appDirPath: .\n  appPort: {}\n  command: [python3, app.py]\n  env:\n    COLOR: red\n",
        free_port(),
        free_port()
    );
    dapr.setting.file("dapr.yaml", file.as_bytes());
    for command in ["dapr run -f dapr.yaml", "dhow up -f ."] {
        let mut apps = dapr.start(command);
        apps.line("== APP - one == one listens blue");
        apps.line("== APP - two == two listens red");
        apps.line("app one listens on port");
        apps.line("app two listens on port");
        let list: Value = serde_json::from_str(&dapr.run("dapr list -o json")).unwrap();
        let mut ids: Vec<_> =
            list.as_array().unwrap().iter().map(|app| app["appId"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["one", "two"]);
        assert_ne!(list[0]["httpPort"], list[1]["httpPort"]);
        assert_eq!(dapr.run("dapr invoke -a two -m echo -d x"), "POST x");
        dapr.run("dapr publish -i one -p pubsub -t orders -d hello");
        apps.line("== APP - one == received hello");
        // From one app to the other, through both sidecars.
        let api =
            list.as_array().unwrap().iter().find(|app| app["appId"] == "one").unwrap()["httpPort"].clone();
        let address = format!("127.0.0.1:{api}").parse().unwrap();
        let answer = http::send(address, "POST", "/v1.0/invoke/two/method/echo", &[], b"across");
        assert_eq!((answer.status, answer.text().as_str()), (200, "POST across"));
        // One of them ends alone, the other with its file.
        dapr.run("dapr stop --app-id one");
        let list: Value = serde_json::from_str(&dapr.run("dapr list -o json")).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
        assert_eq!(list[0]["appId"], "two");
        dapr.run("dapr stop --app-id two");
        assert_eq!(apps.ended(), Some(0), "{command}");
    }
    let mut apps = dapr.start("dapr run -f .");
    apps.line("app one listens on port");
    apps.line("app two listens on port");
    dapr.run("dapr stop -f dapr.yaml");
    assert_eq!(apps.ended(), Some(0));
}

/// The quickstarts of Dapr, in small: `quickstarts/<name>` with its `dapr.yaml`, run with the command replaced.
#[test]
fn quickstarts() {
    let python = installed("dapr-py/bin/python");
    // Name, lines that have to come.
    let cases: [(&str, &[&str]); 4] = [
        (
            "state_management",
            &[
                "Saving Order: {'orderId': '3'}",
                "Result after get: b'{\"orderId\": \"3\"}'",
                "Deleting Order: {'orderId': '3'}",
            ],
        ),
        ("pub_sub", &["Published data: {\"orderId\": 3}", "Subscriber received : {'orderId': 3}"]),
        ("service_invocation", &["Order passed: {\"orderId\": 3}", "Order received : b'{\"orderId\": 3}'"]),
        ("bindings", &["Processing batch..", "kept order 1 of John Smith", "Finished processing batch"]),
    ];
    for (name, lines) in cases {
        let dapr = Dapr::new();
        let folder = dapr.setting.path().join(name);
        copy(&crate::folder("quickstarts").join(name), &folder, &python);
        let mut apps = dapr.start(&format!("dapr run -f {name}"));
        for line in lines {
            apps.line(line);
        }
        // An app that only does its work ends by itself.
        if name != "state_management" {
            dapr.run(&format!("dapr stop -f {name}"));
        }
        assert_eq!(apps.ended(), Some(0), "{name}");
        if name == "state_management" {
            let log = only_file(&folder.join("order-processor/.dapr/logs"));
            let said = fs::read_to_string(&log).unwrap();
            assert!(said.contains("\nDeleting Order: {'orderId': '3'}\n"), "{said}");
            assert!(
                log.file_name().unwrap().to_str().unwrap().starts_with("order-processor_app_"),
                "{log:?}"
            );
        }
    }
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none(), "{folder:?}");
    file
}

/// Copies a folder; ports are free ones, and `python3` is the one with the SDK.
fn copy(from: &Path, to: &PathBuf, python: &Path) {
    let ports: Vec<String> = (0..3).map(|_| free_port()).collect();
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, python);
            continue;
        }
        let mut text = fs::read_to_string(&path).unwrap();
        if path.file_name().unwrap() == "dapr.yaml" {
            text = text.replace("\"python3\"", &format!("{:?}", python.to_str().unwrap()));
            for (number, port) in ports.iter().enumerate() {
                text = text.replace(&format!("appPort: 600{number}"), &format!("appPort: {port}"));
            }
        }
        fs::write(target, text).unwrap();
    }
}
