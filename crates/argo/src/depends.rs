//! `depends: "A.Succeeded && (B || !C.Failed)"`: which tasks a task waits for, and whether it runs then.
//!
//! <https://argo-workflows.readthedocs.io/en/latest/enhanced-depends-logic/>

use crate::model::Step;
use crate::node::Phase;

/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// What is asked about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// It succeeded, was skipped, or is a daemon; what a bare name asks.
    Usual,
    /// Its phase is this.
    Is(Phase),
    /// Of its items, at least one succeeded.
    AnySucceeded,
    /// Of its items, all failed.
    AllFailed,
    /// It is a daemon; none is, here.
    Daemoned,
}

/// A condition over tasks.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Always.
    True,
    /// Of one task.
    Task(String, Question),
    /// Not.
    Not(Box<Condition>),
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// One of both.
    Or(Box<Condition>, Box<Condition>),
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// The condition of a task, from `depends` or `dependencies`. `continues` says of a task whether its failure (or, with
/// true, its error) is none, which only `dependencies` ask.
pub fn condition(task: &Step, continues: impl Fn(&str, bool) -> bool) -> Result<Condition, String> {
    if !task.depends.trim().is_empty() {
        return parse(&task.depends);
    }
    let of = |name: &String| {
        let mut condition = Condition::Task(name.clone(), Question::Usual);
        for (is_error, phase) in [(false, Phase::Failed), (true, Phase::Error)] {
            if continues(name, is_error) {
                let other = Condition::Task(name.clone(), Question::Is(phase));
                condition = Condition::Or(Box::new(condition), Box::new(other));
            }
        }
        condition
    };
    let all = task.dependencies.iter().map(of);
    Ok(all.reduce(|all, next| Condition::And(Box::new(all), Box::new(next))).unwrap_or(Condition::True))
}

/// Reads a `depends`.
pub fn parse(text: &str) -> Result<Condition, String> {
    let mut parser = Parser { rest: text.trim_start(), depth: 0 };
    let condition = parser.or()?;
    if parser.rest.is_empty() {
        Ok(condition)
    } else {
        Err(format!("{:?} stands behind the end", parser.rest))
    }
}

// === impl Condition ===

impl Condition {
    /// The tasks in it, each once.
    pub fn tasks(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Condition::True => {}
            Condition::Task(name, _) => {
                if !found.contains(&name.as_str()) {
                    found.push(name);
                }
            }
            Condition::Not(inner) => inner.collect(found),
            Condition::And(left, right) | Condition::Or(left, right) => {
                left.collect(found);
                right.collect(found);
            }
        }
    }

    /// Whether it holds, by the answers to its questions.
    pub fn holds(&self, answer: &impl Fn(&str, Question) -> bool) -> bool {
        match self {
            Condition::True => true,
            Condition::Task(name, question) => answer(name, *question),
            Condition::Not(inner) => !inner.holds(answer),
            Condition::And(left, right) => left.holds(answer) && right.holds(answer),
            Condition::Or(left, right) => left.holds(answer) || right.holds(answer),
        }
    }
}

// === impl Parser ===

impl Parser<'_> {
    fn or(&mut self) -> Result<Condition, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let mut left = self.and()?;
        while self.eat("||") {
            left = Condition::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Condition, String> {
        let mut left = self.one()?;
        while self.eat("&&") {
            left = Condition::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Condition, String> {
        let mut negations = 0_usize;
        while self.eat("!") {
            negations += 1;
        }
        let mut condition = if self.eat("(") {
            let inner = self.or()?;
            if !self.eat(")") {
                return Err("a bracket is not closed".to_owned());
            }
            inner
        } else {
            self.task()?
        };
        if negations % 2 == 1 {
            condition = Condition::Not(Box::new(condition));
        }
        Ok(condition)
    }

    fn task(&mut self) -> Result<Condition, String> {
        let belongs = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return Err(match self.rest.chars().next() {
                Some(c) => format!("{c:?} stands where the name of a task should be"),
                None => "it ends where the name of a task should be".to_owned(),
            });
        }
        self.rest = rest.trim_start();
        let Some((name, question)) = word.split_once('.') else {
            return Ok(Condition::Task(word.to_owned(), Question::Usual));
        };
        let question = match question {
            "Succeeded" => Question::Is(Phase::Succeeded),
            "Failed" => Question::Is(Phase::Failed),
            "Errored" => Question::Is(Phase::Error),
            "Skipped" => Question::Is(Phase::Skipped),
            "Omitted" => Question::Is(Phase::Omitted),
            "Daemoned" => Question::Daemoned,
            "AnySucceeded" => Question::AnySucceeded,
            "AllFailed" => Question::AllFailed,
            other => {
                return Err(format!(
                    "a task has no {other:?}; expected Succeeded, Failed, Errored, Skipped, Omitted, Daemoned, \
                     AnySucceeded or AllFailed"
                ));
            }
        };
        Ok(Condition::Task(name.to_owned(), question))
    }

    fn eat(&mut self, sign: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(sign) else { return false };
        self.rest = rest.trim_start();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        // a succeeded, b failed, c was skipped, d-1 errored.
        let answer = |name: &str, question: Question| {
            matches!(
                (name, question),
                ("a" | "c", Question::Usual)
                    | ("a", Question::Is(Phase::Succeeded) | Question::AnySucceeded)
                    | ("b", Question::Is(Phase::Failed))
                    | ("c", Question::Is(Phase::Skipped))
                    | ("d-1", Question::Is(Phase::Error))
            )
        };
        let cases = [
            ("a", true),
            ("b", false),
            ("c", true),
            ("a && b", false),
            ("a || b", true),
            ("a && b.Failed", true),
            ("(a && b) || d-1.Errored", true),
            ("!(a && b) && !b", true),
            ("!!a", true),
            ("a.AnySucceeded && !b.AllFailed", true),
            ("b || a && c", true),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap().holds(&answer), expected, "{text}");
        }
        for text in ["", "a &&", "(a", "a b", "a.Nothing", "a & b", &"(".repeat(9999), &"!(".repeat(9999)] {
            assert!(parse(text).is_err(), "{text:.20}");
        }
        assert_eq!(parse("a || !b-2.Failed && a").unwrap().tasks(), ["a", "b-2"]);
    }
}
