//! What a guest does without a request: ticks, queues.
//!
//! One instance of an app is there for it, as long as the app is registered and the guest wants to be called. It serves
//! no requests, so that neither waits for the other.

use super::Proxy;
use super::callbacks::On;
use super::instance::{Come, Instance};
use super::shared::Wake;
use super::state::ROOT;
use crate::failure::Failure;
use crate::store::Origin;
use std::sync::Arc;
use std::time::Duration;

/// A guest that fails gets a new instance after this long, and after twice as long each time that it fails again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Proxy {
    /// Calls the guest by itself until it wants no more calls.
    pub(crate) async fn tend(self: Arc<Self>) {
        if !self.exports.has(On::Tick) && !self.exports.has(On::QueueReady) {
            return;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let mut went_well = false;
            match self.attend(&mut went_well).await {
                Ok(()) => return,
                Err(failure) => self.tell(&failure),
            }
            pause = if went_well { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            // Hosts that began together need not fail together.
            tokio::time::sleep(pause.mul_f64(fastrand::f64().mul_add(0.5, 0.75))).await;
        }
    }

    async fn attend(&self, went_well: &mut bool) -> Result<(), Failure> {
        let wake = Arc::new(Wake::default());
        let started = Instance::start(self, Origin::default(), Some(Arc::clone(&wake)));
        let mut instance = self.bounded(started).await?;
        let hears_queues = instance.has(On::QueueReady);
        loop {
            enum Next {
                Come(Come),
                Queue(u32),
            }
            let next = tokio::select! {
                Some(come) = instance.next() => Next::Come(come),
                queue = wake.queue(), if hears_queues && wake.is_used() => Next::Queue(queue),
                else => return Ok(()),
            };
            match next {
                Next::Come(come) => self.bounded(instance.deliver(come)).await?,
                Next::Queue(queue) => {
                    instance.data().effective = ROOT;
                    self.bounded(instance.call(On::QueueReady, [ROOT, queue, 0, 0, 0])).await?;
                }
            }
            *went_well = true;
        }
    }

    /// Under the app's deadline, and interrupted where it computes.
    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let _running = self.engine.running();
        let deadline = self.setup.bounds.deadline;
        tokio::time::timeout(deadline, work).await.map_err(|_| Failure::Deadline(deadline))?
    }
}
