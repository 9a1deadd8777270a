//! Content and manifests to a registry: what it has already is not sent again, and what is sent goes in one piece
//! (`POST` for a place, then `PUT` with the digest).

use super::error::{RegistryError, harmless};
use super::transport::{Ask, is_same_place};
use super::{Client, Right, content_digest};
use crate::digest::Digest;
use crate::url::resolve;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, WARNING};
use http::{Method, StatusCode};

impl Client {
    /// Sends content unless the registry has it; whether it was sent.
    pub async fn upload(
        &self,
        repository: &str,
        digest: &Digest,
        content: Bytes,
    ) -> Result<bool, RegistryError> {
        let ask = Ask::new(Method::HEAD, &format!("{}/v2/{repository}/blobs/{digest}", self.base))?;
        // Some registries answer this with a refusal to those who may only write.
        if let Ok(response) = self.send_patiently(&ask, repository, Right::Push).await
            && response.status().is_success()
        {
            return Ok(false);
        }
        let ask = Ask::new(Method::POST, &format!("{}/v2/{repository}/blobs/uploads/", self.base))?;
        let response = self.send_patiently(&ask, repository, Right::Push).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.failed(&ask, response).await);
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let place = location
            .ok_or("it names no place for the content".to_owned())
            .and_then(|location| resolve(&ask.uri, location))
            .map_err(|reason| RegistryError::Redirect { url: ask.shown(), reason })?;
        let separator = if place.query().is_some() { '&' } else { '?' };
        let put = Ask::new(Method::PUT, &format!("{place}{separator}digest={digest}"))?;
        let put = put.header(CONTENT_TYPE, "application/octet-stream")?.body(content);
        // A place on another host is told nothing about who sends.
        let response = match is_same_place(&place, &ask.uri) {
            true => self.send(&put, repository, &Right::Push.scope(repository)).await?,
            false => self.transport.send(&put, None).await?,
        };
        if response.status() != StatusCode::CREATED {
            return Err(self.failed(&put, response).await);
        }
        Ok(true)
    }

    /// Sends a manifest under a tag or its digest.
    pub async fn upload_manifest(
        &self,
        repository: &str,
        name: &str,
        media_type: &str,
        manifest: Bytes,
    ) -> Result<Digest, RegistryError> {
        let expected = Digest::sha256(&manifest);
        let ask = Ask::new(Method::PUT, &format!("{}/v2/{repository}/manifests/{name}", self.base))?;
        let ask = ask.header(CONTENT_TYPE, media_type)?.body(manifest);
        let response = self.send_patiently(&ask, repository, Right::Push).await?;
        if response.status() != StatusCode::CREATED {
            return Err(self.failed(&ask, response).await);
        }
        for warning in
            response.headers().get_all(WARNING).iter().filter_map(|value| warning(value.to_str().ok()?))
        {
            tracing::warn!("{}: {warning}", self.registry);
        }
        match content_digest(response.headers(), &ask.shown())? {
            Some(found) if found.algorithm() == expected.algorithm() && found != expected => {
                let what = format!("the manifest {} as the registry took it", self.named(repository, name));
                Err(RegistryError::Digest { what, expected, found: found.to_string() })
            }
            _ => Ok(expected),
        }
    }
}

/// What a registry wants people to know: `299 - "…"` (OCI distribution 1.1, "Warnings").
fn warning(value: &str) -> Option<String> {
    let text = value.trim().strip_prefix("299 - \"")?.strip_suffix('"')?;
    Some(harmless(&text.replace("\\\"", "\""))).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::warning;

    #[test]
    fn warnings_are_read() {
        assert_eq!(warning(r#"299 - "it is \"old\"""#).as_deref(), Some(r#"it is "old""#));
        for other in [r#"214 - "x""#, "299 - x", "299 - \"", ""] {
            assert_eq!(warning(other), None, "{other}");
        }
    }
}
