//! Blobs and their uploads
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs>).

use super::answer::{self, Answer, empty, identify, range, set};
use super::{Asked, Body};
use crate::digest::Digest;
use crate::registry::Registry;
use crate::registry::auth::Action;
use crate::registry::name::Repository;
use crate::registry::refusal::Refusal;
use crate::registry::uploads::{BodyError, RequestBody, Session};
use ::http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use ::http::{Method, Response, StatusCode};
use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::sync::Arc;

// === impl Asked ===

impl Asked<'_> {
    pub(super) async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Answer, Refusal> {
        if self.method == Method::DELETE {
            self.allow(repository, Action::Delete)?;
            let (registry, repository, digest) = self.owned(repository, digest);
            let deleted = async move { registry.delete_blob(&repository, &digest).await };
            self.registry().complete(deleted).await?;
            return Ok(empty(StatusCode::ACCEPTED));
        }
        self.allow(repository, Action::Pull)?;
        let size = self.registry().find_blob(repository, digest).await?;
        if self.knows(digest) {
            return Ok(answer::not_modified(digest));
        }
        let is_head = self.method == Method::HEAD;
        let part = match self.headers.get(RANGE).and_then(|value| value.to_str().ok()) {
            Some(text) if !is_head && self.wants_part_of(digest) => part(text, size)?,
            _ => None,
        };
        let length = part.map_or(size, |(_, length)| length);
        let mut answer = match is_head {
            true => Response::new(answer::full(Bytes::new())),
            false => {
                let content = self.registry().blob(repository, digest, size, part).await?;
                self.registry().counters.sent.add(length);
                let frames = content.map_ok(Frame::data).map_err(|error| -> BodyError { error.into() });
                let body: Body = StreamBody::new(frames).boxed_unsync();
                Response::new(body)
            }
        };
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
        set(&mut answer, "content-type", "application/octet-stream");
        identify(&mut answer, digest);
        set(&mut answer, "accept-ranges", "bytes");
        if let Some((offset, length)) = part {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = offset + length.saturating_sub(1);
            set(&mut answer, "content-range", format!("bytes {offset}-{last}/{size}"));
        }
        Ok(answer)
    }

    /// Whether a part is wanted of this content, if one is: who has begun with something else wants the whole.
    fn wants_part_of(&self, digest: &Digest) -> bool {
        let Some(condition) = self.headers.get(IF_RANGE) else { return true };
        // A weak entity tag is none that parts could be put together by, and there are no dates here.
        condition.as_bytes() == format!("\"{digest}\"").as_bytes()
    }

    /// What a change needs that may outlive its request.
    fn owned(&self, repository: &Repository, digest: &Digest) -> (Arc<Registry>, Repository, Digest) {
        (Arc::clone(self.registry()), repository.clone(), digest.clone())
    }

    /// `POST`: an upload begins, or is whole already, or is not needed.
    pub(super) async fn begin_upload(
        &self,
        repository: &Repository,
        body: &mut RequestBody,
    ) -> Result<Answer, Refusal> {
        self.allow(repository, Action::Push)?;
        let registry = self.registry();
        if let Some(mount) = self.parameters.get("mount") {
            let digest = digest(mount)?;
            if let Some(from) = self.parameters.get("from") {
                let from: Repository = from.parse()?;
                // Who may not read there learns nothing about it: the upload begins as if nothing were there.
                if self.allow(&from, Action::Pull).is_ok() {
                    let (registry, to, blob) = self.owned(repository, &digest);
                    let mounted = async move { registry.mount(&to, &from, &blob).await };
                    if self.registry().complete(mounted).await? {
                        return Ok(created(repository, &digest));
                    }
                }
            }
        }
        let whole = self.parameters.get("digest").map(digest).transpose()?;
        let session = registry.uploads.begin(repository, self.identity.user.as_deref()).await?;
        match whole {
            None => Ok(under_way(StatusCode::ACCEPTED, &session, session.length())),
            Some(digest) => {
                let finished = registry.finish(&session, None, body, &digest).await;
                if finished.is_err() {
                    // Nobody knows its id, so nobody goes on with it.
                    if let Ok(writer) = session.writer().await {
                        registry.uploads.end(&session, writer).await?;
                    }
                }
                finished.map(|()| created(repository, &digest))
            }
        }
    }

    /// An upload that has begun.
    pub(super) async fn upload(
        &self,
        repository: &Repository,
        id: &str,
        body: &mut RequestBody,
    ) -> Result<Answer, Refusal> {
        self.allow(repository, Action::Push)?;
        let registry = self.registry();
        let session = registry.uploads.get(repository, id)?;
        match self.method {
            Method::PATCH => {
                let at = self.content_range()?;
                let length = registry.append(&session, at, body).await?;
                Ok(under_way(StatusCode::ACCEPTED, &session, length))
            }
            Method::PUT => {
                let Some(said) = self.parameters.get("digest") else {
                    let reason = "an upload ends with ?digest=, the digest of the whole blob".to_owned();
                    return Err(Refusal::DigestInvalid(reason));
                };
                let digest = digest(said)?;
                registry.finish(&session, self.content_range()?, body, &digest).await?;
                Ok(created(repository, &digest))
            }
            Method::DELETE => {
                let writer = session.writer().await?;
                registry.uploads.end(&session, writer).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            _ => Ok(under_way(StatusCode::NO_CONTENT, &session, session.length())),
        }
    }

    /// Where the request's body belongs, if it says so.
    fn content_range(&self) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.headers.get(CONTENT_RANGE) else { return Ok(None) };
        let length = self.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let text = value.to_str().unwrap_or_default();
        begin_of(text, length).map(Some).ok_or_else(|| {
            Refusal::RangeInvalid(format!(
                "Content-Range {text:?} is no FIRST-LAST of the {} bytes of the body",
                length.map_or("unknown".to_owned(), |length: u64| length.to_string())
            ))
        })
    }
}

