//! The functions of sprig, whose subject is the last argument. Names: <https://masterminds.github.io/sprig/>.
//!
//! Maps are values here: `set`, `unset` and `merge` yield another one and change none.

use super::dates;
use super::evaluate::{MAX_SIZE, integer};
use super::functions::{
    extreme, from_base64, from_json, join, own, regex, repeat, replace, sort_by, split, text, to_float,
    to_integer,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256, Sha512};

/// The functions below; `must…` of each is the same.
pub(super) const NAMES: &[&str] = &[
    "abbrev",
    "add",
    "add1",
    "addf",
    "all",
    "any",
    "append",
    "atoi",
    "b64dec",
    "b64enc",
    "cat",
    "ceil",
    "chunk",
    "coalesce",
    "compact",
    "concat",
    "contains",
    "date",
    "dateInZone",
    "dateModify",
    "deepCopy",
    "deepEqual",
    "default",
    "dict",
    "dig",
    "div",
    "divf",
    "empty",
    "fail",
    "first",
    "float",
    "float64",
    "floor",
    "fromJson",
    "get",
    "has",
    "hasKey",
    "hasPrefix",
    "hasSuffix",
    "htmlDate",
    "indent",
    "initial",
    "initials",
    "int",
    "int64",
    "join",
    "keys",
    "kindIs",
    "kindOf",
    "last",
    "len",
    "list",
    "lower",
    "max",
    "maxf",
    "merge",
    "mergeOverwrite",
    "min",
    "minf",
    "mod",
    "mul",
    "mulf",
    "nindent",
    "nospace",
    "now",
    "omit",
    "pick",
    "pluck",
    "plural",
    "prepend",
    "quote",
    "regexFind",
    "regexFindAll",
    "regexMatch",
    "regexQuoteMeta",
    "regexReplaceAll",
    "regexReplaceAllLiteral",
    "regexSplit",
    "repeat",
    "replace",
    "rest",
    "reverse",
    "round",
    "set",
    "sha256sum",
    "sha512sum",
    "slice",
    "sortAlpha",
    "split",
    "splitList",
    "splitn",
    "squote",
    "sub",
    "subf",
    "substr",
    "swapcase",
    "ternary",
    "title",
    "toDate",
    "toJson",
    "toPrettyJson",
    "toRawJson",
    "toString",
    "toStrings",
    "trim",
    "trimAll",
    "trimPrefix",
    "trimSuffix",
    "trunc",
    "uniq",
    "unixEpoch",
    "unset",
    "until",
    "untilStep",
    "untitle",
    "upper",
    "values",
    "without",
];

/// Why a function of sprig is none of them, where there is a reason.
pub(super) fn left_out(name: &str) -> Option<&'static str> {
    match name {
        "env" | "expandenv" | "getHostByName" => {
            Some("a workflow must not read the machine; Argo has none, too")
        }
        "uuidv4" | "shuffle" => Some(RANDOM),
        name if name.starts_with("rand") || name.starts_with("gen") => Some(RANDOM),
        _ => None,
    }
}

const RANDOM: &str = "its value would be another one whenever the workflow goes on; let a step print it, or use \
                      workflow.uid";

/// The name without `must`.
pub(super) fn without_must(name: &str) -> String {
    let plain = name.strip_prefix("must").unwrap_or_default();
    let mut rest = plain.chars();
    match rest.next() {
        Some(first) if first.is_ascii_uppercase() => first.to_ascii_lowercase().to_string() + rest.as_str(),
        _ => name.to_owned(),
    }
}

/// The value of a function; none if it does not take such arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    let found = texts(name, arguments).or_else(|| lists(name, arguments)).or_else(|| maps(name, arguments));
    found.or_else(|| numbers(name, arguments)).or_else(|| others(name, arguments))
}

