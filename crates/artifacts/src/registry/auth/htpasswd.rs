//! Users and their passwords, as Apache's `htpasswd -B` and other registries keep them: a line `name:$2y$…` each, hashed
//! with bcrypt.

use super::token::Key;
use super::watched::{Content, FileError};
use crate::registry::refusal::Refusal;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// bcrypt looks at no more bytes of a password.
const MAX_PASSWORD: usize = 72;

/// Rounds of new hashes, as a power of two.
const COST: u32 = 10;

/// Passwords that are hashed at once, and that wait for it.
const AT_ONCE: usize = 2;
const WAITING: usize = 64;

/// A password that was right is believed for this long.
const BELIEVED: Duration = Duration::from_secs(600);
const REMEMBERED: usize = 1000;

/// Users by name, each with a hash.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, String>);

/// Checks passwords, which takes a while by design: few at once, and one that was right not again at once.
pub(super) struct Checked {
    turns: Semaphore,
    waiting: Semaphore,
    right: Mutex<HashMap<[u8; 32], Instant>>,
}

// === impl Users ===

impl Content for Users {
    fn read(text: &str) -> Result<Users, (Option<usize>, String)> {
        let mut users = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |reason: &str| (Some(index + 1), reason.to_owned());
            let (name, hash) = line.split_once(':').ok_or_else(|| error("expected NAME:HASH"))?;
            if !is_name(name) {
                return Err(error("the name is empty or has control characters"));
            }
            if !["$2a$", "$2b$", "$2y$"].iter().any(|begin| hash.starts_with(begin)) || hash.len() != 60 {
                return Err(error(
                    "the password is not hashed with bcrypt; write it with `dhow registry user add` or `htpasswd -B`",
                ));
            }
            users.insert(name.to_owned(), hash.to_owned());
        }
        Ok(Users(users))
    }
}

impl Users {
    /// Reads a file; one that is not there has no users.
    pub fn open(path: &Path) -> Result<Users, FileError> {
        let error = |line, reason| FileError { path: path.to_owned(), line, reason };
        match std::fs::read_to_string(path) {
            Ok(text) => Users::read(&text).map_err(|(line, reason)| error(line, reason)),
            Err(wrong) if wrong.kind() == std::io::ErrorKind::NotFound => Ok(Users::default()),
            Err(wrong) => Err(error(None, wrong.to_string())),
        }
    }

    /// Adds a user, or gives it another password. The error says what is wrong with either.
    pub fn set(&mut self, name: &str, password: &str) -> Result<(), String> {
        if !is_name(name) || name == "*" {
            return Err(format!(
                "{name:?} is no name: it may not be empty, \"*\", or have : or control characters"
            ));
        }
        if password.is_empty() || password.len() > MAX_PASSWORD {
            return Err(format!("a password has 1 to {MAX_PASSWORD} bytes, which is what bcrypt looks at"));
        }
        let hash = bcrypt::hash_with_result(password, COST).map_err(|error| error.to_string())?;
        self.0.insert(name.to_owned(), hash.format_for_version(bcrypt::Version::TwoY));
        Ok(())
    }

    /// Removes a user; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A fingerprint of a user's password as it is now; `None` for nobody.
    pub(super) fn print(&self, name: &str, key: &Key) -> Option<String> {
        use std::fmt::Write;
        let print = key.print(&["token", name, self.0.get(name)?]);
        Some(print.iter().take(16).fold(String::new(), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }

    /// Writes the file anew, for its owner only, in one step.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        use crate::registry::storage::folder::{place, write_durably};
        let text: String = self.0.iter().map(|(name, hash)| format!("{name}:{hash}\n")).collect();
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let written = write_durably(&new, text.as_bytes()).and_then(|()| {
            let absolute = std::path::absolute(path)?;
            place(&new, &absolute)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written.map_err(|wrong| FileError { path: path.to_owned(), line: None, reason: wrong.to_string() })
    }
}

/// Never its hashes.
impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(':') && !name.chars().any(char::is_control)
}

// === impl Checked ===

impl Default for Checked {
    fn default() -> Checked {
        Checked { turns: Semaphore::new(AT_ONCE), waiting: Semaphore::new(WAITING), right: Mutex::default() }
    }
}

impl Checked {
    /// Whether the name has this password. A name that there is not takes as long as one that there is.
    pub(super) async fn check(
        &self,
        users: &Arc<Users>,
        key: &Key,
        name: &str,
        password: &str,
    ) -> Result<bool, Refusal> {
        let found = users.0.get(name);
        let is_known = found.is_some();
        let Some(hash) = found.or_else(|| users.0.values().next()).cloned() else { return Ok(false) };
        // What is remembered is bound to the hash: another password is another question.
        let print = key.print(&[name, &hash, password]);
        let is_remembered = |when: &Instant| when.elapsed() < BELIEVED;
        if is_known && self.right().get(&print).is_some_and(is_remembered) {
            return Ok(true);
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| Refusal::TooMany)?;
        let _turn = self.turns.acquire().await;
        let password = password.to_owned();
        let checked = tokio::task::spawn_blocking(move || {
            password.len() <= MAX_PASSWORD && bcrypt::verify(password, &hash).unwrap_or(false)
        });
        let is_right = checked.await.unwrap_or(false) && is_known;
        if is_right {
            let mut right = self.right();
            if right.len() >= REMEMBERED {
                right.retain(|_, when| is_remembered(when));
            }
            if right.len() < REMEMBERED {
                right.insert(print, Instant::now());
            }
        }
        Ok(is_right)
    }

    fn right(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Users;
    use crate::registry::auth::watched::Content;

    #[test]
    fn files_are_as_apache_writes_them() {
        let hash = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
        let users = Users::read(&format!("# people\n\nalice:{hash}\nbob smith:{hash}\r\n")).unwrap();
        assert_eq!(users.names().collect::<Vec<_>>(), ["alice", "bob smith"]);
        for (text, line) in [("alice", 1), ("\n:x", 2), ("alice:{SHA}x", 1), ("a:$apr1$x$y", 1)] {
            assert_eq!(Users::read(text).unwrap_err().0, Some(line), "{text:?}");
        }
        assert!(!format!("{users:?}").contains("$2y$"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let mut users = Users::open(&path).unwrap();
        users.set("alice", "secret").unwrap();
        assert!(users.set("a:b", "secret").is_err());
        assert!(users.set("bob", &"x".repeat(73)).is_err());
        users.write(&path).unwrap();
        assert_eq!(Users::open(&path).unwrap(), users);
        assert!(users.remove("alice") && !users.remove("alice"));
    }
}
