//! The files that a step sees: a folder that is its whole file system, with its inputs in their places.

use super::earlier;
use super::options::Options;
use crate::artifacts::archive::relative;
use crate::artifacts::repository::{ArtifactError, Repository};
use crate::artifacts::{Artifact, Location};
use crate::controller::Identity;
use crate::model::Template;
use crate::node::Outcome;
use cap_std::fs::Dir;
use std::io::Read;
use std::path::Path;

/// Where a script lies, as in Argo.
pub(super) const SCRIPT: &str = "/argo/staging/script";

/// Largest file that becomes a parameter, in bytes; Argo's limit of a whole workflow.
pub(super) const MAX_PARAMETER: u64 = 1 << 20;

/// A folder of one step, gone when it is dropped.
pub(super) struct Room {
    folder: tempfile::TempDir,
    root: Dir,
}

// === impl Room ===

impl Room {
    /// Makes the folder and puts the inputs into it. The inner error is what becomes of the step: an input that is not
    /// there, for one. Blocks.
    #[allow(clippy::type_complexity, reason = "one error is the host's, the other the step's")]
    pub(super) fn furnish(
        rooms: &Path,
        repository: &Repository,
        workflow: &Identity,
        template: &Template,
        options: &Options,
    ) -> Result<Result<Room, Box<Outcome>>, String> {
        // Whose it is, so that somebody takes it away when this process is killed.
        let prefix = format!("{}-", std::process::id());
        let failed = |error: std::io::Error| format!("the step's folder cannot be made: {error}");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(rooms).map_err(failed)?;
        let root = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).map_err(failed)?;
        for name in ["work", "tmp"] {
            root.create_dir(name).map_err(failed)?;
        }
        let room = Room { folder, root };
        if let Some(source) = &options.source {
            room.write(SCRIPT, source.as_bytes())?;
        }
        for artifact in &template.inputs.artifacts {
            if let Err(message) = room.bring(repository, artifact, options) {
                return Ok(Err(Box::new(Outcome::error(message))));
            }
        }
        for parent in template.outputs.artifacts.iter().map(|artifact| artifact.path.as_str()) {
            room.make_parent(parent)?;
            if options.plugin_options.is_some() {
                room.make_parent(&earlier::output_place(parent))?;
            }
        }
        let files = template.outputs.parameters.iter().filter_map(|parameter| parameter.value_from.as_ref());
        for from in files {
            room.make_parent(&from.path)?;
        }
        let input = earlier::input(workflow, template, options);
        room.write("/work/input.json", input.to_string().as_bytes())?;
        Ok(Ok(room))
    }

    /// The folder, as the host knows it.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder, out of which no path leads.
    pub(super) fn root(&self) -> &Dir {
        &self.root
    }

    /// Whether the step left something there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.metadata(relative(path)).is_ok()
    }

    /// The content of a file, without one line's end at its end; none if there is no such file.
    pub(super) fn parameter(&self, path: &str) -> Result<Option<String>, String> {
        let Some(mut text) = self.read(path)? else { return Ok(None) };
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(Some(text))
    }

    /// The content of a small file.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, String> {
        let failed = |error: std::io::Error| format!("{path} cannot be read: {error}");
        let file = match self.root.open(relative(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(format!("{path} is no file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_PARAMETER + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_PARAMETER {
            return Err(format!("{path} has more than {MAX_PARAMETER} bytes; make it an artifact"));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| format!("{path} is no UTF-8 text"))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), String> {
        self.make_parent(path)?;
        self.root.write(relative(path), bytes).map_err(|error| format!("{path} cannot be written: {error}"))
    }

    fn make_parent(&self, path: &str) -> Result<(), String> {
        let path = relative(path);
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        self.root.create_dir_all(parent).map_err(|error| format!("{parent} cannot be made: {error}"))
    }

    fn bring(&self, repository: &Repository, artifact: &Artifact, options: &Options) -> Result<(), String> {
        let name = &artifact.name;
        let path = match &options.plugin_options {
            Some(_) => earlier::input_path(&artifact.path),
            None => artifact.path.clone(),
        };
        if relative(&path) == "." || path.split('/').any(|part| part == "..") {
            return Err(format!("artifact '{name}': {:?} is no path for it", artifact.path));
        }
        self.make_parent(&path)?;
        match repository.bring(&self.root, &path, artifact) {
            Ok(()) => Ok(()),
            Err(ArtifactError::Missing(_)) if artifact.optional => Ok(()),
            Err(_) if artifact.location() == Location::None => {
                Err(format!("required artifact '{name}' not supplied"))
            }
            Err(error) => Err(format!("artifact '{name}': {error}")),
        }
    }
}