fn texts(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
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
            let width = usize::try_from(width.as_i64().unwrap_or(0)).unwrap_or(0);
            let is_short = width < 4 || text.chars().count() <= width;
            Ok(if is_short { text.clone() } else { text.chars().take(width - 3).collect::<String>() + "..." }
                .into())
        }
        ("cat", values) => {
            let values = values.iter().filter(|value| !value.is_null()).map(text);
            Ok(values.collect::<Vec<_>>().join(" ").into())
        }
        ("indent" | "nindent", [count @ Num(_), Text(text)]) => indent(count, text, name == "nindent"),
        ("plural", [one, many, count @ Num(_)]) => {
            Ok(if count.as_i64() == Some(1) { one.clone() } else { many.clone() })
        }
        ("trimAll", [Text(of), Text(text)]) => Ok(text.trim_matches(|c| of.contains(c)).into()),
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
        ("toString", [value]) => Ok(text(value).into()),
        ("b64enc", [Text(text)]) => Ok(STANDARD.encode(text).into()),
        ("b64dec", [Text(text)]) => from_base64(text),
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

fn lists(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::{Array, Number as Num};
    Some(match (name, arguments) {
        ("first" | "last" | "uniq" | "reverse", [Array(_)]) | ("concat", _) => return own(name, arguments),
        ("list", values) => Ok(Array(values.to_vec())),
        ("rest", [Array(list)]) => Ok(list.iter().skip(1).cloned().collect()),
        ("initial", [Array(list)]) => Ok(list.iter().take(list.len().saturating_sub(1)).cloned().collect()),
        ("append", [Array(list), value]) => Ok(list.iter().chain([value]).cloned().collect()),
        ("prepend", [Array(list), value]) => Ok([value].into_iter().chain(list).cloned().collect()),
        ("without", [Array(list), values @ ..]) => {
            Ok(list.iter().filter(|value| !values.contains(value)).cloned().collect())
        }
        ("compact", [Array(list)]) => Ok(list.iter().filter(|value| !is_empty(value)).cloned().collect()),
        ("has", [value, Array(list)]) => Ok(list.contains(value).into()),
        ("slice", [Array(list), bounds @ ..]) if bounds.len() <= 2 => {
            let bound = |at: usize, usual: usize| {
                let given = bounds.get(at).and_then(Value::as_i64);
                given.map_or(usual, |given| usize::try_from(given).unwrap_or(0))
            };
            Ok(list.iter().take(bound(1, list.len())).skip(bound(0, 0)).cloned().collect())
        }
        ("chunk", [Num(size), Array(list)]) => match usize::try_from(size.as_i64().unwrap_or(0)) {
            Ok(size @ 1..) => Ok(list.chunks(size).map(|chunk| Array(chunk.to_vec())).collect()),
            _ => Err("the size of a chunk is at least 1".to_owned()),
        },
        ("sortAlpha", [Array(list)]) => {
            let texts: Vec<Value> = list.iter().map(|value| text(value).into()).collect();
            sort_by(texts.clone(), &texts, None)
        }
        ("toStrings", [Array(list)]) => Ok(list.iter().map(text).collect()),
        ("until", [end @ Num(_)]) => integer(end).and_then(|end| until(0, end, if end < 0 { -1 } else { 1 })),
        ("untilStep", [from @ Num(_), end @ Num(_), step @ Num(_)]) => {
            integer(from).and_then(|from| until(from, integer(end)?, integer(step)?))
        }
        _ => return None,
    })
}

