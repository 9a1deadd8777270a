//! A process that is killed in the middle of its work has lost nothing that it acknowledged.
//!
//! The test starts itself as a child that writes from several tasks as fast as it can and prints each
//! acknowledged write. The parent kills it with SIGKILL at a random moment, opens the database and looks for
//! every write that it read from the pipe; the same file goes through all rounds. The seed is printed and
//! can be given again in `DHOW_KILL9_SEED`.

use dhow_blocks::state::{Operation, Set, StateStore};
use dhow_providers::state::sqlite::{Sqlite, SqliteOptions};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 50;
const TASKS: u64 = 8;

/// Where the child finds its database, and the number that makes its values unlike those of other rounds.
const CHILD_PATH: &str = "DHOW_KILL9_PATH";
const CHILD_ROUND: &str = "DHOW_KILL9_ROUND";

#[test]
fn acknowledged_writes_survive_sigkill() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        return write_until_killed(Path::new(&path));
    }
    let seed = std::env::var("DHOW_KILL9_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("DHOW_KILL9_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut acknowledged: HashMap<String, String> = HashMap::new();
    let mut writes = 0;
    let start = Instant::now();
    for round in 0..ROUNDS {
        let delay = Duration::from_micros(random.u64(0..150_000));
        let lines = run_and_kill(&path, round, delay);
        writes += lines.len();
        for (key, value) in lines {
            acknowledged.insert(key, value);
        }
        check(&path, &acknowledged, round);
    }
    println!("{writes} acknowledged writes in {ROUNDS} rounds, {:?}", start.elapsed());
    assert!(writes > ROUNDS as usize * 10, "only {writes} writes: the kills came before the work");
}

/// Starts the child, kills it `delay` after its first acknowledged write, and returns what it acknowledged.
fn run_and_kill(path: &Path, round: u64, delay: Duration) -> Vec<(String, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill9::acknowledged_writes_survive_sigkill", "--nocapture", "--test-threads=1"])
        .env(CHILD_PATH, path)
        .env(CHILD_ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut deadline = None;
    loop {
        line.clear();
        if output.read_until(b'\n', &mut line).unwrap() == 0 {
            break;
        }
        // The last line may be cut; the test harness of the child prints lines of its own.
        let text = String::from_utf8_lossy(&line);
        if let Some(write) = text.strip_suffix('\n').and_then(|text| text.strip_prefix("ack "))
            && let Some((key, value)) = write.split_once(' ')
        {
            lines.push((key.to_owned(), value.to_owned()));
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + delay);
            if Instant::now() >= deadline {
                // SIGKILL on Unix. What is still in the pipe was acknowledged, too, and is read on.
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    lines
}

/// What the child promised is there, whole, and the file is sound.
fn check(path: &Path, acknowledged: &HashMap<String, String>, round: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Sqlite::open(SqliteOptions::new(path)).unwrap();
    runtime.block_on(async {
        for (key, value) in acknowledged {
            let item = store.get(key).await.unwrap();
            let found = item.map(|item| String::from_utf8(item.value.to_vec()).unwrap());
            let found = found.unwrap_or_else(|| panic!("round {round}: {key} = {value} is lost"));
            // A write that was not acknowledged any more may have reached the disk all the same.
            assert!(
                newer_or_same(&found, value),
                "round {round}: {key} is {found}, acknowledged was {value}"
            );
        }
        for task in 0..TASKS {
            let mut pair = store.get_many(&[format!("left-{task}"), format!("right-{task}")]).await;
            let (right, left) = (pair.pop().unwrap().unwrap(), pair.pop().unwrap().unwrap());
            let values = (left.map(|item| item.value), right.map(|item| item.value));
            assert_eq!(values.0, values.1, "round {round}: half of a transaction of task {task}");
        }
        store.close().await;
    });
    let connection = rusqlite::Connection::open(path).unwrap();
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok", "round {round}");
}

/// Values are `ROUND-NUMBER`, ascending within one key.
fn newer_or_same(found: &str, acknowledged: &str) -> bool {
    let parse = |value: &str| -> (u64, u64) {
        let (round, number) = value.split_once('-').unwrap();
        (round.parse().unwrap(), number.parse().unwrap())
    };
    parse(found) >= parse(acknowledged)
}

/// The child. Each task has a few keys of its own that it writes again and again, and now and then a pair of
/// keys in one transaction.
fn write_until_killed(path: &Path) {
    let round = std::env::var(CHILD_ROUND).unwrap();
    // The test harness has begun a line.
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Sqlite::open(SqliteOptions::new(path)).unwrap());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (store, round) = (Arc::clone(&store), round.clone());
                tokio::spawn(async move {
                    for number in 0_u64.. {
                        let value = format!("{round}-{number}");
                        let set = |key: String| Set { key, value: value.clone().into(), ..Set::default() };
                        let keys = if number % 4 == 3 {
                            let keys = vec![format!("left-{task}"), format!("right-{task}")];
                            let sets = keys.iter().cloned().map(|key| Operation::Set(set(key)));
                            store.transact(sets.collect()).await.unwrap();
                            keys
                        } else {
                            let key = format!("key-{task}-{}", number % 20);
                            store.set(set(key.clone())).await.unwrap();
                            vec![key]
                        };
                        let lines: String = keys.iter().map(|key| format!("ack {key} {value}\n")).collect();
                        // One write call a line group: the pipe takes short writes whole.
                        let written = std::io::stdout().lock().write_all(lines.as_bytes());
                        if written.is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}
