//! The table of jobs: what was asked for, as it was asked for, and how far each job is.

use super::plan::{Next, Plan, Progress};
use crate::database::Database;
use bytes::Bytes;
use dhow_blocks::error::BlockError;
use dhow_blocks::jobs::{Due, FailurePolicy, Job, JobData, JobError, MAX_JOBS};
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Times are milliseconds of Unix time. `wake` is when somebody has to look at the job: when it is due, when
/// it is to be tried again, or when the claim on it ends. A `retry_interval` (nanoseconds) that is null means
/// that a failure is dropped, a `max_retries` that is null that there are any number.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        schedule TEXT,
        due_time TEXT,
        repeats INTEGER,
        ttl TEXT,
        data_type TEXT,
        data BLOB,
        retry_interval INTEGER,
        max_retries INTEGER,
        due INTEGER NOT NULL,
        wake INTEGER NOT NULL,
        expires INTEGER,
        count INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        claim INTEGER,
        PRIMARY KEY (owner, name)
    );
    CREATE INDEX IF NOT EXISTS jobs_wake ON jobs (owner, wake);
    CREATE INDEX IF NOT EXISTS jobs_claim ON jobs (claim) WHERE claim IS NOT NULL;
";

/// What [`row_job`] reads.
const COLUMNS: &str = "name, schedule, due_time, repeats, ttl, data_type, data, retry_interval, max_retries";

/// Larger data belong into a state store, and their key into the job.
const MAX_DATA: usize = 1 << 20;

/// The jobs.
#[derive(Debug)]
pub(super) struct Table {
    database: Database,
}

/// A job that is due and that nobody else triggers for now.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    /// Tells this claim from later ones, and the job from one that replaced it.
    pub(super) claim: i64,
    pub(super) due: Due,
    job: Job,
    progress: Progress,
    expires: Option<SystemTime>,
}

/// What may be claimed.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// The owners, as a JSON array.
    pub(super) owners: String,
    /// Jobs of one owner that may run at once.
    pub(super) for_each: usize,
    /// Jobs of all owners that may be claimed now.
    pub(super) in_all: usize,
    /// How many of each owner run already.
    pub(super) running: HashMap<String, usize>,
}

// === impl Room ===

impl Room {
    /// How many jobs of this owner may be claimed.
    fn free(&self, owner: &str) -> usize {
        let running = self.running.get(owner).copied().unwrap_or(0);
        self.for_each.saturating_sub(running).min(self.in_all)
    }

    /// When to look again. Owners without room are looked at when one of their jobs has ended.
    fn next(&self, wakes: &[(String, i64)]) -> Option<SystemTime> {
        let wakes = wakes.iter().filter(|(owner, _)| self.free(owner) > 0);
        wakes.map(|(_, wake)| time(*wake)).min()
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new(database: Database) -> Table {
        Table { database }
    }

    /// Whether there can be any job at all.
    pub(super) fn exists(&self) -> bool {
        self.database.exists()
    }

    pub(super) async fn close(&self) {
        self.database.close().await;
    }

    pub(super) async fn insert(
        &self,
        owner: &str,
        job: Job,
        plan: Plan,
        overwrite: bool,
        now: SystemTime,
    ) -> Result<(), JobError> {
        if job.data.as_ref().is_some_and(|data| data.value.len() > MAX_DATA) {
            let reason = "data: a job holds 1 MiB at most; keep more in a state store".to_owned();
            return Err(BlockError::Invalid { reason }.into());
        }
        let owner = owner.to_owned();
        let work = move |connection: &Connection| insert(connection, &owner, &job, plan, overwrite, now);
        self.database.run(work).await?
    }

    pub(super) async fn get(
        &self,
        owner: &str,
        name: &str,
        now: SystemTime,
    ) -> Result<Option<Job>, BlockError> {
        if !self.exists() {
            return Ok(None);
        }
        let (owner, name) = (owner.to_owned(), name.to_owned());
        let work = move |connection: &Connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM jobs
                 WHERE owner = ?1 AND name = ?2 AND coalesce(expires > ?3, true)"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_row((owner, name, millis(now)), row_job).optional()
        };
        self.database.run(work).await
    }

