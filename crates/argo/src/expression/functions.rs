//! What expressions may call: expr's own functions, Argo's, and those of sprig that workflows use.
//!
//! Sprig's names: <https://masterminds.github.io/sprig/>. What reads the machine (`env`, `expandenv`) is not there, as
//! in Argo; nor is what makes secrets and random values, because a workflow is run again after a crash.

use super::evaluate::{MAX_SIZE, integer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

/// A value as text: what a tag is replaced with.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// A bounded regular expression.
pub(super) fn regex(pattern: &str) -> Result<regex::Regex, String> {
    let built = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    built.map_err(|error| format!("the regular expression is wrong: {error}"))
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let plain = name.strip_prefix("sprig.");
    let value = match (plain, arguments) {
        (None, arguments) => own(name, arguments),
        (Some(name), arguments) => sprig(name, arguments),
    };
    value.unwrap_or_else(|| {
        let count = arguments.len();
        Err(format!("there is no such function with {count} argument{}", if count == 1 { "" } else { "s" }))
    })
}

/// expr's functions and Argo's.
fn own(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::{Array, Number as Num, Object, String as Text};
    Some(match (name, arguments) {
        ("asInt" | "int", [value]) => to_integer(value),
        ("asFloat" | "float", [value]) => to_float(value),
        ("string", [value]) => Ok(text(value).into()),
        ("toJson" | "toJSON", [value]) => Ok(value.to_string().into()),
        ("fromJson" | "fromJSON", [Text(json)]) => from_json(json),
        ("jsonpath", [Text(json), Text(path)]) => from_json(json).and_then(|value| json_path(&value, path)),
        ("len", [Text(text)]) => Ok(text.chars().count().into()),
        ("len", [Array(list)]) => Ok(list.len().into()),
        ("len", [Object(map)]) => Ok(map.len().into()),
        ("upper", [Text(text)]) => Ok(text.to_uppercase().into()),
        ("lower", [Text(text)]) => Ok(text.to_lowercase().into()),
        ("trim", [Text(text)]) => Ok(text.trim().into()),
        ("trim", [Text(text), Text(of)]) => Ok(text.trim_matches(|c| of.contains(c)).into()),
        ("trimPrefix", [Text(text), Text(of)]) => Ok(text.strip_prefix(of.as_str()).unwrap_or(text).into()),
        ("trimSuffix", [Text(text), Text(of)]) => Ok(text.strip_suffix(of.as_str()).unwrap_or(text).into()),
        ("split", [Text(text), Text(by)]) => Ok(split(text, by)),
        ("join", [Array(list)]) => join(list, ""),
        ("join", [Array(list), Text(by)]) => join(list, by),
        ("replace", [Text(text), Text(old), Text(new)]) => replace(text, old, new),
        ("repeat", [Text(text), count @ Num(_)]) => repeat(text, count),
        ("indexOf", [Text(text), Text(of)]) => {
            Ok(text.find(of.as_str()).map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX)).into())
        }
        ("hasPrefix", [Text(text), Text(of)]) => Ok(text.starts_with(of.as_str()).into()),
        ("hasSuffix", [Text(text), Text(of)]) => Ok(text.ends_with(of.as_str()).into()),
        ("first", [Array(list)]) => Ok(list.first().cloned().unwrap_or_default()),
        ("last", [Array(list)]) => Ok(list.last().cloned().unwrap_or_default()),
        ("reverse", [Array(list)]) => Ok(list.iter().rev().cloned().collect()),
        ("uniq", [Array(list)]) => Ok(unique(list)),
        ("sort", [Array(list)]) => sort(list),
        ("sum", [Array(list)]) => sum(list),
        ("concat", lists) if lists.iter().all(Value::is_array) => {
            Ok(lists.iter().filter_map(Value::as_array).flatten().cloned().collect())
        }
        ("keys", [Object(map)]) => Ok(map.keys().cloned().collect()),
        ("values", [Object(map)]) => Ok(map.values().cloned().collect()),
        ("get", [Object(map), Text(key)]) => Ok(map.get(key).cloned().unwrap_or_default()),
        ("max", [Array(list)]) => extreme(list, |a, b| a > b),
        ("max", list @ [_, ..]) => extreme(list, |a, b| a > b),
        ("min", [Array(list)]) => extreme(list, |a, b| a < b),
        ("min", list @ [_, ..]) => extreme(list, |a, b| a < b),
        ("abs", [Num(number)]) => Ok(match number.as_i64() {
            Some(number) => number.saturating_abs().into(),
            None => number.as_f64().unwrap_or_default().abs().into(),
        }),
        ("floor", [Num(number)]) => whole(number, f64::floor),
        ("ceil", [Num(number)]) => whole(number, f64::ceil),
        ("round", [Num(number)]) => whole(number, f64::round),
        ("type", [value]) => Ok(match value {
            Value::Null => "nil",
            Value::Bool(_) => "bool",
            Num(number) if number.is_f64() => "float",
            Num(_) => "int",
            Text(_) => "string",
            Array(_) => "array",
            Object(_) => "map",
        }
        .into()),
        ("toBase64", [Text(text)]) => Ok(STANDARD.encode(text).into()),
        ("fromBase64", [Text(text)]) => from_base64(text),
        _ => return None,
    })
}

