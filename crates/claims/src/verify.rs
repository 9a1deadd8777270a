//! Everything that can be wrong with a signed module, in one place.

use crate::claims::{Claims, Subject};
use crate::keys::{PublicKey, Role};
use crate::section::{self, SectionError};
use crate::token::{Token, TokenError};
use crate::trust::{Chain, TrustStore, earlier};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A module whose token holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The token.
    pub token: Token,
    /// From the token's issuer to a trusted key; empty where nobody asked whom to trust.
    pub chain: Vec<PublicKey>,
    /// It holds until then, in seconds since 1970: the token, and what vouches for its issuer. None: for ever.
    pub until: Option<u64>,
}

/// Which part of a module's token does not hold, and what the token says.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no token.
    #[error("the module is not signed; sign it with: dhow sign")]
    Unsigned,
    /// The file or its section is damaged.
    #[error(transparent)]
    Section(#[from] SectionError),
    /// Structure, algorithm or signature.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It is a token, but of something else.
    #[error("structure: the token is about {subject}, the key of {}, and not about a module", subject.role())]
    NotAModule {
        /// What it is about.
        subject: PublicKey,
    },
    /// The module was changed after it was signed, or the token belongs to another one.
    #[error("hash: the token is for a module with the hash {token}; this one has {module}")]
    Hash {
        /// As the token says.
        token: String,
        /// As it is.
        module: String,
    },
    /// Its time is over.
    #[error("validity: the token expired {}", when(*expires))]
    Expired {
        /// Seconds since 1970.
        expires: u64,
    },
    /// Its time has not come.
    #[error("validity: the token is valid from {} on", when(*not_before))]
    NotYet {
        /// Seconds since 1970.
        not_before: u64,
    },
    /// A module can be signed by an account or an operator.
    #[error("issuer: the token is signed by {issuer}, the key of {}; an account signs modules", issuer.role())]
    Issuer {
        /// Who signed.
        issuer: PublicKey,
    },
    /// Somebody trusted vouched for the issuer, until a time that is over.
    #[error(
        "trust: the word for {issuer}, which signed the module, expired {}; add a new token of its account or operator \
         to the trust store (dhow keys vouch)",
        when(*expires)
    )]
    VouchExpired {
        /// Who signed.
        issuer: PublicKey,
        /// Seconds since 1970.
        expires: u64,
    },
    /// Nobody trusted vouches for the issuer.
    #[error(
        "trust: no chain leads from {issuer}, which signed the module, to a trusted key; add it or the token of \
         its account to the trust store"
    )]
    Untrusted {
        /// Who signed.
        issuer: PublicKey,
    },
}

/// Verifies a module: structure, algorithm, signature, hash, validity window, and with a trust store the chain.
pub fn verify(wasm: &[u8], trust: Option<&TrustStore>, now: SystemTime) -> Result<Verified, Refusal> {
    let text = section::token(wasm)?.ok_or(Refusal::Unsigned)?;
    let token = Token::parse(text)?;
    let Subject::Module(module) = &token.claims.about else {
        return Err(Refusal::NotAModule { subject: token.subject });
    };
    let hashes = section::hashes(wasm)?;
    if !hashes.contains(&module.hash) {
        let [found, _] = hashes;
        return Err(Refusal::Hash { token: module.hash.clone(), module: found });
    }
    verify_token(token, trust, now)
}

/// Verifies again what does not depend on the module: the validity window, and with a trust store the chain.
pub fn verify_token(token: Token, trust: Option<&TrustStore>, now: SystemTime) -> Result<Verified, Refusal> {
    token.claims.check_time(now)?;
    if !matches!(token.issuer.role(), Role::Account | Role::Operator) {
        return Err(Refusal::Issuer { issuer: token.issuer });
    }
    let chain = match trust {
        None => Chain { keys: Vec::new(), expires: None },
        Some(trust) => match trust.chain(&token.issuer, now) {
            Some(chain) => chain,
            None => {
                let expired = trust.expired(&token.issuer, now);
                let issuer = token.issuer;
                return Err(expired.map_or(Refusal::Untrusted { issuer: issuer.clone() }, |expires| {
                    Refusal::VouchExpired { issuer, expires }
                }));
            }
        },
    };
    let until = earlier(token.claims.expires, chain.expires);
    Ok(Verified { token, chain: chain.keys, until })
}

// === impl Claims ===

impl Claims {
    /// Fails before the time of these claims has come, and when it is over.
    pub fn check_time(&self, now: SystemTime) -> Result<(), Refusal> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match (self.not_before, self.expires) {
            (Some(not_before), _) if now < not_before => Err(Refusal::NotYet { not_before }),
            (_, Some(expires)) if now >= expires => Err(Refusal::Expired { expires }),
            _ => Ok(()),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Which part did not hold, in one word: for metrics, scripts and policies.
    pub fn part(&self) -> &'static str {
        match self {
            Refusal::Unsigned => "unsigned",
            Refusal::Token(TokenError::Signature { .. }) => "signature",
            Refusal::Token(TokenError::Header { .. }) => "algorithm",
            Refusal::Section(_) | Refusal::Token(_) | Refusal::NotAModule { .. } => "structure",
            Refusal::Hash { .. } => "hash",
            Refusal::Expired { .. } | Refusal::NotYet { .. } => "validity",
            Refusal::Issuer { .. } => "issuer",
            Refusal::Untrusted { .. } | Refusal::VouchExpired { .. } => "trust",
        }
    }
}

/// `2026-11-21T19:30:00Z`.
pub fn when(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        // Years of five digits are no dates that people write.
        Some(time) if seconds < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => format!("second {seconds} after 1970"),
    }
}
