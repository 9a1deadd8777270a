//! Policies that are older than OPA 1.0: rules without `if`, and `in`, `if`, `contains` and `every` only where they are
//! imported (<https://www.openpolicyagent.org/docs/v0-upgrade>).

use regorus::Source;
use regorus::unstable::{Lexer, Token, TokenKind};
use std::collections::BTreeSet;

/// Whether a policy may be an older one: it uses none of the words without importing it. The interpreter would read one
/// that does as names, and warn of each on standard error.
pub(super) fn may_be_older(text: &str) -> bool {
    let Ok(source) = Source::from_contents(String::new(), text.to_owned()) else { return false };
    let mut lexer = Lexer::new(&source);
    let mut tokens: Vec<Token> = Vec::new();
    while let Ok(token) = lexer.next_token() {
        if matches!(token.0, TokenKind::Eof) {
            break;
        }
        tokens.push(token);
    }
    let words: Vec<&str> = tokens.iter().map(|token| token.1.text()).collect();
    let mut imported: BTreeSet<&str> = BTreeSet::new();
    for (at, begin) in words.windows(3).enumerate() {
        match begin {
            ["future", ".", "keywords"] if words.get(at + 3) == Some(&".") => {
                imported.extend(words.get(at + 4).copied());
            }
            ["future", ".", "keywords"] => imported.extend(["if", "in", "contains", "every"]),
            _ => {}
        }
    }
    let is_word = |at: usize, word: &str| {
        // `input.if` is a field, `contains(x, y)` a function of old.
        let is_field = at.checked_sub(1).and_then(|before| words.get(before)) == Some(&".");
        let is_call = words.get(at + 1) == Some(&"(");
        match word {
            "if" | "in" | "every" => !is_field,
            "contains" => !is_field && !is_call,
            _ => false,
        }
    };
    !tokens.iter().enumerate().any(|(at, token)| {
        let word = token.1.text();
        matches!(token.0, TokenKind::Ident) && is_word(at, word) && !imported.contains(word)
    })
}

#[cfg(test)]
mod tests {
    use super::may_be_older;

    #[test]
    fn words_that_are_not_imported_are_of_today() {
        for (text, older) in [
            ("package dhow\nallow { input.x == 1 }", true),
            ("package dhow\nallow { contains(input.x, \"a\"); input.if == \"in\" } # if", true),
            ("package dhow\nimport future.keywords\nallow if { 1 in [1] }", true),
            ("package dhow\nimport future.keywords.in\nallow { 1 in [1] }", true),
            ("package dhow\nimport future.keywords.in\nallow if { 1 in [1] }", false),
            ("package dhow\nallow if { input.x = }", false),
            ("package dhow\ncause contains \"a\" { true }", false),
            ("package dhow\nallow { every x in [1] { x } }", false),
        ] {
            assert_eq!(may_be_older(text), older, "{text}");
        }
    }
}
