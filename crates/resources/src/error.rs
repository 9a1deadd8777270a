//! One finding in a file, and all findings of a load.
//!
//! A finding never repeats a value that may be secret (environment, configuration, component metadata);
//! what it does repeat is cut and escaped, so a hostile file cannot write to the reader's terminal.

use std::fmt;
use std::path::{Path, PathBuf};

/// Longest piece of a file that a message repeats, in characters.
pub(crate) const MAX_QUOTED: usize = 64;

/// No more findings than this are kept for one file; a file with more is not the file the user meant.
pub const MAX_FINDINGS: usize = 50;

/// Something that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ResourceError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The field's path, e.g. `apps.front.limits.memory`; empty when no field is meant.
    pub field: String,
    /// What was found.
    pub message: String,
    /// What was expected, and the nearest known name; may be empty.
    pub hint: String,
}

/// All findings, in the order of the files and of their lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ResourceErrors(Vec<ResourceError>);

// === impl ResourceError ===

impl ResourceError {
    /// A finding about a file as a whole.
    pub(crate) fn whole_file(file: &Path, message: impl Into<String>, hint: impl Into<String>) -> Self {
        ResourceError {
            file: file.to_owned(),
            line: 0,
            column: 0,
            field: String::new(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

// === impl ResourceErrors ===

impl ResourceErrors {
    /// `Ok` when there are no findings.
    pub fn check(mut errors: Vec<ResourceError>) -> Result<(), ResourceErrors> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        Err(ResourceErrors(errors))
    }

    /// The findings.
    pub fn errors(&self) -> &[ResourceError] {
        &self.0
    }

    pub(crate) fn into_vec(self) -> Vec<ResourceError> {
        self.0
    }
}

impl From<ResourceError> for ResourceErrors {
    fn from(error: ResourceError) -> Self {
        ResourceErrors(vec![error])
    }
}

/// One finding a line.
impl fmt::Display for ResourceErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// A piece of a file for a message: in backquotes, cut, what is not to be printed escaped.
pub fn quote(text: &str) -> String {
    let cut = text.chars().count() > MAX_QUOTED;
    let mut shown = String::new();
    for c in text.chars().take(MAX_QUOTED) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    format!("`{shown}{}`", if cut { "…" } else { "" })
}

/// The known name that a wrong one was probably meant to be.
pub fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    if wrong.is_empty() || wrong.chars().count() > MAX_QUOTED {
        return None;
    }
    let length = wrong.chars().count();
    known
        .iter()
        .filter_map(|name| {
            let reach = (name.len().max(wrong.len()) / 3).max(1);
            // What is much longer or shorter is not compared: files have many names, and long ones.
            let is_comparable =
                name.len() <= 4 * MAX_QUOTED && name.chars().count().abs_diff(length) <= reach;
            let distance =
                is_comparable.then(|| strsim::damerau_levenshtein(&wrong, &name.to_lowercase()))?;
            (distance <= reach).then_some((distance, *name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::{nearest, quote};

    #[test]
    fn the_nearest_name_is_a_likely_one() {
        let known = ["memory", "timeout", "queue", "Spec"];
        let cases = [
            ("memroy", Some("memory")),
            ("Memory", Some("memory")),
            ("time_out", Some("timeout")),
            ("sepc", Some("Spec")),
            ("q", None),
            ("greeting", None),
            ("", None),
        ];
        for (wrong, expected) in cases {
            assert_eq!(nearest(wrong, &known), expected, "{wrong:?}");
        }
    }

    #[test]
    fn quoted_pieces_are_cut_and_escaped() {
        assert_eq!(quote("a\u{1b}[2J"), "`a\\u{1b}[2J`");
        assert_eq!(quote("{\"a\\d\": 'b'}"), "`{\"a\\d\": 'b'}`");
        assert!(quote(&"x".repeat(1000)).chars().count() < 70);
    }
}
