//! Who asks: what Docker's and Podman's files say, and the programs that they name.
//!
//! | file | subject |
//! |---|---|
//! | `file` | the files: read, and changed by `dhow login` and `logout` |
//! | `helper` | programs that keep credentials (`docker-credential-…`) |

pub mod file;
mod helper;

use crate::client::error::RegistryError;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// What proves who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password, or a token that is used like one.
        password: Secret,
    },
    /// A token that is traded for others (OAuth 2).
    IdentityToken(Secret),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// Where new credentials were put, or old ones removed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A file.
    File(PathBuf),
    /// A program.
    Program(String),
}

/// The credentials for a repository: of the first file that knows it.
pub async fn find(
    files: &[PathBuf],
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, RegistryError> {
    for path in files {
        let Some(file) = file::AuthFile::read(path)? else { continue };
        let found = match file.helper(registry) {
            Some(program) => helper::get(&program, server(registry)).await?,
            None => None,
        };
        if let Some(found) = found.or(file.credentials(registry, repository)?) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Keeps credentials: in the program that the file names for the registry, else in the file itself.
pub async fn keep(
    path: &std::path::Path,
    registry: &str,
    user: &str,
    password: &Secret,
) -> Result<Kept, RegistryError> {
    let known = file::AuthFile::read(path)?.unwrap_or_default();
    if let Some(program) = known.helper(registry) {
        helper::store(&program, server(registry), user, password).await?;
        return Ok(Kept::Program(program));
    }
    file::change(path, |auths| {
        auths.insert(server(registry).to_owned(), file::entry(user, password));
        true
    })?;
    Ok(Kept::File(path.to_owned()))
}

/// Forgets credentials; none if there were none.
pub async fn forget(path: &std::path::Path, registry: &str) -> Result<Option<Kept>, RegistryError> {
    let Some(known) = file::AuthFile::read(path)? else { return Ok(None) };
    let mut kept = None;
    if let Some(program) = known.helper(registry)
        && helper::get(&program, server(registry)).await?.is_some()
    {
        helper::erase(&program, server(registry)).await?;
        kept = Some(Kept::Program(program));
    }
    if file::change(path, |auths| file::remove(auths, registry))? {
        kept = Some(Kept::File(path.to_owned()));
    }
    Ok(kept)
}

/// What a registry is called in files and by programs: its name, but for Docker's own.
fn server(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

// === impl Secret ===

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for those who need it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
