//! Which modules a host runs: whose word counts, whether each must be signed, and what policies say.
//!
//! A module is looked at where its bytes are, before it is compiled. A token that it carries must hold, even where
//! nobody is asked whom to trust; what the token does not claim, the app does not get. What was decided then is kept as
//! a [`Permit`], which is looked at by every invocation and worked out anew when the host gets another trust store or
//! another policy.
//!
//! | file | subject |
//! |---|---|
//! | `permit` | whether an app may answer, as it stands |
//! | `policies` | asking policies, in time |
//! | `step` | modules that run without being apps |

mod permit;
mod policies;
mod step;

pub(crate) use permit::Permit;
pub use policies::{PerInvocation, Policies, PolicyServer};
pub use step::Seal;

use crate::audit::Signer;
use crate::host::Host;
use crate::metrics::Metrics;
use crate::module::Module;
use bytes::Bytes;
use dhow_blocks::grants::{Claimed, Grants};
use dhow_claims::capability::claimed;
use dhow_claims::policy::{Event, Question};
use dhow_claims::{Refusal, TrustStore, Verified, verify_token};
use futures::future::ready;
use futures::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::SystemTime;

/// Apps that are decided about again at once.
const AT_ONCE: usize = 32;

/// Which modules a host runs.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Whose modules; without it, a token only has to hold.
    pub store: Option<Arc<TrustStore>>,
    /// A module without a token is refused.
    pub require_signed: bool,
    /// What else is asked; none where there is no policy.
    pub policies: Option<Arc<Policies>>,
}

/// Why a module is not run.
#[derive(Debug, thiserror::Error)]
pub enum NotTrusted {
    /// Its token does not hold, or it has none.
    #[error("{refusal}{}", said(.token))]
    Token {
        /// Which part of it.
        refusal: Refusal,
        /// What the token says of itself; empty if it cannot be read.
        token: String,
    },
    /// A policy says no, or nothing that could be understood.
    #[error("policy: {0}")]
    Policy(String),
}

/// A module that may run, and as what.
pub(crate) struct Admitted {
    /// What its token claims; none for a module without one.
    pub(crate) claimed: Option<Claimed>,
    pub(crate) signer: Option<Signer>,
    pub(crate) permit: Permit,
}

/// What is to run.
pub(crate) struct Applicant<'a> {
    pub(crate) app_id: &'a str,
    pub(crate) module: &'a Arc<Module>,
    pub(crate) source: String,
    pub(crate) grants: &'a Grants,
    /// Another version of it runs already.
    pub(crate) is_update: bool,
}

// === impl Trust ===

impl Trust {
    /// Whether policies are asked about every invocation.
    pub(crate) fn asks_of_invocations(&self) -> bool {
        self.policies.as_ref().is_some_and(|policies| policies.is_per_invocation())
    }

    /// Decides whether a module may run.
    pub(crate) async fn admit(
        &self,
        applicant: Applicant<'_>,
        metrics: &Metrics,
    ) -> Result<Admitted, NotTrusted> {
        let admitted = self.decide(&applicant, metrics).await;
        if let Err(refused) = &admitted {
            metrics.module_refused(applicant.app_id, refused.part());
        }
        admitted
    }

    async fn decide(&self, applicant: &Applicant<'_>, metrics: &Metrics) -> Result<Admitted, NotTrusted> {
        let module = applicant.module;
        let verified = self.verify(&module.wasm, module.is_signed).await?;
        let event = if applicant.is_update { Event::Update } else { Event::Load };
        let module = (applicant.module.program.digest.to_string(), applicant.source.clone());
        let question = Question::new(event, applicant.app_id, verified.as_ref(), module, applicant.grants);
        if let Some(policies) = &self.policies {
            policies.ask(question.clone(), metrics).await.map_err(NotTrusted::Policy)?;
        }
        let about = verified.as_ref().and_then(|verified| verified.token.claims.module());
        Ok(Admitted {
            claimed: about.map(|module| claimed(&module.capabilities)),
            signer: verified.as_ref().map(|verified| Signer {
                issuer: verified.token.issuer.to_string(),
                subject: verified.token.subject.to_string(),
            }),
            permit: Permit::new(verified, question),
        })
    }

