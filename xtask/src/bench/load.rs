//! The load generator: a closed loop of keep-alive connections on one thread, by epoll.
//!
//! One thread, because it gets one core; it reports its own CPU time, so that a row in which the load and
//! not the server was the limit can be told. Every response is checked: status 200 and the right length.
//! The first one that is not ends the run, because a rate with errors in it says nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::response::Response;

/// How long the load waits for any answer at all before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const READ_SIZE: usize = 64 * 1024;

/// Open connections to one server and the request that each repeats.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    request: Vec<u8>,
    body_length: Option<u64>,
    buffer: Vec<u8>,
}

/// What one run measured.
pub struct Sample {
    /// Requests answered.
    pub requests: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From sending a request to the last byte of its answer.
    pub latency: Histogram,
    /// CPU time of the load's own thread.
    pub load_cpu: Duration,
}

struct Connection {
    stream: TcpStream,
    response: Response,
    sent: Instant,
}

impl Load {
    /// Connects `connections` times. Each run will repeat GET `path` and expect a body of `body_length` bytes
    /// (none: any length).
    pub fn connect(
        addr: SocketAddr,
        connections: usize,
        path: &str,
        body_length: Option<u64>,
    ) -> Result<Self, String> {
        // SAFETY: no pointers; a negative result is checked before the descriptor is owned.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(format!("epoll_create1: {}", std::io::Error::last_os_error()));
        }
        // SAFETY: epoll_create1 just returned this descriptor, and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut load = Self {
            epoll,
            connections: Vec::with_capacity(connections),
            request: format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\n\r\n").into_bytes(),
            body_length,
            buffer: vec![0; READ_SIZE],
        };
        for index in 0..connections {
            load.open(addr, index).map_err(|e| format!("connection {index} to {addr}: {e}"))?;
        }
        Ok(load)
    }

    /// Sends one header more with each request.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.request.truncate(self.request.len() - 2);
        self.request.extend(format!("{name}: {value}\r\n\r\n").into_bytes());
        self
    }

    /// Keeps every connection busy until `time` has passed or `requests` are answered, whichever is first,
    /// and then waits for the answers still due.
    pub fn run(&mut self, time: Duration, requests: u64) -> Result<Sample, String> {
        let cpu_before = thread_cpu();
        let mut latency = Histogram::new();
        let start = Instant::now();
        let (mut answered, mut outstanding) = (0, 0);
        for connection in &mut self.connections {
            if outstanding < requests {
                connection.send(&self.request)?;
                outstanding += 1;
            }
        }
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; self.connections.len()];
        while outstanding > 0 {
            for event in self.wait(&mut events)? {
                let connection = &mut self.connections[event.u64 as usize];
                if !connection.receive(&mut self.buffer, self.body_length)? {
                    continue;
                }
                latency.record(connection.sent.elapsed());
                answered += 1;
                if answered + outstanding <= requests && start.elapsed() < time {
                    connection.send(&self.request)?;
                } else {
                    outstanding -= 1;
                }
            }
        }
        let elapsed = start.elapsed();
        Ok(Sample { requests: answered, elapsed, latency, load_cpu: thread_cpu().saturating_sub(cpu_before) })
    }

    fn open(&mut self, addr: SocketAddr, index: usize) -> std::io::Result<()> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
        // SAFETY: both descriptors are open, and `event` lives until the call returns.
        let result = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &raw mut event)
        };
        if result < 0 {
            return Err(std::io::Error::last_os_error());
        }
        self.connections.push(Connection { stream, response: Response::new(), sent: Instant::now() });
        Ok(())
    }

    fn wait<'a>(&self, events: &'a mut [libc::epoll_event]) -> Result<&'a [libc::epoll_event], String> {
        let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
        let patience = PATIENCE.as_millis() as i32;
        // SAFETY: `events` has room for `room` entries for the length of the call.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), room, patience) };
        match usize::try_from(count) {
            Ok(0) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(count) => Ok(&events[..count]),
            Err(_) => match std::io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => Ok(&[]),
                error => Err(format!("epoll_wait: {error}")),
            },
        }
    }
}

impl Connection {
    fn send(&mut self, request: &[u8]) -> Result<(), String> {
        self.response.reset();
        self.sent = Instant::now();
        // A request is far smaller than an empty socket buffer, and the buffer is empty: the last answer has come.
        match self.stream.write(request) {
            Ok(written) if written == request.len() => Ok(()),
            Ok(written) => Err(format!("only {written} of {} bytes could be sent", request.len())),
            Err(error) => Err(format!("sending: {error}")),
        }
    }

    /// True when an answer is complete and right.
    fn receive(&mut self, buffer: &mut [u8], body_length: Option<u64>) -> Result<bool, String> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err("the server closed a connection".to_owned()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(format!("receiving: {error}")),
        };
        if !self.response.feed(&buffer[..count])? {
            return Ok(false);
        }
        let (status, length) = (self.response.status(), self.response.body_length());
        if status != 200 {
            return Err(format!("answered with status {status}"));
        }
        match body_length {
            Some(expected) if expected != length => {
                Err(format!("a body of {length} bytes instead of {expected}"))
            }
            _ => Ok(true),
        }
    }
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call; this clock exists on every Linux, and on failure it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// A server that answers every request on every connection with the same bytes.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        if line.is_empty() && writer.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        addr
    }

    #[test]
    fn counts_exactly_the_requests_asked_for() {
        let addr = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        for (connections, requests) in [(1, 1), (1, 10), (4, 3), (4, 4), (8, 101)] {
            let mut load = Load::connect(addr, connections, "/", Some(2)).unwrap();
            // Twice: a run leaves the connections ready for the next one.
            for _ in 0..2 {
                let sample = load.run(Duration::from_secs(20), requests).unwrap();
                assert_eq!(sample.requests, requests, "{connections} connections");
                assert!(sample.latency.quantile(0.5) > Duration::ZERO);
                // The slowest answer lies within the run, up to the width of its bucket.
                let slowest = sample.latency.quantile(1.0);
                assert!(
                    slowest <= sample.elapsed + sample.elapsed / 50,
                    "{slowest:?} of {:?}",
                    sample.elapsed
                );
            }
        }
    }

    #[test]
    fn a_wrong_answer_ends_the_run() {
        for (answer, reason) in [
            ("HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno", "status 503"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes", "3 bytes instead of 2"),
            ("nonsense\r\n", "no status line"),
        ] {
            let mut load = Load::connect(server(answer), 2, "/", Some(2)).unwrap();
            let error = load.run(Duration::from_secs(20), 10).err().unwrap();
            assert!(error.contains(reason), "{error}");
        }
    }
}
