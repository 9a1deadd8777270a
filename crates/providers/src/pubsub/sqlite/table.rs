//! The tables, and how a message is published and given up.
//!
//! | table | holds |
//! |---|---|
//! | `queue_topic` | topics, and how many messages each keeps (counted by triggers) |
//! | `queue_message` | messages; their numbers rise in the order of publishing and are never used again |
//! | `queue_consumer` | consumers of a topic; all messages up to `cursor` were taken |
//! | `queue_pending` | messages that a consumer has taken and is not done with |
//! | `queue_holder` | subscriptions that hold pending messages, and until when |
//!
//! Times are milliseconds of Unix time. A message is needed until it is behind the cursors of all consumers of
//! its topic and pending for none.

use super::{length, millis, time_to_live};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::pubsub::{Message, Outgoing};
use rusqlite::{Connection, OptionalExtension, Params, Row};
use std::time::{Duration, SystemTime};

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS queue_topic (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        messages INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE IF NOT EXISTS queue_message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic INTEGER NOT NULL,
        published INTEGER NOT NULL,
        expires INTEGER,
        content_type TEXT,
        metadata TEXT,
        data BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS queue_message_topic ON queue_message (topic);
    CREATE INDEX IF NOT EXISTS queue_message_expires ON queue_message (expires) WHERE expires IS NOT NULL;
    CREATE TRIGGER IF NOT EXISTS queue_message_added AFTER INSERT ON queue_message BEGIN
        UPDATE queue_topic SET messages = messages + 1 WHERE id = new.topic;
    END;
    CREATE TRIGGER IF NOT EXISTS queue_message_removed AFTER DELETE ON queue_message BEGIN
        UPDATE queue_topic SET messages = messages - 1 WHERE id = old.topic;
    END;
    CREATE TABLE IF NOT EXISTS queue_consumer (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic INTEGER NOT NULL,
        name TEXT NOT NULL,
        cursor INTEGER NOT NULL DEFAULT 0,
        seen INTEGER NOT NULL,
        UNIQUE (topic, name)
    );
    CREATE TABLE IF NOT EXISTS queue_pending (
        message INTEGER NOT NULL,
        consumer INTEGER NOT NULL,
        holder INTEGER,
        due INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (message, consumer)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS queue_pending_free ON queue_pending (consumer, due) WHERE holder IS NULL;
    CREATE INDEX IF NOT EXISTS queue_pending_held ON queue_pending (holder) WHERE holder IS NOT NULL;
    CREATE TABLE IF NOT EXISTS queue_holder (
        id INTEGER PRIMARY KEY,
        consumer INTEGER NOT NULL,
        process TEXT NOT NULL,
        lease INTEGER NOT NULL
    );
";

/// One message, for [`read_message`].
pub(super) const MESSAGE_BY_ID: &str =
    "SELECT id, expires, content_type, metadata, data FROM queue_message WHERE id = ?1";

/// The messages of topic ?1 behind ?2, for [`read_message`].
pub(super) const NEW_MESSAGES: &str = "SELECT id, expires, content_type, metadata, data FROM queue_message \
     WHERE topic = ?1 AND id > ?2 ORDER BY id";

/// Messages that a topic keeps while it has no consumer.
const KEPT_WITHOUT_CONSUMER: i64 = 10_000;

/// Rows that one step of tidying removes at most, so that nobody waits long for its end.
const TIDY_ROWS: usize = 1000;

/// What a topic keeps at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Without a consumer: for how long.
    pub(super) retention: Duration,
    /// With consumers: how many.
    pub(super) max_messages: u64,
}

/// A message that is about to be published.
#[derive(Debug)]
pub(super) struct NewMessage {
    message: Outgoing,
    metadata: Option<String>,
    expires: Option<i64>,
}

// === impl NewMessage ===

impl NewMessage {
    /// Fails with `Invalid` for a time to live that is none.
    pub(super) fn new(message: Outgoing, now: SystemTime) -> Result<NewMessage, BlockError> {
        let expires = time_to_live(&message)?.map(|ttl| millis(now).saturating_add(length(ttl)));
        let metadata = (!message.metadata.is_empty())
            .then(|| serde_json::to_string(&message.metadata))
            .transpose()
            .map_err(|error| {
                BlockError::invalid(format!("the metadata cannot be written as JSON: {error}"))
            })?;
        Ok(NewMessage { message, metadata, expires })
    }
}

pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

/// A single row, if there is one.
pub(super) fn find<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, read).optional()
}

