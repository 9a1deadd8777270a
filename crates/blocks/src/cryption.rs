//! The cryption block: encryption with keys that the provider keeps and no app sees.

use crate::error::BlockError;
use async_trait::async_trait;
use bytes::Bytes;

/// Largest text that is encrypted, in bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// The answer to an encryption or a decryption.
#[derive(Clone, PartialEq, Eq)]
pub struct Crypted {
    /// The cipher text; after a decryption the plain one.
    pub text: Bytes,
    /// Which key was used.
    pub key_id: String,
    /// Which version of it; empty where keys have none.
    pub key_version: String,
}

/// A provider of encryption. What it encrypts says by itself which key decrypts it, and is authenticated: changed
/// cipher text is [`BlockError::Invalid`].
#[async_trait]
pub trait Cryption: Send + Sync + 'static {
    /// Encrypts with this key, or with the provider's usual one if the name is empty.
    async fn encrypt(&self, plain: Bytes, key_id: &str) -> Result<Crypted, BlockError>;

    /// Decrypts what the same component encrypted.
    async fn decrypt(&self, cipher: Bytes) -> Result<Crypted, BlockError>;

    /// Lets go of files and connections.
    async fn close(&self) {}
}

impl std::fmt::Debug for Crypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The text may be plain.
        f.debug_struct("Crypted")
            .field("bytes", &self.text.len())
            .field("key_id", &self.key_id)
            .field("key_version", &self.key_version)
            .finish()
    }
}
