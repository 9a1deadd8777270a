//! Numbers; texts that say one are taken for it.

use crate::expression::evaluate::integer;
use crate::expression::functions::{extreme, own, to_float, to_integer};
use serde_json::{Number, Value};

/// The value of a function; none if it is not of these, or does not take such arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
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
