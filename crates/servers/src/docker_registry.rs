//! Docker's registry (distribution), its content in the server's folder.

use crate::process::io_failed;
use crate::{Certificates, Process, StartError};

/// The user that a registry with users knows, and the password.
pub const REGISTRY_USER: (&str, &str) = ("shop", "correct horse");

/// The line of `htpasswd -B` for that user.
const HTPASSWD: &str = "shop:$2y$05$xRnR9JICvSpauP10PTNHzujv4xxb6akPMoYgcS6wVeVihOsUFq4k.\n";

/// Starts a registry over plain HTTP that lets everybody in.
pub fn docker_registry() -> Result<Process, StartError> {
    let server = prepare()?;
    start(server, "", "")
}

/// Starts a registry over HTTPS that wants to know who asks, for [`REGISTRY_USER`].
pub fn docker_registry_with_users() -> Result<(Process, Certificates), StartError> {
    let server = prepare()?;
    let certificates = Certificates::make(server.folder())?;
    let folder = server.folder().display().to_string();
    std::fs::write(server.folder().join("htpasswd"), HTPASSWD)
        .map_err(|error| io_failed("registry", &error))?;
    let tls = format!("  tls:\n    certificate: {folder}/certificate.pem\n    key: {folder}/key.pem\n");
    let auth = format!("auth:\n  htpasswd:\n    realm: dhow\n    path: {folder}/htpasswd\n");
    Ok((start(server, &tls, &auth)?, certificates))
}

fn prepare() -> Result<Process, StartError> {
    Process::prepare("docker-registry", &["docker-registry"], "docker-registry")
}

fn start(mut server: Process, tls: &str, auth: &str) -> Result<Process, StartError> {
    let (port, folder) = (server.port(), server.folder().display().to_string());
    let config = format!(
        "version: 0.1\nlog:\n  level: warn\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: \
         {folder}/content\nhttp:\n  addr: 127.0.0.1:{port}\n{tls}{auth}"
    );
    let path = server.folder().join("registry.yml");
    std::fs::write(&path, config).map_err(|error| io_failed("registry", &error))?;
    server.args(["serve".into(), path.into_os_string()]);
    server.start()?;
    Ok(server)
}
