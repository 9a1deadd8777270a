//! Contents on gRPC streams: messages up become a body, a body becomes messages down.

use crate::dapr::error::{ApiError, Grpc};
use bytes::Bytes;
use dhow_blocks::blob::BlobError;
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::{Body, BodyError};
use futures::Stream;
use futures::stream;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::collections::VecDeque;
use std::time::Duration;
use tonic::{Status, Streaming};

/// Bytes of one message down (Layotto's number).
pub(super) const PIECE: usize = 102_400;

/// A client has this long to send the next message.
const STALL: Duration = Duration::from_secs(60);

/// The first message of a stream.
pub(super) async fn first<T>(requests: &mut Streaming<T>) -> Result<T, Status> {
    let first = tokio::time::timeout(STALL, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no message came in time"))??;
    first.ok_or_else(|| Status::invalid_argument("the stream has no message"))
}

/// The bytes of the first message and of those that follow.
pub(super) fn body<T: Send + 'static>(
    first: Bytes,
    requests: Streaming<T>,
    bytes: impl Fn(T) -> Bytes + Send + Sync + 'static,
) -> Body {
    let frames = stream::unfold(Some((first, requests, bytes)), |state| async {
        let (mut next, mut requests, bytes) = state?;
        loop {
            if !next.is_empty() {
                return Some((Ok(Frame::data(next)), Some((Bytes::new(), requests, bytes))));
            }
            match tokio::time::timeout(STALL, requests.message()).await {
                Ok(Ok(Some(message))) => next = bytes(message),
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some((Err(BodyError::from(status.message().to_owned())), None)),
                Err(_) => return Some((Err(BodyError::from("no message came in time")), None)),
            }
        }
    });
    Body::stream(StreamBody::new(Box::pin(frames)))
}

/// A body in pieces of at most [`PIECE`] bytes; an empty body is no piece.
pub(super) fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    stream::unfold(Some((body, VecDeque::new())), |state| async {
        let (mut body, mut ready): (Body, VecDeque<Bytes>) = state?;
        loop {
            if let Some(mut piece) = ready.pop_front() {
                if piece.len() > PIECE {
                    let rest = piece.split_off(PIECE);
                    ready.push_front(rest);
                }
                return Some((Ok(piece), Some((body, ready))));
            }
            match body.frame().await? {
                Ok(frame) => ready.extend(frame.into_data().ok().filter(|data| !data.is_empty())),
                Err(error) => {
                    return Some((Err(Status::data_loss(format!("the content broke off: {error}"))), None));
                }
            }
        }
    })
}

/// What the error of a store is called in Layotto.
pub(super) fn failed(error: &BlobError) -> ApiError {
    let (status, grpc) = match error {
        BlobError::NotFound { .. } => (StatusCode::NOT_FOUND, Grpc::NotFound),
        BlobError::Exists { .. } => (StatusCode::CONFLICT, Grpc::AlreadyExists),
        BlobError::Denied { .. } => (StatusCode::FORBIDDEN, Grpc::PermissionDenied),
        BlobError::Block(error @ BlockError::NotSupported { .. }) => {
            return ApiError::block("ERR_BLOB_NOT_SUPPORTED", error);
        }
        BlobError::Block(error) => return ApiError::block("ERR_BLOB", error),
    };
    ApiError::new(status, grpc, "ERR_BLOB", error.to_string())
}
