//! Reads HTTP/1.1 responses piece by piece (RFC 9112): status, and the length of the body.
//!
//! Only what a load generator needs: the body's bytes are counted, not kept (unless asked for), and a
//! response that ends by closing the connection is refused, because the bench keeps connections alive.

/// Longest line of a head that is accepted.
const LONGEST_LINE: usize = 64 * 1024;

/// One response, as far as it has arrived.
pub struct Response {
    state: State,
    line: Vec<u8>,
    status: u16,
    length: Option<u64>,
    chunked: bool,
    body_length: u64,
    body: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    StatusLine,
    Header,
    /// Body bytes still to come.
    Sized(u64),
    ChunkSize,
    /// Bytes of this chunk still to come.
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Complete,
}

impl Response {
    /// Nothing has arrived; body bytes will only be counted.
    pub fn new() -> Self {
        Self {
            state: State::StatusLine,
            line: Vec::with_capacity(128),
            status: 0,
            length: None,
            chunked: false,
            body_length: 0,
            body: None,
        }
    }

    /// Nothing has arrived; the body will be kept.
    pub fn keeping_body() -> Self {
        Self { body: Some(Vec::new()), ..Self::new() }
    }

    /// Ready for the next response on the same connection.
    pub fn reset(&mut self) {
        self.state = State::StatusLine;
        self.line.clear();
        (self.status, self.length, self.chunked, self.body_length) = (0, None, false, 0);
        if let Some(body) = &mut self.body {
            body.clear();
        }
    }

    /// Takes the bytes that arrived; true when the response is complete.
    pub fn feed(&mut self, mut input: &[u8]) -> Result<bool, String> {
        while !input.is_empty() {
            match self.state {
                State::Complete => return Err(format!("{} bytes after the end of a response", input.len())),
                State::Sized(left) | State::Chunk(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    if let Some(body) = &mut self.body {
                        body.extend_from_slice(&input[..taken]);
                    }
                    input = &input[taken..];
                    self.body_length += taken as u64;
                    let left = left - taken as u64;
                    self.state = match (self.state, left) {
                        (State::Chunk(_), 0) => State::ChunkEnd,
                        (State::Chunk(_), left) => State::Chunk(left),
                        (_, 0) => State::Complete,
                        (_, left) => State::Sized(left),
                    };
                }
                _ => {
                    let end = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1);
                    self.line.extend_from_slice(&input[..end]);
                    input = &input[end..];
                    if self.line.len() > LONGEST_LINE {
                        return Err(format!("a line of more than {LONGEST_LINE} bytes"));
                    }
                    if self.line.ends_with(b"\n") {
                        let line = std::mem::take(&mut self.line);
                        let text =
                            std::str::from_utf8(&line).map_err(|_| "a head that is not text".to_owned())?;
                        self.state = self.after_line(text.trim_end())?;
                        self.line = line;
                        self.line.clear();
                    }
                }
            }
        }
        Ok(self.state == State::Complete)
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Bytes of the body that arrived, without the framing of chunks.
    pub fn body_length(&self) -> u64 {
        self.body_length
    }

    /// The body, when it was kept.
    pub fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    fn after_line(&mut self, line: &str) -> Result<State, String> {
        match self.state {
            State::StatusLine => {
                let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
                self.status = status.ok_or_else(|| format!("no status line of HTTP/1.1: {line:?}"))?;
                Ok(State::Header)
            }
            State::Header if line.is_empty() => match (self.status, self.chunked, self.length) {
                (204 | 304, _, _) | (_, false, Some(0)) => Ok(State::Complete),
                (_, true, _) => Ok(State::ChunkSize),
                (_, false, Some(length)) => Ok(State::Sized(length)),
                (status, false, None) => {
                    Err(format!("status {status}: a body that ends with the connection"))
                }
            },
            State::Header => {
                let (name, value) = line.split_once(':').ok_or_else(|| format!("no header: {line:?}"))?;
                let value = value.trim();
                if name.eq_ignore_ascii_case("content-length") {
                    let length = value.parse().map_err(|_| format!("no content-length: {value:?}"))?;
                    self.length = Some(length);
                } else if name.eq_ignore_ascii_case("transfer-encoding") {
                    self.chunked = value.eq_ignore_ascii_case("chunked");
                }
                Ok(State::Header)
            }
            State::ChunkSize => {
                let digits = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(digits, 16).map_err(|_| format!("no chunk size: {line:?}"))?;
                Ok(if size == 0 { State::Trailer } else { State::Chunk(size) })
            }
            State::ChunkEnd if line.is_empty() => Ok(State::ChunkSize),
            State::ChunkEnd => Err(format!("bytes after a chunk: {line:?}")),
            State::Trailer if line.is_empty() => Ok(State::Complete),
            state => Ok(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of a response; status, body.
    const RESPONSES: &[(&str, u16, &str)] = &[
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, "hello"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
        ("HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n", 204, ""),
        (
            "HTTP/1.1 503 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            503,
            "abc0123456789",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\ntrailer: 1\r\n\r\n",
            200,
            "\n",
        ),
    ];

    #[test]
    fn responses_arrive_in_any_pieces() {
        for (text, status, body) in RESPONSES {
            for size in 1..=text.len() {
                let mut response = Response::keeping_body();
                let mut complete = Vec::new();
                for piece in text.as_bytes().chunks(size) {
                    complete.push(response.feed(piece).unwrap());
                }
                assert_eq!(
                    complete.iter().position(|done| *done),
                    Some(complete.len() - 1),
                    "{text:?} by {size}"
                );
                assert_eq!(response.status(), *status);
                assert_eq!(response.body(), body.as_bytes());
                assert_eq!(response.body_length(), body.len() as u64);
            }
        }
    }

    #[test]
    fn a_connection_carries_one_response_after_another() {
        let mut response = Response::keeping_body();
        for (text, status, body) in RESPONSES {
            response.reset();
            assert!(response.feed(text.as_bytes()).unwrap());
            assert_eq!((response.status(), response.body()), (*status, body.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for (text, reason) in [
            ("SSH-2.0-x\r\n", "no status line"),
            ("HTTP/1.1 200 OK\r\ncontent-length: many\r\n", "no content-length"),
            ("HTTP/1.1 200 OK\r\n\r\n", "ends with the connection"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "no chunk size"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n", "after a chunk"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", "after the end"),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n", "no header"),
        ] {
            let error = Response::new().feed(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
