//! Whose word counts.
//!
//! A trust store is a text file. Each line is a public key that is trusted as it is (an operator, or a single account),
//! or a token by which one key vouches for others: of an operator for its signers, of an account for its. Empty lines
//! and what follows a `#` at the beginning of a line or behind a blank are comments.
//!
//! A module's issuer counts if a chain leads from it to a trusted key: the issuer is an account; the account's token is
//! signed by an operator; the operator is trusted, or its token is signed by one that is. A token whose time is over
//! vouches for nobody. Where several chains lead there, the one that lasts longest counts: a new token for a key can be
//! added before the old one is over.

use crate::claims::Subject;
use crate::keys::{KeyError, PublicKey, Role};
use crate::token::{Token, TokenError};
use crate::verify::Refusal;
use std::collections::{BTreeMap, BTreeSet};
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
    tokens: Vec<Vouching>,
}

/// A token that vouches for others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Vouching {
    token: Token,
    /// Those that its subject named. An account names accounts, an operator operators.
    signers: Vec<PublicKey>,
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
    /// A token by somebody who cannot vouch for that.
    #[error(
        "this token about {subject} is signed by {issuer}, the key of {}; an operator vouches for others, an account \
         for its own signers",
        issuer.role()
    )]
    Issuer {
        /// Who signed.
        issuer: PublicKey,
        /// About whom.
        subject: PublicKey,
    },
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
            // Nobody becomes more than who vouches for it.
            Subject::Account(_) | Subject::Operator(_)
                if token.issuer.role() != Role::Operator && token.issuer != token.subject =>
            {
                Err(LineError::Issuer { issuer: token.issuer, subject: token.subject })
            }
            Subject::Account(ref named) | Subject::Operator(ref named) => {
                let signers = named.valid_signers.iter().filter_map(|signer| signer.parse().ok());
                let signers =
                    signers.filter(|signer: &PublicKey| signer.role() == token.subject.role()).collect();
                self.tokens.push(Vouching { token, signers });
                Ok(())
            }
            Subject::Module(_) | Subject::Other => Err(LineError::Subject(token.subject)),
        }
    }

    /// The chain from the issuer of a module to a trusted key that lasts longest; `None` if there is none.
    pub fn chain(&self, issuer: &PublicKey, now: SystemTime) -> Option<Chain> {
        self.longest(issuer, |token| token.claims.check_time(now).is_ok())
    }

    /// When the chain that lasted longest was over, in seconds since 1970; `None` if there never was one.
    pub(crate) fn expired(&self, issuer: &PublicKey, now: SystemTime) -> Option<u64> {
        let has_begun = |token: &Token| !matches!(token.claims.check_time(now), Err(Refusal::NotYet { .. }));
        self.longest(issuer, has_begun)?.expires
    }

    /// Goes up from a key step by step, in each over every token once, and keeps for each key that is reached the chain
    /// that lasts longest.
    fn longest(&self, issuer: &PublicKey, counts: impl Fn(&Token) -> bool) -> Option<Chain> {
        if !matches!(issuer.role(), Role::Account | Role::Operator) {
            return None;
        }
        let start = Chain { keys: vec![issuer.clone()], expires: None };
        if self.anchors.contains(issuer) {
            return Some(start);
        }
        let tokens: Vec<&Vouching> = self.tokens.iter().filter(|vouching| counts(&vouching.token)).collect();
        let mut best: BTreeMap<&PublicKey, Chain> = BTreeMap::new();
        let mut reached: BTreeMap<&PublicKey, Chain> = BTreeMap::from([(issuer, start)]);
        for _ in 0..MAX_CHAIN {
            let mut next: BTreeMap<&PublicKey, Chain> = BTreeMap::new();
            for vouching in &tokens {
                let token = &vouching.token;
                for (key, above) in vouching.keys() {
                    let Some(chain) = reached.get(key) else { continue };
                    let mut chain = chain.clone();
                    // The key that a signer speaks for stands in between.
                    if token.subject != *key && token.subject != *above {
                        chain.keys.push(token.subject.clone());
                    }
                    chain.keys.push(above.clone());
                    chain.expires = earlier(chain.expires, token.claims.expires);
                    let is_better = |known: Option<&Chain>| {
                        known.is_none_or(|known| lasts(chain.expires) > lasts(known.expires))
                    };
                    if is_better(best.get(above)) && is_better(next.get(above)) {
                        next.insert(above, chain);
                    }
                }
            }
            best.extend(next.iter().map(|(key, chain)| (*key, chain.clone())));
            reached = next;
        }
        let trusted = best.into_iter().filter(|(key, _)| self.anchors.contains(*key)).map(|(_, chain)| chain);
        trusted.max_by_key(|chain| (lasts(chain.expires), std::cmp::Reverse(chain.keys.len())))
    }
}

