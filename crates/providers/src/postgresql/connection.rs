//! One connection, and when it is over.

use super::connection_string::Settings;
use super::error::explain;
use super::tls::Tls;
use crate::pool::Connect;
use futures::stream::{StreamExt, poll_fn};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Notification};

/// A connection that was not used for this long is asked whether it is still there.
const TRUSTED: Duration = Duration::from_secs(60);

/// A statement that nobody waits for any more is told to end; telling may take this long.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);

/// A server that recovers from a crash listens already, and refuses; it is asked again for this long.
const RECOVERY: Duration = Duration::from_secs(3);

/// Notifications that wait for their reader; more wait in the server.
const NOTIFICATIONS: usize = 1024;

/// Makes connections to one server.
pub(super) struct Connector {
    settings: Settings,
    tls: Tls,
    /// The server, for messages.
    server: String,
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(settings: Settings) -> Result<Connector, String> {
        let tls = Tls::new(&settings.tls)?;
        let config = &settings.config;
        let hosts = config.get_hosts().iter().map(|host| match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let mut hosts: Vec<String> = hosts.collect();
        for (number, host) in hosts.iter_mut().enumerate() {
            let ports = config.get_ports();
            let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
            *host = format!("{host}:{port}");
        }
        Ok(Connector { tls, server: format!("PostgreSQL at {}", hosts.join(", ")), settings })
    }

    /// A connection of its own that hands over what is notified on a channel, until it breaks. It ends when
    /// both are dropped.
    pub(super) async fn listen(&self) -> Result<(Client, mpsc::Receiver<Notification>), String> {
        let begun = Instant::now();
        let opened = loop {
            let opened = self.settings.config.connect(self.tls.clone()).await;
            let is_recovering =
                opened.as_ref().is_err_and(|error| error.code() == Some(&SqlState::CANNOT_CONNECT_NOW));
            if !is_recovering || begun.elapsed() > RECOVERY {
                break opened;
            }
            tokio::time::sleep(RECOVERY / 30).await;
        };
        let (client, mut connection) = opened.map_err(|error| self.refused(&error))?;
        let (sender, receiver) = mpsc::channel(NOTIFICATIONS);
        tokio::spawn(async move {
            let mut messages = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message
                    && sender.send(notification).await.is_err()
                {
                    return;
                }
            }
        });
        Ok((client, receiver))
    }

    fn refused(&self, error: &tokio_postgres::Error) -> String {
        format!("cannot connect to {}: {}", self.server, explain(error))
    }
}

impl Connect for Connector {
    type Connection = Client;

    async fn connect(&self) -> Result<Client, String> {
        let opened = self.settings.config.connect(self.tls.clone()).await;
        let (client, connection) = opened.map_err(|error| self.refused(&error))?;
        // Ends with the client; whoever uses the client hears of errors.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    async fn works(&self, client: &mut Client, idle: Duration) -> bool {
        !client.is_closed() && (idle < TRUSTED || client.check_connection().await.is_ok())
    }

    fn abandon(&self, client: Client) {
        if client.is_closed() {
            return;
        }
        let (token, tls) = (client.cancel_token(), self.tls.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // Otherwise the server would go on, and perhaps hold locks until it is done.
                let _ = timeout(CANCEL_DEADLINE, token.cancel_query(tls)).await;
                drop(client);
            });
        }
    }
}