    pub(super) async fn list(&self, owner: &str, now: SystemTime) -> Result<Vec<Job>, BlockError> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        let owner = owner.to_owned();
        let work = move |connection: &Connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM jobs
                 WHERE owner = ?1 AND coalesce(expires > ?2, true) ORDER BY name"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map((owner, millis(now)), row_job)?.collect()
        };
        self.database.run(work).await
    }

    pub(super) async fn delete(&self, owner: &str, name: &str) -> Result<(), BlockError> {
        if !self.exists() {
            return Ok(());
        }
        let (owner, name) = (owner.to_owned(), name.to_owned());
        let work = move |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("DELETE FROM jobs WHERE owner = ?1 AND name = ?2")?;
            statement.execute((owner, name)).map(drop)
        };
        self.database.run(work).await
    }

    pub(super) async fn delete_prefix(&self, owner: &str, prefix: &str) -> Result<(), BlockError> {
        if !self.exists() {
            return Ok(());
        }
        let (owner, prefix) = (owner.to_owned(), prefix.to_owned());
        let work = move |connection: &Connection| {
            let sql = "DELETE FROM jobs
                 WHERE owner = ?1 AND name >= ?2 AND substr(name, 1, length(?2)) = ?2";
            connection.prepare_cached(sql)?.execute((owner, prefix)).map(drop)
        };
        self.database.run(work).await
    }

    /// Claims jobs that are due, until a time, and says when the next look is due. Nothing is locked or written
    /// where nothing is due.
    pub(super) async fn claim(
        &self,
        room: Room,
        now: SystemTime,
        until: SystemTime,
    ) -> Result<(Vec<Claimed>, Option<SystemTime>), BlockError> {
        let owners = room.owners.clone();
        let wakes = self.database.look(move |connection| first_wakes(connection, &owners)).await?;
        let next = room.next(&wakes);
        if next.is_none_or(|next| next > now) {
            return Ok((Vec::new(), next));
        }
        self.database.run(move |connection| claim(connection, room, now, until)).await
    }

    /// Keeps claims for longer.
    pub(super) async fn renew(&self, claims: Vec<i64>, until: SystemTime) -> Result<(), BlockError> {
        self.wake(claims, until).await
    }

    /// Gives claims up: the jobs are due again.
    pub(super) async fn release(&self, claims: Vec<i64>, now: SystemTime) -> Result<(), BlockError> {
        self.wake(claims, now).await
    }

    async fn wake(&self, claims: Vec<i64>, at: SystemTime) -> Result<(), BlockError> {
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare_cached("UPDATE jobs SET wake = ?2 WHERE claim = ?1")?;
            claims.into_iter().try_for_each(|claim| statement.execute((claim, millis(at))).map(drop))
        };
        self.database.run(work).await
    }

    /// Keeps what became of a try. A job that was deleted, replaced or claimed by somebody else meanwhile is
    /// left alone.
    pub(super) async fn finish(
        &self,
        claimed: &Claimed,
        done: bool,
        now: SystemTime,
    ) -> Result<(), BlockError> {
        let Claimed { claim, progress, .. } = *claimed;
        let next = progress.next(&claimed.job, claimed.expires, done, now);
        let work = move |connection: &Connection| match next {
            Next::Over => {
                connection.prepare_cached("DELETE FROM jobs WHERE claim = ?1")?.execute([claim]).map(drop)
            }
            Next::Retry(at) => {
                let sql = "UPDATE jobs SET claim = NULL, wake = ?2, failures = ?3 WHERE claim = ?1";
                let failures = progress.failures.saturating_add(1);
                connection.prepare_cached(sql)?.execute((claim, millis(at), failures)).map(drop)
            }
            Next::Due(at) => {
                let sql = "UPDATE jobs SET claim = NULL, due = ?2, wake = ?2, count = ?3, failures = 0
                     WHERE claim = ?1";
                let count = progress.count.saturating_add(1);
                connection.prepare_cached(sql)?.execute((claim, millis(at), count)).map(drop)
            }
        };
        self.database.run(work).await
    }
}

fn insert(
    connection: &Connection,
    owner: &str,
    job: &Job,
    plan: Plan,
    overwrite: bool,
    now: SystemTime,
) -> rusqlite::Result<Result<(), JobError>> {
    let sql = "SELECT 1 FROM jobs WHERE owner = ?1 AND name = ?2 AND coalesce(expires > ?3, true)";
    let exists = connection.prepare_cached(sql)?.exists((owner, &job.name, millis(now)))?;
    if exists && !overwrite {
        return Ok(Err(JobError::Exists { name: job.name.clone() }));
    }
    if !exists {
        let mut count = connection.prepare_cached("SELECT count(*) FROM jobs WHERE owner = ?1")?;
        let count: u32 = count.query_row([owner], |row| row.get(0))?;
        if count as usize >= MAX_JOBS {
            let reason = format!("{owner:?} has {count} jobs, and may have no more; delete some");
            return Ok(Err(BlockError::Failed { reason }.into()));
        }
    }
    let (interval, retries) = match job.failure_policy {
        FailurePolicy::Drop => (None, None),
        FailurePolicy::Constant { interval, max_retries } => {
            (Some(i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX)), max_retries)
        }
    };
    // Replacing also forgets a claim: the trigger that runs is of a job that is no more.
    let sql = "INSERT OR REPLACE INTO jobs
         (owner, name, schedule, due_time, repeats, ttl, data_type, data, retry_interval, max_retries,
          due, wake, expires)
         VALUES (:owner, :name, :schedule, :due_time, :repeats, :ttl, :data_type, :data, :interval, :retries,
          :due, :due, :expires)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":owner": owner,
        ":name": job.name,
        ":schedule": job.schedule,
        ":due_time": job.due_time,
        ":repeats": job.repeats,
        ":ttl": job.ttl,
        ":data_type": job.data.as_ref().map(|data| &data.type_url),
        ":data": job.data.as_ref().map(|data| &data.value[..]),
        ":interval": interval,
        ":retries": retries,
        ":due": millis(plan.due),
        ":expires": plan.expires.map(millis),
    })?;
    Ok(Ok(()))
}

