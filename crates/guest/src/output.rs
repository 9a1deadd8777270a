//! What guests print: bytes become lines, lines go to the app's [`Output`](crate::setup::Output).

use crate::setup::{Setup, Stream};
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// A line longer than this is handed on in pieces, so that a guest cannot make the host buffer without end.
const MAX_LINE: usize = 8 << 10;

/// Bytes that a guest may write at once.
const MAX_WRITE: usize = 64 << 10;

/// Makes streams that deliver lines.
pub(crate) struct LineStream {
    setup: Arc<Setup>,
    stream: Stream,
}

struct LineWriter {
    setup: Arc<Setup>,
    stream: Stream,
    partial: Vec<u8>,
}

// === impl LineStream ===

impl LineStream {
    pub(crate) fn new(setup: &Arc<Setup>, stream: Stream) -> LineStream {
        LineStream { setup: Arc::clone(setup), stream }
    }

    fn writer(&self) -> LineWriter {
        LineWriter { setup: Arc::clone(&self.setup), stream: self.stream, partial: Vec::new() }
    }
}

impl IsTerminal for LineStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.writer())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.writer())
    }
}

// === impl LineWriter ===

impl LineWriter {
    fn take(&mut self, bytes: &[u8]) {
        self.setup.output.written(self.stream, bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= MAX_LINE {
                self.deliver();
            }
        }
    }

    fn deliver(&mut self) {
        let line = String::from_utf8_lossy(&self.partial);
        self.setup.output.line(&self.setup.scope.app_id, self.stream, line.trim_end_matches(['\n', '\r']));
        self.partial.clear();
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            self.deliver();
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineWriter {
    async fn ready(&mut self) {}
}

impl OutputStream for LineWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

impl AsyncWrite for LineWriter {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
