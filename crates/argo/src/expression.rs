//! Argo's two expression languages, read into one tree.
//!
//! | file | subject |
//! |---|---|
//! | `lexer` | text into tokens |
//! | `parser` | tokens into a tree |
//! | `evaluate` | a tree and variables into a value |
//! | `functions` | what may be called: expr's and Argo's |
//! | `sprig` | the same of sprig |
//! | `written` | values as text, as Go writes them |
//! | `dates` | moments, and Go's way to write them |
//!
//! `{{=…}}`, `expression` and `fromExpression` are in the language of expr
//! (<https://expr-lang.org/docs/language-definition>) with Argo's additions (`asInt`, `asFloat`, `string`, `jsonpath`,
//! `sprig.…`); `when` is in that of govaluate, where words without quotes are texts. Both are bounded in length, depth
//! and in the size of what they yield, because a workflow may come from anybody.

mod dates;
mod evaluate;
mod functions;
mod lexer;
mod parser;
mod sprig;
mod written;

pub(crate) use dates::timezone;
use serde_json::Value;
pub(crate) use written::{json, text};

/// Longest expression, in bytes.
const MAX_BYTES: usize = 16 << 10;

/// Which of the two languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// expr: words are variables.
    Expr,
    /// govaluate, as Argo uses it: words are texts.
    When,
}

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Expression {
    root: parser::Node,
}

// === impl Expression ===

impl Expression {
    /// Reads an expression; the error says what is wrong with it, and where.
    pub fn parse(text: &str, language: Language) -> Result<Expression, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("the expression has {} bytes, more than {MAX_BYTES}", text.len()));
        }
        let root = parser::parse(lexer::tokens(text, language)?, language)?;
        let mut calls = Vec::new();
        root.collect_calls(&mut calls);
        calls.into_iter().try_for_each(functions::check)?;
        Ok(Expression { root })
    }

    /// Its value, with these variables.
    pub fn evaluate(&self, variables: &Value) -> Result<Value, String> {
        evaluate::evaluate(&self.root, variables)
    }

    /// Whether it is true; anything but true or false is an error.
    pub fn is_true(&self, variables: &Value) -> Result<bool, String> {
        match self.evaluate(variables)? {
            Value::Bool(answer) => Ok(answer),
            other => Err(format!("it is {}, which is neither true nor false", json(&other))),
        }
    }

    /// The variables that it names, as dotted paths, such as `steps.a.outputs.result`.
    pub fn variables(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.root.collect_variables(&mut found);
        found
    }
}