fn claim(
    connection: &Connection,
    mut room: Room,
    now: SystemTime,
    until: SystemTime,
) -> rusqlite::Result<(Vec<Claimed>, Option<SystemTime>)> {
    let mut owners = first_wakes(connection, &room.owners)?;
    // Who comes last when there is no room for all is left to chance, so that nobody always does.
    fastrand::shuffle(&mut owners);
    let mut claimed = Vec::new();
    for (owner, wake) in owners {
        let free = room.free(&owner);
        if wake <= millis(now) && free > 0 {
            let found = claim_of(connection, &owner, free, now, until)?;
            *room.running.entry(owner).or_default() += found.len();
            room.in_all -= found.len();
            claimed.extend(found);
        }
    }
    let next = room.next(&first_wakes(connection, &room.owners)?);
    Ok((claimed, next))
}

/// When each owner's first job is to be looked at.
fn first_wakes(connection: &Connection, owners: &str) -> rusqlite::Result<Vec<(String, i64)>> {
    let sql = "SELECT value, (SELECT min(wake) FROM jobs WHERE owner = value) AS first
         FROM json_each(?1) WHERE first IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map([owners], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Claims some of one owner's jobs that are due; those that have expired are removed.
fn claim_of(
    connection: &Connection,
    owner: &str,
    limit: usize,
    now: SystemTime,
    until: SystemTime,
) -> rusqlite::Result<Vec<Claimed>> {
    let sql = format!(
        "SELECT {COLUMNS}, due, count, failures, expires, rowid FROM jobs
         WHERE owner = ?1 AND wake <= ?2 ORDER BY wake LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows =
        statement.query_map((owner, millis(now), i64::try_from(limit).unwrap_or(i64::MAX)), |row| {
            let job = row_job(row)?;
            let due = time(row.get(9)?);
            let claimed = Claimed {
                // Positive, and of a chance to meet another one that nobody lives to see.
                claim: fastrand::i64(1..),
                due: Due { owner: owner.to_owned(), name: job.name.clone(), data: job.data.clone(), due },
                progress: Progress { due, count: row.get(10)?, failures: row.get(11)? },
                expires: row.get::<_, Option<i64>>(12)?.map(time),
                job,
            };
            Ok((row.get::<_, i64>(13)?, claimed))
        })?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    let mut claimed = Vec::with_capacity(rows.len());
    for (row, job) in rows {
        if job.expires.is_some_and(|expires| expires <= now) {
            connection.prepare_cached("DELETE FROM jobs WHERE rowid = ?1")?.execute([row])?;
        } else {
            let sql = "UPDATE jobs SET claim = ?2, wake = ?3 WHERE rowid = ?1";
            connection.prepare_cached(sql)?.execute((row, job.claim, millis(until)))?;
            claimed.push(job);
        }
    }
    Ok(claimed)
}

fn row_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let data = match row.get::<_, Option<String>>(5)? {
        None => None,
        Some(type_url) => Some(JobData { type_url, value: Bytes::from(row.get::<_, Vec<u8>>(6)?) }),
    };
    let failure_policy = match row.get::<_, Option<i64>>(7)? {
        None => FailurePolicy::Drop,
        Some(interval) => FailurePolicy::Constant {
            interval: Duration::from_nanos(interval.unsigned_abs()),
            max_retries: row.get(8)?,
        },
    };
    Ok(Job {
        name: row.get(0)?,
        schedule: row.get(1)?,
        due_time: row.get(2)?,
        repeats: row.get(3)?,
        ttl: row.get(4)?,
        data,
        failure_policy,
    })
}

/// Unix time in milliseconds; what the column cannot hold is as far away as it can.
fn millis(time: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

fn time(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = if millis < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}
