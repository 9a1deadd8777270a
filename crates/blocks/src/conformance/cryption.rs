//! What every provider of encryption promises, as cases against [`Cryption`].

use super::{Case, CaseResult, Report, Runtime, cases, ensure, ensure_eq};
use crate::cryption::{Crypted, Cryption, MAX_TEXT};
use crate::error::BlockError;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Two keys that the backend has. The first is its usual one.
pub type Keys = [&'static str; 2];

/// What a case works with.
#[derive(Clone)]
struct Context {
    provider: Arc<dyn Cryption>,
    keys: Keys,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "what is encrypted is decrypted" => decrypted,
    "texts of all sizes pass" => sizes,
    "the usual key is used where none is named" => usual,
    "a text is never encrypted twice alike" => different,
    "cipher texts do not show the text" => hidden,
    "what was changed is refused" => changed,
    "what is no cipher text is refused" => foreign,
    "an unknown key is refused" => unknown,
    "many at once do not mix" => parallel,
    "no text shows in debug output" => debug,
};

/// Runs every case, each on a provider of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, keys: Keys, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Cryption>>,
{
    let open = |_| {
        let opening = open();
        async move { Context { provider: opening.await, keys, runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.provider.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn decrypted(context: Context) -> CaseResult {
    for key in context.keys {
        let encrypted = context.provider.encrypt(Bytes::from_static(b"hello"), key).await?;
        ensure_eq!(encrypted.key_id, key, "key of an encryption");
        let decrypted = context.provider.decrypt(encrypted.text).await?;
        ensure!(decrypted.text == "hello", "another text came back with {key:?}");
        ensure_eq!(
            (decrypted.key_id, decrypted.key_version),
            (key.to_owned(), encrypted.key_version),
            "key and version of a decryption"
        );
    }
    Ok(())
}

async fn sizes(context: Context) -> CaseResult {
    for size in [0, 1, 15, 16, 17, 4096, 1 << 20, MAX_TEXT] {
        let text: Bytes = (0..size).map(|index| (index % 251) as u8).collect();
        let encrypted = context.provider.encrypt(text.clone(), context.keys[0]).await?;
        let decrypted = context.provider.decrypt(encrypted.text).await?;
        ensure!(decrypted.text == text, "{size} bytes came back as others");
    }
    Ok(())
}

async fn usual(context: Context) -> CaseResult {
    let encrypted = context.provider.encrypt(Bytes::from_static(b"hello"), "").await?;
    ensure_eq!(encrypted.key_id, context.keys[0], "the usual key");
    ensure!(context.provider.decrypt(encrypted.text).await?.text == "hello", "another text came back");
    Ok(())
}

async fn different(context: Context) -> CaseResult {
    let mut texts = Vec::new();
    for _ in 0..20 {
        texts.push(context.provider.encrypt(Bytes::from_static(b"hello"), context.keys[0]).await?.text);
    }
    texts.sort();
    texts.dedup();
    ensure_eq!(texts.len(), 20, "different cipher texts");
    Ok(())
}

async fn hidden(context: Context) -> CaseResult {
    let text = b"a text that is long enough to be seen";
    let encrypted = context.provider.encrypt(Bytes::from_static(text), context.keys[0]).await?;
    let is_seen = encrypted.text.windows(8).any(|seen| text.windows(8).any(|part| part == seen));
    ensure!(!is_seen, "a part of the text stands in the cipher text");
    Ok(())
}

async fn changed(context: Context) -> CaseResult {
    let encrypted = context.provider.encrypt(Bytes::from_static(b"hello"), context.keys[0]).await?.text;
    for index in 0..encrypted.len() {
        let mut other = encrypted.to_vec();
        other[index] ^= 1;
        let answer = context.provider.decrypt(other.into()).await;
        ensure!(
            matches!(answer, Err(BlockError::Invalid { .. })),
            "with byte {index} changed it was answered {answer:?}"
        );
    }
    for length in 0..encrypted.len() {
        let answer = context.provider.decrypt(encrypted.slice(..length)).await;
        ensure!(answer.is_err(), "{length} bytes of {} were decrypted", encrypted.len());
    }
    let longer = [&encrypted[..], b"x"].concat();
    ensure!(context.provider.decrypt(longer.into()).await.is_err(), "one byte more was decrypted");
    Ok(())
}

async fn foreign(context: Context) -> CaseResult {
    for cipher in [&b""[..], b"\0", b"hello", &[0xff; 1000], &[1; 1000]] {
        let answer = context.provider.decrypt(Bytes::copy_from_slice(cipher)).await;
        let is_refused = matches!(answer, Err(BlockError::Invalid { .. }));
        ensure!(is_refused, "{} bytes of nobody were answered {answer:?}", cipher.len());
    }
    Ok(())
}

async fn unknown(context: Context) -> CaseResult {
    let long = "k".repeat(10_000);
    for key in ["no such key", "../keys", "a\0b", &long] {
        let answer = context.provider.encrypt(Bytes::from_static(b"hello"), key).await;
        ensure!(matches!(answer, Err(BlockError::Invalid { .. })), "key {key:?} was answered {answer:?}");
    }
    Ok(())
}

async fn parallel(context: Context) -> CaseResult {
    let tasks = (0..16_u8).map(|task| {
        let context = context.clone();
        Box::pin(async move {
            let (text, key) = (Bytes::from(vec![task; 10_000]), context.keys[usize::from(task % 2)]);
            let encrypted = context.provider.encrypt(text.clone(), key).await?;
            Ok((context.provider.decrypt(encrypted.text).await?, text, key))
        }) as BoxFuture<'static, Result<(Crypted, Bytes, &str), BlockError>>
    });
    for answer in context.runtime.parallel(tasks.collect()).await? {
        let (decrypted, text, key) = answer?;
        ensure!(decrypted.text == text && decrypted.key_id == key, "the text of another task came back");
    }
    Ok(())
}

async fn debug(context: Context) -> CaseResult {
    let encrypted = context.provider.encrypt(Bytes::from_static(b"hunter2"), context.keys[0]).await?;
    let decrypted = context.provider.decrypt(encrypted.text).await?;
    ensure!(!format!("{decrypted:?}").contains("hunter2"), "the text shows: {decrypted:?}");
    Ok(())
}
