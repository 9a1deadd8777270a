//! Many apps in one dhow host: writes the manifest, starts `dhow up` on it.
//!
//! Used by `start`, `state`, `sidecar` and `density`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::peers::Places;
use super::server::{Server, free_port};

/// Ten thousand apps take a while to be read and checked.
const PATIENCE: Duration = Duration::from_secs(300);

/// A folder with a `dhow.toml`.
pub struct Folder {
    path: PathBuf,
    manifest: String,
}

/// A host that runs the apps of a folder.
pub struct Host {
    /// The process; its `addr` serves the apps.
    pub server: Server,
    /// Dapr's HTTP API for programs outside.
    pub api: SocketAddr,
    /// From spawning the process to its first answer.
    pub ready_after: Duration,
}

/// The route of the app with this number.
pub fn route(number: usize) -> String {
    format!("/app/{number:05}")
}

impl Folder {
    /// An empty folder for a row.
    pub fn new(places: &Places, row: &str) -> Result<Self, String> {
        let path = places.scratch.join(row);
        std::fs::create_dir_all(&path).map_err(|e| format!("making {}: {e}", path.display()))?;
        Ok(Self { path, manifest: String::new() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an app; `module` is a file in this folder or an absolute path.
    pub fn app(&mut self, id: &str, module: &str, route: &str, state: &[&str]) {
        let manifest = &mut self.manifest;
        // Writing to a String cannot fail. Debug's quoting is TOML's for names and paths without control characters.
        let _ = write!(manifest, "[apps.{id}]\nmodule = {module:?}\nroutes = [{route:?}]\n\n");
        if !state.is_empty() {
            let _ = write!(manifest, "[apps.{id}.grants]\nstate = {state:?}\n\n");
        }
    }

    /// Puts filters before the app that was added last, if it has no grants.
    pub fn filters(&mut self, filters: &[&str]) {
        self.manifest.truncate(self.manifest.trim_end().len());
        let _ = write!(self.manifest, "\nfilters = {filters:?}\n\n");
    }

    /// Grants more to an app that has no grants yet.
    pub fn grant(&mut self, id: &str, kind: &str, pattern: &str) {
        let _ = write!(self.manifest, "[apps.{id}.grants]\n{kind} = [{pattern:?}]\n\n");
    }

    /// Writes a file, its folders too.
    pub fn file(&self, name: &str, content: &[u8]) -> Result<(), String> {
        let path = self.path.join(name);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
            std::fs::write(&path, content)
        };
        write().map_err(|e: std::io::Error| format!("writing {}: {e}", path.display()))
    }

    /// Starts a host and waits until GET `ready` answers. Its code cache is in the folder.
    pub fn start(&self, dhow: &Path, core: Option<usize>, ready: &str) -> Result<Host, String> {
        self.file("dhow.toml", self.manifest.as_bytes())?;
        let (addr, api, management) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(dhow);
        command
            .args(["up", "dhow.toml", "--addr", &addr.to_string(), "--api-addr", &api.to_string()])
            .args(["--management-addr", &management.to_string(), "--data-dir", "data"])
            .env("XDG_CACHE_HOME", self.path.join("cache"))
            .env_remove("RUST_LOG")
            .current_dir(&self.path);
        let mut server = Server::start("dhow up", command, addr, core, &self.path)?;
        let ready_after = server.wait_ready(ready, PATIENCE)?;
        Ok(Host { server, api, ready_after })
    }
}
