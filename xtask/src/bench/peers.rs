//! Who is measured: dhow and its peers, each as a command line.
//!
//! The peers come from the Cargo registry, in exactly the version named here, into the tool cache.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env::Env;
use crate::install;

/// The version of `wasmtime serve` that the targets are written against.
const WASMTIME: &str = "48.0.8";

/// Invocations an instance serves where instances are reused.
const REUSE: &str = "128";

/// A server and its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// dhow, a fresh instance each request (its default).
    Dhow,
    /// dhow, instances reused 128 times.
    DhowReuse,
    /// `wasmtime serve` with its default options.
    Serve,
    /// `wasmtime serve`, a fresh instance each request, with the options that make it fastest.
    ServeTuned,
    /// `wasmtime serve`, instances reused 128 times.
    ServeReuse,
}

/// Which dhow is measured.
pub enum Choice {
    /// The one that users install.
    Installed,
    Given(PathBuf),
    /// The peers alone.
    None,
}

/// Where programs, guests and scratch files are.
pub struct Places {
    /// The dhow program that was chosen.
    pub dhow: Option<PathBuf>,
    /// The wasmtime program.
    pub wasmtime: PathBuf,
    /// Folder of `bench-<name>.wasm`.
    pub guests: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
    /// Compiled code that stays from run to run.
    pub code_cache: PathBuf,
    /// This run's own files; removed at its end.
    pub scratch: PathBuf,
}

impl Contender {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhow => "dhow",
            Self::DhowReuse => "dhow, reuse 128",
            Self::Serve => "serve",
            Self::ServeTuned => "serve, tuned",
            Self::ServeReuse => "serve, reuse 128",
        }
    }

    /// Whether this is dhow.
    pub fn is_dhow(self) -> bool {
        matches!(self, Self::Dhow | Self::DhowReuse)
    }

    /// Serves `guest` on `addr`; compiled code is cached below `cache`. None when dhow is left out.
    pub fn command(self, places: &Places, guest: &Path, addr: SocketAddr, cache: &Path) -> Option<Command> {
        let mut command = if self.is_dhow() {
            let mut command = Command::new(places.dhow.as_ref()?);
            command.arg("run").arg(guest).arg("--addr").arg(addr.to_string());
            if self == Self::DhowReuse {
                command.args(["--reuse", REUSE]);
            }
            command
        } else {
            let mut command = Command::new(&places.wasmtime);
            command.args(["serve", "-S", "cli", "--addr"]).arg(addr.to_string());
            match self {
                Self::ServeTuned => command.args(TUNED),
                Self::ServeReuse => command.args(["--max-instance-reuse-count", REUSE]),
                _ => &mut command,
            };
            command.arg(guest);
            command
        };
        // Bare variables of the caller must not change what is measured.
        command.env("XDG_CACHE_HOME", cache).env_remove("RUST_LOG").current_dir(&places.scratch);
        Some(command)
    }
}

/// Memory and tables stay resident between instances, and only the pages that were written are reset. 64 MiB
/// covers the heaps of the JavaScript and Python guests; with the page map, unused pages cost nothing.
const TUNED: &[&str] = &[
    "-O",
    "pooling-allocator=y",
    "-O",
    "pooling-memory-keep-resident=67108864",
    "-O",
    "pooling-table-keep-resident=1048576",
    "-O",
    "pooling-pagemap-scan=y",
];

impl Places {
    /// A program for the machine, out of a folder of the project; compiled if it is not.
    pub fn native(&self, folder: &str, program: &str) -> Result<PathBuf, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let target = self.target.join("bench").join("native");
        // The folder's own configuration may compile it for WASI.
        let machine = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--release", "--locked", "--target", &machine]).current_dir(source);
        match cargo.env("CARGO_TARGET_DIR", &target).status() {
            Ok(status) if status.success() => Ok(target.join(machine).join("release").join(program)),
            Ok(status) => Err(format!("compiling {folder}: {status}")),
            Err(error) => Err(format!("compiling {folder}: {error}")),
        }
    }

    /// The usual places.
    pub fn of(env: &Env) -> Self {
        let target = env.target.clone();
        let scratch = target.join("bench").join(format!("run-{}", std::process::id()));
        Self {
            dhow: None,
            wasmtime: env.cache.join("tools").join("bin").join("wasmtime"),
            guests: env.guests(),
            code_cache: target.join("bench").join("code"),
            target,
            scratch,
        }
    }

    /// Makes the folders and checks that every program is there; compiles and installs those that are not.
    pub fn prepare(&mut self, env: &Env, choice: &Choice) -> Result<(), String> {
        self.dhow = match choice {
            Choice::Installed => Some(install::program(env)?),
            Choice::Given(dhow) if dhow.is_file() => Some(dhow.clone()),
            Choice::Given(dhow) => return Err(format!("no dhow at {}", dhow.display())),
            Choice::None => None,
        };
        for folder in [&self.code_cache, &self.scratch] {
            std::fs::create_dir_all(folder).map_err(|e| format!("making {}: {e}", folder.display()))?;
        }
        if version(&self.wasmtime).is_some_and(|version| version.split(' ').any(|word| word == WASMTIME)) {
            return Ok(());
        }
        let root = self.wasmtime.ancestors().nth(2).ok_or("no folder for the tools")?;
        println!("installing wasmtime-cli {WASMTIME} into {} (some minutes)", root.display());
        let package = format!("wasmtime-cli@{WASMTIME}");
        let status =
            Command::new("cargo").args(["install", &package, "--locked", "--root"]).arg(root).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("cargo install {package} --locked: {status}")),
            Err(error) => Err(format!("cargo install {package} --locked: {error}")),
        }
    }

    /// The file of a bench guest.
    pub fn guest(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.guests.join(format!("bench-{name}.wasm"));
        if path.is_file() {
            Ok(path)
        } else {
            Err(format!("no {}; run `cargo xtask guests`", path.display()))
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // Left-over scratch files do no harm and lie in the target folder.
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// The first line of `PROGRAM --version`.
pub fn version(program: &Path) -> Option<String> {
    let output =
        Command::new(program).arg("--version").output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}
