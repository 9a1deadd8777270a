//! What a step prints: standard output becomes its result, everything goes to its log.

use dhow_guest::{Output, Stream};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Longest result, in bytes; Argo's limit. Of a longer one the end is kept.
pub(super) const MAX_RESULT: usize = 256 << 10;

/// Largest log of one step, in bytes.
const MAX_LOG: usize = 64 << 20;

/// Longest line that becomes part of a message, in characters.
const MAX_LINE: usize = 200;

/// Keeps what one step prints.
pub(super) struct Captured(Mutex<Kept>);

struct Kept {
    result: VecDeque<u8>,
    /// Whether its begin is lost.
    is_cut: bool,
    log: Option<BufWriter<File>>,
    logged: usize,
    last_line: String,
    panic: Panic,
}

/// How far a Rust program's panic has been told: the line that names the place, the message, and hints.
#[derive(Clone, Copy, PartialEq)]
enum Panic {
    None,
    /// The next line is the message.
    Begun,
    /// What follows says less than the message.
    Told,
}

// === impl Captured ===

impl Captured {
    /// A log that cannot be written costs the log, not the step.
    pub(super) fn new(log: &Path) -> Captured {
        let file = File::create(log).inspect_err(|error| {
            tracing::warn!("the log {} cannot be written: {error}", log.display());
        });
        Captured(Mutex::new(Kept {
            result: VecDeque::new(),
            is_cut: false,
            log: file.ok().map(BufWriter::new),
            logged: 0,
            last_line: String::new(),
            panic: Panic::None,
        }))
    }

    /// Standard output, without the one line's end at its end; `step` is told when it was too long.
    pub(super) fn result(&self, step: &str) -> String {
        let mut kept = self.0.lock();
        if kept.is_cut {
            tracing::warn!("{step} printed more than {MAX_RESULT} bytes: outputs.result is the end of it");
            // A letter in pieces is none.
            while kept.result.front().is_some_and(|byte| byte & 0xc0 == 0x80) {
                kept.result.pop_front();
            }
        }
        let text = String::from_utf8_lossy(kept.result.make_contiguous());
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// The last line on standard error that says something.
    pub(super) fn last_line(&self) -> Option<String> {
        let line = self.0.lock().last_line.clone();
        (!line.is_empty()).then_some(line)
    }

    /// Everything is in the file.
    pub(super) fn flush(&self) {
        if let Some(log) = &mut self.0.lock().log {
            let _ = log.flush();
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Remembers a line of standard error if it says more than those before it.
    fn note(&mut self, line: &str) {
        // It stands behind whatever is wrong.
        if line.starts_with("note: run with `RUST_BACKTRACE=") {
            return;
        }
        let is_panic = line.starts_with("thread '") && line.contains("' ") && line.contains(" panicked at ");
        self.panic = match self.panic {
            // The message is in a line of its own, but for programs of older compilers.
            _ if is_panic && line.ends_with(':') => Panic::Begun,
            _ if is_panic => Panic::Told,
            Panic::Begun => Panic::Told,
            Panic::Told => return,
            Panic::None => Panic::None,
        };
        self.last_line = line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
    }
}

impl Output for Captured {
    fn line(&self, _: &str, stream: Stream, line: &str) {
        let mut kept = self.0.lock();
        if stream != Stream::Stdout && !line.trim().is_empty() {
            kept.note(line.trim());
        }
        if kept.logged > MAX_LOG {
            return;
        }
        kept.logged += line.len() + 1;
        let is_full = kept.logged > MAX_LOG;
        if let Some(log) = &mut kept.log {
            let _ = writeln!(log, "{}", if is_full { "… the log is full" } else { line });
        }
    }

    fn written(&self, stream: Stream, bytes: &[u8]) {
        if stream != Stream::Stdout {
            return;
        }
        let mut kept = self.0.lock();
        kept.result.extend(bytes.iter().skip(bytes.len().saturating_sub(MAX_RESULT)));
        let excess = kept.result.len().saturating_sub(MAX_RESULT);
        kept.result.drain(..excess);
        kept.is_cut |= excess > 0 || bytes.len() > MAX_RESULT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_the_end_of_what_was_printed() {
        let long = "ü".repeat(MAX_RESULT);
        let end = "ü".repeat(MAX_RESULT / 2 - 1);
        let (odd, even) = (format!("{end}x"), format!("{end}xy"));
        let cases: [(&[&str], &str); 7] = [
            (&[], ""),
            (&["a\n"], "a"),
            (&["  a \t\r\n ", "\n\n"], "  a \t\r\n \n"),
            (&["a\r\n"], "a\r"),
            (&[&long, "x"], &odd),
            (&[&long, "x", "y"], &even),
            (&[&long, "x", "\n"], &odd),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (pieces, expected) in cases {
            let captured = Captured::new(&folder.path().join("log"));
            pieces.iter().for_each(|piece| captured.written(Stream::Stdout, piece.as_bytes()));
            assert!(captured.result("step") == expected, "{:.20?}", pieces);
        }
    }

    #[test]
    fn the_line_that_says_most_is_remembered() {
        let hint = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
        let cases: [(&[&str], Option<&str>); 7] = [
            (&[], None),
            (&["one", "two", " "], Some("two")),
            (
                &["begins", "", "thread 'main' (1) panicked at src/main.rs:2:5:", "boom", "more", hint],
                Some("boom"),
            ),
            (
                &["thread '<unnamed>' panicked at a.rs:2:5:", "boom", "stack backtrace:", "   0: rust_begin"],
                Some("boom"),
            ),
            (
                &["thread 'main' panicked at 'boom', a.rs:2:5", hint],
                Some("thread 'main' panicked at 'boom', a.rs:2:5"),
            ),
            (&["memory allocation of 5 bytes failed", hint], Some("memory allocation of 5 bytes failed")),
            (&["a worker panicked at 10:", "it goes on"], Some("it goes on")),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (lines, expected) in cases {
            let captured = Captured::new(&folder.path().join("log"));
            lines.iter().for_each(|line| captured.line("a", Stream::Stderr, line));
            assert_eq!(captured.last_line().as_deref(), expected, "{lines:?}");
        }
    }
}