/// Adds the message to its topic, or says why the topic does not take it.
pub(super) fn publish(
    connection: &Connection,
    new: &NewMessage,
    limits: &Limits,
    now: i64,
) -> rusqlite::Result<Result<(), BlockError>> {
    let message = &new.message;
    let (topic, mut messages) = topic(connection, &message.topic)?;
    let limit = i64::try_from(limits.max_messages).unwrap_or(i64::MAX);
    if !has_consumer(connection, topic)? {
        // One more than is added, so that a limit that was lowered is reached at last.
        for _ in 0..2 {
            drop_oldest(connection, topic, messages, limits, now)?;
        }
    } else if messages >= limit {
        tidy_expired(connection, now)?;
        messages = self::topic(connection, &message.topic)?.1;
        if messages >= limit {
            let slowest = slowest_consumer(connection, topic)?;
            return Ok(Err(BlockError::unavailable(format!(
                "topic {:?} is full: it holds {messages} messages, and consumer {:?} is the furthest behind; look \
                 why it does not take them, or raise maxMessages",
                message.topic,
                slowest.unwrap_or_default()
            ))));
        }
    }
    execute(
        connection,
        "INSERT INTO queue_message (topic, published, expires, content_type, metadata, data) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (topic, now, new.expires, &message.content_type, &new.metadata, &message.data[..]),
    )?;
    Ok(Ok(()))
}

/// The topic's number and how many messages it keeps; the topic exists from now on.
pub(super) fn topic(connection: &Connection, name: &str) -> rusqlite::Result<(i64, i64)> {
    let known = "SELECT id, messages FROM queue_topic WHERE name = ?1";
    if let Some(known) = find(connection, known, [name], |row| Ok((row.get(0)?, row.get(1)?)))? {
        return Ok(known);
    }
    execute(connection, "INSERT INTO queue_topic (name) VALUES (?1)", [name])?;
    Ok((connection.last_insert_rowid(), 0))
}

fn has_consumer(connection: &Connection, topic: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM queue_consumer WHERE topic = ?1 LIMIT 1";
    Ok(find(connection, sql, [topic], |_| Ok(()))?.is_some())
}

fn slowest_consumer(connection: &Connection, topic: i64) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT name FROM queue_consumer WHERE topic = ?1 ORDER BY cursor LIMIT 1";
    find(connection, sql, [topic], |row| row.get(0))
}

