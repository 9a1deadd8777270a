//! Modules in registries: the built program against registries and tools that other people wrote, and against one that
//! means harm.
//!
//! | file | subject |
//! |---|---|
//! | [`registry`] | Docker's registry: push, pull, run; tags, ranges, what works without a network |
//! | [`login`] | who asks: passwords, programs that keep them, authorities |
//! | [`proxies`] | registries behind proxies |
//! | [`tools`] | skopeo, buildah and oras push what we run, and read what we push |
//! | [`signatures`] | cosign's |
//! | [`lies`] | a registry that lies, breaks off, redirects, and never ends |
//! | `hostile` | that registry |

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

mod hostile;
mod lies;
mod login;
mod proxies;
mod registry;
mod signatures;
mod tools;

use dhow_servers::Process;
use std::path::Path;
use std::process::Command;
use support::{Ended, Setting, guest};

/// A program that prints its arguments and ends.
const PROGRAM: &str = "p1-c";

/// A folder, and a registry that lets everybody in over plain HTTP.
struct Shop {
    setting: Setting,
    registry: Process,
}

impl Shop {
    fn new() -> Shop {
        let registry = dhow_servers::docker_registry().unwrap();
        let setting = Setting::new().env("DHOW_INSECURE", &registry.address());
        Shop { setting, registry }
    }

    /// A reference to this registry.
    fn reference(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.registry.address())
    }

    /// Runs `dhow`, which must succeed; the answer is what it printed.
    #[track_caller]
    fn dhow(&self, args: &[&str]) -> String {
        succeeded(self.setting.run(args)).out
    }

    /// Runs `dhow`, which must fail; the answer is what it said.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        refused(self.setting.run(args))
    }

    /// Pushes a guest; the answer is the reference with its digest.
    #[track_caller]
    fn push(&self, name: &str, rest: &str) -> String {
        let file = guest(name);
        self.dhow(&["push", &file.to_string_lossy(), &self.reference(rest)]).trim().to_owned()
    }
}

#[track_caller]
fn succeeded(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended
}

/// What a command said that failed with exit code 1 (125 for `run`), and did not panic.
#[track_caller]
fn refused(ended: Ended) -> String {
    assert!(matches!(ended.code, Some(1 | 2 | 125)), "{ended:?}");
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    ended.err
}

/// Runs another program in a folder; it must succeed.
#[track_caller]
fn tool(folder: &Path, program: &str, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env("HOME", folder).envs(env.iter().copied());
    let output = command.output().unwrap_or_else(|error| {
        panic!("{program} cannot be started ({error}): `cargo xtask setup` installs it")
    });
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{out}{err}", output.status);
    out
}
