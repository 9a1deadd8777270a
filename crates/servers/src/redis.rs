//! Redis, with everything on disk at once.

use crate::{Process, StartError};

/// Starts a Redis server. Writes are flushed before they are answered, so that a kill loses nothing.
pub fn redis() -> Result<Process, StartError> {
    let mut server = Process::prepare("Redis", &["redis-server"], "redis-server")?;
    let port = server.port().to_string();
    let folder = server.folder().to_string_lossy().into_owned();
    server.args([
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--dir",
        &folder,
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]);
    server.start()?;
    Ok(server)
}
