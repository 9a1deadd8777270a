//! An HTTP/1.1 client as small as a test needs it, and able to send what a proper client would refuse to.
//!
//! A response that ends before its framing says so is an error: a test must tell half an answer from a
//! whole one.

use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Longest wait for bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// Names and values to send.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

/// One connection, kept open between requests.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    addr: SocketAddr,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// In the order of the wire, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// One request on a connection of its own.
pub(crate) fn send(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: Headers<'_>,
    body: &[u8],
) -> Response {
    try_send(addr, method, target, headers, body).unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

/// The same, where no complete answer is one of the outcomes.
pub(crate) fn try_send(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: Headers<'_>,
    body: &[u8],
) -> io::Result<Response> {
    Client::try_connect(addr)?.try_send(method, target, headers, body)
}

/// `GET` on a connection of its own.
pub(crate) fn get(addr: SocketAddr, target: &str) -> Response {
    send(addr, "GET", target, &[], b"")
}

// === impl Client ===

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).unwrap_or_else(|error| panic!("connecting to {addr}: {error}"))
    }

    pub(crate) fn try_connect(addr: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream), addr })
    }

    pub(crate) fn send(&mut self, method: &str, target: &str, headers: Headers<'_>, body: &[u8]) -> Response {
        self.try_send(method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    pub(crate) fn try_send(
        &mut self,
        method: &str,
        target: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("host: {}\r\n", self.addr));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.write(head.as_bytes())?;
        // What the answer needs may be behind what it sends: both go on at once. A server that refuses a body answers
        // before it has read it, and then its answer counts, not our failure.
        let mut stream = self.stream.get_ref().try_clone()?;
        thread::scope(|scope| {
            let writing = (!body.is_empty()).then(|| scope.spawn(move || stream.write_all(body)));
            let answer = self.response(method);
            let written = writing.map_or(Ok(()), |writing| writing.join().expect("writing does not panic"));
            answer.map_err(|error| written.err().unwrap_or(error))
        })
    }

    /// Bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one answer to a request of this method.
    pub(crate) fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.head()?;
        if method == "HEAD" || response.status == 204 || response.status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while let Some(chunk) = self.chunk()? {
                response.body.extend_from_slice(&chunk);
            }
            response.trailers = self.fields()?;
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| malformed(length))?;
            response.body.resize(length, 0);
            self.stream.read_exact(&mut response.body)?;
        } else {
            self.stream.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    /// Status and headers; the body stays unread.
    pub(crate) fn head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| malformed(&line))?;
        Ok(Response { status, headers: self.fields()?, body: Vec::new(), trailers: Vec::new() })
    }

    /// The next chunk of a chunked body; `None` after the last one, before the trailers.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| malformed(&line))?;
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk)?;
        self.line()?;
        Ok(Some(chunk))
    }

    /// The first chunk of an answer whose head has not been read.
    pub(crate) fn chunk_after_head(&mut self) -> Vec<u8> {
        let chunk = self.head().and_then(|_| self.chunk());
        chunk.unwrap_or_else(|error| panic!("no chunk: {error}")).unwrap_or_default()
    }

    /// Whether the server closed the connection, and sent nothing more.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.fill_buf(), Ok([]) | Err(_))
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was broken off"));
        };
        Ok(line.to_owned())
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what:?}"))
}

// === impl Response ===

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
