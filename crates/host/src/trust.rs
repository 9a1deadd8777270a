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

use crate::app::App;
use crate::audit::Signer;
use crate::background;
use crate::host::Host;
use crate::metrics::Metrics;
use crate::module::Module;
use bytes::Bytes;
use dhow_blocks::grants::{Claimed, Grants};
use dhow_claims::capability::claimed;
use dhow_claims::policy::{Event, Question};
use dhow_claims::{ModuleClaims, Refusal, TrustStore, Verified, verify_token};
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
    /// A token that names no capabilities claims nothing. Otherwise its module is limited by the manifest alone.
    pub require_claims: bool,
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
    /// It would take the place of a module that somebody else signed, or made.
    #[error(
        "signer: the app that runs is {runs}, and this module is {found}; whoever runs the host can allow that \
         (dhow update --any-signer)"
    )]
    Signer {
        /// Who signed the one that runs.
        runs: String,
        /// Who signed this one.
        found: String,
    },
    /// It was loaded while that was no reason, and may do all that its manifest grants.
    #[error(
        "claims: its token names no capabilities ({0}), which this host requires since; sign it with --cap"
    )]
    NoClaims(String),
    /// It was refused when the host started, and was never loaded.
    #[error("{0}")]
    NeverLoaded(String),
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
    /// Nobody else may have signed it; none: anybody may.
    pub(crate) signer: Option<&'a Signer>,
}

/// What runs, and is decided about again.
pub(crate) struct Runs<'a> {
    pub(crate) id: &'a str,
    pub(crate) permit: &'a Permit,
    /// It is no program outside.
    pub(crate) has_module: bool,
    /// Its token's claims limit what it may do.
    pub(crate) is_limited: bool,
}

// === impl Trust ===

impl Trust {
    /// Whether policies are asked about every invocation.
    pub(crate) fn asks_of_invocations(&self) -> bool {
        self.policies.as_ref().is_some_and(|policies| policies.is_per_invocation())
    }

