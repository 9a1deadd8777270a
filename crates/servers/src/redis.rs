//! Redis, with everything on disk at once.

use crate::{Process, StartError};
use std::process::Command;

/// A Redis server that speaks TLS only, and takes clients with its own certificate only.
#[derive(Debug)]
pub struct TlsRedis {
    /// The server.
    pub process: Process,
    /// PEM of its certificate, which signs itself.
    pub certificate: String,
    /// PEM of the certificate's private key.
    pub key: String,
}

/// Starts a Redis server. Writes are flushed before they are answered, so that a kill loses nothing.
pub fn redis() -> Result<Process, StartError> {
    let mut server = Process::prepare("Redis", &["redis-server"], "redis-server")?;
    let port = server.port().to_string();
    start(&mut server, &["--port", &port])?;
    Ok(server)
}

/// Starts a Redis server behind TLS, with a certificate for 127.0.0.1 that it was just given.
pub fn redis_with_tls() -> Result<TlsRedis, StartError> {
    let mut process = Process::prepare("Redis", &["redis-server"], "redis-server")?;
    let openssl = Process::prepare("OpenSSL", &["openssl"], "openssl")?;
    let folder = process.folder().to_owned();
    let failed = |what: &dyn std::fmt::Display| StartError::new(format!("OpenSSL: {what}"));
    let made = Command::new(openssl.program())
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=dhow-test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(&folder)
        .output()
        .map_err(|error| failed(&error))?;
    if !made.status.success() {
        return Err(failed(&String::from_utf8_lossy(&made.stderr)));
    }
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).map_err(|error| failed(&error));
    let (certificate, key) = (read("certificate.pem")?, read("key.pem")?);
    let port = process.port().to_string();
    let tls = ["--tls-cert-file", "certificate.pem", "--tls-key-file", "key.pem"];
    let clients = ["--tls-ca-cert-file", "certificate.pem", "--tls-auth-clients", "yes"];
    let ports = ["--port", "0", "--tls-port", port.as_str()];
    start(&mut process, &[&ports[..], &tls, &clients].concat())?;
    Ok(TlsRedis { process, certificate, key })
}

fn start(server: &mut Process, network: &[&str]) -> Result<(), StartError> {
    let folder = server.folder().to_string_lossy().into_owned();
    let disk = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    let args = [&["--bind", "127.0.0.1", "--dir", &folder][..], network, &disk].concat();
    server.args(args.into_iter().map(str::to_owned).collect::<Vec<_>>());
    server.start()
}
