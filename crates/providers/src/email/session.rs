//! One conversation with a mail server (RFC 5321): greeting, TLS, login, one message, good-bye.
//!
//! By hand, because lettre's own is built with another set of features of rustls than everything else here.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use dhow_blocks::error::BlockError;
use lettre::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// All of a conversation takes place within this time.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server's answer has at most so many bytes.
const MAX_ANSWER: u64 = 16 << 10;

/// The one name that every client has.
const CLIENT: &str = "localhost";

/// A mail server and how it is spoken to.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) login: Option<Login>,
    pub(super) tls: Arc<ClientConfig>,
}

/// Whether others can listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// They can.
    None,
    /// They cannot from the first byte on.
    Tls,
    /// They cannot after the greeting; a server that does not offer it is refused.
    StartTls,
}

/// Who sends.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// Why a message was not taken.
enum Failure {
    Io(io::Error),
    /// The server's answer: code and text.
    Answer(u16, String),
    /// Something else that is wrong with the server.
    Other(&'static str),
}

/// A connection, and what the server says that it can do.
struct Session<S> {
    socket: BufReader<S>,
    offers: Vec<String>,
}

/// Hands one message to the server.
pub(super) async fn deliver(server: &Server, message: &Message) -> Result<(), BlockError> {
    let Server { host, port, .. } = server;
    match tokio::time::timeout(DEADLINE, converse(server, message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(failure.of(host, *port)),
        Err(_) => {
            Err(BlockError::unavailable(format!("mail server {host}:{port}: no answer within {DEADLINE:?}")))
        }
    }
}

async fn converse(server: &Server, message: &Message) -> Result<(), Failure> {
    let mut tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
    match server.security {
        Security::None => {
            let mut session = Session::over(tcp);
            session.expect(220).await?;
            session.hand_over(server, message).await
        }
        Security::Tls => {
            let mut session = Session::over(secure(server, tcp).await?);
            session.expect(220).await?;
            session.hand_over(server, message).await
        }
        Security::StartTls => {
            let mut plain = Session::over(&mut tcp);
            plain.expect(220).await?;
            plain.greet().await?;
            if !plain.offers("STARTTLS") {
                let reason =
                    "it does not offer STARTTLS; set security to tls or, on a network of your own, none";
                return Err(Failure::Other(reason));
            }
            plain.command("STARTTLS", 220).await?;
            // What came before it was secure is nobody's word.
            if !plain.socket.buffer().is_empty() {
                return Err(Failure::Other("it sent something between STARTTLS and TLS"));
            }
            Session::over(secure(server, tcp).await?).hand_over(server, message).await
        }
    }
}

async fn secure(server: &Server, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
    let name = ServerName::try_from(server.host.clone());
    let name = name.map_err(|_| Failure::Other("its host is neither a name nor an address"))?;
    Ok(TlsConnector::from(Arc::clone(&server.tls)).connect(name, tcp).await?)
}

/// A message whose headers have no line of more than 998 bytes, which servers refuse (RFC 5322 section 2.1.1): lists of
/// addresses go on in a new line behind each comma. Readers join them again, also within quotes.
fn folded(message: &[u8]) -> Vec<u8> {
    const USUAL: usize = 78;
    let head = message.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(0);
    let (head, body) = message.split_at(head);
    let mut folded = Vec::with_capacity(message.len() + 16);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let is_long = line.len() > USUAL;
        for (index, byte) in line.iter().enumerate() {
            if is_long && *byte == b' ' && index > 0 && line[index - 1] == b',' {
                folded.extend_from_slice(b"\r\n");
            }
            folded.push(*byte);
        }
    }
    folded.extend_from_slice(body);
    folded
}

/// A message as it goes over the wire: lines end in CR LF, one that begins with a dot gets another one, and a dot alone
/// is the end.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        stuffed.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

// === impl Session ===

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn over(socket: S) -> Session<S> {
        Session { socket: BufReader::new(socket), offers: Vec::new() }
    }

    /// From the second greeting to the good-bye.
    async fn hand_over(&mut self, server: &Server, message: &Message) -> Result<(), Failure> {
        self.greet().await?;
        if let Some(login) = &server.login {
            self.log_in(login).await?;
        }
        let envelope = message.envelope();
        let from = envelope.from().map(ToString::to_string).unwrap_or_default();
        self.command(&format!("MAIL FROM:<{from}>"), 250).await?;
        for to in envelope.to() {
            self.command(&format!("RCPT TO:<{to}>"), 250).await?;
        }
        self.command("DATA", 354).await?;
        self.send(&stuffed(&folded(&message.formatted()))).await?;
        self.expect(250).await?;
        // The message is theirs: what happens now does not matter.
        let _ = self.command("QUIT", 221).await;
        Ok(())
    }

