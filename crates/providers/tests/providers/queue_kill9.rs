//! A host that is killed in the middle of its work has lost no message that it acknowledged.
//!
//! The test starts itself as a child that publishes and receives as fast as it can, and prints each message
//! that was acknowledged and each that its handler was given. The parent kills it with SIGKILL at a random
//! moment, again and again on the same file; at the end it receives what is left and looks for every message
//! that was acknowledged. The seed is printed and can be given again in `DHOW_KILL9_SEED`.

use async_trait::async_trait;
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::pubsub::{Message, Outgoing, PubSub, Subscribe};
use dhow_providers::pubsub::sqlite::{Queue, QueueOptions};
use dhow_providers::state::sqlite::SqliteOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const ROUNDS: u64 = 30;
const PUBLISHERS: u64 = 8;
const CONSUMERS: [&str; 2] = ["one", "two"];

/// Where the child finds its database, and the number that makes its messages unlike those of other rounds.
const CHILD_PATH: &str = "DHOW_QUEUE_KILL9_PATH";
const CHILD_ROUND: &str = "DHOW_QUEUE_KILL9_ROUND";

/// Longer than any message that is still there can take to be delivered.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn acknowledged_messages_survive_sigkill() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        return work_until_killed(Path::new(&path));
    }
    let seed = std::env::var("DHOW_KILL9_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("DHOW_KILL9_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let mut published = BTreeSet::new();
    let mut delivered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let delay = Duration::from_micros(random.u64(0..150_000));
        run_and_kill(&path, round, delay, &mut published, &mut delivered);
    }
    let before: usize = delivered.values().map(BTreeSet::len).sum();
    println!("{} acknowledged, {before} delivered in {ROUNDS} rounds", published.len());
    assert!(published.len() > ROUNDS as usize * 10, "the kills came before the work");
    assert!(before > ROUNDS as usize * 10, "the kills came before the deliveries");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let start = Instant::now();
    runtime.block_on(receive_the_rest(&path, &published, &mut delivered));
    println!("the rest was delivered in {:?}", start.elapsed());
    let connection = rusqlite::Connection::open(&path).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    for table in ["queue_message", "queue_pending", "queue_holder"] {
        assert_eq!(number(&format!("SELECT count(*) FROM {table}")), 0, "rows left in {table}");
    }
    assert_eq!(number("SELECT sum(messages) FROM queue_topic"), 0, "messages, as they are counted");
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let left: Vec<_> = left.into_iter().filter(|name| name.to_string_lossy().ends_with(".alive")).collect();
    assert!(left.is_empty(), "files of dead processes: {left:?}");
}

/// Starts the child, kills it `delay` after its first line, and notes what it printed.
fn run_and_kill(
    path: &Path,
    round: u64,
    delay: Duration,
    published: &mut BTreeSet<String>,
    delivered: &mut BTreeMap<String, BTreeSet<String>>,
) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "queue_kill9::acknowledged_messages_survive_sigkill",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD_PATH, path)
        .env(CHILD_ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = Vec::new();
    let mut deadline = None;
    loop {
        line.clear();
        if output.read_until(b'\n', &mut line).unwrap() == 0 {
            break;
        }
        // The last line may be cut; the test harness of the child prints lines of its own.
        let text = String::from_utf8_lossy(&line);
        let words: Vec<&str> = text.strip_suffix('\n').unwrap_or_default().split(' ').collect();
        match words[..] {
            ["acknowledged", message] => drop(published.insert(message.to_owned())),
            ["delivered", consumer, message] => {
                delivered.entry(consumer.to_owned()).or_default().insert(message.to_owned());
            }
            _ => continue,
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + delay);
        if Instant::now() >= deadline {
            // SIGKILL on Unix. What is still in the pipe happened, too, and is read on.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
}

/// Receives in the name of every consumer until each was given every acknowledged message, and nothing is left.
async fn receive_the_rest(
    path: &Path,
    published: &BTreeSet<String>,
    delivered: &mut BTreeMap<String, BTreeSet<String>>,
) {
    let queue = Queue::new(QueueOptions::new(SqliteOptions::new(path)));
    let (seen, mut received) = unbounded_channel();
    let mut running = Vec::new();
    for consumer in CONSUMERS {
        let handler = Arc::new(Tell { consumer, seen: Some(seen.clone()) });
        running.push(queue.subscribe(subscription(consumer), handler).await.unwrap());
    }
    // Publishing goes on being possible; and with order, these come last.
    let missing = |delivered: &BTreeMap<String, BTreeSet<String>>| -> Vec<String> {
        let of = |consumer: &str| delivered.get(consumer).cloned().unwrap_or_default();
        CONSUMERS.iter().flat_map(|consumer| published - &of(consumer)).collect()
    };
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        while let Ok(Some((consumer, message))) =
            tokio::time::timeout(Duration::from_millis(100), received.recv()).await
        {
            delivered.entry(consumer).or_default().insert(message);
        }
        let waiting: i64 =
            connection.query_row("SELECT count(*) FROM queue_message", [], |row| row.get(0)).unwrap();
        let missing = missing(delivered);
        if missing.is_empty() && waiting == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "lost: {missing:?}; {waiting} messages are still waiting");
    }
    for running in running {
        running.stop().await;
    }
    queue.close().await;
}

fn subscription(consumer: &str) -> Subscribe {
    Subscribe { topic: "topic".to_owned(), consumer: consumer.to_owned(), ..Subscribe::default() }
}

/// Says what it was given, and refuses a message now and then.
struct Tell {
    consumer: &'static str,
    /// To this test; none in the child, which prints.
    seen: Option<UnboundedSender<(String, String)>>,
}

#[async_trait]
impl Handler<Message> for Tell {
    async fn handle(&self, message: Message) -> Outcome {
        let text = String::from_utf8(message.data.to_vec()).unwrap();
        match &self.seen {
            Some(seen) => {
                seen.send((self.consumer.to_owned(), text)).ok();
            }
            None if fastrand::u8(..) < 10 => return Outcome::Again,
            None => print(&format!("delivered {} {text}\n", self.consumer)),
        }
        Outcome::Done
    }
}

/// One write call a line: the pipe takes short writes whole.
fn print(line: &str) {
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        std::process::exit(1);
    }
}

/// The child.
fn work_until_killed(path: &Path) {
    let round = std::env::var(CHILD_ROUND).unwrap();
    // The test harness has begun a line.
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = Arc::new(Queue::new(QueueOptions::new(SqliteOptions::new(path))));
        let mut running = Vec::new();
        for consumer in CONSUMERS {
            let handler = Arc::new(Tell { consumer, seen: None });
            running.push(queue.subscribe(subscription(consumer), handler).await.unwrap());
        }
        let tasks: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (queue, round) = (Arc::clone(&queue), round.clone());
                tokio::spawn(async move {
                    for number in 0_u64.. {
                        let text = format!("{round}-{publisher}-{number}");
                        let data = text.clone().into();
                        let message = Outgoing { topic: "topic".to_owned(), data, ..Outgoing::default() };
                        queue.publish(message).await.unwrap();
                        print(&format!("acknowledged {text}\n"));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}
