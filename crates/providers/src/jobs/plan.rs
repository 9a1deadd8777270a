//! What a job asks for, checked, and when it is due: first, again, and after a failure.

use crate::schedule::Schedule;
use crate::schedule::moment::Moment;
use dhow_blocks::error::BlockError;
use dhow_blocks::jobs::{FailurePolicy, Job};
use std::time::{Duration, SystemTime};

/// Longer names are a mistake or an attack.
const MAX_NAME: usize = 512;

/// Shorter times between two retries would keep a processor busy with one failing job.
const SHORTEST_RETRY: Duration = Duration::from_millis(1);

/// When a job that was just scheduled is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// First.
    pub(super) due: SystemTime,
    /// The job is gone then.
    pub(super) expires: Option<SystemTime>,
}

/// How far a job is with its triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The time that is being triggered.
    pub(super) due: SystemTime,
    /// Times before this one.
    pub(super) count: u32,
    /// Tries of this one that have failed.
    pub(super) failures: u32,
}

/// What comes after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This time again, at this moment.
    Retry(SystemTime),
    /// The next time.
    Due(SystemTime),
    /// Nothing: the job has come to its end.
    Over,
}

// === impl Plan ===

impl Plan {
    /// Checks a job and says when it is first due. What is at fault is named as in Dapr's API.
    pub(super) fn new(job: &Job, now: SystemTime) -> Result<Plan, BlockError> {
        let Job { name, schedule, due_time, repeats, ttl, .. } = job;
        let invalid = |field: &str, reason: &str| Err(BlockError::invalid(format!("{field}: {reason}")));
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return invalid("name", "expected 1 to 512 bytes without control characters");
        }
        if *repeats == Some(0) {
            return invalid("repeats", "must be 1 or more; leave it out for a job without end");
        }
        let far = |field: &str| BlockError::invalid(format!("{field}: is beyond the year 9999"));
        let start = match due_time {
            None => None,
            Some(text) => {
                let moment =
                    Moment::parse(text).map_err(|error| BlockError::invalid(format!("dueTime: {error}")))?;
                Some(moment.from(now).ok_or_else(|| far("dueTime"))?)
            }
        };
        let schedule = match schedule {
            None => None,
            Some(text) => Some(
                Schedule::parse(text).map_err(|error| BlockError::invalid(format!("schedule: {error}")))?,
            ),
        };
        let due = match (start, &schedule) {
            (Some(start), _) => start,
            (None, Some(schedule)) => schedule
                .next(now)
                .ok_or_else(|| BlockError::invalid("schedule: never comes, as 30 February"))?,
            (None, None) => return invalid("schedule", "a job needs a schedule, a dueTime, or both"),
        };
        if schedule.is_none() {
            if repeats.is_some_and(|repeats| repeats > 1) {
                return invalid("repeats", "a job without a schedule happens once");
            }
            if ttl.is_some() {
                return invalid("ttl", "a job without a schedule has no ttl: it is gone after its dueTime");
            }
        }
        let expires = match ttl {
            None => None,
            Some(text) => {
                let moment =
                    Moment::parse(text).map_err(|error| BlockError::invalid(format!("ttl: {error}")))?;
                let expires = moment.from(start.unwrap_or(now)).ok_or_else(|| far("ttl"))?;
                if start.is_some_and(|start| start > expires) {
                    return invalid("ttl", "ends before dueTime");
                }
                if expires <= now {
                    return invalid("ttl", "has ended already");
                }
                Some(expires)
            }
        };
        Ok(Plan { due, expires })
    }
}

// === impl Progress ===

impl Progress {
    /// What comes after this try, which was taken (`done`) or not.
    pub(super) fn next(self, job: &Job, expires: Option<SystemTime>, done: bool, now: SystemTime) -> Next {
        if !done
            && let FailurePolicy::Constant { interval, max_retries } = job.failure_policy
            && max_retries.is_none_or(|most| self.failures < most)
        {
            return now.checked_add(interval.max(SHORTEST_RETRY)).map_or(Next::Over, Next::Retry);
        }
        if job.repeats.is_some_and(|repeats| self.count.saturating_add(1) >= repeats) {
            return Next::Over;
        }
        // It was read before it was kept.
        let schedule = job.schedule.as_deref().and_then(|text| Schedule::parse(text).ok());
        match schedule.and_then(|schedule| schedule.next_from(self.due, now)) {
            Some(next) if expires.is_none_or(|expires| next <= expires) => Next::Due(next),
            _ => Next::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(schedule: &str, due_time: &str, ttl: &str, repeats: Option<u32>) -> Job {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Job {
            name: "job".to_owned(),
            schedule: given(schedule),
            due_time: given(due_time),
            ttl: given(ttl),
            repeats,
            ..Job::default()
        }
    }

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_000_000.0 + seconds)
    }

