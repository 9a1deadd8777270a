//! The embedded queue beyond the suite: several hosts on one file, limits, and what is left behind.

use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome, Running};
use dhow_blocks::pubsub::{Message, Outgoing, PubSub, Subscribe};
use dhow_providers::pubsub::sqlite::{Queue, QueueOptions};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, open};
use dhow_providers::state::sqlite::SqliteOptions;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Whatever a test waits for happens within this time, or it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

type Answer = Box<dyn Fn(&str) -> Option<Outcome> + Send + Sync>;

/// Tells what it was given, and answers; never, where the answer is none.
struct Inbox {
    seen: UnboundedSender<String>,
    answer: Answer,
}

#[async_trait]
impl Handler<Message> for Inbox {
    async fn handle(&self, message: Message) -> Outcome {
        let text = String::from_utf8(message.data.to_vec()).unwrap();
        let answer = (self.answer)(&text);
        self.seen.send(text).ok();
        match answer {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }
}

fn options(path: &Path) -> QueueOptions {
    QueueOptions::new(SqliteOptions { busy_timeout: Duration::from_secs(20), ..SqliteOptions::new(path) })
}

async fn publish(queue: &Queue, text: &str) -> Result<(), BlockError> {
    let message = Outgoing { topic: "topic".to_owned(), data: text.to_owned().into(), ..Outgoing::default() };
    queue.publish(message).await
}

async fn subscribe(
    queue: &Queue,
    consumer: &str,
    answer: impl Fn(&str) -> Option<Outcome> + Send + Sync + 'static,
) -> (Box<dyn Running>, UnboundedReceiver<String>) {
    let (seen, received) = unbounded_channel();
    let subscribe =
        Subscribe { topic: "topic".to_owned(), consumer: consumer.to_owned(), ..Subscribe::default() };
    let handler = Arc::new(Inbox { seen, answer: Box::new(answer) });
    (queue.subscribe(subscribe, handler).await.unwrap(), received)
}

fn done(_: &str) -> Option<Outcome> {
    Some(Outcome::Done)
}

async fn next(received: &mut UnboundedReceiver<String>) -> String {
    tokio::time::timeout(PATIENCE, received.recv()).await.expect("nothing was delivered").unwrap()
}

async fn take(received: &mut UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(next(received).await);
    }
    texts
}

