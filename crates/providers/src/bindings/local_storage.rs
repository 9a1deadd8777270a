//! `bindings.localstorage`: files below one folder.
//!
//! No name leads out of the folder: `..` is refused, and so is a symbolic link that leads outside (checked by
//! cap-std at each step of the path, so that nobody can change the path between check and use). Folders of the
//! system that hold secrets or devices are no place for it.
//!
//! As in Dapr, data that happen to be base64 are decoded before they are written.

use super::{unknown_operation, unquoted};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.localstorage",
    aliases: &[],
    versions: &["v1"],
    fields: &["rootPath"],
    open: Open::Binding(|component, _| {
        Box::pin(async move {
            let name = component.name.clone();
            let opened = tokio::task::spawn_blocking(move || open(&component));
            opened.await.unwrap_or_else(|error| {
                Err(OpenError::Backend { component: name, reason: error.to_string() })
            })
        })
    }),
};

const OPERATIONS: &[&str] = &["create", "get", "list", "delete"];

/// Where no root may be.
const FORBIDDEN: &[&str] = &["/proc", "/sys", "/boot", "/dev", "/var/run/secrets", "/run/secrets"];

/// Larger files are not read whole into memory.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Files that one list names at most.
const MAX_FILES: usize = 100_000;

/// Folders within folders that a list looks into.
const MAX_DEPTH: usize = 64;

/// Files below a folder.
#[derive(Clone, Debug)]
pub struct LocalStorage {
    /// The folder's path, for answers only.
    path: PathBuf,
    root: Arc<Dir>,
}

fn open(component: &ComponentSpec) -> Result<Arc<dyn Binding>, OpenError> {
    const FIELD: &[&str] = &["rootPath"];
    let Some(path) = component.field(FIELD) else {
        return Err(component.invalid(FIELD, "given: the path of a folder"));
    };
    let (path, root) = open_root(component, FIELD, Path::new(path))?;
    Ok(Arc::new(LocalStorage { path, root: Arc::new(root) }))
}

/// Opens the folder that a field names, which is made if it is not there, and returns its real path, too.
pub(crate) fn open_root(
    component: &ComponentSpec,
    field: &[&str],
    path: &Path,
) -> Result<(PathBuf, Dir), OpenError> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(component.invalid(field, "a path without a zero byte"));
    }
    let failed = |error: io::Error| OpenError::Backend {
        component: component.name.clone(),
        reason: format!("rootPath {path:?}: {error}"),
    };
    // Looked at before anything is made, and again when links are resolved.
    let is_forbidden = |path: &Path| FORBIDDEN.iter().any(|forbidden| path.starts_with(forbidden));
    let refused =
        || component.invalid(field, "a folder outside /proc, /sys, /boot, /dev and /var/run/secrets");
    let absolute = std::path::absolute(path).map_err(failed)?;
    let nearest = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    if is_forbidden(&absolute) || nearest.is_some_and(|nearest| is_forbidden(&nearest)) {
        return Err(refused());
    }
    std::fs::create_dir_all(&absolute).map_err(failed)?;
    let resolved = absolute.canonicalize().map_err(failed)?;
    if is_forbidden(&resolved) {
        return Err(refused());
    }
    let root = Dir::open_ambient_dir(&resolved, ambient_authority()).map_err(failed)?;
    Ok((resolved, root))
}

