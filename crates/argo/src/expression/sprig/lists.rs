//! Lists, which are never changed: each function yields another one.

use super::is_empty;
use crate::expression::evaluate::integer;
use crate::expression::functions::{join, own, sort_by};
use crate::expression::written::text;
use serde_json::Value;

/// The value of a function; none if it is not of these, or does not take such arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    use Value::{Array, Number as Num};
    Some(match (name, arguments) {
        ("first" | "last" | "uniq" | "reverse", [Array(_)]) | ("concat", _) => return own(name, arguments),
        ("list" | "tuple", values) => Ok(Array(values.to_vec())),
        ("rest", [Array(list)]) => Ok(list.iter().skip(1).cloned().collect()),
        ("initial", [Array(list)]) => Ok(list.iter().take(list.len().saturating_sub(1)).cloned().collect()),
        ("append" | "push", [Array(list), value]) => Ok(list.iter().chain([value]).cloned().collect()),
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
        ("seq", numbers) => return Some(seq(numbers)),
        _ => return None,
    })
}

/// The numbers of coreutils' `seq`, with blanks between: both ends belong to it.
fn seq(numbers: &[Value]) -> Result<Value, String> {
    let numbers = numbers.iter().map(integer).collect::<Result<Vec<_>, _>>()?;
    let towards = |from: i64, to: i64| if to < from { -1 } else { 1 };
    let (from, step, to) = match numbers[..] {
        [to] => (1, towards(1, to), to),
        [from, to] => (from, towards(from, to), to),
        [from, step, to] => (from, step, to),
        _ => return Ok("".into()),
    };
    let list = until(from, to.saturating_add(step.signum()), step)?;
    join(list.as_array().map(Vec::as_slice).unwrap_or_default(), " ")
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
