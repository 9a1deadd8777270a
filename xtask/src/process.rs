//! Starting other programs: one way, so that a missing program always says how to get it.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::env::Env;

/// How to get the programs that this project cannot install by itself.
const HOW_TO_GET: &[(&str, &str)] = &[
    ("cargo", "install Rust from https://rustup.rs"),
    ("rustup", "install Rust from https://rustup.rs"),
    ("python3", "install Python 3.10 or later with its venv module (Debian: apt install python3-venv)"),
    ("npm", "install Node.js 20 or later (https://nodejs.org)"),
    ("node", "install Node.js 20 or later (https://nodejs.org)"),
    (
        "clang",
        "install clang, lld and wasi-libc (Debian: apt install clang lld wasi-libc libclang-rt-14-dev-wasm32)",
    ),
    ("apt-get", "install clang, lld and wasi-libc with your system's package manager"),
    ("curl", "install curl (Debian: apt install curl)"),
];

/// A command with the build folder and PATH of this run.
pub fn command(env: &Env, program: &str) -> Command {
    // Looked up here: Command would search the PATH of this process, not the one given to the child.
    let found = env.which(program);
    let mut command = Command::new(found.as_deref().unwrap_or(Path::new(program)));
    command.current_dir(&env.root).env("PATH", &env.path).env("CARGO_TARGET_DIR", &env.target);
    // Cargo's word to xtask is not for the cargo that builds other packages: build scripts that look at it would
    // run again each time, and what is built upon them.
    let about_xtask = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(about_xtask)) {
        command.env_remove(name);
    }
    command
}

/// Runs to the end with this terminal's output.
pub fn run(command: &mut Command) -> Result<(), String> {
    let status = command.stdin(Stdio::null()).status().map_err(|e| cannot_start(command, &e))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed: {status}", line(command))) }
}

/// Runs to the end and shows its output only if it fails: for compilers that always talk.
pub fn run_quietly(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| cannot_start(command, &e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(format!("`{}` failed: {}\n{}", line(command), output.status, said.trim_end()))
}

/// What a command prints on its standard output, without the last line feed.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| cannot_start(command, &e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` failed: {}\n{}", line(command), output.status, said.trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Whether a command can be started and succeeds; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// The message for a command that did not start.
pub fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if error.kind() != ErrorKind::NotFound {
        return format!("cannot start {}: {error}", program.display());
    }
    let how = HOW_TO_GET.iter().find(|(known, _)| *known == name);
    let how = how.map_or("is it installed and on PATH?", |(_, how)| how);
    format!("`{name}` is needed and was not found: {how}")
}

fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    format!("{program} {}", args.join(" "))
}
