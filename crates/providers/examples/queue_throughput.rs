//! Prints how fast the embedded brokers are: durable publishing from many tasks, and delivery.
//!
//! `cargo run --release -p dhow-providers --example queue_throughput [FOLDER]`; the folder decides the disk.
//! Held constant: messages of 1 KiB, 64 publishers, one consumer with the default window, a handler that does
//! nothing. The line before shows what the disk alone allows: one flush after the other of one page.
#![allow(clippy::print_stdout, reason = "the numbers are what this program is for")]

use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::pubsub::{Message, Outgoing, PubSub, Subscribe};
use dhow_providers::pubsub::in_memory::InMemory;
use dhow_providers::pubsub::sqlite::embedded;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const PUBLISHERS: usize = 64;
const RUN: Duration = Duration::from_secs(3);

/// Counts, and tells when it has counted to the end.
#[derive(Default)]
struct Count {
    seen: AtomicUsize,
    end: AtomicUsize,
    reached: Notify,
}

#[async_trait]
impl Handler<Message> for Count {
    async fn handle(&self, _: Message) -> Outcome {
        let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        if seen >= self.end.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
        Outcome::Done
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("dhow-queue-throughput-{}", std::process::id()));
    println!("disk: {:.0} flushes/s", flushes(&folder)?);
    let brokers: [(&str, Arc<dyn PubSub>); 2] =
        [("pubsub.in-memory", Arc::new(InMemory::new())), ("pubsub.sqlite", embedded(&folder))];
    for (name, broker) in brokers {
        // Known from now on, but nobody receives: publishing alone.
        let subscribe =
            Subscribe { topic: "topic".to_owned(), consumer: "consumer".to_owned(), ..Subscribe::default() };
        let count = Arc::new(Count::default());
        broker.subscribe(subscribe.clone(), Arc::clone(&count) as _).await?.stop().await;
        let (published, elapsed) = publish(&broker).await?;
        println!("{name}: {:.0} publishes/s", published as f64 / elapsed.as_secs_f64());
        // What an in-memory queue had no room for is gone.
        let expected = if name == "pubsub.in-memory" { published.min(8192) } else { published };
        count.end.store(expected, Ordering::SeqCst);
        let start = Instant::now();
        let running = broker.subscribe(subscribe, Arc::clone(&count) as _).await?;
        count.reached.notified().await;
        println!("{name}: {:.0} deliveries/s of {expected} that waited", rate(expected, start));
        let start = Instant::now();
        count.seen.store(0, Ordering::SeqCst);
        count.end.store(usize::MAX, Ordering::SeqCst);
        let (published, _) = publish(&broker).await?;
        count.end.store(published, Ordering::SeqCst);
        if count.seen.load(Ordering::SeqCst) < published {
            count.reached.notified().await;
        }
        println!("{name}: {:.0}/s published and delivered at the same time", rate(published, start));
        running.stop().await;
        broker.close().await;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

/// Publishes from all publishers for the length of a run.
async fn publish(broker: &Arc<dyn PubSub>) -> Result<(usize, Duration), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let broker = Arc::clone(broker);
            tokio::spawn(async move {
                let mut count = 0;
                while start.elapsed() < RUN {
                    let data = vec![b'x'; 1024].into();
                    broker
                        .publish(Outgoing { topic: "topic".to_owned(), data, ..Outgoing::default() })
                        .await?;
                    count += 1;
                    tokio::task::yield_now().await;
                }
                Ok::<usize, BlockError>(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok((count, start.elapsed()))
}

/// How many flushes of a page the disk does a second, one after the other.
fn flushes(folder: &Path) -> std::io::Result<f64> {
    std::fs::create_dir_all(folder)?;
    let mut file = std::fs::File::create(folder.join("flushes"))?;
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
