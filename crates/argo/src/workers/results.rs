//! How steps ended: the stream takes one end of a step, the first.

use super::connection::{Connection, First, Tries};
use super::message::{Ending, VERSION, cancel_subject, done_subject, result_subject, step_subject};
use async_nats::jetstream::context::PublishErrorKind;
use bytes::Bytes;

/// An end as it is kept.
pub(super) struct Kept {
    pub(super) ending: Ending,
    /// Its number in the stream.
    sequence: u64,
}

impl Connection {
    /// How a step ended; none if it has not.
    pub(super) async fn ending(&self, id: &str) -> Result<Option<Kept>, String> {
        let Some(message) = self.last(&self.results, &result_subject(id)).await? else { return Ok(None) };
        let wrong = |reason: String| format!("the result of step {id} is of no use: {reason}");
        let ending: Ending =
            serde_json::from_slice(&message.payload).map_err(|error| wrong(error.to_string()))?;
        if ending.version != VERSION {
            return Err(wrong(format!("it has version {}; here it is {VERSION}", ending.version)));
        }
        Ok(Some(Kept { ending, sequence: message.sequence }))
    }

    /// Whether a step has ended. Waits for a server that is away; cheaper for whoever does not want to know how.
    pub(super) async fn has_ended(&self, id: &str) -> Result<bool, String> {
        let mut tries = Tries::new();
        loop {
            match self.last(&self.results, &result_subject(id)).await {
                Ok(message) => return Ok(message.is_some()),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Keeps the end of a step, if it is the first one, and tells whoever waits. An end that no message has room for
    /// becomes an error.
    pub(super) async fn end(&self, id: &str, ending: Ending) -> Result<First, String> {
        let attempt = ending.attempt.clone();
        let payload = fit(ending, self.max_payload())?;
        let mut tries = Tries::new();
        let first = loop {
            match self.publish_first(result_subject(id), payload.clone()).await {
                Ok(First::Yes) => break First::Yes,
                // Perhaps it is our own, and only the answer was lost.
                Ok(First::No) => match self.ending(id).await {
                    Ok(Some(kept)) if kept.ending.attempt == attempt => break First::Yes,
                    Ok(Some(_)) => break First::No,
                    Ok(None) => tries.again("a result is there and is not").await?,
                    Err(error) => tries.again(error).await?,
                },
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    return Err(error.to_string());
                }
                Err(error) => tries.again(error).await?,
            }
        };
        self.tell_done(id).await;
        Ok(first)
    }

    /// Tells whoever waits for a step that it has ended. Who does not hear it finds out later.
    pub(super) async fn tell_done(&self, id: &str) {
        if let Err(error) = self.client.publish(done_subject(id), Bytes::new()).await {
            tracing::debug!("the end of step {id} could not be told: {error}");
        }
    }

    /// Takes a cancellation back: the step may be asked for again.
    pub(super) async fn forget(&self, kept: &Kept) -> Result<(), String> {
        match self.results.delete_message(kept.sequence).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends a step that nobody wants any more: those who wait in the queue are not begun, those who run are told.
    pub(super) async fn cancel(&self, id: &str, by: &str) -> Result<(), String> {
        let ending = Ending {
            version: VERSION,
            attempt: super::message::attempt_id(),
            worker: by.to_owned(),
            outcome: None,
            contents: Default::default(),
            log: String::new(),
        };
        if self.end(id, ending).await? == First::Yes {
            let told = self.client.publish(cancel_subject(id), Bytes::new()).await;
            told.map_err(|error| error.to_string())?;
        }
        let purged = self.steps.purge().filter(step_subject(id)).await;
        purged.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// A message of an end: without the log, if that is too much; an error instead, if it still is.
fn fit(mut ending: Ending, max: usize) -> Result<Bytes, String> {
    let bytes = |ending: &Ending| serde_json::to_vec(ending).map_err(|error| error.to_string());
    let mut payload = bytes(&ending)?;
    if payload.len() > max {
        ending.log = format!("(the log is on the worker {})\n", ending.worker);
        payload = bytes(&ending)?;
    }
    if payload.len() > max {
        let size = payload.len();
        ending.contents.clear();
        ending.outcome = Some(crate::node::Outcome::error(format!(
            "the outputs have {size} bytes, and a message of the NATS server at most {max} (max_payload); make large \
             parameters artifacts"
        )));
        payload = bytes(&ending)?;
    }
    Ok(payload.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Outcome, Phase};

    #[test]
    fn what_is_too_large_becomes_smaller() {
        let ending = |log: usize, message: usize| Ending {
            version: VERSION,
            attempt: "a".to_owned(),
            worker: "w".to_owned(),
            outcome: Some(Outcome {
                phase: Phase::Succeeded,
                message: "m".repeat(message),
                ..Outcome::default()
            }),
            contents: Default::default(),
            log: "l".repeat(log),
        };
        for (log, message, phase, keeps_log) in [
            (100, 100, Phase::Succeeded, true),
            (9000, 100, Phase::Succeeded, false),
            (100, 9000, Phase::Error, false),
        ] {
            let payload = fit(ending(log, message), 5000).unwrap();
            assert!(payload.len() <= 5000);
            let read: Ending = serde_json::from_slice(&payload).unwrap();
            assert_eq!(read.outcome.unwrap().phase, phase);
            assert_eq!(read.log.len() == log, keeps_log, "{log} {message}");
        }
    }
}
