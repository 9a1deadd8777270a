//! Policies: what an organisation allows, beyond what manifests grant and tokens claim.
//!
//! A policy is asked when an app is loaded and when it is updated, and, if the host is told so, at every invocation. It
//! answers whether that is allowed, and if not, why. Whatever is no clear answer is a refusal.
//!
//! | file | subject |
//! |---|---|
//! | [`rego`] | policies in OPA's language, evaluated in this process |
//! | `depth` | policies that would never end, refused |
//! | `jwt` | OPA's functions for tokens, which the interpreter lacks |
//! | [`opa`] | what an OPA elsewhere is sent, and what it answers |
//!
//! Sending it is above: nothing here knows a network.

mod depth;
mod jwt;
mod older;
pub mod opa;
pub mod rego;

use crate::token::Token;
use crate::verify::Verified;
use dhow_blocks::grants::Grants;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Causes of a refusal that are kept, and characters of one: they are shown to people.
const MAX_CAUSES: usize = 16;
const MAX_CAUSE: usize = 300;

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The app is to run for the first time on this host.
    Load,
    /// The app runs, and another version of it is to take over.
    Update,
    /// The app is asked something.
    Invoke,
}

/// What a policy is asked: the `input` of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Question {
    /// Why it is asked.
    pub event: Event,
    /// The app.
    pub app_id: String,
    /// The module's token as it is, a JWT; empty for a module without one.
    pub token: String,
    /// What the token says, in the newest form whatever its generation; null for a module without a token.
    pub claims: Value,
    /// From the token's issuer to a key that is trusted; empty where the host has no trust store.
    pub chain: Vec<String>,
    /// The module's digest, lower-case hexadecimal.
    pub digest: String,
    /// Where the module came from.
    pub source: String,
    /// What the manifest grants, by kind; kinds without grants are left out.
    pub grants: Value,
    /// What the app is asked, at an invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// An invocation, as policies see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Request {
    /// What started it: `http`, `app`, `topic`, `binding`, `job`, `configuration`, `command`, `host`.
    pub trigger: &'static str,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The app that asks; none for requests from outside and for events.
    pub caller: Option<String>,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allow: bool,
    /// Why not; perhaps empty.
    pub causes: Vec<String>,
}

/// Why a policy gives no answer. Each of these is a refusal.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// A file cannot be read.
    #[error("policy {}: {reason}", path.display())]
    File {
        /// File or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No rule that is known is in it.
    #[error(
        "policy {}: it has neither package dhow, with a rule allow, nor package system, with a rule main",
        path.display()
    )]
    NoRule {
        /// File or folder.
        path: PathBuf,
    },
    /// It took too long.
    #[error("the policy did not answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// Evaluating it failed.
    #[error("the policy cannot be evaluated: {0}")]
    Failed(String),
    /// The answer is none.
    #[error("the policy's answer cannot be read: {0}")]
    Garbage(String),
    /// The policy server cannot be asked.
    #[error("the policy server {url} cannot be asked: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What happened.
        reason: String,
    },
}

// === impl Question ===

impl Question {
    /// About an app that is to run.
    pub fn new(
        event: Event,
        app_id: &str,
        verified: Option<&Verified>,
        (digest, source): (String, String),
        grants: &Grants,
    ) -> Question {
        let chain = verified.map(|verified| verified.chain.iter().map(ToString::to_string).collect());
        Question {
            event,
            app_id: app_id.to_owned(),
            token: verified.map(|verified| verified.token.text.clone()).unwrap_or_default(),
            claims: verified.map_or(Value::Null, |verified| claims(&verified.token)),
            chain: chain.unwrap_or_default(),
            digest,
            source,
            grants: grants
                .texts()
                .into_iter()
                .map(|(kind, list)| (kind.to_owned(), Value::from(list)))
                .collect(),
            request: None,
        }
    }

    /// About one invocation of that app.
    pub fn about(&self, request: Request) -> Question {
        Question { event: Event::Invoke, request: Some(request), ..self.clone() }
    }
}

/// What a token says, by the same names whatever its generation. What it does not say is left out: Rego has no use for
/// null.
fn claims(token: &Token) -> Value {
    let claims = &token.claims;
    let module = claims.module().cloned().unwrap_or_default();
    let mut said = json!({
        "issuer": token.issuer.as_str(),
        "subject": token.subject.as_str(),
        "id": claims.id,
        "name": module.name,
        "version": module.version,
        "revision": module.rev,
        "capabilities": module.capabilities,
        "tags": module.tags,
        "call_alias": module.call_alias,
        "provider": module.is_provider,
        "issued_at": claims.issued_at,
        "not_before": claims.not_before,
        "expires": claims.expires,
    });
    if let Some(fields) = said.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    said
}

// === impl Event ===

impl Event {
    /// In one word, as policies read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Load => "load",
            Event::Update => "update",
            Event::Invoke => "invoke",
        }
    }
}

// === impl Decision ===

impl Decision {
    /// An answer: `{"allow": bool, "cause": [texts]}`, or the boolean alone.
    fn of(answer: &Value) -> Result<Decision, PolicyError> {
        match answer {
            Value::Bool(allow) => Ok(Decision { allow: *allow, causes: Vec::new() }),
            Value::Object(object) => {
                let Some(Value::Bool(allow)) = object.get("allow") else {
                    return Err(PolicyError::Garbage("it has no boolean \"allow\"".to_owned()));
                };
                Ok(Decision { allow: *allow, causes: causes(object.get("cause").unwrap_or(&Value::Null))? })
            }
            Value::Null => Err(PolicyError::Garbage("there is none: no rule says anything".to_owned())),
            _ => Err(PolicyError::Garbage("it is neither an object nor a boolean".to_owned())),
        }
    }

    /// The causes as one text.
    pub fn reason(&self) -> String {
        if self.causes.is_empty() { "it gives no cause".to_owned() } else { self.causes.join("; ") }
    }
}

fn causes(value: &Value) -> Result<Vec<String>, PolicyError> {
    // They come to terminals and logs.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let bounded = |text: &str| text.chars().map(plain).take(MAX_CAUSE).collect::<String>();
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![bounded(text)]),
        Value::Array(list) => {
            let texts = list.iter().take(MAX_CAUSES).map(|cause| cause.as_str().map(bounded));
            let texts = texts.collect::<Option<Vec<String>>>();
            texts.ok_or_else(|| PolicyError::Garbage("a cause is no text".to_owned()))
        }
        _ => Err(PolicyError::Garbage("\"cause\" is no list of texts".to_owned())),
    }
}
