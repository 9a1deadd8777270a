//! What expressions may call: expr's own functions and Argo's.
//!
//! Names: <https://expr-lang.org/docs/language-definition>. A name that is not there is told when the expression is
//! read, before anything runs.

use super::evaluate::{MAX_SIZE, integer};
use super::written::{json, shown, text};
use super::{dates, sprig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dhow_resources::error::{nearest, quote};
use serde_json::{Map, Number, Value};

/// A value in a message.
pub(super) fn told(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => quote(&json(other)),
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

/// The functions below.
const NAMES: &[&str] = &[
    "abs",
    "asFloat",
    "asInt",
    "ceil",
    "concat",
    "count",
    "date",
    "flatten",
    "float",
    "floor",
    "first",
    "fromBase64",
    "fromJSON",
    "fromJson",
    "fromPairs",
    "get",
    "hasPrefix",
    "hasSuffix",
    "indexOf",
    "int",
    "join",
    "jsonpath",
    "keys",
    "last",
    "lastIndexOf",
    "len",
    "lower",
    "max",
    "mean",
    "median",
    "min",
    "now",
    "repeat",
    "replace",
    "reverse",
    "round",
    "sort",
    "split",
    "splitAfter",
    "string",
    "sum",
    "take",
    "timezone",
    "toBase64",
    "toJSON",
    "toJson",
    "toPairs",
    "trim",
    "trimPrefix",
    "trimSuffix",
    "type",
    "uniq",
    "upper",
    "values",
];

/// Functions of a list and what is asked about each of its elements: `evaluate` calls them.
pub(super) const PREDICATES: &[&str] = &[
    "all",
    "any",
    "count",
    "filter",
    "find",
    "findIndex",
    "findLast",
    "findLastIndex",
    "groupBy",
    "map",
    "none",
    "one",
    "reduce",
    "sortBy",
    "sum",
];

/// Whether there is a function of that name.
pub(super) fn check(name: &str) -> Result<(), String> {
    let is_sprig = name.starts_with("sprig.");
    let known: Vec<&str> = match is_sprig {
        true => sprig::NAMES.to_vec(),
        false => NAMES.iter().chain(PREDICATES).copied().collect(),
    };
    let plain = name.strip_prefix("sprig.").unwrap_or(name);
    if known.contains(&plain) || (is_sprig && known.contains(&sprig::without_must(plain).as_str())) {
        return Ok(());
    }
    if is_sprig && let Some(reason) = sprig::left_out(plain) {
        return Err(format!("{name}() is left out here: {reason}"));
    }
    let hint = match (nearest(plain, &known), is_sprig) {
        (Some(near), true) => format!("; did you mean `sprig.{near}`?"),
        (Some(near), false) => format!("; did you mean `{near}`?"),
        (None, false) if sprig::NAMES.contains(&plain) => format!("; did you mean `sprig.{plain}`?"),
        (None, _) => String::new(),
    };
    Err(format!("there is no function {}{hint}", quote(name)))
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let value = match name.strip_prefix("sprig.") {
        None => own(name, arguments),
        Some(name) => sprig::call(&sprig::without_must(name), arguments),
    };
    value.unwrap_or_else(|| {
        let kinds: Vec<&str> = arguments.iter().map(kind).collect();
        Err(format!("it does not take ({})", kinds.join(", ")))
    })
}

/// expr's functions and Argo's.
pub(super) fn own(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::{Array, Number as Num, Object, String as Text};
    Some(match (name, arguments) {
        ("asInt" | "int", [value]) => to_integer(value),
        ("asFloat" | "float", [value]) => to_float(value),
        ("string", [value]) => Ok(shown(value).into()),
        ("toJson" | "toJSON", [value]) => Ok(json(value).into()),
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
        ("splitAfter", [Text(text), Text(by)]) if !by.is_empty() => {
            Ok(text.split_inclusive(by.as_str()).map(str::to_owned).chain(last_empty(text, by)).collect())
        }
        ("join", [Array(list)]) => join(list, ""),
        ("join", [Array(list), Text(by)]) => join(list, by),
        ("replace", [Text(text), Text(old), Text(new)]) => replace(text, old, new),
        ("repeat", [Text(text), count @ Num(_)]) => repeat(text, count),
        ("indexOf", [Text(text), Text(of)]) => Ok(place(text.find(of.as_str()))),
        ("lastIndexOf", [Text(text), Text(of)]) => Ok(place(text.rfind(of.as_str()))),
        ("hasPrefix", [Text(text), Text(of)]) => Ok(text.starts_with(of.as_str()).into()),
        ("hasSuffix", [Text(text), Text(of)]) => Ok(text.ends_with(of.as_str()).into()),
        ("first", [Array(list)]) => Ok(list.first().cloned().unwrap_or_default()),
        ("last", [Array(list)]) => Ok(list.last().cloned().unwrap_or_default()),
        ("reverse", [Array(list)]) => Ok(list.iter().rev().cloned().collect()),
        ("uniq", [Array(list)]) => Ok(unique(list)),
        ("sort", [Array(list)]) => sort_by(list.clone(), list, None),
        ("sort", [Array(list), order @ Text(_)]) => sort_by(list.clone(), list, Some(order)),
        ("sum", [Array(list)]) => sum(list),
        ("mean", [Array(list)]) => mean(list),
        ("median", [Array(list)]) => median(list),
        ("count", [Array(list)]) => {
            Ok(list.iter().filter(|value| **value == Value::Bool(true)).count().into())
        }
        ("take", [Array(list), count @ Num(_)]) => integer(count)
            .map(|count| list.iter().take(usize::try_from(count).unwrap_or(0)).cloned().collect()),
        ("flatten", [Array(list)]) => Ok(list.iter().flat_map(flat).collect()),
        ("toPairs", [Object(map)]) => {
            Ok(map.iter().map(|(key, value)| Array(vec![key.as_str().into(), value.clone()])).collect())
        }
        ("fromPairs", [Array(pairs)]) => from_pairs(pairs),
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
        ("now", []) => Ok(dates::now()),
        ("date", [Text(text)]) => dates::read(text),
        ("timezone", [Text(name)]) => dates::timezone(name),
        _ => return None,
    })
}

pub(super) fn to_integer(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(number) => Ok(number.into()),
            None => whole(number, f64::trunc),
        },
        other => {
            let text = text(other);
            text.trim()
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| format!("{} is no whole number", quote(&text)))
        }
    }
}

