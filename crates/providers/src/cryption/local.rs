//! `cryption.local`: AES-256-GCM with the keys of a file, or of a secret that the component refers to.
//!
//! ```json
//! {"orders": "<32 bytes in base64>", "cards": ["<the first key>", "<the one that took its place>"]}
//! ```
//!
//! A key that was replaced stays in its list: its place there is the version that cipher texts name. The file is read
//! again when it has changed, so a key is replaced by adding one.
//!
//! A cipher text is, in this order: the byte 1, the length of the key's name in one byte, the name, the version in
//! four bytes (big-endian), a nonce of 12 random bytes, the encrypted text, a tag of 16 bytes. All before the nonce
//! is authenticated, too. With random nonces a key is good for some 2^32 texts.

use crate::file::{self, Reloaded};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use dhow_blocks::cryption::{Crypted, Cryption};
use dhow_blocks::error::BlockError;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "cryption.local",
    aliases: &[],
    versions: &["v1"],
    fields: &["keyFile", "keys", "defaultKey"],
    open: Open::Cryption(|component, _| Box::pin(open(component))),
};

/// The form of cipher texts.
const FORM: u8 = 1;

const KEY_BYTES: usize = 32;

/// Versions of a key, the first being 1.
type Versions = Vec<LessSafeKey>;

/// Keys by name.
type Keys = BTreeMap<String, Versions>;

/// Where the keys are.
enum Source {
    File(Arc<Reloaded<Keys>>),
    Given(Arc<Keys>),
}

/// Encryption with keys of its own.
struct Local {
    source: Source,
    /// For those who name none.
    default_key: Option<String>,
    random: SystemRandom,
}

async fn open(component: ComponentSpec) -> Result<Arc<dyn Cryption>, OpenError> {
    let source = match (component.field(&["keyFile"]), component.field(&["keys"])) {
        (Some(path), None) => Source::File(Arc::new(Reloaded::new(path.into(), parse))),
        (None, Some(text)) => Source::Given(Arc::new(
            parse(text).map_err(|reason| component.backend(format!("keys: {reason}")))?,
        )),
        _ => return Err(component.invalid(&["keyFile"], "given, or keys, and not both")),
    };
    let default_key = component.field(&["defaultKey"]).map(str::to_owned);
    let local = Local { source, default_key, random: SystemRandom::new() };
    let keys = local.keys().await.map_err(|error| component.backend(error.to_string()))?;
    if local.default_key.as_ref().is_some_and(|name| !keys.contains_key(name)) {
        return Err(component.invalid(&["defaultKey"], "the name of one of the keys"));
    }
    Ok(Arc::new(local))
}

/// Reads keys. The error shows none.
fn parse(text: &str) -> Result<Keys, String> {
    let keys: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| format!("expected one JSON object, see line {}", error.line()))?;
    let keys = keys.into_iter().map(|(name, versions)| {
        let wrong = || format!("key {name:?}: expected 32 bytes in base64, or a list of such");
        if name.is_empty() || name.len() > usize::from(u8::MAX) {
            return Err("the name of a key has 1 to 255 bytes".to_owned());
        }
        let versions = match versions {
            Value::Array(versions) => versions,
            one => vec![one],
        };
        let key = |version: &Value| {
            let bytes = BASE64_STANDARD.decode(version.as_str()?.trim()).ok()?;
            let bytes: [u8; KEY_BYTES] = bytes.try_into().ok()?;
            UnboundKey::new(&AES_256_GCM, &bytes).ok().map(LessSafeKey::new)
        };
        let keys: Option<Versions> = versions.iter().map(key).collect();
        let keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(wrong)?;
        Ok((name, keys))
    });
    keys.collect()
}

// === impl Local ===

impl Local {
    async fn keys(&self) -> Result<Arc<Keys>, BlockError> {
        match &self.source {
            Source::Given(keys) => Ok(Arc::clone(keys)),
            Source::File(file) => file::read(file).await?.ok_or_else(|| {
                BlockError::unavailable(format!("there is no file {}", file.path().display()))
            }),
        }
    }
}

#[async_trait]
impl Cryption for Local {
    async fn encrypt(&self, plain: Bytes, key_id: &str) -> Result<Crypted, BlockError> {
        let keys = self.keys().await?;
        let name = match (key_id, &self.default_key) {
            ("", Some(name)) => name,
            ("", None) => {
                return Err(BlockError::invalid("no key is named, and the component has no defaultKey"));
            }
            (name, _) => name,
        };
        let versions =
            keys.get(name).ok_or_else(|| BlockError::invalid(format!("there is no key {name:?}")))?;
        let (key, version) = (versions.last(), u32::try_from(versions.len()).unwrap_or(u32::MAX));
        let key = key.ok_or_else(|| BlockError::failed(format!("key {name:?} has no version")))?;
        let failed = |_| BlockError::failed("encryption failed");
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(failed)?;
        let head = head(name, version);
        let mut text = plain.to_vec();
        let tag =
            key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&head), &mut text);
        let tag = tag.map_err(failed)?;
        let mut cipher = BytesMut::with_capacity(head.len() + NONCE_LEN + text.len() + tag.as_ref().len());
        for part in [&head, &nonce[..], &text, tag.as_ref()] {
            cipher.put_slice(part);
        }
        Ok(Crypted { text: cipher.freeze(), key_id: name.to_owned(), key_version: version.to_string() })
    }

    async fn decrypt(&self, cipher: Bytes) -> Result<Crypted, BlockError> {
        let wrong = || BlockError::invalid("the cipher text is not one of this component, or was changed");
        let (name, version, rest) = parse_head(&cipher).ok_or_else(wrong)?;
        let keys = self.keys().await?;
        // What is not there cannot be told from what was changed.
        let index =
            usize::try_from(version).ok().and_then(|version| version.checked_sub(1)).ok_or_else(wrong)?;
        let key = keys.get(name).and_then(|versions| versions.get(index)).ok_or_else(wrong)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut text = text.to_vec();
        let plain = key.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(head(name, version)),
            &mut text,
        );
        let length = plain.map_err(|_| wrong())?.len();
        text.truncate(length);
        Ok(Crypted { text: text.into(), key_id: name.to_owned(), key_version: version.to_string() })
    }
}

