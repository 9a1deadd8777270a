//! References to what is in a registry: `oci://registry/repository`, and behind it a tag, a digest, or a range of
//! versions.
//!
//! ```text
//! oci://ghcr.io/acme/orders:1.4.2        a tag
//! oci://ghcr.io/acme/orders@sha256:…     exactly this content
//! oci://ghcr.io/acme/orders:1.4@sha256:… the same; the tag is for readers
//! oci://ghcr.io/acme/orders:^1.2         the highest tag that is a version of this range
//! oci://ghcr.io/acme/orders              the tag `latest`
//! ```
//!
//! Names of repositories and tags: <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests>.
//! There is no default registry: a name without one would mean somebody else's program the day it is registered there.

use crate::digest::Digest;
use semver::{Version, VersionReq};
use std::fmt;
use std::str::FromStr;

/// What a source begins with that is in a registry.
pub const SCHEME: &str = "oci://";

/// The longest reference that is looked at, in bytes.
const MAX_LENGTH: usize = 1024;

/// Names something in a registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    selector: Selector,
}

/// Which of the manifests of a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// The one with this tag.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
    /// The one whose tag is the highest version of a range, as the user wrote it.
    Range(String),
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no reference to a registry: {reason}")]
pub struct ReferenceError {
    /// The text.
    pub text: String,
    /// What is wrong, and what is expected.
    pub reason: String,
}

// === impl Reference ===

impl Reference {
    /// Host and perhaps port, as the user wrote it.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's name in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Which manifest.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Another manifest of the same repository.
    pub fn with_selector(&self, selector: Selector) -> Reference {
        Reference { selector, ..self.clone() }
    }

    /// The last word of the repository's name: what people call it.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// With or without `oci://`.
    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let error = |reason: String| ReferenceError { text: without_secrets(text), reason };
        if text.len() > MAX_LENGTH {
            return Err(error(format!("it is longer than {MAX_LENGTH} bytes")));
        }
        let rest = match text.get(..SCHEME.len()) {
            Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => &text[SCHEME.len()..],
            _ => text,
        };
        let (registry, rest) = rest.split_once('/').unwrap_or(("", rest));
        if !is_registry(registry) {
            return Err(error(
                "it names no registry, and there is no default one; expected oci://HOST[:PORT]/REPOSITORY[:TAG]"
                    .to_owned(),
            ));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<Digest>().map_err(|wrong| error(wrong.to_string()))?))
            }
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !repository.split('/').all(is_name) {
            return Err(error(format!(
                "{repository:?} is no name of a repository: words of lower-case letters, digits and . _ - with / \
                 between them"
            )));
        }
        let selector = match (digest, tag) {
            (Some(digest), None) => Selector::Digest(digest),
            (Some(digest), Some(tag)) if is_tag(tag) => Selector::Digest(digest),
            (None, None) => Selector::Tag("latest".to_owned()),
            (None, Some(tag)) if is_tag(tag) => Selector::Tag(tag.to_owned()),
            (None, Some(range)) if VersionReq::parse(range).is_ok() => Selector::Range(range.to_owned()),
            (_, Some(tag)) => {
                return Err(error(format!(
                    "{tag:?} is no tag (at most 128 letters, digits, _ . -) and no range of versions such as ^1.2"
                )));
            }
        };
        Ok(Reference { registry: registry.to_owned(), repository: repository.to_owned(), selector })
    }
}

/// With `oci://`, so that it can be given to any command.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}{}", self.registry, self.repository, self.selector)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Selector ===

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(tag) => write!(f, ":{tag}"),
            Selector::Range(range) => write!(f, ":{range}"),
            Selector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The tag that is the highest version of the range. A `v` before a version does not count, and `_` stands for the `+`
/// that tags may not hold. Versions before a release are taken only where the range names one.
pub fn highest<'a>(range: &str, tags: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let range = VersionReq::parse(range).ok()?;
    let version = |tag: &str| Version::parse(&tag.strip_prefix('v').unwrap_or(tag).replace('_', "+")).ok();
    tags.into_iter()
        .filter_map(|tag| Some((version(tag)?, tag)))
        .filter(|(version, _)| range.matches(version))
        .max()
        .map(|(_, tag)| tag)
}

/// Whether a text can be a tag.
pub fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    let is_first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && bytes.next().is_some_and(is_first)
        && bytes.all(|b| is_first(b) || b == b'.' || b == b'-')
}

