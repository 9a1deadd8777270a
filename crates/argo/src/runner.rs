//! Where steps run: in this process, or on other machines.
//!
//! Whoever begins steps (a workflow that is run here, the plugin beside Argo's agent) holds one of these and does not
//! know which: [`step::Executor`](crate::step::Executor) runs them here, [`workers::Remote`](crate::workers::Remote)
//! hands them to whoever joined.

use crate::controller::{Identity, Start};
use crate::metrics::StepMetrics;
use crate::node::{Outcome, Time};
use crate::step::Executor;
use async_trait::async_trait;
use std::sync::Arc;

/// Runs steps.
#[async_trait]
pub trait StepRunner: Watched {
    /// Runs a step to its end. `now` is the moment at which it is begun. Dropping the future ends a step of this
    /// process; one of another machine goes on, and its end is found by whoever asks for the same step again.
    async fn run(&self, workflow: &Identity, start: &Start, now: Time) -> Outcome;

    /// Ends a step that nobody will ask for again, wherever it runs. Takes seconds at most; what cannot be reached
    /// then is told later, or finds out by itself.
    async fn cancel(&self, workflow: &Identity, step: &str);
}

/// What an operator sees of whatever runs steps.
pub trait Watched: Send + Sync {
    /// Whether a step that is begun now runs soon, else why not.
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }

    /// Numbers for Prometheus, as its text format has them.
    fn metrics(&self) -> String {
        String::new()
    }
}

/// Counts the steps of another one.
pub struct Counted {
    runner: Arc<dyn StepRunner>,
    steps: StepMetrics,
}

#[async_trait]
impl StepRunner for Executor {
    async fn run(&self, workflow: &Identity, start: &Start, now: Time) -> Outcome {
        Executor::run(self, workflow, start, now).await
    }

    /// Whoever drops the future has ended it.
    async fn cancel(&self, _: &Identity, _: &str) {}
}

impl Watched for Executor {
    fn metrics(&self) -> String {
        self.host_metrics()
    }
}

// === impl Counted ===

impl Counted {
    /// Nothing is counted yet.
    pub fn new(runner: Arc<dyn StepRunner>) -> Result<Counted, String> {
        let steps = StepMetrics::new().map_err(|error| format!("metrics: {error}"))?;
        Ok(Counted { runner, steps })
    }
}

#[async_trait]
impl StepRunner for Counted {
    async fn run(&self, workflow: &Identity, start: &Start, now: Time) -> Outcome {
        self.steps.observe(&workflow.name, &start.name, self.runner.run(workflow, start, now)).await
    }

    async fn cancel(&self, workflow: &Identity, step: &str) {
        self.runner.cancel(workflow, step).await;
    }
}

impl Watched for Counted {
    fn readiness(&self) -> Result<(), String> {
        self.runner.readiness()
    }

    fn metrics(&self) -> String {
        format!("{}{}", self.steps.render(), self.runner.metrics())
    }
}
