//! Files with credentials: Docker's `config.json`
//! (<https://docs.docker.com/reference/cli/docker/login/#configuration-file>) and Podman's `auth.json`
//! (containers-auth.json(5)), which have the same form:
//!
//! ```json
//! {"auths": {"ghcr.io": {"auth": "base64 of user:password"}}, "credHelpers": {"r.io": "pass"}, "credsStore": "pass"}
//! ```

use super::{Credentials, Secret, server};
use crate::client::error::RegistryError;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// The parts of a file that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// What a file knows of one registry.
#[derive(Debug, Default, Deserialize)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

// === impl AuthFile ===

impl AuthFile {
    /// Reads a file; none if it is not there.
    pub fn read(path: &Path) -> Result<Option<AuthFile>, RegistryError> {
        let Some(bytes) = bytes(path)? else { return Ok(None) };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(AuthFile::default()));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(path, &error))
    }

    /// The program that keeps the credentials for a registry.
    pub fn helper(&self, registry: &str) -> Option<String> {
        let own = self.cred_helpers.get(registry).or_else(|| self.cred_helpers.get(server(registry)));
        own.or(self.creds_store.as_ref()).filter(|name| !name.is_empty()).cloned()
    }

    /// The credentials for a repository; those for a longer part of its name go first, as with Podman.
    pub(super) fn credentials(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, RegistryError> {
        let whole = format!("{registry}/{repository}");
        let mut name = whole.trim_end_matches('/');
        loop {
            if let Some(entry) = self.auths.get(name)
                && let Some(found) = entry.credentials(name)?
            {
                return Ok(Some(found));
            }
            match name.rsplit_once('/') {
                Some((shorter, _)) => name = shorter,
                None => break,
            }
        }
        // Docker has written whole URLs once.
        for (name, entry) in &self.auths {
            if is_for(name, registry)
                && let Some(found) = entry.credentials(name)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

// === impl Entry ===

impl Entry {
    /// None if it only says that a program knows more.
    fn credentials(&self, name: &str) -> Result<Option<Credentials>, RegistryError> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.expose().is_empty()) {
            return Ok(Some(Credentials::IdentityToken(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.expose().is_empty()) {
            let malformed = || RegistryError::Malformed {
                what: format!("the entry {name} of the file with credentials"),
                reason: "its auth is no base64 of user:password".to_owned(),
            };
            let auth = auth.expose().trim();
            let decoded =
                STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).map_err(|_| malformed())?;
            let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
            let (user, password) = decoded.split_once(':').ok_or_else(malformed)?;
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Credentials::Password { user: user.to_owned(), password }));
        }
        Ok(match (&self.username, &self.password) {
            (Some(user), Some(password)) if !user.is_empty() => {
                Some(Credentials::Password { user: user.clone(), password: password.clone() })
            }
            _ => None,
        })
    }
}

/// What a file says of a registry.
pub(super) fn entry(user: &str, password: &Secret) -> Value {
    json!({ "auth": STANDARD.encode(format!("{user}:{}", password.expose())) })
}

/// Removes what is said of a registry, under each of its names; whether there was anything.
pub(super) fn remove(auths: &mut Map<String, Value>, registry: &str) -> bool {
    let before = auths.len();
    auths.retain(|name, _| name != registry && !is_for(name, registry));
    auths.len() != before
}

/// Changes what a file says of registries, and nothing else in it; whether there was something to change. The file
/// and its folder are made if they are not there, for this user only, and nobody ever sees half of the file.
pub(super) fn change(
    path: &Path,
    how: impl FnOnce(&mut Map<String, Value>) -> bool,
) -> Result<bool, RegistryError> {
    // A link stays one: what it leads to is changed.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut whole: Map<String, Value> = match bytes(path)? {
        Some(bytes) if !bytes.iter().all(u8::is_ascii_whitespace) => {
            serde_json::from_slice(&bytes).map_err(|error| wrong(path, &error))?
        }
        _ => Map::new(),
    };
    let auths = whole.entry("auths").or_insert_with(|| json!({}));
    let Value::Object(auths) = auths else {
        return Err(RegistryError::File {
            path: path.to_owned(),
            reason: "its auths are no object".to_owned(),
        });
    };
    if !how(auths) {
        return Ok(false);
    }
    let failed =
        |error: std::io::Error| RegistryError::File { path: path.to_owned(), reason: error.to_string() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let temporary = folder.join(format!(".dhow-login.{:016x}", fastrand::u64(..)));
    let text = format!("{:#}\n", Value::Object(whole));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    Ok(true)
}

/// Whether an entry of this name is for this registry: `https://r.io/v1/`, `index.docker.io` for Docker's own.
fn is_for(name: &str, registry: &str) -> bool {
    let rest = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"));
    let (host, path) = rest.unwrap_or(name).split_once('/').unwrap_or((rest.unwrap_or(name), ""));
    let is_whole = matches!(path, "" | "v1" | "v1/" | "v2" | "v2/");
    is_whole
        && (host == registry
            || (registry == "docker.io" && matches!(host, "index.docker.io" | "registry-1.docker.io")))
}

fn bytes(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    let failed = |reason: String| RegistryError::File { path: path.to_owned(), reason };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(Some(bytes))
}

/// The parser's own words could show a secret: only the place is told.
fn wrong(path: &Path, error: &serde_json::Error) -> RegistryError {
    let reason = format!("it is no file with credentials: line {}, column {}", error.line(), error.column());
    RegistryError::File { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::super::{Credentials, Kept, Secret, find, forget, keep};
    use std::os::unix::fs::PermissionsExt;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: Secret::new(password) })
    }

    #[tokio::test]
    async fn files_of_docker_and_podman_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        // me:secret, team:word
        let text = r#"{
            "auths": {
                "r.io": {"auth": "bWU6c2VjcmV0"},
                "r.io/team": {"auth": "dGVhbTp3b3Jk"},
                "https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"},
                "https://old.io": {"username": "u", "password": "p"},
                "token.io": {"auth": "bWU6", "identitytoken": "t"},
                "empty.io": {},
                "bad.io": {"auth": "c2VjcmV0"}
            },
            "HttpHeaders": {"x": "y"}
        }"#;
        std::fs::write(&file, text).unwrap();
        let files = [dir.path().join("missing"), file.clone()];
        let cases = [
            ("r.io", "other/a", password("me", "secret")),
            ("r.io", "team/a/b", password("team", "word")),
            ("r.io", "teams/a", password("me", "secret")),
            ("docker.io", "library/a", password("me", "secret")),
            ("old.io", "a", password("u", "p")),
            ("token.io", "a", Some(Credentials::IdentityToken(Secret::new("t")))),
            ("empty.io", "a", None),
            ("unknown.io", "a", None),
        ];
        for (registry, repository, expected) in cases {
            assert_eq!(
                find(&files, registry, repository).await.unwrap(),
                expected,
                "{registry}/{repository}"
            );
        }
        let error = find(&files, "bad.io", "a").await.unwrap_err().to_string();
        assert!(error.contains("no base64 of user:password") && !error.contains("secret"), "{error}");
        std::fs::write(&file, r#"{"auths": {"r.io": "hunter2"}}"#).unwrap();
        let error = find(&files, "r.io", "a").await.unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn a_login_changes_one_entry_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/config.json");
        keep(&file, "a.io", "me", &Secret::new("x:y")).await.unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.clone()), mode(dir.path().join("new"))), (0o600, 0o700));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen('{', "{\"proxies\": {\"z\": 1, \"b\": 2},", 1)).unwrap();
        keep(&file, "b.io", "you", &Secret::new("z")).await.unwrap();
        let files = [file.clone()];
        assert_eq!(find(&files, "a.io", "r").await.unwrap(), password("me", "x:y"));
        assert_eq!(
            forget(&file, "a.io").await.unwrap(),
            Some(Kept::File(std::fs::canonicalize(&file).unwrap_or(file.clone())))
        );
        assert_eq!(forget(&file, "a.io").await.unwrap(), None);
        assert_eq!(find(&files, "a.io", "r").await.unwrap(), None);
        assert_eq!(find(&files, "b.io", "r").await.unwrap(), password("you", "z"));
        assert!(std::fs::read_to_string(&file).unwrap().contains("\"proxies\""));
        assert_eq!(std::fs::read_dir(dir.path().join("new")).unwrap().count(), 1);
    }
}
