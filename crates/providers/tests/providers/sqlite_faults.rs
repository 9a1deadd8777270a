//! SQLite on bad terms with its disk: every fault is an error that says what to do, and loses nothing.
//!
//! Tests may run as root, whom permissions do not stop, so the faults are of kinds that stop everybody.

use dhow_blocks::state::{Delete, Operation, Set, StateError, StateStore};
use dhow_providers::state::sqlite::embedded;
use dhow_providers::state::sqlite::{Sqlite, SqliteOptions};
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn set(key: &str, value: impl Into<Vec<u8>>) -> Set {
    Set { key: key.to_owned(), value: value.into().into(), ..Set::default() }
}

fn refusal(path: &Path) -> StateError {
    Sqlite::open(SqliteOptions::new(path)).err().unwrap_or_else(|| panic!("{} opened", path.display()))
}

#[test]
fn places_where_no_database_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "text").unwrap();
    fs::create_dir(folder.path().join("taken")).unwrap();
    let cases = [
        (folder.path().join("taken"), "is a folder"),
        (file.join("state.db"), "a part of the path is a file"),
        (file.join("deeper/state.db"), "a part of the path is a file"),
        // No user may create files here.
        #[cfg(target_os = "linux")]
        ("/proc/dhow-test/state.db".into(), "cannot create the folder"),
        #[cfg(target_os = "linux")]
        ("/proc/self/state.db".into(), "cannot create the database"),
    ];
    for (path, expected) in cases {
        match refusal(&path) {
            StateError::Unavailable { reason } => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{}: {other:?}", path.display()),
        }
    }
}

#[test]
fn files_that_are_no_state_database() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "not a database, though longer than a header would be ".repeat(100)).unwrap();
    let other = folder.path().join("other.db");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE state (key TEXT PRIMARY KEY, number)")
        .unwrap();
    let view = folder.path().join("view.db");
    Connection::open(&view).unwrap().execute_batch("CREATE VIEW state AS SELECT 1 AS x").unwrap();
    for (path, expected) in [
        (&text, "is not an SQLite database"),
        (&other, "no column value, is_binary, etag, expiration_time, update_time"),
        (&view, "view"),
    ] {
        let before = fs::read(path).unwrap();
        match refusal(path) {
            StateError::Failed { reason } => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{}: {other:?}", path.display()),
        }
        if path == &text {
            assert_eq!(fs::read(path).unwrap(), before, "a stranger's file was changed");
        }
    }
}

/// A full disk refuses what needs room, and only that; deleting makes room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let options = SqliteOptions { max_bytes: Some(1024 * 1024), ..SqliteOptions::new(&path) };
    let store = Arc::new(Sqlite::open(options).unwrap());
    store.set(set("small", "1")).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match store.set(set(&format!("big-{stored}"), vec![b'x'; 100_000])).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 20, "two megabytes fit into one");
    };
    match &error {
        StateError::Unavailable { reason } => {
            assert!(reason.contains("is full") && reason.contains("nothing was written"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // Small writes that share a batch with one that is too large go through.
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                match number % 2 {
                    0 => store.set(set("small", number.to_string())).await,
                    _ => store.set(set("huge", vec![b'x'; 300_000])).await,
                }
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let answer = task.await.unwrap();
        assert_eq!(answer.is_ok(), number % 2 == 0, "write {number}: {answer:?}");
    }
    // All or nothing holds here, too.
    let operations = vec![
        Operation::Set(set("first", "1")),
        Operation::Set(set("huge", vec![b'x'; 300_000])),
        Operation::Delete(Delete { key: "small".to_owned(), etag: None }),
    ];
    assert!(matches!(store.transact(operations).await, Err(StateError::Unavailable { .. })));
    assert_eq!(store.get("first").await, Ok(None));
    assert!(store.get("small").await.unwrap().is_some());
    for number in 0..stored {
        store.delete(Delete { key: format!("big-{number}"), etag: None }).await.unwrap();
    }
    store.set(set("huge", vec![b'x'; 300_000])).await.unwrap();
    store.close().await;
    let check: String =
        Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn locked_by_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let busy_timeout = Duration::from_millis(50);
    let store = Sqlite::open(SqliteOptions { busy_timeout, ..SqliteOptions::new(&path) }).unwrap();
    store.set(set("a", "1")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for answer in
        [store.set(set("a", "2")).await, store.increment("a", 1).await.map(drop), store.ping().await]
    {
        match answer {
            Err(StateError::Unavailable { reason }) => {
                assert!(reason.contains("locked by another program"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Who only reads does not notice.
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
    other.execute_batch("ROLLBACK").unwrap();
    store.set(set("a", "3")).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "3");
    store.ping().await.unwrap();
}

/// Under a rollback journal a writer's lock keeps readers out: they wait without holding up the runtime.
#[tokio::test(flavor = "current_thread")]
async fn a_read_that_must_wait_blocks_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let options = SqliteOptions {
        busy_timeout: Duration::from_secs(20),
        disable_wal: true,
        ..SqliteOptions::new(&path)
    };
    let store = Sqlite::open(options).unwrap();
    store.set(set("a", "1")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // On one thread: the lock is given up only when the waiting read lets the other future run.
    let start = Instant::now();
    let (item, ()) = tokio::join!(store.get("a"), async {
        tokio::task::yield_now().await;
        other.execute_batch("COMMIT").unwrap();
    });
    assert_eq!(item.unwrap().unwrap().value, "1");
    assert!(start.elapsed() < Duration::from_secs(4), "the read held the thread for {:?}", start.elapsed());
}

/// The queue is bounded: who does not get in within the timeout is refused, and the host lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_writes_than_the_queue_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let options = SqliteOptions {
        timeout: Duration::from_millis(100),
        busy_timeout: Duration::from_secs(3),
        ..SqliteOptions::new(&path)
    };
    let store = Arc::new(Sqlite::open(options).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // 64 MiB each in a queue of 128 MiB; clones of one buffer, so little memory is used.
    let value = bytes::Bytes::from(vec![b'x'; 63 * 1024 * 1024]);
    let start = Instant::now();
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let (store, value) = (Arc::clone(&store), value.clone());
            tokio::spawn(async move {
                store.set(Set { key: format!("k{number}"), value, ..Set::default() }).await
            })
        })
        .collect();
    let mut refused = 0;
    for task in tasks {
        if let Err(StateError::Unavailable { reason }) = task.await.unwrap()
            && reason.contains("too many writes are waiting")
        {
            refused += 1;
        }
        if start.elapsed() > Duration::from_millis(200) && !other.is_autocommit() {
            other.execute_batch("ROLLBACK").unwrap();
        }
    }
    assert_eq!(refused, 2, "of four large writes two fit into the queue");
    drop(other);
    store.set(set("a", "1")).await.unwrap();
}

/// The embedded store heals when its fault does.
#[tokio::test]
async fn the_embedded_store_opens_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::write(&data, "in the way").unwrap();
    let store = embedded(&data);
    match store.get("a").await {
        Err(StateError::Unavailable { reason }) => assert!(reason.contains("is a file"), "{reason}"),
        other => panic!("{other:?}"),
    }
    fs::remove_file(&data).unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while store.set(set("a", "1")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the store never opened");
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
}
