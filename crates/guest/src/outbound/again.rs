//! Requests that are sent once more when the connection that was kept for them turns out to be closed.
//!
//! A server may close an idle connection at the moment it is used again. The guest knows of no connections, and would see
//! a failure that is none of its own. What only asks is repeated once, if nothing of its body is gone (RFC
//! 9110, section 9.2.2).

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use wasmtime_wasi_http::{Error, WasiBody};

/// A request, as it can be sent once more.
pub(super) struct Again {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    unread: Unread,
}

/// A body that came back because nothing of it was sent.
type Unread = Arc<Mutex<Option<WasiBody>>>;

/// A body that comes back when it is dropped before anything was read of it.
struct Lent {
    /// None when it is at its end.
    body: Option<WasiBody>,
    /// Something was in it.
    is_read: bool,
    unread: Unread,
}

// === impl Again ===

impl Again {
    /// Prepares a request to be sent, perhaps more than once; none if it is not to be repeated.
    pub(super) fn prepare(request: Request<WasiBody>) -> (Request<WasiBody>, Option<Again>) {
        if !request.method().is_safe() {
            return (request, None);
        }
        let unread = Unread::default();
        let again = Again {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            unread: Arc::clone(&unread),
        };
        (request.map(|body| Lent { body: Some(body), is_read: false, unread }.boxed_unsync()), Some(again))
    }

    /// The request once more, if nothing of its body is gone.
    pub(super) fn request(self) -> Option<Request<WasiBody>> {
        let mut request = Request::new(self.unread.lock().take()?);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

// === impl Lent ===

impl Body for Lent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => self.body = None,
            Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            Poll::Ready(Some(_)) => self.is_read = true,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.is_read {
            let empty = || Empty::new().map_err(|never| match never {}).boxed_unsync();
            *self.unread.lock() = Some(self.body.take().unwrap_or_else(empty));
        }
    }
}
