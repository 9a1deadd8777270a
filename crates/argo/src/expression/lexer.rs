//! Text into tokens.

use super::Language;

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// Text in quotes.
    Text(String),
    /// A word.
    Word(String),
    /// Anything else.
    Sign(&'static str),
}

/// Longest first, so that `==` is never read as two.
const SIGNS: [&str; 37] = [
    "==", "!=", "<=", ">=", "=~", "!~", "&&", "||", "??", "?.", "..", "**", "<", ">", "=", "!", "+", "-",
    "*", "/", "%", "^", "?", ":", ".", ",", ";", "|", "#", "(", ")", "[", "]", "{", "}", "&", "~",
];

pub(super) fn tokens(text: &str, language: Language) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '"' | '\'' => quoted(rest, first)?,
            '`' if language == Language::Expr => raw(rest)?,
            '0'..='9' => number(rest)?,
            first if first.is_alphabetic() || first == '_' || first == '$' => word(rest, language),
            first => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                let sign = sign.ok_or_else(|| format!("{first:?} has no meaning in an expression"))?;
                (Token::Sign(sign), sign.len())
            }
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

fn quoted(text: &str, quote: char) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Token::Text(value), at + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('\\' | '"' | '\'' | '/'))) => value.push(c),
                // A regular expression in quotes: the backslash is part of it.
                Some((_, c)) => value.extend(['\\', c]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err(format!("a text begins with {quote} and does not end"))
}

fn raw(text: &str) -> Result<(Token, usize), String> {
    let value = text.get(1..).and_then(|rest| rest.split_once('`'));
    let (value, _) = value.ok_or("a text begins with ` and does not end")?;
    Ok((Token::Text(value.to_owned()), value.len() + 2))
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count()
    };
    let mut length = digits(0);
    let mut is_float = false;
    // `1..3` is a range.
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        is_float = true;
        length += 1 + digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            is_float = true;
            length += 1 + sign + exponent;
        }
    }
    if text.get(length..).is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '_')) {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        return Err(format!("{:?} begins like a number and is none", text.get(..end).unwrap_or(text)));
    }
    let plain = text.get(..length).unwrap_or_default().replace('_', "");
    let bad = || format!("{plain} is too large a number");
    if is_float {
        return Ok((Token::Float(plain.parse().map_err(|_| bad())?), length));
    }
    Ok((Token::Integer(plain.parse().map_err(|_| bad())?), length))
}

/// Where words are texts, dots belong to them.
fn word(text: &str, language: Language) -> (Token, usize) {
    let belongs =
        |c: char| c.is_alphanumeric() || c == '_' || c == '$' || (c == '.' && language == Language::When);
    let length = text.find(|c| !belongs(c)).unwrap_or(text.len());
    (Token::Word(text.get(..length).unwrap_or(text).to_owned()), length)
}
