//! Jobs in SQLite: what was scheduled survives, what is due comes at least once, and a failure is handled as
//! the job says. The child of the kill tests is this program again.

use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::jobs::{Due, FailurePolicy, Job, JobData, JobError, Jobs};
use dhow_providers::jobs::{JobsOptions, SqliteJobs};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore};

const PATIENCE: Duration = Duration::from_secs(30);

/// Reports each trigger, waits for leave, and answers with the next of its outcomes, or `Done`.
struct Reporter {
    triggers: UnboundedSender<Due>,
    outcomes: parking_lot::Mutex<Vec<Outcome>>,
    leave: Semaphore,
    calls: AtomicUsize,
}

#[async_trait]
impl Handler<Due> for Reporter {
    async fn handle(&self, due: Due) -> Outcome {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.triggers.send(due).unwrap();
        let _leave = self.leave.acquire().await.unwrap();
        self.outcomes.lock().pop().unwrap_or(Outcome::Done)
    }
}

fn reporter(outcomes: &[Outcome], leave: usize) -> (Arc<Reporter>, UnboundedReceiver<Due>) {
    let (triggers, receiver) = unbounded_channel();
    let outcomes = parking_lot::Mutex::new(outcomes.iter().rev().copied().collect());
    let (leave, calls) = (Semaphore::new(leave), AtomicUsize::new(0));
    (Arc::new(Reporter { triggers, outcomes, leave, calls }), receiver)
}

async fn next(triggers: &mut UnboundedReceiver<Due>) -> Due {
    tokio::time::timeout(PATIENCE, triggers.recv()).await.expect("no trigger came").unwrap()
}

/// A look at the file every 50 ms stands for what the default does every few seconds.
fn options() -> JobsOptions {
    JobsOptions {
        claim: Duration::from_millis(600),
        look: Duration::from_millis(50),
        ..JobsOptions::default()
    }
}

fn in_file(folder: &Path) -> SqliteJobs {
    SqliteJobs::in_file(folder.join("jobs.db"), options())
}

fn once(name: &str, due: &str) -> Job {
    Job { name: name.to_owned(), due_time: Some(due.to_owned()), ..Job::default() }
}

fn every(name: &str, schedule: &str) -> Job {
    Job { name: name.to_owned(), schedule: Some(schedule.to_owned()), ..Job::default() }
}

fn owners(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Waits until the jobs of `owner` are these.
async fn until_listed(jobs: &dyn Jobs, owner: &str, expected: &[&str]) {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let names: Vec<_> = jobs.list(owner).await.unwrap().into_iter().map(|job| job.name).collect();
            if names == expected {
                return;
            }
        }
    });
    waited.await.expect("the list did not become as expected");
}

#[tokio::test]
async fn a_job_is_kept_as_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let full = Job {
        name: "full".to_owned(),
        schedule: Some("0 0 8 * * MON-FRI".to_owned()),
        due_time: Some("2126-01-01T00:00:00Z".to_owned()),
        repeats: Some(7),
        ttl: Some("P1Y".to_owned()),
        data: Some(JobData { type_url: "type.googleapis.com/x".to_owned(), value: vec![0, 255].into() }),
        failure_policy: FailurePolicy::Constant { interval: Duration::from_micros(1500), max_retries: None },
    };
    let drop = Job { failure_policy: FailurePolicy::Drop, ..once("drop", "1h") };
    let empty = Job { data: Some(JobData::default()), ..once("empty ü%_'", "1h") };
    for jobs in [in_file(folder.path()), SqliteJobs::in_memory(options())] {
        assert_eq!(jobs.get("a", "full").await, Err(JobError::NotFound { name: "full".to_owned() }));
        for job in [&full, &drop, &empty, &once("plain", "1h")] {
            jobs.schedule("a", job.clone(), false).await.unwrap();
            assert_eq!(jobs.get("a", &job.name).await.as_ref(), Ok(job));
        }
        let exists = Err(JobError::Exists { name: "full".to_owned() });
        assert_eq!(jobs.schedule("a", full.clone(), false).await, exists);
        jobs.schedule("a", once("full", "2h"), true).await.unwrap();
        assert_eq!(jobs.get("a", "full").await, Ok(once("full", "2h")));
        // Another owner's job of the same name is another job.
        jobs.schedule("b", once("full", "1h"), false).await.unwrap();
        jobs.delete("a", "full").await.unwrap();
        jobs.delete("a", "full").await.unwrap();
        assert!(jobs.get("b", "full").await.is_ok());
        until_listed(&jobs, "a", &["drop", "empty ü%_'", "plain"]).await;
        jobs.delete_prefix("a", "empty ü%_").await.unwrap();
        jobs.delete_prefix("a", "pl%n").await.unwrap();
        until_listed(&jobs, "a", &["drop", "plain"]).await;
        jobs.delete_prefix("a", "").await.unwrap();
        until_listed(&jobs, "a", &[]).await;
        until_listed(&jobs, "b", &["full"]).await;
        jobs.close().await;
        let closed = jobs.schedule("a", once("late", "1h"), false).await;
        assert!(matches!(closed, Err(JobError::Block(BlockError::Unavailable { .. }))), "{closed:?}");
    }
    until_listed(&in_file(folder.path()), "b", &["full"]).await;
}

