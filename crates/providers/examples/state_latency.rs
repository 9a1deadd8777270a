//! Prints how long the embedded state stores take: point reads, and durable writes from many tasks.
//!
//! `cargo run --release -p dhow-providers --example state_latency [FOLDER]`; the folder decides the disk.
//! Held constant: 100 000 keys, values of 100 bytes, keys read in random order from one task.
#![allow(clippy::print_stdout, reason = "the numbers are what this program is for")]

use dhow_blocks::state::{Set, StateError, StateStore};
use dhow_providers::state::in_memory::InMemory;
use dhow_providers::state::sqlite::embedded;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: usize = 100_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("dhow-state-latency-{}", std::process::id()));
    let stores: [(&str, Arc<dyn StateStore>); 2] =
        [("state.in-memory", Arc::new(InMemory::new())), ("state.sqlite", embedded(&folder))];
    for (name, store) in stores {
        fill(&store).await?;
        for (what, keys) in [("any key", KEYS), ("hot keys", 1000)] {
            println!("{name}: get, {what:8}       {}", read(&store, keys).await?);
        }
        for tasks in [1, 16, 128] {
            let (latencies, elapsed) = write(&store, tasks).await?;
            let rate = latencies.len() as f64 / elapsed.as_secs_f64();
            println!("{name}: set, {tasks:3} at once    {} {rate:.0}/s", quantiles(latencies));
        }
        store.close().await;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn key(number: usize) -> String {
    format!("orders||customer-{number:06}")
}

async fn fill(store: &Arc<dyn StateStore>) -> Result<(), StateError> {
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(1000) {
        let operations = chunk.iter().map(|&number| {
            dhow_blocks::state::Operation::Set(Set {
                key: key(number),
                value: vec![b'x'; 100].into(),
                ..Set::default()
            })
        });
        store.transact(operations.collect()).await?;
    }
    Ok(())
}

/// Reads keys below `keys` in random order.
async fn read(store: &Arc<dyn StateStore>, keys: usize) -> Result<String, StateError> {
    let mut reads = Vec::with_capacity(KEYS);
    // Nanoseconds matter: the clock's own cost is measured and shown.
    let mut clock = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        let key = key(fastrand::usize(..keys));
        let start = Instant::now();
        let found = store.get(&key).await?;
        reads.push(start.elapsed());
        let start = Instant::now();
        clock.push(start.elapsed());
        if found.is_none() {
            return Err(StateError::Failed { reason: format!("{key} is missing") });
        }
    }
    Ok(format!("{} clock {:?}", quantiles(reads), quantile(&mut clock, 0.5)))
}

/// Writes for about two seconds.
async fn write(store: &Arc<dyn StateStore>, tasks: usize) -> Result<(Vec<Duration>, Duration), StateError> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while start.elapsed() < Duration::from_secs(2) {
                    let set = Set {
                        key: key(fastrand::usize(..KEYS)),
                        value: vec![b'y'; 100].into(),
                        ..Set::default()
                    };
                    let begin = Instant::now();
                    store.set(set).await?;
                    latencies.push(begin.elapsed());
                }
                Ok::<_, StateError>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        match task.await {
            Ok(answer) => latencies.extend(answer?),
            Err(error) => return Err(StateError::Failed { reason: error.to_string() }),
        }
    }
    Ok((latencies, start.elapsed()))
}

fn quantiles(mut times: Vec<Duration>) -> String {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile_of| quantile(&mut times, quantile_of));
    format!("p50 {p50:?}, p99 {p99:?}, max {max:?},")
}

fn quantile(times: &mut [Duration], quantile: f64) -> Duration {
    times.sort_unstable();
    let index = (times.len() as f64 * quantile) as usize;
    times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}
