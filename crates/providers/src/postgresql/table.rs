//! Names of tables, keys as the server can hold them, and ranges of keys.

use std::borrow::Cow;

/// Keys up to this length fit into an index, however incompressible they are.
pub(super) const MAX_KEY_BYTES: usize = 2600;

/// Stands for two characters: [`ZERO`] after it is a zero, which the server's text cannot hold; [`ITSELF`] is
/// the escape. Both come before all other characters, so that the order of keys stays the same.
const ESCAPE: char = '\u{1}';
const ZERO: char = '\u{1}';
const ITSELF: char = '\u{2}';

/// A table's name as it stands in a statement: `name` or `schema.name`, which the server would fold to lower
/// case, quoted.
pub(super) fn quoted(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let legal = |part: &&str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
        !part.is_empty()
            && part.len() < 64
            && part.bytes().all(letter)
            && !part.starts_with(|c: char| c.is_ascii_digit())
    };
    if parts.len() > 2 || !parts.iter().all(legal) {
        return None;
    }
    let quoted = parts.iter().map(|part| format!("\"{}\"", part.to_ascii_lowercase()));
    Some(quoted.collect::<Vec<_>>().join("."))
}

/// A key as it is stored: as it is, unless it holds one of two characters that hardly any key holds.
pub(super) fn stored(key: &str) -> Cow<'_, str> {
    if !key.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(key);
    }
    let mut stored = String::with_capacity(key.len() + 8);
    for character in key.chars() {
        match character {
            '\0' => stored.extend([ESCAPE, ZERO]),
            ESCAPE => stored.extend([ESCAPE, ITSELF]),
            other => stored.push(other),
        }
    }
    Cow::Owned(stored)
}

/// The key that is stored so.
pub(super) fn read(stored: String) -> String {
    if !stored.contains(ESCAPE) {
        return stored;
    }
    let mut characters = stored.chars().peekable();
    let mut key = String::with_capacity(stored.len());
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            (ESCAPE, Some(&ZERO)) => key.push('\0'),
            (ESCAPE, Some(&ITSELF)) => key.push(ESCAPE),
            // Another program wrote it.
            (other, _) => {
                key.push(other);
                continue;
            }
        }
        characters.next();
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables() {
        for (name, expected) in [
            ("state", Some("\"state\"")),
            ("public.State_1", Some("\"public\".\"state_1\"")),
            ("", None),
            ("a.b.c", None),
            ("a.", None),
            ("1a", None),
            ("a b", None),
            ("a\"b", None),
            ("ä", None),
        ] {
            assert_eq!(quoted(name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(quoted(&"a".repeat(64)), None);
    }

    #[test]
    fn keys_keep_their_order() {
        let keys = [
            "",
            "\0",
            "\0\0",
            "\0\u{1}",
            "\0a",
            "\u{1}",
            "\u{1}\0",
            "\u{1}\u{1}",
            "\u{2}",
            "a",
            "a\0",
            "a\u{2}",
        ];
        let mut before: Option<Cow<'_, str>> = None;
        for key in keys {
            let stored = stored(key);
            assert!(!stored.contains('\0'));
            assert_eq!(read(stored.clone().into_owned()), key);
            assert!(before.is_none_or(|before| before < stored), "{key:?}");
            before = Some(stored);
        }
        assert_eq!(read("\u{1}x\u{1}".to_owned()), "\u{1}x\u{1}");
    }
}
