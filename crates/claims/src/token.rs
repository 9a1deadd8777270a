//! The text of a token: a compact JWT with Wascap's header (fact sheet of Wascap, "Header and signature").

use crate::claims::{Claims, ClaimsError};
use crate::keys::{KeyError, KeyPair, PublicKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Serialize};

/// Longest token, in bytes.
pub const MAX_TOKEN: usize = 64 << 10;

const TYPE: &str = "jwt";
const ALGORITHM: &str = "Ed25519";

/// A token that was read. Its signature is that of its issuer; everything else it says is only said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// As it stands in the module.
    pub text: String,
    /// What it says.
    pub claims: Claims,
    /// Who signed it.
    pub issuer: PublicKey,
    /// About whom.
    pub subject: PublicKey,
}

/// Why a text is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is too long.
    #[error("structure: the token has {0} bytes; at most {MAX_TOKEN} are read")]
    TooLarge(usize),
    /// A JWT has three parts.
    #[error("structure: a token has three parts with dots between them; this one has {0}")]
    Parts(usize),
    /// A part is not what it should be.
    #[error("structure: the token's {part} cannot be read: {reason}")]
    Part {
        /// `header`, `claims` or `signature`.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The header asks for something else.
    #[error("algorithm: the token's header says {field} {found:?}; only {expected:?} is known")]
    Header {
        /// The field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// The claims are not complete.
    #[error("structure: {0}")]
    Claims(#[from] ClaimsError),
    /// Issuer or subject is no key.
    #[error("structure: the token's {field} is no key: {error}")]
    Key {
        /// `iss` or `sub`.
        field: &'static str,
        /// What is wrong.
        error: KeyError,
    },
    /// Somebody else signed, or something was changed.
    #[error("signature: the token is not signed by {issuer}, which it names as its issuer")]
    Signature {
        /// The issuer.
        issuer: PublicKey,
    },
}

#[derive(Deserialize, Serialize)]
struct Header {
    typ: String,
    alg: String,
}

// === impl Token ===

impl Token {
    /// Reads a token and checks its signature.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge(text.len()));
        }
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let &[header, claims, signature] = parts.as_slice() else {
            return Err(TokenError::Parts(parts.len()));
        };
        let read: Header = json("header", header)?;
        let fields = [("typ", &read.typ, TYPE), ("alg", &read.alg, ALGORITHM)];
        if let Some((field, found, expected)) =
            fields.into_iter().find(|(_, found, expected)| found != expected)
        {
            return Err(TokenError::Header { field, found: found.clone(), expected });
        }
        let claims = Claims::from_json(&decode("claims", claims)?)?;
        let key =
            |field, text: &str| text.parse::<PublicKey>().map_err(|error| TokenError::Key { field, error });
        let (issuer, subject) = (key("iss", &claims.issuer)?, key("sub", &claims.subject)?);
        let signed = text.len() - signature.len() - 1;
        if !issuer.verifies(&text.as_bytes()[..signed], &decode("signature", signature)?) {
            return Err(TokenError::Signature { issuer });
        }
        Ok(Token { text: text.to_owned(), claims, issuer, subject })
    }

    /// Signs claims. Their issuer becomes the key that signs.
    pub fn sign(mut claims: Claims, key: &KeyPair) -> Result<Token, TokenError> {
        claims.issuer = key.public_key().as_str().to_owned();
        let header = serde_json::to_vec(&Header { typ: TYPE.to_owned(), alg: ALGORITHM.to_owned() });
        let header = header.map_err(|error| part("header", &error))?;
        let signed = format!(
            "{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(header),
            BASE64_URL_SAFE_NO_PAD.encode(claims.to_json()?)
        );
        let signature = key.sign(signed.as_bytes()).map_err(|error| part("signature", &error))?;
        Token::parse(&format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn part(part: &'static str, reason: &dyn std::fmt::Display) -> TokenError {
    TokenError::Part { part, reason: reason.to_string() }
}

fn decode(name: &'static str, text: &str) -> Result<Vec<u8>, TokenError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| part(name, &error))
}

fn json<T: for<'a> Deserialize<'a>>(name: &'static str, text: &str) -> Result<T, TokenError> {
    serde_json::from_slice(&decode(name, text)?).map_err(|error| part(name, &error))
}
