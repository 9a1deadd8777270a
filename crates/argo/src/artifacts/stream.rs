//! Bytes between threads that block, which pack and unpack, and the tasks that speak with servers.
//!
//! A few pieces are on their way at a time, so an artifact of any size passes through little memory. A content that
//! breaks off on either side is an error on the other one, never a shorter content.

use super::interest;
use super::repository::ArtifactError;
use bytes::Bytes;
use dhow_blocks::invoke::Body;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// Pieces on their way.
const PIECES: usize = 4;

/// A server that sends no byte for so long is given up.
const STALL: Duration = Duration::from_secs(120);

/// An upload in which nothing moves for so long is given up. Large objects take a server a while to put together.
const UPLOAD_STALL: Duration = Duration::from_secs(600);

/// A content on its way to a server.
struct Upload<'a> {
    runtime: &'a Handle,
    pieces: Option<mpsc::Sender<Piece>>,
    piece: Vec<u8>,
    /// The server wants no more.
    is_refused: bool,
    /// Pieces that came and went.
    moved: Arc<AtomicU64>,
}

enum Piece {
    Data(Bytes),
    End,
}

/// Sends what `fill` writes. `send` is the request that has the body.
pub(super) fn upload<F>(
    runtime: &Handle,
    send: impl FnOnce(Body) -> F,
    fill: &mut super::store::Fill<'_>,
) -> Result<(), ArtifactError>
where
    F: Future<Output = Result<(), ArtifactError>> + Send + 'static,
{
    let (pieces, received) = mpsc::channel(PIECES);
    let moved = Arc::new(AtomicU64::new(0));
    let sending = send(body(received, Arc::clone(&moved)));
    let seen = Arc::clone(&moved);
    let sent: JoinHandle<_> = runtime.spawn(async move {
        tokio::select! {
            answer = sending => answer,
            () = stalled(&seen) => {
                Err(ArtifactError::Unavailable(format!("nothing moved for {UPLOAD_STALL:?}")))
            }
        }
    });
    let end = sent.abort_handle();
    let piece = Vec::with_capacity(PIECE);
    let mut upload = Upload { runtime, pieces: Some(pieces), piece, is_refused: false, moved };
    let filled = fill(&mut upload).and_then(|()| Ok(upload.end()?));
    // A body without its end fails the request.
    upload.pieces = None;
    let answer = match interest::wait(runtime, sent) {
        Ok(answer) => answer.unwrap_or_else(|error| Err(ArtifactError::Unavailable(error.to_string()))),
        Err(lost) => {
            // What broke off is taken back by the request itself; what is whole may be there or not.
            if filled.is_ok() {
                end.abort();
            }
            Err(lost.into())
        }
    };
    match filled {
        // What the server says is why nothing more could be written.
        Err(_) if upload.is_refused && answer.is_err() => answer,
        Err(error) => Err(error),
        Ok(()) => answer,
    }
}

async fn stalled(moved: &AtomicU64) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(UPLOAD_STALL).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

fn body(received: mpsc::Receiver<Piece>, moved: Arc<AtomicU64>) -> Body {
    let frames = futures::stream::unfold(Some((received, moved)), |state| async {
        let (mut received, moved) = state?;
        let piece = received.recv().await;
        moved.fetch_add(1, Ordering::Relaxed);
        match piece {
            Some(Piece::Data(bytes)) => Some((Ok(Frame::data(bytes)), Some((received, moved)))),
            Some(Piece::End) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None)),
        }
    });
    // Whoever puts an object together may ask again after the end.
    Body::stream(StreamBody::new(Box::pin(frames.fuse())))
}

/// The body of an answer, for a thread that blocks.
pub(super) struct Download {
    runtime: Handle,
    body: Pin<Box<Body>>,
    rest: Bytes,
}

// === impl Upload ===

impl Upload<'_> {
    fn pass(&mut self, piece: Piece) -> io::Result<()> {
        let passed = match &self.pieces {
            Some(pieces) => interest::wait(self.runtime, pieces.send(piece))?.is_ok(),
            None => false,
        };
        self.is_refused |= !passed;
        self.moved.fetch_add(1, Ordering::Relaxed);
        if passed { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.pass(Piece::End)
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.piece.extend_from_slice(taken);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pass(Piece::Data(piece.into()))
    }
}

// === impl Download ===

impl Download {
    pub(super) fn new(runtime: &Handle, body: Body) -> Download {
        Download { runtime: runtime.clone(), body: Box::pin(body), rest: Bytes::new() }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let body = &mut self.body;
            match interest::wait(&self.runtime, async { tokio::time::timeout(STALL, body.frame()).await })? {
                Ok(None) => return Ok(0),
                Ok(Some(Ok(frame))) => self.rest = frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => return Err(broken(&error)),
                Err(_) => return Err(broken(&"the server sends nothing")),
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(buffer.len()));
        if let Some(room) = buffer.get_mut(..taken.len()) {
            room.copy_from_slice(&taken);
        }
        Ok(taken.len())
    }
}

/// An error of the network, told from those of the disk by its kind: another attempt may succeed.
fn broken(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, format!("the content broke off: {error}"))
}
