//! Manifests of waSCC hosts: finds their actors, and who those are.

use crate::Error;
use dhow_claims::{section, token::Token};
use dhow_resources::wascc::{Actor, ActorPath, Plan, Wascc};
use std::path::{Path, PathBuf};

/// Whether a file is such a manifest.
pub(crate) fn is_manifest(file: &Path) -> bool {
    let is_small = std::fs::metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.len() <= dhow_resources::MAX_FILE_BYTES);
    is_small && std::fs::read_to_string(file).is_ok_and(|text| dhow_resources::wascc::is_manifest(&text))
}

/// Reads a manifest, and the tokens of its actors.
pub(crate) fn load(file: &Path) -> Result<Plan, Error> {
    let failed = |error: dhow_resources::error::ResourceErrors| Error::new(error.to_string());
    let wascc = Wascc::load(file, |name| std::env::var(name).ok()).map_err(failed)?;
    let actors = wascc.actors.iter().map(|path| actor(file, path)).collect::<Result<Vec<_>, _>>()?;
    wascc.plan(&actors).map_err(failed)
}

fn actor(file: &Path, path: &ActorPath) -> Result<Actor, Error> {
    let ActorPath { path, line, column } = path;
    let failed =
        |reason: &str| Error::new(format!("{}:{line}:{column}: actors: {path:?} {reason}", file.display()));
    // As other files of dhow have it, or as the old hosts did: from the current folder.
    let beside = file.parent().unwrap_or(Path::new("")).join(path);
    let module = [beside, PathBuf::from(path)].into_iter().find(|module| module.is_file());
    let module = module.ok_or_else(|| {
        failed("is no file; expected a path of a module (pull one of a registry into a file first)")
    })?;
    let bytes = std::fs::read(&module).map_err(|error| failed(&format!("cannot be read: {error}")))?;
    // One without a token, or with a broken one, has no key; whether that may run is decided elsewhere.
    let token = section::token(&bytes).ok().flatten().and_then(|token| Token::parse(token).ok());
    let stem = module.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let app_id: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let app_id = app_id.trim_matches('-').to_owned();
    if app_id.is_empty() {
        return Err(failed("has no name that could be an app-id"));
    }
    Ok(Actor { app_id, key: token.map(|token| token.subject.as_str().to_owned()), module })
}
