//! A tree and variables into a value.

use super::functions::{self, told};
use super::parser::Node;
use super::written::text;
use dhow_resources::error::quote;
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::cmp::Ordering;

/// Most nodes that one evaluation visits; predicates in predicates multiply.
const MAX_WORK: usize = 1_000_000;

/// Longest list or text that comes out of a range or a function, in elements or bytes.
pub(super) const MAX_SIZE: usize = 1 << 20;

struct Evaluation<'a> {
    variables: &'a Value,
    work: Cell<usize>,
}

/// What a predicate and `let` add to the variables.
#[derive(Clone, Copy, Default)]
struct Local<'a> {
    element: Option<&'a Value>,
    index: Option<usize>,
    accumulator: Option<&'a Value>,
    name: Option<(&'a str, &'a Value, Option<&'a Local<'a>>)>,
}

pub(super) fn evaluate(node: &Node, variables: &Value) -> Result<Value, String> {
    let evaluation = Evaluation { variables, work: Cell::new(0) };
    evaluation.value(node, &Local::default())
}

// === impl Evaluation ===

impl Evaluation<'_> {
    fn value(&self, node: &Node, local: &Local<'_>) -> Result<Value, String> {
        self.work.set(self.work.get() + 1);
        if self.work.get() > MAX_WORK {
            return Err("the expression takes too long".to_owned());
        }
        Ok(match node {
            Node::Literal(value) => value.clone(),
            Node::Variable(name) => self.variable(name, local)?,
            Node::Element => local.element.cloned().ok_or("# has a meaning in predicates only")?,
            Node::Index => local.index.ok_or("#index has a meaning in predicates only")?.into(),
            Node::Accumulator => local.accumulator.cloned().ok_or("#acc has a meaning in reduce() only")?,
            Node::Member { of, index, lenient } => {
                let of = self.value(of, local)?;
                if *lenient && of.is_null() {
                    return Ok(Value::Null);
                }
                let index = self.value(index, local)?;
                member(&of, &index)?
            }
            Node::Slice { of, from, to } => {
                let bound = |node: &Option<Box<Node>>| match node {
                    Some(node) => self.value(node, local).and_then(|value| integer(&value)).map(Some),
                    None => Ok(None),
                };
                slice(&self.value(of, local)?, bound(from)?, bound(to)?)?
            }
            Node::List(nodes) => {
                Value::Array(nodes.iter().map(|node| self.value(node, local)).collect::<Result<_, _>>()?)
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    map.insert(text(&self.value(key, local)?), self.value(value, local)?);
                }
                Value::Object(map)
            }
            Node::Not(node) => Value::Bool(!self.truth(node, local)?),
            Node::Negative(node) => match self.value(node, local)? {
                Value::Number(number) => match number.as_i64() {
                    Some(number) => number.checked_neg().ok_or("the number is too large")?.into(),
                    None => (-number.as_f64().unwrap_or_default()).into(),
                },
                other => return Err(format!("{} is no number", told(&other))),
            },
            Node::Binary { sign, left, right } => self.binary(sign, left, right, local)?,
            Node::Choice { condition, yes, no } => {
                let chosen = if self.truth(condition, local)? { yes } else { no };
                self.value(chosen, local)?
            }
            Node::Call { name, arguments } => self.call(name, arguments, local)?,
            Node::Let { name, value, body } => {
                let value = self.value(value, local)?;
                let inner = Local { name: Some((name, &value, Some(local))), ..*local };
                self.value(body, &inner)?
            }
        })
    }

    fn variable(&self, name: &str, local: &Local<'_>) -> Result<Value, String> {
        let mut scope = Some(local);
        while let Some(found) = scope.and_then(|local| local.name) {
            let (known, value, outer) = found;
            if known == name {
                return Ok(value.clone());
            }
            scope = outer;
        }
        self.variables.get(name).cloned().ok_or_else(|| format!("there is no variable {}", quote(name)))
    }

    fn truth(&self, node: &Node, local: &Local<'_>) -> Result<bool, String> {
        match self.value(node, local)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(format!("{} is neither true nor false", told(&other))),
        }
    }

    fn binary(&self, sign: &str, left: &Node, right: &Node, local: &Local<'_>) -> Result<Value, String> {
        match sign {
            "or" => return Ok(Value::Bool(self.truth(left, local)? || self.truth(right, local)?)),
            "and" => return Ok(Value::Bool(self.truth(left, local)? && self.truth(right, local)?)),
            "??" => {
                return match self.value(left, local)? {
                    Value::Null => self.value(right, local),
                    value => Ok(value),
                };
            }
            _ => {}
        }
        let (left, right) = (self.value(left, local)?, self.value(right, local)?);
        operate(sign, &left, &right)
    }

    fn call(&self, name: &str, arguments: &[Node], local: &Local<'_>) -> Result<Value, String> {
        if let [list, predicate, rest @ ..] = arguments
            && functions::PREDICATES.contains(&name)
        {
            let list = self.value(list, local)?;
            let Value::Array(list) = list else { return Err(format!("{name}() takes a list")) };
            let rest = rest.iter().map(|node| self.value(node, local)).collect::<Result<Vec<_>, _>>()?;
            return self
                .predicate(name, list, predicate, &rest, local)
                .map_err(|error| format!("{name}(): {error}"));
        }
        let values = arguments.iter().map(|node| self.value(node, local)).collect::<Result<Vec<_>, _>>()?;
        functions::call(name, &values).map_err(|error| format!("{name}(): {error}"))
    }

    /// A function that asks something about each element of a list.
    fn predicate(
        &self,
        name: &str,
        list: Vec<Value>,
        predicate: &Node,
        rest: &[Value],
        local: &Local<'_>,
    ) -> Result<Value, String> {
        let with = |accumulator: Option<&Value>, (index, element): (usize, &Value)| {
            let inner = Local { element: Some(element), index: Some(index), accumulator, name: local.name };
            self.value(predicate, &inner)
        };
        if name == "reduce" {
            let mut elements = list.iter().enumerate();
            let first = rest.first().or_else(|| elements.next().map(|(_, element)| element));
            let first = first.cloned().ok_or("the list is empty, and there is no third argument")?;
            return elements.try_fold(first, |sum, element| with(Some(&sum), element));
        }
        let mut answers = Vec::new();
        for element in list.iter().enumerate() {
            let answer = with(local.accumulator, element)?;
            // What is known is not asked any more: the rest may be of a kind that cannot be.
            let is_known = match name {
                "any" | "none" | "find" | "findIndex" => answer == Value::Bool(true),
                "all" => answer == Value::Bool(false),
                _ => false,
            };
            answers.push(answer);
            if is_known {
                break;
            }
        }
        match name {
            "map" => return Ok(Value::Array(answers)),
            "sum" => return functions::sum(&answers),
            "sortBy" => return functions::sort_by(list, &answers, rest.first()),
            "groupBy" => {
                let mut groups = Map::new();
                for (key, element) in answers.iter().zip(list) {
                    let group = groups.entry(text(key)).or_insert_with(|| Value::Array(Vec::new()));
                    group.as_array_mut().into_iter().for_each(|group| group.push(element.clone()));
                }
                return Ok(Value::Object(groups));
            }
            _ => {}
        }
        let truth = |answer: &Value| {
            answer.as_bool().ok_or_else(|| format!("{} is neither true nor false", told(answer)))
        };
        let answers: Vec<bool> = answers.iter().map(truth).collect::<Result<_, _>>()?;
        let count = answers.iter().filter(|answer| **answer).count();
        let (first, last) = (answers.iter().position(|is| *is), answers.iter().rposition(|is| *is));
        let element = |at: Option<usize>| at.and_then(|at| list.get(at).cloned()).unwrap_or_default();
        let index = |at: Option<usize>| at.map_or_else(|| Value::from(-1), Value::from);
        Ok(match name {
            "filter" => {
                list.iter().zip(&answers).filter(|(_, is)| **is).map(|(value, _)| value.clone()).collect()
            }
            "any" => Value::Bool(count > 0),
            "all" => Value::Bool(count == list.len()),
            "none" => Value::Bool(count == 0),
            "one" => Value::Bool(count == 1),
            "count" => count.into(),
            "find" => element(first),
            "findLast" => element(last),
            "findIndex" => index(first),
            _ => index(last),
        })
    }
}

