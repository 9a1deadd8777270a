//! Whose word counts.
//!
//! A trust store is a text file. Each line is a public key that is trusted as it is (an operator, or a single account),
//! or a token by which one key vouches for others: of an operator for its signers, of an account for its. Empty lines
//! and what follows a `#` at the beginning of a line or behind a blank are comments.
//!
//! A module's issuer counts if a chain leads from it to a trusted key: the issuer is an account; the account's token is
//! signed by an operator; the operator is trusted, or its token is signed by one that is. A token whose time is over
//! vouches for nobody.

use crate::claims::Subject;
use crate::keys::{KeyError, PublicKey, Role};
use crate::token::{Token, TokenError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Steps from a module's issuer to a trusted key.
const MAX_CHAIN: usize = 8;

/// Keys that are trusted, and tokens that vouch for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustStore {
    anchors: BTreeSet<PublicKey>,
    tokens: Vec<Token>,
}

/// How a key is vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// From the key itself to a trusted one, both included.
    pub keys: Vec<PublicKey>,
    /// The first of the tokens in between expires then, in seconds since 1970.
    pub expires: Option<u64>,
}

/// A trust store that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is larger than any trust store.
    #[error("{}: it has more than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is neither key nor token.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: LineError,
    },
}

/// What is wrong with a line of a trust store.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A key that cannot vouch for modules.
    #[error("{key} is the key of {}; only operators and accounts can be trusted", key.role())]
    Role {
        /// The key.
        key: PublicKey,
    },
    /// A token about something else.
    #[error("this is a token about {0}; only those of operators and accounts vouch for others")]
    Subject(PublicKey),
}

// === impl TrustStore ===

impl TrustStore {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<TrustStore, TrustError> {
        let io = |error| TrustError::Io { path: path.to_owned(), error };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MAX_FILE {
            return Err(TrustError::TooLarge { path: path.to_owned() });
        }
        TrustStore::parse(&std::fs::read_to_string(path).map_err(io)?)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<TrustStore, TrustError> {
        let mut store = TrustStore::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split_once(" #").map_or(line, |(line, _)| line).trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let added = if line.contains('.') { store.add_token(line) } else { store.add_key(line) };
            added.map_err(|reason| TrustError::Line { line: number + 1, reason })?;
        }
        Ok(store)
    }

    fn add_key(&mut self, text: &str) -> Result<(), LineError> {
        let key: PublicKey = text.parse()?;
        match key.role() {
            Role::Operator | Role::Account => {
                self.anchors.insert(key);
                Ok(())
            }
            _ => Err(LineError::Role { key }),
        }
    }

    fn add_token(&mut self, text: &str) -> Result<(), LineError> {
        let token = Token::parse(text)?;
        match token.claims.about {
            Subject::Account(_) | Subject::Operator(_) => {
                self.tokens.push(token);
                Ok(())
            }
            Subject::Module(_) | Subject::Other => Err(LineError::Subject(token.subject)),
        }
    }

    /// The chain from the issuer of a module to a trusted key; `None` if there is none.
    pub fn chain(&self, issuer: &PublicKey, now: SystemTime) -> Option<Chain> {
        match issuer.role() {
            Role::Account | Role::Operator => self.reach(issuer, now, &mut Vec::new()),
            _ => None,
        }
    }

    fn reach(&self, key: &PublicKey, now: SystemTime, seen: &mut Vec<PublicKey>) -> Option<Chain> {
        if self.anchors.contains(key) {
            return Some(Chain { keys: vec![key.clone()], expires: None });
        }
        if seen.contains(key) || seen.len() >= MAX_CHAIN {
            return None;
        }
        seen.push(key.clone());
        let vouching =
            self.tokens.iter().filter(|token| vouches(token, key) && token.claims.check_time(now).is_ok());
        vouching.into_iter().find_map(|token| {
            // A signer speaks for the account or the operator that named it, and that must be vouched for.
            let above = match token.subject == *key {
                true => &token.issuer,
                false => &token.subject,
            };
            let mut chain = self.reach(above, now, seen)?;
            chain.keys.insert(0, key.clone());
            chain.expires = earlier(chain.expires, token.claims.expires);
            Some(chain)
        })
    }
}

/// The earlier one of two times that may be never.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// Whether the token is about this key: its subject, or a signer that its subject named.
fn vouches(token: &Token, key: &PublicKey) -> bool {
    let (Subject::Account(signers) | Subject::Operator(signers)) = &token.claims.about else { return false };
    // An account names accounts, an operator operators: nobody becomes more than who vouches for it.
    let may_sign = key.role() == token.subject.role();
    token.subject == *key || (may_sign && signers.valid_signers.iter().any(|signer| signer == key.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Claims, Signers};
    use crate::keys::KeyPair;
    use std::time::Duration;

    fn key(role: Role) -> KeyPair {
        KeyPair::generate(role).unwrap()
    }

    fn token(issuer: &KeyPair, subject: &KeyPair, signers: &[&KeyPair], expires: Option<u64>) -> String {
        let signers = Signers {
            name: None,
            valid_signers: signers.iter().map(|key| key.public_key().to_string()).collect(),
        };
        let about = match subject.role() {
            Role::Operator => Subject::Operator(signers),
            _ => Subject::Account(signers),
        };
        let subject = subject.public_key().to_string();
        Token::sign(Claims { subject, about, expires, ..Claims::default() }, issuer).unwrap().text
    }

    #[test]
    fn a_chain_leads_to_a_trusted_key() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let (operator, second, account, signer, stranger) = (
            key(Role::Operator),
            key(Role::Operator),
            key(Role::Account),
            key(Role::Account),
            key(Role::Account),
        );
        let text = [
            "# those we know".to_owned(),
            format!("{} # the operator", operator.public_key()),
            token(&operator, &second, &[], None),
            token(&second, &account, &[&signer, &second], Some(1001)),
            // Whoever signs for itself is vouched for by nobody.
            token(&stranger, &stranger, &[], None),
        ];
        let store = TrustStore::parse(&text.join("\n")).unwrap();
        let chain = |key: &KeyPair, now| {
            store.chain(&key.public_key(), now).map(|chain| chain.keys.len()).unwrap_or_default()
        };
        assert_eq!(chain(&operator, now), 1);
        assert_eq!((chain(&second, now), chain(&account, now), chain(&signer, now)), (2, 3, 4));
        let until = |key: &KeyPair| store.chain(&key.public_key(), now).unwrap().expires;
        assert_eq!((until(&second), until(&signer)), (None, Some(1001)));
        assert_eq!((chain(&stranger, now), chain(&key(Role::Account), now)), (0, 0));
        assert_eq!(chain(&key(Role::Module), now), 0);
        assert_eq!(chain(&account, now + Duration::from_secs(1)), 0, "the account's token is over");
    }

    #[test]
    fn an_account_cannot_make_an_operator() {
        let now = SystemTime::UNIX_EPOCH;
        let (operator, account, other) = (key(Role::Operator), key(Role::Account), key(Role::Operator));
        let lines = [operator.public_key().to_string(), token(&operator, &account, &[&other], None)];
        let store = TrustStore::parse(&lines.join("\n")).unwrap();
        assert!(store.chain(&account.public_key(), now).is_some());
        assert!(store.chain(&other.public_key(), now).is_none());
    }

    #[test]
    fn a_line_that_is_neither_is_named() {
        let module = key(Role::Module);
        for line in ["nonsense", "a.b.c", module.public_key().as_str(), &module.seed().unwrap()] {
            let error = TrustStore::parse(&format!("\n{line}\n")).unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && !error.contains(&module.seed().unwrap()), "{error}");
        }
    }
}
