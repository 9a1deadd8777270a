//! What bindings to SQL databases have in common: Dapr's form of a request and of its answer.
//!
//! Source: Dapr documentation, "PostgreSQL binding spec" and "MySQL & MariaDB binding spec".

use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use serde_json::Value;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The operations of both bindings.
const OPERATIONS: &[&str] = &["exec", "query", "close"];

/// The rows of one answer may have this many bytes as JSON.
pub(crate) const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A request, read.
#[derive(Debug, PartialEq)]
enum Request {
    /// A statement of which only the number of rows counts.
    Exec(Statement),
    /// A statement whose rows are the answer.
    Query(Statement),
    /// No further request is wanted.
    Close,
}

/// A statement and its parameters.
#[derive(Debug, PartialEq)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) params: Vec<Value>,
}

/// What a statement is run for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// The number of rows that it changed.
    Number,
    /// The rows that it reads.
    Rows,
}

/// What a statement answered.
pub(crate) enum Answer {
    /// So many rows were changed.
    Affected(u64),
    /// A JSON array of rows.
    Rows(String),
}

/// A server that runs statements.
#[async_trait]
pub(crate) trait Server: Send + Sync + 'static {
    /// Runs a statement on a connection that no other request finds changed (see [`keeps_the_session`]).
    async fn run(&self, statement: &Statement, wanted: Wanted) -> Result<Answer, BlockError>;

    /// Whether the server answers.
    async fn ping(&self) -> Result<(), BlockError>;

    /// Lets go of all connections.
    fn close(&self);
}

/// A binding of any statement.
pub(crate) struct Sql<S>(pub(crate) S);

/// Writes an answer's metadata.
struct Stopwatch {
    metadata: Metadata,
    started: Instant,
}

// === impl Request ===

impl Request {
    fn read(request: &BindingRequest) -> Result<Request, BlockError> {
        let BindingRequest { operation, metadata, .. } = request;
        let statement = || {
            let sql = value(metadata, "sql").filter(|sql| !sql.is_empty());
            let sql =
                sql.ok_or_else(|| BlockError::invalid("metadata field sql is required: a statement"))?;
            let params = match value(metadata, "params").filter(|params| !params.is_empty()) {
                None => Vec::new(),
                Some(params) => serde_json::from_str(params).map_err(|error| {
                    BlockError::invalid(format!("metadata field params must be a JSON array: {error}"))
                })?,
            };
            Ok(Statement { sql: sql.to_owned(), params })
        };
        match operation.as_str() {
            "exec" => statement().map(Request::Exec),
            "query" => statement().map(Request::Query),
            "close" => Ok(Request::Close),
            other => Err(BlockError::invalid(format!(
                "operation {other:?} is not known; use one of {}",
                OPERATIONS.join(", ")
            ))),
        }
    }
}

// === impl Sql ===

#[async_trait]
impl<S: Server> Binding for Sql<S> {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let (statement, wanted) = match Request::read(&request)? {
            Request::Close => {
                self.0.close();
                return Ok(BindingResponse::default());
            }
            Request::Exec(statement) => (statement, Wanted::Number),
            Request::Query(statement) => (statement, Wanted::Rows),
        };
        let stopwatch = Stopwatch::start(&request.operation, &statement.sql);
        Ok(match self.0.run(&statement, wanted).await? {
            Answer::Affected(rows) => stopwatch.affected(rows),
            Answer::Rows(rows) => stopwatch.rows(rows),
        })
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.0.ping().await
    }

    async fn close(&self) {
        self.0.close();
    }
}

/// Statements that change nothing but what the server stores.
const OF_DATA: &[&str] = &[
    "alter", "create", "delete", "describe", "drop", "explain", "insert", "merge", "replace", "select",
    "show", "table", "truncate", "update", "values", "with",
];

/// Words by which such a statement leaves something behind in its session all the same. A variable of MySQL's
/// (`@x`) does, too.
const OF_SESSION: &[&str] = &[
    "get_lock",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "set_config",
    "temp",
    "temporary",
];

/// Whether the next request finds a connection as it was before this statement: no transaction that is open, no
/// other role, setting, lock or temporary table. What is not known for certain does not; that costs a connection.
pub(crate) fn keeps_the_session(sql: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '_' | '@');
    let is = |word: &str, known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(word));
    let mut words = sql.split(|character| !is_part(character)).filter(|word| !word.is_empty());
    let opens = sql.trim_start_matches(|character: char| character.is_whitespace() || character == '(');
    opens.starts_with(is_part)
        && words.next().is_some_and(|first| is(first, OF_DATA))
        && !words.any(|word| word.starts_with('@') || is(word, OF_SESSION))
}

// === impl Stopwatch ===

impl Stopwatch {
    fn start(operation: &str, sql: &str) -> Stopwatch {
        let fields = [("operation", operation), ("sql", sql), ("start-time", &now())];
        let metadata = fields.map(|(field, value)| (field.to_owned(), value.to_owned())).into();
        Stopwatch { metadata, started: Instant::now() }
    }

