//! Argo Workflows as a user runs them: files, the built `dhow`, what is printed and what is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod agent;
mod buckets;
mod clouds;
mod cluster;
mod elsewhere;
mod faults;
mod foreign;
mod gate;
mod interrupted;
mod logins;
mod manifests;
mod native;
mod outage;
mod signed;
mod simulator;
mod steps;
mod typed;
mod watched;
mod workers;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A slow machine compiles modules for so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a home, modules and workflows.
struct Desk {
    folder: TempDir,
}

/// Standard output and error, and the exit code.
#[derive(Debug)]
struct Ended {
    out: String,
    err: String,
    code: Option<i32>,
}

/// A module of the test guests.
fn guest(name: &str) -> PathBuf {
    let folder = std::env::var_os("DHOW_GUESTS").expect("DHOW_GUESTS: run cargo xtask test");
    let file = Path::new(&folder).join(format!("{name}.wasm"));
    assert!(file.exists(), "{} is missing: run cargo xtask guests", file.display());
    file
}

/// A program of a Python environment that the set-up installed.
fn python() -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or(home);
    let file = cache.expect("a home").join("dhow/guests/argo-py/bin/python");
    assert!(file.exists(), "{} is missing: run cargo xtask setup", file.display());
    file
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk { folder: TempDir::new().unwrap() };
        std::fs::copy(guest("p1-command"), desk.path("tool.wasm")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A workflow of that name; `spec` is indented by two spaces.
    fn workflow(&self, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata:\n  name: {name}\nspec:\n{}\n",
            spec.trim_matches('\n')
        );
        std::fs::write(self.path(&format!("{name}.yaml")), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_STATE_HOME", self.path("state"))
            // Compiled once for all tests.
            .env("DHOW_CACHE_DIR", std::env::temp_dir().join("dhow-workflow-tests"))
            .env_remove("DHOW_LOG")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn dhow(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// How a workflow stands, as Argo's status has it.
    fn status(&self, name: &str) -> Value {
        let ended = self.dhow(&["workflow", "get", name, "--json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.out).unwrap()
    }

    /// Waits until a workflow is as it should be.
    fn wait(&self, name: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let ended = self.dhow(&["workflow", "get", name, "--json"]);
            if let Ok(status) = serde_json::from_str::<Value>(&ended.out)
                && is_so(&status)
            {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "{name}: {ended:?}");
            // The program that answers is started anew each time, which is wait enough.
        }
    }
}

/// The node of that name without what stands before its last part.
fn node<'a>(status: &'a Value, display_name: &str) -> &'a Value {
    let nodes = status["status"]["nodes"].as_object().unwrap();
    let found = nodes.values().find(|node| node["displayName"] == display_name);
    found.unwrap_or_else(|| panic!("no node {display_name} in {nodes:#?}"))
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code(),
        }
    }
}
