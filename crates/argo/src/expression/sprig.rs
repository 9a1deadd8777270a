//! The functions of sprig, whose subject is the last argument. Names: <https://masterminds.github.io/sprig/>.
//!
//! Texts, lists, maps and numbers have a file each below; dates, JSON and what takes any value are here. Maps are values:
//! `set`, `unset` and `merge` yield another one and change none.

mod lists;
mod maps;
mod numbers;
mod texts;

use super::dates;
use super::functions::from_json;
use super::written::{json, text};
use serde_json::Value;

/// All functions; `must…` of each is the same.
pub(super) const NAMES: &[&str] = &[
    "abbrev",
    "abbrevboth",
    "add",
    "add1",
    "addf",
    "ago",
    "all",
    "any",
    "append",
    "atoi",
    "b64dec",
    "b64enc",
    "camelcase",
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
    "date_modify",
    "deepCopy",
    "deepEqual",
    "default",
    "dict",
    "dig",
    "div",
    "divf",
    "duration",
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
    "kebabcase",
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
    "push",
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
    "seq",
    "set",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "slice",
    "snakecase",
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
    "trimall",
    "trimPrefix",
    "trimSuffix",
    "trunc",
    "tuple",
    "typeIs",
    "typeOf",
    "uniq",
    "unixEpoch",
    "unset",
    "until",
    "untilStep",
    "untitle",
    "upper",
    "values",
    "without",
    "wrap",
    "wrapWith",
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
    if let Some(plain) = plain.strip_prefix('_') {
        return plain.to_owned();
    }
    let mut rest = plain.chars();
    match rest.next() {
        Some(first) if first.is_ascii_uppercase() => first.to_ascii_lowercase().to_string() + rest.as_str(),
        _ => name.to_owned(),
    }
}

/// The value of a function; none if it does not take such arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    [texts::call, lists::call, maps::call, numbers::call, others].iter().find_map(|of| of(name, arguments))
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
        ("toJson" | "toRawJson", [value]) => Ok(json(value).into()),
        ("toPrettyJson", [value]) => {
            serde_json::to_string_pretty(value).map(Value::from).map_err(|error| error.to_string())
        }
        ("fromJson", [Text(json)]) => from_json(json),
        ("deepEqual", [a, b]) => Ok((a == b).into()),
        ("kindOf", [value]) => Ok(go_kind(value).into()),
        ("typeOf", [value]) => Ok(go_type(value).into()),
        ("typeIs", [Text(name), value]) => Ok((go_type(value) == name).into()),
        ("kindIs", [Text(name), value]) => Ok((go_kind(value) == name).into()),
        ("now", []) => Ok(dates::now()),
        ("date", [Text(layout), moment]) => dates::format(layout, moment, ""),
        ("dateInZone", [Text(layout), moment, Text(zone)]) => dates::format(layout, moment, zone),
        ("htmlDate", [moment]) => dates::format("2006-01-02", moment, ""),
        ("dateModify" | "date_modify", [Text(duration), moment]) => dates::modify(duration, moment),
        ("toDate", [Text(layout), Text(text)]) => dates::parse(layout, text),
        ("duration", [seconds]) => dates::duration(seconds),
        ("ago", [moment]) => dates::ago(moment),
        ("unixEpoch", [moment]) => dates::seconds(moment).map(|seconds| text(&seconds).into()),
        _ => return None,
    })
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

/// What Go calls the type of a value.
fn go_type(value: &Value) -> &'static str {
    match go_kind(value) {
        "invalid" => "<nil>",
        "slice" => "[]interface {}",
        "map" => "map[string]interface {}",
        kind => kind,
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
            (
                "abbrevboth(5, 10, '1234 5678 9123') + sprig.abbrevboth(0, 6, 'abcdefgh')",
                json!("...5678...abc..."),
            ),
            ("ago(sprig.now())", json!("0s")),
            ("add(1, '2', 3) + sprig.add1(1)", json!(8)),
            ("addf(1.5, 2)", json!(3.5)),
            ("all(1, 'x') && !sprig.all(0) && sprig.any(0, 1)", json!(true)),
            ("append([1], 2)", json!([1, 2])),
            ("atoi('7')", json!(7)),
            ("b64dec(sprig.b64enc('ü'))", json!("ü")),
            ("camelcase('http_server') + sprig.camelcase('_a-b c')", json!("HttpServer_ABC")),
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
            ("must_date_modify('1h', '2026-03-04T00:00:00Z')", json!("2026-03-04T01:00:00Z")),
            ("date_modify('1h', '2026-03-04T00:00:00Z')", json!("2026-03-04T01:00:00Z")),
            ("duration('95') + sprig.duration(0)", json!("1m35s0s")),
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
            ("kebabcase('FirstName') + sprig.kebabcase('HTTPServer v2')", json!("first-namehttp-server-v2")),
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
            ("push(sprig.tuple(1, 'a'), 2)", json!([1, "a", 2])),
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
            (
                "seq(3) + '/' + sprig.seq(2, -2, -2) + '/' + sprig.seq(0, 2) + '/' + sprig.seq()",
                json!("1 2 3/2 0 -2/0 1 2/"),
            ),
            ("set({}, 'a', 1)", json!({"a": 1})),
            ("sha1sum('abc')", json!("a9993e364706816aba3e25717850c26c9cd0d89d")),
            ("snakecase('FirstName') + sprig.snakecase('Jk-lM no')", json!("first_namejk_l_m_no")),
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
                "trim(' a ') + sprig.trimAll('$', '$5$') + sprig.trimall('$', '$6$') + sprig.trimPrefix('a', 'ab') + sprig.trimSuffix('b', 'ab')",
                json!("a56ba"),
            ),
            ("trunc(-2, 'abc')", json!("bc")),
            (
                "typeOf(1) + sprig.typeOf([]) + sprig.typeOf({}) + sprig.typeOf(nil)",
                json!("int[]interface {}map[string]interface {}<nil>"),
            ),
            ("typeIs('string', 'a')", json!(true)),
            ("uniq([1, 1])", json!([1])),
            ("unixEpoch('1970-01-01T00:01:00Z')", json!("60")),
            ("atoi(sprig.unixEpoch(sprig.now())) > 1700000000", json!(true)),
            ("unset({'a': 1}, 'a')", json!({})),
            ("until(3)", json!([0, 1, 2])),
            ("untilStep(3, 0, -2)", json!([3, 1])),
            ("values({'a': 1})", json!([1])),
            ("without([1, 2], 2)", json!([1])),
            ("wrap(5, 'aa bb cccccccc d')", json!("aa bb\ncccccccc\nd")),
            ("wrapWith(5, '-', 'aa bb cccccccc d')", json!("aa bb-ccccc-ccc d")),
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
