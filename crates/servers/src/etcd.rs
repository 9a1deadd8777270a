//! etcd, a cluster of one.

use crate::process::{free_port, io_failed};
use crate::{Process, StartError};

/// Starts an etcd server.
pub fn etcd() -> Result<Process, StartError> {
    let mut server = Process::prepare("etcd", &["etcd"], "etcd-server")?;
    let (clients, folder) =
        (format!("http://127.0.0.1:{}", server.port()), server.folder().display().to_string());
    // It talks to itself there, and to nobody else.
    let peers = format!("http://127.0.0.1:{}", free_port().map_err(|error| io_failed("etcd", &error))?);
    let cluster = format!("default={peers}");
    server.args([
        "--data-dir",
        &folder,
        "--listen-client-urls",
        &clients,
        "--advertise-client-urls",
        &clients,
        "--listen-peer-urls",
        &peers,
        "--initial-advertise-peer-urls",
        &peers,
        "--initial-cluster",
        &cluster,
    ]);
    server.start()?;
    Ok(server)
}
