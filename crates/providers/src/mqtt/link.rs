//! One connection to a broker: packets in, packets out.

use super::{Server, TIMEOUT};
use bytes::BytesMut;
use dhow_blocks::pubsub::MAX_MESSAGE_BYTES;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Login, Packet};
use rumqttc::mqttbytes::{Error as CodecError, Protocol};
use rustls::pki_types::ServerName;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A packet is at most a message of the largest size, its topic and some bytes.
const MAX_PACKET: usize = MAX_MESSAGE_BYTES + 128 * 1024;

/// The broker takes a client for lost that says nothing for one and a half of this time.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A connection after its handshake.
pub(super) struct Link {
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    input: BytesMut,
    output: BytesMut,
    /// Whether `output`, or what the socket took of it, is still to be sent.
    unsent: bool,
    /// When the broker said something for the last time.
    heard: Instant,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the broker refused the connection: {}", refusal(*.0))]
    Refused(ConnectReturnCode),
    #[error("the broker sent what is not MQTT: {0}")]
    Malformed(#[from] CodecError),
    #[error("the broker did not answer")]
    Late,
    #[error("the broker closed the connection")]
    Closed,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

// === impl Link ===

impl Link {
    /// Connects, and tells whether the broker knew the client's session.
    pub(super) async fn connect(
        server: &Server,
        client: &str,
        clean: bool,
    ) -> Result<(Link, bool), LinkError> {
        match tokio::time::timeout(TIMEOUT, Link::handshake(server, client, clean)).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Late),
        }
    }

    async fn handshake(server: &Server, client: &str, clean: bool) -> Result<(Link, bool), LinkError> {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        stream.set_nodelay(true)?;
        let socket: Box<dyn Socket> = match &server.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
                Box::new(tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await?)
            }
        };
        let (reader, writer) = tokio::io::split(socket);
        let mut link = Link {
            reader,
            writer,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unsent: false,
            heard: Instant::now(),
        };
        let login = server.login.as_ref();
        link.send(&Packet::Connect(Connect {
            protocol: Protocol::V4,
            keep_alive: KEEP_ALIVE.as_secs().try_into().unwrap_or(u16::MAX),
            client_id: client.to_owned(),
            clean_session: clean,
            last_will: None,
            login: login
                .map(|(username, password)| Login { username: username.clone(), password: password.clone() }),
        }))?;
        match link.turn(true).await? {
            Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present }) => {
                Ok((link, session_present))
            }
            Packet::ConnAck(ConnAck { code, .. }) => Err(LinkError::Refused(code)),
            _ => Err(LinkError::Malformed(CodecError::IncorrectPacketFormat)),
        }
    }

    /// Puts a packet into the queue of those that [`Link::turn`] and [`Link::flush`] send.
    pub(super) fn send(&mut self, packet: &Packet) -> Result<(), LinkError> {
        packet.write(&mut self.output, MAX_PACKET)?;
        self.unsent = true;
        Ok(())
    }

    /// Bytes that wait to be sent.
    pub(super) fn backlog(&self) -> usize {
        self.output.len()
    }

    /// For how long the broker has said nothing.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Sends what is queued, and waits for a packet if it is to `read`, else for ever. Cancelling it loses
    /// nothing.
    pub(super) async fn turn(&mut self, read: bool) -> Result<Packet, LinkError> {
        loop {
            if read {
                match Packet::read(&mut self.input, MAX_PACKET) {
                    Ok(packet) => return Ok(packet),
                    Err(CodecError::InsufficientBytes(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            tokio::select! {
                count = self.reader.read_buf(&mut self.input), if read => {
                    if count? == 0 {
                        return Err(LinkError::Closed);
                    }
                    self.heard = Instant::now();
                }
                sent = write(&mut self.writer, &mut self.output), if self.unsent => {
                    sent?;
                    self.unsent = false;
                }
                () = std::future::pending() => {}
            }
        }
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        match tokio::time::timeout(TIMEOUT, write(&mut self.writer, &mut self.output)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(LinkError::Late),
        }
        self.unsent = false;
        Ok(())
    }

    /// Says farewell, after all that is queued, and waits until the broker has read it and closes the
    /// connection: a new one of the same client would make it drop what it has not read.
    pub(super) async fn disconnect(mut self) {
        let closed = async {
            self.send(&Packet::Disconnect)?;
            self.flush().await?;
            while !matches!(self.turn(true).await?, Packet::Disconnect) {}
            Ok::<(), LinkError>(())
        };
        // The end is an error, as it should be.
        let _ = tokio::time::timeout(TIMEOUT, closed).await;
    }
}

/// Cancelling it loses nothing: what was written is no longer in the buffer.
async fn write(writer: &mut WriteHalf<Box<dyn Socket>>, output: &mut BytesMut) -> io::Result<()> {
    while !output.is_empty() {
        writer.write_buf(output).await?;
    }
    writer.flush().await
}

fn refusal(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "for no reason",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => "the client id (consumerID) is not allowed",
        ConnectReturnCode::ServiceUnavailable => "it is not available",
        ConnectReturnCode::BadUserNamePassword => "wrong user name or password in the url",
        ConnectReturnCode::NotAuthorized => "not authorized; the url has to hold user name and password",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What a client says about a broker that answers these bytes.
    async fn answered(bytes: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await.unwrap();
            socket.write_all(bytes).await.unwrap();
        });
        let server = Server { host: "127.0.0.1".to_owned(), port, tls: None, login: None, clean: true };
        match Link::connect(&server, "client", true).await {
            Ok((_, present)) => format!("connected, {present}"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn handshakes() {
        for (bytes, expected) in [
            (&[0x20, 2, 0, 0][..], "connected, false"),
            (&[0x20, 2, 1, 0], "connected, true"),
            (&[0x20, 2, 0, 5], "not authorized"),
            (&[0x20, 2, 0, 77], "not MQTT"),
            (&[0x20, 0], "not MQTT"),
            (&[0xD0, 0], "not MQTT"),
            (&[0x40, 1, 0], "not MQTT"),
            (&[0x90, 2, 0, 1], "not MQTT"),
            (&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "not MQTT"),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], "not MQTT"),
            (&[0x32, 3, 0, 9, 65], "not MQTT"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed"),
            (b"", "closed"),
        ] {
            let said = answered(bytes).await;
            assert!(said.contains(expected), "{bytes:?}: {said}");
        }
    }
}