fn maps(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::{Object, String as Text};
    Some(match (name, arguments) {
        ("keys" | "values", [Object(_)]) => return own(name, arguments),
        ("dict", values) => Ok(values
            .chunks(2)
            .map(|pair| {
                (
                    pair.first().map(text).unwrap_or_default(),
                    pair.get(1).cloned().unwrap_or_else(|| "".into()),
                )
            })
            .collect::<Map<_, _>>()
            .into()),
        ("get", [Object(map), Text(key)]) => Ok(map.get(key).cloned().unwrap_or_else(|| "".into())),
        ("hasKey", [Object(map), Text(key)]) => Ok(map.contains_key(key).into()),
        ("set", [Object(map), Text(key), value]) => {
            let mut map = map.clone();
            map.insert(key.clone(), value.clone());
            Ok(Object(map))
        }
        ("unset", [Object(map), Text(key)]) => {
            Ok(map.iter().filter(|(name, _)| *name != key).map(owned).collect::<Map<_, _>>().into())
        }
        ("pick" | "omit", [Object(map), keys @ ..]) => {
            let is_named = |name: &String| keys.iter().any(|key| key.as_str() == Some(name));
            let kept = map.iter().filter(|(key, _)| is_named(key) == (name == "pick"));
            Ok(kept.map(owned).collect::<Map<_, _>>().into())
        }
        ("pluck", [Text(key), maps @ ..]) => {
            Ok(maps.iter().filter_map(|map| map.get(key)).cloned().collect())
        }
        ("dig", [keys @ .., usual, map @ Object(_)]) if !keys.is_empty() => {
            let found = keys.iter().try_fold(map, |map, key| map.get(key.as_str()?));
            Ok(found.unwrap_or(usual).clone())
        }
        ("merge" | "mergeOverwrite", [first @ Object(_), others @ ..])
            if others.iter().all(Value::is_object) =>
        {
            Ok(others.iter().fold(first.clone(), |whole, other| merged(whole, other, name != "merge")))
        }
        ("deepCopy", [value]) => Ok(value.clone()),
        _ => return None,
    })
}

fn numbers(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    let all = |operation: fn(f64, f64) -> f64| {
        let numbers = arguments.iter().map(number).collect::<Result<Vec<_>, _>>();
        numbers.and_then(|numbers| decimal(numbers.into_iter().reduce(operation).unwrap_or_default()))
    };
    Some(match (name, arguments) {
        ("floor" | "ceil" | "int" | "float", [_]) => return own(name, arguments),
        ("round", [value, digits]) => number(value).and_then(|number| {
            let digits = i32::try_from(whole(digits)?).map_err(|error| error.to_string())?.clamp(-300, 300);
            let factor = 10_f64.powi(digits);
            decimal((number * factor).round() / factor)
        }),
        ("atoi" | "int64", [value]) => to_integer(value),
        ("float64", [value]) => to_float(value),
        ("add", numbers @ [_, ..]) => numbers
            .iter()
            .try_fold(0, |sum, number| {
                whole(number).and_then(|number| i64::checked_add(sum, number).ok_or_else(too_large))
            })
            .map(Value::from),
        ("mul", numbers @ [_, ..]) => numbers
            .iter()
            .try_fold(1, |product, number| {
                whole(number).and_then(|number| i64::checked_mul(product, number).ok_or_else(too_large))
            })
            .map(Value::from),
        ("add1", [number]) => whole(number).map(|number| number.saturating_add(1).into()),
        ("sub", [a, b]) => both(a, b, i64::checked_sub),
        ("div", [a, b]) => both(a, b, i64::checked_div),
        ("mod", [a, b]) => both(a, b, i64::checked_rem),
        ("addf", [_, ..]) => all(|a, b| a + b),
        ("subf", [_, ..]) => all(|a, b| a - b),
        ("mulf", [_, ..]) => all(|a, b| a * b),
        ("divf", [_, ..]) => all(|a, b| a / b),
        ("max" | "maxf", numbers @ [_, ..]) => extreme(numbers, |a, b| a > b),
        ("min" | "minf", numbers @ [_, ..]) => extreme(numbers, |a, b| a < b),
        _ => return None,
    })
}