/// The first byte of `FIRST-LAST`, which some clients write `bytes FIRST-LAST/…`.
fn begin_of(text: &str, length: Option<u64>) -> Option<u64> {
    let text = text.strip_prefix("bytes").unwrap_or(text).trim_start_matches(['=', ' ']);
    let (first, last) = text.split('/').next()?.split_once('-')?;
    let (first, last): (u64, u64) = (number(first)?, number(last)?);
    // Some write 0-0 or 0--1 for nothing; the former is also one byte.
    let count = last.checked_sub(first)?.checked_add(1)?;
    let is_empty = length == Some(0) && count <= 1;
    (is_empty || length.is_none_or(|length| length == count)).then_some(first)
}

/// Offset and length of `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`; `None` where the whole is as good.
fn part(text: &str, size: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let outside = || Refusal::RangeOutside { range: text.chars().take(100).collect(), size };
    let Some(ranges) = text.strip_prefix("bytes=") else { return Ok(None) };
    // Several parts at once are not needed by anybody: the whole is a legal answer.
    let Some((first, last)) = ranges.split_once('-').filter(|_| !ranges.contains(',')) else {
        return Ok(None);
    };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let Some(count) = number(last) else { return Ok(None) };
        let count = count.min(size);
        return if count == 0 { Err(outside()) } else { Ok(Some((size - count, count))) };
    }
    let Some(first) = number(first) else { return Ok(None) };
    let last = match last {
        "" => u64::MAX,
        last => match number(last) {
            Some(last) if last >= first => last,
            _ => return Ok(None),
        },
    };
    if first >= size {
        return Err(outside());
    }
    Ok(Some((first, last.min(size - 1) - first + 1)))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    let parsed: Result<Digest, _> = text.parse();
    parsed.map_err(|error| Refusal::DigestInvalid(error.to_string()))
}

fn created(repository: &Repository, digest: &Digest) -> Answer {
    let mut answer = empty(StatusCode::CREATED);
    set(&mut answer, "location", format!("/v2/{repository}/blobs/{digest}"));
    identify(&mut answer, digest);
    answer
}

fn under_way(status: StatusCode, session: &Arc<Session>, length: u64) -> Answer {
    let mut answer = empty(status);
    set(&mut answer, "location", format!("/v2/{}/blobs/uploads/{}", session.repository, session.id));
    set(&mut answer, "range", range(length));
    set(&mut answer, "docker-upload-uuid", &session.id);
    answer
}

#[cfg(test)]
mod tests {
    use super::{begin_of, part};

    #[test]
    fn parts_of_a_blob() {
        let cases = [
            ("bytes=0-3", Ok(Some((0, 4)))),
            ("bytes=2-", Ok(Some((2, 8)))),
            ("bytes=-3", Ok(Some((7, 3)))),
            ("bytes=-30", Ok(Some((0, 10)))),
            ("bytes=5-100", Ok(Some((5, 5)))),
            ("bytes=9-9", Ok(Some((9, 1)))),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=3-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=a-", Ok(None)),
            ("bytes=+1-2", Ok(None)),
            ("bytes=99999999999999999999-", Ok(None)),
            ("lines=0-1", Ok(None)),
            ("", Ok(None)),
        ];
        for (text, expected) in cases {
            assert_eq!(part(text, 10).map_err(drop), expected, "{text}");
        }
        assert!(part("bytes=0-", 0).is_err());
    }

    #[test]
    fn where_a_chunk_belongs() {
        let cases = [
            ("0-3", Some(4), Some(0)),
            ("4-7", None, Some(4)),
            ("bytes 4-7/*", Some(4), Some(4)),
            ("0-3", Some(5), None),
            ("3-0", Some(4), None),
            ("0-0", Some(0), Some(0)),
            ("0-18446744073709551615", None, None),
            ("-1", None, None),
            ("x", None, None),
        ];
        for (text, length, begin) in cases {
            assert_eq!(begin_of(text, length), begin, "{text}");
        }
    }
}
