//! Whether the steps that wait are taken: without a worker a submitter would wait without a word, and a server that was
//! killed may give nothing to the workers that ask.

use super::connection::Connection;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at the queue.
const LOOK: Duration = Duration::from_secs(1);

/// A queue that stands still for so long is told of.
const PATIENCE: Duration = Duration::from_secs(5);

/// Until it is told of again.
const REMINDER: Duration = Duration::from_secs(60);

/// A queue, as it is at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Steps that nobody took.
    pub(super) waiting: u64,
    /// Steps that workers hold.
    pub(super) under_way: usize,
    /// Workers that ask for steps.
    pub(super) asked: usize,
    /// How often a step was handed to a worker, ever.
    pub(super) taken: u64,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// What was seen last, and since when it is so.
    still: Option<(u64, Instant)>,
    told: Option<Instant>,
}

/// What is wrong with a queue that stands still.
#[derive(Debug, PartialEq, Eq)]
enum Still {
    /// Nobody asks for its steps.
    Alone(String),
    /// Workers ask for steps, and do not get those that wait.
    Stuck,
}

// === impl Idle ===

impl Idle {
    /// Looks at the queue again and again, says when nobody takes its steps, and mends it when nobody can. Never ends.
    pub(super) async fn watch(&mut self, connection: &Connection) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            // A server that does not answer is told of by whoever needs it.
            let Ok(standing) = connection.standing().await else { continue };
            match self.look(standing, Instant::now()) {
                Some(Still::Alone(said)) => tracing::warn!("{said}"),
                Some(Still::Stuck) => {
                    if let Err(error) = connection.renew().await {
                        tracing::debug!("NATS: {error}");
                    }
                }
                None => {}
            }
        }
    }

    /// What is wrong with a queue.
    fn look(&mut self, standing: Standing, now: Instant) -> Option<Still> {
        let Standing { waiting, under_way, asked, taken } = standing;
        // Workers that have enough to do take no more.
        if waiting == 0 || (under_way > 0 && asked == 0) {
            *self = Idle::default();
            return None;
        }
        let since = match self.still {
            Some((before, since)) if before == taken => since,
            _ => {
                *self = Idle { still: Some((taken, now)), told: None };
                now
            }
        };
        if now - since < PATIENCE {
            return None;
        }
        if asked > 0 {
            *self = Idle::default();
            return Some(Still::Stuck);
        }
        if self.told.is_some_and(|told| now - told < REMINDER) {
            return None;
        }
        self.told = Some(now);
        let (seconds, steps) =
            ((now - since).as_secs(), if waiting == 1 { "step waits" } else { "steps wait" });
        Some(Still::Alone(format!(
            "no worker has taken a step for {seconds} s: {waiting} {steps} in the queue DHOW_STEPS; start workers with \
             `dhow workflow worker --connect` and this server's address"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_nobody_is_told_once_a_minute() {
        let begin = Instant::now();
        let mut idle = Idle::default();
        // When, what the queue is, and whether that is told.
        for (second, waiting, under_way, taken, is_told) in [
            (0, 3, 0, 7, false),
            (4, 3, 0, 7, false),
            (5, 3, 0, 7, true),
            (6, 4, 0, 7, false),
            (64, 4, 0, 7, false),
            (65, 4, 0, 7, true),
            // Somebody took one, and died.
            (66, 4, 0, 8, false),
            (70, 4, 0, 8, false),
            (71, 4, 0, 8, true),
            // Somebody is busy.
            (80, 4, 1, 9, false),
            (300, 4, 1, 9, false),
            (301, 0, 0, 9, false),
            (400, 0, 0, 9, false),
            (401, 1, 0, 9, false),
            (407, 1, 0, 9, true),
        ] {
            let now = begin + Duration::from_secs(second);
            let said = idle.look(Standing { waiting, under_way, asked: 0, taken }, now);
            assert_eq!(matches!(said, Some(Still::Alone(_))), is_told, "{second}: {said:?}");
        }
    }

    #[test]
    fn a_queue_that_gives_nothing_to_those_who_ask_is_stuck() {
        let begin = Instant::now();
        let mut idle = Idle::default();
        // When, what the queue is, and whether it is stuck.
        for (second, waiting, under_way, asked, taken, is_stuck) in [
            (0, 3, 7, 2, 7, false),
            (4, 3, 7, 2, 7, false),
            // A step was given to somebody.
            (5, 2, 8, 2, 8, false),
            (9, 2, 8, 2, 8, false),
            (10, 2, 8, 2, 8, true),
            // It has a while to come to itself.
            (11, 2, 8, 2, 8, false),
            (16, 2, 8, 2, 8, true),
            // All are busy.
            (17, 2, 8, 0, 8, false),
            (30, 2, 8, 0, 8, false),
            (31, 2, 8, 1, 8, false),
            (35, 2, 8, 1, 8, false),
            (36, 2, 0, 1, 8, true),
            // There is nothing to give.
            (37, 0, 8, 2, 8, false),
            (60, 0, 8, 2, 8, false),
        ] {
            let now = begin + Duration::from_secs(second);
            let still = idle.look(Standing { waiting, under_way, asked, taken }, now);
            assert_eq!(still == Some(Still::Stuck), is_stuck, "{second}: {still:?}");
        }
    }
}
