//! What a token says, in all its generations (fact sheet of Wascap, "Claims").
//!
//! Until 0.1 the fields of a module stood beside the others, since then under `wascap`. What is written is the newest
//! form, with the capabilities that the newest tools left out: they ignore the field.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The generation that is written.
pub const REVISION: u32 = 3;

/// Entries of a list: tags, capabilities, signers.
const MAX_ENTRIES: usize = 1000;

/// What an issuer says about a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Of this token (`jti`).
    pub id: String,
    /// Public key of who says it (`iss`).
    pub issuer: String,
    /// Public key of whom it is about (`sub`).
    pub subject: String,
    /// Seconds since 1970 (`iat`).
    pub issued_at: u64,
    /// Not valid any more from this second on (`exp`).
    pub expires: Option<u64>,
    /// Not valid yet before this second (`nbf`).
    pub not_before: Option<u64>,
    /// Generation of the format (`wascap_revision`); 0 where the token names none.
    pub revision: u32,
    /// What is said.
    pub about: Subject,
}

/// What the subject is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// A module.
    Module(ModuleClaims),
    /// An account, which signs modules.
    Account(Signers),
    /// An operator, which vouches for accounts.
    Operator(Signers),
    /// Something else: a host, a provider, an invocation.
    #[default]
    Other,
}

/// What is said about a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleClaims {
    /// For people.
    pub name: Option<String>,
    /// SHA-256 of the module without its token, upper-case hexadecimal.
    pub hash: String,
    /// Anything.
    pub tags: Vec<String>,
    /// What the module may do, as it was written (see [`crate::Capability`]). None: the token says nothing of it, as those
    /// of Wascap's tools since 0.13; an empty list says that it may do nothing.
    pub capabilities: Option<Vec<String>>,
    /// Counts up.
    pub rev: Option<i32>,
    /// Version, for people and for ranges.
    pub version: Option<String>,
    /// Another name to call it by.
    pub call_alias: Option<String>,
    /// It provides a capability rather than using some.
    pub is_provider: bool,
}

/// What is said about an account or an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// For people.
    pub name: Option<String>,
    /// Public keys that sign for it, beside its own.
    pub valid_signers: Vec<String>,
}

/// Claims that are not complete, or not in any known form.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// No JSON object, or a field of another type.
    #[error("the token's claims cannot be read: {0}")]
    Json(String),
    /// A field that must be there.
    #[error("the token's claims have no {0:?}")]
    Missing(&'static str),
    /// A list is too long.
    #[error("the token's claims have {count} entries in {field:?}; at most {MAX_ENTRIES} are read")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Entries.
        count: usize,
    },
}

/// All fields of all generations.
#[derive(Default, Deserialize, Serialize)]
struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(default)]
    jti: String,
    #[serde(default)]
    iat: u64,
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wascap: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wascap_revision: Option<u32>,
    // 0.0 and 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caps: Option<Vec<String>>,
}

#[derive(Default, Deserialize, Serialize)]
struct WireModule {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default)]
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caps: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_alias: Option<String>,
    #[serde(default)]
    prov: bool,
}

#[derive(Default, Deserialize, Serialize)]
struct WireSigners {
    name: Option<String>,
    valid_signers: Option<Vec<String>>,
}

// === impl Claims ===

impl Claims {
    /// Reads the JSON of a token of any generation. What the subject is, is told by its key.
    pub(crate) fn from_json(json: &[u8]) -> Result<Claims, ClaimsError> {
        let wire: Wire = serde_json::from_slice(json).map_err(unreadable)?;
        for (field, text) in [("iss", &wire.iss), ("sub", &wire.sub)] {
            if text.is_empty() {
                return Err(ClaimsError::Missing(field));
            }
        }
        let about = match wire.sub.chars().next() {
            Some('M') => Subject::Module(module(wire.wascap, wire.hash, wire.tags, wire.caps)?),
            Some('A') => Subject::Account(signers(wire.wascap)?),
            Some('O') => Subject::Operator(signers(wire.wascap)?),
            _ => Subject::Other,
        };
        Ok(Claims {
            id: wire.jti,
            issuer: wire.iss,
            subject: wire.sub,
            issued_at: wire.iat,
            expires: wire.exp,
            not_before: wire.nbf,
            revision: wire.wascap_revision.unwrap_or_default(),
            about,
        })
    }

    /// The newest form.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, ClaimsError> {
        let some = |list: &[String]| Some(list.to_vec()).filter(|list| !list.is_empty());
        let about = match &self.about {
            Subject::Module(module) => serde_json::to_value(WireModule {
                name: module.name.clone(),
                hash: module.hash.clone(),
                tags: Some(module.tags.clone()),
                caps: module.capabilities.clone(),
                rev: module.rev,
                ver: module.version.clone(),
                call_alias: module.call_alias.clone(),
                prov: module.is_provider,
            }),
            Subject::Account(signers) | Subject::Operator(signers) => serde_json::to_value(WireSigners {
                name: signers.name.clone(),
                valid_signers: some(&signers.valid_signers),
            }),
            Subject::Other => Ok(Value::Null),
        };
        let wire = Wire {
            exp: self.expires,
            jti: self.id.clone(),
            iat: self.issued_at,
            iss: self.issuer.clone(),
            sub: self.subject.clone(),
            nbf: self.not_before,
            wascap: Some(about.map_err(unreadable)?).filter(|about| !about.is_null()),
            wascap_revision: Some(REVISION),
            ..Wire::default()
        };
        serde_json::to_vec(&wire).map_err(unreadable)
    }

    /// The claims about a module, if they are that.
    pub fn module(&self) -> Option<&ModuleClaims> {
        match &self.about {
            Subject::Module(module) => Some(module),
            _ => None,
        }
    }
}

fn module(
    nested: Option<Value>,
    hash: Option<String>,
    tags: Option<Vec<String>>,
    caps: Option<Vec<String>>,
) -> Result<ModuleClaims, ClaimsError> {
    let wire: WireModule = match nested {
        Some(nested) => serde_json::from_value(nested).map_err(unreadable)?,
        None => WireModule { hash: hash.unwrap_or_default(), tags, caps, ..WireModule::default() },
    };
    if wire.hash.is_empty() {
        return Err(ClaimsError::Missing("hash"));
    }
    Ok(ModuleClaims {
        name: wire.name,
        hash: wire.hash.to_ascii_uppercase(),
        tags: bounded("tags", wire.tags)?,
        capabilities: wire.caps.map(|caps| bounded("caps", Some(caps))).transpose()?,
        rev: wire.rev,
        version: wire.ver,
        call_alias: wire.call_alias,
        is_provider: wire.prov,
    })
}

fn signers(nested: Option<Value>) -> Result<Signers, ClaimsError> {
    let wire: WireSigners = match nested {
        Some(nested) => serde_json::from_value(nested).map_err(unreadable)?,
        None => WireSigners::default(),
    };
    Ok(Signers { name: wire.name, valid_signers: bounded("valid_signers", wire.valid_signers)? })
}

fn bounded(field: &'static str, list: Option<Vec<String>>) -> Result<Vec<String>, ClaimsError> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_ENTRIES {
        return Err(ClaimsError::TooMany { field, count: list.len() });
    }
    Ok(list)
}

fn unreadable(error: serde_json::Error) -> ClaimsError {
    ClaimsError::Json(error.to_string())
}
