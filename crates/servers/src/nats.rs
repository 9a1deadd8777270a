//! NATS with JetStream, its streams in the server's folder.

use crate::{Process, StartError};

/// Starts a NATS server.
pub fn nats() -> Result<Process, StartError> {
    let mut server = Process::prepare("NATS", &["nats-server"], "nats-server")?;
    let port = server.port().to_string();
    let folder = server.folder().to_string_lossy().into_owned();
    server.args(["--addr", "127.0.0.1", "--port", &port, "--jetstream", "--store_dir", &folder]);
    server.start()?;
    Ok(server)
}
