//! Who holds which message.
//!
//! A subscription has a seat: a number as a holder. What it takes is pending under that number until it says
//! what became of it, or until somebody else finds that its process is dead or its lease is over.

use super::table::{self, MESSAGE_BY_ID, NEW_MESSAGES, execute, find, read_message};
use dhow_blocks::pubsub::Message;
use rusqlite::{Connection, Row};
use std::collections::HashSet;

/// A subscription's place in the tables.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) topic_name: String,
    pub(super) topic: i64,
    pub(super) consumer: i64,
    pub(super) holder: i64,
    /// Tells others whether the holder's process lives.
    pub(super) process: String,
}

/// What became of messages, and what else is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// Handled.
    pub(super) done: Vec<i64>,
    /// Refused, and when they are due again.
    pub(super) again: Vec<(i64, i64)>,
    /// How many messages may be taken.
    pub(super) room: usize,
    /// How many bytes of them; one message may be larger.
    pub(super) bytes: usize,
    /// Nothing is taken while another subscription of the consumer holds anything, nor out of order.
    pub(super) ordered: bool,
    /// After a report whose answer was lost: what the subscription knows that it holds. All else is free.
    pub(super) known: Option<HashSet<i64>>,
}

/// A message that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) id: i64,
    pub(super) attempts: usize,
    pub(super) message: Message,
}

/// The answer to a report.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) taken: Vec<Taken>,
    /// Somebody took the subscription for dead: what it held is not its own any more, and nothing was taken.
    pub(super) lost: bool,
    /// When a refused message is due again.
    pub(super) due: Option<i64>,
}

/// Makes the consumer known, and gives a seat to a subscription of it.
pub(super) fn sit(
    connection: &Connection,
    topic_name: &str,
    consumer: &str,
    process: &str,
    now: i64,
    lease: i64,
) -> rusqlite::Result<Seat> {
    let (topic, _) = table::topic(connection, topic_name)?;
    execute(
        connection,
        "INSERT INTO queue_consumer (topic, name, seen) VALUES (?1, ?2, ?3) \
         ON CONFLICT (topic, name) DO UPDATE SET seen = excluded.seen",
        (topic, consumer, now),
    )?;
    let known = "SELECT id FROM queue_consumer WHERE topic = ?1 AND name = ?2";
    let consumer = connection.prepare_cached(known)?.query_row((topic, consumer), |row| row.get(0))?;
    let holder = fastrand::i64(1..);
    let seat =
        Seat { topic_name: topic_name.to_owned(), topic, consumer, holder, process: process.to_owned() };
    seat.take_place(connection, lease)?;
    Ok(seat)
}

// === impl Seat ===

impl Seat {
    /// Renews the lease, notes what became of messages, and takes new ones.
    pub(super) fn report(
        &self,
        connection: &Connection,
        report: &Report,
        now: i64,
        lease: i64,
    ) -> rusqlite::Result<Answer> {
        self.settle(connection, report)?;
        if !self.renew(connection, now, lease)? {
            return Ok(Answer { lost: true, ..Answer::default() });
        }
        if let Some(known) = &report.known {
            self.free(connection, known, now)?;
        }
        let mut answer = Answer::default();
        if report.room > 0 && !(report.ordered && self.others_hold(connection)?) {
            self.take(connection, report, now, &mut answer.taken)?;
        }
        let due = "SELECT min(due) FROM queue_pending WHERE consumer = ?1 AND holder IS NULL";
        answer.due = find(connection, due, [self.consumer], |row| row.get(0))?.flatten();
        Ok(answer)
    }

    /// Notes what became of messages, frees all others, and gives the seat up.
    pub(super) fn leave(&self, connection: &Connection, report: &Report, now: i64) -> rusqlite::Result<()> {
        self.settle(connection, report)?;
        self.free(connection, &HashSet::new(), now)?;
        execute(connection, "DELETE FROM queue_holder WHERE id = ?1", [self.holder])?;
        execute(connection, "UPDATE queue_consumer SET seen = ?2 WHERE id = ?1", (self.consumer, now))?;
        Ok(())
    }

    fn take_place(&self, connection: &Connection, lease: i64) -> rusqlite::Result<()> {
        execute(
            connection,
            "INSERT INTO queue_holder (id, consumer, process, lease) VALUES (?1, ?2, ?3, ?4)",
            (self.holder, self.consumer, &self.process, lease),
        )?;
        Ok(())
    }

    /// `false` if the seat had been taken away; then it is a new one.
    fn renew(&self, connection: &Connection, now: i64, lease: i64) -> rusqlite::Result<bool> {
        let current = "SELECT lease FROM queue_holder WHERE id = ?1";
        let Some(current) = find(connection, current, [self.holder], |row| row.get::<_, i64>(0))? else {
            self.take_place(connection, lease)?;
            return Ok(false);
        };
        // A report that changes nothing else should not have to write.
        if current.saturating_sub(now) < lease.saturating_sub(now) / 3 * 2 {
            execute(connection, "UPDATE queue_holder SET lease = ?2 WHERE id = ?1", (self.holder, lease))?;
            execute(connection, "UPDATE queue_consumer SET seen = ?2 WHERE id = ?1", (self.consumer, now))?;
        }
        Ok(true)
    }