    /// Says who is there, and learns what the server can do.
    async fn greet(&mut self) -> Result<(), Failure> {
        let answer = self.command(&format!("EHLO {CLIENT}"), 250).await?;
        self.offers = answer.lines().skip(1).map(str::to_ascii_uppercase).collect();
        Ok(())
    }

    fn offers(&self, what: &str) -> bool {
        self.offers.iter().any(|offer| offer == what)
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), Failure> {
        let Login { user, password } = login;
        let ways = self.offers.iter().find_map(|offer| offer.strip_prefix("AUTH ")).unwrap_or_default();
        let ways: Vec<&str> = ways.split_ascii_whitespace().collect();
        if ways.contains(&"PLAIN") || !ways.contains(&"LOGIN") {
            let secret = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
            return self.command(&format!("AUTH PLAIN {secret}"), 235).await.map(drop);
        }
        self.command("AUTH LOGIN", 334).await?;
        self.command(&BASE64_STANDARD.encode(user), 334).await?;
        self.command(&BASE64_STANDARD.encode(password), 235).await.map(drop)
    }

    /// Says one line and reads the answer, which has to have this code.
    async fn command(&mut self, line: &str, code: u16) -> Result<String, Failure> {
        if line.contains(['\r', '\n']) {
            return Err(Failure::Other("a line break stands in an address"));
        }
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.expect(code).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.socket.get_mut().write_all(bytes).await?;
        Ok(self.socket.get_mut().flush().await?)
    }

    /// The lines of the next answer, without their codes.
    async fn expect(&mut self, code: u16) -> Result<String, Failure> {
        let (mut text, mut left) = (String::new(), MAX_ANSWER);
        loop {
            let mut line = Vec::new();
            let read = (&mut self.socket).take(left).read_until(b'\n', &mut line).await?;
            left -= read as u64;
            if line.last() != Some(&b'\n') {
                return Err(Failure::Other("it broke off, or its answer is too long"));
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            let found = line.get(..3).and_then(|found| found.parse::<u16>().ok());
            let found = found.ok_or(Failure::Other("its answer is not one of a mail server"))?;
            text.push_str(line.get(4..).unwrap_or_default());
            text.push('\n');
            // `250-` goes on, `250 ` ends.
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            let text = text.trim_end().to_owned();
            return if found == code { Ok(text) } else { Err(Failure::Answer(found, text)) };
        }
    }
}

// === impl Failure ===

impl Failure {
    /// For the app. What a server says of a message or an address is no secret.
    fn of(self, host: &str, port: u16) -> BlockError {
        let server = format!("mail server {host}:{port}");
        match self {
            Failure::Io(error) => BlockError::unavailable(format!("{server}: {error}")),
            Failure::Other(reason) => BlockError::failed(format!("{server}: {reason}")),
            Failure::Answer(code, text) => {
                let text: String = text.chars().take(300).collect();
                let reason = format!("{server} answers {code}: {}", text.replace('\n', " "));
                // 4xx passes, 5xx does not (RFC 5321 section 4.2.1).
                if (400..500).contains(&code) {
                    BlockError::unavailable(reason)
                } else {
                    BlockError::failed(reason)
                }
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_line_ends_are_those_of_the_wire() {
        for (message, expected) in [
            ("", ".\r\n"),
            ("a\r\nb", "a\r\nb\r\n.\r\n"),
            ("a\nb\n", "a\r\nb\r\n.\r\n"),
            (".\r\n..\r\n", "..\r\n...\r\n.\r\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&stuffed(message.as_bytes())), expected, "{message:?}");
        }
    }

    #[test]
    fn long_lists_of_addresses_are_folded() {
        let many = vec!["reader@example.com"; 100].join(", ");
        let message = format!("To: {many}\r\nSubject: a, b\r\n\r\n{many}");
        let text = String::from_utf8(folded(message.as_bytes())).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.lines().all(|line| line.len() <= 78) && body == many, "{text}");
        assert_eq!(text.replace(",\r\n ", ", "), message);
        assert!(head.ends_with("\r\nSubject: a, b"));
        for message in ["", "no head", "a: b\r\n\r\n"] {
            assert_eq!(folded(message.as_bytes()), message.as_bytes());
        }
    }

    /// What a server may say, however odd, is an error and nothing worse.
    #[tokio::test]
    async fn odd_answers_are_errors() {
        for answer in
            ["", "x", "220", "2\u{e9}0 x\r\n", "999999 x\r\n", "abc x\r\n", "\r\n", "220-a\r\n", "554 no\r\n"]
        {
            let (mut server, client) = tokio::io::duplex(1024);
            server.write_all(answer.as_bytes()).await.unwrap();
            drop(server);
            assert!(Session::over(client).expect(220).await.is_err(), "{answer:?}");
        }
        let (mut server, client) = tokio::io::duplex(64 << 10);
        server.write_all(&[b'2'; 32 << 10]).await.unwrap();
        assert!(Session::over(client).expect(220).await.is_err());
    }
}
