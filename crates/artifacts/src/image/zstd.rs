//! What is packed with Zstandard (RFC 8878): frames one behind the other, of which some hold no content.
//!
//! A frame says how much of what was unpacked its decoder has to hold. More than [`MAX_WINDOW`] is refused; skopeo and
//! buildah want 32 MiB.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::io::{self, Read};

/// Bytes that a decoder holds.
const MAX_WINDOW: u64 = 64 << 20;

/// Unpacks while it is read.
pub(super) struct Unpacked<'a> {
    /// What is behind the frame that is read.
    rest: &'a [u8],
    frame: Option<Frame<'a>>,
}

type Frame<'a> = StreamingDecoder<&'a [u8], FrameDecoder>;

/// Whether this begins like a frame, with content or without.
pub(super) fn is_packed(bytes: &[u8]) -> bool {
    matches!(bytes, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

// === impl Unpacked ===

impl<'a> Unpacked<'a> {
    pub(super) fn new(packed: &'a [u8]) -> Unpacked<'a> {
        Unpacked { rest: packed, frame: None }
    }

    /// The next frame with content; none at the end.
    fn next_frame(&mut self) -> io::Result<Option<Frame<'a>>> {
        while !self.rest.is_empty() {
            match StreamingDecoder::new_with_max_window_size(self.rest, MAX_WINDOW) {
                Ok(frame) => return Ok(Some(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    // Behind its magic number and its length, of four bytes each.
                    let behind = self.rest.get(8..).and_then(|rest| rest.get(length as usize..));
                    self.rest = behind.ok_or(io::ErrorKind::UnexpectedEof)?;
                }
                Err(error) => return Err(io::Error::other(format!("Zstandard: {error}"))),
            }
        }
        Ok(None)
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.next_frame()? {
                    Some(frame) => frame,
                    None => return Ok(0),
                },
            };
            let read = frame.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                self.frame = Some(frame);
                return Ok(read);
            }
            self.rest = frame.into_inner();
        }
    }
}
