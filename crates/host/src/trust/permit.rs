//! Whether an app may answer, as it stands: looked at by every invocation.

use super::{Policies, Trust};
use crate::app::App;
use arc_swap::ArcSwapOption;
use dhow_blocks::grants::Ask;
use dhow_blocks::invoke::{Caller, Invocation, InvokeError, Trigger};
use dhow_claims::Verified;
use dhow_claims::policy::{Question, Request};
use dhow_claims::verify::when;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// No time is later.
const FOR_EVER: u64 = u64::MAX;

/// What was decided about an app when it was loaded.
#[derive(Default)]
pub(crate) struct Permit {
    /// It answers until then, in seconds since 1970: its token and what vouches for its issuer hold so long. 0 once it
    /// was revoked.
    until: AtomicU64,
    /// Why it was revoked.
    revoked: ArcSwapOption<String>,
    verified: Option<Box<Verified>>,
    /// What policies were asked; none for a program outside.
    question: Option<Box<Question>>,
    /// By what it was decided.
    by: ArcSwapOption<Trust>,
    /// It was never allowed, and nothing of it was compiled: it stays so until another app takes its place.
    is_refused: bool,
}

// === impl Permit ===

impl Permit {
    pub(crate) fn new(verified: Option<Verified>, question: Question, by: Arc<Trust>) -> Permit {
        let until = verified.as_ref().and_then(|verified| verified.until).unwrap_or(FOR_EVER);
        Permit {
            until: AtomicU64::new(until),
            revoked: ArcSwapOption::empty(),
            verified: verified.map(Box::new),
            question: Some(Box::new(question)),
            by: ArcSwapOption::new(Some(by)),
            is_refused: false,
        }
    }

    /// Of a module that may not run, for this reason.
    pub(super) fn refused(reason: String, by: Arc<Trust>) -> Permit {
        Permit {
            revoked: ArcSwapOption::new(Some(Arc::new(reason))),
            by: ArcSwapOption::new(Some(by)),
            is_refused: true,
            ..Permit::default()
        }
    }

    /// Whether it never was allowed to run.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Why it may not run, once it may not.
    pub(crate) fn reason(&self) -> Option<String> {
        self.revoked.load().as_deref().cloned()
    }

    /// Of a program outside, which has no module.
    pub(crate) fn unlimited() -> Permit {
        Permit { until: AtomicU64::new(FOR_EVER), ..Permit::default() }
    }

    pub(super) fn about(&self) -> (Option<&Verified>, Option<&Question>) {
        (self.verified.as_deref(), self.question.as_deref())
    }

    /// Whether this is what decided.
    pub(super) fn is_by(&self, trust: &Arc<Trust>) -> bool {
        self.by.load().as_ref().is_some_and(|by| Arc::ptr_eq(by, trust))
    }

    pub(super) fn renew(&self, until: Option<u64>, by: &Arc<Trust>) {
        self.by.store(Some(Arc::clone(by)));
        self.until.store(until.unwrap_or(FOR_EVER), Ordering::Relaxed);
        self.revoked.store(None);
    }

    pub(super) fn revoke(&self, reason: String, by: &Arc<Trust>) {
        self.by.store(Some(Arc::clone(by)));
        self.revoked.store(Some(reason.into()));
        self.until.store(0, Ordering::Relaxed);
    }

    /// Whether its time is over.
    pub(crate) fn is_over(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != FOR_EVER
            && SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() >= until
    }

    pub(crate) fn why_over(&self) -> String {
        if let Some(reason) = &*self.revoked.load() {
            let any_more = if self.is_refused { "" } else { " any more" };
            return format!("its module is not trusted{any_more}: {reason}");
        }
        let until = self.until.load(Ordering::Relaxed);
        format!(
            "validity: its module's token, or the word for its issuer, expired {}; sign it anew",
            when(until)
        )
    }
}

// === impl App ===

impl App {
    /// Lets an invocation pass, or says why not.
    pub(crate) fn permits(&self, trigger: Trigger) -> Result<(), InvokeError> {
        if self.permit.is_over() {
            return Err(self.refused("token", self.permit.why_over()));
        }
        match trigger {
            Trigger::Http => self.scope.check(Ask::Serve).map_err(|denied| InvokeError::Refused {
                app_id: self.app_id.to_string(),
                reason: denied.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// What policies are to be asked about an invocation; nothing unless the host is told so.
    pub(crate) fn asks_about(&self, invocation: &Invocation) -> Option<(Arc<Policies>, Request)> {
        let trust = self.shared.trust.load();
        let policies = trust.policies.as_ref().filter(|policies| policies.is_per_invocation())?;
        // The host's own questions are no invocations: what an app subscribes to, whether it is well.
        let is_asked = self.permit.question.is_some() && invocation.trigger != Trigger::Host;
        is_asked.then(|| (Arc::clone(policies), request(invocation)))
    }

    /// Asks them.
    pub(crate) async fn ask_policies(
        &self,
        policies: &Policies,
        request: Request,
    ) -> Result<(), InvokeError> {
        let Some(question) = self.permit.question.as_deref() else { return Ok(()) };
        let answer = policies.ask_of_invocation(question, self.version, request, &self.shared.metrics).await;
        answer.map_err(|reason| self.refused("policy", format!("policy: {reason}")))
    }

    /// Why it answers nothing, if it may not run.
    pub fn why_refused(&self) -> Option<String> {
        self.permit.is_over().then(|| self.permit.why_over())
    }

    fn refused(&self, by: &'static str, reason: String) -> InvokeError {
        self.auditor.refused(&self.app_id, by, &reason);
        InvokeError::Refused { app_id: self.app_id.to_string(), reason }
    }
}

/// An invocation, as policies see it.
fn request(invocation: &Invocation) -> Request {
    let request = &invocation.request;
    Request {
        trigger: match invocation.trigger {
            Trigger::Http => "http",
            Trigger::App => "app",
            Trigger::Command => "command",
            Trigger::Topic => "topic",
            Trigger::Binding => "binding",
            Trigger::Job => "job",
            Trigger::Configuration => "configuration",
            Trigger::Host => "host",
        },
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        caller: request.extensions().get::<Caller>().map(|caller| caller.0.to_string()),
    }
}
