//! RabbitMQ, a node of its own with a port mapper of its own.

use crate::process::{free_port, io_failed};
use crate::{Certificates, Process, StartError, TlsServer};

/// The server itself: the script on the path insists on the machine's own node and user.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Starts a RabbitMQ broker, which takes some seconds. Its user is `guest`, with the password `guest`.
pub fn rabbitmq() -> Result<Process, StartError> {
    let mut server = Process::prepare("RabbitMQ", &[PROGRAM], "rabbitmq-server")?;
    let port = server.port();
    start(&mut server, &format!("listeners.tcp.1 = 127.0.0.1:{port}\n"))?;
    Ok(server)
}

/// Starts a RabbitMQ broker behind TLS.
pub fn rabbitmq_with_tls() -> Result<TlsServer, StartError> {
    let mut process = Process::prepare("RabbitMQ", &[PROGRAM], "rabbitmq-server")?;
    let certificates = Certificates::make(process.folder())?;
    let (port, folder) = (process.port(), process.folder().display());
    let config = format!(
        "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.cacertfile = {folder}/ca.pem\nssl_options.certfile = {folder}/certificate.pem\n\
         ssl_options.keyfile = {folder}/key.pem\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
    );
    start(&mut process, &config)?;
    Ok(TlsServer { process, certificates })
}

fn start(server: &mut Process, config: &str) -> Result<(), StartError> {
    let mut mapper = Process::prepare("epmd", &["epmd"], "erlang-base")?;
    let mapper_port = mapper.port().to_string();
    // In the foreground; left to itself, the server would start one that outlives it.
    mapper.args(["-port", &mapper_port, "-address", "127.0.0.1"]);
    mapper.start()?;
    let failed = |error| io_failed("RabbitMQ", &error);
    let distribution_port = free_port().map_err(failed)?;
    let folder = server.folder().to_path_buf();
    std::fs::write(folder.join("rabbitmq.conf"), config).map_err(failed)?;
    for (name, value) in [
        ("ERL_EPMD_PORT", mapper_port.as_str()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
        ("RABBITMQ_NODENAME", "dhow@localhost"),
        ("RABBITMQ_DIST_PORT", &distribution_port.to_string()),
        ("RABBITMQ_LOGS", "-"),
        // The script becomes the server instead of its parent, so that a kill reaches it.
        ("RABBITMQ_ALLOW_INPUT", "1"),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-noinput"),
    ] {
        server.env(name, value);
    }
    for (name, file) in [
        ("HOME", "."),
        ("RABBITMQ_MNESIA_BASE", "mnesia"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq"),
        ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
        ("RABBITMQ_PID_FILE", "pid"),
    ] {
        server.env(name, folder.join(file));
    }
    server.helped_by(mapper);
    server.start()
}
