//! Keys: Ed25519, written as nkeys.
//!
//! The text of a key is base32 of a prefix that tells its role, 32 bytes, and a checksum. A public key begins with the
//! letter of its role, a seed with `S` and that letter. A key file holds a seed, may be read by its owner only, and is
//! never overwritten.

use ed25519_dalek::{Signature, VerifyingKey};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Bytes of a key file that are read.
const MAX_FILE: u64 = 4096;

/// Characters of a public key and of a seed.
const PUBLIC_LENGTH: usize = 56;
const SEED_LENGTH: usize = 58;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Vouches for accounts.
    Operator,
    /// Signs modules.
    Account,
    /// Is a module.
    Module,
    /// A person or a program.
    User,
    /// A host.
    Server,
    /// Several hosts.
    Cluster,
    /// A provider of capabilities.
    Service,
}

/// A key that signs.
pub struct KeyPair {
    inner: nkeys::KeyPair,
    public: PublicKey,
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey {
    text: String,
    role: Role,
}

/// A key that cannot be used. The text itself is never part of the message: it may be a seed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A public key was expected, and this is a seed.
    #[error("this is a seed, which is secret, and not a public key; a public key begins with {}", letters())]
    Secret,
    /// A seed was expected, and this is a public key.
    #[error("this is the public key {0}, and not its seed, which begins with S")]
    Public(String),
    /// Neither of both.
    #[error("not a key: {0}")]
    Malformed(&'static str),
    /// The role that was asked for is none.
    #[error(
        "{0:?} is no kind of key; the kinds are operator, account, module, user, server, cluster, service"
    )]
    UnknownRole(String),
    /// Another role was expected.
    #[error("{key} is the key of {found}; here the key of {expected} is needed")]
    WrongRole {
        /// The public key.
        key: String,
        /// Its role.
        found: Role,
        /// The other one.
        expected: Role,
    },
    /// The file is for others to read, too.
    #[error("{}: others may read this key (mode {mode:03o}); do: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no key.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<KeyError>,
    },
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is no randomness.
    #[error("the system gave no random bytes: {0}")]
    NoEntropy(String),
}

/// All roles, with the letter that a public key begins with, and nkeys' name.
const ROLES: [(Role, char, &str, nkeys::KeyPairType); 7] = [
    (Role::Operator, 'O', "operator", nkeys::KeyPairType::Operator),
    (Role::Account, 'A', "account", nkeys::KeyPairType::Account),
    (Role::Module, 'M', "module", nkeys::KeyPairType::Module),
    (Role::User, 'U', "user", nkeys::KeyPairType::User),
    (Role::Server, 'N', "server", nkeys::KeyPairType::Server),
    (Role::Cluster, 'C', "cluster", nkeys::KeyPairType::Cluster),
    (Role::Service, 'V', "service", nkeys::KeyPairType::Service),
];

fn letters() -> String {
    ROLES.iter().map(|(_, letter, ..)| letter.to_string()).collect::<Vec<_>>().join(", ")
}

// === impl Role ===

impl Role {
    fn of_letter(letter: char) -> Option<Role> {
        ROLES.iter().find(|(_, found, ..)| *found == letter).map(|(role, ..)| *role)
    }
}

impl FromStr for Role {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Role, KeyError> {
        let found = ROLES.iter().find(|(_, _, name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(role, ..)| *role).ok_or_else(|| KeyError::UnknownRole(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ROLES.iter().find(|(role, ..)| role == self).map_or("key", |(_, _, name, _)| name);
        f.write_str(name)
    }
}

// === impl KeyPair ===

impl KeyPair {
    /// A new key.
    pub fn generate(role: Role) -> Result<KeyPair, KeyError> {
        let mut random = [0; 32];
        let source = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
        source.map_err(|error| KeyError::NoEntropy(error.to_string()))?;
        let kind = ROLES.iter().find(|(found, ..)| *found == role).map(|(.., kind)| kind.clone());
        let kind = kind.ok_or(KeyError::Malformed("it has no role"))?;
        let inner = nkeys::KeyPair::new_from_raw(kind, random);
        KeyPair::new(inner.map_err(|_| KeyError::Malformed("its seed is no seed"))?)
    }

    fn new(inner: nkeys::KeyPair) -> Result<KeyPair, KeyError> {
        let public = inner.public_key().parse()?;
        Ok(KeyPair { inner, public })
    }

    /// The key of a seed.
    pub fn from_seed(seed: &str) -> Result<KeyPair, KeyError> {
        let seed = seed.trim();
        if let Ok(public) = seed.parse::<PublicKey>() {
            return Err(KeyError::Public(public.text));
        }
        if seed.len() != SEED_LENGTH || !seed.starts_with('S') {
            return Err(KeyError::Malformed("a seed begins with S and has 58 characters"));
        }
        let role = seed.chars().nth(1).and_then(Role::of_letter);
        role.ok_or(KeyError::Malformed("the second letter of its seed names no kind of key"))?;
        let inner = nkeys::KeyPair::from_seed(seed);
        KeyPair::new(inner.map_err(|_| KeyError::Malformed("its checksum is wrong"))?)
    }

    /// Reads a key file that only its owner can read.
    pub fn read(path: &Path) -> Result<KeyPair, KeyError> {
        let io = |error| KeyError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(io)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut lines = lines.filter(|line| !line.starts_with("-----"));
        let seed = lines.next().ok_or(KeyError::Malformed("the file is empty"));
        let key = seed.and_then(KeyPair::from_seed);
        key.map_err(|error| KeyError::File { path: path.to_owned(), error: Box::new(error) })
    }

    /// Writes a new key file for its owner only. An existing file stays as it is, and is an error.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let io = |error| KeyError::Io { path: path.to_owned(), error };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        let written = file.write_all(format!("{}\n", self.seed()?).as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| {
            // Half a key is worse than none.
            let _ = std::fs::remove_file(path);
            io(error)
        })
    }

