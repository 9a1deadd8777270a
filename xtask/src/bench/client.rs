//! One request at a time over one connection, with the body kept: for rows that ask a question.
//!
//! `load` is for rates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::response::Response;

const PATIENCE: Duration = Duration::from_secs(120);

/// A connection that is kept alive.
pub struct Client {
    addr: SocketAddr,
    stream: TcpStream,
}

/// An answer.
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// From sending the request to the last byte of the answer.
    pub time: Duration,
}

impl Client {
    /// Connects.
    pub fn connect(addr: SocketAddr) -> Result<Self, String> {
        let open = || {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = open().map_err(|e: std::io::Error| format!("connecting to {addr}: {e}"))?;
        Ok(Self { addr, stream })
    }

    /// GET `path`.
    pub fn get(&mut self, path: &str) -> Result<Reply, String> {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.addr))
    }

    /// POST `body`, which is JSON, to `path`.
    pub fn post_json(&mut self, path: &str, body: &str) -> Result<Reply, String> {
        let (addr, length) = (self.addr, body.len());
        self.exchange(&format!(
            "POST {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    fn exchange(&mut self, request: &str) -> Result<Reply, String> {
        let failed = |e: std::io::Error| format!("asking {}: {e}", self.addr);
        let start = Instant::now();
        self.stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut response = Response::keeping_body();
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = self.stream.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                return Err(format!("{} closed the connection instead of answering", self.addr));
            }
            if response.feed(&buffer[..count])? {
                let time = start.elapsed();
                return Ok(Reply { status: response.status(), body: response.body().to_vec(), time });
            }
        }
    }
}

impl Reply {
    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }
}
