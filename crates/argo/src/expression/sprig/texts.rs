//! Texts: cutting, joining, case, patterns, encodings.

use crate::expression::evaluate::MAX_SIZE;
use crate::expression::functions::{from_base64, join, own, regex, repeat, replace, split};
use crate::expression::written::{shown, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// The value of a function; none if it is not of these, or does not take such arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::{Array, Number as Num, String as Text};
    Some(match (name, arguments) {
        ("trim" | "upper" | "lower" | "len", [_]) => return own(name, arguments),
        ("title", [Text(text)]) => Ok(capitals(text, true).into()),
        ("untitle", [Text(text)]) => Ok(capitals(text, false).into()),
        ("swapcase", [Text(text)]) => Ok(text.chars().flat_map(swapped).collect::<String>().into()),
        ("nospace", [Text(text)]) => Ok(text.split_whitespace().collect::<String>().into()),
        ("initials", [Text(text)]) => {
            Ok(text.split_whitespace().filter_map(|word| word.chars().next()).collect::<String>().into())
        }
        ("abbrev", [Num(width), Text(text)]) => {
            let width = size(width);
            let is_short = width < 4 || text.chars().count() <= width;
            Ok(if is_short { text.clone() } else { text.chars().take(width - 3).collect::<String>() + "..." }
                .into())
        }
        ("abbrevboth", [Num(from), Num(width), Text(text)]) => Ok(cut(size(from), size(width), text).into()),
        ("camelcase", [Text(text)]) => Ok(camel(text).into()),
        ("snakecase", [Text(text)]) => Ok(words(text).join("_").into()),
        ("kebabcase", [Text(text)]) => Ok(words(text).join("-").into()),
        ("wrap", [Num(width), Text(text)]) => Ok(wrapped(text, size(width), "\n", false).into()),
        ("wrapWith", [Num(width), Text(by), Text(text)]) => Ok(wrapped(text, size(width), by, true).into()),
        ("cat", values) => {
            let values = values.iter().filter(|value| !value.is_null()).map(text);
            Ok(values.collect::<Vec<_>>().join(" ").into())
        }
        ("indent" | "nindent", [count @ Num(_), Text(text)]) => indent(count, text, name == "nindent"),
        ("plural", [one, many, count @ Num(_)]) => {
            Ok(if count.as_i64() == Some(1) { one.clone() } else { many.clone() })
        }
        ("trimAll" | "trimall", [Text(of), Text(text)]) => Ok(text.trim_matches(|c| of.contains(c)).into()),
        ("trimPrefix", [Text(of), Text(text)]) => Ok(text.strip_prefix(of.as_str()).unwrap_or(text).into()),
        ("trimSuffix", [Text(of), Text(text)]) => Ok(text.strip_suffix(of.as_str()).unwrap_or(text).into()),
        ("replace", [Text(old), Text(new), Text(text)]) => replace(text, old, new),
        ("repeat", [count @ Num(_), Text(text)]) => repeat(text, count),
        ("trunc", [Num(count), Text(text)]) => {
            let (count, length) = (count.as_i64().unwrap_or(0), text.chars().count());
            let keep = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(length);
            let skip = if count < 0 { length - keep } else { 0 };
            Ok(text.chars().skip(skip).take(keep).collect::<String>().into())
        }
        ("substr", [Num(from), Num(to), Text(text)]) => {
            // Below zero: from the begin, to the end.
            let bound = |number: &Number, else_: usize| {
                usize::try_from(number.as_i64().unwrap_or(0)).unwrap_or(else_)
            };
            Ok(text.chars().take(bound(to, usize::MAX)).skip(bound(from, 0)).collect::<String>().into())
        }
        ("contains", [Text(part), Text(text)]) => Ok(text.contains(part.as_str()).into()),
        ("hasPrefix", [Text(part), Text(text)]) => Ok(text.starts_with(part.as_str()).into()),
        ("hasSuffix", [Text(part), Text(text)]) => Ok(text.ends_with(part.as_str()).into()),
        ("quote", values) => Ok(quoted(values, |value| format!("{:?}", text(value)))),
        ("squote", values) => Ok(quoted(values, |value| format!("'{}'", text(value)))),
        ("splitList", [Text(by), Text(text)]) => Ok(split(text, by)),
        ("split", [Text(by), Text(text)]) => Ok(numbered(split(text, by))),
        ("splitn", [Text(by), Num(most), Text(text)]) => {
            let most = usize::try_from(most.as_i64().unwrap_or(0)).unwrap_or(usize::MAX);
            Ok(numbered(text.splitn(most, by.as_str()).map(str::to_owned).collect()))
        }
        ("join", [Array(list)]) => join(list, ""),
        ("join", [Text(by), Array(list)]) => join(list, by),
        ("toString", [value]) => Ok(shown(value).into()),
        ("b64enc", [Text(text)]) => Ok(STANDARD.encode(text).into()),
        ("b64dec", [Text(text)]) => from_base64(text),
        ("sha1sum", [Text(text)]) => Ok(hex(&Sha1::digest(text)).into()),
        ("sha256sum", [Text(text)]) => Ok(hex(&Sha256::digest(text)).into()),
        ("sha512sum", [Text(text)]) => Ok(hex(&Sha512::digest(text)).into()),
        ("regexMatch", [Text(pattern), Text(text)]) => {
            regex(pattern).map(|regex| regex.is_match(text).into())
        }
        ("regexFind", [Text(pattern), Text(text)]) => {
            regex(pattern).map(|regex| regex.find(text).map_or("", |found| found.as_str()).into())
        }
        ("regexFindAll", [Text(pattern), Text(text), Num(most)]) => regex(pattern)
            .map(|regex| regex.find_iter(text).take(most_of(most)).map(|found| found.as_str()).collect()),
        ("regexSplit", [Text(pattern), Text(text), Num(most)]) => {
            regex(pattern).map(|regex| regex.splitn(text, most_of(most)).collect())
        }
        ("regexReplaceAll", [Text(pattern), Text(text), Text(new)]) => {
            regex(pattern).map(|regex| regex.replace_all(text, new.as_str()).into_owned().into())
        }
        ("regexReplaceAllLiteral", [Text(pattern), Text(text), Text(new)]) => {
            regex(pattern).map(|found| found.replace_all(text, regex::NoExpand(new)).into_owned().into())
        }
        ("regexQuoteMeta", [Text(text)]) => Ok(regex::escape(text).into()),
        _ => return None,
    })
}

