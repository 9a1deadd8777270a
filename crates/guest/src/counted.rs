//! Bodies that end at a limit: of a request what the app accepts, of a response what the app may send.

use crate::failure::Failure;
use bytes::Bytes;
use dhow_blocks::invoke::{self, CollectError};
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// A body that ends with an error at the frame that goes beyond its limit. After an error or its end it stays
/// ended, whatever the inner one would do.
pub(crate) struct Counted<B> {
    /// Let go of at the end.
    body: Option<B>,
    left: u64,
    limit: u64,
}

/// Why a counted body ended early.
#[derive(Debug, PartialEq)]
pub(crate) enum Early<E> {
    /// It has more bytes than this.
    TooLarge(u64),
    /// Whoever produces it gave up.
    Broken(E),
}

/// Tells that a request had more bytes than its app accepts, after the guest had begun: what the guest makes of it may be
/// any failure. Only a body of which no length was announced can have too many.
#[derive(Clone)]
pub(crate) struct Overrun(Option<Arc<AtomicBool>>);

/// The length that a request says its body has.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body of a request, if it has at most `limit` bytes.
pub(crate) async fn whole(headers: &HeaderMap, body: invoke::Body, limit: u64) -> Result<Bytes, Failure> {
    if announced(headers).is_some_and(|length| length > limit) {
        return Err(Failure::RequestTooLarge(limit));
    }
    body.collect(usize::try_from(limit).unwrap_or(usize::MAX)).await.map_err(|error| match error {
        CollectError::TooLarge { .. } => Failure::RequestTooLarge(limit),
        CollectError::Broken(reason) => Failure::Host(format!("the request body ended early: {reason}")),
    })
}

// === impl Overrun ===

impl Overrun {
    /// Not yet.
    pub(crate) fn of(request: &http::Request<invoke::Body>) -> Overrun {
        let is_bounded = request.body().is_end_stream() || announced(request.headers()).is_some();
        Overrun((!is_bounded).then(Arc::default))
    }

    /// It is so.
    pub(crate) fn tell(&self) {
        if let Some(told) = &self.0 {
            told.store(true, Ordering::Relaxed);
        }
    }

    /// What a failure comes of.
    pub(crate) fn or(&self, failure: Failure, limit: u64) -> Failure {
        let is_told = self.0.as_ref().is_some_and(|told| told.load(Ordering::Relaxed));
        if is_told { Failure::RequestTooLarge(limit) } else { failure }
    }
}

// === impl Counted ===

impl<B> Counted<B> {
    /// A body of at most `limit` bytes of data.
    pub(crate) fn new(body: B, limit: u64) -> Counted<B> {
        Counted { body: Some(body), left: limit, limit }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = Early<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Poll::Pending };
        let frame = frame.map(|frame| {
            let frame = frame.map_err(Early::Broken)?;
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.left = self.left.checked_sub(length).ok_or(Early::TooLarge(self.limit))?;
            Ok(frame)
        });
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::{Counted, Early};
    use bytes::Bytes;
    use http_body::{Body, Frame};
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    /// Has no end of its own: whoever asks it once more than it has answers for fails the test.
    struct Frames(VecDeque<Option<Result<Frame<Bytes>, &'static str>>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.pop_front().expect("asked after the end"))
        }
    }

    #[test]
    fn a_body_ends_at_its_limit_its_error_or_its_end_and_stays_ended() {
        let data = |text: &'static str| Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        let trailers = || Some(Ok(Frame::trailers(http::HeaderMap::new())));
        // Frames, bytes let through, how it ended.
        let cases = [
            (vec![None], 0, None),
            (vec![data("1234"), data("5"), None], 5, None),
            (vec![data("12345"), data(""), trailers(), None], 5, None),
            (vec![data("1234"), data("56")], 4, Some(Early::TooLarge(5))),
            (vec![data("123456")], 0, Some(Early::TooLarge(5))),
            (vec![data("1"), Some(Err("gone"))], 1, Some(Early::Broken("gone"))),
        ];
        for (frames, expected, end) in cases {
            let mut body = Counted::new(Frames(frames.into()), 5);
            let mut next = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            let mut passed = 0;
            let ended = loop {
                match next() {
                    Poll::Ready(Some(Ok(frame))) => passed += frame.data_ref().map_or(0, Bytes::len),
                    Poll::Ready(end) => break end.and_then(Result::err),
                    Poll::Pending => unreachable!(),
                }
            };
            assert_eq!((passed, ended), (expected, end));
            assert!(matches!(next(), Poll::Ready(None)));
            assert!(body.is_end_stream());
        }
    }
}
