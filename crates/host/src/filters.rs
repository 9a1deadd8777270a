//! Filters: proxy-wasm apps that stand before another app, in a chain.
//!
//! The chain is resolved when the apps of a host are replaced, so a request looks nothing up. An app whose filters are
//! not all there answers nothing: a filter may be what keeps others out.

use crate::app::{Admitted, App};
use arc_swap::ArcSwapOption;
use dhow_blocks::invoke::{Invocation, InvokeError, Reply, Trigger};
use dhow_guest::{Failure, Passed, Passing};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The filters before one app.
#[derive(Default)]
pub(crate) struct Filters {
    names: Vec<String>,
    /// In the order of the request; none until all are known.
    chain: ArcSwapOption<Vec<Arc<App>>>,
}

// === impl Filters ===

impl Filters {
    pub(crate) fn new(names: Vec<String>) -> Filters {
        Filters { names, chain: ArcSwapOption::empty() }
    }

    /// Finds the filters among the apps of a host.
    pub(crate) fn resolve(&self, apps: &BTreeMap<Arc<str>, Arc<App>>) {
        if self.names.is_empty() {
            return;
        }
        let found =
            self.names.iter().map(|name| apps.get(name.as_str()).filter(|app| app.is_filter()).cloned());
        self.chain.store(found.collect::<Option<Vec<_>>>().map(Arc::new));
    }

    /// Whether what this starts passes filters: requests do, the host's own events do not.
    pub(crate) fn concern(&self, trigger: Trigger) -> bool {
        !self.names.is_empty() && matches!(trigger, Trigger::Http | Trigger::App | Trigger::Command)
    }
}

impl App {
    /// Whether it can stand before another app.
    pub fn is_filter(&self) -> bool {
        self.module().is_some_and(|module| module.program.inspection.abi == dhow_engine::Abi::ProxyWasm)
    }

    /// Delivers an invocation through all filters, and its reply back through them.
    pub(crate) async fn invoke_filtered(
        &self,
        mut invocation: Invocation,
        admitted: Admitted,
    ) -> Result<Reply, InvokeError> {
        let chain = self.filters.chain.load_full();
        let chain = chain.ok_or_else(|| self.not_loadable("a filter before it is not here".to_owned()))?;
        let mut passed: Vec<(&Arc<App>, Passing)> = Vec::with_capacity(chain.len());
        let mut filters = chain.iter();
        let mut reply = loop {
            let Some(filter) = filters.next() else {
                break self.deliver(invocation, admitted).await?;
            };
            match filter.pass(invocation).await? {
                Passed::On(next, passing) => {
                    invocation = next;
                    passed.push((filter, passing));
                }
                Passed::Answered(reply) => break reply.map(|body| body.until_ended(admitted)),
            }
        };
        for (filter, passing) in passed.into_iter().rev() {
            let answer = passing.response(reply).await;
            reply = answer.map_err(|failure| match failure {
                // Counted and told where it happened.
                Failure::Behind(own) => self.error(*own),
                failure => filter.failed(failure),
            })?;
        }
        Ok(reply)
    }

    async fn pass(&self, invocation: Invocation) -> Result<Passed, InvokeError> {
        let Some(module) = self.module() else {
            return Err(self.not_loadable("it is no module".to_owned()));
        };
        self.permits(Trigger::App)?;
        let guest = self.guest(module).await?;
        self.metrics.invocations.inc();
        self.last_used.store(self.born.elapsed().as_secs(), Ordering::Relaxed);
        match guest.pass(invocation).await {
            Some(passed) => passed.map_err(|failure| self.failed(failure)),
            None => Err(self.not_loadable("it is no proxy-wasm module".to_owned())),
        }
    }

    fn failed(&self, failure: Failure) -> InvokeError {
        self.metrics.failures.inc();
        tracing::error!(app_id = &*self.app_id, version = self.version, "filter failed: {failure}");
        self.error(failure)
    }
}
