//! Several apps under one id, which share its invocations by weight.

use crate::app::App;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which apps stand behind which id; never changed, only replaced.
#[derive(Debug, Default)]
pub(crate) struct Groups(HashMap<String, Group>);

#[derive(Debug, Default)]
struct Group {
    members: Vec<(u32, Arc<App>)>,
    /// Counts the invocations.
    turn: AtomicU64,
}

// === impl Groups ===

impl Groups {
    /// One more app of this id, for `weight` of the invocations in a round; at least one.
    pub(crate) fn add(&mut self, id: &str, weight: u32, app: Arc<App>) {
        self.0.entry(id.to_owned()).or_default().members.push((weight.max(1), app));
    }

    /// The app whose turn it is.
    pub(crate) fn pick(&self, id: &str) -> Option<Arc<App>> {
        let group = self.0.get(id)?;
        match group.members.as_slice() {
            [(_, only)] => Some(Arc::clone(only)),
            members => {
                let weights: Vec<u32> = members.iter().map(|(weight, _)| *weight).collect();
                let member = turn(&weights, group.turn.fetch_add(1, Ordering::Relaxed))?;
                members.get(member).map(|(_, app)| Arc::clone(app))
            }
        }
    }
}

/// Whose turn is the one of this number: exact over each round, and as even within it as a stride that has no factor in
/// common with the round makes it.
fn turn(weights: &[u32], number: u64) -> Option<usize> {
    let round: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let stride = (round / 2 + 1..).find(|stride| greatest_common_divisor(*stride, round) == 1)?;
    let mut place = (u128::from(number) * u128::from(stride) % u128::from(round.max(1))) as u64;
    weights.iter().position(|weight| {
        let is_theirs = place < u64::from(*weight);
        place = place.saturating_sub(u64::from(*weight));
        is_theirs
    })
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::turn;

    #[test]
    fn turns_are_shared_by_weight() {
        for weights in [&[1][..], &[1, 1], &[9, 1], &[1, 2, 3], &[7, 7, 7], &[1, u32::MAX]] {
            let round: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut counts = vec![0_u64; weights.len()];
            let looked_at = round.min(10_000);
            for number in 0..looked_at {
                counts[turn(weights, number).unwrap()] += 1;
            }
            if looked_at == round {
                let expected: Vec<u64> = weights.iter().map(|weight| u64::from(*weight)).collect();
                assert_eq!(counts, expected);
            }
        }
        let order: Vec<usize> = (0..6).filter_map(|number| turn(&[3, 3], number)).collect();
        assert_eq!(order.iter().filter(|member| **member == 0).count(), 3);
        assert_ne!(order, [0, 0, 0, 1, 1, 1], "nobody has all turns in a row");
        assert_eq!(turn(&[], 0), None);
    }
}
