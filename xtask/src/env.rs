//! Where things lie: the checkout, the build folder and the cache that all checkouts share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The folders of one run.
pub struct Env {
    /// The checkout.
    pub root: PathBuf,
    /// What every cargo of this run builds into: CARGO_TARGET_DIR, or one folder for all checkouts.
    pub target: PathBuf,
    /// Installed compilers and tools; `<user cache>/dhow`.
    pub cache: PathBuf,
    /// PATH of everything that is started, with the tools of `cache` first.
    pub path: OsString,
}

impl Env {
    /// Finds the folders, from the environment and the checkout that cargo was called in.
    pub fn find() -> Result<Env, String> {
        let root = checkout()?;
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(home);
        let cache = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set; set one of them")?.join("dhow");
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|v| !v.is_empty()) {
            Some(target) => root.join(target),
            None => cache.join("target"),
        };
        let mut path = vec![cache.join("tools/bin")];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let path = env::join_paths(path).map_err(|e| format!("PATH: {e}"))?;
        for folder in [&cache, &target] {
            fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        Ok(Env { root, target, cache, path })
    }

    /// The compiled guests.
    pub fn guests(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// The compilers that guests need.
    pub fn toolchains(&self) -> PathBuf {
        self.cache.join("guests")
    }

    /// The program of this name on `path`.
    pub fn which(&self, program: &str) -> Option<PathBuf> {
        env::split_paths(&self.path).map(|folder| folder.join(program)).find(|file| is_program(file))
    }
}

/// Cargo names the folder of xtask at run time; without cargo it is looked for above the current folder.
fn checkout() -> Result<PathBuf, String> {
    if let Some(xtask) = env::var_os("CARGO_MANIFEST_DIR")
        && let Some(root) = Path::new(&xtask).parent()
    {
        return Ok(root.to_owned());
    }
    let here = env::current_dir().map_err(|e| format!("the current folder: {e}"))?;
    let found = here.ancestors().find(|folder| folder.join("xtask/Cargo.toml").is_file());
    found
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not in a checkout of dhow; cd into one", here.display()))
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}
