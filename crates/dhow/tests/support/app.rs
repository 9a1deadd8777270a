//! An app outside: an HTTP/1.1 server in the test, called by a sidecar.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// What the sidecar sent.
#[derive(Debug)]
pub(crate) struct Call {
    /// Path and query.
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
}

/// A status, and a body of JSON.
pub(crate) type Reply = (u16, String);

/// Listens on a port of its own until the test's process ends; one thread a connection.
pub(crate) fn start(answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> SocketAddr {
    listen(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
}

/// The same, on this port.
pub(crate) fn listen(
    address: SocketAddr,
    answer: impl Fn(&Call) -> Reply + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a port");
    let addr = listener.local_addr().expect("it is bound");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            // A connection that the other side breaks off is over, and that is all.
            thread::spawn(move || serve(stream, &*answer).ok());
        }
    });
    addr
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Call) -> Reply) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(call) = read(&mut stream)? {
        let (status, body) = answer(&call);
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    }
    Ok(())
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Call>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().map_err(io::Error::other)?, 0);
        stream.read_exact(&mut body)?;
    }
    Ok(Some(Call { target, body }))
}
