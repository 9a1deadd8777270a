//! Dapr's own SDKs, unmodified, against the built program.
//!
//! Each test starts `dhow run` once, with one of the programs in this folder, as somebody who comes from Dapr
//! does with `dapr run`. The program runs its checks, prints a line for each, and ends with 1 if one of them
//! failed; `dhow run` passes on its exit code.
//!
//! | folder | programs |
//! |---|---|
//! | `python` | `client`: the client half; `grpc_app`, `http_app`: the server half; `layotto_app`: Layotto's API; `pluggable`: components in Python |
//! | `js` | `client`, `server`: both over HTTP and over gRPC |
//! | `rust` | both halves in one program |
//! | `resources` | the components that all of them use |
//! | `quickstarts` | small apps with a `dapr.yaml` each; `cli.rs` runs them, and Dapr's commands |
//!
//! The SDKs come from `cargo xtask setup`; a missing one fails the test and says so.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    dead_code,
    reason = "all of it is a test, and only a part of what tests share is used here"
)]

#[path = "../support/mod.rs"]
mod support;

mod cli;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};
use support::Setting;

/// Where `cargo xtask setup` keeps this, below the user's cache.
fn installed(path: &str) -> PathBuf {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or(home);
    let file = cache.expect("a home").join("dhow/guests").join(path);
    assert!(file.exists(), "{} is missing: run cargo xtask setup", file.display());
    file
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

/// A folder with the resources of all programs, and the files that they name.
fn setting() -> Setting {
    let setting = Setting::new();
    for entry in fs::read_dir(folder("resources")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        setting.file(&format!("resources/{name}"), &fs::read(&path).unwrap());
    }
    setting.file("secrets.json", br#"{"password": "hunter2", "db": {"user": "sa"}}"#);
    setting
        .file("configuration.json", br#"{"greeting": "hello", "limit": {"value": "10", "version": "v2"}}"#);
    fs::create_dir(setting.path().join("files")).unwrap();
    setting
}

/// A port that nobody listens on now.
fn free_port() -> String {
    dhow_servers::free_port().unwrap().to_string()
}

/// Runs a program beside a sidecar to its end; all its checks have to pass.
#[track_caller]
fn passes(setting: &Setting, flags: &[&str], command: &[&Path]) {
    let command: Vec<_> = command.iter().map(|part| part.to_str().unwrap()).collect();
    let args = [&["run", "--resources-path", "resources"], flags, &["--"], &command].concat();
    let ended = setting.run(&args);
    let failed = ended.code != Some(0) || !ended.out.contains(" checks, 0 failed");
    assert!(!failed, "{:?}\n{}\n--- the host said:\n{}", ended.code, ended.out, ended.err);
}

fn python(setting: &Setting, program: &str, flags: &[&str]) {
    let python = installed("dapr-py/bin/python");
    passes(setting, flags, &[&python, &folder("python").join(program)]);
}

fn node(program: &str, flags: &[&str], protocol: &str) {
    let modules = installed("dapr-js/node_modules");
    let setting = setting().env("NODE_PATH", modules.to_str().unwrap());
    let setting = setting.env("DAPR_API_TOKEN", "secret").env("APP_API_TOKEN", "mine");
    passes(&setting, flags, &[Path::new("node"), &folder("js").join(program), Path::new(protocol)]);
}

#[test]
fn python_client() {
    python(&setting(), "client.py", &["--app-id", "py-client"]);
}

#[test]
fn python_app_over_grpc() {
    let setting = setting().env("DAPR_API_TOKEN", "secret").env("APP_API_TOKEN", "mine");
    let flags = ["--app-id", "py-grpc", "--app-port", &free_port(), "--app-protocol", "grpc"];
    let health = ["--enable-app-health-check", "--app-health-probe-interval", "1"];
    python(&setting, "grpc_app.py", &[&flags[..], &health].concat());
}

#[test]
fn python_app_over_http() {
    let setting = setting().env("DAPR_API_TOKEN", "secret").env("APP_API_TOKEN", "mine");
    let flags = ["--app-id", "py-http", "--app-port", &free_port(), "--enable-app-health-check"];
    python(&setting, "http_app.py", &flags);
}

/// What Layotto's API has beside Dapr's.
const LAYOTTO: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: ids }
spec: { type: sequencer.sqlite, version: v1, metadata: [{ name: url, value: ids.db }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: papers }
spec: { type: file.local, version: v1, metadata: [{ name: rootPath, value: blobs }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: vault }
spec:
  type: cryption.local
  version: v1
  metadata:
    - { name: keys, value: '{"orders": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}' }
"#;

#[test]
fn python_app_of_layotto() {
    let setting = setting();
    setting.file("resources/layotto.yaml", LAYOTTO.as_bytes());
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let flags = ["--app-id", "py-layotto", "--app-port", &free_port(), "--app-protocol", "grpc"];
    let program = folder("python").join("layotto_app.py");
    passes(&setting, &flags, &[&installed("dapr-py/bin/python"), &program, &proto]);
}

/// A process that is ended with the test.
struct Component(Child);

impl Drop for Component {
    fn drop(&mut self) {
        // It may be gone: the program of the test kills it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_component_in_a_process_of_its_own() {
    let setting = Setting::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let example = root.join("examples/pluggable-component");
    let resources = fs::read(example.join("resources/components.yaml")).unwrap();
    setting.file("resources/components.yaml", &resources);
    let python = installed("dapr-py/bin/python");
    let sockets = setting.path().join("sockets");
    let (program, proto, socket) =
        (example.join("component.py"), root.join("proto"), sockets.join("shelf.sock"));
    let mut component = Command::new(&python);
    component.args([&program, &proto, &socket]).stdout(Stdio::piped());
    let mut component = Component(component.spawn().unwrap());
    let mut listening = String::new();
    BufReader::new(component.0.stdout.take().unwrap()).read_line(&mut listening).unwrap();
    assert!(listening.contains("listening on"), "the component ended: {listening:?}");
    let setting = setting.env("DAPR_COMPONENTS_SOCKETS_FOLDER", sockets.to_str().unwrap());
    let flags = ["--app-id", "py-shop", "--app-port", &free_port()];
    let program_of_test = folder("python").join("pluggable.py");
    passes(&setting, &flags, &[&python, &program_of_test, &python, &program, &proto, &socket]);
}

#[test]
fn rust_client_and_app() {
    let program = support::guest_file("dapr-rust-sdk");
    let setting = setting().env("DAPR_API_TOKEN", "secret").env("APP_API_TOKEN", "mine");
    let flags = ["--app-id", "rs-app", "--app-port", &free_port(), "--app-protocol", "grpc"];
    passes(&setting, &flags, &[&program]);
}

#[test]
fn javascript_client_over_http() {
    node("client.js", &["--app-id", "js-client"], "http");
}

#[test]
fn javascript_client_over_grpc() {
    node("client.js", &["--app-id", "js-client"], "grpc");
}

#[test]
fn javascript_server_over_http() {
    node("server.js", &["--app-id", "js-server", "--app-port", &free_port()], "http");
}

#[test]
fn javascript_server_over_grpc() {
    let flags = ["--app-id", "js-server", "--app-port", &free_port(), "--app-protocol", "grpc"];
    node("server.js", &flags, "grpc");
}
