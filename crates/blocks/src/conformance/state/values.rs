//! Bytes and keys come back as they went in.

use super::{Context, Outcome, ensure, ensure_eq};
use crate::state::{Delete, Set};
use bytes::Bytes;

pub(super) async fn absent(context: Context) -> Outcome {
    ensure_eq!(context.text("nothing").await?, None, "get of an absent key");
    context.store.delete(Delete { key: context.key("nothing"), etag: None }).await?;
    Ok(())
}

pub(super) async fn unchanged(context: Context) -> Outcome {
    let every_byte: Vec<u8> = (0..=255).collect();
    let megabyte: Vec<u8> =
        (0..1024 * 1024_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let text_megabyte = "zażółć ".repeat(1024 * 1024 / 11);
    let values: &[(&str, &[u8])] = &[
        ("empty", b""),
        ("text", b"hello"),
        ("integer", b"0042"),
        ("real", b"1e5"),
        ("json string", b"\"hello\""),
        ("json object", br#"{"b": 1, "a" :2, "b": 3}"#),
        ("white space", b" \r\n\t "),
        ("zero byte", b"\0"),
        ("zero in text", b"a\0b"),
        ("text with zero at the end", b"a\0"),
        ("base64 look-alike", b"aGVsbG8="),
        ("unicode", "Grüße, 世界 🐪".as_bytes()),
        ("byte order mark", b"\xef\xbb\xbftext"),
        ("not utf-8", b"\xff\xfe\x80"),
        ("cut utf-8", b"caf\xc3"),
        ("every byte", &every_byte),
        ("a megabyte of bytes", &megabyte),
        ("a megabyte of text", text_megabyte.as_bytes()),
    ];
    for &(name, value) in values {
        let set = Set { key: context.key(name), value: Bytes::copy_from_slice(value), ..Set::default() };
        context.store.set(set).await?;
    }
    for &(name, value) in values {
        let item = context.store.get(&context.key(name)).await?;
        ensure_eq!(item.as_ref().map(|item| &item.value[..]), Some(value), "value {name:?}");
        ensure_eq!(item.and_then(|item| item.expires_at), None, "expiry of {name:?}");
    }
    Ok(())
}

pub(super) async fn keys_are_opaque(context: Context) -> Outcome {
    let longest = "k".repeat(context.store.max_key_bytes() - context.prefix.len());
    let names = [
        "plain",
        "PLAIN",
        "app||key",
        "||",
        "100%",
        "a_b",
        "a-b",
        "it's",
        "\"quoted\"",
        "back\\slash",
        "`tick`",
        "semi;colon -- comment",
        "?1",
        "$name",
        ":name",
        "@name",
        " leading and trailing ",
        "line\nbreak",
        "tab\t",
        "nul\0inside",
        "nul\0other",
        "../../etc/passwd",
        "*",
        "[a-z]",
        "42",
        "042",
        "é",
        "e\u{301}",
        "世界",
        "🐪",
        "\u{10ffff}",
        longest.as_str(),
    ];
    for name in names {
        context.set(name, &format!("value of {name}")).await?;
    }
    for name in names {
        ensure_eq!(context.text(name).await?, Some(format!("value of {name}")), "key {name:?}");
    }
    let mut listed = context.names("").await?;
    listed.sort();
    let mut expected: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    ensure_eq!(listed, expected, "all keys");
    for name in names {
        context.store.delete(Delete { key: context.key(name), etag: None }).await?;
        ensure_eq!(context.text(name).await?, None, "deleted key {name:?}");
    }
    Ok(())
}

pub(super) async fn replace_and_delete(context: Context) -> Outcome {
    for value in ["first", "second", "", "third"] {
        context.set("a", value).await?;
        ensure_eq!(context.text("a").await?, Some(value.to_owned()), "value after a write");
    }
    context.set("b", "beside").await?;
    for _ in 0..2 {
        context.store.delete(Delete { key: context.key("a"), etag: None }).await?;
        ensure_eq!(context.text("a").await?, None, "value after a deletion");
    }
    ensure_eq!(context.text("b").await?, Some("beside".to_owned()), "value of another key");
    Ok(())
}

pub(super) async fn get_many_order(context: Context) -> Outcome {
    for name in ["a", "b", "c"] {
        context.set(name, name).await?;
    }
    let names = ["c", "absent", "a", "c", "b"];
    let keys: Vec<String> = names.iter().map(|name| context.key(name)).collect();
    let items = context.store.get_many(&keys).await;
    ensure_eq!(items.len(), names.len(), "answers of get_many");
    for (name, item) in names.iter().zip(items) {
        let found = item?.map(|item| item.value);
        let expected = (*name != "absent").then(|| Bytes::copy_from_slice(name.as_bytes()));
        ensure_eq!(found, expected, "answer for {name:?}");
    }
    ensure!(context.store.get_many(&[]).await.is_empty(), "get_many of nothing answers something");
    Ok(())
}