/// Sprig's, whose subject is the last argument.
fn sprig(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::{Array, Number as Num, String as Text};
    Some(match (name, arguments) {
        (
            "trim" | "upper" | "lower" | "toJson" | "fromJson" | "first" | "last" | "uniq" | "len" | "abs",
            [_],
        )
        | ("floor" | "ceil" | "round" | "join" | "int" | "float", [_]) => return own(name, arguments),
        ("mustToJson" | "toRawJson", [value]) => Ok(value.to_string().into()),
        ("mustFromJson", [Text(json)]) => from_json(json),
        ("title", [Text(text)]) => Ok(capitals(text).into()),
        ("trimAll", [Text(of), Text(text)]) => Ok(text.trim_matches(|c| of.contains(c)).into()),
        ("trimPrefix", [Text(of), Text(text)]) => Ok(text.strip_prefix(of.as_str()).unwrap_or(text).into()),
        ("trimSuffix", [Text(of), Text(text)]) => Ok(text.strip_suffix(of.as_str()).unwrap_or(text).into()),
        ("replace", [Text(old), Text(new), Text(text)]) => replace(text, old, new),
        ("repeat", [count @ Num(_), Text(text)]) => repeat(text, count),
        ("trunc", [Num(count), Text(text)]) => {
            let (count, length) = (count.as_i64().unwrap_or(0), text.chars().count());
            let keep = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(length);
            Ok(if count < 0 {
                text.chars().skip(length - keep).collect::<String>()
            } else {
                text.chars().take(keep).collect()
            }
            .into())
        }
        ("substr", [Num(from), Num(to), Text(text)]) => {
            let bound = |number: &Number| usize::try_from(number.as_i64().unwrap_or(0)).unwrap_or(usize::MAX);
            Ok(text.chars().take(bound(to)).skip(bound(from)).collect::<String>().into())
        }
        ("contains", [Text(part), Text(text)]) => Ok(text.contains(part.as_str()).into()),
        ("hasPrefix", [Text(part), Text(text)]) => Ok(text.starts_with(part.as_str()).into()),
        ("hasSuffix", [Text(part), Text(text)]) => Ok(text.ends_with(part.as_str()).into()),
        ("quote", [value]) => Ok(format!("{:?}", text(value)).into()),
        ("squote", [value]) => Ok(format!("'{}'", text(value)).into()),
        ("splitList", [Text(by), Text(text)]) => Ok(split(text, by)),
        ("join", [Text(by), Array(list)]) => join(list, by),
        ("sortAlpha", [Array(list)]) => sort(list),
        ("has", [value, Array(list)]) => Ok(list.contains(value).into()),
        ("list", values) => Ok(Array(values.to_vec())),
        ("default", [other, value]) => Ok(if is_empty(value) { other.clone() } else { value.clone() }),
        ("coalesce", values) => Ok(values.iter().find(|value| !is_empty(value)).cloned().unwrap_or_default()),
        ("empty", [value]) => Ok(is_empty(value).into()),
        ("ternary", [yes, no, Value::Bool(truth)]) => Ok(if *truth { yes.clone() } else { no.clone() }),
        ("toString", [value]) => Ok(text(value).into()),
        ("atoi" | "int64", [value]) => to_integer(value),
        ("float64", [value]) => to_float(value),
        ("add", numbers @ [_, ..]) => numbers.iter().map(integer).sum::<Result<i64, _>>().map(Value::from),
        ("add1", [number]) => integer(number).map(|number| number.saturating_add(1).into()),
        ("sub", [a, b]) => both(a, b, i64::checked_sub),
        ("mul", [a, b]) => both(a, b, i64::checked_mul),
        ("div", [a, b]) => both(a, b, i64::checked_div),
        ("mod", [a, b]) => both(a, b, i64::checked_rem),
        ("max", numbers @ [_, ..]) => extreme(numbers, |a, b| a > b),
        ("min", numbers @ [_, ..]) => extreme(numbers, |a, b| a < b),
        ("b64enc", [Text(text)]) => Ok(STANDARD.encode(text).into()),
        ("b64dec", [Text(text)]) => from_base64(text),
        ("regexMatch", [Text(pattern), Text(text)]) => {
            regex(pattern).map(|regex| regex.is_match(text).into())
        }
        ("regexReplaceAll", [Text(pattern), Text(text), Text(new)]) => {
            regex(pattern).map(|regex| regex.replace_all(text, new.as_str()).into_owned().into())
        }
        ("regexFind", [Text(pattern), Text(text)]) => {
            regex(pattern).map(|regex| regex.find(text).map_or("", |found| found.as_str()).into())
        }
        _ => return None,
    })
}

