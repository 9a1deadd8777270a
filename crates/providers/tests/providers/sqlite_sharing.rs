//! Several hosts on one file, and files that Dapr wrote.

use dhow_blocks::state::{Concurrency, Set, StateError, StateStore, Ttl};
use dhow_providers::state::sqlite::{Sqlite, SqliteOptions};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(path: &Path) -> Sqlite {
    // Two writers under one lock on a slow disk: patience is part of the promise.
    Sqlite::open(SqliteOptions { busy_timeout: Duration::from_secs(20), ..SqliteOptions::new(path) }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hosts_lose_no_increment() {
    const TASKS: i64 = 8;
    const ROUNDS: i64 = 25;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let stores = [Arc::new(open(&path)), Arc::new(open(&path))];
    let mut tasks = Vec::new();
    for store in &stores {
        for _ in 0..TASKS {
            let store = Arc::clone(store);
            tasks.push(tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    store.increment("n", 1).await.unwrap();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    for store in &stores {
        let item = store.get("n").await.unwrap().unwrap();
        assert_eq!(item.value, (2 * TASKS * ROUNDS).to_string());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_two_hosts_creates_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let stores = [Arc::new(open(&path)), Arc::new(open(&path))];
    for round in 0..20 {
        let key = format!("k{round}");
        let tasks = stores.clone().map(|store| {
            let set = Set { key: key.clone(), concurrency: Concurrency::FirstWrite, ..Set::default() };
            tokio::spawn(async move { store.set(set).await })
        });
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers.sort_by_key(Result::is_err);
        assert_eq!(answers, [Ok(()), Err(StateError::EtagMismatch { key })]);
    }
}

/// Many hosts may start at the same moment on a folder that is still empty.
#[test]
fn concurrent_openings_of_a_new_file_succeed() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/state.db");
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| drop(open(&path)))).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}

/// The schema and the rows are those that Dapr's component writes.
#[tokio::test]
async fn a_database_of_dapr_works_and_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dapr.db");
    let dapr = Connection::open(&path).unwrap();
    dapr.execute_batch(
        "CREATE TABLE metadata (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
         INSERT INTO metadata VALUES ('migrations', '1');
         CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, is_binary BOOLEAN NOT NULL,
            etag TEXT NOT NULL, expiration_time TIMESTAMP DEFAULT NULL,
            update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
         INSERT INTO state VALUES
            ('app||json', '{\"a\":1}', 0, 'e-1', NULL, CURRENT_TIMESTAMP),
            ('app||bytes', 'aGVsbG8=', 1, 'e-2', NULL, CURRENT_TIMESTAMP),
            ('app||lives', '\"x\"', 0, 'e-3', DATETIME(CURRENT_TIMESTAMP, '+100 seconds'), CURRENT_TIMESTAMP),
            ('app||expired', '\"x\"', 0, 'e-4', DATETIME(CURRENT_TIMESTAMP, '-1 seconds'), CURRENT_TIMESTAMP);",
    )
    .unwrap();
    let store = open(&path);
    for (key, value, etag) in
        [("app||json", "{\"a\":1}", "e-1"), ("app||bytes", "hello", "e-2"), ("app||lives", "\"x\"", "e-3")]
    {
        let item = store.get(key).await.unwrap().unwrap();
        assert_eq!((&item.value[..], item.etag.as_str()), (value.as_bytes(), etag), "{key}");
        assert_eq!(item.expires_at.is_some(), key == "app||lives");
    }
    assert_eq!(store.get("app||expired").await, Ok(None));
    let set = Set {
        key: "app||json".to_owned(),
        etag: Some("e-1".to_owned()),
        value: "[]".into(),
        ..Set::default()
    };
    store.set(set).await.unwrap();
    let bytes: &[u8] = b"\xff\x00";
    store.set(Set { key: "app||bytes".to_owned(), value: bytes.into(), ..Set::default() }).await.unwrap();
    for (key, seconds) in [("app||soon", 0), ("app||later", 100)] {
        let ttl = Ttl::After(Duration::from_secs(seconds));
        store.set(Set { key: key.to_owned(), value: "1".into(), ttl, ..Set::default() }).await.unwrap();
    }
    // Read as Dapr reads.
    let read = |key: &str| {
        dapr.query_row(
            "SELECT value, is_binary, length(etag) FROM state WHERE key = ? \
             AND (expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)",
            [key],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, u32>(2)?)),
        )
        .ok()
    };
    assert_eq!(read("app||json"), Some(("[]".to_owned(), false, 36)));
    assert_eq!(read("app||bytes"), Some(("/wA=".to_owned(), true, 36)));
    assert_eq!(read("app||later"), Some(("1".to_owned(), false, 36)));
    let text: String = dapr
        .query_row("SELECT expiration_time FROM state WHERE key = 'app||later'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(text.len(), "2000-01-01 00:00:00.000".len());
}

/// Expired rows leave the file by themselves, also those of other writers.
#[tokio::test]
async fn expired_rows_are_removed_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let cleanup_interval = Some(Duration::from_millis(20));
    let store = Sqlite::open(SqliteOptions { cleanup_interval, ..SqliteOptions::new(&path) }).unwrap();
    store.set(Set { key: "kept".to_owned(), ..Set::default() }).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    // More than one batch.
    other
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO state SELECT 'k' || i, '', 0, 'e', '2020-01-01 00:00:00', CURRENT_TIMESTAMP FROM n",
        )
        .unwrap();
    let rows = || other.query_row("SELECT count(*) FROM state", [], |row| row.get::<_, u32>(0)).unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while rows() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("expired rows are still there");
    assert!(store.get("kept").await.unwrap().is_some());
}
