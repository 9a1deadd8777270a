//! What dhow knows about a module that is pushed: its token, its imports and exports.

use crate::error::Error;
use crate::verify;
use dhow_artifacts::registry::{Claims, Examination, Examiner, Trust};
use dhow_claims::token::Token;
use dhow_claims::{Capability, TrustStore};
use dhow_engine::inspect;
use std::path::Path;
use std::time::SystemTime;

/// Interfaces of each kind that are kept; a core module may have very many imports.
const MAX_NAMES: usize = 500;

/// Bytes of a name that are kept.
const MAX_NAME: usize = 300;

/// Examines modules by what this process knows.
pub(super) struct Known {
    trust: Option<TrustStore>,
}

// === impl Known ===

impl Known {
    /// With a trust store, a token has to lead to a key in it.
    pub(super) fn new(trust: Option<&Path>) -> Result<Known, Error> {
        Ok(Known { trust: trust.map(verify::trust_store).transpose()? })
    }
}

impl Examiner for Known {
    fn examine(&self, wasm: &[u8]) -> Examination {
        let mut found = Examination::default();
        // Text is not read: a little of it becomes very much in memory, and it has no token.
        if !wasm.starts_with(b"\0asm") {
            let reason = "it is no WebAssembly in binary form".to_owned();
            return Examination { trust: Trust::Refused, reason, ..found };
        }
        match inspect::inspect(wasm) {
            Ok(inspection) => {
                found.kind = inspection.kind.to_string();
                found.abi = inspection.abi.to_string();
                found.imports = bounded(inspection.imports);
                found.exports = bounded(inspection.exports);
            }
            Err(error) => {
                return Examination { trust: Trust::Refused, reason: error.to_string(), ..found };
            }
        }
        let token = match dhow_claims::section::token(wasm) {
            Ok(Some(text)) => Token::parse(text).ok(),
            _ => None,
        };
        found.claims = token.as_ref().map(claims);
        match dhow_claims::verify(wasm, self.trust.as_ref(), SystemTime::now()) {
            Ok(_) => found.trust = Trust::Verified,
            Err(refusal) => {
                found.trust = match refusal {
                    dhow_claims::Refusal::Unsigned => Trust::Unsigned,
                    _ => Trust::Refused,
                };
                found.reason = refusal.to_string();
            }
        }
        found
    }

    fn capability(&self, name: &str) -> String {
        Capability::of(name).to_string()
    }
}

fn claims(token: &Token) -> Claims {
    let module = token.claims.module().cloned().unwrap_or_default();
    Claims {
        name: module.name,
        version: module.version,
        revision: module.rev,
        tags: module.tags,
        capabilities: module.capabilities.unwrap_or_default(),
        issuer: token.issuer.to_string(),
        subject: token.subject.to_string(),
        expires: token.claims.expires,
        not_before: token.claims.not_before,
    }
}

fn bounded(names: Vec<String>) -> Vec<String> {
    let cut = |name: String| match name.char_indices().nth(MAX_NAME) {
        None => name,
        Some((end, _)) => format!("{}…", &name[..end]),
    };
    names.into_iter().take(MAX_NAMES).map(cut).collect()
}
