//! containerd, without what it needs for containers: it fetches, keeps and pushes images. It runs as root only.

use crate::process::io_failed;
use crate::{Process, StartError};

/// Starts containerd; its socket is `containerd.sock` in its folder.
pub fn containerd() -> Result<Process, StartError> {
    let mut server = Process::prepare("containerd", &["containerd"], "containerd")?;
    let folder = server.folder().display().to_string();
    // The port is for knowing when it listens.
    let config = format!(
        "version = 2\nroot = \"{folder}/root\"\nstate = \"{folder}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{folder}/containerd.sock\"\ntcp_address = \"{}\"\n",
        server.address()
    );
    let path = server.folder().join("config.toml");
    std::fs::write(&path, config).map_err(|error| io_failed("containerd", &error))?;
    server.args(["--config".into(), path.into_os_string()]);
    server.start()?;
    Ok(server)
}
