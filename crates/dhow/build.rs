//! What the program carries inside: the templates of `dhow new`, and the version of Wasmtime.
//!
//! The templates are read here rather than listed by hand, so that a file added to a template is in the
//! program with the next build. Links are followed: the WIT of two templates is that of `wit/`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let templates = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("templates");
    let mut list = String::from("&[\n");
    for template in sorted(&templates)? {
        writeln!(list, "Template {{ name: {:?}, files: &[", name(&template))?;
        add_files(&template, "", &mut list)?;
        list.push_str("] },\n");
    }
    list.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("templates.rs"), list)?;
    println!("cargo::rerun-if-changed={}", templates.display());

    let lock = templates.join("../../../Cargo.lock");
    let text = fs::read_to_string(&lock)?;
    let version = text
        .split("[[package]]")
        .find(|package| package.contains("name = \"wasmtime\"\n"))
        .and_then(|package| package.split("version = \"").nth(1)?.split('"').next())
        .ok_or("Cargo.lock names no wasmtime")?;
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rustc-env=DHOW_WASMTIME_VERSION={version}");
    Ok(())
}

fn add_files(folder: &Path, prefix: &str, list: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    for path in sorted(folder)? {
        let relative = format!("{prefix}{}", name(&path));
        if path.is_dir() {
            add_files(&path, &format!("{relative}/"), list)?;
        } else {
            let path = path.canonicalize()?;
            println!("cargo::rerun-if-changed={}", path.display());
            writeln!(list, "({relative:?}, include_str!({path:?})),")?;
        }
    }
    Ok(())
}

fn sorted(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