fn head(name: &str, version: u32) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    [&[FORM, length], name.as_bytes(), &version.to_be_bytes()].concat()
}

/// The name and the version of the key, and what stands behind them.
fn parse_head(cipher: &[u8]) -> Option<(&str, u32, &[u8])> {
    let ([FORM, length], rest) = cipher.split_first_chunk()? else { return None };
    let (name, rest) = rest.split_at_checked((*length).into())?;
    let (version, rest) = rest.split_first_chunk()?;
    Some((std::str::from_utf8(name).ok()?, u32::from_be_bytes(*version), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(metadata: &[(&str, &str)]) -> ComponentSpec {
        let metadata =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ComponentSpec { name: "vault".to_owned(), metadata, ..ComponentSpec::default() }
    }

    fn key(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; KEY_BYTES])
    }

    #[tokio::test]
    async fn texts_survive_and_changes_are_noticed() {
        let keys = format!(r#"{{"orders": "{}", "cards": ["{}", "{}"]}}"#, key(1), key(2), key(3));
        let local = open(spec(&[("keys", &keys), ("defaultKey", "cards")])).await.unwrap();
        for (key_id, used, version) in [("orders", "orders", "1"), ("", "cards", "2")] {
            for plain in [&b""[..], b"hello", &[7; 10_000]] {
                let encrypted = local.encrypt(Bytes::copy_from_slice(plain), key_id).await.unwrap();
                assert_eq!((encrypted.key_id.as_str(), encrypted.key_version.as_str()), (used, version));
                assert!(plain.is_empty() || !encrypted.text.windows(plain.len()).any(|part| part == plain));
                let again = local.encrypt(Bytes::copy_from_slice(plain), key_id).await.unwrap();
                assert_ne!(again.text, encrypted.text, "one text was encrypted twice alike");
                let decrypted = local.decrypt(encrypted.text.clone()).await.unwrap();
                assert_eq!((&decrypted.text[..], decrypted.key_id.as_str()), (plain, used));
                for index in 0..encrypted.text.len().min(60) {
                    let mut changed = encrypted.text.to_vec();
                    changed[index] ^= 1;
                    let answer = local.decrypt(changed.into()).await;
                    assert!(matches!(answer, Err(BlockError::Invalid { .. })), "byte {index}: {answer:?}");
                }
            }
        }
        for cipher in
            [&b""[..], b"\x01", b"\x01\xff", b"\x01\x00\x00\x00\x00\x00", b"\x01\x06orders\0\0\0\x01"]
        {
            assert!(local.decrypt(Bytes::copy_from_slice(cipher)).await.is_err(), "{cipher:?}");
        }
        assert!(local.encrypt(Bytes::new(), "nope").await.is_err());
    }

    #[tokio::test]
    async fn a_key_is_replaced_while_the_host_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, format!(r#"{{"a": "{}"}}"#, key(1))).unwrap();
        let local = open(spec(&[("keyFile", path.to_str().unwrap())])).await.unwrap();
        let before = local.encrypt("hello".into(), "a").await.unwrap();
        std::fs::write(&path, format!(r#"{{"a": ["{}", "{}"]}}"#, key(1), key(2))).unwrap();
        let after = local.encrypt("hello".into(), "a").await.unwrap();
        assert_eq!((before.key_version.as_str(), after.key_version.as_str()), ("1", "2"));
        for encrypted in [before, after] {
            assert_eq!(&local.decrypt(encrypted.text).await.unwrap().text[..], b"hello");
        }
    }

    #[tokio::test]
    async fn mistakes_are_named_without_the_keys() {
        let good = format!(r#"{{"a": "{}"}}"#, key(1));
        for (metadata, expected) in [
            (vec![], "keyFile"),
            (vec![("keys", good.as_str()), ("keyFile", "x")], "keyFile"),
            (vec![("keys", good.as_str()), ("defaultKey", "b")], "defaultKey"),
            (vec![("keys", r#"{"a": "c2hvcnQgc2VjcmV0"}"#)], "key \"a\""),
            (vec![("keys", r#"{"a": []}"#)], "key \"a\""),
            (vec![("keys", "c2hvcnQgc2VjcmV0")], "JSON"),
            (vec![("keyFile", "/nowhere/keys.json")], "/nowhere/keys.json"),
        ] {
            let error = open(spec(&metadata)).await.err().unwrap().to_string();
            assert!(error.contains(expected) && !error.contains("c2hvcnQgc2VjcmV0"), "{error}");
        }
    }
}
