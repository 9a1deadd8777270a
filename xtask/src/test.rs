//! What continuous integration checks, in the order in which mistakes are cheapest to find.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::env::Env;
use crate::process::{command, run};
use crate::{guests, setup};

/// Steps that ran, for the summary.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration, Result<(), String>)>);

/// Everything. A failed step does not keep the later ones from running, unless they build upon it.
pub fn run_all(env: &Env) -> Result<(), String> {
    let mut steps = Steps::default();
    steps.run("format", || format(env, true));
    steps.run("clippy", || clippy(env));
    // Building is part of testing: a build of its own would have other features and build most things twice.
    let guests = steps.run("guests", || guests::run(&[], env));
    let others = || {
        setup::servers(env)?;
        setup::dapr_sdks(env)?;
        setup::oras(env)?;
        setup::argo_python(env)?;
        setup::clouds(env)
    };
    if steps.run("servers and SDKs", others) && guests {
        steps.run("tests", || tests(env));
    }
    if has_doc_tests(&env.root.join("crates")) {
        steps.run("doc tests", || {
            run(command(env, "cargo").args(["test", "--release", "--workspace", "--doc", "--quiet"]))
        });
    }
    if env.which("cargo-deny").is_some() {
        steps.run("dependencies", || deny(env));
    }
    steps.summary()
}

/// Format, clippy and dependencies.
pub fn lint(env: &Env) -> Result<(), String> {
    let mut steps = Steps::default();
    steps.run("format", || format(env, true));
    steps.run("clippy", || clippy(env));
    if setup::tool(env, "cargo-deny") {
        steps.run("dependencies", || deny(env));
    }
    steps.summary()
}

/// Formats the workspace and the guests.
pub fn fmt(env: &Env) -> Result<(), String> {
    format(env, false)
}

fn format(env: &Env, check: bool) -> Result<(), String> {
    let manifests = guests::cargo_manifests(env)?;
    let own = [env.root.join("Cargo.toml"), setup::dapr_rust_folder(env).join("Cargo.toml")];
    for manifest in own.iter().chain(&manifests) {
        let mut cargo = command(env, "cargo");
        cargo.args(["fmt", "--all", "--manifest-path"]).arg(manifest);
        if check {
            cargo.arg("--check");
        }
        run(&mut cargo).map_err(|e| format!("{e}; `cargo xtask fmt` repairs it"))?;
    }
    Ok(())
}

fn clippy(env: &Env) -> Result<(), String> {
    let mut cargo = command(env, "cargo");
    run(cargo.args(["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn tests(env: &Env) -> Result<(), String> {
    let nextest = env.which("cargo-nextest").is_some();
    let mut cargo = command(env, "cargo");
    if nextest {
        cargo.args(["nextest", "run", "--release", "--workspace", "--no-fail-fast"]);
    } else {
        cargo.args(["test", "--release", "--workspace", "--lib", "--bins", "--tests"]);
    }
    run(cargo.env("DHOW_GUESTS", env.guests()))
}

fn deny(env: &Env) -> Result<(), String> {
    if !env.root.join("deny.toml").is_file() {
        return Err("deny.toml is missing".to_owned());
    }
    run(command(env, "cargo").args(["deny", "check", "bans", "licenses", "sources"]))
}

/// Whether any documentation holds code: an empty run of rustdoc over the workspace costs a minute.
fn has_doc_tests(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.iter().any(|path| {
        if path.is_dir() {
            return has_doc_tests(path);
        }
        let source = path.extension().is_some_and(|e| e == "rs");
        let opens = |line: &str| {
            matches!(line.trim_start(), "/// ```" | "//! ```" | "/// ```no_run" | "//! ```no_run")
        };
        source && fs::read_to_string(path).is_ok_and(|text| text.lines().any(opens))
    })
}

// === impl Steps ===

impl Steps {
    /// Runs one step under its name; whether it succeeded.
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<(), String>) -> bool {
        println!("== {name}");
        let from = Instant::now();
        let result = step();
        let took = from.elapsed();
        match &result {
            Ok(()) => println!("== {name}: ok, {:.1} s\n", took.as_secs_f64()),
            Err(error) => println!("== {name}: FAILED, {:.1} s\n{error}\n", took.as_secs_f64()),
        }
        let succeeded = result.is_ok();
        self.0.push((name, took, result));
        succeeded
    }

    fn summary(self) -> Result<(), String> {
        for (name, took, result) in &self.0 {
            println!(
                "{name:<18}{:>7.1} s  {}",
                took.as_secs_f64(),
                if result.is_ok() { "ok" } else { "FAILED" }
            );
        }
        let failed: Vec<_> =
            self.0.iter().filter(|(_, _, result)| result.is_err()).map(|(name, ..)| *name).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
    }
}
