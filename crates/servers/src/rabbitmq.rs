//! RabbitMQ, a node of its own with a port mapper of its own.

use crate::process::{free_port, io_failed};
use crate::{Process, StartError};

/// The server itself: the script on the path insists on the machine's own node and user.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Starts a RabbitMQ broker, which takes some seconds. Its user is `guest`, with the password `guest`.
pub fn rabbitmq() -> Result<Process, StartError> {
    let mut mapper = Process::prepare("epmd", &["epmd"], "erlang-base")?;
    let mapper_port = mapper.port().to_string();
    // In the foreground; left to itself, the server would start one that outlives it.
    mapper.args(["-port", &mapper_port, "-address", "127.0.0.1"]);
    mapper.start()?;
    let mut server = Process::prepare("RabbitMQ", &[PROGRAM], "rabbitmq-server")?;
    let distribution_port = free_port().map_err(|error| io_failed("RabbitMQ", &error))?;
    let folder = server.folder().to_path_buf();
    for (name, value) in [
        ("ERL_EPMD_PORT", mapper_port.as_str()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
        ("RABBITMQ_NODENAME", "dhow@localhost"),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1"),
        ("RABBITMQ_NODE_PORT", &server.port().to_string()),
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
    server.start()?;
    Ok(server)
}
