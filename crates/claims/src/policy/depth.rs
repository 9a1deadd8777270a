//! What the interpreter would follow until the process has no stack left: functions that call themselves, rules without
//! end. And brackets in brackets, which its parser reads twice at each level.
//!
//! OPA refuses the first when it compiles a policy, too (`rego_recursion_error`).

use regorus::unstable::{Expr, Lexer, Module, Rule, RuleHead, Token, TokenKind};
use regorus::{Engine, Source};
use std::collections::{BTreeMap, BTreeSet};

/// Brackets in brackets.
const MAX_NESTING: usize = 12;

/// Rules of a policy, all files together: as many may need each other, one in the other.
const MAX_RULES: usize = 5000;

/// The functions of a policy by their whole names, `dhow.lib.check`, with those that each of them names.
type Calls = BTreeMap<String, BTreeSet<String>>;

/// Refuses a file that would take its parser too long.
pub(super) fn check_nesting(text: &str) -> Result<(), String> {
    // What is no Rego is told by the parser.
    let Ok(source) = Source::from_contents(String::new(), text.to_owned()) else { return Ok(()) };
    let mut depth = 0_usize;
    for token in tokens(&source) {
        match (&token.0, token.1.text()) {
            (TokenKind::Symbol, "(" | "[" | "{") => depth += 1,
            (TokenKind::Symbol, ")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            let line = token.1.line;
            return Err(format!(
                "line {line}: brackets stand in brackets more than {MAX_NESTING} times; nested values can be data, in a file in JSON"
            ));
        }
    }
    Ok(())
}

/// Refuses a policy whose functions call themselves, directly or by others.
pub(super) fn check_recursion(engine: &mut Engine) -> Result<(), String> {
    let modules = engine.get_modules();
    if modules.iter().map(|module| module.policy.len()).sum::<usize>() > MAX_RULES {
        return Err(format!("it has more than {MAX_RULES} rules"));
    }
    let mut calls = Calls::new();
    for module in modules {
        let package = path(&module.package.refr);
        for rule in &module.policy {
            if let Some(name) = function(rule) {
                calls.entry(format!("{package}.{name}")).or_default();
            }
        }
    }
    if calls.is_empty() {
        return Ok(());
    }
    let functions: BTreeSet<String> = calls.keys().cloned().collect();
    for module in modules {
        read(module, &functions, &mut calls)?;
    }
    match circle(&calls) {
        None => Ok(()),
        Some(circle) => Err(format!(
            "functions call themselves: {}; Rego has no recursion, use `walk`, `every` or a comprehension",
            circle.join(" -> ")
        )),
    }
}

/// Adds which functions a module's functions name.
fn read(module: &Module, functions: &BTreeSet<String>, calls: &mut Calls) -> Result<(), String> {
    let package = path(&module.package.refr);
    let imports: BTreeMap<String, String> = module
        .imports
        .iter()
        .filter_map(|import| {
            let path = path(&import.refr);
            let whole = path.strip_prefix("data.")?.to_owned();
            let last = whole.rsplit('.').next().unwrap_or_default();
            let name = import.r#as.as_ref().map_or(last, |name| name.text()).to_owned();
            Some((name, whole))
        })
        .collect();
    let resolve = |words: &[String]| {
        let (first, rest) = words.split_first()?;
        let rest = rest.iter().fold(String::new(), |rest, word| format!("{rest}.{word}"));
        let name = match imports.get(first) {
            _ if first == "data" => rest.strip_prefix('.')?.to_owned(),
            Some(import) => format!("{import}{rest}"),
            None => format!("{package}.{first}{rest}"),
        };
        functions.contains(&name).then_some(name)
    };
    // A rule goes on to where the next one begins.
    let mut rules: Vec<(u32, Option<String>)> =
        module.policy.iter().map(|rule| (rule.span().start, function(rule))).collect();
    rules.sort();
    let within = |start: u32| rules.iter().rev().find(|(begin, _)| *begin <= start);
    let mut heads = BTreeSet::new();
    let (mut words, mut begin, mut replaces, mut ended): (Vec<String>, u32, bool, bool) =
        (Vec::new(), 0, false, true);
    let all: Vec<Token> = tokens(&module.package.span.source).collect();
    for token in all.iter().map(Some).chain([None]) {
        let (kind, text) = token.map_or((&TokenKind::Eof, ""), |token| (&token.0, token.1.text()));
        match kind {
            TokenKind::Ident if !ended => words.push(text.to_owned()),
            // `lib["check"](x)`
            TokenKind::String | TokenKind::RawString if !ended => words.push(text.to_owned()),
            TokenKind::Symbol if matches!(text, "." | "[") && !words.is_empty() && ended => {
                ended = false;
                continue;
            }
            TokenKind::Symbol if text == "]" && !words.is_empty() => continue,
            _ => {
                if let Some(named) = resolve(&words) {
                    let rule = within(begin);
                    let from = rule.and_then(|(_, name)| Some(format!("{package}.{}", name.as_ref()?)));
                    // The first time is its own head.
                    let is_head =
                        from.as_deref() == Some(&named) && heads.insert(rule.map(|(begin, _)| *begin));
                    if replaces {
                        return Err(format!("`with {named} as …`: functions cannot be replaced here"));
                    }
                    if let (Some(from), false) = (from, is_head) {
                        calls.entry(from).or_default().insert(named);
                    }
                }
                replaces = words.as_slice() == ["with"];
                words.clear();
                if matches!(kind, TokenKind::Ident) {
                    words.push(text.to_owned());
                    begin = token.map_or(0, |token| token.1.start);
                }
            }
        }
        ended = true;
    }
    Ok(())
}

/// The name of a function, as it stands in its package; none for another rule.
fn function(rule: &Rule) -> Option<String> {
    match rule {
        Rule::Spec { head: RuleHead::Func { refr, .. }, .. } => Some(path(refr)),
        Rule::Default { refr, args, .. } if !args.is_empty() => Some(path(refr)),
        _ => None,
    }
}

/// `a.b["c"]` as `a.b.c`.
fn path(reference: &Expr) -> String {
    let text = reference.span().text();
    text.replace("[\"", ".").replace("\"]", "").split_whitespace().collect()
}

fn tokens(source: &Source) -> impl Iterator<Item = Token> {
    let mut lexer = Lexer::new(source);
    std::iter::from_fn(move || lexer.next_token().ok().filter(|token| !matches!(token.0, TokenKind::Eof)))
}

/// Functions that call each other in a circle, the first one again at the end.
fn circle(calls: &Calls) -> Option<Vec<&str>> {
    let mut done = BTreeSet::new();
    for start in calls.keys() {
        // The way to where we are, each with what is left to look at; a policy's calls may be deeper than a stack.
        let mut way: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(start.as_str());
        loop {
            if let Some(name) = next.take() {
                if let Some(at) = way.iter().position(|(known, _)| *known == name) {
                    let circle = way.iter().skip(at).map(|(name, _)| *name);
                    return Some(circle.chain([name]).collect());
                }
                if done.insert(name) {
                    let called = calls.get(name).into_iter().flatten().map(String::as_str);
                    way.push((name, called.collect()));
                }
            }
            match way.last_mut() {
                None => break,
                Some((_, left)) => {
                    next = left.pop();
                    if next.is_none() {
                        way.pop();
                    }
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{check_nesting, check_recursion};
    use regorus::Engine;

    fn check(files: &[&str]) -> Result<(), String> {
        let mut engine = Engine::new();
        for (number, text) in files.iter().enumerate() {
            engine.add_policy(format!("{number}.rego"), (*text).to_owned()).unwrap();
        }
        check_recursion(&mut engine)
    }

    #[test]
    fn functions_that_call_themselves_are_named() {
        for (files, words) in [
            (&["package dhow\nf(x) := f(x)"][..], "dhow.f -> dhow.f"),
            (
                &["package dhow\nf(x) := y if {\n  y := g(x) }\ng(x) := 1 + f(x)"],
                "dhow.f -> dhow.g -> dhow.f",
            ),
            (&["package dhow\nf(x) := 1 if x == 0\nelse := f(x - 1)"], "dhow.f"),
            (&["package dhow\nf(0) := 0\nf(x) := x if { some y in [1]; f(y) == 1 }"], "dhow.f"),
            (&["package dhow\nf(x) := data.dhow.f(x)"], "dhow.f"),
            (&["package dhow\nf(x) := data.dhow[\"f\"](x)"], "dhow.f"),
            (
                &[
                    "package dhow\nimport data.lib\nf(x) := lib.g(x)",
                    "package lib\nimport data.dhow.f as up\ng(x) := up(x)",
                ],
                "dhow.f -> lib.g -> dhow.f",
            ),
            (
                &["package dhow\nf(x) := 1\ng(x) := f(x)\nallow if f(1) == 1 with f as g"],
                "cannot be replaced",
            ),
        ] {
            let error = check(files).unwrap_err();
            assert!(error.contains(words), "{files:?}: {error}");
        }
    }

    #[test]
    fn functions_that_call_others_are_fine() {
        for files in [
            &["package dhow\nallow if f(1)\nf(x) if g(x)\ng(x) if x > 0"][..],
            // Another package's function of the same name, a field, a text and a comment of that name.
            &["package dhow\nf(x) := data.lib.f(x)", "package lib\nf(x) := 1"],
            &["package dhow\n# f(x)\nf(x) := x.f if { y := \"f(x)\"; y != input.f }"],
            &["package dhow\nf(x) := 1 if x == 0\nf(x) := 2 if x == 1\ndefault f(_) := 3"],
            &["package dhow\nallow if count(input) > 0"],
        ] {
            assert_eq!(check(files), Ok(()), "{files:?}");
        }
    }

    #[test]
    fn brackets_in_brackets_are_counted() {
        let nested = |count: usize| format!("package dhow\nx := {}1{}", "[".repeat(count), "]".repeat(count));
        assert_eq!(check_nesting(&nested(12)), Ok(()));
        assert!(check_nesting(&nested(13)).unwrap_err().starts_with("line 2: "));
        assert_eq!(
            check_nesting(&format!("package dhow\nx := \"{}\" # {}", "[".repeat(50), "(".repeat(50))),
            Ok(())
        );
    }
}