fn to_integer(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(number) => Ok(number.into()),
            None => whole(number, f64::trunc),
        },
        other => {
            let text = text(other);
            text.trim().parse::<i64>().map(Value::from).map_err(|_| format!("{text:?} is no whole number"))
        }
    }
}

fn to_float(value: &Value) -> Result<Value, String> {
    let text = text(value);
    let number = text.trim().parse::<f64>().ok().and_then(Number::from_f64);
    number.map(Value::Number).ok_or_else(|| format!("{text:?} is no number"))
}

#[allow(clippy::cast_possible_truncation, reason = "it is bounded by the comparison before")]
fn whole(number: &Number, round: fn(f64) -> f64) -> Result<Value, String> {
    let rounded = round(number.as_f64().unwrap_or_default());
    if rounded.abs() < 9e18 { Ok((rounded as i64).into()) } else { Err("the number is too large".to_owned()) }
}

fn from_json(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| format!("the text is no JSON: {error}"))
}

fn from_base64(text: &str) -> Result<Value, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("the text is no Base64: {error}"))?;
    String::from_utf8(bytes).map(Value::from).map_err(|_| "what is encoded is no text".to_owned())
}

/// `$.a.b[0]['c']`, `[*]` for all; filters and unions are not there.
fn json_path(value: &Value, path: &str) -> Result<Value, String> {
    let unknown = || format!("the path {path:?} is none of names, indexes and [*]");
    let mut found = vec![value];
    let mut is_many = false;
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        let key;
        (key, rest) = if let Some(behind) = rest.strip_prefix('[') {
            let (key, behind) = behind.split_once(']').ok_or_else(unknown)?;
            (key.trim_matches(['\'', '"']), behind)
        } else {
            let behind = rest.strip_prefix('.').unwrap_or(rest);
            let end = behind.find(['.', '[']).unwrap_or(behind.len());
            behind.split_at(end)
        };
        if key.is_empty() {
            return Err(unknown());
        }
        if key == "*" {
            is_many = true;
            found = found
                .into_iter()
                .flat_map(|value| match value {
                    Value::Array(list) => list.iter().collect(),
                    Value::Object(map) => map.values().collect(),
                    _ => Vec::new(),
                })
                .collect();
            continue;
        }
        found = found
            .into_iter()
            .filter_map(|value| match value {
                Value::Array(list) => list.get(key.parse::<usize>().ok()?),
                other => other.get(key),
            })
            .collect();
    }
    match (is_many, found.as_slice()) {
        (true, found) => Ok(found.iter().map(|value| (*value).clone()).collect()),
        (false, [value]) => Ok((*value).clone()),
        (false, _) => Err(format!("there is nothing at {path:?}")),
    }
}

