//! No input makes a parser panic or run away: valid files are broken at random, with a fixed seed, and every
//! result is either a value or errors that point into the file.

use dhow_resources::configuration;
use dhow_resources::load::parse;
use dhow_resources::manifest::Manifest;
use dhow_resources::multi_app::MultiApp;
use std::path::Path;

const MANIFEST: &str = include_str!("data/full.toml");
const RESOURCES: &str = include_str!("data/resources.yaml");
const KINDS: &str = include_str!("data/kinds.yaml");
const MULTI_APP: &str = include_str!("data/dapr.yaml");

/// Pieces that mean something to a TOML or YAML parser, among them the classical troublemakers.
const PIECES: &[&str] = &[
    "\n",
    "\r",
    "\t",
    " ",
    ":",
    ": ",
    "-",
    "- ",
    "---",
    "...",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "&a",
    "*a",
    "!",
    "!!str",
    "!<",
    "|",
    ">",
    "|+2\n",
    "'",
    "\"",
    "\"\"\"",
    "'''",
    "\\",
    "\\u",
    "\\x",
    "%",
    "%YAML 1.2\n",
    "%TAG ! x\n",
    "?",
    "? ",
    "<<: ",
    "=",
    ".",
    "..",
    "0x",
    "1e999",
    "é",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\0",
    "😀",
    "@",
    "`",
    "[[",
    "]]",
    "~",
];

fn mutate(rng: &mut fastrand::Rng, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(0..=chars.len());
        let end = (at + rng.usize(0..20)).min(chars.len());
        match rng.u8(0..5) {
            0 => drop(chars.drain(at..end)),
            1 => drop(chars.splice(at..at, PIECES[rng.usize(0..PIECES.len())].chars())),
            2 => drop(chars.splice(at..end, PIECES[rng.usize(0..PIECES.len())].chars())),
            3 => {
                let from = rng.usize(0..=chars.len());
                let copy = chars[from..(from + rng.usize(0..40)).min(chars.len())].to_vec();
                drop(chars.splice(at..at, copy));
            }
            _ => chars.truncate(at.max(chars.len() / 4)),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn broken_files_never_panic() {
    let mut rng = fastrand::Rng::with_seed(2026);
    let (mut fine, mut wrong) = (0, 0);
    for round in 0..20_000 {
        let text = mutate(&mut rng, [MANIFEST, RESOURCES, KINDS, MULTI_APP][round % 4]);
        let lines = text.split('\n').count() + text.matches(['\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        let file = Path::new("file");
        let own = match round % 4 {
            0 => Manifest::parse(&text, file).map(drop),
            3 => MultiApp::parse(&text, file, None).map(drop),
            _ => parse(&text, file).map(drop),
        };
        // Now and then a file is taken for another.
        let other = match round % 25 {
            0 => Some(parse(&text, file).map(drop)),
            5 => Some(configuration::parse(&text, file).map(drop)),
            10 => Some(MultiApp::parse(&text, file, None).map(drop)),
            15 => Some(Manifest::parse(&text, file).map(drop)),
            _ => None,
        };
        for result in std::iter::once(own).chain(other) {
            match result {
                Ok(()) => fine += 1,
                Err(errors) => {
                    wrong += 1;
                    assert!(!errors.errors().is_empty());
                    for error in errors.errors() {
                        // A file with nothing in it is told as a whole.
                        let is_empty = error.line == 0 && error.message == "the file is empty";
                        assert!(
                            is_empty || error.line >= 1 && error.line <= lines + 1,
                            "{error} of {lines} lines:\n{text}"
                        );
                    }
                }
            }
        }
    }
    assert!(fine > 100 && wrong > 10_000, "the mutations test nothing: {fine} fine, {wrong} wrong");
}