    /// The answer of an `exec`.
    fn affected(mut self, rows: u64) -> BindingResponse {
        self.metadata.insert("rows-affected".to_owned(), rows.to_string());
        self.stop(None)
    }

    /// The answer of a `query`.
    fn rows(self, rows: String) -> BindingResponse {
        self.stop(Some(rows))
    }

    fn stop(mut self, data: Option<String>) -> BindingResponse {
        self.metadata.insert("end-time".to_owned(), now());
        self.metadata.insert("duration".to_owned(), duration(self.started.elapsed()));
        BindingResponse { data: data.map(Into::into), metadata: self.metadata }
    }
}

/// Why an answer was cut off.
pub(crate) fn too_much() -> BlockError {
    BlockError::failed(format!(
        "the answer has more than {} MiB; ask for fewer rows at once, with LIMIT",
        MAX_ANSWER / 1024 / 1024
    ))
}

/// Adds a string to JSON.
pub(crate) fn push_string(json: &mut String, text: &str) {
    json.push_str(&Value::from(text).to_string());
}

/// An instant of RFC 3339 in UTC, as Go writes it: no more digits than there are. Years of more than four
/// digits are written as they are.
pub(crate) fn rfc3339(microseconds: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    let (day, rest) = (microseconds.div_euclid(DAY), microseconds.rem_euclid(DAY));
    format!("{}T{}Z", date(day), time(rest))
}

/// A day of the proleptic Gregorian calendar, counted from 1970-01-01.
pub(crate) fn date(day: i64) -> String {
    // Years from March, so that the day that is not in every year is the last one.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{of_month:02}", if month <= 2 { year + 1 } else { year })
}

/// A time of day, in microseconds.
pub(crate) fn time(microseconds: i64) -> String {
    let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        // Writing to a string does not fail.
        let _ = write!(text, ".{fraction:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Go's format of a duration.
fn duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let scaled = |unit: u128, name: &str| {
        let fraction = format!("{:09}", nanoseconds % unit * (1_000_000_000 / unit));
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{name}", nanoseconds / unit)
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (duration.as_secs() / 60, duration.as_secs() % 60);
            let seconds = self::duration_seconds(rest, duration.subsec_nanos());
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn duration_seconds(seconds: u64, nanoseconds: u32) -> String {
    let fraction = format!(".{nanoseconds:09}");
    format!("{seconds}{}s", fraction.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_written_as_go_does() {
        for (microseconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_500_000, "2000-02-29T12:34:56.5Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00Z"),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
            (253_402_300_799_000_000, "9999-12-31T23:59:59Z"),
            (1_735_603_200_000_010, "2024-12-31T00:00:00.00001Z"),
        ] {
            assert_eq!(rfc3339(microseconds), expected);
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (15, "15ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_234_567, "1.234567ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (7_200_000_000_000, "2h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), expected);
        }
    }

    #[test]
    fn statements_that_change_the_session_are_recognized() {
        for (sql, expected) in [
            ("SELECT 1", true),
            (" \n(select a FROM b)", true),
            ("WITH x AS (SELECT 1) INSERT INTO y SELECT * FROM x", true),
            ("CREATE TABLE temperature (at timestamp)", true),
            ("SELECT * FROM users WHERE mail = 'a@example.com'", true),
            ("BEGIN", false),
            ("start transaction", false),
            ("SET ROLE anna", false),
            ("LISTEN x", false),
            ("USE other", false),
            ("LOCK TABLES a WRITE", false),
            ("PREPARE x AS SELECT 1", false),
            ("CALL anything()", false),
            ("CREATE TEMP TABLE a (b int)", false),
            ("SELECT set_config('role', 'anna', false)", false),
            ("SELECT pg_advisory_lock(1)", false),
            ("SELECT GET_LOCK('a', 1)", false),
            ("SELECT @a := 1", false),
            ("/*! SET autocommit = 0 */ SELECT 1", false),
            ("-- \nBEGIN", false),
            ("", false),
        ] {
            assert_eq!(keeps_the_session(sql), expected, "{sql}");
        }
    }

    #[test]
    fn requests_are_read_and_mistakes_are_named() {
        let request = |operation: &str, metadata: &[(&str, &str)]| {
            let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let operation = operation.to_owned();
            Request::read(&BindingRequest { operation, metadata: metadata.collect(), ..Default::default() })
        };
        let statement = Statement { sql: "SELECT $1".to_owned(), params: vec![json!(1), json!(null)] };
        assert_eq!(
            request("query", &[("SQL", "SELECT $1"), ("params", "[1, null]")]),
            Ok(Request::Query(statement))
        );
        assert_eq!(request("close", &[]), Ok(Request::Close));
        for (operation, metadata, expected) in [
            ("exec", &[][..], "sql"),
            ("exec", &[("sql", "x"), ("params", "{}")], "params"),
            ("drop", &[("sql", "x")], "exec, query, close"),
        ] {
            let error = request(operation, metadata).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