    /// Verifies the module's token, if it has one; taking the hash of a large module takes long.
    async fn verify(&self, wasm: &Bytes, is_signed: bool) -> Result<Option<Verified>, NotTrusted> {
        if !is_signed {
            return match self.require_signed {
                true => Err(NotTrusted::Token { refusal: Refusal::Unsigned, token: String::new() }),
                false => Ok(None),
            };
        }
        let (wasm, store) = (wasm.clone(), self.store.clone());
        let verified = tokio::task::spawn_blocking(move || {
            dhow_claims::verify(&wasm, store.as_deref(), SystemTime::now())
                .map_err(|refusal| NotTrusted::Token { refusal, token: what_it_says(&wasm) })
        });
        verified.await.unwrap_or_else(|panicked| Err(NotTrusted::Policy(panicked.to_string()))).map(Some)
    }

    /// Decides again about what runs, and has its permit say so. The answer is why it may not any more, if so.
    pub(crate) async fn renew(
        &self,
        id: &str,
        permit: &Permit,
        has_module: bool,
        metrics: &Metrics,
    ) -> Option<NotTrusted> {
        let decided = self.decide_again(permit, has_module, metrics).await;
        let error = decided.map(|until| permit.renew(until)).err()?;
        metrics.module_refused(id, error.part());
        permit.revoke(error.to_string());
        Some(error)
    }

    /// Decides again about what runs; its module is the same. A program outside has none.
    async fn decide_again(
        &self,
        permit: &Permit,
        has_module: bool,
        metrics: &Metrics,
    ) -> Result<Option<u64>, NotTrusted> {
        let (verified, question) = permit.about();
        let until = match verified {
            None if self.require_signed && has_module => {
                return Err(NotTrusted::Token { refusal: Refusal::Unsigned, token: String::new() });
            }
            None => None,
            Some(verified) => {
                let token = verified.token.clone();
                let says = says(&token.issuer.to_string(), &token.subject.to_string());
                let again = verify_token(token, self.store.as_deref(), SystemTime::now());
                again.map_err(|refusal| NotTrusted::Token { refusal, token: says })?.until
            }
        };
        if let (Some(policies), Some(question)) = (&self.policies, question) {
            let question = Question { event: Event::Load, ..question.clone() };
            policies.ask(question, metrics).await.map_err(NotTrusted::Policy)?;
        }
        Ok(until)
    }
}

/// What the token of a module says of itself, for an error.
fn what_it_says(wasm: &[u8]) -> String {
    let text = dhow_claims::section::token(wasm).ok().flatten();
    let token = text.and_then(|text| dhow_claims::token::Token::parse(text).ok());
    token.map(|token| says(token.issuer.as_str(), token.subject.as_str())).unwrap_or_default()
}

fn says(issuer: &str, subject: &str) -> String {
    format!("signed by {issuer} as {subject}")
}

fn said(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!(" ({token})") }
}

// === impl NotTrusted ===

impl NotTrusted {
    /// What did not hold, in one word.
    pub fn part(&self) -> &'static str {
        match self {
            NotTrusted::Token { refusal, .. } => refusal.part(),
            NotTrusted::Policy(_) => "policy",
        }
    }
}

// === impl Host ===

impl Host {
    /// Says which modules this host runs from now on, and decides again about those that run: one that may not any
    /// more stays in its place and answers nothing. The answer says which, and why.
    pub async fn trust_in(&self, trust: Trust) -> Vec<String> {
        let trust = Arc::new(trust);
        self.shared().trust.store(Arc::clone(&trust));
        // Each may wait for a policy until its deadline.
        let decided = stream::iter(self.versions()).map(async |app| {
            let error = trust.renew(&app.app_id, &app.permit, app.module().is_some(), self.metrics()).await?;
            Some(format!("app {:?}: {error}", app.app_id))
        });
        let mut refused: Vec<String> = decided.buffer_unordered(AT_ONCE).filter_map(ready).collect().await;
        refused.extend(self.components().sandbox().trust_in(&trust).await);
        refused.sort();
        refused
    }
}
