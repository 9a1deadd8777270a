//! Mosquitto, an MQTT broker.

use crate::process::io_failed;
use crate::{Certificates, Process, StartError, TlsServer};

/// Starts a Mosquitto broker.
///
/// It writes sessions and messages to its file when it ends ([`Process::terminate`]) and at no other time that
/// a test could rely on: killed, it has lost them.
pub fn mosquitto() -> Result<Process, StartError> {
    let mut server = Process::prepare("Mosquitto", &["mosquitto"], "mosquitto")?;
    start(&mut server, "")?;
    Ok(server)
}

/// Starts a Mosquitto broker behind TLS.
pub fn mosquitto_with_tls() -> Result<TlsServer, StartError> {
    let mut process = Process::prepare("Mosquitto", &["mosquitto"], "mosquitto")?;
    let certificates = Certificates::make(process.folder())?;
    start(
        &mut process,
        "cafile ca.pem\ncertfile certificate.pem\nkeyfile key.pem\nrequire_certificate true\n",
    )?;
    Ok(TlsServer { process, certificates })
}

fn start(server: &mut Process, tls: &str) -> Result<(), StartError> {
    let file = server.folder().join("mosquitto.conf");
    // As root, the broker would become the user "mosquitto", who may not write to the folder.
    let config = format!(
        "listener {} 127.0.0.1\n{tls}allow_anonymous true\nuser root\n\
         persistence true\npersistence_location {}/\nautosave_interval 1\nautosave_on_changes true\n\
         max_queued_messages 100000\n",
        server.port(),
        server.folder().display(),
    );
    std::fs::write(&file, config).map_err(|error| io_failed("Mosquitto", &error))?;
    server.args(["-c".into(), file.into_os_string()]);
    server.start()
}
