//! moto, which speaks as S3 does and keeps objects in memory. It is Python's, and so is boto3, the client beside it.

use crate::process::installed;
use crate::{Process, StartError};
use std::path::PathBuf;

/// The keys that its clients use; it takes any.
pub const MOTO_KEYS: (&str, &str) = ("access-of-tests", "secret-of-tests");

/// Starts a server without buckets.
pub fn moto() -> Result<Process, StartError> {
    let mut server = moto_to_be()?;
    server.start()?;
    Ok(server)
}

/// A server with its port, that is not started yet.
pub fn moto_to_be() -> Result<Process, StartError> {
    let program = python_environment()?.join("moto_server");
    let mut server = Process::prepare("moto", &[&program.to_string_lossy()], "(none, but moto of PyPI)")?;
    let port = server.port().to_string();
    server.args(["-H", "127.0.0.1", "-p", &port]);
    Ok(server)
}

/// The Python that has boto3.
pub fn python_with_boto3() -> Result<PathBuf, StartError> {
    Ok(python_environment()?.join("python"))
}

/// The programs of the environment that `cargo xtask setup` makes.
fn python_environment() -> Result<PathBuf, StartError> {
    installed("moto", "dapr-py/bin")
}
