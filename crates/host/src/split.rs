//! Two versions of one app that share its invocations while the newer one is tried: by weight, by a header, or both.

use crate::app::App;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shares are counted in parts of this.
pub const WHOLE: u32 = 10_000;

/// Which invocations the newer version gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Of 10,000 invocations, so many; 0 to 10,000.
    pub weight: u32,
    /// All with this header.
    pub header: Option<(HeaderName, HeaderValue)>,
}

/// A version that is tried beside the one that the table has.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) candidate: Arc<App>,
    share: Share,
    /// Counts the invocations without the header.
    turn: AtomicU64,
}

// === impl Split ===

impl Split {
    pub(crate) fn new(candidate: Arc<App>, share: Share) -> Split {
        Split { candidate, share, turn: AtomicU64::new(0) }
    }

    /// Whether the newer version gets an invocation with these headers.
    pub(crate) fn takes(&self, headers: &HeaderMap) -> bool {
        if let Some((name, value)) = &self.share.header
            && headers.get_all(name).iter().any(|found| found == value)
        {
            return true;
        }
        self.share.weight > 0 && is_turn(self.share.weight, self.turn.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether the invocation of this number goes to a version of this weight: exact over 10,000, and even within.
fn is_turn(weight: u32, number: u64) -> bool {
    let (whole, weight) = (u64::from(WHOLE), u64::from(weight));
    (number % whole) * weight % whole < weight
}

#[cfg(test)]
mod tests {
    use super::{WHOLE, is_turn};

    #[test]
    fn shares_are_exact_and_even() {
        for weight in [0, 1, 50, 1000, 3333, 5000, 9999, WHOLE] {
            let taken: Vec<u64> = (0..u64::from(WHOLE)).filter(|number| is_turn(weight, *number)).collect();
            assert_eq!(taken.len(), weight as usize);
            let widest = taken.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(1);
            assert!(weight == 0 || widest <= u64::from(WHOLE / weight) + 1, "{weight}: {widest}");
        }
    }
}