pub(super) fn to_float(value: &Value) -> Result<Value, String> {
    let text = text(value);
    let number = text.trim().parse::<f64>().ok().and_then(Number::from_f64);
    number.map(Value::Number).ok_or_else(|| format!("{} is no number", quote(&text)))
}

#[allow(clippy::cast_possible_truncation, reason = "it is bounded by the comparison before")]
pub(super) fn whole(number: &Number, round: fn(f64) -> f64) -> Result<Value, String> {
    let rounded = round(number.as_f64().unwrap_or_default());
    if rounded.abs() < 9e18 { Ok((rounded as i64).into()) } else { Err("the number is too large".to_owned()) }
}

pub(super) fn from_json(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| format!("the text is no JSON: {error}"))
}

pub(super) fn from_base64(text: &str) -> Result<Value, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("the text is no Base64: {error}"))?;
    String::from_utf8(bytes).map(Value::from).map_err(|_| "what is encoded is no text".to_owned())
}

/// `$.a.b[0]['c']`, `[*]` for all; filters and unions are not there.
fn json_path(value: &Value, path: &str) -> Result<Value, String> {
    let unknown = || format!("the path {} is none of names, indexes and [*]", quote(path));
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
        (false, _) => Err(format!("there is nothing at {}", quote(path))),
    }
}

pub(super) fn split(text: &str, by: &str) -> Value {
    if by.is_empty() {
        return text.chars().map(String::from).collect();
    }
    text.split(by).map(str::to_owned).collect()
}

/// Behind a separator at the end Go has one more, empty part.
fn last_empty(text: &str, by: &str) -> Option<String> {
    (text.is_empty() || text.ends_with(by)).then(String::new)
}

pub(super) fn join(list: &[Value], by: &str) -> Result<Value, String> {
    Ok(list.iter().map(text).collect::<Vec<_>>().join(by).into())
}

