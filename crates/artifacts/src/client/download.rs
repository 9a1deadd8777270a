//! Content from a registry: written and hashed as it arrives, and resumed where the connection broke
//! (`Range`, RFC 9110, section 14.2).

use super::error::RegistryError;
use super::transport::{Ask, SILENCE};
use super::{ATTEMPTS, Client, Right, pause};
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::store::Partial;
use crate::url::chain;
use http::header::{CONTENT_RANGE, RANGE};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A download that is slower than this many bytes a second, after a minute, is given up.
const SLOWEST: u64 = 4 << 10;

/// Attempts altogether, also when each of them gets further.
const MOST_ATTEMPTS: u32 = 100;

/// How one attempt ended.
enum Ended {
    Complete,
    /// It is worth another attempt.
    Broke(String),
}

impl Client {
    /// Downloads what the descriptor names into `partial`, which is verified by whoever finishes it.
    pub(crate) async fn download(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        partial: &mut Partial,
        progress: &Progress<'_>,
    ) -> Result<(), RegistryError> {
        let what = format!("the content {} of {}/{repository}", descriptor.digest, self.registry);
        let deadline = Instant::now() + Duration::from_secs(60 + descriptor.size / SLOWEST);
        progress.arrived(partial.length());
        let (mut fruitless, mut attempts) = (0, 0);
        while partial.length() < descriptor.size || attempts == 0 {
            attempts += 1;
            let before = partial.length();
            let reason = match self.attempt(repository, descriptor, partial, progress, deadline).await? {
                Ended::Complete => return Ok(()),
                Ended::Broke(reason) => reason,
            };
            fruitless = if partial.length() > before { 0 } else { fruitless + 1 };
            if fruitless == ATTEMPTS || attempts == MOST_ATTEMPTS || Instant::now() > deadline {
                let (received, size) = (partial.length(), descriptor.size);
                return Err(RegistryError::Interrupted {
                    what,
                    received,
                    size,
                    attempts: fruitless.max(1),
                    reason,
                });
            }
            tracing::debug!("{what}: broke off after {} bytes: {reason}", partial.length());
            tokio::time::sleep(pause(fruitless + 1, None)).await;
        }
        Ok(())
    }

    async fn attempt(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        partial: &mut Partial,
        progress: &Progress<'_>,
        deadline: Instant,
    ) -> Result<Ended, RegistryError> {
        if partial.length() == descriptor.size {
            return Ok(Ended::Complete);
        }
        let mut ask = Ask::get(&format!("{}/v2/{repository}/blobs/{}", self.base, descriptor.digest))?;
        if partial.length() > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", partial.length()))?;
        }
        let response = match self.send_patiently(&ask, repository, Right::Pull).await {
            Ok(response) => response,
            // Once something was there, a registry that is gone may come back.
            Err(error @ (RegistryError::Connect { .. } | RegistryError::Timeout { .. }))
                if partial.length() > 0 =>
            {
                return Ok(Ended::Broke(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(partial.length()) => {}
            // The registry does not resume, or resumes elsewhere: from the beginning.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if partial.length() > 0 =>
            {
                progress.lost(partial.length());
                partial.restart()?;
                if response.status() != StatusCode::OK {
                    return Ok(Ended::Broke("the registry resumes at another place".to_owned()));
                }
            }
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let name = self.named(repository, &descriptor.digest.to_string());
                return Err(self.not_found(name, response).await);
            }
            _ => return Err(self.failed(&ask, response).await),
        }
        self.receive(response, descriptor, partial, progress, deadline).await
    }

    /// Takes what comes. Writing a piece to the page cache is quicker than handing it to another thread.
    async fn receive(
        &self,
        response: Response<Incoming>,
        descriptor: &Descriptor,
        partial: &mut Partial,
        progress: &Progress<'_>,
        deadline: Instant,
    ) -> Result<Ended, RegistryError> {
        let mut body = response.into_body();
        loop {
            let patience = deadline.min(Instant::now() + SILENCE);
            let frame = match timeout_at(patience, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Ok(Ended::Broke(chain(&error))),
                Ok(None) if partial.length() == descriptor.size => return Ok(Ended::Complete),
                Ok(None) => return Ok(Ended::Broke("the answer ended early".to_owned())),
                Err(_) => return Ok(Ended::Broke("the registry was silent or too slow".to_owned())),
            };
            let Ok(data) = frame.into_data() else { continue };
            let found = partial.length() + data.len() as u64;
            if found > descriptor.size {
                partial.restart()?;
                let what = format!("the content {}", descriptor.digest);
                return Err(RegistryError::Size { what, expected: descriptor.size, found });
            }
            partial.append(&data)?;
            progress.arrived(data.len() as u64);
        }
    }
}

/// `Content-Range: bytes 5-9/10`
fn begins_at(response: &Response<Incoming>) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
