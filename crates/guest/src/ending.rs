//! How an invocation ends, for every ABI: its reply, and who hears of its failure.
//!
//! What a guest has written is gathered until it waits for something or ends; a guest that ends before the
//! head of the response is sent has its whole response written at once, with a content length.

use crate::counted::{Counted, Early};
use crate::failure::Failure;
use crate::guest::Invoked;
use crate::run::InFlight;
use bytes::{Bytes, BytesMut};
use dhow_blocks::invoke::{Body, Reply};
use http::Response;
use http_body::{Body as _, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Writes of the guest are gathered up to about this size before they are sent.
const GATHER: usize = 64 << 10;

/// Makes the reply of what a guest answered, with at most `limit` bytes of body. The watcher of `flight` hears
/// of a failure, be it the answer or later in the body.
pub(crate) fn reply<B, W>(
    answer: Result<Response<B>, Failure>,
    mut flight: InFlight<W>,
    limit: u64,
) -> Result<Reply, Failure>
where
    B: http_body::Body<Data = Bytes, Error: Into<Failure>> + Unpin + Send + 'static,
    W: Invoked,
{
    let answer = answer.and_then(|response| match response.status() {
        status if status.is_informational() => Err(Failure::informational(status)),
        _ => Ok(response),
    });
    match answer {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = Counted::new(body, limit);
            let body = GuestBody { flight, body, ready: VecDeque::new(), ahead: None, over: false };
            Ok(Response::from_parts(head, body.settle()?))
        }
        Err(failure) => {
            flight.fail(&failure);
            Err(failure)
        }
    }
}

/// What a body yields when it is ready: a frame, an error, or its end.
type Item = Option<Result<Frame<Bytes>, Failure>>;

/// A response body whose guest may still be running; polling it runs the guest.
struct GuestBody<B, W: Invoked> {
    flight: InFlight<W>,
    body: Counted<B>,
    /// Ready to be sent as it is, in order.
    ready: VecDeque<Item>,
    /// What ended a run of data: trailers, or an error. The body tells it only once.
    ahead: Option<Result<Frame<Bytes>, Failure>>,
    over: bool,
}

// === impl GuestBody ===

impl<B, W> GuestBody<B, W>
where
    B: http_body::Body<Data = Bytes, Error: Into<Failure>> + Unpin + Send + 'static,
    W: Invoked,
{
    /// A plain body if the guest has ended and all of it is there, without trailers; else a stream. An error if the
    /// guest has ended and its body is broken: nothing of it was sent.
    fn settle(mut self) -> Result<Body, Failure> {
        if !self.flight.has_ended() {
            return Ok(Body::stream(self));
        }
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = self.gather(&mut cx) else { return Ok(Body::stream(self)) };
        let Some(frame) = first.transpose()? else { return Ok(Body::Empty) };
        let second = match self.gather(&mut cx) {
            Poll::Ready(second) => Poll::Ready(second.transpose()?),
            Poll::Pending => Poll::Pending,
        };
        Ok(match (frame.into_data(), second) {
            (Ok(data), Poll::Ready(None)) => data.into(),
            (data, second) => {
                let first = Some(Ok(data.map_or_else(|trailers| trailers, Frame::data)));
                match second {
                    Poll::Ready(second) => self.replayed([first, second.map(Ok)]),
                    Poll::Pending => self.replayed([first]),
                }
            }
        })
    }

    /// A stream that begins with what was already taken out of it.
    fn replayed<const N: usize>(mut self, taken: [Item; N]) -> Body {
        self.ready.extend(taken);
        Body::stream(self)
    }

    /// The next frame; data that is already there is gathered into one.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        loop {
            let gathered = first.len() + more.len();
            let frame = match self.ahead.take() {
                Some(frame) => Poll::Ready(Some(frame)),
                None if gathered >= GATHER => Poll::Pending,
                None => Pin::new(&mut self.body).poll_frame(cx).map_err(|early| self.failed(early)),
            };
            match frame {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if gathered == 0 => first = data,
                    Ok(data) => {
                        if more.is_empty() {
                            more.reserve(GATHER);
                            more.extend_from_slice(&std::mem::take(&mut first));
                        }
                        more.extend_from_slice(&data);
                    }
                    Err(trailers) if gathered == 0 => return Poll::Ready(Some(Ok(trailers))),
                    Err(trailers) => self.ahead = Some(Ok(trailers)),
                },
                Poll::Ready(Some(Err(error))) if gathered == 0 => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Err(error))) => self.ahead = Some(Err(error)),
                Poll::Ready(None) if gathered == 0 => return Poll::Ready(None),
                Poll::Pending if gathered == 0 => return Poll::Pending,
                // The end comes again at the next call.
                _ => {}
            }
            let settled = self.ahead.is_some() || gathered >= GATHER || gathered == first.len() + more.len();
            if settled && first.len() + more.len() > 0 {
                let data = if more.is_empty() { first } else { more.freeze() };
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn failed(&mut self, early: Early<B::Error>) -> Failure {
        match early {
            Early::TooLarge(limit) => {
                let failure = Failure::ResponseTooLarge(limit);
                self.flight.fail(&failure);
                failure
            }
            Early::Broken(error) => {
                let failure = error.into();
                // The guest may have given up its answer and not its work.
                self.flight.tell(&failure);
                failure
            }
        }
    }
}

impl<B, W> http_body::Body for GuestBody<B, W>
where
    B: http_body::Body<Data = Bytes, Error: Into<Failure>> + Unpin + Send + 'static,
    W: Invoked,
{
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        if let Some(item) = this.ready.pop_front() {
            return Poll::Ready(item);
        }
        if this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Err(failure)) = this.flight.poll(cx) {
            // The connection is broken off, so that the client cannot take half a response for a whole one.
            this.over = true;
            this.flight.fail(&failure);
            return Poll::Ready(Some(Err(failure)));
        }
        this.gather(cx)
    }
}