pub(super) fn replace(text: &str, old: &str, new: &str) -> Result<Value, String> {
    let count = if old.is_empty() { text.len() + 1 } else { text.len() / old.len() };
    if text.len().saturating_add(count.saturating_mul(new.len())) > MAX_SIZE {
        return Err("the text becomes too long".to_owned());
    }
    Ok(text.replace(old, new).into())
}

pub(super) fn repeat(text: &str, count: &Value) -> Result<Value, String> {
    let count = usize::try_from(integer(count)?).map_err(|_| "the count is below zero".to_owned())?;
    if text.len().saturating_mul(count) > MAX_SIZE {
        return Err("the text becomes too long".to_owned());
    }
    Ok(text.repeat(count).into())
}

pub(super) fn unique(list: &[Value]) -> Value {
    let mut kept: Vec<Value> = Vec::new();
    for value in list {
        if !kept.contains(value) {
            kept.push(value.clone());
        }
    }
    Value::Array(kept)
}

pub(super) fn sum(list: &[Value]) -> Result<Value, String> {
    if let Ok(whole) = list.iter().map(integer).collect::<Result<Vec<_>, _>>() {
        return Ok(whole.into_iter().fold(0, i64::saturating_add).into());
    }
    let numbers =
        list.iter().map(|value| value.as_f64().ok_or_else(|| format!("{} is no number", told(value))));
    Ok(numbers.sum::<Result<f64, _>>()?.into())
}

pub(super) fn extreme(list: &[Value], is_better: fn(f64, f64) -> bool) -> Result<Value, String> {
    let mut best: Option<(f64, &Value)> = None;
    for value in list {
        let number = value.as_f64().ok_or_else(|| format!("{} is no number", told(value)))?;
        if best.is_none_or(|(best, _)| is_better(number, best)) {
            best = Some((number, value));
        }
    }
    best.map(|(_, value)| value.clone()).ok_or_else(|| "the list is empty".to_owned())
}

/// A list in the order of other values, one for each element; `desc` turns it around.
pub(super) fn sort_by(list: Vec<Value>, by: &[Value], order: Option<&Value>) -> Result<Value, String> {
    let is_down = match order.map(|order| order.as_str().unwrap_or_default()) {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(other) => return Err(format!("{} is no order; expected `asc` or `desc`", quote(other))),
    };
    let mut pairs: Vec<(&Value, Value)> = by.iter().zip(list).collect();
    if by.iter().all(Value::is_number) {
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        pairs.sort_by(|(a, _), (b, _)| number(a).total_cmp(&number(b)));
    } else {
        pairs.sort_by_key(|(key, _)| text(key));
    }
    let sorted = pairs.into_iter().map(|(_, value)| value);
    Ok(if is_down { sorted.rev().collect() } else { sorted.collect() })
}

fn numbers(list: &[Value]) -> Result<Vec<f64>, String> {
    let number = |value: &Value| value.as_f64().ok_or_else(|| format!("{} is no number", told(value)));
    let numbers = list.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    if numbers.is_empty() { Err("the list is empty".to_owned()) } else { Ok(numbers) }
}

#[allow(clippy::cast_precision_loss, reason = "lists are short")]
fn mean(list: &[Value]) -> Result<Value, String> {
    let numbers = numbers(list)?;
    Ok((numbers.iter().sum::<f64>() / numbers.len() as f64).into())
}

fn median(list: &[Value]) -> Result<Value, String> {
    let mut numbers = numbers(list)?;
    numbers.sort_by(f64::total_cmp);
    let at = |at: usize| numbers.get(at).copied().unwrap_or_default();
    let (low, high) = (at((numbers.len() - 1) / 2), at(numbers.len() / 2));
    Ok(f64::midpoint(low, high).into())
}

/// The elements of a list, however deep; of anything else itself.
fn flat(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list.iter().flat_map(flat).collect(),
        other => vec![other.clone()],
    }
}

fn from_pairs(pairs: &[Value]) -> Result<Value, String> {
    let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([key, value]) => Ok((text(key), value.clone())),
        _ => Err(format!("{} is no pair of a key and a value", told(pair))),
    };
    pairs.iter().map(pair).collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn place(at: Option<usize>) -> Value {
    at.map_or_else(|| Value::from(-1), Value::from)
}