fn operate(sign: &str, left: &Value, right: &Value) -> Result<Value, String> {
    Ok(match sign {
        "==" => Value::Bool(equal(left, right)),
        "!=" => Value::Bool(!equal(left, right)),
        "<" | ">" | "<=" | ">=" => {
            let order = match (left, right) {
                (Value::Number(left), Value::Number(right)) => float(left).partial_cmp(&float(right)),
                (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
                _ => None,
            };
            let kinds = || format!("{} {sign} {} compares different kinds of value", told(left), told(right));
            let order = order.ok_or_else(kinds)?;
            Value::Bool(match sign {
                "<" => order == Ordering::Less,
                ">" => order == Ordering::Greater,
                "<=" => order != Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
        "in" => Value::Bool(contains(right, left)?),
        "not in" => Value::Bool(!contains(right, left)?),
        "matches" => Value::Bool(matches(left, right)?),
        "not matches" => Value::Bool(!matches(left, right)?),
        "contains" | "not contains" | "startsWith" | "endsWith" => {
            let (Value::String(left), Value::String(right)) = (left, right) else {
                return Err(format!("{sign} compares texts"));
            };
            Value::Bool(match sign {
                "contains" => left.contains(right.as_str()),
                "not contains" => !left.contains(right.as_str()),
                "startsWith" => left.starts_with(right.as_str()),
                _ => left.ends_with(right.as_str()),
            })
        }
        ".." => {
            let (from, to) = (integer(left)?, integer(right)?);
            if to.saturating_sub(from) >= 100_000 {
                return Err(format!("{from}..{to} is too long a list"));
            }
            (from..=to).collect()
        }
        "+" if left.is_string() && right.is_string() => {
            let sum = text(left) + &text(right);
            if sum.len() > MAX_SIZE {
                return Err("the text becomes too long".to_owned());
            }
            sum.into()
        }
        _ => arithmetic(sign, left, right)?,
    })
}

fn arithmetic(sign: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let (Value::Number(a), Value::Number(b)) = (left, right) else {
        return Err(format!("{} {sign} {}: both must be numbers", told(left), told(right)));
    };
    let overflow = || format!("{left} {sign} {right} is too large");
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        let whole = match sign {
            "+" => Some(a.checked_add(b)),
            "-" => Some(a.checked_sub(b)),
            "*" => Some(a.checked_mul(b)),
            "%" if b == 0 => return Err(format!("{left} % 0 has no value")),
            "%" => Some(a.checked_rem(b)),
            _ => None,
        };
        if let Some(whole) = whole {
            return Ok(whole.ok_or_else(overflow)?.into());
        }
    }
    let (a, b) = (float(a), float(b));
    let value = match sign {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "%" => a % b,
        _ => a.powf(b),
    };
    Number::from_f64(value).map(Value::Number).ok_or_else(overflow)
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

/// Numbers are equal by value; values of different kinds never are.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => float(left) == float(right),
        (left, right) => left == right,
    }
}

fn contains(whole: &Value, part: &Value) -> Result<bool, String> {
    match whole {
        Value::Array(list) => Ok(list.iter().any(|element| equal(element, part))),
        Value::Object(map) => Ok(map.contains_key(&text(part))),
        // govaluate: a single element needs no list.
        other => Ok(equal(other, part)),
    }
}

fn matches(text: &Value, pattern: &Value) -> Result<bool, String> {
    let (Value::String(text), Value::String(pattern)) = (text, pattern) else {
        return Err("a regular expression is a text, and is for texts".to_owned());
    };
    functions::regex(pattern).map(|pattern| pattern.is_match(text))
}

pub(super) fn integer(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("{} is no whole number", told(value)))
}

fn member(of: &Value, index: &Value) -> Result<Value, String> {
    match of {
        Value::Object(map) => {
            let name = text(index);
            // As in expr: a map without that key has nothing there.
            Ok(map.get(&name).cloned().unwrap_or_default())
        }
        Value::Array(list) => {
            let at = match index {
                Value::String(digits) => {
                    digits.parse().map_err(|_| format!("a list has no {}", quote(digits)))?
                }
                index => integer(index)?,
            };
            let place = if at < 0 { at.saturating_add(i64::try_from(list.len()).unwrap_or(0)) } else { at };
            let found = usize::try_from(place).ok().and_then(|at| list.get(at));
            found.cloned().ok_or_else(|| format!("the list has {} elements, not one at {at}", list.len()))
        }
        other => Err(format!("{} has no fields", functions::kind(other))),
    }
}

fn slice(of: &Value, from: Option<i64>, to: Option<i64>) -> Result<Value, String> {
    let bounds = |length: usize| {
        let place = |at: i64| {
            let at = if at < 0 { at.saturating_add(i64::try_from(length).unwrap_or(0)) } else { at };
            usize::try_from(at).unwrap_or(0).min(length)
        };
        let (from, to) = (from.map_or(0, place), to.map_or(length, place));
        (from, to.max(from))
    };
    match of {
        Value::Array(list) => {
            let (from, to) = bounds(list.len());
            Ok(list.iter().take(to).skip(from).cloned().collect())
        }
        Value::String(text) => {
            let (from, to) = bounds(text.chars().count());
            Ok(text.chars().take(to).skip(from).collect::<String>().into())
        }
        other => Err(format!("{} has no parts", functions::kind(other))),
    }
}
