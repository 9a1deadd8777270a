//! Names of repositories and tags, as the distribution specification allows them
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests>).
//!
//! Names become parts of paths. No part of a legal name begins with `_`, so what the registry itself keeps beside
//! repositories does (see [`super::layout`]).

use crate::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// Bytes of a repository's name at most; clients cut host and name together at this.
const MAX_REPOSITORY: usize = 255;

/// Bytes of a tag at most.
const MAX_TAG: usize = 128;

/// The name of a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Repository(String);

/// A tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tag(String);

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// The one that the tag names now.
    Tag(Tag),
    /// Exactly this one.
    Digest(Digest),
}

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub(super) struct NameError {
    text: String,
    what: &'static str,
}

// === impl Repository ===

impl Repository {
    /// As written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Repository, NameError> {
        match text.len() <= MAX_REPOSITORY && text.split('/').all(is_component) {
            true => Ok(Repository(text.to_owned())),
            false => Err(NameError {
                text: shown(text),
                what: "name of a repository: up to 255 lower-case letters and digits, in words with single . or _, \
                       or __, or any number of - between them, and with / between components",
            }),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = "";
    let mut begin = 0;
    if !text.bytes().next().is_some_and(is_letter) || !text.bytes().last().is_some_and(is_letter) {
        return false;
    }
    for (index, byte) in text.bytes().enumerate() {
        if is_letter(byte) {
            let legal = matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !legal {
                return false;
            }
            separator = "";
            begin = index + 1;
        } else {
            // A byte of a longer character ends at no boundary, and is no separator either.
            let Some(found) = text.get(begin..=index) else { return false };
            separator = found;
        }
    }
    true
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

// === impl Tag ===

impl Tag {
    /// Lexical order as the specification has it: case-insensitive, alphanumeric
    /// (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-tags>). Tags that differ only in
    /// case have an order as well: a page goes on behind one of them.
    pub(super) fn order(one: &str, other: &str) -> std::cmp::Ordering {
        let lower = |text: &str| text.bytes().map(|byte| byte.to_ascii_lowercase()).collect::<Vec<u8>>();
        lower(one).cmp(&lower(other)).then_with(|| one.cmp(other))
    }

    /// As written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Tag, NameError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let rest = |byte: u8| is_word(byte) || matches!(byte, b'.' | b'-');
        let legal = text.bytes().next().is_some_and(is_word) && text.bytes().all(rest);
        match legal && text.len() <= MAX_TAG {
            true => Ok(Tag(text.to_owned())),
            false => Err(NameError {
                text: shown(text),
                what: "tag: up to 128 letters, digits, _ . and -, not beginning with . or -",
            }),
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

// === impl Selector ===

impl FromStr for Selector {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Selector, NameError> {
        if !text.contains(':') {
            return text.parse().map(Selector::Tag);
        }
        let wrong = |_| NameError { text: shown(text), what: "digest: sha256: or sha512: and the digits" };
        text.parse().map(Selector::Digest).map_err(wrong)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(tag) => fmt::Display::fmt(tag, f),
            Selector::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_REPOSITORY).collect()
}

#[cfg(test)]
mod tests {
    use super::{Repository, Selector, Tag};

    #[test]
    fn tags_are_sorted_as_the_specification_says() {
        let mut tags = ["v2", "V10", "latest", "Beta", "beta", "alpha", "1.0", "_x"];
        tags.sort_by(|one, other| Tag::order(one, other));
        assert_eq!(tags, ["1.0", "_x", "alpha", "Beta", "beta", "latest", "V10", "v2"]);
    }

    #[test]
    fn names_are_as_the_specification_says() {
        let long = "a".repeat(255);
        let longer = "a".repeat(256);
        let cases = [
            ("a", true),
            ("library/hello-world", true),
            ("a.b_c__d---e/f9", true),
            (&long, true),
            (&longer, false),
            ("", false),
            ("A", false),
            ("a//b", false),
            ("/a", false),
            ("a/", false),
            ("a..b", false),
            ("a___b", false),
            ("a._b", false),
            ("_a", false),
            ("a-", false),
            ("../a", false),
            ("a/../b", false),
            ("a/_tags", false),
            ("é", false),
            ("aéb", false),
            ("a b", false),
            ("a\0b", false),
        ];
        for (text, legal) in cases {
            assert_eq!(text.parse::<Repository>().is_ok(), legal, "{text:?}");
        }
    }

    #[test]
    fn a_selector_is_a_tag_or_a_digest() {
        let sha256 = format!("sha256:{}", "0".repeat(64));
        let sha512 = format!("sha512:{}", "f".repeat(128));
        let long = "a".repeat(129);
        let tag = |text: &str| text.parse().map(Selector::Tag).ok();
        assert_eq!("v1.2".parse().ok(), tag("v1.2"));
        assert!(matches!(sha256.parse(), Ok(Selector::Digest(_))));
        assert!(matches!(sha512.parse(), Ok(Selector::Digest(_))));
        for text in ["", ".a", "-a", "a:b", "sha256:", "md5:00", "a/b", "..", "ü", &long, &sha256[..70]] {
            assert!(text.parse::<Selector>().is_err(), "{text:?}");
        }
        assert!("..".parse::<Tag>().is_err());
    }
}
