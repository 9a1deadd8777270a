//! Hosts of one machine that find one another's apps in a shared SQLite file.
//!
//! The table `hosts` is that of Dapr's `nameresolution.sqlite`, so that Dapr's sidecars and our hosts find
//! one another. It has one row an address; a host that offers several apps on one address keeps all of them
//! in a table of its own beside it, `dhow_apps`, with what only hosts of this kind need: a token that callers
//! show, and the process, so that one that has died is not called. Sidecars of Dapr see the first app of each
//! address.
//!
//! A registration is renewed every few seconds and counts for a little longer. Nothing of it has to outlive the
//! machine, so no renewal waits for the disk.

use super::check_app_id;
use crate::database::Database;
use crate::task::{Stop, Task};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Running;
use dhow_blocks::resolve::{NameResolver, Place};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A row of Dapr's table counts this long after it was renewed, in seconds (Dapr's `updateInterval`) …
const VALID: i64 = 5;

/// … and a row of ours longer: of a process on this machine we know by ourselves whether it lives.
const VALID_OURS: i64 = 15;

/// Between two renewals: a second before Dapr stops to believe, as in Dapr.
const RENEWAL: Duration = Duration::from_secs(4);

/// Rows of hosts that are gone without a word are removed after this time, in seconds.
const FORGOTTEN: i64 = 3600;

/// What was found is believed this long.
const FRESH: Duration = Duration::from_millis(500);

