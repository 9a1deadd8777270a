//! aiosmtpd, a mail server that keeps what it gets: each message is a file in `new` of the folder `mail` in the server's
//! own (a Maildir).

use crate::{Process, StartError};

/// Starts a mail server without TLS and logins.
pub fn smtp() -> Result<Process, StartError> {
    let mut server = Process::prepare("aiosmtpd", &["aiosmtpd"], "python3-aiosmtpd")?;
    let (address, mail) = (server.address(), server.folder().join("mail").display().to_string());
    server.args(["-n", "-l", &address, "-c", "aiosmtpd.handlers.Mailbox", &mail]);
    server.start()?;
    Ok(server)
}
