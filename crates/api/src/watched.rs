//! A body whose end is told: how much it was, and for gRPC the status in its trailers.

use bytes::Bytes;
use dhow_blocks::invoke::{Body, BodyError};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// How a body ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Bytes that went through.
    pub(crate) bytes: u64,
    /// `grpc-status` of the trailers.
    pub(crate) grpc_status: Option<i32>,
}

struct Watched<F: FnOnce(End)> {
    body: Body,
    end: End,
    told: Option<F>,
}

/// The same body; `told` is called once, when it has ended or is given up, and at once if there is nothing to wait for.
pub(crate) fn watch(body: Body, told: impl FnOnce(End) + Send + Unpin + 'static) -> Body {
    match &body {
        Body::Empty => told(End::default()),
        Body::Full(bytes) => told(End { bytes: bytes.len() as u64, grpc_status: None }),
        Body::Stream(_) => {
            return Body::Stream(Box::pin(Watched { body, end: End::default(), told: Some(told) }));
        }
    }
    body
}

// === impl Watched ===

impl<F: FnOnce(End)> Watched<F> {
    fn tell(&mut self) {
        if let Some(told) = self.told.take() {
            told(self.end);
        }
    }
}

impl<F: FnOnce(End) + Unpin> http_body::Body for Watched<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.end.bytes += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.end.grpc_status = grpc_status(trailers);
                }
            }
            Poll::Ready(None | Some(Err(_))) => this.tell(),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnOnce(End)> Drop for Watched<F> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// The status in headers or trailers of gRPC.
pub(crate) fn grpc_status(headers: &http::HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn the_end_is_told_once() {
        for (body, read, bytes, status) in [
            (Body::Empty, true, 0, None),
            (Body::from("abcde"), true, 5, None),
            (stream(), true, 5, Some(5)),
            (stream(), false, 0, None),
        ] {
            let calls = Arc::new(AtomicU64::new(0));
            let seen = Arc::clone(&calls);
            let watched = watch(body, move |end| {
                assert_eq!(end, End { bytes, grpc_status: status });
                seen.fetch_add(1, Ordering::Relaxed);
            });
            if read {
                watched.collect(1 << 10).await.unwrap();
            } else {
                drop(watched);
            }
            assert_eq!(calls.load(Ordering::Relaxed), 1);
        }
    }

    fn stream() -> Body {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("5"));
        let frames = [
            Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"abc"))),
            Ok(Frame::data(Bytes::from_static(b"de"))),
            Ok(Frame::trailers(trailers)),
        ];
        Body::stream(StreamBody::new(futures::stream::iter(frames)))
    }
}
