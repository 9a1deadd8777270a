//! Why a module could not be had, and what to do about it.

use crate::client::error::RegistryError;
use crate::sniff::FileKind;
use std::path::PathBuf;

/// Why a module could not be read. URLs in it carry no user name, password or query.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no file of that name.
    #[error("{path} does not exist{}", nearest.as_ref().map_or("; check the path".to_owned(), |name| format!("; did you mean {name:?}, which is in the same folder?")), path = path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
        /// A file of the same folder with nearly that name.
        nearest: Option<String>,
    },
    /// The path names a folder.
    #[error("{path} is a folder; name the .wasm file inside it", path = path.display())]
    IsDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses the file.
    #[error("{name} cannot be read: {source}")]
    Unreadable {
        /// The path, or "standard input".
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// More bytes than the caller wants.
    #[error("{name} is larger than the limit of {limit} bytes; is it the right file?")]
    TooLarge {
        /// Path, URL or "standard input".
        name: String,
        /// The limit.
        limit: u64,
    },
    /// Not a URL that can be fetched.
    #[error("{url} cannot be fetched: {reason}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server could not be reached, TLS failed, or what it speaks is not HTTP.
    #[error("no answer for {url}: {reason}; check the URL and the network")]
    Connect {
        /// The URL.
        url: String,
        /// The whole chain of causes.
        reason: String,
    },
    /// The server was silent for too long.
    #[error("{url}: the server sent nothing for {seconds} s after {received} bytes; try again later")]
    Timeout {
        /// The URL.
        url: String,
        /// Bytes of the file received before.
        received: u64,
        /// How long the server was waited for.
        seconds: f32,
    },
    /// The server answered, and not with the file.
    #[error("{url}: the server answered {status}{}", status_advice(*status))]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: http::StatusCode,
    },
    /// A redirection that is not followed.
    #[error("{url}: the redirection is not followed: {reason}")]
    Redirect {
        /// The URL that was to be left.
        url: String,
        /// Why.
        reason: String,
    },
    /// The connection broke in the middle.
    #[error("{url}: the download broke off after {received} bytes: {reason}; try again")]
    Interrupted {
        /// The URL.
        url: String,
        /// Bytes of the file received before.
        received: u64,
        /// The whole chain of causes.
        reason: String,
    },
    /// A registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The bytes are there and are not WebAssembly.
    #[error("{name} is not WebAssembly, it looks like {kind}; {}", kind.advice())]
    NotWasm {
        /// Path, URL or "standard input".
        name: String,
        /// What it looks like.
        kind: FileKind,
    },
}

fn status_advice(status: http::StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 | 407 => "; the file is not public: download it and name the path",
        404 | 410 => "; check the URL",
        429 => "; it limits how often it is asked: try again later",
        500..=599 => "; the trouble is on its side: try again later",
        _ => "",
    }
}
