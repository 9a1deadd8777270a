//! Digests of content, as registries write them: `sha256:` and 64 hexadecimal digits, or `sha512:` and 128
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests>).

use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::str::FromStr;

/// The digest of some content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// How a digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which everybody writes.
    Sha256,
    /// SHA-512, which may be written as well.
    Sha512,
}

/// Computes a digest of content that arrives bit by bit.
pub struct Hasher(State);

enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no digest: expected sha256: and 64 lower-case hexadecimal digits, or sha512: and 128")]
pub struct DigestError {
    /// The text.
    pub text: String,
}

// === impl Digest ===

impl Digest {
    /// The SHA-256 digest of these bytes.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Algorithm::Sha256.of(bytes)
    }

    /// How it is computed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Whether these bytes have this digest.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        self.algorithm.of(bytes) == *self
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let error = || DigestError { text: text.chars().take(160).collect() };
        let (algorithm, hex) = text.split_once(':').ok_or_else(error)?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(error()),
        };
        let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex.len() != algorithm.digits() || !is_hex {
            return Err(error());
        }
        Ok(Digest { algorithm, hex: hex.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

// === impl Algorithm ===

impl Algorithm {
    /// A computation that has seen nothing yet.
    pub fn hasher(self) -> Hasher {
        Hasher(match self {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    fn of(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Hexadecimal digits of a digest.
    fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        })
    }
}

// === impl Hasher ===

impl Hasher {
    /// What comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all that came.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest { algorithm: Algorithm::Sha256, hex: hex(&state.finalize()) },
            State::Sha512(state) => Digest { algorithm: Algorithm::Sha512, hex: hex(&state.finalize()) },
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Digest};

    /// Of nothing, as everybody knows it.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_written_and_read() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        let digest: Digest = EMPTY.parse().unwrap();
        assert!(digest.is_of(b"") && !digest.is_of(b"x"));
        let mut hasher = Algorithm::Sha512.hasher();
        hasher.update(b"a");
        hasher.update(b"b");
        let digest = hasher.finish();
        assert!(digest.is_of(b"ab"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let upper = EMPTY.replace('e', "E");
        let cases = ["", "sha256", "sha256:", &EMPTY[..70], &upper, "md5:d41d8cd98f00b204e9800998ecf8427e"];
        let longer = format!("{EMPTY}0");
        let path = format!("sha256:{}", "../".repeat(22).get(..64).unwrap_or_default());
        for text in cases.into_iter().chain([longer.as_str(), path.as_str()]) {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
