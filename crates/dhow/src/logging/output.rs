//! Standard error, without waiting for who reads it.
//!
//! A terminal that is held with Ctrl-S, a pager, or a log shipper that hangs would make everybody wait who has something
//! to say, and a host whose threads wait answers nothing. What is said goes into a buffer, and a thread of its own
//! writes it. A reader that stands still costs lines, which are counted.

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait for the reader.
const MOST: usize = 8 << 20;

/// Longest wait for a reader that is behind; from then on lines are lost until it takes some.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a reader gets before the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Between two attempts to write where nobody waits for the reader.
const RETRY: Duration = Duration::from_millis(10);

/// What [`told`] waits for at most.
const ORDERLY: Duration = Duration::from_millis(500);

/// A buffer beyond this is given back to the system when it was written.
const KEPT: usize = 64 << 10;

/// Makes the line that says how many were lost.
type Lost = fn(u64) -> String;

/// A stream that is written to by a thread of its own.
pub(super) struct Output {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    /// The reader was waited for in vain.
    is_behind: bool,
    lost: u64,
}

/// Where the log goes.
#[derive(Clone, Copy)]
pub(super) struct Stderr;

/// Waits, when dropped, until what was said is written, if somebody reads it.
pub(crate) struct Flush;

static STDERR: OnceLock<Arc<Output>> = OnceLock::new();

/// Standard error; begins to write with the first line.
fn stderr() -> &'static Output {
    STDERR.get_or_init(|| Output::start(io::stderr(), super::lost, MOST))
}

/// Writes what is for a person, and is to stand before what the caller writes next by itself.
pub(super) fn told(text: &str) {
    stderr().write(text.as_bytes());
    stderr().flush(ORDERLY);
}

// === impl Output ===

impl Output {
    fn start(to: impl Write + Send + 'static, lost: Lost, most: usize) -> Arc<Output> {
        let output = Arc::new(Output { state: Mutex::default(), changed: Condvar::new(), most });
        let written = Arc::clone(&output);
        let thread = std::thread::Builder::new().name("dhow-log".to_owned());
        if thread.spawn(move || written.run(to, lost)).is_err() {
            // Without the thread nobody would write: nothing waits, and all is lost but counted.
            output.state.lock().is_behind = true;
        }
        output
    }

    /// Takes one or more whole lines.
    pub(super) fn write(&self, lines: &[u8]) {
        let mut state = self.state.lock();
        let has_room =
            |state: &State| state.waiting.is_empty() || state.waiting.len() + lines.len() <= self.most;
        if !has_room(&state) && !state.is_behind {
            let is_full = |state: &mut State| !has_room(state) && !state.is_behind;
            self.changed.wait_while_for(&mut state, is_full, PATIENCE);
            // Looked at again: time may be up at the moment when there is room.
            state.is_behind |= !has_room(&state);
        }
        if state.is_behind {
            state.lost += 1;
            return;
        }
        state.waiting.extend_from_slice(lines);
        self.changed.notify_all();
    }

    /// Waits until everything is written, for at most so long.
    fn flush(&self, most: Duration) {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| state.is_writing || !state.waiting.is_empty(), most);
    }

    fn run(&self, mut to: impl Write, lost: Lost) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.state.lock();
            state.is_writing = false;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| state.waiting.is_empty());
            std::mem::swap(&mut batch, &mut state.waiting);
            let missing = std::mem::take(&mut state.lost);
            state.is_writing = true;
            state.is_behind = false;
            drop(state);
            self.changed.notify_all();
            write_all(&mut to, &batch);
            if missing > 0 {
                write_all(&mut to, lost(missing).as_bytes());
            }
            batch.clear();
            batch.shrink_to(KEPT);
        }
    }
}

/// Writes all of it, also where another process has made the terminal one that does not wait. With nobody there to read
/// it, the work goes on.
fn write_all(to: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(_) => return,
        }
    }
}

// === impl Stderr ===

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr().write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Stderr;

    fn make_writer(&self) -> Stderr {
        Stderr
    }
}

// === impl Flush ===

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(output) = STDERR.get() {
            output.flush(LAST_WORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Output, PATIENCE};
    use std::io::{PipeReader, Read};
    use std::time::{Duration, Instant};

    const LINE: &[u8] = b"a line of the log\n";

    fn output() -> (std::sync::Arc<Output>, PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Output::start(writer, |lost| format!("{lost} lost\n"), 100_000), reader)
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_not_time() {
        let (output, mut reader) = output();
        let begun = Instant::now();
        for _ in 0..50_000 {
            output.write(LINE);
        }
        let took = begun.elapsed();
        assert!(took >= PATIENCE && took < PATIENCE * 3, "{took:?}");
        let begun = Instant::now();
        output.flush(Duration::from_millis(50));
        assert!(begun.elapsed() < PATIENCE);

        // It reads again: nothing is torn, and what is missing is told before what comes later.
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            let mut piece = [0; 4096];
            while !text.ends_with("the last\n") {
                let length = reader.read(&mut piece).unwrap();
                text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
            }
            text
        });
        output.flush(Duration::from_secs(10));
        output.write(b"the last\n");
        let text = read.join().unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.pop(), Some("the last"));
        let lost: usize = lines.pop().unwrap().strip_suffix(" lost").unwrap().parse().unwrap();
        assert!(lines.iter().all(|line| line.as_bytes() == LINE.trim_ascii_end()));
        assert_eq!(lines.len() + lost, 50_000);
    }

    #[test]
    fn all_of_a_slow_reader_s_lines_come() {
        let (output, mut reader) = output();
        let read = std::thread::spawn(move || {
            let mut piece = [0; 20_000];
            let mut total = 0;
            while total < 50_000 * LINE.len() {
                total += reader.read(&mut piece).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            total
        });
        for _ in 0..50_000 {
            output.write(LINE);
        }
        assert_eq!(read.join().unwrap(), 50_000 * LINE.len());
    }
}