#[tokio::test]
async fn mistakes_name_their_field_and_nothing_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = in_file(folder.path());
    let large = JobData { type_url: String::new(), value: vec![0; (1 << 20) + 1].into() };
    for (job, field) in [
        (every("j", "61 * * * * *"), "schedule:"),
        (once("j", "yesterday"), "dueTime:"),
        (Job { ttl: Some("x".to_owned()), ..every("j", "@daily") }, "ttl:"),
        (Job { data: Some(large), ..once("j", "1s") }, "data:"),
        (once("", "1s"), "name:"),
    ] {
        match jobs.schedule("a", job, false).await {
            Err(JobError::Block(BlockError::Invalid { reason })) => {
                assert!(reason.starts_with(field), "{reason}");
            }
            other => panic!("{field} {other:?}"),
        }
    }
    assert_eq!(jobs.list("a").await, Ok(Vec::new()));
    jobs.delete("a", "j").await.unwrap();
    assert!(!folder.path().join("jobs.db").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_come_to_their_owner_and_jobs_end() {
    let folder = tempfile::tempdir().unwrap();
    for jobs in [in_file(folder.path()), SqliteJobs::in_memory(options())] {
        let (handler, mut triggers) = reporter(&[], 1000);
        let running = jobs.start(owners(&["a", "c"]), Arc::clone(&handler) as _).await.unwrap();
        jobs.schedule("b", once("foreign", "0s"), false).await.unwrap();
        jobs.schedule("a", once("now", "0s"), false).await.unwrap();
        let due = next(&mut triggers).await;
        assert_eq!((due.owner.as_str(), due.name.as_str()), ("a", "now"));
        until_listed(&jobs, "a", &[]).await;
        // One that is due long ago, one that is due soon, and one that repeats.
        let data = Some(JobData { type_url: "t".to_owned(), value: "d".into() });
        let past = Job { data: data.clone(), ..once("past", "2000-01-01T00:00:00Z") };
        jobs.schedule("c", past, false).await.unwrap();
        assert_eq!(next(&mut triggers).await.data, data);
        let begin = SystemTime::now();
        jobs.schedule("c", once("soon", "150ms"), false).await.unwrap();
        let due = next(&mut triggers).await;
        assert_eq!(due.name, "soon");
        assert!(begin.elapsed().unwrap() >= Duration::from_millis(149));
        let repeated = Job { repeats: Some(3), ..every("thrice", "@every 20ms") };
        jobs.schedule("a", repeated, false).await.unwrap();
        let times =
            [next(&mut triggers).await.due, next(&mut triggers).await.due, next(&mut triggers).await.due];
        assert!(times[0] < times[1] && times[1] < times[2], "{times:?}");
        until_listed(&jobs, "a", &[]).await;
        // One that ends by its time to live; with a due time, that comes first.
        let ttl = Job {
            due_time: Some("0s".to_owned()),
            ttl: Some("250ms".to_owned()),
            ..every("mortal", "@every 100ms")
        };
        jobs.schedule("a", ttl, false).await.unwrap();
        assert_eq!(next(&mut triggers).await.name, "mortal");
        until_listed(&jobs, "a", &[]).await;
        running.stop().await;
        while let Ok(due) = triggers.try_recv() {
            assert_eq!(due.name, "mortal");
        }
        until_listed(&jobs, "b", &["foreign"]).await;
        jobs.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_follow_the_policy() {
    let retry = |max_retries| FailurePolicy::Constant { interval: Duration::from_millis(5), max_retries };
    let again = Outcome::Again;
    for (policy, outcomes, expected) in [
        (FailurePolicy::Drop, vec![again; 9], 1),
        (retry(Some(0)), vec![again; 9], 1),
        (retry(Some(3)), vec![again; 9], 4),
        (retry(Some(3)), vec![again, again], 3),
        (retry(None), vec![again; 9], 10),
    ] {
        let jobs = SqliteJobs::in_memory(options());
        let (handler, mut triggers) = reporter(&outcomes, 1000);
        let running = jobs.start(owners(&["a"]), Arc::clone(&handler) as _).await.unwrap();
        jobs.schedule("a", Job { failure_policy: policy, ..once("j", "0s") }, false).await.unwrap();
        let first = next(&mut triggers).await;
        until_listed(&jobs, "a", &[]).await;
        running.stop().await;
        assert_eq!(handler.calls.load(Ordering::SeqCst), expected, "{policy:?}");
        while let Ok(retried) = triggers.try_recv() {
            assert_eq!(retried.due, first.due, "a retry is of the same time");
        }
    }
    // A time that failed for good is followed by the next one.
    let jobs = SqliteJobs::in_memory(options());
    let (handler, mut triggers) = reporter(&[again, Outcome::Done], 1000);
    let running = jobs.start(owners(&["a"]), handler as _).await.unwrap();
    let job = Job { failure_policy: FailurePolicy::Drop, repeats: Some(2), ..every("j", "@every 10ms") };
    jobs.schedule("a", job, false).await.unwrap();
    assert!(next(&mut triggers).await.due < next(&mut triggers).await.due);
    until_listed(&jobs, "a", &[]).await;
    running.stop().await;
}

/// The clock of the next test, in seconds of Unix time.
static NOW: AtomicU64 = AtomicU64::new(1_800_000_000);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let options = JobsOptions { clock: now, ..options() };
    let jobs = SqliteJobs::in_file(path.clone(), options.clone());
    for job in [
        every("cron", "0 * * * * *"),
        every("every", "@every 10s"),
        once("once", "5s"),
        Job { repeats: Some(2), ..every("twice", "@every 10s") },
        Job { ttl: Some("1m".to_owned()), ..every("expired", "@every 10s") },
    ] {
        jobs.schedule("a", job, false).await.unwrap();
    }
    jobs.close().await;
    // An hour without a host.
    NOW.fetch_add(3605, Ordering::SeqCst);
    let jobs = SqliteJobs::in_file(path, options);
    let (handler, mut triggers) = reporter(&[], 1000);
    let running = jobs.start(owners(&["a"]), handler as _).await.unwrap();
    let mut came = BTreeMap::new();
    for _ in 0..4 {
        *came.entry(next(&mut triggers).await.name).or_insert(0) += 1;
    }
    let once_each = ["cron", "every", "once", "twice"].map(|name| (name.to_owned(), 1));
    assert_eq!(came, BTreeMap::from(once_each));
    until_listed(&jobs, "a", &["cron", "every", "twice"]).await;
    // Five seconds later the intervals have kept their beat (10, 20, … after the start).
    NOW.fetch_add(5, Ordering::SeqCst);
    let mut names = [next(&mut triggers).await.name, next(&mut triggers).await.name];
    names.sort();
    assert_eq!(names, ["every", "twice"]);
    until_listed(&jobs, "a", &["cron", "every"]).await;
    running.stop().await;
    assert!(triggers.try_recv().is_err(), "something came more often than it was due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_during_a_trigger() {
    let jobs = SqliteJobs::in_memory(options());
    let (handler, mut triggers) = reporter(&[], 0);
    let running = jobs.start(owners(&["a"]), Arc::clone(&handler) as _).await.unwrap();
    for name in ["deleted", "replaced", "slow"] {
        jobs.schedule("a", every(name, "@every 10ms"), false).await.unwrap();
    }
    for _ in 0..3 {
        next(&mut triggers).await;
    }
    jobs.delete("a", "deleted").await.unwrap();
    jobs.schedule("a", once("replaced", "1h"), true).await.unwrap();
    jobs.schedule("a", once("slow", "1h"), false).await.unwrap_err();
    // Claims are renewed: nothing comes twice while its handler runs longer than a claim.
    let quiet = tokio::time::timeout(options().claim * 3, triggers.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    handler.leave.add_permits(1000);
    assert_eq!(next(&mut triggers).await.name, "slow");
    running.stop().await;
    until_listed(&jobs, "a", &["replaced", "slow"]).await;
    assert_eq!(jobs.get("a", "replaced").await, Ok(once("replaced", "1h")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_owner_does_not_hold_up_another_and_stop_waits() {
    let jobs = SqliteJobs::in_memory(options());
    let (handler, mut triggers) = reporter(&[], 0);
    for number in 0..100 {
        jobs.schedule("greedy", once(&format!("g{number}"), "0s"), false).await.unwrap();
    }
    jobs.schedule("modest", once("m", "0s"), false).await.unwrap();
    let running = jobs.start(owners(&["greedy", "modest"]), Arc::clone(&handler) as _).await.unwrap();
    let mut greedy = 0;
    let mut modest = 0;
    for _ in 0..33 {
        match next(&mut triggers).await.owner.as_str() {
            "greedy" => greedy += 1,
            _ => modest += 1,
        }
    }
    assert_eq!((greedy, modest), (32, 1));
    let stopped = Arc::new(Notify::new());
    let told = Arc::clone(&stopped);
    let stopping = tokio::spawn(async move {
        told.notify_one();
        running.stop().await;
    });
    stopped.notified().await;
    handler.leave.add_permits(1000);
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    let calls = handler.calls.load(Ordering::SeqCst);
    let left = jobs.list("greedy").await.unwrap().len();
    assert_eq!(calls - 1 + left, 100, "what was answered before the stop is noted, the rest is left");
    jobs.close().await;
    assert_eq!(handler.calls.load(Ordering::SeqCst), calls, "a handler was called after the stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (in_file(folder.path()), in_file(folder.path()));
    let (handler, mut triggers) = reporter(&[], 100_000);
    // Both trigger the same owner, before the file exists.
    let running = [
        first.start(owners(&["a"]), Arc::clone(&handler) as _).await.unwrap(),
        second.start(owners(&["a"]), Arc::clone(&handler) as _).await.unwrap(),
    ];
    let third = in_file(folder.path());
    for number in 0..200 {
        third.schedule("a", once(&format!("{number:03}"), "0s"), false).await.unwrap();
    }
    let mut came: Vec<String> = Vec::new();
    for _ in 0..200 {
        came.push(next(&mut triggers).await.name);
    }
    until_listed(&third, "a", &[]).await;
    for running in running {
        running.stop().await;
    }
    came.sort();
    came.dedup();
    assert_eq!(came.len(), 200);
    assert_eq!(handler.calls.load(Ordering::SeqCst), 200, "a job was triggered twice");
}

/// Where the child finds its database, and what it does there.
const CHILD_PATH: &str = "DHOW_JOBS_PATH";

#[test]
fn acknowledged_jobs_survive_sigkill_and_interrupted_triggers_come_again() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        return schedule_until_killed(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut scheduled: Vec<String> = Vec::new();
    let begin = Instant::now();
    for round in 0..10 {
        let (names, interrupted) = run_and_kill(folder.path(), round);
        scheduled.extend(names);
        scheduled.sort();
        runtime.block_on(async {
            let jobs = in_file(folder.path());
            let (handler, mut triggers) = reporter(&[], 1000);
            let running = jobs.start(owners(&["triggered"]), handler as _).await.unwrap();
            assert_eq!(next(&mut triggers).await.name, interrupted);
            until_listed(&jobs, "triggered", &[]).await;
            running.stop().await;
            let kept: Vec<_> = jobs.list("kept").await.unwrap().into_iter().map(|job| job.name).collect();
            let lost: Vec<_> = scheduled.iter().filter(|name| !kept.contains(name)).collect();
            assert!(lost.is_empty(), "round {round}: lost {lost:?}");
            jobs.close().await;
        });
    }
    println!("{} jobs in {:?}", scheduled.len(), begin.elapsed());
    assert!(scheduled.len() > 20, "the kills came before the work");
}

fn run_and_kill(folder: &Path, round: u64) -> (Vec<String>, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jobs::acknowledged_jobs_survive_sigkill_and_interrupted_triggers_come_again"])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD_PATH, folder)
        .env("DHOW_JOBS_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut names = Vec::new();
    let mut interrupted = None;
    for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        if let Some(name) = line.strip_prefix("triggered ") {
            interrupted = Some(name.to_owned());
        } else if let Some(name) = line.strip_prefix("kept ") {
            names.push(name.to_owned());
        }
        if interrupted.is_some() && names.len() as u64 > 5 + round {
            // SIGKILL on Unix. What is still in the pipe was acknowledged, too, and is read on.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    (names, interrupted.expect("the child was not triggered"))
}

/// The child: one job is being triggered without end, others are scheduled as fast as possible.
fn schedule_until_killed(folder: &Path) {
    let round = std::env::var("DHOW_JOBS_ROUND").unwrap();
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let jobs = in_file(folder);
        let (handler, mut triggers) = reporter(&[], 0);
        let _running = jobs.start(owners(&["triggered"]), handler as _).await.unwrap();
        jobs.schedule("triggered", once(&round, "0s"), false).await.unwrap();
        println!("triggered {}", next(&mut triggers).await.name);
        for number in 0_u64.. {
            let name = format!("{round}-{number}");
            jobs.schedule("kept", every(&name, "@daily"), false).await.unwrap();
            if std::io::stdout().lock().write_all(format!("kept {name}\n").as_bytes()).is_err() {
                return;
            }
        }
    });
}
