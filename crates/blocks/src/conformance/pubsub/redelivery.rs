//! What was not handled comes again; what was does not.

use super::{CaseResult, Context, all, done, ensure, ensure_eq, text, until};
use crate::events::Outcome;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) async fn until_done(context: Context) -> CaseResult {
    const REFUSALS: usize = 2;
    let refusals = AtomicUsize::new(0);
    let answer = move |text: &str| {
        let refuse = text == "refused" && refusals.fetch_add(1, Ordering::SeqCst) < REFUSALS;
        if refuse { Outcome::Again } else { Outcome::Done }
    };
    let (running, mut inbox) = context.subscribe("topic", "consumer", answer).await?;
    for text in ["before", "refused", "after"] {
        context.publish("topic", text).await?;
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let settled = [("after", 1), ("before", 1), ("refused", REFUSALS + 1)];
    while settled.iter().any(|(text, count)| counts.get(*text).copied().unwrap_or_default() < *count) {
        *counts.entry(text(&inbox.next().await?)).or_default() += 1;
    }
    running.stop().await;
    for message in inbox.here() {
        *counts.entry(text(&message)).or_default() += 1;
    }
    let settled: BTreeMap<String, usize> =
        settled.into_iter().map(|(text, count)| (text.to_owned(), count)).collect();
    ensure_eq!(counts, settled, "deliveries");
    Ok(())
}

pub(super) async fn next_subscriber(context: Context) -> CaseResult {
    if !context.promises.remembers_consumers {
        return Ok(());
    }
    let (running, mut inbox) = context.subscribe("topic", "consumer", |_| Outcome::Again).await?;
    context.publish("topic", "refused").await?;
    inbox.next().await?;
    running.stop().await;
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    ensure_eq!(text(&inbox.next().await?), "refused", "first message of the next subscriber");
    running.stop().await;
    Ok(())
}

pub(super) async fn waiting(context: Context) -> CaseResult {
    const MESSAGES: usize = 30;
    if !context.promises.remembers_consumers {
        return Ok(());
    }
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    context.publish("topic", "first").await?;
    inbox.next().await?;
    running.stop().await;
    for number in 0..MESSAGES {
        context.publish("topic", &number.to_string()).await?;
    }
    let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
    all(&mut inbox, (0..MESSAGES).map(|number| number.to_string())).await?;
    running.stop().await;
    Ok(())
}

pub(super) async fn not_again(context: Context) -> CaseResult {
    if !context.promises.remembers_consumers {
        return Ok(());
    }
    for round in 0..5 {
        let (running, mut inbox) = context.subscribe("topic", "consumer", done).await?;
        let text = format!("round {round}");
        context.publish("topic", &text).await?;
        let found = until(&mut inbox, &text).await?;
        // At once after the delivery: the answer is on its way.
        running.stop().await;
        ensure!(found.len() == 1, "what was handled before the stop came again: {found:?}");
    }
    Ok(())
}
