//! Secrets out of a file of lines `NAME=value`.
//!
//! Metadata: `file`, the file as the component sees it (`dirs` gives it a folder). It is read anew for each request.

mod bindings {
    wit_bindgen::generate!({
        path: "../../../../wit/provider",
        world: "dhow:provider/secrets-provider",
    });
}

use bindings::exports::dhow::provider::secrets::{Error, FeatureSet, Guest, Metadata, Secret};
use std::fs;
use std::sync::OnceLock;

/// The file.
static FILE: OnceLock<String> = OnceLock::new();

struct Vault;

bindings::export!(Vault with_types_in bindings);

impl Guest for Vault {
    fn init(metadata: Metadata) -> Result<(), Error> {
        let file = metadata.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("file"));
        let Some((_, file)) = file else {
            return Err(Error::Invalid("metadata field file is missing".to_owned()));
        };
        FILE.get_or_init(|| file);
        secrets().map(drop)
    }

    fn features() -> FeatureSet {
        FeatureSet::empty()
    }

    fn get(name: String, _: Metadata) -> Result<Option<Secret>, Error> {
        let found = secrets()?.into_iter().find(|(known, _)| *known == name);
        Ok(found.map(|secret| vec![secret]))
    }

    fn get_all(_: Metadata) -> Result<Vec<(String, Secret)>, Error> {
        Ok(secrets()?.into_iter().map(|(name, value)| (name.clone(), vec![(name, value)])).collect())
    }
}

/// All names and values. Empty lines and those that begin with `#` are none.
fn secrets() -> Result<Vec<(String, String)>, Error> {
    let file = FILE.get().map_or("", String::as_str);
    let text = fs::read_to_string(file).map_err(|error| Error::Unavailable(format!("{file}: {error}")))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
}