fn count(path: &Path, table: &str) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_host_publishes_another_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (here, there) = (Queue::new(options(&path)), Queue::new(options(&path)));
    let (running, mut received) = subscribe(&there, "consumer", done).await;
    for number in 0..3 {
        publish(&here, &number.to_string()).await.unwrap();
        assert_eq!(next(&mut received).await, number.to_string());
    }
    running.stop().await;
    here.close().await;
    there.close().await;
    for table in ["queue_message", "queue_pending", "queue_holder"] {
        assert_eq!(count(&path, table), 0, "rows left in {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hosts_share_a_consumer_and_lose_nothing() {
    const MESSAGES: usize = 600;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let hosts = [(); 3].map(|()| Arc::new(Queue::new(options(&path))));
    let mut subscriptions = Vec::new();
    for host in &hosts {
        subscriptions.push(subscribe(host, "consumer", done).await);
    }
    let publishers: Vec<_> = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let host = Arc::clone(host);
            tokio::spawn(async move {
                for number in 0..MESSAGES / 3 {
                    publish(&host, &format!("{index}/{number}")).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let all = async {
        let mut found = BTreeSet::new();
        let (one, two, three) = {
            let mut inboxes = subscriptions.iter_mut().map(|(_, inbox)| inbox);
            (inboxes.next().unwrap(), inboxes.next().unwrap(), inboxes.next().unwrap())
        };
        while found.len() < MESSAGES {
            let text = tokio::select! {
                Some(text) = one.recv() => text,
                Some(text) = two.recv() => text,
                Some(text) = three.recv() => text,
            };
            assert!(found.insert(text.clone()), "{text} was delivered twice, though nobody failed");
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("messages are missing");
    for (running, _) in subscriptions {
        running.stop().await;
    }
    for host in &hosts {
        host.close().await;
    }
    assert_eq!(count(&path, "queue_message"), 0);
}

/// A refused message holds up those behind it, also across hosts and restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn strict_order_survives_refusals_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let ordered = || Queue::new(QueueOptions { ordered: true, ..options(&path) });
    let (first, second) = (ordered(), ordered());
    let refusals = std::sync::atomic::AtomicUsize::new(0);
    let answer = move |text: &str| {
        let refuse = text == "1" && refusals.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        Some(if refuse { Outcome::Again } else { Outcome::Done })
    };
    let (running, mut received) = subscribe(&first, "consumer", answer).await;
    for number in 0..4 {
        publish(&second, &number.to_string()).await.unwrap();
    }
    assert_eq!(take(&mut received, 6).await, ["0", "1", "1", "1", "2", "3"]);
    running.stop().await;
    // What is refused when the subscription ends is the first that the next one gets.
    let (running, mut received) =
        subscribe(&first, "consumer", |text| Some(if text == "5" { Outcome::Again } else { Outcome::Done }))
            .await;
    for number in 4..8 {
        publish(&second, &number.to_string()).await.unwrap();
    }
    assert_eq!(take(&mut received, 2).await, ["4", "5"]);
    running.stop().await;
    let (running, mut received) = subscribe(&second, "consumer", done).await;
    assert_eq!(take(&mut received, 3).await, ["5", "6", "7"]);
    running.stop().await;
    first.close().await;
    second.close().await;
}

/// Its place is given to others when its lock is gone, long before its lease is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_process_held_is_delivered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Queue::new(options(&path));
    let (running, _) = subscribe(&queue, "consumer", done).await;
    running.stop().await;
    for text in ["new", "held"] {
        publish(&queue, text).await.unwrap();
    }
    // As the dead process left it: it held one message, and its file is not locked any more.
    let process = "00000000deadbeef";
    let alive = folder.path().join(format!("queue.db-{process}.alive"));
    std::fs::write(&alive, "").unwrap();
    let dead = Connection::open(&path).unwrap();
    dead.busy_timeout(PATIENCE).unwrap();
    dead.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         INSERT INTO queue_pending (message, consumer, holder, due)
             SELECT queue_message.id, queue_consumer.id, 7, 0 FROM queue_message, queue_consumer;
         UPDATE queue_consumer SET cursor = (SELECT max(id) FROM queue_message);
         INSERT INTO queue_holder VALUES (7, (SELECT id FROM queue_consumer), '{process}', {}), (8, 1, '../../x', {});
         COMMIT;",
        i64::MAX, i64::MAX
    ))
    .unwrap();
    let (running, mut received) = subscribe(&queue, "consumer", done).await;
    let found: BTreeSet<String> = take(&mut received, 2).await.into_iter().collect();
    assert_eq!(found, ["held", "new"].map(str::to_owned).into());
    running.stop().await;
    assert!(!alive.exists(), "the file of the dead process is still there");
    queue.close().await;
    let holders: Vec<i64> = dead
        .prepare("SELECT id FROM queue_holder")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(holders, [8], "a name that is none of ours says nothing about a process");
}

/// On a file system without locks the lease alone decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_held_beyond_a_lease_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Queue::new(options(&path));
    let (running, _) = subscribe(&queue, "consumer", done).await;
    running.stop().await;
    publish(&queue, "held").await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other
        .execute_batch(
            "INSERT INTO queue_pending (message, consumer, holder, due)
                 SELECT queue_message.id, queue_consumer.id, 7, 0 FROM queue_message, queue_consumer;
             INSERT INTO queue_holder VALUES (7, 1, 'unknown', 1);
             UPDATE queue_consumer SET cursor = (SELECT max(id) FROM queue_message);",
        )
        .unwrap();
    let (running, mut received) = subscribe(&queue, "consumer", done).await;
    assert_eq!(next(&mut received).await, "held");
    running.stop().await;
    queue.close().await;
    assert_eq!(count(&path, "queue_holder"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_hangs_is_given_up_and_others_are_not_held_up() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::new(QueueOptions {
        processing_timeout: Duration::from_millis(300),
        ..options(&folder.path().join("queue.db"))
    });
    let hung = std::sync::atomic::AtomicBool::new(false);
    let answer = move |text: &str| {
        let hang = text == "hangs" && !hung.swap(true, std::sync::atomic::Ordering::SeqCst);
        if hang { None } else { Some(Outcome::Done) }
    };
    let (running, mut received) = subscribe(&queue, "consumer", answer).await;
    for text in ["hangs", "passes"] {
        publish(&queue, text).await.unwrap();
    }
    let mut found = take(&mut received, 3).await;
    found.sort();
    assert_eq!(found, ["hangs", "hangs", "passes"]);
    running.stop().await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_of_a_topic_without_consumers_wait_for_the_first_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Queue::new(options(&path));
    publish(&queue, "early").await.unwrap();
    queue.close().await;
    let queue = Queue::new(options(&path));
    let mut subscriptions = Vec::new();
    for consumer in ["one", "two"] {
        // The first one is not done before the second one begins.
        let (running, mut received) = subscribe(&queue, consumer, |_| Some(Outcome::Again)).await;
        assert_eq!(next(&mut received).await, "early", "{consumer}");
        subscriptions.push(running);
    }
    for running in subscriptions {
        running.stop().await;
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_topic_without_consumers_keeps_the_newest_and_not_the_old() {
    const KEPT: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Queue::new(options(&path));
    for chunk in (0..KEPT + 500).collect::<Vec<_>>().chunks(500) {
        let message = |number: &usize| Outgoing {
            topic: "topic".to_owned(),
            data: number.to_string().into(),
            ..Outgoing::default()
        };
        let answers = queue.publish_many(chunk.iter().map(message).collect()).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    assert_eq!(count(&path, "queue_message"), KEPT as i64);
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    let oldest: Vec<u8> =
        other.query_row("SELECT data FROM queue_message ORDER BY id LIMIT 1", [], |row| row.get(0)).unwrap();
    assert_eq!(oldest, b"500");
    // A day later.
    other.execute("UPDATE queue_message SET published = published - 90000000 WHERE id < 10000", []).unwrap();
    let before = count(&path, "queue_message");
    for _ in 0..10 {
        publish(&queue, "today").await.unwrap();
    }
    assert_eq!(count(&path, "queue_message"), before - 10, "each publishing removes two and adds one");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_topic_refuses_and_says_who_is_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Queue::new(QueueOptions { max_messages: 3, ..options(&path) });
    let (running, _) = subscribe(&queue, "slow app", done).await;
    running.stop().await;
    for text in ["0", "1"] {
        publish(&queue, text).await.unwrap();
    }
    let expiring = Outgoing {
        topic: "topic".to_owned(),
        metadata: [("TTLinSeconds".to_owned(), "1".to_owned())].into(),
        ..Outgoing::default()
    };
    queue.publish(expiring.clone()).await.unwrap();
    match publish(&queue, "3").await {
        Err(BlockError::Unavailable { reason }) => assert!(reason.contains("slow app"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // Another topic has room, and one that expired makes some.
    queue.publish(Outgoing { topic: "other".to_owned(), ..Outgoing::default() }).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute("UPDATE queue_message SET expires = 1 WHERE expires IS NOT NULL", []).unwrap();
    publish(&queue, "3").await.unwrap();
    let (running, mut received) = subscribe(&queue, "slow app", done).await;
    let found: BTreeSet<String> = take(&mut received, 3).await.into_iter().collect();
    assert_eq!(found, ["0", "1", "3"].map(str::to_owned).into());
    running.stop().await;
    for ttl in ["0", "-1", "1.5", "soon", "", "99999999999999999999"] {
        let metadata = [("ttlInSeconds".to_owned(), ttl.to_owned())].into();
        let answer = queue.publish(Outgoing { metadata, ..expiring.clone() }).await;
        assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{ttl:?}: {answer:?}");
    }
    queue.close().await;
}

/// One of two consumers has gone for good: what it did not take is removed when it is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_consumer_that_has_gone_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Queue::new(options(&path));
    for consumer in ["gone", "stays"] {
        subscribe(&queue, consumer, done).await.0.stop().await;
    }
    for number in 0..10 {
        publish(&queue, &number.to_string()).await.unwrap();
    }
    let (running, mut received) = subscribe(&queue, "stays", done).await;
    take(&mut received, 10).await;
    running.stop().await;
    queue.close().await;
    assert_eq!(count(&path, "queue_message"), 10, "messages that wait for a consumer");
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE queue_consumer SET seen = 1 WHERE name = 'gone'", []).unwrap();
    drop(other);
    // A host tidies up when it begins to receive.
    let queue = Queue::new(options(&path));
    let (running, _received) = subscribe(&queue, "stays", done).await;
    let tidied = async {
        while count(&path, "queue_message") > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tidied).await.expect("its messages are still there");
    assert_eq!(count(&path, "queue_consumer"), 1);
    running.stop().await;
    queue.close().await;
}

/// A process that was stopped for longer than its lease finds its place taken, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_host_that_was_taken_for_dead_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Queue::new(QueueOptions { concurrency: 1, ..options(&path) });
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (seen, mut received) = unbounded_channel();
    let handler = Arc::new(Gated { seen, gate: Arc::clone(&gate) });
    let subscribe =
        Subscribe { topic: "topic".to_owned(), consumer: "consumer".to_owned(), ..Subscribe::default() };
    let running = queue.subscribe(subscribe, handler).await.unwrap();
    for number in 0..5 {
        publish(&queue, &number.to_string()).await.unwrap();
    }
    assert_eq!(next(&mut received).await, "0");
    // As another process does it.
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    let buried = other.execute("UPDATE queue_pending SET holder = NULL, due = 0", []).unwrap();
    assert!(buried >= 1, "nothing was held");
    assert_eq!(other.execute("DELETE FROM queue_holder", []).unwrap(), 1);
    gate.add_permits(1000);
    let mut found = BTreeSet::new();
    while found.len() < 4 {
        let text = next(&mut received).await;
        assert_ne!(text, "0", "what was done after all came again");
        found.insert(text);
    }
    running.stop().await;
    queue.close().await;
    for table in ["queue_message", "queue_pending", "queue_holder"] {
        assert_eq!(count(&path, table), 0, "rows left in {table}");
    }
}

/// Waits for a permit before it is done.
struct Gated {
    seen: UnboundedSender<String>,
    gate: Arc<tokio::sync::Semaphore>,
}

#[async_trait]
impl Handler<Message> for Gated {
    async fn handle(&self, message: Message) -> Outcome {
        self.seen.send(String::from_utf8(message.data.to_vec()).unwrap()).ok();
        self.gate.acquire().await.unwrap().forget();
        Outcome::Done
    }
}

/// Another program locks the file for a while: publishers are told in time, subscriptions wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_locked_file_is_an_error_for_publishers_and_a_pause_for_subscriptions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let busy_timeout = Duration::from_millis(50);
    let file = SqliteOptions { busy_timeout, ..SqliteOptions::new(&path) };
    let queue = Queue::new(QueueOptions::new(file));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (seen, mut received) = unbounded_channel();
    let handler = Arc::new(Gated { seen, gate: Arc::clone(&gate) });
    let subscribe =
        Subscribe { topic: "topic".to_owned(), consumer: "consumer".to_owned(), ..Subscribe::default() };
    let running = queue.subscribe(subscribe, handler).await.unwrap();
    for number in 0..20 {
        publish(&queue, &number.to_string()).await.unwrap();
    }
    let mut found = BTreeSet::from([next(&mut received).await]);
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Their outcomes cannot be written now.
    gate.add_permits(5);
    for _ in 0..5 {
        match tokio::time::timeout(PATIENCE, publish(&queue, "refused")).await.unwrap() {
            Err(BlockError::Unavailable { reason }) => assert!(reason.contains("locked"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(queue.ping().await.is_err());
    other.execute_batch("COMMIT").unwrap();
    gate.add_permits(1000);
    publish(&queue, "last").await.unwrap();
    while found.len() < 21 {
        found.insert(next(&mut received).await);
    }
    running.stop().await;
    queue.close().await;
    assert!(!found.contains("refused"), "what was refused was published");
    for table in ["queue_message", "queue_pending", "queue_holder"] {
        assert_eq!(count(&path, table), 0, "rows left in {table}");
    }
}

#[tokio::test]
async fn a_bad_value_names_the_field_but_not_the_value() {
    for (field, value, named) in [
        ("concurrency", "hunter2", "concurrency"),
        ("concurrency", "0", "concurrency"),
        ("concurrency", "1001", "concurrency"),
        ("processingTimeout", "hunter2", "processingTimeout"),
        ("processingTimeout", "1ms", "processingTimeout"),
        ("retention", "hunter2", "retention"),
        ("consumerRetention", "hunter2", "consumerRetention"),
        ("maxMessages", "0", "maxMessages"),
        ("busyTimeout", "hunter2", "busyTimeout"),
        ("url", "file://hunter2/x", "connectionString"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let component = ComponentSpec {
            name: "pubsub".to_owned(),
            component_type: "pubsub.sqlite".to_owned(),
            metadata: vec![(field.to_owned(), value.to_owned())],
            ..ComponentSpec::default()
        };
        let error = open(component, OpenContext { data_dir: folder.path().to_owned() }).await.err().unwrap();
        assert!(
            matches!(&error, OpenError::InvalidMetadata { field, .. } if field == named),
            "{field}: {error}"
        );
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

/// A file that is no queue is an error that says so, and the host that meets it goes on.
#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    std::fs::write(&path, "not a database, though longer than a header would be ".repeat(100)).unwrap();
    let queue = Queue::new(options(&path));
    match publish(&queue, "lost").await {
        Err(BlockError::Failed { reason }) => {
            assert!(reason.contains("is not an SQLite database"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    let subscribe = Subscribe { topic: "topic".to_owned(), ..Subscribe::default() };
    let handler = Arc::new(Inbox { seen: unbounded_channel().0, answer: Box::new(done) });
    assert!(queue.subscribe(subscribe, handler).await.is_err());
    queue.close().await;
}
