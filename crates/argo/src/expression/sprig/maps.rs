//! Maps, which are never changed: each function yields another one.

use super::is_empty;
use crate::expression::functions::own;
use crate::expression::written::text;
use serde_json::{Map, Value};

/// The value of a function; none if it is not of these, or does not take such arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
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

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
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
