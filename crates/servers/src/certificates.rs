//! Certificates for servers that speak TLS, and for their clients.

use crate::process::io_failed;
use crate::{Process, StartError};
use std::path::Path;
use std::process::Command;

/// A server that speaks TLS only, and takes clients with a certificate only.
#[derive(Debug)]
pub struct TlsServer {
    /// The server.
    pub process: Process,
    /// Whom to trust, and what a client shows.
    pub certificates: Certificates,
}

/// Certificates and a key as PEM; in a server's folder as `ca.pem`, `certificate.pem` and `key.pem`.
#[derive(Debug)]
pub struct Certificates {
    /// The authority.
    pub ca: String,
    /// Signed by the authority, for 127.0.0.1 and `registry.test`; for the server and for its clients.
    pub certificate: String,
    /// The certificate's private key.
    pub key: String,
}

// === impl Certificates ===

impl Certificates {
    /// Makes new ones in the folder.
    pub fn make(folder: &Path) -> Result<Certificates, StartError> {
        let openssl = Process::prepare("OpenSSL", &["openssl"], "openssl")?;
        let run = |arguments: &str| {
            let output = Command::new(openssl.program())
                .args(arguments.split_whitespace())
                .current_dir(folder)
                .output()
                .map_err(|error| io_failed("OpenSSL", &error))?;
            match output.status.success() {
                true => Ok(()),
                false => {
                    Err(StartError::new(format!("OpenSSL: {}", String::from_utf8_lossy(&output.stderr))))
                }
            }
        };
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test\n";
        std::fs::write(folder.join("names"), names).map_err(|error| io_failed("OpenSSL", &error))?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        run(&format!("req -x509 {key} -days 2 -subj /CN=dhow-authority -keyout ca.key -out ca.pem"))?;
        run(&format!("req {key} -subj /CN=dhow -keyout key.pem -out request.pem"))?;
        run(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -set_serial 1 -days 2 -extfile names -out certificate.pem",
        )?;
        let read = |file: &str| {
            std::fs::read_to_string(folder.join(file)).map_err(|error| io_failed("OpenSSL", &error))
        };
        Ok(Certificates { ca: read("ca.pem")?, certificate: read("certificate.pem")?, key: read("key.pem")? })
    }
}