    /// Decides whether a module may run.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        applicant: Applicant<'_>,
        metrics: &Metrics,
    ) -> Result<Admitted, NotTrusted> {
        let admitted = self.decide(&applicant, metrics).await;
        if let Err(refused) = &admitted {
            metrics.module_refused(applicant.app_id, refused.part());
        }
        admitted
    }

    async fn decide(
        self: &Arc<Self>,
        applicant: &Applicant<'_>,
        metrics: &Metrics,
    ) -> Result<Admitted, NotTrusted> {
        let verified = self.verify(&applicant.module.wasm, applicant.module.is_signed).await?;
        let signer = verified.as_ref().map(|verified| Signer {
            issuer: verified.token.issuer.to_string(),
            subject: verified.token.subject.to_string(),
        });
        if let Some(runs) = applicant.signer.filter(|runs| signer.as_ref() != Some(runs)) {
            let found = signer.as_ref().map_or_else(|| "not signed".to_owned(), Signer::said);
            return Err(NotTrusted::Signer { runs: runs.said(), found });
        }
        let event = if applicant.is_update { Event::Update } else { Event::Load };
        let module = (applicant.module.program.digest.to_string(), applicant.source.clone());
        let question = Question::new(event, applicant.app_id, verified.as_ref(), module, applicant.grants);
        if let Some(policies) = &self.policies {
            policies.ask(question.clone(), metrics).await.map_err(NotTrusted::Policy)?;
        }
        let about = verified.as_ref().and_then(|verified| verified.token.claims.module());
        Ok(Admitted {
            claimed: about.and_then(|module| self.claims_of(module)),
            signer,
            permit: Permit::new(verified, question, Arc::clone(self)),
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
        let verified = background::run(move || {
            dhow_claims::verify(&wasm, store.as_deref(), SystemTime::now())
                .map_err(|refusal| NotTrusted::Token { refusal, token: what_it_says(&wasm) })
        });
        verified.await.unwrap_or_else(|panicked| Err(NotTrusted::Policy(panicked.to_string()))).map(Some)
    }

    /// Decides again about what runs, and has its permit say so. The answer is why it may not any more, if so.
    pub(crate) async fn renew(self: &Arc<Self>, runs: Runs<'_>, metrics: &Metrics) -> Option<NotTrusted> {
        let decided = self.decide_again(&runs, metrics).await;
        let error = decided.map(|until| runs.permit.renew(until, self)).err()?;
        metrics.module_refused(runs.id, error.part());
        runs.permit.revoke(error.to_string(), self);
        Some(error)
    }

    /// What a verified module may do at most; none if that is not limited.
    fn claims_of(&self, module: &ModuleClaims) -> Option<Claimed> {
        match &module.capabilities {
            Some(capabilities) => Some(claimed(capabilities)),
            None => self.require_claims.then(Claimed::default),
        }
    }

    /// Decides again about what runs; its module is the same.
    async fn decide_again(&self, runs: &Runs<'_>, metrics: &Metrics) -> Result<Option<u64>, NotTrusted> {
        let Runs { permit, has_module, is_limited, .. } = *runs;
        if let Some(reason) = permit.is_refused().then(|| permit.reason()).flatten() {
            return Err(NotTrusted::NeverLoaded(reason));
        }
        let (verified, question) = permit.about();
        let until = match verified {
            None if self.require_signed && has_module => {
                return Err(NotTrusted::Token { refusal: Refusal::Unsigned, token: String::new() });
            }
            None => None,
            // What it may do was settled when it was loaded.
            Some(verified) if self.require_claims && !is_limited => {
                let (issuer, subject) =
                    (verified.token.issuer.to_string(), verified.token.subject.to_string());
                return Err(NotTrusted::NoClaims(Signer { issuer, subject }.said()));
            }
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

/// Who a module's token says signed it, whether or not it holds.
fn said_signer(wasm: &[u8]) -> Option<Signer> {
    let text = dhow_claims::section::token(wasm).ok().flatten();
    let token = text.and_then(|text| dhow_claims::token::Token::parse(text).ok())?;
    Some(Signer { issuer: token.issuer.to_string(), subject: token.subject.to_string() })
}

/// What the token of a module says of itself, for an error.
fn what_it_says(wasm: &[u8]) -> String {
    said_signer(wasm).as_ref().map(Signer::said).unwrap_or_default()
}

fn says(issuer: &str, subject: &str) -> String {
    format!("signed by {issuer} as {subject}")
}

fn said(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!(" ({token})") }
}

// === impl Admitted ===

impl Admitted {
    /// Of a module that may not run: it may do nothing, and is asked nothing.
    pub(crate) fn refused(module: &Module, error: &NotTrusted, trust: Arc<Trust>) -> Admitted {
        Admitted {
            claimed: Some(Claimed::default()),
            signer: said_signer(&module.wasm),
            permit: Permit::refused(error.to_string(), trust),
        }
    }
}

// === impl Signer ===

impl Signer {
    fn said(&self) -> String {
        says(&self.issuer, &self.subject)
    }
}

// === impl NotTrusted ===

impl NotTrusted {
    /// What did not hold, in one word.
    pub fn part(&self) -> &'static str {
        match self {
            NotTrusted::Token { refusal, .. } => refusal.part(),
            NotTrusted::Signer { .. } => "signer",
            NotTrusted::NoClaims(_) => "claims",
            NotTrusted::NeverLoaded(_) => "load",
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
        let mut refused = self.decide_about(&trust, self.versions()).await;
        refused.extend(self.components().sandbox().trust_in(&trust).await);
        refused
    }

    /// Decides again about those versions about which that was not done by what is in force now: they were made ready
    /// while it changed.
    pub(crate) async fn catch_up_with_trust(&self, apps: Vec<Arc<App>>) -> Vec<String> {
        let trust = self.shared().trust.load_full();
        let late = apps.into_iter().filter(|app| !app.permit.is_by(&trust)).collect();
        self.decide_about(&trust, late).await
    }

    /// Whether what is in force now decided about this version.
    pub(crate) fn is_decided(&self, app: &App) -> bool {
        app.permit.is_by(&self.shared().trust.load_full())
    }

    /// Decides again about a version that is about to run; the error is for people.
    pub(crate) async fn may_run(&self, app: &Arc<App>) -> Result<(), String> {
        let trust = self.shared().trust.load_full();
        self.decide_about(&trust, vec![Arc::clone(app)]).await.pop().map_or(Ok(()), Err)
    }

    async fn decide_about(&self, trust: &Arc<Trust>, apps: Vec<Arc<App>>) -> Vec<String> {
        // Each may wait for a policy until its deadline.
        let decided = stream::iter(apps).map(async |app| {
            let runs = Runs {
                id: &app.app_id,
                permit: &app.permit,
                has_module: app.module().is_some(),
                is_limited: app.scope.grants.limit.is_some(),
            };
            let error = trust.renew(runs, self.metrics()).await?;
            app.rest();
            Some(format!("app {:?}: {error}", app.app_id))
        });
        let mut refused: Vec<String> = decided.buffer_unordered(AT_ONCE).filter_map(ready).collect().await;
        refused.sort();
        refused
    }
}