/// Whether a step runs, by its `when` after all tags were put in.
pub fn when(text: &str) -> Result<bool, String> {
    if text.trim().is_empty() {
        return Ok(true);
    }
    let hint = "(text that is more than one word needs quotes around it)";
    let expression = Expression::parse(text, Language::When).map_err(|error| format!("{error} {hint}"))?;
    expression.is_true(&Value::Null).map_err(|error| format!("{error} {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expr() {
        let variables = json!({
            "inputs": {"parameters": {"n": "7", "name": "Ada", "with-dash": "d", "list": "[3,1,2]"}},
            "steps": {"my-step": {"outputs": {"result": "{\"a\":[1,2]}"}, "status": "Succeeded"}},
            "retries": "2", "item": {"os": "debian", "n": 3},
        });
        let cases = [
            ("1 + 2 * 3", json!(7)),
            ("2 ** 3 ** 2", json!(512.0)),
            ("7 / 2", json!(3.5)),
            ("7 % 4", json!(3)),
            ("-3 + 1", json!(-2)),
            ("'a' + \"b\"", json!("ab")),
            ("`raw\\n`", json!("raw\\n")),
            ("inputs.parameters.name == 'Ada' ? 'yes' : 'no'", json!("yes")),
            ("asInt(inputs.parameters.n) > 5 && !(1 > 2)", json!(true)),
            ("asInt(inputs.parameters.n) + 1", json!(8)),
            ("inputs.parameters['with-dash']", json!("d")),
            ("steps['my-step'].outputs.result", json!("{\"a\":[1,2]}")),
            ("steps['my-step'].status == \"Succeeded\" and true", json!(true)),
            ("jsonpath(steps['my-step'].outputs.result, '$.a[1]')", json!(2)),
            ("jsonpath(steps['my-step'].outputs.result, '$.a')", json!([1, 2])),
            ("string(3) + '!'", json!("3!")),
            ("asFloat('1.5') * 2", json!(3.0)),
            ("item.os startsWith 'deb'", json!(true)),
            ("item.os matches '^d.*n$'", json!(true)),
            ("'b' in ['a', 'b']", json!(true)),
            ("'c' not in ['a', 'b']", json!(true)),
            ("'os' in item", json!(true)),
            ("len('héllo')", json!(5)),
            ("map([1, 2, 3], {# * 2})", json!([2, 4, 6])),
            ("filter(1..5, {# % 2 == 1})", json!([1, 3, 5])),
            ("filter(map([1,2,3], # + 1), # > 2)", json!([3, 4])),
            ("any([1,2], # == 2) and all([1,2], # > 0) and none([1], # > 1)", json!(true)),
            ("[1,2,3][1:]", json!([2, 3])),
            ("[1,2,3][-1]", json!(3)),
            ("{'a': 1, b: 2}.b", json!(2)),
            ("item?.nothing?.more ?? 'else'", json!("else")),
            ("toJson({'a': [1, true, nil]})", json!("{\"a\":[1,true,null]}")),
            ("fromJson(inputs.parameters.list) | sort() | join(',')", json!("1,2,3")),
            ("sprig.upper('x') + sprig.trim(' y ')", json!("Xy")),
            ("sprig.replace('a', 'b', 'aa') + sprig.trunc(2, 'xyz')", json!("bbxy")),
            ("split('a,b', ',')", json!(["a", "b"])),
            ("upper('x') + trim(' y ') + lower('Z')", json!("Xyz")),
            ("sprig.default('d', '')", json!("d")),
            ("max(1, 3) + min(4, 2) + abs(-1)", json!(6)),
            ("int('4') + floor(1.5)", json!(5)),
            ("1 < 2 or unknown.field", json!(true)),
            ("let x = 3; x * x", json!(9)),
            ("find(1..5, # > 2) + findLast(1..5, # < 3) + findIndex([4, 5], # == 5)", json!(6)),
            ("findLastIndex([4, 4], # == 5)", json!(-1)),
            ("find([1, 'a'], # > 0)", json!(1)),
            ("count(1..4, # > 2) + count([true, false])", json!(3)),
            ("one([1, 2], # == 1)", json!(true)),
            ("reduce(1..4, #acc + #, 10) + reduce([1, 2], #acc * #)", json!(22)),
            ("filter(['a', 'b'], #index > 0)", json!(["b"])),
            ("sum([{'n': 1}, {'n': 2}], .n) + sum([1, 2])", json!(6)),
            ("sortBy([{'n': 2}, {'n': 1}], .n)", json!([{"n": 1}, {"n": 2}])),
            ("sortBy(['a', 'bb'], len(#), 'desc')", json!(["bb", "a"])),
            ("sort([2, 10, 1], 'desc')", json!([10, 2, 1])),
            ("groupBy([1, 2, 3], # % 2)", json!({"0": [2], "1": [1, 3]})),
            ("mean([1, 2]) + median([3, 1, 2])", json!(3.5)),
            ("take([1, 2, 3], 2)", json!([1, 2])),
            ("flatten([1, [2, [3]]])", json!([1, 2, 3])),
            ("fromPairs(toPairs({'a': 1}))", json!({"a": 1})),
            ("lastIndexOf('aba', 'a') + indexOf('aba', 'b')", json!(3)),
            ("splitAfter('a,b,', ',')", json!(["a,", "b,", ""])),
            ("timezone('Europe/Zurich')", json!("Europe/Zurich")),
            ("string(6 / 2) + string(1e6 * 1) + toJson([6 / 2, 1e21])", json!("31e+06[3,1e+21]")),
            ("join(map([2 ** 3, asFloat('2'), 7 / 2], string(#)), ' ')", json!("8 2 3.5")),
            ("date('2026-03-04')", json!("2026-03-04T00:00:00Z")),
            ("now() > '2026'", json!(true)),
        ];
        for (text, expected) in cases.clone() {
            let value = Expression::parse(text, Language::Expr).and_then(|e| e.evaluate(&variables));
            assert_eq!(value, Ok(expected), "{text}");
        }
        let tested: String = cases.iter().map(|(text, _)| format!(" {text}")).collect();
        for name in functions::PREDICATES {
            assert!(tested.contains(&format!(" {name}(")), "{name}");
        }
        let wrong = [
            "",
            "1 +",
            "(1",
            "1 2",
            "'a",
            "asInt('x')",
            "1 + 'a'",
            "nobody",
            "item.nothing.more",
            "1 ? 2 : 3",
            "item.os()",
            "unknown(1)",
            "sprig.env('HOME')",
            "'a' < 1",
            "[1][3]",
            "1 % 0",
            "#",
            "1 @ 2",
        ];
        for text in wrong {
            let value = Expression::parse(text, Language::Expr).and_then(|e| e.evaluate(&variables));
            assert!(value.is_err(), "{text}: {value:?}");
        }
        for (text, expected) in [
            ("asInt('say \"7\"')", "asInt(): `say \"7\"` is no whole number"),
            ("steps['my-step'].outputs.result + 1", "`{\"a\":[1,2]}` + `1`: both must be numbers"),
            ("fromJson(inputs.parameters.list) ? 1 : 2", "`[3,1,2]` is neither true nor false"),
        ] {
            let error = Expression::parse(text, Language::Expr).and_then(|e| e.evaluate(&variables));
            assert_eq!(error, Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn unknown_functions_are_told_before_anything_runs() {
        let cases = [
            ("false ? asIn('1') : 1", "there is no function `asIn`; did you mean `asInt`?"),
            ("map([1], nosuch(#))", "there is no function `nosuch`"),
            ("sprig.trm('x')", "there is no function `sprig.trm`; did you mean `sprig.trim`?"),
            ("nospace('x')", "there is no function `nospace`; did you mean `sprig.nospace`?"),
            ("item.os()", "there is no function `item.os`"),
        ];
        for (text, expected) in cases {
            assert_eq!(Expression::parse(text, Language::Expr).unwrap_err(), expected, "{text}");
        }
        for name in ["env", "uuidv4", "randAlpha", "genPrivateKey"] {
            let error = Expression::parse(&format!("sprig.{name}()"), Language::Expr).unwrap_err();
            assert!(error.starts_with(&format!("sprig.{name}() is left out here: ")), "{error}");
        }
    }

    #[test]
    fn hostile_expressions_end() {
        for text in [
            "(".repeat(9000),
            "!".repeat(9000),
            "[".repeat(9000),
            "-".repeat(9000),
            "1?".repeat(5000),
            "a.".repeat(5000),
            "1**".repeat(4000) + "1",
            "1..999999999".to_owned(),
            "repeat('x', 999999999)".to_owned(),
            "map(1..9999, map(1..9999, map(1..9999, 1)))".to_owned(),
        ] {
            let value = Expression::parse(&text, Language::Expr).and_then(|e| e.evaluate(&Value::Null));
            assert!(value.is_err(), "{text:.20}");
        }
    }

    #[test]
    fn when_has_words_without_quotes() {
        let cases = [
            ("", true),
            ("heads == heads", true),
            ("heads == tails", false),
            ("\"heads\" == heads", true),
            ("'two words' != heads", true),
            ("3 > 2 && 2 <= 2", true),
            ("10 > 9", true),
            ("1 == \"1\"", false),
            ("true", true),
            ("false || (true && !false)", true),
            ("Succeeded =~ '^Succ'", true),
            ("Succeeded !~ 'x'", true),
            ("a in (a, b)", true),
            ("c in ('a', 'b')", false),
            ("'' == ''", true),
            ("1 + 1 == 2", true),
            ("v1.2 == v1.2", true),
        ];
        for (text, expected) in cases {
            assert_eq!(when(text), Ok(expected), "{text}");
        }
        for text in ["heads ==", "two words == x", "heads", "a > 1", "=="] {
            assert!(when(text).is_err(), "{text}");
        }
    }
}
