//! `cargo xtask install`: the program as users have it.
//!
//! It is linked with optimization across crates, which makes a request a tenth cheaper. Tests use the same profile
//! without that: their programs are many, and each would take as long to link as this one.

use crate::env::Env;
use crate::process::{self, command};
use std::path::PathBuf;
use std::{env, fs};

const USAGE: &str = "\
usage: cargo xtask install [--root DIR]

  --root DIR  where its folder bin is [default: $CARGO_HOME, else ~/.cargo]";

/// Compiles the program and puts it where the user's other programs are.
pub fn run(args: &[String], env: &Env) -> Result<(), String> {
    let root = match args {
        [] => cargo_home()?,
        [flag, root] if flag == "--root" => PathBuf::from(root),
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{USAGE}");
            return Ok(());
        }
        _ => return Err(format!("install does not take `{}`\n\n{USAGE}", args.join(" "))),
    };
    let program = program(env)?;
    let folder = root.join("bin");
    let installed = folder.join("dhow");
    // Renamed, since a program that runs cannot be written to.
    let new = folder.join(format!(".dhow-{}", std::process::id()));
    let copied = fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(&program, &new))
        .and_then(|_| fs::rename(&new, &installed));
    if let Err(error) = copied {
        let _ = fs::remove_file(&new);
        return Err(format!("copying {} to {}: {error}", program.display(), installed.display()));
    }
    println!("installed {}", installed.display());
    let is_found =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|on_path| on_path == folder);
    if !is_found {
        println!("{} is not in PATH: add it, to call the program by its name", folder.display());
    }
    Ok(())
}

/// The program, compiled if it is not.
pub fn program(env: &Env) -> Result<PathBuf, String> {
    println!("compiling dhow as it is installed (up to half an hour the first time)");
    // A folder of its own: the program that tests use has the same name.
    let target = env.target.join("install");
    let build = ["build", "--release", "--locked", "--package", "dhow", "--bin", "dhow"];
    let across_crates = ["--config", "profile.release.lto='thin'"];
    let mut cargo = command(env, "cargo");
    cargo.args(build).args(across_crates).env("CARGO_TARGET_DIR", &target).env_remove("CARGO_BUILD_TARGET");
    process::run(&mut cargo)?;
    Ok(target.join("release").join("dhow"))
}

fn cargo_home() -> Result<PathBuf, String> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("CARGO_HOME").filter(|home| home.is_absolute());
    home.or_else(|| Some(variable("HOME")?.join(".cargo")))
        .ok_or_else(|| "neither CARGO_HOME nor HOME is set; say where with --root DIR".to_owned())
}