/// Apps whose places are remembered; more are asked for each time.
const MAX_REMEMBERED: usize = 10_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
    CREATE TABLE IF NOT EXISTS hosts (
        registration_id TEXT NOT NULL PRIMARY KEY,
        address TEXT NOT NULL,
        app_id TEXT NOT NULL,
        namespace TEXT NOT NULL,
        last_update INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX IF NOT EXISTS hosts_address_idx ON hosts (address);
    CREATE INDEX IF NOT EXISTS hosts_last_update_idx ON hosts (last_update);
    INSERT OR IGNORE INTO metadata (key, value) VALUES ('nr-migrations', '1');
    CREATE TABLE IF NOT EXISTS dhow_apps (
        registration_id TEXT NOT NULL PRIMARY KEY,
        address TEXT NOT NULL,
        app_id TEXT NOT NULL,
        last_update INTEGER NOT NULL,
        token TEXT NOT NULL,
        process TEXT NOT NULL,
        host TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS dhow_apps_app_id ON dhow_apps (app_id);
    CREATE INDEX IF NOT EXISTS dhow_apps_address ON dhow_apps (address);
    CREATE INDEX IF NOT EXISTS dhow_apps_host ON dhow_apps (host);
";

/// The apps of the hosts that share a file.
pub struct SqliteResolver {
    database: Arc<Database>,
    /// What this host has registered; the task renews it.
    own: Arc<Own>,
    renewal: Mutex<Option<Box<Task>>>,
    found: Mutex<HashMap<String, Found>>,
    /// Takes the places of an app by turns.
    turn: AtomicUsize,
}

/// Where an app was found, and when.
type Found = (Instant, Arc<[Place]>);

/// This host, in the table.
struct Own {
    /// By chance, so that several hosts of one process are several.
    host: String,
    registrations: Mutex<Vec<Registration>>,
}

#[derive(Clone)]
struct Registration {
    id: String,
    app_id: String,
    place: Place,
}

// === impl SqliteResolver ===

impl SqliteResolver {
    /// The hosts that share this file, which is made when it is first used.
    pub fn new(path: PathBuf) -> SqliteResolver {
        SqliteResolver {
            database: Arc::new(Database::file(path, SCHEMA).unflushed()),
            own: Arc::new(Own { host: crate::uuid::random(), registrations: Mutex::default() }),
            renewal: Mutex::new(None),
            found: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    async fn places(&self, app_id: &str) -> Result<Arc<[Place]>, BlockError> {
        if !self.database.exists() {
            return Ok(Arc::default());
        }
        let name = app_id.to_owned();
        let places: Arc<[Place]> =
            self.database.look(move |connection| places(connection, &name)).await?.into();
        let mut found = self.found.lock();
        if found.len() >= MAX_REMEMBERED {
            found.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if found.len() < MAX_REMEMBERED {
            found.insert(app_id.to_owned(), (Instant::now(), Arc::clone(&places)));
        }
        Ok(places)
    }

    async fn remove(&self, ids: Vec<String>) -> Result<(), BlockError> {
        if ids.is_empty() {
            return Ok(());
        }
        let remove = move |connection: &Connection| {
            for id in ids {
                connection.execute("DELETE FROM hosts WHERE registration_id = ?1", [&id])?;
                connection.execute("DELETE FROM dhow_apps WHERE registration_id = ?1", [&id])?;
            }
            Ok(())
        };
        self.database.run(remove).await
    }
}

#[async_trait]
impl NameResolver for SqliteResolver {
    async fn register(&self, app_id: &str, here: &Place) -> Result<(), BlockError> {
        check_app_id(app_id)?;
        let new = Registration { id: crate::uuid::random(), app_id: app_id.to_owned(), place: here.clone() };
        let (row, host) = (new.clone(), self.own.host.clone());
        self.database
            .run(move |connection| {
                // A host that had this address before is gone: two cannot listen on it.
                let sql = "DELETE FROM dhow_apps WHERE address = ?1 AND (host <> ?2 OR app_id = ?3)";
                connection.prepare_cached(sql)?.execute((&row.place.address, &host, &row.app_id))?;
                let sql = "DELETE FROM hosts WHERE address = ?1
                     AND registration_id NOT IN (SELECT registration_id FROM dhow_apps WHERE address = ?1)";
                connection.prepare_cached(sql)?.execute([&row.place.address])?;
                insert(connection, &row, &host, &process::own())
            })
            .await?;
        let mut registrations = self.own.registrations.lock();
        let is_same =
            |other: &Registration| other.app_id == new.app_id && other.place.address == new.place.address;
        registrations.retain(|other| !is_same(other));
        registrations.push(new);
        drop(registrations);
        self.forget(app_id);
        let mut renewal = self.renewal.lock();
        if renewal.is_none() {
            let (database, own) = (Arc::clone(&self.database), Arc::clone(&self.own));
            *renewal = Some(Box::new(Task::spawn(|stop| renew(database, own, stop))));
        }
        Ok(())
    }

    async fn unregister(&self, app_id: &str) -> Result<(), BlockError> {
        let mut gone = Vec::new();
        self.own.registrations.lock().retain(|registration| {
            let stays = registration.app_id != app_id;
            if !stays {
                gone.push(registration.id.clone());
            }
            stays
        });
        self.forget(app_id);
        self.remove(gone).await
    }

    async fn resolve(&self, app_id: &str) -> Result<Option<Place>, BlockError> {
        check_app_id(app_id)?;
        let known = self.found.lock().get(app_id).filter(|(at, _)| at.elapsed() < FRESH).cloned();
        let places = match known {
            Some((_, places)) => places,
            None => self.places(app_id).await?,
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Ok(turn.checked_rem(places.len()).and_then(|index| places.get(index).cloned()))
    }

    fn forget(&self, app_id: &str) {
        self.found.lock().remove(app_id);
    }

    async fn close(&self) {
        let renewal = self.renewal.lock().take();
        if let Some(renewal) = renewal {
            renewal.stop().await;
        }
        let own = std::mem::take(&mut *self.own.registrations.lock());
        let ids = own.into_iter().map(|registration| registration.id).collect();
        if let Err(error) = self.remove(ids).await {
            tracing::warn!(%error, "this host's apps are not taken back; they are forgotten in {VALID_OURS} s");
        }
        self.database.close().await;
        self.found.lock().clear();
    }
}

impl fmt::Debug for SqliteResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteResolver").field("database", &self.database).finish_non_exhaustive()
    }
}

/// Renews this host's registrations, and makes those again that somebody has removed.
async fn renew(database: Arc<Database>, own: Arc<Own>, mut stop: Stop) {
    loop {
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(RENEWAL) => {}
        }
        let own = Arc::clone(&own);
        let renewed = database.run(move |connection| {
            // Looked at in the transaction: what is being taken back must not be made again.
            let registrations = own.registrations.lock().clone();
            let sql = "UPDATE dhow_apps SET last_update = unixepoch() WHERE host = ?1";
            let renewed = connection.prepare_cached(sql)?.execute([&own.host])?;
            let sql = "UPDATE hosts SET last_update = unixepoch() WHERE registration_id IN
                 (SELECT registration_id FROM dhow_apps WHERE host = ?1)";
            connection.prepare_cached(sql)?.execute([&own.host])?;
            if renewed < registrations.len() {
                let process = process::own();
                let mut registrations = registrations.iter();
                registrations
                    .try_for_each(|registration| insert(connection, registration, &own.host, &process))?;
            }
            let sql = "DELETE FROM dhow_apps WHERE unixepoch() - last_update > ?1";
            connection.prepare_cached(sql)?.execute([FORGOTTEN]).map(drop)
        });
        if let Err(error) = renewed.await {
            tracing::warn!(%error, "this host's apps cannot be found by other hosts for now");
        }
    }
}

/// Writes a registration, or its new time. Dapr's table takes it unless another app has the address there.
fn insert(
    connection: &Connection,
    registration: &Registration,
    host: &str,
    process: &str,
) -> rusqlite::Result<()> {
    let Registration { id, app_id, place: Place { address, token } } = registration;
    let sql = "INSERT INTO dhow_apps (registration_id, address, app_id, last_update, token, process, host)
         VALUES (?1, ?2, ?3, unixepoch(), ?4, ?5, ?6)
         ON CONFLICT (registration_id) DO UPDATE SET last_update = unixepoch()";
    connection.prepare_cached(sql)?.execute((id, address, app_id, token, process, host))?;
    let sql = "INSERT INTO hosts (registration_id, address, app_id, namespace, last_update)
         VALUES (?1, ?2, ?3, '', unixepoch())
         ON CONFLICT (registration_id) DO UPDATE SET last_update = unixepoch()
         ON CONFLICT (address) DO NOTHING";
    connection.prepare_cached(sql)?.execute((id, address, app_id)).map(drop)
}

/// Where an app is: hosts whose process lives, and sidecars of Dapr.
fn places(connection: &Connection, app_id: &str) -> rusqlite::Result<Vec<Place>> {
    let sql = "SELECT address, token, process FROM dhow_apps
         WHERE app_id = ?1 AND unixepoch() - last_update < ?3
         UNION ALL
         SELECT address, '', '' FROM hosts
         WHERE app_id = ?1 AND unixepoch() - last_update < ?2
             AND registration_id NOT IN (SELECT registration_id FROM dhow_apps WHERE app_id = ?1)
         ORDER BY address";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((app_id, VALID, VALID_OURS), |row| {
        let place = Place { address: row.get(0)?, token: row.get(1)? };
        Ok((place, row.get::<_, String>(2)?))
    })?;
    let mut places = Vec::new();
    for row in rows {
        let (place, process) = row?;
        if !process::is_dead(&process) {
            places.push(place);
        }
    }
    Ok(places)
}

/// Which process has written a row, and whether it still runs.
mod process {
    use std::fs;

    /// The boot of the machine, the namespace of process ids, the process id, and when the process began: a
    /// process id alone may be another process's later, or elsewhere. Empty where the system does not tell.
    pub(super) fn own() -> String {
        let id = std::process::id();
        match (place(), began(id)) {
            (Some(place), Some(began)) => format!("{place} {id} {began}"),
            _ => String::new(),
        }
    }

    /// Whether that process has certainly ended.
    pub(super) fn is_dead(process: &str) -> bool {
        let mut parts = process.rsplitn(3, ' ');
        let (Some(start), Some(id), Some(there)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let Ok(id) = id.parse::<u32>() else { return false };
        let Some(here) = place() else { return false };
        // Of other machines and other containers nothing is known but the time of the row.
        here == there && began(id).is_none_or(|began| began != start)
    }

    fn place() -> Option<String> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        Some(format!("{} {}", boot.trim(), namespace.display()))
    }

    /// When a process began, in ticks since the boot (proc_pid_stat(5), field 22); none if there is none of
    /// that id, or only its remains.
    fn began(id: u32) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, field 2, may hold anything; fields 3 and later stand behind its last parenthesis.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        fields.nth(18).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn sql(path: &std::path::Path, sql: &str) -> usize {
        Connection::open(path).unwrap().execute(sql, []).unwrap()
    }

    fn place(address: &str, token: &str) -> Place {
        Place { address: address.to_owned(), token: token.to_owned() }
    }

    async fn addresses(resolver: &SqliteResolver, app_id: &str) -> Vec<String> {
        resolver.forget(app_id);
        let mut found = Vec::new();
        for _ in 0..4 {
            found.extend(resolver.resolve(app_id).await.unwrap().map(|place| place.address));
        }
        found.sort();
        found.dedup();
        found
    }

    #[tokio::test]
    async fn hosts_find_one_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.db");
        let (here, there) = (SqliteResolver::new(path.clone()), SqliteResolver::new(path.clone()));
        assert_eq!(here.resolve("cart").await, Ok(None));
        assert!(!path.exists(), "looking up made a file");
        for (host, app_id, address) in [
            (&here, "cart", "127.0.0.1:1"),
            (&here, "order", "127.0.0.1:1"),
            (&here, "order", "127.0.0.1:1"),
            (&there, "cart", "127.0.0.1:2"),
        ] {
            host.register(app_id, &place(address, "hunter2")).await.unwrap();
        }
        for host in [&here, &there] {
            assert_eq!(addresses(host, "cart").await, ["127.0.0.1:1", "127.0.0.1:2"]);
            assert_eq!(addresses(host, "order").await, ["127.0.0.1:1"]);
            assert_eq!(addresses(host, "other").await, [""; 0]);
        }
        let found = there.resolve("order").await.unwrap().unwrap();
        assert_eq!(found.token, "hunter2");
        assert!(!format!("{found:?} {there:?}").contains("hunter2"));
        there.unregister("cart").await.unwrap();
        assert_eq!(addresses(&here, "cart").await, ["127.0.0.1:1"]);
        here.close().await;
        assert_eq!(addresses(&there, "cart").await, [""; 0]);
        assert!(here.resolve("cart").await.is_err());
        for app_id in ["", "a b", "a'; DROP TABLE hosts; --"] {
            assert!(matches!(there.resolve(app_id).await, Err(BlockError::Invalid { .. })), "{app_id}");
            assert!(there.register(app_id, &place("a:1", "")).await.is_err(), "{app_id}");
        }
    }

    #[tokio::test]
    async fn sidecars_of_dapr_share_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.db");
        let resolver = SqliteResolver::new(path.clone());
        resolver.register("cart", &place("127.0.0.1:1", "token")).await.unwrap();
        let connection = Connection::open(&path).unwrap();
        // What Dapr asks when it looks an app up, and when it opens the file.
        let found: String = connection
            .query_row(
                "SELECT address FROM hosts WHERE ROWID = (SELECT ROWID FROM hosts WHERE app_id = 'cart'
                 AND unixepoch(CURRENT_TIMESTAMP) - last_update < 5 ORDER BY RANDOM() LIMIT 1)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(found, "127.0.0.1:1");
        let level: String = connection
            .query_row("SELECT value FROM metadata WHERE key = 'nr-migrations'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(level, "1");
        // A sidecar.
        sql(
            &path,
            "REPLACE INTO hosts (registration_id, address, app_id, namespace, last_update)
             VALUES ('x', '127.0.0.1:9', 'dapr-app', '', unixepoch(CURRENT_TIMESTAMP))",
        );
        assert_eq!(addresses(&resolver, "dapr-app").await, ["127.0.0.1:9"]);
        sql(&path, "UPDATE hosts SET last_update = last_update - 6 WHERE registration_id = 'x'");
        assert_eq!(addresses(&resolver, "dapr-app").await, [""; 0]);
    }

    #[tokio::test]
    async fn hosts_that_have_died_are_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.db");
        let resolver = SqliteResolver::new(path.clone());
        resolver.register("cart", &place("127.0.0.1:1", "")).await.unwrap();
        // The row of a process that lives, and then does not.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let own = process::own();
        let (place, _) = own.rsplit_once(' ').and_then(|(rest, _)| rest.rsplit_once(' ')).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let began = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap();
        let set = |process: &str| sql(&path, &format!("UPDATE dhow_apps SET process = '{process}'"));
        let living = format!("{place} {} {began}", child.id());
        set(&living);
        assert_eq!(addresses(&resolver, "cart").await, ["127.0.0.1:1"]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(addresses(&resolver, "cart").await, [""; 0]);
        // One with the same id that began at another time, one elsewhere, and one that is not known.
        for (process, expected) in [
            (format!("{own}1"), 0),
            (format!("elsewhere 1 {began}"), 1),
            (String::new(), 1),
            ("nonsense".to_owned(), 1),
            ("a b c d".to_owned(), 1),
        ] {
            set(&process);
            assert_eq!(addresses(&resolver, "cart").await.len(), expected, "{process}");
        }
        set(&own);
        assert_eq!(addresses(&resolver, "cart").await, ["127.0.0.1:1"]);
        sql(&path, "UPDATE dhow_apps SET last_update = last_update - 16");
        assert_eq!(addresses(&resolver, "cart").await, [""; 0]);
    }
}
