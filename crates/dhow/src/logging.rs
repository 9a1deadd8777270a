//! What dhow says while it works: on standard error, for a person or as JSON.
//!
//! The text form is `TIME LEVEL APP-ID: message`, where the app-id stands for everything that an app printed
//! or that concerns it. Control characters are written as escapes: what a guest prints must not reach the
//! terminal as a command.

mod output;

pub(crate) use output::Flush;

use crate::error::Error;
use crate::{Global, text};
use clap::ValueEnum;
use dhow_api::functions::actuator::Loggers;
use dhow_resources::error::nearest;
use output::Stderr;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::Handle;

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

/// Tells what no filter holds back, on standard error: the text to a person, else the message as JSON.
pub(crate) fn tell(level: Level, text: &dyn fmt::Display, message: &dyn fmt::Display) {
    output::told(&line(level, text, message));
}

fn line(level: Level, text: &dyn fmt::Display, message: &dyn fmt::Display) -> String {
    if !IS_JSON.load(Ordering::Relaxed) {
        return format!("{text}\n");
    }
    let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let message = message.to_string();
    let line = serde_json::json!({
        "timestamp": time, "level": level.as_str(), "message": message.trim(), "target": "dhow",
    });
    format!("{line}\n")
}

/// What stands in the place of lines that nobody read in time.
fn lost(lines: u64) -> String {
    let message = format!("{lines} lines of the log are lost: who reads it was behind");
    line(Level::WARN, &format_args!("dhow: warning: {message}"), &message)
}

/// What logs: everything; what functions and apps print; what was allowed and denied; calls of the API; spans; and the
/// parts of dhow. Others are in the name before `::`, or in none.
const LOGGERS: [&str; 16] = [
    ROOT,
    "guest",
    "audit",
    "dapr",
    "span",
    "dhow",
    "dhow_api",
    "dhow_argo",
    "dhow_artifacts",
    "dhow_blocks",
    "dhow_claims",
    "dhow_engine",
    "dhow_guest",
    "dhow_host",
    "dhow_providers",
    "dhow_resources",
];

/// The logger of everything that has none of its own.
const ROOT: &str = "root";

/// Names of levels, from the one that says most.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("trace", LevelFilter::TRACE),
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warn", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("off", LevelFilter::OFF),
];

/// Longest name of a part of a logger.
const MAX_NAME: usize = 200;

/// Loggers whose level was changed; more are refused.
const MAX_CHANGED: usize = 100;

/// How much is logged, which can be changed while the process runs.
pub(crate) struct Levels {
    /// The filter that the process began with.
    begun: String,
    /// What was changed since, by logger.
    changed: Mutex<BTreeMap<String, &'static str>>,
    /// Puts a filter in the place of the one before.
    apply: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

/// From here on, events go to standard error.
pub(crate) fn init(global: &Global) -> Result<Arc<Levels>, Error> {
    let from_environment = || std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    IS_JSON.store(global.log_format == Format::Json, Ordering::Relaxed);
    let begun = global.log.clone().or_else(from_environment).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::builder().parse(format!("{QUIET},{begun}")).map_err(|error| {
        Error::usage(format!(
            "{begun:?} is no log filter: {error}; try \"debug\" or \"info,dhow_host=debug\""
        ))
    })?;
    let colors =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    let (result, apply) = match global.log_format {
        Format::Text => {
            let subscriber = subscriber.with_ansi(colors).event_format(Line).with_filter_reloading();
            let apply = changes(subscriber.reload_handle());
            (subscriber.try_init(), apply)
        }
        Format::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_current_span(false);
            let subscriber = subscriber.with_span_list(false).with_filter_reloading();
            let apply = changes(subscriber.reload_handle());
            (subscriber.try_init(), apply)
        }
    };
    result.map_err(|error| Error::new(format!("cannot set up the log: {error}")))?;
    Ok(Arc::new(Levels { begun, changed: Mutex::default(), apply }))
}

fn changes<S: 'static>(
    handle: Handle<EnvFilter, S>,
) -> Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> {
    Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
}

// === impl Levels ===

impl Levels {
    fn filter(&self, changed: &BTreeMap<String, &'static str>) -> String {
        // A level without a logger replaces the one before, so the order of the names does not matter.
        let changed = changed.iter().map(|(logger, level)| match logger.as_str() {
            ROOT => format!(",{level}"),
            logger => format!(",{logger}={level}"),
        });
        format!("{QUIET},{}{}", self.begun, changed.collect::<String>())
    }
}

impl Loggers for Levels {
    fn levels(&self) -> Vec<(String, String)> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        // Filters that look into spans cannot be told by logger; the rest of them is.
        let filter = self.filter(&changed);
        let plain: Vec<&str> =
            filter.split(',').filter(|directive| !directive.contains(['[', '{'])).collect();
        let targets: Targets = plain.join(",").parse().unwrap_or_default();
        let level = |logger: &str| {
            let is_on = |level: &LevelFilter| {
                level.into_level().is_some_and(|level| match logger {
                    ROOT => targets.default_level().is_some_and(|most| most >= level),
                    logger => targets.would_enable(logger, &level),
                })
            };
            let level = LEVELS.iter().find(|(_, level)| is_on(level)).map_or("off", |(name, _)| *name);
            (logger.to_owned(), level.to_owned())
        };
        let others = changed.keys().map(String::as_str).filter(|logger| !LOGGERS.contains(logger));
        LOGGERS.into_iter().chain(others).map(level).collect()
    }

    fn set(&self, logger: &str, level: &str) -> Result<(), String> {
        let logger = if logger.is_empty() { ROOT } else { logger };
        let (first, rest) =
            logger.split_once("::").map_or((logger, None), |(first, rest)| (first, Some(rest)));
        let is_part = |rest: &str| {
            rest.len() <= MAX_NAME && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
        };
        if !LOGGERS.contains(&first) || !rest.is_none_or(is_part) || (first == ROOT && rest.is_some()) {
            let hint = match nearest(first, &LOGGERS) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected one of {}, or a part of one: dhow_host::fleet", LOGGERS.join(", ")),
            };
            return Err(format!(
                "there is no logger {:?}; {hint}",
                logger.chars().take(MAX_NAME).collect::<String>()
            ));
        }
        // What only ends a program that the level is named for does not end dhow.
        let lower = level.to_ascii_lowercase();
        let wanted = if lower == "fatal" { "off" } else { &lower };
        let Some(&(level, _)) = LEVELS.iter().find(|(name, _)| *name == wanted) else {
            let known = LEVELS.map(|(name, _)| name).join(", ");
            return Err(format!(
                "there is no level {:?}; expected one of {known}",
                level.chars().take(MAX_NAME).collect::<String>()
            ));
        };
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.len() >= MAX_CHANGED && !changed.contains_key(logger) {
            return Err(format!("the levels of {MAX_CHANGED} loggers were changed already"));
        }
        let mut next = changed.clone();
        next.insert(logger.to_owned(), level);
        let filter = EnvFilter::builder().parse(self.filter(&next)).map_err(|error| error.to_string())?;
        (self.apply)(filter)?;
        *changed = next;
        tracing::info!("logger {logger}: level {level}");
        Ok(())
    }
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
