//! What every store of files and objects promises, as cases against [`BlobStore`].

mod aside;

use super::{Case, CaseResult, Failure, Report, Runtime, cases, ensure, ensure_eq};
use crate::blob::{BlobError, BlobStore, List, Name, Part, Put, Range};
use crate::error::BlockError;
use crate::invoke::{Body, BodyError};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use std::sync::Arc;

/// More than any store has in hand at once.
const LARGE: usize = 20 << 20;

/// Where stores differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits {
    /// Media type and metadata are kept.
    pub metadata: bool,
    /// The smallest part of an upload but the last, in bytes.
    pub smallest_part: usize,
    /// Objects grow at their end.
    pub append: bool,
    /// Uploads that are not complete are listed.
    pub upload_lists: bool,
    /// Objects have tags.
    pub tags: bool,
    /// Objects have access lists.
    pub access: bool,
}

/// What a case works with.
#[derive(Clone)]
struct Context {
    store: Arc<dyn BlobStore>,
    prefix: String,
    traits: Traits,
}

const CASES: &[Case<Context>] = cases! {
    "what is written is read" => written,
    "writing again replaces" => replaced,
    "a part of an object is read" => ranges,
    "an object that is not there is not found" => missing,
    "deleting twice is no error" => deleted,
    "a list is in order and goes on where it ended" => listed,
    "names with the same beginning count as one" => delimited,
    "objects are copied" => copied,
    "large contents pass, of known length or not" => large,
    "a content that breaks off leaves what was there" => broken,
    "an object comes in parts" => parts,
    "an upload can be given up" => aborted,
    "metadata is kept or refused" => metadata,
    "names cannot lead outside" => outside,
    "objects grow at their end, or that is refused" => aside::grown,
    "uploads under way are listed, or that is refused" => aside::uploads,
    "tags are kept or refused" => aside::tagged,
    "access lists are kept or refused" => aside::access,
};