fn split(text: &str, by: &str) -> Value {
    if by.is_empty() {
        return text.chars().map(String::from).collect();
    }
    text.split(by).map(str::to_owned).collect()
}

fn join(list: &[Value], by: &str) -> Result<Value, String> {
    Ok(list.iter().map(text).collect::<Vec<_>>().join(by).into())
}

fn replace(text: &str, old: &str, new: &str) -> Result<Value, String> {
    let count = if old.is_empty() { text.len() + 1 } else { text.len() / old.len() };
    if text.len().saturating_add(count.saturating_mul(new.len())) > MAX_SIZE {
        return Err("the text becomes too long".to_owned());
    }
    Ok(text.replace(old, new).into())
}

fn repeat(text: &str, count: &Value) -> Result<Value, String> {
    let count = usize::try_from(integer(count)?).map_err(|_| "the count is below zero".to_owned())?;
    if text.len().saturating_mul(count) > MAX_SIZE {
        return Err("the text becomes too long".to_owned());
    }
    Ok(text.repeat(count).into())
}

fn capitals(text: &str) -> String {
    let mut at_begin = true;
    let capital = |c: char| {
        let upper = if at_begin { c.to_uppercase().next().unwrap_or(c) } else { c };
        at_begin = c.is_whitespace();
        upper
    };
    text.chars().map(capital).collect()
}

fn unique(list: &[Value]) -> Value {
    let mut kept: Vec<Value> = Vec::new();
    for value in list {
        if !kept.contains(value) {
            kept.push(value.clone());
        }
    }
    Value::Array(kept)
}

fn sort(list: &[Value]) -> Result<Value, String> {
    let mut list = list.to_vec();
    if list.iter().all(Value::is_number) {
        list.sort_by(|a, b| a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()));
    } else {
        list.sort_by_key(text);
    }
    Ok(Value::Array(list))
}

fn sum(list: &[Value]) -> Result<Value, String> {
    if let Ok(whole) = list.iter().map(integer).collect::<Result<Vec<_>, _>>() {
        return Ok(whole.into_iter().fold(0, i64::saturating_add).into());
    }
    let numbers = list.iter().map(|value| value.as_f64().ok_or_else(|| format!("{value} is no number")));
    Ok(numbers.sum::<Result<f64, _>>()?.into())
}

fn extreme(list: &[Value], is_better: fn(f64, f64) -> bool) -> Result<Value, String> {
    let mut best: Option<(f64, &Value)> = None;
    for value in list {
        let number = value.as_f64().ok_or_else(|| format!("{value} is no number"))?;
        if best.is_none_or(|(best, _)| is_better(number, best)) {
            best = Some((number, value));
        }
    }
    best.map(|(_, value)| value.clone()).ok_or_else(|| "the list is empty".to_owned())
}

fn both(a: &Value, b: &Value, operation: fn(i64, i64) -> Option<i64>) -> Result<Value, String> {
    operation(integer(a)?, integer(b)?).map(Value::from).ok_or_else(|| "there is no such number".to_owned())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
