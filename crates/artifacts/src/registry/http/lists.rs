//! Tags, repositories, and what refers to a manifest; each in pages.

use super::Asked;
use super::answer::{self, Answer, set};
use super::route::escape;
use crate::digest::Digest;
use crate::media_type::OCI_INDEX;
use crate::registry::auth::{Action, CATALOG};
use crate::registry::manifest::Descriptor;
use crate::registry::name::{Repository, Tag};
use crate::registry::refusal::{Challenge, Refusal};
use ::http::StatusCode;
use serde_json::json;

/// Entries of a page where the client says nothing, and at most.
const PAGE: usize = 10_000;

/// Referrers of a page: their annotations may be long.
const REFERRERS: usize = 200;

// === impl Asked ===

impl Asked<'_> {
    pub(super) fn tags(&self, repository: &Repository) -> Result<Answer, Refusal> {
        self.allow(repository, Action::Pull)?;
        let tags = self.registry().tags(repository)?;
        let limit = self.limit()?;
        let last = self.parameters.get("last").unwrap_or_default();
        let mut rest = tags.into_iter().filter(|tag| Tag::order(tag, last).is_gt());
        let page: Vec<String> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(page.last().cloned());
        let mut answer = answer::json(StatusCode::OK, &json!({"name": repository.as_str(), "tags": page}));
        self.link(&mut answer, &format!("/v2/{repository}/tags/list"), limit, next.as_deref(), "");
        Ok(answer)
    }

    pub(super) fn catalog(&self) -> Result<Answer, Refusal> {
        self.may_list(Challenge::Token(CATALOG.to_owned()))?;
        let limit = self.limit()?;
        let last = self.parameters.get("last").filter(|last| !last.is_empty());
        let last: Option<Repository> = last.map(str::parse).transpose()?;
        let (page, has_more) =
            self.registry().catalogue.repositories(last.as_ref(), limit, |name| self.may_see(name));
        let names: Vec<&str> = page.iter().map(Repository::as_str).collect();
        let mut answer = answer::json(StatusCode::OK, &json!({"repositories": names}));
        let next = has_more.then(|| names.last().copied()).flatten();
        self.link(&mut answer, "/v2/_catalog", limit, next, "");
        Ok(answer)
    }

    pub(super) async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Answer, Refusal> {
        self.allow(repository, Action::Pull)?;
        let wanted = self.parameters.get("artifactType").filter(|wanted| !wanted.is_empty());
        let limit = self.limit()?.min(REFERRERS);
        let last = self.parameters.get("last").unwrap_or_default();
        let is_wanted =
            |found: &Descriptor| wanted.is_none_or(|wanted| found.artifact_type.as_deref() == Some(wanted));
        let (page, next) =
            self.registry().referrers_page(repository, subject, last, limit, is_wanted).await?;
        let next = next.map(|digest| digest.to_string());
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page});
        let mut answer = answer::json(StatusCode::OK, &index);
        set(&mut answer, "content-type", OCI_INDEX);
        let mut more = String::new();
        if let Some(wanted) = wanted {
            set(&mut answer, "oci-filters-applied", "artifactType");
            more = format!("&artifactType={}", escape(wanted));
        }
        self.link(
            &mut answer,
            &format!("/v2/{repository}/referrers/{subject}"),
            limit,
            next.as_deref(),
            &more,
        );
        Ok(answer)
    }

    fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.parameters.get("n") else { return Ok(PAGE) };
        let number: usize =
            text.parse().map_err(|_| Refusal::Query(format!("n={text:?}: expected a number of entries")))?;
        Ok(number.min(PAGE))
    }

    fn link(&self, answer: &mut Answer, path: &str, limit: usize, next: Option<&str>, more: &str) {
        if let Some(last) = next {
            let link = format!("<{path}?n={limit}&last={}{more}>; rel=\"next\"", escape(last));
            set(answer, "link", link);
        }
    }
}
