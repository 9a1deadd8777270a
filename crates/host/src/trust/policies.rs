//! Asking policies, in time: what they do not allow within it is refused.

use crate::metrics::{Metrics, Said};
use async_trait::async_trait;
use dhow_claims::policy::opa::Form;
use dhow_claims::policy::rego::Rego;
use dhow_claims::policy::{Decision, PolicyError, Question, Request};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Questions that are asked at once; more wait, within their time.
const AT_ONCE: usize = 32;

/// Answers that are kept.
const MAX_KEPT: usize = 10_000;

/// Characters of a method and a path, together, up to which an answer is kept.
const MAX_KEY: usize = 1024;

/// A policy that gave no answer is not asked about the same thing for this long: it may be down.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// A server that knows policies; how it is reached is above.
#[async_trait]
pub trait PolicyServer: Send + Sync + 'static {
    /// Its URL, without user and password.
    fn url(&self) -> &str;

    /// The path of its URL.
    fn path(&self) -> &str;

    /// Sends JSON there by POST. The answer is the status and the body, of which at most `limit` bytes are read.
    async fn post(&self, body: Vec<u8>, limit: usize) -> Result<(u16, Vec<u8>), String>;
}

/// What is asked besides manifests and tokens. If there are both, both must allow.
pub struct Policies {
    rego: Option<Arc<Rego>>,
    server: Option<Arc<dyn PolicyServer>>,
    deadline: Duration,
    per_invocation: Option<PerInvocation>,
    places: Semaphore,
    kept: Mutex<HashMap<Key, Answer>>,
}

/// When it was given, and what a policy said.
type Answer = (Instant, Result<(), String>);

/// Invocations are asked for, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerInvocation {
    /// An answer holds for this long for the same app, caller, method and path; zero: it is asked each time.
    pub kept: Duration,
}

/// What an answer depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    app_id: String,
    version: u64,
    request: Request,
}

// === impl Policies ===

impl Policies {
    /// Asks what is given, each question for at most `deadline`.
    pub fn new(
        rego: Option<Rego>,
        server: Option<Arc<dyn PolicyServer>>,
        deadline: Duration,
        per_invocation: Option<PerInvocation>,
    ) -> Policies {
        Policies {
            rego: rego.map(Arc::new),
            server,
            deadline,
            per_invocation,
            places: Semaphore::new(AT_ONCE),
            kept: Mutex::default(),
        }
    }

    pub(crate) fn is_per_invocation(&self) -> bool {
        self.per_invocation.is_some()
    }

    /// Asks everybody; an error is why it is refused.
    pub(crate) async fn ask(&self, question: Question, metrics: &Metrics) -> Result<(), String> {
        let event = question.event;
        let answer = tokio::time::timeout(self.deadline, self.answers(question)).await;
        let decision = answer.unwrap_or(Err(PolicyError::TimedOut(self.deadline)));
        let (said, answer) = match decision {
            Ok(decision) if decision.allow => (Said::Allow, Ok(())),
            Ok(decision) => (Said::Deny, Err(format!("denied: {}", decision.reason()))),
            Err(error) => (Said::Error, Err(error.to_string())),
        };
        metrics.policy_said(event, said);
        answer
    }

    async fn answers(&self, question: Question) -> Result<Decision, PolicyError> {
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        let question = Arc::new(question);
        if let Some(rego) = &self.rego {
            let (rego, question) = (Arc::clone(rego), Arc::clone(&question));
            let decided = tokio::task::spawn_blocking(move || rego.decide(&question)).await;
            let decision =
                decided.unwrap_or_else(|panicked| Err(PolicyError::Failed(panicked.to_string())))?;
            if !decision.allow {
                return Ok(decision);
            }
        }
        let Some(server) = &self.server else { return Ok(Decision { allow: true, causes: Vec::new() }) };
        let form = Form::of(server.path());
        let answer = server.post(form.body(&question)?, dhow_claims::policy::opa::MAX_ANSWER).await;
        let url = server.url().to_owned();
        let (status, body) = answer.map_err(|reason| PolicyError::Unreachable { url, reason })?;
        form.answer(status, &body)
    }

    /// Asks about an invocation, unless the answer is known.
    pub(crate) async fn ask_of_invocation(
        &self,
        question: &Question,
        version: u64,
        request: Request,
        metrics: &Metrics,
    ) -> Result<(), String> {
        let Some(PerInvocation { kept }) = self.per_invocation else { return Ok(()) };
        let asked = question.about(request.clone());
        if kept.is_zero() || request.method.len() + request.path.len() > MAX_KEY {
            return self.ask(asked, metrics).await;
        }
        let key = Key { app_id: question.app_id.clone(), version, request };
        if let Some((until, answer)) = self.kept.lock().get(&key)
            && Instant::now() < *until
        {
            return answer.clone();
        }
        let answer = self.ask(asked, metrics).await;
        let is_decision = answer.as_ref().err().is_none_or(|reason| reason.starts_with("denied: "));
        let holds = if is_decision { kept } else { kept.min(AFTER_ERROR) };
        let now = Instant::now();
        let mut all = self.kept.lock();
        if all.len() >= MAX_KEPT {
            all.retain(|_, (until, _)| *until > now);
            if all.len() >= MAX_KEPT {
                all.clear();
            }
        }
        all.insert(key, (now + holds, answer.clone()));
        answer
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies")
            .field("rego", &self.rego.is_some())
            .field("server", &self.server.as_ref().map(|server| server.url().to_owned()))
            .field("deadline", &self.deadline)
            .field("per_invocation", &self.per_invocation)
            .finish_non_exhaustive()
    }
}
