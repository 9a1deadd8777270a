//! Tokens: what a client gets for its name and password, and shows instead of them
//! (<https://distribution.github.io/distribution/spec/auth/token/>).
//!
//! A token is a JSON Web Token (HS256) of this registry for itself; no other one can read or make it.

use super::Action;
use super::watched::FileError;
use crate::registry::storage::folder::{force_folder, make_folder, write_durably};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Repositories of one token.
pub(super) const MAX_SCOPES: usize = 64;

/// What tokens are signed with.
pub(super) struct Key(hmac::Key);

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    /// Seconds since 1970.
    pub(super) exp: u64,
    #[serde(rename = "sub", default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    pub(super) access: Vec<Access>,
    /// Also for lists of what is in all repositories.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) catalog: bool,
    /// A fingerprint of the user's password; the token ends with it.
    #[serde(rename = "pwd", default, skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
}

/// What it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    /// Of a repository.
    pub(super) name: String,
    pub(super) actions: Vec<Action>,
}

// === impl Key ===

impl Key {
    /// Reads the key, or makes one that only this user can read.
    pub(super) fn open(path: &Path) -> Result<Key, FileError> {
        let error = |reason: String| FileError { path: path.to_owned(), line: None, reason };
        let bytes = match std::fs::read(path) {
            Ok(bytes) if bytes.len() == 32 => bytes,
            // What a kill at the first start may have left of a version before this one is as good as none.
            Ok(bytes) if !bytes.is_empty() => {
                return Err(error(format!(
                    "the key of tokens has {} bytes, and not 32; remove it, and clients get new tokens",
                    bytes.len()
                )));
            }
            Err(wrong) if wrong.kind() != io::ErrorKind::NotFound => return Err(error(wrong.to_string())),
            found => make_key(path, found.is_ok()).map_err(|wrong| error(wrong.to_string()))?,
        };
        Ok(Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Signs a token.
    pub(super) fn issue(&self, token: &Token) -> String {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default());
        let signed = format!("{HEADER}.{claims}");
        let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// What a token says, if it is of this registry and did not expire.
    pub(super) fn read(&self, text: &str, now: SystemTime) -> Option<Token> {
        let (signed, signature) = text.rsplit_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        let claims = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
        let token: Token = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (token.exp > seconds(now)).then_some(token)
    }

    /// A fingerprint of some texts that says nothing about them to whoever does not have the key.
    pub(super) fn print(&self, texts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for text in texts {
            context.update(&(text.len() as u64).to_le_bytes());
            context.update(text.as_bytes());
        }
        let mut print = [0; 32];
        let tag = context.sign();
        print.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        print
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Makes the file of a new key, which is never there in part. Of two processes that make it, both have the key of one.
fn make_key(path: &Path, replace: bool) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let placed = write_durably(&new, &bytes).and_then(|()| match replace {
        true => std::fs::rename(&new, path),
        false => std::fs::hard_link(&new, path),
    });
    let _ = std::fs::remove_file(&new);
    match placed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !replace => std::fs::read(path),
        Err(error) => Err(error),
        Ok(()) => force_folder(folder).map(|()| bytes),
    }
}

// === impl Token ===

impl Token {
    /// For a user, from now on, good for so long.
    pub(super) fn new(user: Option<&str>, access: Vec<Access>, now: SystemTime, life: Duration) -> Token {
        let exp = seconds(now).saturating_add(life.as_secs());
        Token { exp, user: user.map(str::to_owned), access, catalog: false, password: None }
    }
}

// === impl Access ===

impl Access {
    /// `repository:NAME:pull,push`; unknown actions are left out, `*` is all of them.
    pub(super) fn parse(scope: &str) -> Option<Access> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        if kind.split('(').next() != Some("repository") {
            return None;
        }
        let mut found = Vec::new();
        for action in actions.split(',') {
            match action {
                "pull" => found.push(Action::Pull),
                "push" => found.push(Action::Push),
                "delete" => found.push(Action::Delete),
                "*" => found.extend([Action::Pull, Action::Push, Action::Delete]),
                _ => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        Some(Access { name: name.to_owned(), actions: found })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, TOKEN_LIFE};
    use super::{Access, Key, Token};
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_own_tokens_in_their_time_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::open(&folder.path().join("key")).unwrap();
        let other = Key::open(&folder.path().join("other")).unwrap();
        let now = SystemTime::now();
        let access = vec![Access::parse("repository:a/b:pull,push,fly").unwrap()];
        assert_eq!(access[0].actions, [Action::Pull, Action::Push]);
        let token = key.issue(&Token::new(Some("alice"), access.clone(), now, TOKEN_LIFE));
        assert_eq!(key.read(&token, now).unwrap().access, access);
        assert_eq!(Key::open(&folder.path().join("key")).unwrap().read(&token, now).unwrap().access, access);
        assert!(other.read(&token, now).is_none());
        assert!(key.read(&token, now + TOKEN_LIFE + Duration::from_secs(1)).is_none());
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of each part has bits that count for nothing.
            let same = key.read(&changed, now).is_none_or(|read| read.access == access);
            assert!(same, "{changed}");
        }
        // A kill may have left an empty file.
        std::fs::write(folder.path().join("empty"), b"").unwrap();
        Key::open(&folder.path().join("empty")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        assert_eq!(std::fs::metadata(folder.path().join("empty")).unwrap().len(), 32);
        for text in ["", ".", "..", "a.b.c", &token[1..], &format!("{token}.")] {
            assert!(key.read(text, now).is_none(), "{text}");
        }
    }
}
