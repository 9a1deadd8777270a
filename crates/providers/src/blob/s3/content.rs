//! Contents on their way to and from S3: in pieces, of a length that was said before, and never standing still for long.

use crate::blob::next;
use bytes::{Bytes, BytesMut};
use dhow_blocks::blob::BlobError;
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use std::time::Duration;
use tokio::sync::oneshot;

/// A reader waits for this long for the next bytes.
const STALL: Duration = Duration::from_secs(60);

/// The next `wanted` bytes of a content, fewer at its end. What comes too much is in `rest`.
pub(super) async fn held(body: &mut Body, rest: &mut Bytes, wanted: usize) -> Result<Bytes, BlobError> {
    let mut piece = BytesMut::new();
    loop {
        let missing = wanted - piece.len();
        if rest.len() >= missing {
            piece.extend_from_slice(&rest.split_to(missing));
            return Ok(piece.freeze());
        }
        piece.extend_from_slice(&std::mem::take(rest));
        match next(body).await? {
            Some(data) => *rest = data,
            None => return Ok(piece.freeze()),
        }
    }
}

/// A content that has to have this length, and why it has not, as soon as that is known: a server would wait for the
/// rest of it.
pub(super) fn measured(body: Body, length: u64) -> (Body, impl Future<Output = BlobError>) {
    let (tell, told) = oneshot::channel();
    let frames =
        futures::stream::unfold((body, length, Some(tell)), |(mut body, left, mut tell)| async move {
            // Told already.
            tell.as_ref()?;
            let error = match next(&mut body).await {
                Ok(Some(data)) if data.len() as u64 <= left => {
                    let left = left - data.len() as u64;
                    return Some((Ok(Frame::data(data)), (body, left, tell)));
                }
                Ok(None) if left == 0 => return None,
                Ok(Some(_)) => BlockError::invalid("more bytes came than were announced").into(),
                Ok(None) => BlockError::invalid(format!("{left} bytes less came than were announced")).into(),
                Err(error) => error,
            };
            let frame = Err(std::io::Error::other(error.to_string()));
            if let Some(tell) = tell.take() {
                let _ = tell.send(error);
            }
            Some((frame, (body, left, tell)))
        });
    let broken = async {
        match told.await {
            Ok(error) => error,
            // It was whole.
            Err(_) => std::future::pending().await,
        }
    };
    (Body::stream(StreamBody::new(Box::pin(frames))), broken)
}

/// A content as it comes, which may not stop for long.
pub(super) fn content(body: Incoming) -> Body {
    let frames = futures::stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match tokio::time::timeout(STALL, body.frame()).await {
            Ok(None) => None,
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some(body))),
            Ok(Some(Err(error))) => Some((Err(std::io::Error::other(error)), None)),
            Err(_) => Some((Err(std::io::Error::from(std::io::ErrorKind::TimedOut)), None)),
        }
    });
    Body::stream(StreamBody::new(Box::pin(frames)))
}
