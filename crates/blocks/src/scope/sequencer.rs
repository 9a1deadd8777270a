//! A sequencer as one app sees it: keys with the app's prefix, and ids taken from the store in segments.

use super::{Block, Bound, Scope, ScopeError, UseError, find};
use crate::error::BlockError;
use crate::grants::Ask;
use crate::sequencer::Sequencer;
use futures::lock::Mutex as TurnMutex;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Ids that are taken from the store at once where gaps do not matter (Layotto's number).
const SEGMENT: u32 = 10_000;

/// Keys whose segments are kept; with more of them, those in hand are given up.
const MAX_SEGMENTS: usize = 10_000;

/// What stands before every key (Layotto's spelling, so that both may use one store).
const KIND: &str = "sequencer|||";

/// A sequencer as one app sees it.
#[derive(Clone, Debug)]
pub struct SequencerBinding {
    /// The provider.
    pub bound: Bound<dyn Sequencer>,
    /// What stands before every key of this app, e.g. `orders||`.
    pub prefix: Arc<str>,
    /// `biggerThan`: numbers that the ids of some keys have to exceed, by the key as the app or as the store has it.
    pub floors: Arc<BTreeMap<String, i64>>,
    /// Ids in hand.
    segments: Arc<Segments>,
}

/// How ids grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Increment {
    /// Fast: each host takes ids from segments of its own, so that those of several hosts are mixed, and a restart
    /// leaves a gap.
    Weak,
    /// Each id is greater than all before, and there are no gaps.
    Strong,
}

/// Ids in hand, by key.
#[derive(Debug, Default)]
struct Segments(Mutex<HashMap<String, Arc<TurnMutex<Segment>>>>);

/// The next id in hand, and the first one that is not.
#[derive(Debug, Default)]
struct Segment {
    next: i64,
    end: i64,
}

// === impl SequencerBinding ===

impl SequencerBinding {
    /// No ids are in hand yet.
    pub fn new(
        bound: Bound<dyn Sequencer>,
        prefix: Arc<str>,
        floors: BTreeMap<String, i64>,
    ) -> SequencerBinding {
        SequencerBinding { bound, prefix, floors: Arc::new(floors), segments: Arc::default() }
    }

    async fn next(&self, key: &str, increment: Increment) -> Result<i64, BlockError> {
        let stored = format!("{KIND}{}{key}", self.prefix);
        let floor = self.floors.get(key).or_else(|| self.floors.get(&stored)).copied().unwrap_or(0);
        let provider = &self.bound.provider;
        let reserve = async |count| {
            let stored = stored.as_str();
            self.bound.call("next_id", (), |()| provider.reserve(stored, count, floor)).await
        };
        if increment == Increment::Strong {
            return reserve(1).await;
        }
        let segment = self.segments.of(&stored);
        // Whoever finds the segment at its end fetches the next one; the others wait for it.
        let mut segment = segment.lock().await;
        if segment.next == segment.end {
            let first = reserve(SEGMENT).await?;
            *segment = Segment { next: first, end: first.saturating_add(SEGMENT.into()) };
        }
        segment.next += 1;
        Ok(segment.next - 1)
    }
}

// === impl Segments ===

impl Segments {
    fn of(&self, key: &str) -> Arc<TurnMutex<Segment>> {
        let mut segments = self.0.lock();
        if let Some(segment) = segments.get(key) {
            return Arc::clone(segment);
        }
        if segments.len() >= MAX_SEGMENTS {
            segments.clear();
        }
        Arc::clone(segments.entry(key.to_owned()).or_default())
    }
}

// === impl Scope ===

impl Scope {
    /// The next id of a key.
    pub async fn next_id(&self, store: &str, key: &str, increment: Increment) -> Result<i64, UseError> {
        let sequencer = find(&self.components.sequencers, Block::Sequencer, store)?;
        self.check(Ask::Sequencer(store)).map_err(ScopeError::from)?;
        Ok(sequencer.next(key, increment).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::ComponentInfo;
    use async_trait::async_trait;

    /// Counts what is asked of it.
    #[derive(Default)]
    struct Counter(Mutex<(i64, usize)>);

    #[async_trait]
    impl Sequencer for Counter {
        async fn reserve(&self, _: &str, count: u32, floor: i64) -> Result<i64, BlockError> {
            let mut counter = self.0.lock();
            let first = counter.0.max(floor) + 1;
            *counter = (first + i64::from(count) - 1, counter.1 + 1);
            Ok(first)
        }
    }

    fn binding(floors: &[(&str, i64)]) -> (SequencerBinding, Arc<Counter>) {
        let counter = Arc::new(Counter::default());
        let bound = Bound::bare(Arc::clone(&counter) as Arc<dyn Sequencer>, ComponentInfo::default());
        let floors = floors.iter().map(|(key, floor)| ((*key).to_owned(), *floor)).collect();
        (SequencerBinding::new(bound, "shop||".into(), floors), counter)
    }

    #[tokio::test]
    async fn weak_ids_come_from_segments_and_strong_ones_from_the_store() {
        let (binding, counter) = binding(&[]);
        for expected in 1..=i64::from(SEGMENT) + 1 {
            assert_eq!(binding.next("order", Increment::Weak).await, Ok(expected));
        }
        assert_eq!(counter.0.lock().1, 2, "requests");
        let strong = binding.next("order", Increment::Strong).await;
        assert_eq!(strong, Ok(2 * i64::from(SEGMENT) + 1));
        assert_eq!(counter.0.lock().1, 3, "requests");
    }

    #[tokio::test]
    async fn ids_exceed_their_floor() {
        for key in ["order", "sequencer|||shop||order"] {
            let (binding, _) = binding(&[(key, 2000)]);
            assert_eq!(binding.next("order", Increment::Strong).await, Ok(2001), "{key}");
            assert_eq!(binding.next("order", Increment::Strong).await, Ok(2002), "{key}");
        }
    }
}
