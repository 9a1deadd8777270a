//! Dapr's HTTP API, for guests in process and for programs outside.
//!
//! | file | subject |
//! |---|---|
//! | [`path`] | how Dapr splits and unescapes paths |
//! | `error` | the error bodies, one table |
//! | `state` | `/v1.0/state` |
//! | `invoke` | `/v1.0/invoke` and the `dapr-app-id` header |
//! | `metadata` | `/v1.0/metadata` and `/v1.0/healthz` |
//!
//! Facts: Dapr's HTTP API reference for 1.18. Routes of building blocks that this version does not have
//! answer 501 with the name of the block.

mod error;
mod invoke;
mod metadata;
pub mod path;
mod state;

use crate::server::Face;
use crate::text;
use async_trait::async_trait;
use dhow_blocks::invoke::{Body, CollectError, Invocation, Reply, RuntimeApi, Trigger};
use dhow_blocks::scope::Scope;
use error::ApiError;
use http::header::ORIGIN;
use http::{HeaderName, Method, Request, StatusCode};
use metadata::Metadata;
use std::sync::Arc;

/// Largest request body of the API itself, in bytes; invocations pass theirs on and have the app's limit.
const MAX_BODY: usize = 4 << 20;

/// The version of Dapr's API that is spoken here.
pub const DAPR_VERSION: &str = "1.18.3";

/// The API, for all apps of a host.
#[derive(Default)]
pub struct Dapr {
    metadata: Metadata,
}

/// The API on a port, for programs outside; they act as one app.
pub struct DaprFace {
    /// The API.
    pub api: Arc<Dapr>,
    /// Who the programs outside are taken for.
    pub scope: Arc<Scope>,
    /// What they have to send as `dapr-api-token`, if anything.
    pub token: Option<String>,
}

impl Face for DaprFace {
    async fn answer(self: Arc<Self>, mut request: Request<Body>) -> Reply {
        // Browsers send it, programs do not: a page from anywhere must not reach the state of this machine.
        if request.headers().contains_key(ORIGIN) {
            return text(StatusCode::FORBIDDEN, "requests from web pages are not answered here");
        }
        if let Some(token) = &self.token {
            let sent = request.headers_mut().remove(HeaderName::from_static("dapr-api-token"));
            let open = request.uri().path().trim_end_matches('/').starts_with("/v1.0/healthz");
            if !open && !sent.is_some_and(|sent| same(sent.as_bytes(), token.as_bytes())) {
                return text(StatusCode::UNAUTHORIZED, "invalid api token");
            }
        }
        self.api.call(&self.scope, Invocation::new(request, Trigger::App)).await
    }
}

#[async_trait]
impl RuntimeApi for Dapr {
    async fn call(&self, scope: &Arc<Scope>, invocation: Invocation) -> Reply {
        self.route(scope, invocation).await.unwrap_or_else(|error| error.reply(&scope.app_id))
    }
}

impl Dapr {
    async fn route(&self, scope: &Arc<Scope>, invocation: Invocation) -> Result<Reply, ApiError> {
        let uri = invocation.request.uri().clone();
        let segments = path::segments(uri.path());
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let query = path::Query::parse(uri.query());
        let method = invocation.request.method().clone();
        let write = method == Method::POST || method == Method::PUT;
        match (method.as_str(), segments.as_slice()) {
            (_, ["v1.0", "state", store]) if write => {
                state::save(scope, store, &query, body(invocation).await?).await
            }
            (_, ["v1.0", "state", store, "bulk"]) if write => {
                state::bulk(scope, store, body(invocation).await?).await
            }
            (_, ["v1.0", "state", store, "transaction"]) if write => {
                state::transaction(scope, store, &query, body(invocation).await?).await
            }
            ("GET", ["v1.0", "state", store, key]) => state::get(scope, store, key).await,
            ("DELETE", ["v1.0", "state", store, key]) => {
                state::delete(scope, store, key, invocation.request.headers()).await
            }
            (_, ["v1.0-alpha1", "state", store, "query"]) if write => state::query(scope, store),
            (_, ["v1.0", "invoke", ..]) => invoke::by_path(scope, invocation).await,
            ("GET", ["v1.0", "metadata"]) => Ok(self.metadata.get(scope)),
            ("PUT", ["v1.0", "metadata", key]) => {
                let key = (*key).to_owned();
                self.metadata.set(scope, key, &body(invocation).await?)
            }
            ("GET", ["v1.0", "healthz"]) => metadata::healthz(scope, query.get("appid")),
            ("GET", ["v1.0", "healthz", "outbound"]) => Ok(crate::empty(StatusCode::NO_CONTENT)),
            (_, ["v1.0" | "v1.0-alpha1" | "v1.0-alpha2" | "v1.0-beta1", block, ..]) if is_block(block) => {
                Err(ApiError::not_implemented(block))
            }
            _ => invoke::by_header(scope, invocation).await,
        }
    }
}

/// Building blocks of Dapr that this version answers with "not implemented".
fn is_block(name: &str) -> bool {
    matches!(
        name,
        "actors"
            | "bindings"
            | "configuration"
            | "conversation"
            | "crypto"
            | "jobs"
            | "lock"
            | "publish"
            | "secrets"
            | "shutdown"
            | "subtlecrypto"
            | "unlock"
            | "workflows"
    )
}

async fn body(invocation: Invocation) -> Result<bytes::Bytes, ApiError> {
    invocation.request.into_body().collect(MAX_BODY).await.map_err(|error| match error {
        CollectError::TooLarge { limit } => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "ERR_BODY_READ",
            format!("failed to read request body: it has more than {limit} bytes"),
        ),
        CollectError::Broken(reason) => ApiError::new(
            StatusCode::BAD_REQUEST,
            "ERR_BODY_READ",
            format!("failed to read request body: {reason}"),
        ),
    })
}

/// Compares without telling by the time it takes where the first difference is.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}
