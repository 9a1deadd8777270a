//! Listing keys: literal prefixes, byte order, pages.

use super::{Context, Failure, Outcome, ensure, ensure_eq};
use crate::state::Delete;

pub(super) async fn literal_prefix(context: Context) -> Outcome {
    let names =
        ["%", "%x", "*", "A", "_", "_x", "a", "a%", "a%b", "a*", "a_b", "a[b]", "aXb", "ab", "é", "éa"];
    for name in names {
        context.set(name, "1").await?;
    }
    for prefix in ["", "a", "a%", "a_", "a*", "a[", "%", "_", "*", "é", "zzz", "'", "\u{10ffff}"] {
        let mut expected: Vec<&str> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        expected.sort_unstable();
        ensure_eq!(context.names(prefix).await?, expected, "keys with prefix {prefix:?}");
    }
    Ok(())
}

pub(super) async fn byte_order(context: Context) -> Outcome {
    // Ascending by bytes; by UTF-16 unit, by letter case or by locale some would change places.
    let ascending = [
        "",
        "\0",
        "\u{1}",
        " ",
        "0",
        "10",
        "9",
        "A",
        "Z",
        "a",
        "a\0",
        "aa",
        "z",
        "ß",
        "é",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "🐪",
        "\u{10ffff}",
    ];
    for name in ascending.iter().rev() {
        context.set(name, "1").await?;
    }
    ensure_eq!(context.names("").await?, ascending, "keys in byte order");
    Ok(())
}

pub(super) async fn pages(context: Context) -> Outcome {
    let mut expected: Vec<String> = (0..57).map(|number| format!("k{number}")).collect();
    for name in &expected {
        context.set(name, "1").await?;
    }
    // Neighbours on both sides that no page may show.
    for name in ["j", "l", "K"] {
        context.set(name, "1").await?;
    }
    expected.sort();
    for limit in [1, 7, 19, 56, 57, 58] {
        let mut listed: Vec<String> = Vec::new();
        loop {
            let after = listed.last().cloned();
            let page = context.store.list_keys(&context.key("k"), after.as_deref(), limit).await?;
            ensure!(page.keys.len() <= limit, "a page of {} keys, more than {limit}", page.keys.len());
            listed.extend(page.keys);
            ensure_eq!(
                page.more,
                listed.len() < expected.len(),
                "more after {} keys, limit {limit}",
                listed.len()
            );
            if !page.more {
                break;
            }
            ensure!(listed.len() < expected.len(), "paging by {limit} does not end");
        }
        let names: Vec<&str> = listed.iter().filter_map(|key| key.strip_prefix(&context.prefix)).collect();
        ensure_eq!(names, expected, "all pages of {limit}");
    }
    Ok(())
}

pub(super) async fn limits(context: Context) -> Outcome {
    for name in ["a", "b", "c"] {
        context.set(name, "1").await?;
    }
    for (after, limit, names, more) in [
        (None, usize::MAX, "abc", false),
        (None, 3, "abc", false),
        (None, 2, "ab", true),
        (None, 0, "", true),
        (Some("a"), 10, "bc", false),
        (Some("a"), 1, "b", true),
        (Some("aa"), 10, "bc", false),
        (Some(""), 10, "abc", false),
        (Some("c"), 10, "", false),
        (Some("zzz"), 10, "", false),
        (Some("c"), 0, "", false),
    ] {
        ensure_eq!(
            page(&context, after, limit).await?,
            (names.to_owned(), more),
            "page after {after:?}, limit {limit}"
        );
    }
    // `after` need not be below the prefix, nor exist.
    let below = context.store.list_keys(&context.key("b"), Some("!"), 10).await?;
    ensure_eq!(below.keys, [context.key("b")], "page after a key that sorts before the prefix");
    context.store.delete(Delete { key: context.key("b"), etag: None }).await?;
    ensure_eq!(page(&context, Some("b"), 10).await?, ("c".to_owned(), false), "page after a deleted key");
    Ok(())
}

/// The names on a page, run together, and whether there are more.
async fn page(context: &Context, after: Option<&str>, limit: usize) -> Result<(String, bool), Failure> {
    let after = after.map(|name| context.key(name));
    let page = context.store.list_keys(&context.key(""), after.as_deref(), limit).await?;
    let names = page.keys.iter().filter_map(|key| key.strip_prefix(&context.prefix)).collect();
    Ok((names, page.more))
}
