//! Fetches the files that apps are made of: from a path, a URL or standard input, bounded in size and time,
//! and only what can be WebAssembly.
//!
//! | file | subject |
//! |---|---|
//! | [`sniff`] | what a file is, by its first bytes |
//! | [`error`] | why a module could not be had, and what to do |
//! | [`reference`], [`digest`], [`media_type`] | how things in registries are named |
//! | [`manifest`] | what registries hold |
//! | [`access`], [`credentials`] | how registries are spoken with, and in whose name |
//! | [`client`] | the protocol of registries |
//! | [`pull`], [`push`] | modules from and to registries |
//! | `image`, `cosign` | the module in an image, and who signed it |
//! | [`store`] | what was downloaded |
//! | [`registry`] | a registry of our own: `dhow registry serve` |
//! | `file` | paths and standard input |
//! | `url`, `tls`, `proxy` | HTTP and HTTPS with redirects, through proxies |

pub mod access;
pub mod client;
mod cosign;
pub mod credentials;
pub mod digest;
pub mod error;
mod file;
mod image;
pub mod manifest;
pub mod media_type;
mod place;
mod progress;
mod proxy;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod sniff;
pub mod store;
mod tls;
mod url;

use access::Access;
use bytes::{Bytes, BytesMut};
use error::FetchError;
use sniff::sniff;
use std::fmt;
use std::path::PathBuf;

/// Largest module that is read unless the caller says otherwise: 512 MiB.
pub const DEFAULT_LIMIT: u64 = 512 * 1024 * 1024;

/// Where a module comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// `http://` or `https://`.
    Url(String),
    /// `oci://`: a registry.
    Oci(Box<OciSource>),
    /// Standard input, to its end.
    Stdin,
}

/// A module in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OciSource {
    /// What the user wrote; whether it is a [`reference::Reference`] is found out when it is read.
    pub reference: String,
    /// How the registry is spoken with.
    pub access: Access,
}

/// Reads a module or component of at most `limit` bytes. `progress` is called with the bytes read so far and,
/// when it is known, the size of the whole.
///
/// What comes back begins like WebAssembly, binary or text; whether it is valid the compiler says.
pub async fn read_module(
    source: &Source,
    limit: u64,
    mut progress: impl FnMut(u64, Option<u64>) + Send,
) -> Result<Bytes, FetchError> {
    let bytes = match source {
        Source::Path(path) => file::read(path, limit, &mut progress).await?,
        Source::Url(url) => url::read(url, limit, url::DEADLINE, &mut progress).await?,
        Source::Oci(source) => {
            let reference = source.reference.parse().map_err(client::error::RegistryError::from)?;
            pull::pull(&reference, &source.access, limit, &mut progress).await?.module
        }
        Source::Stdin => file::read_stdin(limit, &mut progress).await?,
    };
    match sniff(&bytes) {
        kind if kind.is_wasm() => Ok(bytes),
        kind => Err(FetchError::NotWasm { name: source.to_string(), kind }),
    }
}

/// Bytes that arrive bit by bit and may not become too many.
struct Received<'a> {
    bytes: BytesMut,
    name: &'a str,
    limit: u64,
    total: Option<u64>,
}

/// The path of a `file://` URL.
fn path_of(url: &str) -> PathBuf {
    let path = url.get("file://".len()..).unwrap_or_default();
    let path = path.strip_prefix("localhost").unwrap_or(path);
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned().into()
}

// === impl Source ===

impl Source {
    /// `-` is standard input, `http://` and `https://` begin a URL, `oci://` a reference to a registry, `file://` the
    /// URL of a path; everything else is a path.
    pub fn parse(text: &str) -> Source {
        let is_url =
            |scheme: &str| text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
        match text {
            "-" => Source::Stdin,
            _ if is_url("http://") || is_url("https://") => Source::Url(text.to_owned()),
            _ if is_url(reference::SCHEME) => Source::oci(text),
            _ if is_url("file://") => Source::Path(path_of(text)),
            _ => Source::Path(text.into()),
        }
    }

    /// A module in a registry, which is spoken with in the usual way.
    pub fn oci(reference: &str) -> Source {
        Source::Oci(Box::new(OciSource { reference: reference.to_owned(), access: Access::default() }))
    }

    /// The same with another way to speak with registries; nothing else has one. A signature that was asked for is
    /// asked for still.
    pub fn with_access(mut self, access: &Access) -> Source {
        if let Source::Oci(source) = &mut self {
            let own = source.access.cosign_key.take();
            source.access = access.clone();
            source.access.cosign_key = own.or_else(|| access.cosign_key.clone());
        }
        self
    }
}

/// For messages: URLs without user name, password and query, which may be secrets.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Path(path) => write!(f, "{}", path.display()),
            Source::Url(url) => f.write_str(&url::without_secrets(url)),
            Source::Oci(source) => f.write_str(&source.reference),
            Source::Stdin => f.write_str("standard input"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self {
            Source::Path(_) => "Path",
            Source::Url(_) => "Url",
            Source::Oci(_) => "Oci",
            Source::Stdin => "Stdin",
        };
        f.debug_tuple(variant).field(&self.to_string()).finish()
    }
}

// === impl Received ===

impl<'a> Received<'a> {
    /// Refuses at once what announces itself as too large.
    fn new(name: &'a str, limit: u64, total: Option<u64>) -> Result<Received<'a>, FetchError> {
        if total.is_some_and(|total| total > limit) {
            return Err(FetchError::TooLarge { name: name.to_owned(), limit });
        }
        // An announced size is believed only so far; the rest grows as it arrives.
        let capacity = total.unwrap_or(0).min(64 << 20);
        Ok(Received {
            bytes: BytesMut::with_capacity(usize::try_from(capacity).unwrap_or(0)),
            name,
            limit,
            total,
        })
    }

    /// Checks the size after something was appended, and tells the progress.
    fn arrived(&mut self, progress: &mut impl FnMut(u64, Option<u64>)) -> Result<(), FetchError> {
        let length = self.bytes.len() as u64;
        if length > self.limit {
            return Err(FetchError::TooLarge { name: self.name.to_owned(), limit: self.limit });
        }
        progress(length, self.total);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn sources_are_told_apart_by_their_begin() {
        let cases = [
            ("-", Source::Stdin),
            ("http://x/y.wasm", Source::Url("http://x/y.wasm".into())),
            ("HTTPS://x/y.wasm", Source::Url("HTTPS://x/y.wasm".into())),
            ("oci://r.io/a:1", Source::oci("oci://r.io/a:1")),
            ("https:/x", Source::Path("https:/x".into())),
            ("-.wasm", Source::Path("-.wasm".into())),
            ("é", Source::Path("é".into())),
            ("", Source::Path("".into())),
        ];
        for (text, source) in cases {
            assert_eq!(Source::parse(text), source, "{text:?}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        let source = Source::parse("https://me:hunter2@example.com/a.wasm?token=hunter2#x");
        assert_eq!(source.to_string(), "https://example.com/a.wasm");
        assert_eq!(format!("{source:?}"), "Url(\"https://example.com/a.wasm\")");
        assert_eq!(Source::parse("http://a/b@c?d").to_string(), "http://a/b@c");
    }
}