fn others(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::String as Text;
    Some(match (name, arguments) {
        ("default", [other, value]) => Ok(if is_empty(value) { other.clone() } else { value.clone() }),
        ("coalesce", values) => Ok(values.iter().find(|value| !is_empty(value)).cloned().unwrap_or_default()),
        ("empty", [value]) => Ok(is_empty(value).into()),
        ("all", values) => Ok((!values.iter().any(is_empty)).into()),
        ("any", values) => Ok((!values.iter().all(is_empty)).into()),
        ("ternary", [yes, no, Value::Bool(truth)]) => Ok(if *truth { yes.clone() } else { no.clone() }),
        ("fail", [Text(message)]) => Err(message.clone()),
        ("toJson" | "toRawJson", [value]) => Ok(value.to_string().into()),
        ("toPrettyJson", [value]) => {
            serde_json::to_string_pretty(value).map(Value::from).map_err(|error| error.to_string())
        }
        ("fromJson", [Text(json)]) => from_json(json),
        ("deepEqual", [a, b]) => Ok((a == b).into()),
        ("kindOf", [value]) => Ok(go_kind(value).into()),
        ("kindIs", [Text(name), value]) => Ok((go_kind(value) == name).into()),
        ("now", []) => Ok(dates::now()),
        ("date", [Text(layout), moment]) => dates::format(layout, moment, ""),
        ("dateInZone", [Text(layout), moment, Text(zone)]) => dates::format(layout, moment, zone),
        ("htmlDate", [moment]) => dates::format("2006-01-02", moment, ""),
        ("dateModify", [Text(duration), moment]) => dates::modify(duration, moment),
        ("toDate", [Text(layout), Text(text)]) => dates::parse(layout, text),
        ("unixEpoch", [moment]) => dates::seconds(moment).map(|seconds| text(&seconds).into()),
        _ => return None,
    })
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// How many: below zero all.
fn most_of(number: &Number) -> usize {
    usize::try_from(number.as_i64().unwrap_or(-1)).unwrap_or(usize::MAX)
}

fn too_large() -> String {
    "the number is too large".to_owned()
}

/// A whole number, or text that says one.
fn whole(value: &Value) -> Result<i64, String> {
    to_integer(value).and_then(|number| integer(&number))
}

fn number(value: &Value) -> Result<f64, String> {
    to_float(value).map(|number| number.as_f64().unwrap_or_default())
}

fn decimal(number: f64) -> Result<Value, String> {
    Number::from_f64(number).map(Value::Number).ok_or_else(|| "there is no such number".to_owned())
}

fn both(a: &Value, b: &Value, operation: fn(i64, i64) -> Option<i64>) -> Result<Value, String> {
    operation(whole(a)?, whole(b)?).map(Value::from).ok_or_else(|| "there is no such number".to_owned())
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

fn until(from: i64, end: i64, step: i64) -> Result<Value, String> {
    if step == 0 || (end > from) != (step > 0) {
        return Ok(Value::Array(Vec::new()));
    }
    if end.abs_diff(from) / step.unsigned_abs() >= 100_000 {
        return Err("the list becomes too long".to_owned());
    }
    let numbers = std::iter::successors(Some(from), |number| number.checked_add(step));
    Ok(numbers.take_while(|number| if step > 0 { *number < end } else { *number > end }).collect())
}

/// Both maps; of what is in both, `is_second` says whose stays.
fn merged(first: Value, second: &Value, is_second: bool) -> Value {
    match (first, second) {
        (Value::Object(mut first), Value::Object(second)) => {
            for (key, value) in second {
                let whole = match first.remove(key) {
                    Some(own) => merged(own, value, is_second),
                    None => value.clone(),
                };
                first.insert(key.clone(), whole);
            }
            Value::Object(first)
        }
        // As in sprig: what is empty gives way.
        (first, second) => match is_second {
            true => {
                if is_empty(second) {
                    first
                } else {
                    second.clone()
                }
            }
            false => {
                if is_empty(&first) {
                    second.clone()
                } else {
                    first
                }
            }
        },
    }
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

/// What Go calls a kind of value.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use crate::expression::{Expression, Language};
    use serde_json::{Value, json};

    #[test]
    fn each_function_yields_what_sprig_says() {
        let cases = [
            ("abbrev(5, 'hello world')", json!("he...")),
            ("add(1, '2', 3) + sprig.add1(1)", json!(8)),
            ("addf(1.5, 2)", json!(3.5)),
            ("all(1, 'x') && !sprig.all(0) && sprig.any(0, 1)", json!(true)),
            ("append([1], 2)", json!([1, 2])),
            ("atoi('7')", json!(7)),
            ("b64dec(sprig.b64enc('ü'))", json!("ü")),
            ("cat('a', nil, 1)", json!("a 1")),
            ("ceil(1.2) + sprig.floor(1.8)", json!(3)),
            ("chunk(2, [1, 2, 3])", json!([[1, 2], [3]])),
            ("coalesce('', 0, 'x')", json!("x")),
            ("compact([1, 0, ''])", json!([1])),
            ("concat([1], [2])", json!([1, 2])),
            ("contains('b', 'abc')", json!(true)),
            ("date('2006', '2026-03-04T00:00:00Z')", json!("2026")),
            ("dateInZone('15', '2026-03-04T00:00:00Z', 'Asia/Tokyo')", json!("09")),
            ("dateModify('1h', '2026-03-04T00:00:00Z')", json!("2026-03-04T01:00:00Z")),
            ("deepEqual(sprig.deepCopy([1]), [1])", json!(true)),
            ("default('d', '')", json!("d")),
            ("dict('a', 1, 'b')", json!({"a": 1, "b": ""})),
            ("dig('a', 'b', 'no', {'a': {'b': 1}})", json!(1)),
            ("dig('a', 'c', 'no', {'a': {'b': 1}})", json!("no")),
            ("div(7, 2) + sprig.mod(7, 2) + sprig.mul(2, 3) + sprig.sub(1, 1)", json!(10)),
            ("divf(1, 2) + sprig.mulf(2, 1.5) + sprig.subf(1, 0.5)", json!(4.0)),
            ("empty([])", json!(true)),
            ("first([1, 2]) + sprig.last([1, 2])", json!(3)),
            ("float('1.5') + sprig.float64('1')", json!(2.5)),
            ("fromJson('{\"a\": [1]}').a", json!([1])),
            ("mustFromJson('[1]')", json!([1])),
            ("get({'a': 1}, 'a')", json!(1)),
            (
                "has(1, [1]) && sprig.hasKey({'a': 1}, 'a') && sprig.hasPrefix('a', 'ab') && sprig.hasSuffix('b', 'ab')",
                json!(true),
            ),
            ("htmlDate(0)", json!("1970-01-01")),
            ("indent(2, 'a\\nb') + sprig.nindent(1, 'c')", json!("  a\n  b\n c")),
            ("initial([1, 2])", json!([1])),
            ("initials('Ada Lovelace')", json!("AL")),
            ("int('3') + sprig.int64('4')", json!(7)),
            ("join('-', [1, 'a'])", json!("1-a")),
            ("keys({'a': 1})", json!(["a"])),
            ("kindIs('slice', []) && sprig.kindOf({}) == 'map'", json!(true)),
            ("len('ab')", json!(2)),
            ("list(1, 'a')", json!([1, "a"])),
            ("lower('A') + sprig.upper('b')", json!("aB")),
            ("max(1, 3) + sprig.min(2, 1)", json!(4)),
            ("maxf(1.5, 3) + sprig.minf(2, 1.5)", json!(4.5)),
            ("merge({'a': 1}, {'a': 2, 'b': {'c': 3}})", json!({"a": 1, "b": {"c": 3}})),
            ("mergeOverwrite({'a': 1}, {'a': 2})", json!({"a": 2})),
            ("nospace('a b')", json!("ab")),
            ("omit({'a': 1, 'b': 2}, 'a')", json!({"b": 2})),
            ("pick({'a': 1, 'b': 2}, 'a')", json!({"a": 1})),
            ("pluck('a', {'a': 1}, {}, {'a': 2})", json!([1, 2])),
            ("plural('one', 'many', 2)", json!("many")),
            ("prepend([1], 0)", json!([0, 1])),
            ("quote('a', 1) + sprig.squote('b')", json!("\"a\" \"1\"'b'")),
            ("regexFind('[0-9]+', 'a12b3')", json!("12")),
            ("regexFindAll('[0-9]', 'a12b3', -1)", json!(["1", "2", "3"])),
            ("regexMatch('^a', 'ab')", json!(true)),
            ("regexQuoteMeta('1.2')", json!("1\\.2")),
            ("regexReplaceAll('(a)', 'aba', '${1}x')", json!("axbax")),
            ("regexReplaceAllLiteral('a', 'aba', '$1')", json!("$1b$1")),
            ("regexSplit(',', 'a,b,c', 2)", json!(["a", "b,c"])),
            ("repeat(2, 'ab') + sprig.replace('a', 'b', 'aa')", json!("ababbb")),
            ("rest([1, 2])", json!([2])),
            ("reverse([1, 2])", json!([2, 1])),
            ("round(1.2345, 2)", json!(1.23)),
            ("set({}, 'a', 1)", json!({"a": 1})),
            ("sha256sum('')", json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")),
            ("trunc(8, sprig.sha512sum(''))", json!("cf83e135")),
            ("slice([1, 2, 3], 1, 2)", json!([2])),
            ("sortAlpha(['b', 'a'])", json!(["a", "b"])),
            ("split('-', 'a-b')._1", json!("b")),
            ("splitList('-', 'a-b')", json!(["a", "b"])),
            ("splitn('-', 2, 'a-b-c')._1", json!("b-c")),
            ("substr(1, -1, 'abc') + sprig.substr(-1, 1, 'abc')", json!("bca")),
            ("swapcase('aB')", json!("Ab")),
            ("ternary('y', 'n', true)", json!("y")),
            ("title('ab cd') + sprig.untitle('Ab')", json!("Ab Cdab")),
            ("toDate('2006-01-02', '2026-03-04')", json!("2026-03-04T00:00:00Z")),
            ("toJson([1]) + sprig.toRawJson([2]) + sprig.toPrettyJson(3)", json!("[1][2]3")),
            ("toString(1)", json!("1")),
            ("toStrings([1])", json!(["1"])),
            (
                "trim(' a ') + sprig.trimAll('$', '$5$') + sprig.trimPrefix('a', 'ab') + sprig.trimSuffix('b', 'ab')",
                json!("a5ba"),
            ),
            ("trunc(-2, 'abc')", json!("bc")),
            ("uniq([1, 1])", json!([1])),
            ("unixEpoch('1970-01-01T00:01:00Z')", json!("60")),
            ("atoi(sprig.unixEpoch(sprig.now())) > 1700000000", json!(true)),
            ("unset({'a': 1}, 'a')", json!({})),
            ("until(3)", json!([0, 1, 2])),
            ("untilStep(3, 0, -2)", json!([3, 1])),
            ("values({'a': 1})", json!([1])),
            ("without([1, 2], 2)", json!([1])),
        ];
        let value = |text: &str| {
            Expression::parse(text, Language::Expr).and_then(|expression| expression.evaluate(&Value::Null))
        };
        for (text, expected) in &cases {
            assert_eq!(value(&format!("sprig.{text}")).as_ref(), Ok(expected), "{text}");
        }
        assert_eq!(value("sprig.fail('why')"), Err("sprig.fail(): why".to_owned()));
        let tested: String = cases.iter().map(|(text, _)| format!(" sprig.{text}")).collect();
        for name in super::NAMES.iter().filter(|name| **name != "fail") {
            assert!(tested.contains(&format!("sprig.{name}(")), "{name}");
        }
        for wrong in [
            "add(1, 'x')",
            "add(9223372036854775807, 1)",
            "trim(1, 2)",
            "chunk(0, [1])",
            "until(999999999)",
            "indent(9999999, 'a')",
            "dig({})",
            "date('2006', 'now')",
            "regexFind('(', 'a')",
        ] {
            assert!(value(&format!("sprig.{wrong}")).is_err(), "{wrong}");
        }
    }
}
