//! NATS with JetStream, its streams in the server's folder.

use crate::{Certificates, Process, StartError, TlsServer};

/// Starts a NATS server.
pub fn nats() -> Result<Process, StartError> {
    let mut server = Process::prepare("NATS", &["nats-server"], "nats-server")?;
    start(&mut server, &[])?;
    Ok(server)
}

/// Starts a NATS server behind TLS.
pub fn nats_with_tls() -> Result<TlsServer, StartError> {
    let mut process = Process::prepare("NATS", &["nats-server"], "nats-server")?;
    let certificates = Certificates::make(process.folder())?;
    let (own, others) = (["--tlscert", "certificate.pem", "--tlskey", "key.pem"], ["--tlscacert", "ca.pem"]);
    start(&mut process, &[&["--tls", "--tlsverify"][..], &own, &others].concat())?;
    Ok(TlsServer { process, certificates })
}

/// Starts a NATS server whose user `narrow`, password `secret`, may use subjects below `open.` only; so may anybody
/// without a login use all.
pub fn nats_with_narrow_user() -> Result<Process, StartError> {
    let mut server = Process::prepare("NATS", &["nats-server"], "nats-server")?;
    let config = r#"
        authorization {
            users = [
                { user: narrow, password: secret, permissions: { publish: "open.>", subscribe: "open.>" } }
                { user: wide, password: secret }
            ]
        }
        no_auth_user: wide
    "#;
    let path = server.folder().join("nats.conf");
    std::fs::write(&path, config).map_err(|error| crate::process::io_failed("NATS", &error))?;
    start(&mut server, &["--config", &path.to_string_lossy()])?;
    Ok(server)
}

/// Starts a NATS server that takes the user `worker`, password `secret`, whoever has the nkey, and nobody else.
pub fn nats_with_users(nkey: &str) -> Result<Process, StartError> {
    let mut server = Process::prepare("NATS", &["nats-server"], "nats-server")?;
    let config =
        format!("authorization {{ users = [ {{ user: worker, password: secret }}, {{ nkey: {nkey} }} ] }}");
    let path = server.folder().join("nats.conf");
    std::fs::write(&path, config).map_err(|error| crate::process::io_failed("NATS", &error))?;
    start(&mut server, &["--config", &path.to_string_lossy()])?;
    Ok(server)
}

/// Starts a NATS server that takes whoever has the token.
pub fn nats_with_token(token: &str) -> Result<Process, StartError> {
    let mut server = Process::prepare("NATS", &["nats-server"], "nats-server")?;
    start(&mut server, &["--auth", token])?;
    Ok(server)
}

fn start(server: &mut Process, tls: &[&str]) -> Result<(), StartError> {
    let (port, folder) = (server.port().to_string(), server.folder().to_string_lossy().into_owned());
    let plain = ["--addr", "127.0.0.1", "--port", &port, "--jetstream", "--store_dir", &folder];
    let args: Vec<String> = plain.iter().chain(tls).map(|arg| (*arg).to_owned()).collect();
    server.args(args);
    server.start()
}
