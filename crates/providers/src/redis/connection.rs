//! One connection to a server: TCP, perhaps TLS, and the login.

use super::Options;
use ::redis::aio::{MultiplexedConnection, PubSub};
use ::redis::{AsyncConnectionConfig, RedisError};
use rustls::pki_types::ServerName;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Requests that wait for a connection to take them; more wait in their tasks.
const QUEUE: usize = 1024;

/// Makes connections to one server.
pub(super) struct Connector {
    pub(super) options: Options,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection that carries many requests at once. Dropping it closes it.
pub(super) struct Connection {
    pub(super) requests: MultiplexedConnection,
    /// Ends with the connection.
    pub(super) driver: JoinHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

// === impl Connector ===

impl Connector {
    pub(super) fn new(options: Options) -> Result<Connector, String> {
        let tls = match &options.tls {
            None => None,
            Some(tls) => {
                let name = ServerName::try_from(options.host.clone())
                    .map_err(|_| "redisHost is no name that a certificate can have".to_owned())?;
                Some((TlsConnector::from(Arc::new(tls.client_config()?)), name))
            }
        };
        Ok(Connector { options, tls })
    }

    /// A connection whose server was heard of.
    pub(super) async fn connect(&self, response_timeout: Duration) -> Result<Connection, String> {
        self.in_time(async {
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(Some(response_timeout))
                .set_pipeline_buffer_size(QUEUE);
            let stream = self.stream().await?;
            let opened = MultiplexedConnection::new_with_config(&self.options.login, stream, config).await;
            let (mut requests, driver) = opened.map_err(|error| self.refused(&error))?;
            let connection = Connection { requests: requests.clone(), driver: tokio::spawn(driver) };
            // A server that still loads its data takes connections, and nothing else.
            let pong: Result<(), RedisError> = ::redis::cmd("PING").query_async(&mut requests).await;
            pong.map_err(|error| self.refused(&error))?;
            Ok(connection)
        })
        .await
    }

    /// A connection that receives what is published on channels.
    pub(super) async fn listen(&self) -> Result<PubSub, String> {
        self.in_time(async {
            let stream = self.stream().await?;
            PubSub::new(&self.options.login, stream).await.map_err(|error| self.refused(&error))
        })
        .await
    }

    async fn in_time<T>(&self, connect: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        match timeout(self.options.dial_timeout, connect).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer from Redis at {} within dialTimeout", self.address())),
        }
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, String> {
        let failed = |error| format!("cannot connect to Redis at {}: {error}", self.address());
        let Options { host, port, .. } = &self.options;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => {
                Ok(Box::new(connector.connect(name.clone(), stream).await.map_err(failed)?))
            }
        }
    }

    fn refused(&self, error: &RedisError) -> String {
        format!("Redis at {} refused the connection: {error}", self.address())
    }

    fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.options.port)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
