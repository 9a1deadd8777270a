//! The end of a subscription, and of the broker.

use super::{CaseResult, Context, Failure, all, done, ensure, ensure_eq, inbox, text, until};
use crate::error::BlockError;
use crate::events::{Handler, Outcome};
use crate::pubsub::Message;
use async_trait::async_trait;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::channel::oneshot;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn silent(context: Context) -> CaseResult {
    let (running, mut stopped) = context.subscribe("topic", "consumer", done).await?;
    context.publish("topic", "before").await?;
    until(&mut stopped, "before").await?;
    running.stop().await;
    let mut others = Vec::new();
    // Of the same consumer, so that the message has somewhere to go, and of another one.
    for consumer in ["consumer", "other"] {
        others.push(context.subscribe("topic", consumer, done).await?);
    }
    context.publish("topic", "after").await?;
    for (_, inbox) in &mut others {
        until(inbox, "after").await?;
    }
    for (running, _) in others {
        running.stop().await;
    }
    let late: Vec<String> = stopped.here().iter().map(text).collect();
    ensure!(late.is_empty(), "delivered to a subscription that was stopped: {late:?}");
    Ok(())
}

/// Waits for leave before it is done, and tells both.
struct Gate {
    steps: UnboundedSender<&'static str>,
    leave: Mutex<Option<oneshot::Receiver<()>>>,
}

pub(super) async fn waits(context: Context) -> CaseResult {
    let (steps, mut seen) = unbounded();
    let (open, leave) = oneshot::channel();
    let handler = Arc::new(Gate { steps: steps.clone(), leave: Mutex::new(Some(leave)) });
    let running = context.broker.subscribe(context.subscription("topic", "consumer"), handler).await?;
    context.publish("topic", "slow").await?;
    ensure_eq!(seen.next().await, Some("handling"), "first step");
    let stop = async move {
        running.stop().await;
        steps.unbounded_send("stopped").ok();
    };
    let sleep = context.runtime.sleep;
    let unlock = async move {
        // Long enough for a stop that does not wait to be seen; a stop that waits passes at any speed.
        sleep(Duration::from_millis(100)).await;
        open.send(()).ok();
    };
    context.runtime.parallel(vec![stop.boxed(), unlock.boxed()]).await?;
    let steps = [seen.next().await, seen.next().await];
    ensure_eq!(steps, [Some("handled"), Some("stopped")], "steps after the handler began");
    Ok(())
}

pub(super) async fn others(context: Context) -> CaseResult {
    let (first, _) = context.subscribe("topic", "consumer", done).await?;
    let (second, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    let (elsewhere, mut other) = context.subscribe("elsewhere", "consumer", done).await?;
    first.stop().await;
    for number in 0..20 {
        context.publish("topic", &number.to_string()).await?;
        context.publish("elsewhere", &number.to_string()).await?;
    }
    for inbox in [&mut inbox, &mut other] {
        all(inbox, (0..20).map(|number| number.to_string())).await?;
    }
    second.stop().await;
    elsewhere.stop().await;
    Ok(())
}

pub(super) async fn closed(context: Context) -> CaseResult {
    let (running, mut received) = context.subscribe("topic", "consumer", done).await?;
    context.publish("topic", "before").await?;
    until(&mut received, "before").await?;
    context.broker.close().await;
    // Closing twice is what a shutdown on two paths does.
    context.broker.close().await;
    let broker = &context.broker;
    let message = context.outgoing("topic", "after");
    let (handler, _) = inbox(context.runtime, |_: &Message| Outcome::Done);
    let many = broker.publish_many(vec![message.clone(); 2]).await;
    ensure_eq!(many.len(), 2, "answers of publish_many");
    let subscribe = broker.subscribe(context.subscription("topic", "consumer"), handler).await;
    let answers = [
        ("publish", broker.publish(message).await),
        ("publish_many", many.into_iter().collect()),
        ("subscribe", subscribe.map(drop)),
        ("ping", broker.ping().await),
    ];
    for (method, answer) in answers {
        ensure!(
            matches!(answer, Err(BlockError::Unavailable { .. })),
            "{method} after close answered {answer:?}, expected Unavailable"
        );
    }
    let stopped = context.runtime.within(Duration::from_secs(30), running.stop()).await;
    stopped.ok_or_else(|| Failure::new("stop after close does not return"))?;
    ensure_eq!(received.here().len(), 0, "messages delivered after close");
    Ok(())
}

// === impl Gate ===

#[async_trait]
impl Handler<Message> for Gate {
    async fn handle(&self, _: Message) -> Outcome {
        let leave = self.leave.lock().take();
        if let Some(leave) = leave {
            self.steps.unbounded_send("handling").ok();
            leave.await.ok();
            self.steps.unbounded_send("handled").ok();
        }
        Outcome::Done
    }
}
