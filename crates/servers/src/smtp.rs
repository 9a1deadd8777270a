//! aiosmtpd, a mail server that keeps what it gets. Python's parser of messages reads each, so a test sees what a reader
//! of mail would; see `smtp.py`.

use crate::process::io_failed;
use crate::{Certificates, Process, StartError};
use std::collections::BTreeMap;

/// The user that a mail server with TLS knows, and the password.
pub const SMTP_LOGIN: (&str, &str) = ("ada", "hunter2");

/// A mail server. It refuses recipients whose name is `refused`, and for now those whose name is `later`.
#[derive(Debug)]
pub struct MailServer {
    /// The server.
    pub process: Process,
    /// Whom to trust, where it speaks TLS.
    pub certificates: Option<Certificates>,
}

/// Starts a mail server; `security` is none, starttls or tls.
pub fn smtp(security: &str) -> Result<MailServer, StartError> {
    // The interpreter that has Debian's package.
    let mut process = Process::prepare("aiosmtpd", &["aiosmtpd"], "python3-aiosmtpd")?;
    let script = process.folder().join("smtp.py");
    std::fs::write(&script, include_str!("smtp.py")).map_err(|error| io_failed("aiosmtpd", &error))?;
    let certificates = match security {
        "none" => None,
        _ => Some(Certificates::make(process.folder())?),
    };
    process.run_with("/usr/bin/python3");
    let (port, folder) = (process.port().to_string(), process.folder().join("mail").display().to_string());
    process.args([script.display().to_string(), port, folder, security.to_owned()]);
    process.start()?;
    Ok(MailServer { process, certificates })
}

// === impl MailServer ===

impl MailServer {
    /// The messages that came, as JSON, by their ids: `sender` and `recipients` of the envelope; `from`, `to`, `cc`,
    /// `subject` and `text` of the message; the names of its `headers`.
    pub fn messages(&self) -> BTreeMap<String, String> {
        let files = std::fs::read_dir(self.process.folder().join("mail")).into_iter().flatten().flatten();
        let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json"));
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        // The id is the first field, and has no quotes in it.
        let with_id = texts.filter_map(|text| Some((text.split('"').nth(3)?.to_owned(), text)));
        with_id.collect()
    }
}
