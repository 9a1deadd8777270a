//! Modules: searched by programs and looked at by people; and what is damaged.

use super::answer::{self, Answer, set};
use super::{Asked, page};
use crate::registry::name::Repository;
use crate::registry::refusal::{Challenge, Refusal};
use crate::registry::search::Query;
use ::http::StatusCode;
use serde_json::json;

/// Modules of a page for people.
const SHOWN: usize = 20;

// === impl Asked ===

impl Asked<'_> {
    /// `GET /api/v1/search`, and `GET /api/v1/modules/NAME` for those of one repository.
    pub(super) fn search(&self, repository: Option<&Repository>) -> Result<Answer, Refusal> {
        self.may_list(Challenge::Password)?;
        let mut query = match Query::read(self.parameters.iter()) {
            Ok(query) => query,
            Err(error) => return Ok(bad_request(&error.to_string())),
        };
        if let Some(repository) = repository {
            self.allow(repository, crate::registry::auth::Action::Pull)?;
            query.repository = Some(repository.to_string());
        }
        let found = self.registry().search(&query, |name| self.may_see(name));
        if found.total == 0
            && let Some(repository) = repository
        {
            self.registry().tags(repository)?;
        }
        Ok(answer::json(StatusCode::OK, &found))
    }

    /// `GET /api/v1/damaged`
    pub(super) fn damaged(&self) -> Result<Answer, Refusal> {
        self.may_list(Challenge::Password)?;
        let damaged = self.registry().damaged();
        let damaged: Vec<_> = damaged
            .iter()
            .map(|(digest, damage)| {
                json!({
                    "digest": digest,
                    "found": damage.found,
                    "size": damage.size,
                    "since": crate::registry::search::when(damage.since),
                })
            })
            .collect();
        Ok(answer::json(StatusCode::OK, &json!({"damaged": damaged})))
    }

    /// The page for people.
    pub(super) fn page(&self) -> Result<Answer, Refusal> {
        self.may_list(Challenge::Password)?;
        let known = ["q", "page"];
        let parameters = self.parameters.iter().filter(|(name, _)| known.contains(name));
        let (mut query, mistake) = match Query::read(parameters) {
            Ok(query) => (query, None),
            Err(error) => (Query::default(), Some(error.to_string())),
        };
        query.limit = SHOWN;
        let found = self.registry().search(&query, |name| self.may_see(name));
        let damaged = self.registry().damaged().len();
        let html = page::Page {
            url: &self.face.url(&self.headers),
            query: &query,
            mistake: mistake.as_deref(),
            found: &found,
            damaged,
            user: self.identity.user.as_deref(),
        };
        let mut answer = answer::text(StatusCode::OK, "text/html; charset=utf-8", html.to_string());
        set(
            &mut answer,
            "content-security-policy",
            "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        );
        set(&mut answer, "x-content-type-options", "nosniff");
        set(&mut answer, "referrer-policy", "no-referrer");
        set(&mut answer, "cache-control", "no-store");
        Ok(answer)
    }
}

fn bad_request(message: &str) -> Answer {
    answer::json(StatusCode::BAD_REQUEST, &json!({"errors": [{"code": "UNSUPPORTED", "message": message}]}))
}
