//! Requests that are sent once more when the connection that was kept for them turns out to be closed.
//!
//! A server may close an idle connection at the moment it is used again. The guest knows of no connections, and would see
//! a failure that is none of its own. What only asks, and sends no body, is repeated once (RFC 9110, section 9.2.2).

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use wasmtime_wasi_http::{Error, WasiBody};

/// A request, as it can be sent once more.
pub(super) struct Again {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    is_empty: Arc<AtomicBool>,
}

/// A body, and whether it came to its end without anything in it.
struct Watched {
    body: WasiBody,
    has_content: bool,
    is_empty: Arc<AtomicBool>,
}

// === impl Again ===

impl Again {
    /// Prepares a request to be sent, perhaps more than once; none if it is not to be repeated.
    pub(super) fn prepare(request: Request<WasiBody>) -> (Request<WasiBody>, Option<Again>) {
        if !request.method().is_safe() {
            return (request, None);
        }
        let is_empty = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let again = Again {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            is_empty: Arc::clone(&is_empty),
        };
        let watch = |body| Watched { body, has_content: false, is_empty }.boxed_unsync();
        (request.map(watch), Some(again))
    }

    /// The request once more, if all of it is known.
    pub(super) fn request(self) -> Option<Request<WasiBody>> {
        if !self.is_empty.load(Ordering::Acquire) {
            return None;
        }
        let mut request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => self.is_empty.store(!self.has_content, Ordering::Release),
            Poll::Ready(Some(_)) => self.has_content = true,
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
