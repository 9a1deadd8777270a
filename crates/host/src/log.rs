//! What guests print, kept for those who ask later (`dhow logs`), and passed on to the host's own log.

use dhow_guest::{Level, Output, Stream};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::broadcast;

/// Lines that are kept.
const KEPT: usize = 10_000;

/// Lines that a slow follower may be behind before it loses some.
const BEHIND: usize = 1024;

/// One line of one app.
#[derive(Clone, Debug)]
pub struct Line {
    /// Counts the lines of its book, from 1; times may be equal, or go back.
    pub number: u64,
    /// When the host got it.
    pub time: SystemTime,
    /// Whose it is.
    pub app_id: Arc<str>,
    /// `stdout`, `stderr`, or the level of a log line.
    pub stream: &'static str,
    /// Without its end.
    pub text: String,
}

/// The last lines of all apps.
#[derive(Debug)]
pub struct LogBook {
    lines: Mutex<VecDeque<Arc<Line>>>,
    news: broadcast::Sender<Arc<Line>>,
}

// === impl LogBook ===

impl LogBook {
    /// The last `count` lines of one app, or of all.
    pub fn tail(&self, app_id: Option<&str>, count: usize) -> Vec<Arc<Line>> {
        let lines = self.lines.lock();
        let wanted = lines.iter().rev().filter(|line| app_id.is_none_or(|app_id| *line.app_id == *app_id));
        let mut tail: Vec<Arc<Line>> = wanted.take(count).cloned().collect();
        tail.reverse();
        tail
    }

    /// Lines from now on; by their numbers, those that a tail that is read later has, too.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Line>> {
        self.news.subscribe()
    }

    fn keep(&self, app_id: &str, stream: &'static str, text: &str) {
        let mut lines = self.lines.lock();
        let line = Arc::new(Line {
            number: lines.back().map_or(1, |last| last.number + 1),
            time: SystemTime::now(),
            app_id: app_id.into(),
            stream,
            text: text.to_owned(),
        });
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(Arc::clone(&line));
        drop(lines);
        // Nobody may be following.
        let _ = self.news.send(line);
    }
}

impl Default for LogBook {
    fn default() -> LogBook {
        LogBook { lines: Mutex::default(), news: broadcast::Sender::new(BEHIND) }
    }
}

impl Output for LogBook {
    fn line(&self, app_id: &str, stream: Stream, line: &str) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Log(Level::Trace) => "trace",
            Stream::Log(Level::Debug) => "debug",
            Stream::Log(Level::Info) => "info",
            Stream::Log(Level::Warn) => "warn",
            Stream::Log(Level::Error) => "error",
        };
        match stream {
            Stream::Log(Level::Trace) => tracing::trace!(target: "guest", app_id, "{line}"),
            Stream::Log(Level::Debug) => tracing::debug!(target: "guest", app_id, "{line}"),
            Stream::Log(Level::Warn) => tracing::warn!(target: "guest", app_id, "{line}"),
            Stream::Log(Level::Error) => tracing::error!(target: "guest", app_id, "{line}"),
            Stream::Stdout | Stream::Stderr | Stream::Log(Level::Info) => {
                tracing::info!(target: "guest", app_id, stream = name, "{line}");
            }
        }
        self.keep(app_id, name, line);
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, LogBook};
    use dhow_guest::{Output, Stream};

    #[test]
    fn numbers_join_what_was_kept_and_what_is_new() {
        let book = LogBook::default();
        let print = |count: usize| (0..count).for_each(|_| book.line("a", Stream::Stdout, "x"));
        // More than are kept: numbers go on where lines are forgotten.
        print(KEPT + 5);
        let mut news = book.follow();
        print(3);
        let past: Vec<u64> = book.tail(Some("a"), 4).iter().map(|line| line.number).collect();
        let last = KEPT as u64 + 8;
        assert_eq!(past, [last - 3, last - 2, last - 1, last]);
        print(2);
        let new: Vec<u64> = std::iter::from_fn(|| news.try_recv().ok()).map(|line| line.number).collect();
        assert_eq!(new, [last - 2, last - 1, last, last + 1, last + 2]);
    }
}