/// Never is later than any time.
fn lasts(expires: Option<u64>) -> u64 {
    expires.unwrap_or(u64::MAX)
}

/// The earlier one of two times that may be never.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

// === impl Vouching ===

impl Vouching {
    /// The keys that it vouches for, its subject and the signers that are named, each with who must be vouched for in
    /// turn: who signed the token. What somebody says of itself adds only signers, which speak for it.
    fn keys(&self) -> impl Iterator<Item = (&PublicKey, &PublicKey)> {
        let Vouching { token, signers } = self;
        let subject = (token.issuer != token.subject).then_some((&token.subject, &token.issuer));
        subject.into_iter().chain(signers.iter().map(|signer| (signer, &token.issuer)))
    }
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
    fn a_key_that_is_renewed_early_lasts_as_long_as_its_new_token() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let (operator, account) = (key(Role::Operator), key(Role::Account));
        let anchor = operator.public_key().to_string();
        let (old, new) =
            (token(&operator, &account, &[], Some(1010)), token(&operator, &account, &[], Some(2000)));
        for lines in [[&anchor, &old, &new], [&anchor, &new, &old]] {
            let store = TrustStore::parse(&lines.map(String::as_str).join("\n")).unwrap();
            assert_eq!(store.chain(&account.public_key(), now).unwrap().expires, Some(2000));
            let later = now + Duration::from_secs(1000);
            assert_eq!(store.chain(&account.public_key(), later), None);
            assert_eq!(store.expired(&account.public_key(), later), Some(2000));
        }
    }

    #[test]
    fn dead_ends_hide_no_chain() {
        let now = SystemTime::UNIX_EPOCH;
        let (operator, account) = (key(Role::Operator), key(Role::Account));
        // As many operators as one likes vouch for the account, and nobody for them.
        let mut lines: Vec<String> =
            (0..2 * MAX_CHAIN).map(|_| token(&key(Role::Operator), &account, &[], None)).collect();
        // A circle.
        let (one, two) = (key(Role::Operator), key(Role::Operator));
        lines.extend([
            token(&one, &two, &[], None),
            token(&two, &one, &[], None),
            token(&one, &account, &[], None),
        ]);
        let chain = |lines: &[String]| {
            TrustStore::parse(&lines.join("\n")).unwrap().chain(&account.public_key(), now)
        };
        assert_eq!(chain(&lines), None);
        lines.extend([token(&operator, &account, &[], None), operator.public_key().to_string()]);
        assert_eq!(chain(&lines).unwrap().keys, [account.public_key(), operator.public_key()]);
    }

    #[test]
    fn who_may_not_vouch_is_named_with_its_line() {
        let (operator, account, other) = (key(Role::Operator), key(Role::Account), key(Role::Account));
        for wrong in [token(&account, &operator, &[], None), token(&account, &other, &[], None)] {
            let error = TrustStore::parse(&format!("\n{wrong}\n")).unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && error.contains("vouches for others"), "{error}");
        }
        // Of itself an account may name signers; of a trusted account, only it or an operator that is trusted may.
        let now = SystemTime::UNIX_EPOCH;
        let stranger = key(Role::Operator);
        for (issuer, is_trusted) in [(&account, true), (&stranger, false)] {
            let lines = [account.public_key().to_string(), token(issuer, &account, &[&other], None)];
            let store = TrustStore::parse(&lines.join("\n")).unwrap();
            assert_eq!(store.chain(&other.public_key(), now).is_some(), is_trusted);
        }
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
