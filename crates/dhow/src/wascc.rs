//! Manifests of waSCC hosts: finds their actors, and who those are.

use crate::Error;
use crate::registries::{download_bar, show};
use dhow_artifacts::access::Access;
use dhow_artifacts::reference::{Reference, SCHEME};
use dhow_artifacts::{DEFAULT_LIMIT, Source, read_module};
use dhow_claims::{section, token::Token};
use dhow_resources::manifest::ModuleSource;
use dhow_resources::wascc::{Actor, ActorPath, Plan, Wascc};
use std::path::{Path, PathBuf};

/// Whether a file is such a manifest.
pub(crate) fn is_manifest(file: &Path) -> bool {
    let is_small = std::fs::metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.len() <= dhow_resources::MAX_FILE_BYTES);
    is_small && std::fs::read_to_string(file).is_ok_and(|text| dhow_resources::wascc::is_manifest(&text))
}

/// Reads a manifest, and the tokens of its actors; those in registries are pulled for that.
pub(crate) async fn load(file: &Path, access: &Access) -> Result<Plan, Error> {
    let failed = |error: dhow_resources::error::ResourceErrors| Error::new(error.to_string());
    let wascc = Wascc::load(file, |name| std::env::var(name).ok()).map_err(failed)?;
    let mut actors = Vec::new();
    for path in &wascc.actors {
        actors.push(actor(file, path, access).await?);
    }
    wascc.plan(&actors).map_err(failed)
}

async fn actor(file: &Path, path: &ActorPath, access: &Access) -> Result<Actor, Error> {
    let ActorPath { path, line, column } = path;
    let failed =
        |reason: &str| Error::new(format!("{}:{line}:{column}: actors: {path:?} {reason}", file.display()));
    let (module, name) = found(file, path).map_err(|reason| failed(&reason))?;
    let source = match &module {
        ModuleSource::Oci { reference, .. } => Source::oci(reference).with_access(access),
        ModuleSource::Url(url) => Source::Url(url.clone()),
        ModuleSource::Path(path) => Source::Path(path.clone()),
    };
    let progress = download_bar(path);
    let bytes = read_module(&source, DEFAULT_LIMIT, show(&progress)).await;
    progress.finish_and_clear();
    let bytes = bytes.map_err(|error| failed(&format!("cannot be read: {error}")))?;
    // One without a token, or with a broken one, has no key; whether that may run is decided elsewhere.
    let token = section::token(&bytes).ok().flatten().and_then(|token| Token::parse(token).ok());
    let app_id: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let app_id = app_id.trim_matches('-').to_owned();
    if app_id.is_empty() {
        return Err(failed("has no name that could be an app-id"));
    }
    Ok(Actor { app_id, key: token.map(|token| token.subject.as_str().to_owned()), module })
}

/// Where an actor is, and what people call it: a file, or, as the old hosts had it, what is no file names a registry.
fn found(manifest: &Path, path: &str) -> Result<(ModuleSource, String), String> {
    // As other files of dhow have it, or as the old hosts did: from the current folder.
    let beside = manifest.parent().unwrap_or(Path::new("")).join(path);
    let has_scheme = path.get(..SCHEME.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(SCHEME));
    let file = [beside, PathBuf::from(path)].into_iter().find(|file| !has_scheme && file.is_file());
    if let Some(file) = file {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok((ModuleSource::Path(file), stem));
    }
    match path.parse::<Reference>() {
        // What looks like a file is one that is missing, and nobody is asked for it over the network.
        Ok(reference) if has_scheme || !path.ends_with(".wasm") => {
            let name = reference.name().to_owned();
            Ok((ModuleSource::Oci { reference: reference.to_string(), cosign_key: None }, name))
        }
        Err(error) if has_scheme => Err(format!("cannot be pulled: {error}")),
        _ => Err("is no file, and no reference to a registry; expected a path of a module, or \
                       HOST[:PORT]/REPOSITORY:TAG"
            .to_owned()),
    }
}