/// Runs every case, each on a store of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, traits: Traits, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn BlobStore>>,
{
    let open = |prefix| {
        let opening = open();
        async move { Context { store: opening.await, prefix, traits } }
    };
    let close = |context: Context| Box::pin(async move { context.store.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn written(context: Context) -> CaseResult {
    for (key, content) in [
        ("plain.txt", "hello"),
        ("a/b/c", "deep"),
        ("empty", ""),
        ("Grüße & 100%+ (1).txt", "umlauts"),
        ("a b", " "),
    ] {
        let etag = context.put(key, content).await?;
        let found = context.store.get(&context.name(key), Range::default()).await?;
        ensure_eq!(
            (found.info.size, found.length),
            (content.len() as u64, content.len() as u64),
            "size of {key:?}"
        );
        ensure_eq!(found.info.etag, etag, "etag of {key:?}");
        ensure!(found.info.modified.is_some(), "{key:?} was written at no time");
        ensure_eq!(read(found.body).await?, content.as_bytes(), "content of {key:?}");
        let head = context.store.head(&context.name(key)).await?;
        ensure_eq!((head.size, head.etag), (content.len() as u64, etag), "head of {key:?}");
    }
    Ok(())
}

async fn replaced(context: Context) -> CaseResult {
    let first = context.put("a", "first").await?;
    let second = context.put("a", "the second one").await?;
    ensure!(first != second, "the etag of another content is the same");
    ensure_eq!(context.read("a").await?, &b"the second one"[..], "content");
    let only_new = Put { length: Some(5), only_new: true, ..Put::default() };
    let answer = context.store.put(&context.name("a"), "third".into(), only_new.clone()).await;
    // Some servers know no conditions.
    match answer {
        Ok(_) => ensure_eq!(context.read("a").await?, &b"third"[..], "content"),
        Err(BlobError::Exists { .. }) => {
            ensure_eq!(context.read("a").await?, &b"the second one"[..], "content after a refusal");
        }
        Err(error) => return Err(Failure::new(format!("unexpected error: {error}"))),
    }
    context.store.put(&context.name("b"), "third".into(), only_new).await?;
    Ok(())
}

async fn ranges(context: Context) -> CaseResult {
    context.put("digits", "0123456789").await?;
    for (start, end, expected) in [
        (0, None, "0123456789"),
        (3, None, "3456789"),
        (0, Some(0), "0"),
        (2, Some(4), "234"),
        (8, Some(100), "89"),
        (9, Some(9), "9"),
    ] {
        let found = context.store.get(&context.name("digits"), Range { start, end }).await?;
        ensure_eq!((found.length, found.info.size), (expected.len() as u64, 10), "sizes of {start}-{end:?}");
        ensure_eq!(read(found.body).await?, expected.as_bytes(), "bytes {start}-{end:?}");
    }
    let answer = context.store.get(&context.name("digits"), Range { start: 11, end: None }).await;
    ensure!(
        matches!(answer, Err(BlobError::Block(BlockError::Invalid { .. }))),
        "bytes behind the end were answered {answer:?}"
    );
    Ok(())
}

async fn missing(context: Context) -> CaseResult {
    let name = context.name("nope/nothing");
    let answers = [
        ("get", context.store.get(&name, Range::default()).await.map(drop)),
        ("head", context.store.head(&name).await.map(drop)),
        ("copy", context.store.copy(&name, &context.name("there")).await.map(drop)),
    ];
    for (method, answer) in answers {
        ensure!(matches!(answer, Err(BlobError::NotFound { .. })), "{method} answered {answer:?}");
    }
    Ok(())
}

async fn deleted(context: Context) -> CaseResult {
    context.put("a", "1").await?;
    for _ in 0..2 {
        context.store.delete(&context.name("a")).await?;
    }
    let answer = context.store.head(&context.name("a")).await;
    ensure!(matches!(answer, Err(BlobError::NotFound { .. })), "a deleted object was answered {answer:?}");
    Ok(())
}

async fn listed(context: Context) -> CaseResult {
    let keys = ["A", "B", "a.b", "a/1", "a/2", "a0", "b/c/d"];
    for key in keys {
        context.put(key, key).await?;
    }
    for limit in [1, 2, 3, 7, 1000] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let list = List { prefix: context.key(""), after, limit, ..List::default() };
            let page = context.store.list(&list).await?;
            ensure!(page.objects.len() <= limit, "{} objects on a page of {limit}", page.objects.len());
            for object in page.objects {
                let key = object.key[context.key("").len()..].to_owned();
                ensure_eq!(object.size, key.len() as u64, "size of {key:?}");
                found.push(key);
            }
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        ensure_eq!(found, keys, "names on pages of {limit}");
    }
    let list = List { prefix: context.key("a/"), limit: 10, ..List::default() };
    ensure_eq!(context.store.list(&list).await?.objects.len(), 2, "objects below a/");
    Ok(())
}

async fn delimited(context: Context) -> CaseResult {
    for key in ["a/1", "a/2", "b", "c/x/1", "d"] {
        context.put(key, "").await?;
    }
    for limit in [1, 2, 100] {
        let (mut objects, mut prefixes, mut after) = (Vec::new(), Vec::new(), String::new());
        loop {
            let list =
                List { prefix: context.key(""), delimiter: "/".to_owned(), after, limit, ..List::default() };
            let page = context.store.list(&list).await?;
            objects.extend(page.objects.into_iter().map(|object| object.key));
            prefixes.extend(page.prefixes);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        ensure_eq!(objects, [context.key("b"), context.key("d")], "objects on pages of {limit}");
        ensure_eq!(prefixes, [context.key("a/"), context.key("c/")], "beginnings on pages of {limit}");
    }
    Ok(())
}

async fn copied(context: Context) -> CaseResult {
    context.put("from + here", "content").await?;
    context.store.copy(&context.name("from + here"), &context.name("to/there")).await?;
    ensure_eq!(context.read("to/there").await?, &b"content"[..], "content of the copy");
    ensure_eq!(context.read("from + here").await?, &b"content"[..], "content of the original");
    Ok(())
}

async fn large(context: Context) -> CaseResult {
    for length in [Some(LARGE as u64), None] {
        let put = Put { length, ..Put::default() };
        context.store.put(&context.name("large"), pieces(LARGE, false), put).await?;
        let found = context.store.get(&context.name("large"), Range::default()).await?;
        ensure_eq!(found.length, LARGE as u64, "size of what came with length {length:?}");
        let content = read(found.body).await?;
        let is_same = content.iter().enumerate().all(|(index, byte)| *byte == piece_byte(index));
        ensure!(content.len() == LARGE && is_same, "{} bytes came back, or others", content.len());
    }
    Ok(())
}

async fn broken(context: Context) -> CaseResult {
    context.put("a", "before").await?;
    for (length, body) in
        [(Some(2 << 20), pieces(1 << 20, true)), (None, pieces(1 << 20, true)), (Some(10), "short".into())]
    {
        let put = Put { length, ..Put::default() };
        let answer = context.store.put(&context.name("a"), body, put).await;
        ensure!(answer.is_err(), "a content of {length:?} bytes that broke off was taken");
        ensure_eq!(context.read("a").await?, &b"before"[..], "content");
    }
    Ok(())
}

async fn parts(context: Context) -> CaseResult {
    let name = context.name("in parts");
    let upload = context.store.create_upload(&name, Put::default()).await?;
    let size = context.traits.smallest_part.max(10);
    let mut parts = Vec::new();
    // Not in order, and one is written twice.
    for (number, size) in [(2, 5), (1, 7), (1, size)] {
        let body = pieces(size, false);
        let etag = context.store.put_part(&name, &upload, number, Some(size as u64), body).await?;
        parts.retain(|part: &Part| part.number != number);
        parts.push(Part { number, etag, size: size as u64, ..Part::default() });
    }
    parts.sort_by_key(|part| part.number);
    let (found, is_truncated) = context.store.list_parts(&name, &upload, 0, 1000).await?;
    let numbers = |parts: &[Part]| parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>();
    ensure_eq!((numbers(&found), is_truncated), (numbers(&parts), false), "parts");
    for (found, part) in found.iter().zip(&parts) {
        // Some servers tell no etags here.
        ensure!(found.etag.is_empty() || found.etag == part.etag, "part {} has another etag", part.number);
    }
    ensure!(context.store.head(&name).await.is_err(), "an object is there before its upload is complete");
    context.store.complete_upload(&name, &upload, &parts).await?;
    ensure_eq!(context.store.head(&name).await?.size, size as u64 + 5, "size of the object");
    let answer = context.store.list_parts(&name, &upload, 0, 1000).await;
    // Some servers list none, rather than know nothing of it.
    let is_over = answer.as_ref().map_or(true, |(parts, _)| parts.is_empty());
    ensure!(is_over, "a completed upload was answered {answer:?}");
    Ok(())
}

async fn aborted(context: Context) -> CaseResult {
    let name = context.name("given up");
    let upload = context.store.create_upload(&name, Put::default()).await?;
    context.store.put_part(&name, &upload, 1, Some(5), "hello".into()).await?;
    context.store.abort_upload(&name, &upload).await?;
    let answer = context.store.put_part(&name, &upload, 2, Some(5), "hello".into()).await;
    ensure!(answer.is_err(), "a part of an upload that was given up was taken");
    ensure!(context.store.head(&name).await.is_err(), "an upload that was given up left an object");
    Ok(())
}

async fn metadata(context: Context) -> CaseResult {
    let put = Put {
        length: Some(2),
        content_type: Some("application/json".to_owned()),
        metadata: [("team".to_owned(), "blue".to_owned())].into(),
        ..Put::default()
    };
    let answer = context.store.put(&context.name("a"), "{}".into(), put.clone()).await;
    if !context.traits.metadata {
        let is_refused = matches!(answer, Err(BlobError::Block(BlockError::NotSupported { .. })));
        ensure!(is_refused, "metadata that cannot be kept was answered {answer:?}");
        return Ok(());
    }
    answer?;
    let head = context.store.head(&context.name("a")).await?;
    ensure_eq!((head.content_type, head.metadata), ("application/json".to_owned(), put.metadata), "head");
    Ok(())
}

async fn outside(context: Context) -> CaseResult {
    for key in ["..", "../a", "a/../../b", "./a", "a/.", "", "a\0b", &"k".repeat(2000)] {
        let name = Name { key: key.to_owned(), ..Name::default() };
        let answers = [
            ("get", context.store.get(&name, Range::default()).await.map(drop)),
            (
                "put",
                context
                    .store
                    .put(&name, "x".into(), Put { length: Some(1), ..Put::default() })
                    .await
                    .map(drop),
            ),
            ("delete", context.store.delete(&name).await),
            ("upload", context.store.create_upload(&name, Put::default()).await.map(drop)),
        ];
        for (method, answer) in answers {
            ensure!(answer.is_err(), "{method} of {key:?} was answered {answer:?}");
        }
    }
    Ok(())
}

fn piece_byte(index: usize) -> u8 {
    (index % 251) as u8
}

/// So many bytes in pieces, and then perhaps an error.
fn pieces(length: usize, breaks_off: bool) -> Body {
    let bytes: Bytes = (0..length).map(piece_byte).collect::<Vec<u8>>().into();
    let pieces =
        (0..length).step_by(100_000).map(move |start| bytes.slice(start..length.min(start + 100_000)));
    let frames = pieces.map(|piece| Ok(Frame::data(piece)));
    let end = breaks_off.then(|| Err(BodyError::from("the sender gave up")));
    Body::stream(StreamBody::new(futures::stream::iter(frames.chain(end))))
}

async fn read(body: Body) -> Result<Bytes, Failure> {
    body.collect(2 * LARGE).await.map_err(|error| Failure::new(format!("the content broke off: {error}")))
}

// === impl Context ===

impl Context {
    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.prefix)
    }

    fn name(&self, key: &str) -> Name {
        Name { key: self.key(key), ..Name::default() }
    }

    async fn put(&self, key: &str, content: &'static str) -> Result<String, BlobError> {
        let put = Put { length: Some(content.len() as u64), ..Put::default() };
        self.store.put(&self.name(key), content.into(), put).await
    }

    async fn read(&self, key: &str) -> Result<Bytes, Failure> {
        read(self.store.get(&self.name(key), Range::default()).await?.body).await
    }
}
