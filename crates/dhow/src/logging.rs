//! What dhow says while it works: on standard error, for a person or as JSON.
//!
//! The text form is `TIME LEVEL APP-ID: message`, where the app-id stands for everything that an app printed
//! or that concerns it. Control characters are written as escapes: what a guest prints must not reach the
//! terminal as a command.

use crate::error::Error;
use crate::{Global, text};
use clap::ValueEnum;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One line for a person
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// What nobody sees who does not ask for it: a span around every call of preview 1. Named again, it is as it was asked for.
const QUIET: &str = "wasmtime_wasi=warn,wasmtime_wasi_http=warn";

/// The log is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether who reads standard error expects one JSON object a line.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// From here on, events go to standard error.
pub(crate) fn init(global: &Global) -> Result<(), Error> {
    let from_environment = || std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let filter = global.log.clone().or_else(from_environment).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::builder().parse(format!("{QUIET},{filter}")).map_err(|error| {
        Error::usage(format!(
            "{filter:?} is no log filter: {error}; try \"debug\" or \"info,dhow_host=debug\""
        ))
    })?;
    let colors =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    IS_JSON.store(global.log_format == Format::Json, Ordering::Relaxed);
    let result = match global.log_format {
        Format::Text => subscriber.with_ansi(colors).event_format(Line).try_init(),
        Format::Json => {
            subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
    };
    result.map_err(|error| Error::new(format!("cannot set up the log: {error}")))
}

/// The text form.
struct Line;

/// What an event holds.
#[derive(Default)]
struct Parts {
    app_id: Option<String>,
    message: String,
    others: String,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = event.metadata().level();
        write!(writer, "{} ", text::time_of_day(SystemTime::now()))?;
        match (writer.has_ansi_escapes(), color(level)) {
            (true, Some(color)) => write!(writer, "\x1b[{color}m{level:>5}\x1b[0m ")?,
            _ => write!(writer, "{level:>5} ")?,
        }
        if let Some(app_id) = &parts.app_id {
            write!(writer, "{}: ", text::printable(app_id))?;
        }
        writeln!(writer, "{}{}", text::printable(&parts.message), text::printable(&parts.others))
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "app_id" => self.app_id = Some(value.to_owned()),
            "message" => self.message.push_str(value),
            // Whether a guest used stdout or stderr is of interest to programs only.
            "stream" => {}
            name => drop(write!(self.others, " {name}={value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "app_id" => self.app_id = Some(format!("{value:?}").trim_matches('"').to_owned()),
            "message" => drop(write!(self.message, "{value:?}")),
            "stream" => {}
            name => drop(write!(self.others, " {name}={value:?}")),
        }
    }
}

fn color(level: &Level) -> Option<u8> {
    match *level {
        Level::ERROR => Some(31),
        Level::WARN => Some(33),
        Level::DEBUG | Level::TRACE => Some(2),
        Level::INFO => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Line;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_name_the_app_and_cannot_command_the_terminal() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(Line)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "guest", app_id = "front", stream = "stdout", "red \x1b[31m and\nmore");
            tracing::warn!(count = 3, "careful");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let [first, second, third] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(first.ends_with("Z  INFO front: red \\u{1b}[31m and"), "{first}");
        assert_eq!(second, "    more");
        assert!(third.ends_with("Z  WARN careful count=3"), "{third}");
    }
}
