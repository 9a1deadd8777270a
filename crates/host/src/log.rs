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
    /// An empty book.
    #[allow(clippy::new_without_default)]
    pub fn new() -> LogBook {
        LogBook { lines: Mutex::new(VecDeque::new()), news: broadcast::Sender::new(BEHIND) }
    }

    /// The last `count` lines of one app, or of all.
    pub fn tail(&self, app_id: Option<&str>, count: usize) -> Vec<Arc<Line>> {
        let lines = self.lines.lock();
        let wanted = lines.iter().rev().filter(|line| app_id.is_none_or(|app_id| *line.app_id == *app_id));
        let mut tail: Vec<Arc<Line>> = wanted.take(count).cloned().collect();
        tail.reverse();
        tail
    }

    /// Lines from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Line>> {
        self.news.subscribe()
    }

    fn keep(&self, line: Line) {
        let line = Arc::new(line);
        let mut lines = self.lines.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(Arc::clone(&line));
        drop(lines);
        // Nobody may be following.
        let _ = self.news.send(line);
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
        self.keep(Line {
            time: SystemTime::now(),
            app_id: app_id.into(),
            stream: name,
            text: line.to_owned(),
        });
    }
}