    #[test]
    fn first_due() {
        for (schedule, due_time, ttl, due, expires) in [
            ("@every 10s", "", "", 10.0, None),
            ("@every 10s", "3s", "", 3.0, None),
            ("", "0s", "", 0.0, None),
            ("", "PT1M", "", 60.0, None),
            ("", "1970-01-01T00:00:00Z", "", -1_000_000.0, None),
            ("@every 10s", "", "1m", 10.0, Some(60.0)),
            ("@every 10s", "3s", "1m", 3.0, Some(63.0)),
        ] {
            let plan = Plan::new(&job(schedule, due_time, ttl, None), at(0.0)).unwrap();
            assert_eq!(plan, Plan { due: at(due), expires: expires.map(at) }, "{schedule} {due_time} {ttl}");
        }
    }

    #[test]
    fn mistakes_name_their_field() {
        for (job, field) in [
            (job("", "", "", None), "schedule:"),
            (job("x", "", "", None), "schedule:"),
            (job("0 0 0 30 2 *", "", "", None), "schedule:"),
            (job("", "x", "", None), "dueTime:"),
            (job("", "R2/PT1S", "", None), "dueTime:"),
            (job("", "P9000Y", "", None), "dueTime:"),
            (job("@every 1s", "", "x", None), "ttl:"),
            (job("@every 1s", "1h", "1970-01-10T00:00:00Z", None), "ttl:"),
            (job("@every 1s", "", "1970-01-01T00:00:00Z", None), "ttl:"),
            (job("@every 1s", "", "0s", None), "ttl:"),
            (job("", "1s", "1m", None), "ttl:"),
            (job("", "1s", "", Some(2)), "repeats:"),
            (job("@every 1s", "", "", Some(0)), "repeats:"),
            (Job { name: String::new(), ..job("@every 1s", "", "", None) }, "name:"),
            (Job { name: "a\0b".to_owned(), ..job("@every 1s", "", "", None) }, "name:"),
            (Job { name: "n".repeat(513), ..job("@every 1s", "", "", None) }, "name:"),
        ] {
            match Plan::new(&job, at(0.0)) {
                Err(BlockError::Invalid { reason }) => assert!(reason.starts_with(field), "{field} {reason}"),
                other => panic!("{job:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_comes_next() {
        let constant = |interval: u64, max_retries| FailurePolicy::Constant {
            interval: Duration::from_secs(interval),
            max_retries,
        };
        let drop = FailurePolicy::Drop;
        let every = |repeats| job("@every 10s", "", "", repeats);
        let once = job("", "0s", "", None);
        for (job, policy, count, failures, done, now, expected) in [
            (once.clone(), drop, 0, 0, true, 0.1, Next::Over),
            (once.clone(), drop, 0, 0, false, 0.1, Next::Over),
            (once.clone(), constant(1, Some(3)), 0, 0, false, 0.5, Next::Retry(at(1.5))),
            (once.clone(), constant(1, Some(3)), 0, 3, false, 0.5, Next::Over),
            (once.clone(), constant(1, None), 0, 3_000_000, false, 0.5, Next::Retry(at(1.5))),
            (once.clone(), constant(0, None), 0, 0, false, 0.0, Next::Retry(at(0.001))),
            (once, constant(u64::MAX, None), 0, 0, false, 0.0, Next::Over),
            (every(None), drop, 0, 0, true, 0.1, Next::Due(at(10.0))),
            (every(None), drop, 0, 0, false, 0.1, Next::Due(at(10.0))),
            (every(None), drop, 0, 0, true, 10.0, Next::Due(at(20.0))),
            (every(None), drop, 0, 0, true, 3605.0, Next::Due(at(3610.0))),
            (every(Some(3)), drop, 1, 0, true, 0.1, Next::Due(at(10.0))),
            (every(Some(3)), drop, 2, 0, true, 0.1, Next::Over),
            (every(Some(3)), constant(1, Some(1)), 2, 0, false, 0.1, Next::Retry(at(1.1))),
            (every(Some(3)), constant(1, Some(1)), 1, 1, false, 0.1, Next::Due(at(10.0))),
            (every(None), drop, u32::MAX, 0, true, 0.1, Next::Due(at(10.0))),
        ] {
            let job = Job { failure_policy: policy, ..job };
            let progress = Progress { due: at(0.0), count, failures };
            assert_eq!(
                progress.next(&job, None, done, at(now)),
                expected,
                "{job:?} {count} {failures} {now}"
            );
        }
        let progress = Progress { due: at(0.0), count: 0, failures: 0 };
        for (expires, expected) in [(10.0, Next::Due(at(10.0))), (9.9, Next::Over)] {
            assert_eq!(progress.next(&every(None), Some(at(expires)), true, at(0.1)), expected, "{expires}");
        }
    }
}