/// A host with a dot or a port, `localhost`, or an address: anything else could be the first word of a repository, and
/// belongs to nobody.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_word = |word: &str| {
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            host.split('.').all(is_word)
        }
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    is_host && is_port && (port.is_some() || host.contains(['.', '[']) || host == "localhost")
}

/// The text for messages: what stands before an @ in the place of the registry may be a password.
fn without_secrets(text: &str) -> String {
    let from = text.find("://").map_or(0, |at| at + 3);
    let to = text[from..].find('/').map_or(text.len(), |at| from + at);
    let shown = match text[from..to].rfind('@') {
        Some(at) => format!("{}…{}", &text[..from], &text[from + at..]),
        None => text.to_owned(),
    };
    shown.chars().take(200).collect()
}

/// One word of a repository's name.
fn is_name(word: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_well = |b: Option<u8>| b.is_some_and(is_letter);
    ends_well(word.bytes().next())
        && ends_well(word.bytes().next_back())
        && word.bytes().all(|b| is_letter(b) || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::{Reference, Selector, highest};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_read() {
        let tag = |tag: &str| Selector::Tag(tag.to_owned());
        let pinned = Selector::Digest(DIGEST.parse().unwrap());
        let range = |range: &str| Selector::Range(range.to_owned());
        let cases = [
            ("oci://ghcr.io/acme/orders:1.4.2", "ghcr.io", "acme/orders", tag("1.4.2")),
            ("ghcr.io/orders", "ghcr.io", "orders", tag("latest")),
            ("OCI://localhost/orders", "localhost", "orders", tag("latest")),
            ("oci://127.0.0.1:5000/a/b_c/d--e:x", "127.0.0.1:5000", "a/b_c/d--e", tag("x")),
            ("oci://[::1]:5000/a", "[::1]:5000", "a", tag("latest")),
            ("oci://registry:5000/a", "registry:5000", "a", tag("latest")),
            (&format!("oci://r.io/a@{DIGEST}"), "r.io", "a", pinned.clone()),
            (&format!("oci://r.io/a:1@{DIGEST}"), "r.io", "a", pinned),
            ("oci://r.io/a:^1.2", "r.io", "a", range("^1.2")),
            ("oci://r.io/a:>=1.2, <1.4", "r.io", "a", range(">=1.2, <1.4")),
            ("oci://r.io/a:~1", "r.io", "a", range("~1")),
            ("oci://r.io/a:*", "r.io", "a", range("*")),
        ];
        for (text, registry, repository, selector) in cases {
            let found: Reference = text.parse().unwrap();
            assert_eq!(
                (found.registry(), found.repository(), found.selector()),
                (registry, repository, &selector),
                "{text}"
            );
            assert_eq!(found.to_string().parse(), Ok(found), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        let long = format!("oci://r.io/{}", "a".repeat(2000));
        let cases = [
            ("", "names no registry"),
            ("oci://", "names no registry"),
            ("oci://orders", "names no registry"),
            ("oci://acme/orders:1", "no default one"),
            ("oci:///orders", "names no registry"),
            ("oci://user:secret@r.io/orders", "names no registry"),
            ("oci://r.io:99999/a", "names no registry"),
            ("oci://r.io/", "is no name of a repository"),
            ("oci://r.io/Orders", "is no name of a repository"),
            ("oci://r.io/a/../b", "is no name of a repository"),
            ("oci://r.io/a//b", "is no name of a repository"),
            ("oci://r.io/a?x=y", "is no name of a repository"),
            ("oci://r.io/a:b c", "is no tag"),
            ("oci://r.io/a:", "is no tag"),
            ("oci://r.io/a:^x", "is no tag"),
            ("oci://r.io/a@sha256:12", "is no digest"),
            ("oci://r.io/a@", "is no digest"),
            (&long, "longer than"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_highest_version_of_a_range_is_found() {
        let tags = ["latest", "1.1.0", "v1.2.3", "1.10.0", "1.11.0-rc.1", "2.0.0", "1.9", "1.10.0_build.7"];
        let cases = [
            ("^1.2", Some("1.10.0_build.7")),
            ("~1.2", Some("v1.2.3")),
            ("<1.2", Some("1.1.0")),
            ("*", Some("2.0.0")),
            (">=1.11.0-rc.1, <1.12", Some("1.11.0-rc.1")),
            ("^3", None),
        ];
        for (range, tag) in cases {
            assert_eq!(highest(range, tags), tag, "{range}");
        }
    }
}