/// Removes the oldest message of a topic without consumers, if there are too many or it is too old.
fn drop_oldest(
    connection: &Connection,
    topic: i64,
    messages: i64,
    limits: &Limits,
    now: i64,
) -> rusqlite::Result<()> {
    let oldest = "SELECT id, published FROM queue_message WHERE topic = ?1 ORDER BY id LIMIT 1";
    let oldest: Option<(i64, i64)> = find(connection, oldest, [topic], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some((id, published)) = oldest
        && (messages >= KEPT_WITHOUT_CONSUMER || published < now.saturating_sub(length(limits.retention)))
    {
        execute(connection, "DELETE FROM queue_message WHERE id = ?1", [id])?;
    }
    Ok(())
}

/// Reads a row of [`MESSAGE_BY_ID`] or [`NEW_MESSAGES`]: the number, the message, and whether it is expired.
pub(super) fn read_message(row: &Row<'_>, topic: &str, now: i64) -> rusqlite::Result<(i64, Message, bool)> {
    let expires: Option<i64> = row.get(1)?;
    let metadata: Option<String> = row.get(3)?;
    let data: Vec<u8> = row.get(4)?;
    let message = Message {
        topic: topic.to_owned(),
        data: data.into(),
        content_type: row.get(2)?,
        // What another program wrote there is no reason to keep the message from its consumer.
        metadata: metadata.and_then(|text| serde_json::from_str::<Metadata>(&text).ok()).unwrap_or_default(),
    };
    Ok((row.get(0)?, message, expires.is_some_and(|expires| expires <= now)))
}

/// Removes the message if no consumer needs it any more.
pub(super) fn give_up(connection: &Connection, topic: i64, message: i64) -> rusqlite::Result<()> {
    execute(
        connection,
        "DELETE FROM queue_message WHERE id = ?1 AND topic = ?2 \
         AND NOT EXISTS (SELECT 1 FROM queue_pending WHERE message = ?1) \
         AND ?1 <= (SELECT min(cursor) FROM queue_consumer WHERE topic = ?2)",
        (message, topic),
    )?;
    Ok(())
}

/// Removes what nobody waits for any more: expired messages, consumers that have gone, messages of topics
/// without consumers that are too old, and topics without anything.
pub(super) fn tidy(
    connection: &Connection,
    limits: &Limits,
    consumer_retention: Option<Duration>,
    now: i64,
) -> rusqlite::Result<()> {
    tidy_expired(connection, now)?;
    if let Some(retention) = consumer_retention {
        let gone = "DELETE FROM queue_consumer WHERE seen < ?1 \
                    AND id NOT IN (SELECT consumer FROM queue_holder)";
        if execute(connection, gone, [now.saturating_sub(length(retention))])? > 0 {
            tracing::warn!("consumers in whose name nobody received for {retention:?} were forgotten");
        }
    }
    execute(
        connection,
        "DELETE FROM queue_pending WHERE consumer NOT IN (SELECT id FROM queue_consumer)",
        [],
    )?;
    let topics = "SELECT topic, min(cursor) FROM queue_consumer GROUP BY topic";
    let topics: Vec<(i64, i64)> = connection
        .prepare_cached(topics)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (topic, cursor) in topics {
        execute(
            connection,
            "DELETE FROM queue_message WHERE id IN (SELECT id FROM queue_message AS message \
             WHERE topic = ?1 AND id <= ?2 \
             AND NOT EXISTS (SELECT 1 FROM queue_pending WHERE message = message.id) LIMIT ?3)",
            (topic, cursor, TIDY_ROWS as i64),
        )?;
    }
    execute(
        connection,
        "DELETE FROM queue_message WHERE id IN (SELECT message.id FROM queue_topic AS topic \
         JOIN queue_message AS message ON message.topic = topic.id AND message.published < ?1 \
         WHERE topic.id NOT IN (SELECT topic FROM queue_consumer) LIMIT ?2)",
        (now.saturating_sub(length(limits.retention)), TIDY_ROWS as i64),
    )?;
    execute(
        connection,
        "DELETE FROM queue_topic WHERE messages <= 0 AND id NOT IN (SELECT topic FROM queue_consumer)",
        [],
    )?;
    Ok(())
}

/// Removes some messages that are expired and that nobody is handling.
fn tidy_expired(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let expired = "SELECT id FROM queue_message WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
    let expired: Vec<i64> = connection
        .prepare_cached(expired)?
        .query_map((now, TIDY_ROWS as i64), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for message in expired {
        let waiting = "DELETE FROM queue_pending WHERE message = ?1 AND holder IS NULL";
        execute(connection, waiting, [message])?;
        let unheld = "DELETE FROM queue_message WHERE id = ?1 \
                      AND NOT EXISTS (SELECT 1 FROM queue_pending WHERE message = ?1)";
        execute(connection, unheld, [message])?;
    }
    Ok(())
}
