//! What a store may have beside contents: tags, access lists, versions, lists of uploads, objects that grow. Each is kept,
//! or refused by name.

use super::Context;
use crate::blob::{BlobError, List, Name, Put};
use crate::conformance::{CaseResult, Failure, ensure, ensure_eq};
use crate::error::BlockError;
use crate::events::Metadata;

/// Whether the answer is one of a store that has this; one that lacks it has to say so.
fn has<T: std::fmt::Debug>(
    what: &str,
    expected: bool,
    answer: Result<T, BlobError>,
) -> Result<Option<T>, Failure> {
    match (answer, expected) {
        (Ok(found), true) => Ok(Some(found)),
        (Err(BlobError::Block(BlockError::NotSupported { .. })), false) => Ok(None),
        (answer, _) => {
            Err(Failure::new(format!("{what}, which it has: {expected}, was answered {answer:?}")))
        }
    }
}

fn tags(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) async fn tagged(context: Context) -> CaseResult {
    let (name, wanted) = (context.name("a"), tags(&[("team", "blue"), ("a b+c", "x=1 @/:"), ("empty", "")]));
    context.put("a", "content").await?;
    if has("tagging", context.traits.tags, context.store.set_tags(&name, &wanted).await)?.is_none() {
        // Tags of a new object are not looked at: servers pass over what they do not know.
        return has("the tags", false, context.store.tags(&name).await).map(drop);
    }
    ensure_eq!(context.store.tags(&name).await?, wanted, "tags");
    let others = tags(&[("team", "red")]);
    context.store.set_tags(&name, &others).await?;
    ensure_eq!(context.store.tags(&name).await?, others, "tags after others took their place");
    context.store.set_tags(&name, &Metadata::new()).await?;
    ensure_eq!(context.store.tags(&name).await?, Metadata::new(), "tags after they were taken away");
    ensure_eq!(context.read("a").await?, &b"content"[..], "content");
    let put = Put { length: Some(1), tags: wanted.clone(), ..Put::default() };
    context.store.put(&context.name("b"), "x".into(), put).await?;
    ensure_eq!(context.store.tags(&context.name("b")).await?, wanted, "tags of a new object");
    let answer = context.store.tags(&context.name("nope")).await;
    ensure!(matches!(answer, Err(BlobError::NotFound { .. })), "tags of nothing were answered {answer:?}");
    Ok(())
}

pub(super) async fn grown(context: Context) -> CaseResult {
    let name = context.name("dir/log");
    let append = async |position, content: &'static str, length| {
        let put = Put { length, ..Put::default() };
        context.store.append(&name, position, content.into(), put).await
    };
    let Some(end) = has("appending", context.traits.append, append(Some(0), "hello", None).await)? else {
        return Ok(());
    };
    ensure_eq!(end, 5, "end of what was begun");
    ensure_eq!(append(Some(5), " world", Some(6)).await?, 11, "end");
    ensure_eq!(append(None, "!", None).await?, 12, "end of what was appended wherever it was");
    for position in [0, 5, 13] {
        let answer = append(Some(position), "x", None).await;
        let is_refused = matches!(answer, Err(BlobError::Block(BlockError::Invalid { .. })));
        ensure!(is_refused, "position {position} was answered {answer:?}");
    }
    let answer = append(Some(12), "short", Some(10)).await;
    ensure!(answer.is_err(), "a content that broke off was taken");
    ensure_eq!(context.read("dir/log").await?, &b"hello world!"[..], "content");
    ensure_eq!(append(Some(12), "", None).await?, 12, "end after nothing was appended");
    Ok(())
}

pub(super) async fn uploads(context: Context) -> CaseResult {
    let list = |limit, (after, after_id): (String, String)| List {
        prefix: context.key(""),
        after,
        after_id,
        limit,
        ..List::default()
    };
    let mut begun = Vec::new();
    for key in ["a", "b", "b", "c"] {
        begun
            .push((context.key(key), context.store.create_upload(&context.name(key), Put::default()).await?));
    }
    let page = context.store.list_uploads(&list(3, Default::default())).await;
    let Some(page) = has("listing uploads", context.traits.upload_lists, page)? else { return Ok(()) };
    let next = page.next.ok_or_else(|| Failure::new("three of four uploads were said to be all"))?;
    let rest = context.store.list_uploads(&list(3, next)).await?;
    ensure_eq!(rest.next, None, "what is behind the last upload");
    let pages = page.entries.into_iter().chain(rest.entries);
    let mut found: Vec<_> = pages.map(|upload| (upload.key, upload.id)).collect();
    ensure!(found.is_sorted_by_key(|(key, _)| key.clone()), "the uploads are not in order: {found:?}");
    found.sort();
    begun.sort();
    ensure_eq!(found, begun, "uploads");
    for (key, id) in begun {
        context.store.abort_upload(&Name { key, ..Name::default() }, &id).await?;
    }
    let left = context.store.list_uploads(&list(10, Default::default())).await?;
    ensure_eq!(left.entries, Vec::new(), "uploads after all were given up");
    Ok(())
}

pub(super) async fn access(context: Context) -> CaseResult {
    context.put("a", "content").await?;
    let name = context.name("a");
    let answer = context.store.set_access(&name, "public-read").await;
    if has("an access list", context.traits.access, answer)?.is_none() {
        return has("reading an access list", false, context.store.access(&name).await).map(drop);
    }
    ensure_eq!(context.store.access(&name).await?.canned, "public-read", "access");
    context.store.set_access(&name, "private").await?;
    ensure_eq!(context.store.access(&name).await?.canned, "private", "access");
    let answer = context.store.set_access(&name, "every body").await;
    ensure!(answer.is_err(), "an access list that is none was taken");
    Ok(())
}
