//! The compilers that the templates need: whether this machine has them, and how to get them.
//!
//! Each is asked by running it, because a file of the right name is not a compiler that works.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A tool that a template needs.
pub(crate) struct Tool {
    /// Name for people.
    pub(crate) name: &'static str,
    /// The template that needs it.
    pub(crate) template: &'static str,
    /// How to get it.
    pub(crate) get: &'static str,
    /// What was found, in a few words, or why it is of no use.
    probe: fn() -> Result<String, String>,
}

/// All tools, by template.
pub(crate) const TOOLS: &[Tool] = &[
    Tool {
        name: "cargo",
        template: "rust",
        get: "install Rust: https://rustup.rs",
        probe: || version("cargo", &["--version"]),
    },
    Tool {
        name: "rust target wasm32-wasip2",
        template: "rust",
        get: "rustup target add wasm32-wasip2",
        probe: || rust_target("wasm32-wasip2"),
    },
    Tool {
        name: "node",
        template: "js",
        get: "install Node.js 20 or later: https://nodejs.org/en/download",
        probe: || at_least("node", &["--version"], (20, 0)),
    },
    Tool {
        name: "npm",
        template: "js",
        get: "install npm; it comes with Node.js: https://nodejs.org/en/download",
        probe: || version("npm", &["--version"]),
    },
    Tool {
        name: "python3",
        template: "python",
        get: "install Python 3.10 or later: https://www.python.org/downloads",
        probe: || at_least("python3", &["--version"], (3, 10)),
    },
    Tool {
        name: "python3 venv",
        template: "python",
        get: "install Python's venv and pip (Debian: apt install python3-venv)",
        probe: || {
            version("python3", &["-c", "import venv, ensurepip; print('venv with pip', ensurepip.version())"])
        },
    },
    Tool {
        name: "go",
        template: "go",
        get: "install Go 1.24 or later: https://go.dev/dl",
        probe: || at_least("go", &["version"], (1, 24)),
    },
    Tool {
        name: "clang for WASI",
        template: "c",
        get: "install clang, wasm-ld, wasi-libc and compiler-rt for wasm32 (Debian: apt install clang lld wasi-libc libclang-rt-dev-wasm32)",
        probe: clang,
    },
];

/// The tools of a template that are missing, and what is wrong.
pub(crate) fn missing(template: &str) -> Vec<(&'static Tool, String)> {
    let tools = TOOLS.iter().filter(|tool| tool.template == template);
    tools.filter_map(|tool| Some((tool, tool.probe().err()?))).collect()
}

// === impl Tool ===

impl Tool {
    /// What was found, or why it is of no use.
    pub(crate) fn probe(&self) -> Result<String, String> {
        (self.probe)()
    }
}

/// The first line that the program prints.
fn version(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not in PATH"),
        _ => format!("{program} cannot be run: {error}"),
    })?;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    let line = String::from_utf8_lossy(text).lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() { Ok(line) } else { Err(format!("{program} fails: {line}")) }
}

fn at_least(program: &str, args: &[&str], wanted: (u32, u32)) -> Result<String, String> {
    let line = version(program, args)?;
    match first_version(&line) {
        Some(found) if found < wanted => Err(format!("{line} is older than {}.{}", wanted.0, wanted.1)),
        _ => Ok(line),
    }
}

/// The first `major.minor` of a text: `go version go1.24.1 linux/amd64`, `v20.11.0`, `Python 3.12.3`.
fn first_version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut numbers = word.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

fn rust_target(target: &str) -> Result<String, String> {
    let folder = version("rustc", &["--print", "target-libdir", "--target", target])?;
    if Path::new(&folder).is_dir() {
        Ok("installed".to_owned())
    } else {
        Err(format!("rustc has no standard library for {target}"))
    }
}

/// Compiles and links a program: clang alone says nothing of wasm-ld, wasi-libc and compiler-rt.
fn clang() -> Result<String, String> {
    let line = version("clang", &["--version"])?;
    let started = Command::new("clang")
        .args(["--target=wasm32-wasi", "-x", "c", "-o", "/dev/null", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let result = started.and_then(|mut clang| {
        if let Some(mut stdin) = clang.stdin.take() {
            stdin.write_all(b"#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n")?;
        }
        clang.wait_with_output()
    });
    match result {
        Ok(output) if output.status.success() => Ok(line),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let reason = text.lines().find(|line| line.contains("error")).or_else(|| text.lines().next());
            Err(format!("clang cannot compile for wasm32-wasi: {}", reason.unwrap_or_default().trim()))
        }
        Err(error) => Err(format!("clang cannot be run: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{first_version, version};

    #[test]
    fn versions_are_found_where_tools_print_them() {
        let cases = [
            ("go version go1.24.1 linux/amd64", Some((1, 24))),
            ("v20.11.0", Some((20, 11))),
            ("Python 3.12.3", Some((3, 12))),
            ("none", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(first_version(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_tool_that_is_not_there_is_told_from_one_that_fails() {
        assert_eq!(version("sh", &["-c", "echo 1; echo 2"]), Ok("1".to_owned()));
        assert!(version("sh", &["-c", "echo no >&2; exit 3"]).unwrap_err().contains("fails: no"));
        assert!(version("dhow-no-such-tool", &[]).unwrap_err().contains("not in PATH"));
    }
}