    fn settle(&self, connection: &Connection, report: &Report) -> rusqlite::Result<()> {
        for message in &report.done {
            self.done(connection, *message)?;
        }
        for (message, due) in &report.again {
            execute(
                connection,
                "UPDATE queue_pending SET holder = NULL, due = ?4, attempts = attempts + 1 \
                 WHERE message = ?1 AND consumer = ?2 AND holder = ?3",
                (message, self.consumer, self.holder, due),
            )?;
        }
        Ok(())
    }

    /// Whoever holds it: it was handled.
    fn done(&self, connection: &Connection, message: i64) -> rusqlite::Result<()> {
        let forget = "DELETE FROM queue_pending WHERE message = ?1 AND consumer = ?2";
        execute(connection, forget, (message, self.consumer))?;
        table::give_up(connection, self.topic, message)
    }

    /// Frees what the seat holds and is not known to hold.
    fn free(&self, connection: &Connection, known: &HashSet<i64>, now: i64) -> rusqlite::Result<()> {
        let held: Vec<i64> = connection
            .prepare_cached("SELECT message FROM queue_pending WHERE holder = ?1")?
            .query_map([self.holder], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for message in held.into_iter().filter(|message| !known.contains(message)) {
            execute(
                connection,
                "UPDATE queue_pending SET holder = NULL, due = ?3 WHERE message = ?1 AND consumer = ?2",
                (message, self.consumer, now),
            )?;
        }
        Ok(())
    }

    fn others_hold(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM queue_holder AS other JOIN queue_pending ON holder = other.id \
                   WHERE other.consumer = ?1 AND other.id <> ?2 LIMIT 1";
        Ok(find(connection, sql, (self.consumer, self.holder), |_| Ok(()))?.is_some())
    }

    /// First what was refused and is due, then what is new.
    fn take(
        &self,
        connection: &Connection,
        report: &Report,
        now: i64,
        taken: &mut Vec<Taken>,
    ) -> rusqlite::Result<()> {
        let mut bytes = 0;
        // In strict order nothing may pass a refused message, so that it is due at once.
        let latest_due = if report.ordered { i64::MAX } else { now };
        let refused: Vec<(i64, i64)> = connection
            .prepare_cached(
                "SELECT message, attempts FROM queue_pending \
                 WHERE consumer = ?1 AND holder IS NULL AND due <= ?2 ORDER BY message LIMIT ?3",
            )?
            .query_map((self.consumer, latest_due, report.room as i64), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (id, attempts) in refused {
            if bytes >= report.bytes {
                return Ok(());
            }
            let read = |row: &Row<'_>| read_message(row, &self.topic_name, now);
            let found = find(connection, MESSAGE_BY_ID, [id], read)?;
            match found {
                Some((_, message, false)) => {
                    bytes += message.data.len();
                    execute(
                        connection,
                        "UPDATE queue_pending SET holder = ?3 WHERE message = ?1 AND consumer = ?2",
                        (id, self.consumer, self.holder),
                    )?;
                    taken.push(Taken { id, attempts: usize::try_from(attempts).unwrap_or(0), message });
                }
                // Expired, or removed by somebody.
                _ => self.done(connection, id)?,
            }
        }
        let cursor = "SELECT cursor FROM queue_consumer WHERE id = ?1";
        let Some(start) = find(connection, cursor, [self.consumer], |row| row.get::<_, i64>(0))? else {
            return Ok(());
        };
        let mut cursor = start;
        let mut expired = Vec::new();
        {
            let mut statement = connection.prepare_cached(NEW_MESSAGES)?;
            let mut rows = statement.query((self.topic, start))?;
            while taken.len() < report.room && bytes < report.bytes {
                let Some(row) = rows.next()? else { break };
                let (id, message, is_expired) = read_message(row, &self.topic_name, now)?;
                cursor = id;
                if is_expired {
                    expired.push(id);
                    continue;
                }
                bytes += message.data.len();
                execute(
                    connection,
                    "INSERT INTO queue_pending (message, consumer, holder, due) VALUES (?1, ?2, ?3, ?4)",
                    (id, self.consumer, self.holder, now),
                )?;
                taken.push(Taken { id, attempts: 0, message });
            }
        }
        if cursor != start {
            let sql = "UPDATE queue_consumer SET cursor = ?2 WHERE id = ?1";
            execute(connection, sql, (self.consumer, cursor))?;
        }
        for message in expired {
            table::give_up(connection, self.topic, message)?;
        }
        Ok(())
    }
}
