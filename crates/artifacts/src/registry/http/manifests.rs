//! Manifests by tag or digest.

use super::answer::{self, Answer, empty, identify, set};
use super::{Asked, read_small};
use crate::digest::Digest;
use crate::registry::auth::Action;
use crate::registry::manifest::MAX_MANIFEST;
use crate::registry::manifests::Expected;
use crate::registry::name::{Repository, Selector};
use crate::registry::refusal::Refusal;
use crate::registry::uploads::RequestBody;
use ::http::header::{CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use ::http::{Method, StatusCode};
use std::sync::Arc;

// === impl Asked ===

impl Asked<'_> {
    pub(super) async fn manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
        body: &mut RequestBody,
    ) -> Result<Answer, Refusal> {
        match self.method {
            Method::PUT => {
                self.allow(repository, Action::Push)?;
                self.put(repository, selector, body).await
            }
            Method::DELETE => {
                self.allow(repository, Action::Delete)?;
                let (registry, repository, selector) =
                    (Arc::clone(self.registry()), repository.clone(), selector.clone());
                let deleted = async move { registry.delete_manifest(&repository, &selector).await };
                self.registry().complete(deleted).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
            _ => {
                self.allow(repository, Action::Pull)?;
                self.get(repository, selector).await
            }
        }
    }

    async fn put(
        &self,
        repository: &Repository,
        selector: &Selector,
        body: &mut RequestBody,
    ) -> Result<Answer, Refusal> {
        let bytes = read_small(body, MAX_MANIFEST, "the manifest").await?;
        let content_type = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let absent = self.entity_tags(&IF_NONE_MATCH).iter().any(|tag| tag == "*");
        let expected = Expected { one_of: self.entity_tags(&IF_MATCH), absent };
        let pushed =
            self.registry().put_manifest(repository, selector, bytes, content_type, &expected).await?;
        let mut answer = empty(StatusCode::CREATED);
        set(&mut answer, "location", format!("/v2/{repository}/manifests/{}", pushed.digest));
        identify(&mut answer, &pushed.digest);
        if let Some(subject) = pushed.subject {
            set(&mut answer, "oci-subject", subject.to_string());
        }
        if let Some(warning) = pushed.warning {
            let warning: String =
                warning.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
            set(&mut answer, "warning", format!("299 - \"{warning}\""));
        }
        Ok(answer)
    }

    async fn get(&self, repository: &Repository, selector: &Selector) -> Result<Answer, Refusal> {
        let found = self.registry().manifest(repository, selector).await?;
        if self.knows(&found.digest) {
            return Ok(answer::not_modified(&found.digest));
        }
        let mut answer = answer::respond(StatusCode::OK, found.bytes);
        set(&mut answer, "content-type", &found.media_type);
        identify(&mut answer, &found.digest);
        Ok(answer)
    }

    /// Whether the client says that it has this content.
    pub(super) fn knows(&self, digest: &Digest) -> bool {
        let digest = digest.to_string();
        self.entity_tags(&IF_NONE_MATCH).iter().any(|tag| *tag == digest || tag == "*")
    }

    /// The entity tags of a header, without quotes; they are digests here.
    fn entity_tags(&self, name: &HeaderName) -> Vec<String> {
        let values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let tags = values.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
        tags.map(|tag| tag.trim_matches('"').to_owned()).filter(|tag| !tag.is_empty()).collect()
    }
}