    /// What it stands for.
    pub fn role(&self) -> Role {
        self.public.role
    }

    /// The same key if it stands for this.
    pub fn expect(self, role: Role) -> Result<KeyPair, KeyError> {
        let public = self.public_key();
        public.expect(role).map(|_| self)
    }

    /// What others know it by.
    pub fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    /// The secret. Show it to nobody who did not ask for it.
    pub fn seed(&self) -> Result<String, KeyError> {
        self.inner.seed().map_err(|_| KeyError::Malformed("it has no seed"))
    }

    /// Signs these bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.inner.sign(message).map_err(|_| KeyError::Malformed("it has no seed"))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPair").field(&self.public_key()).finish()
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it stands for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The same key if it stands for this.
    pub fn expect(self, expected: Role) -> Result<PublicKey, KeyError> {
        if self.role == expected {
            return Ok(self);
        }
        Err(KeyError::WrongRole { key: self.text, found: self.role, expected })
    }

    /// Whether this key signed these bytes.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = Signature::from_slice(signature);
        let key = point(&self.text);
        signature.is_ok_and(|signature| key.is_ok_and(|key| key.verify_strict(message, &signature).is_ok()))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PublicKey, KeyError> {
        let text = text.trim();
        if text.len() == SEED_LENGTH && text.starts_with('S') {
            return Err(KeyError::Secret);
        }
        if text.len() != PUBLIC_LENGTH || !text.is_ascii() {
            return Err(KeyError::Malformed("a public key has 56 characters"));
        }
        let role = text.chars().next().and_then(Role::of_letter);
        let role = role.ok_or(KeyError::Malformed("its first letter names no kind of key"))?;
        point(text)?;
        Ok(PublicKey { text: text.to_owned(), role })
    }
}

/// What a public key's text stands for.
fn point(text: &str) -> Result<VerifyingKey, KeyError> {
    let bytes = nkeys::from_public_key(text);
    let (_, bytes) = bytes.map_err(|_| KeyError::Malformed("its checksum is wrong"))?;
    // With a weak key, one signature fits many messages.
    let key = VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak());
    key.ok_or(KeyError::Malformed("its bytes are no point that keys are made of"))
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_two_texts() {
        for (role, letter, name, _) in ROLES {
            let key = KeyPair::generate(role).unwrap();
            let (public, seed) = (key.public_key(), key.seed().unwrap());
            assert_eq!((public.as_str().len(), seed.len(), name.parse::<Role>().unwrap()), (56, 58, role));
            assert!(public.as_str().starts_with(letter) && seed.starts_with(&format!("S{letter}")));
            assert_eq!(KeyPair::from_seed(&seed).unwrap().public_key(), public);
            assert_eq!(public.as_str().parse::<PublicKey>().unwrap(), public);
            let signature = key.sign(b"message").unwrap();
            assert!(public.verifies(b"message", &signature) && !public.verifies(b"massage", &signature));
            assert!(!public.verifies(b"message", &signature[1..]));
            assert_eq!(format!("{key:?}"), format!("KeyPair({public})"));
        }
    }

    #[test]
    fn what_is_no_key_is_told_without_saying_it() {
        let key = KeyPair::generate(Role::Account).unwrap();
        let (public, seed) = (key.public_key(), key.seed().unwrap());
        assert!(matches!(seed.parse::<PublicKey>(), Err(KeyError::Secret)));
        assert!(matches!(KeyPair::from_seed(public.as_str()), Err(KeyError::Public(_))));
        let mut wrong = seed.clone().into_bytes();
        wrong[30] = if wrong[30] == b'A' { b'B' } else { b'A' };
        let wrong = String::from_utf8(wrong).unwrap();
        for bad in
            ["", "S", "äöü", &seed[1..], &wrong, &wrong.to_lowercase(), &"S".repeat(58), &"A".repeat(56)]
        {
            let public = bad.parse::<PublicKey>().map(|_| ()).unwrap_err().to_string();
            let pair = KeyPair::from_seed(bad).map(|_| ()).unwrap_err().to_string();
            assert!(bad.len() < 2 || (!public.contains(bad) && !pair.contains(bad)), "{public} {pair}");
        }
        assert!(public.expect(Role::Module).unwrap_err().to_string().contains("the key of account"));
    }

    #[test]
    fn key_files_are_for_their_owner_and_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("module.nk");
        let key = KeyPair::generate(Role::Module).unwrap();
        key.write(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(KeyPair::read(&path).unwrap().public_key(), key.public_key());
        let again = KeyPair::generate(Role::Module).unwrap().write(&path);
        assert!(
            matches!(again, Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists)
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(KeyPair::read(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
        for text in ["", "# only a comment\n", "no seed\n"] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(KeyPair::read(&path), Err(KeyError::File { .. })), "{text}");
        }
        assert!(matches!(KeyPair::read(&folder.path().join("none")), Err(KeyError::Io { .. })));
    }
}
