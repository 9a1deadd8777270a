//! The sequencer block: ids that only grow, each given to one caller, across processes.

use crate::error::BlockError;
use async_trait::async_trait;

/// Most ids that are reserved at once.
pub const MAX_COUNT: u32 = 1_000_000;

/// A provider of ids. Keys are already scoped to an app; each has a sequence of its own, which begins at 1.
#[async_trait]
pub trait Sequencer: Send + Sync + 'static {
    /// Reserves `count` ids that follow each other, 1 to [`MAX_COUNT`], and returns the first. They are greater than
    /// `floor` and than every id of the key before, and follow the last of these without a gap where `floor` leaves
    /// none. The end of the numbers is [`BlockError::Failed`].
    async fn reserve(&self, key: &str, count: u32, floor: i64) -> Result<i64, BlockError>;

    /// Lets go of files and connections.
    async fn close(&self) {}
}

/// What is said when no number is left.
pub fn exhausted() -> BlockError {
    BlockError::failed("the sequence has no numbers left: it is at the largest that 64 bits hold")
}
