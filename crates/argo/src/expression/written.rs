//! Values as text, as Go writes them: JSON in tags, `fmt`'s `%v` in `string()`.

use serde_json::{Number, Value};

/// A value as text: what a tag is replaced with.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => json(other),
    }
}

/// What Go's `json.Marshal` makes of a value: a whole number has no decimals, however it was computed, and the keys of a
/// map are in order.
pub(crate) fn json(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => decimal(number, -6, 21),
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(json).collect();
            format!("[{}]", list.join(","))
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let pairs = entries.into_iter();
            let pairs = pairs.map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), json(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// What Go's `%v` makes of a value; lists and maps are JSON.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => padded(decimal(number, -4, 6)),
        other => text(other),
    }
}

/// The shortest digits of a number; with an exponent, if it is below `least` or at least `most`.
fn decimal(number: &Number, least: i32, most: i32) -> String {
    let number = number.as_f64().unwrap_or_default();
    let scientific = format!("{number:e}");
    let exponent: i32 = scientific.split_once('e').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0);
    if number == 0.0 || (least..most).contains(&exponent) {
        return format!("{number}");
    }
    if exponent < 0 { scientific } else { scientific.replace('e', "e+") }
}

/// At least two digits of an exponent.
fn padded(number: String) -> String {
    match number.split_once(['+', '-']).filter(|_| number.contains('e')) {
        Some((_, digits)) if digits.len() == 1 => {
            let (before, last) = number.split_at(number.len() - 1);
            format!("{before}0{last}")
        }
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        // The number, Go's JSON, and Go's `%v`.
        for (number, marshalled, printed) in [
            (3.0, "3", "3"),
            (-2.0, "-2", "-2"),
            (0.0, "0", "0"),
            (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
            (1e6, "1000000", "1e+06"),
            (123_456.5, "123456.5", "123456.5"),
            (1e20, "100000000000000000000", "1e+20"),
            (1e21, "1e+21", "1e+21"),
            (-1.5e300, "-1.5e+300", "-1.5e+300"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "0.00001", "1e-05"),
            (0.000_001, "0.000001", "1e-06"),
            (1.5e-7, "1.5e-7", "1.5e-07"),
        ] {
            assert_eq!(super::json(&json!(number)), marshalled);
            assert_eq!(shown(&json!(number)), printed);
        }
        let value = json!({"a": [1, 2.0, null, "x\"y"]});
        assert_eq!(text(&value), r#"{"a":[1,2,null,"x\"y"]}"#);
        assert_eq!(text(&json!(null)), "");
    }
}
