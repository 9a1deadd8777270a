//! Modules that run without being apps, as the steps of workflows do.
//!
//! The token is looked at once, where the module's bytes are. Whether it still holds, and what policies say, is asked
//! before each run: a step lives for milliseconds, a worker for weeks.

use super::{NotTrusted, says};
use crate::host::Host;
use bytes::Bytes;
use dhow_blocks::grants::Grants;
use dhow_claims::policy::{Event, Question};
use dhow_claims::{Refusal, Verified, verify_token};
use std::time::SystemTime;

/// What the token of a module said of these bytes; nothing of a module without one.
#[derive(Clone, Debug, Default)]
pub struct Seal(Option<Verified>);

impl Host {
    /// Looks at the token of a module in binary form.
    pub async fn seal(&self, wasm: Bytes) -> Result<Seal, NotTrusted> {
        let is_signed = !matches!(dhow_claims::section::token(&wasm), Ok(None));
        let trust = self.shared().trust.load_full();
        let sealed = trust.verify(&wasm, is_signed).await;
        sealed.map(Seal)
    }

    /// Whether a module may run now under this app-id, and with what: what is granted, as far as the token claims it.
    /// `digest` and `source` are what policies see of the module.
    pub async fn admit(
        &self,
        app_id: &str,
        seal: &Seal,
        (digest, source): (String, String),
        grants: Grants,
    ) -> Result<Grants, NotTrusted> {
        let trust = self.shared().trust.load_full();
        let admitted = async {
            let verified = match &seal.0 {
                None if trust.require_signed => {
                    return Err(NotTrusted::Token { refusal: Refusal::Unsigned, token: String::new() });
                }
                None => None,
                Some(verified) => {
                    let token = verified.token.clone();
                    let says = says(token.issuer.as_str(), token.subject.as_str());
                    let again = verify_token(token, trust.store.as_deref(), SystemTime::now());
                    Some(again.map_err(|refusal| NotTrusted::Token { refusal, token: says })?)
                }
            };
            if let Some(policies) = &trust.policies {
                let module = (digest, source);
                let question = Question::new(Event::Load, app_id, verified.as_ref(), module, &grants);
                policies.ask(question, self.metrics()).await.map_err(NotTrusted::Policy)?;
            }
            Ok(verified)
        };
        let verified = admitted.await.inspect_err(|refused| {
            self.metrics().module_refused(app_id, refused.part());
        })?;
        let about = verified.as_ref().and_then(|verified| verified.token.claims.module());
        Ok(match about.and_then(|module| trust.claims_of(module)) {
            Some(claimed) => grants.limited_by(claimed),
            None => grants,
        })
    }
}
