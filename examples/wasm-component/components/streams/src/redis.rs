//! Redis over a socket: requests and answers of its protocol, version 2.
//!
//! Source: Redis documentation, "Redis serialization protocol specification".

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Longest answer that is read, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// Most elements of one array.
const MAX_ELEMENTS: usize = 100_000;

/// Arrays lie in each other no deeper.
const MAX_DEPTH: u32 = 8;

/// One answer, or a part of it.
#[derive(Debug)]
pub enum Reply {
    Nothing,
    Bytes(Vec<u8>),
    Number,
    Many(Vec<Reply>),
}

/// A connection. After an error it is of no use any more, unless Redis itself said no.
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    pub fn connect(address: &str) -> io::Result<Redis> {
        let stream = TcpStream::connect(address)?;
        Ok(Redis { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its answer. An error of the kind `Other` is what Redis said.
    pub fn ask(&mut self, command: &[&[u8]]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)?;
        self.reply(0)
    }

    fn reply(&mut self, depth: u32) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
        Ok(match kind {
            "+" => Reply::Bytes(rest.as_bytes().to_vec()),
            "-" => return Err(io::Error::other(rest.to_owned())),
            ":" => Reply::Number,
            "$" => match length(rest, MAX_BYTES)? {
                None => Reply::Nothing,
                Some(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Bytes(bytes)
                }
            },
            "*" if depth < MAX_DEPTH => match length(rest, MAX_ELEMENTS)? {
                None => Reply::Nothing,
                Some(count) => {
                    Reply::Many((0..count).map(|_| self.reply(depth + 1)).collect::<Result<_, _>>()?)
                }
            },
            _ => return Err(strange()),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.by_ref().take(64 << 10).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Reply {
    pub fn many(self) -> Vec<Reply> {
        if let Reply::Many(parts) = self { parts } else { Vec::new() }
    }

    pub fn bytes(self) -> Vec<u8> {
        if let Reply::Bytes(bytes) = self { bytes } else { Vec::new() }
    }

    pub fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// A length; -1 is nothing.
fn length(text: &str, most: usize) -> io::Result<Option<usize>> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= most => Ok(Some(length)),
            _ => Err(strange()),
        },
        Err(_) => Err(strange()),
    }
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no answer of Redis")
}
