//! A server that is away for a while without losing what it keeps: a relay before it, which cuts what passes.

use crate::workers::wait_for;
use dhow_servers::Process;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A relay; it ends with the test's process.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    /// Connections that were turned away.
    refused: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

// === impl Relay ===

impl Relay {
    pub(crate) fn before(server: &Process) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, upstream) = (listener.local_addr().unwrap(), server.address());
        let shared = Arc::<Shared>::default();
        let relay = Relay { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                shared.relay(client, &upstream);
            }
        });
        relay
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Cuts all connections in the middle, and turns away whoever comes. It is enough when so many came in vain.
    pub(crate) fn cut(&self, is_enough: impl Fn(usize) -> bool) {
        let refused = || self.shared.refused.load(Ordering::SeqCst);
        let before = refused();
        self.shared.is_cut.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        wait_for(|| is_enough(refused() - before));
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }
}

// === impl Shared ===

impl Shared {
    fn relay(&self, client: TcpStream, upstream: &str) {
        let mut open = self.open.lock().unwrap();
        if self.is_cut.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let Ok(server) = TcpStream::connect(upstream) else { return };
        open.retain(|stream| stream.peer_addr().is_ok());
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || copy(from, to));
        }
        open.extend([client, server]);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    // Both ends hear of it: a half that stays open would be waited for.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