fn size(number: &Number) -> usize {
    usize::try_from(number.as_i64().unwrap_or(0)).unwrap_or(0)
}

/// A part of a text from that letter on, with dots where something is left out; as goutils' `AbbreviateFull`.
fn cut(from: usize, width: usize, text: &str) -> String {
    let length = text.chars().count();
    let part = |skip: usize, take: usize| text.chars().skip(skip).take(take).collect::<String>();
    if width < 4 || (from > 0 && width < 7) || length <= width {
        return text.to_owned();
    }
    let from = if length - from.min(length) < width - 3 { length + 3 - width } else { from };
    match from {
        ..=4 => part(0, width - 3) + "...",
        from if from + width - 3 < length => format!("...{}...", part(from, width - 6)),
        _ => format!("...{}", part(length + 3 - width, width)),
    }
}

/// `http_server` is `HttpServer`; separators at the begin stay.
fn camel(text: &str) -> String {
    let plain = text.trim_start_matches(['_', ' ', '-', '.']);
    let begin = text.strip_suffix(plain).unwrap_or_default();
    let parts = plain.split(['_', ' ', '-', '.']).map(|part| capitals(part, true));
    begin.to_owned() + &parts.collect::<String>()
}

/// The words of a text in small letters: what separators, and changes from small letters to large ones, part.
fn words(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut words = vec![String::new()];
    for (at, c) in letters.iter().enumerate() {
        let (before, behind) = (at.checked_sub(1).and_then(|at| letters.get(at)), letters.get(at + 1));
        let is_first = c.is_uppercase()
            && (before.is_some_and(|c| c.is_lowercase() || c.is_ascii_digit())
                || (before.is_some_and(|c| c.is_uppercase()) && behind.is_some_and(|c| c.is_lowercase())));
        let is_separator = matches!(c, '_' | ' ' | '-' | '.');
        if is_first || is_separator {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| !is_separator) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Lines of at most so many letters; longer words are lines of their own, or are cut.
fn wrapped(text: &str, width: usize, by: &str, cuts: bool) -> String {
    let width = width.max(1);
    let mut lines: Vec<String> = Vec::new();
    let mut rest: Vec<char> = text.chars().collect();
    while rest.len() > width {
        let end = rest.iter().take(width + 1).rposition(|c| *c == ' ');
        let end = end.or_else(|| if cuts { Some(width) } else { rest.iter().position(|c| *c == ' ') });
        let Some(end) = end else { break };
        lines.push(rest.iter().take(end).collect());
        let is_blank = rest.get(end) == Some(&' ');
        rest.drain(..end + usize::from(is_blank));
    }
    lines.push(rest.into_iter().collect());
    lines.join(by)
}

/// How many: below zero all.
fn most_of(number: &Number) -> usize {
    usize::try_from(number.as_i64().unwrap_or(-1)).unwrap_or(usize::MAX)
}

fn quoted(values: &[Value], quote: impl Fn(&Value) -> String) -> Value {
    let values = values.iter().filter(|value| !value.is_null()).map(quote);
    values.collect::<Vec<_>>().join(" ").into()
}

/// A list as a map of `_0`, `_1`, ….
fn numbered(list: Value) -> Value {
    let Value::Array(list) = list else { return list };
    list.into_iter()
        .enumerate()
        .map(|(index, value)| (format!("_{index}"), value))
        .collect::<Map<_, _>>()
        .into()
}

fn indent(count: &Value, text: &str, is_below: bool) -> Result<Value, String> {
    let lines = text.split('\n').count();
    let blanks = repeat(" ", count)?;
    let blanks = blanks.as_str().unwrap_or_default();
    if text.len().saturating_add(lines.saturating_mul(blanks.len())) > MAX_SIZE {
        return Err("the text becomes too long".to_owned());
    }
    let begin = if is_below { "\n" } else { "" };
    Ok(format!("{begin}{blanks}{}", text.replace('\n', &format!("\n{blanks}"))).into())
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

/// The first letter of each word large, or small.
fn capitals(text: &str, is_large: bool) -> String {
    let mut at_begin = true;
    let capital = |c: char| {
        let first = match (at_begin, is_large) {
            (true, true) => c.to_uppercase().next(),
            (true, false) => c.to_lowercase().next(),
            (false, _) => None,
        };
        at_begin = c.is_whitespace();
        first.unwrap_or(c)
    };
    text.chars().map(capital).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
