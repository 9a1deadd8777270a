//! Why a registry did not give or take something, and what to do about it.

use crate::digest::Digest;
use crate::reference::ReferenceError;
use std::path::PathBuf;

/// Why something could not be had from a registry, or given to it. No secret is ever in it; what a registry says is
/// shortened and made harmless.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// What the user wrote names nothing.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A file that the user named cannot be used.
    #[error("{path} cannot be used: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry could not be reached, or TLS failed.
    #[error("no answer from {url}: {reason}{}", connect_advice(*plain, reason, url))]
    Connect {
        /// What was asked for.
        url: String,
        /// The whole chain of causes.
        reason: String,
        /// Whether plain HTTP was spoken.
        plain: bool,
    },
    /// The registry was silent or too slow.
    #[error("{url}: the registry did not answer within {seconds} s; try again later")]
    Timeout {
        /// What was asked for.
        url: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The registry answered with an error.
    #[error("{url}: the registry answered {status}{}{}", said(message), status_advice(*status))]
    Status {
        /// What was asked for.
        url: String,
        /// Its status.
        status: http::StatusCode,
        /// What it said.
        message: String,
    },
    /// The registry wants to know who asks, or does not want this user.
    #[error("{registry} refuses{}: {}", said(message), if *known { "the credentials for it are wrong, or they do not allow this; `dhow login` replaces them".to_owned() } else { format!("there are no credentials for it; `dhow login {registry}` stores some") })]
    Unauthorized {
        /// The registry.
        registry: String,
        /// Whether there were credentials.
        known: bool,
        /// What it said.
        message: String,
    },
    /// The registry knows who asks, and does not do this.
    #[error("{registry} refuses: {message}")]
    Denied {
        /// The registry.
        registry: String,
        /// What it said.
        message: String,
    },
    /// It is not there.
    #[error(
        "{reference} is not in the registry{}; check its name and tag, and whether you may see it (`dhow login`)",
        said(message)
    )]
    NotFound {
        /// What was asked for.
        reference: String,
        /// What the registry said.
        message: String,
    },
    /// A redirection that is not followed.
    #[error("{url}: the redirection is not followed: {reason}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// Larger or more than is accepted.
    #[error("{what} has more than the {limit} that are accepted; is it the right one?")]
    Limit {
        /// What, with its place.
        what: String,
        /// The limit with its unit.
        limit: String,
    },
    /// What came makes no sense.
    #[error("{what} makes no sense: {reason}")]
    Malformed {
        /// What, with its place.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is not what its digest says.
    #[error(
        "{what} is not what was asked for: its digest is {found}, not {expected}; the registry or something before it changed it"
    )]
    Digest {
        /// What, with its place.
        what: String,
        /// The digest that it should have.
        expected: Digest,
        /// The digest that it has.
        found: String,
    },
    /// The content is shorter or longer than was promised.
    #[error(
        "{what} is not what was asked for: it has {found} bytes, not {expected}; the registry or something before it changed it"
    )]
    Size {
        /// What, with its place.
        what: String,
        /// The size that it should have.
        expected: u64,
        /// The size that it has, as far as it was looked at.
        found: u64,
    },
    /// The connection broke again and again.
    #[error(
        "{what}: the download broke off after {received} of {size} bytes, {attempts} times without getting further: {reason}; try again, it goes on from there"
    )]
    Interrupted {
        /// What, with its place.
        what: String,
        /// Bytes that are there.
        received: u64,
        /// Bytes that it has.
        size: u64,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong last.
        reason: String,
    },
    /// No tag is a version of the range.
    #[error("no tag of {repository} is a version of the range {range}; {}", tags(found))]
    NoVersion {
        /// Registry and repository.
        repository: String,
        /// The range.
        range: String,
        /// Tags that there are.
        found: Vec<String>,
    },
    /// There is something under the name, and no module for this host.
    #[error("{reference}: {reason}")]
    NoModule {
        /// What was asked for.
        reference: String,
        /// What is there instead.
        reason: String,
    },
    /// A layer is damaged, or made to do harm.
    #[error("layer {digest} is refused: {reason}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The signature that the user asks for is not there, or does not hold.
    #[error("{reference} ({digest}) is not trusted: {reason}")]
    Signature {
        /// What was asked for.
        reference: String,
        /// Its digest.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// A program that knows credentials failed.
    #[error("the program {program} for credentials failed: {reason}")]
    Helper {
        /// Its name.
        program: String,
        /// What went wrong.
        reason: String,
    },
    /// The network is not to be used.
    #[error(
        "{what} was not downloaded before, and the network is not to be used (--offline); `dhow pull` it first"
    )]
    Offline {
        /// What is missing.
        what: String,
    },
    /// What was downloaded is damaged, and the network is not to be used.
    #[error(
        "{path}: what was downloaded before is damaged, and the network is not to be used (--offline); run it once \
         without --offline, which downloads it again",
        path = path.display()
    )]
    Damaged {
        /// Its file.
        path: PathBuf,
    },
    /// The folder of downloads cannot be used.
    #[error("{path}: what is downloaded cannot be kept: {reason}; set DHOW_ARTIFACTS_DIR to a folder of your own", path = path.display())]
    Store {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a registry said, shortened and without anything that a terminal would obey.
pub(crate) fn harmless(text: &str) -> String {
    const LONGEST: usize = 300;
    let shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown.trim().to_owned()
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn tags(found: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = found.iter().rev().take(SHOWN).rev().cloned().collect::<Vec<_>>().join(", ");
    match found.len() {
        0 => "it has no tags".to_owned(),
        count if count <= SHOWN => format!("it has {shown}"),
        count => format!("it has {count} tags, the last are {shown}"),
    }
}

fn connect_advice(plain: bool, reason: &str, url: &str) -> String {
    let reason = reason.to_lowercase();
    if !plain && (reason.contains("corrupt message") || reason.contains("invalidcontenttype")) {
        let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        format!("; it seems to speak plain HTTP, which has to be allowed: --insecure {authority}")
    } else if reason.contains("certificate") {
        "; if it has a certificate of your own authority, name that with --ca FILE".to_owned()
    } else {
        "; check the name and the network".to_owned()
    }
}

fn status_advice(status: http::StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "; it limits how often it is asked: try again later, or `dhow login`",
        500..=599 => "; the trouble is on its side: try again later",
        _ => "",
    }
}
