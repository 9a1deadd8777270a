//! CEL expressions from resources: which route an event takes, when a circuit breaker opens.
//!
//! Language: <https://github.com/google/cel-spec>. An app may bring expressions, too, in its answer to
//! `/dapr/subscribe`, so they are bounded: the parser and the interpreter are recursive.

use cel::{Context, Program, Value};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// Longest expression, in bytes.
const MAX_BYTES: usize = 2048;

/// Deepest nesting, counted in brackets and in signs that stand side by side.
const MAX_NESTING: usize = 32;

/// Stack of the thread that parses; the parser needs kilobytes for each level.
const PARSER_STACK: usize = 16 << 20;

/// An expression, ready to be evaluated. Cheap to clone.
#[derive(Clone)]
pub struct Expression {
    program: Arc<Program>,
    source: Arc<str>,
}

impl Expression {
    /// Reads an expression; the error says what is wrong with it.
    pub fn parse(source: &str) -> Result<Expression, String> {
        if source.len() > MAX_BYTES {
            return Err(format!("the expression has {} bytes, more than {MAX_BYTES}", source.len()));
        }
        if nesting(source) > MAX_NESTING {
            return Err(format!("the expression is nested deeper than {MAX_NESTING} levels"));
        }
        let text = source.to_owned();
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK);
        let parser = parser.spawn(move || Program::compile(&text).map_err(|error| error.to_string()));
        let parser = parser.map_err(|error| format!("cannot parse: {error}"))?;
        let program = parser.join().map_err(|_| "the expression cannot be parsed".to_owned())??;
        Ok(Expression { program: Arc::new(program), source: source.into() })
    }

    /// Whether the expression is true. Anything but true or false is an error.
    pub fn is_true<V: Serialize>(&self, variables: &[(&str, V)]) -> Result<bool, String> {
        let mut context = Context::default();
        for (name, value) in variables {
            context.add_variable(*name, value).map_err(|error| format!("variable {name}: {error}"))?;
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(_) => Err(format!("{:?} is neither true nor false", self.source)),
            Err(error) => Err(format!("{:?}: {error}", self.source)),
        }
    }
}

fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest, mut signs) = (0_usize, 0, 0);
    for character in source.chars() {
        match character {
            '(' | '[' | '{' | '?' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match character {
            '!' | '-' => signs += 1,
            character if character.is_whitespace() => {}
            _ => signs = 0,
        }
        deepest = deepest.max(depth + signs);
    }
    deepest
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_over_an_event() {
        let event = json!({"type": "order.new", "data": {"total": 12, "tags": ["a"]}});
        for (source, expected) in [
            ("event.type == 'order.new'", Ok(true)),
            ("event.type.startsWith('order.') && event.data.total > 10", Ok(true)),
            ("event.data.total == 12.0", Ok(true)),
            ("'b' in event.data.tags", Ok(false)),
            ("has(event.data.missing)", Ok(false)),
            ("event.data.missing == 1", Err(())),
            ("event.type", Err(())),
        ] {
            let found = Expression::parse(source).unwrap().is_true(&[("event", &event)]);
            assert_eq!(found.map_err(|_| ()), expected, "{source}");
        }
    }

    #[test]
    fn hostile_expressions_are_refused() {
        let brackets = "(".repeat(1000) + &")".repeat(1000);
        for source in ["", "1 +", "event.", &"!".repeat(1000), &brackets, &"a".repeat(5000), "\u{0}", "x ? y"]
        {
            assert!(Expression::parse(source).is_err(), "{source:.20}");
        }
        // As much as is allowed can also be evaluated on a small stack.
        let wide = vec!["1"; 900].join("+") + "==1";
        for source in ["[".repeat(30) + &"]".repeat(30) + "==[]", "!".repeat(30) + "true", wide] {
            let expression = Expression::parse(&source).unwrap();
            let evaluated = std::thread::Builder::new()
                .stack_size(2 << 20)
                .spawn(move || expression.is_true::<()>(&[]).is_ok());
            evaluated.unwrap().join().unwrap();
        }
    }
}