/// The path below the root that a file name means.
fn relative(name: &str) -> Result<PathBuf, BlockError> {
    let invalid = |reason: &str| BlockError::invalid(format!("fileName: {name:?} {reason}"));
    if name.contains('\0') {
        return Err(invalid("has a zero byte"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            // As in Dapr, the root is the root of all names.
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => return Err(invalid("has a part \"..\"; name a file below the root")),
            Component::Prefix(_) => return Err(invalid("is not a path below the root")),
        }
    }
    Ok(path)
}

// === impl LocalStorage ===

impl LocalStorage {
    fn carry_out(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let BindingRequest { operation, data, metadata } = request;
        let name = value(&metadata, "fileName").unwrap_or_default();
        match operation.as_str() {
            "create" => self.create(name, data),
            "get" => self.get(&named(name)?),
            "delete" => self.delete(&named(name)?),
            "list" => self.list(&relative(name)?),
            _ => Err(unknown_operation(&operation, OPERATIONS)),
        }
    }

    fn create(&self, name: &str, data: Bytes) -> Result<BindingResponse, BlockError> {
        let path = if name.is_empty() { PathBuf::from(crate::uuid::random()) } else { named(name)? };
        let data = unquoted(data);
        let data = STANDARD.decode(&data).map_or(data, Bytes::from);
        let written = || {
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                self.root.create_dir_all(folder)?;
            }
            self.root.create(&path)?.write_all(&data)
        };
        written().map_err(|error| self.failed("write", &path, &error))?;
        Ok(json(&serde_json::json!({ "fileName": path.to_string_lossy() })))
    }

    fn get(&self, path: &Path) -> Result<BindingResponse, BlockError> {
        let read = || {
            let file = self.root.open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            if !metadata.is_file() {
                // A pipe would be waited for.
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
            }
            let mut bytes = Vec::new();
            file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                BlockError::failed(format!("file not found: {}", self.path.join(path).display()))
            }
            _ => self.failed("read", path, &error),
        })?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(BlockError::failed(format!("the file is larger than {MAX_BYTES} bytes")));
        }
        Ok(BindingResponse { data: Some(bytes.into()), metadata: Metadata::new() })
    }

    fn delete(&self, path: &Path) -> Result<BindingResponse, BlockError> {
        let removed = match self.root.remove_file(path) {
            // An empty folder goes, too.
            Err(_) if self.root.symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) => {
                self.root.remove_dir(path)
            }
            removed => removed,
        };
        removed.map_err(|error| self.failed("delete", path, &error))?;
        Ok(BindingResponse::default())
    }

    fn list(&self, path: &Path) -> Result<BindingResponse, BlockError> {
        let failed = |error: io::Error| self.failed("list", path, &error);
        let folder = match path.as_os_str().is_empty() {
            true => self.root.try_clone(),
            false => self.root.open_dir(path),
        };
        let mut files = Vec::new();
        walk(&folder.map_err(failed)?, &self.path.join(path), 0, &mut files).map_err(failed)?;
        files.sort();
        Ok(json(&files.into()))
    }

    fn failed(&self, what: &str, path: &Path, error: &io::Error) -> BlockError {
        BlockError::failed(format!("cannot {what} {}: {error}", self.path.join(path).display()))
    }
}

/// The files below a folder. Links are named and not followed.
fn walk(folder: &Dir, path: &Path, depth: usize, files: &mut Vec<String>) -> io::Result<()> {
    for entry in folder.entries()? {
        let entry = entry?;
        let path = path.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            files.push(path.to_string_lossy().into_owned());
        } else if depth < MAX_DEPTH {
            walk(&entry.open_dir()?, &path, depth + 1, files)?;
        }
        if files.len() > MAX_FILES {
            let reason = format!("there are more than {MAX_FILES} files; list a folder below");
            return Err(io::Error::other(reason));
        }
    }
    Ok(())
}

/// As [`relative`], of something below the root and not the root itself.
fn named(name: &str) -> Result<PathBuf, BlockError> {
    let path = relative(name)?;
    if path.as_os_str().is_empty() {
        return Err(BlockError::invalid("fileName: name a file"));
    }
    Ok(path)
}

fn json(value: &serde_json::Value) -> BindingResponse {
    BindingResponse { data: Some(value.to_string().into()), metadata: Metadata::new() }
}

#[async_trait]
impl Binding for LocalStorage {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let storage = self.clone();
        let done = tokio::task::spawn_blocking(move || storage.carry_out(request)).await;
        done.unwrap_or_else(|error| Err(BlockError::failed(format!("a file was not reached: {error}"))))
    }
}
