//! Health and numbers of a process that runs steps for others: a worker, the plugin beside Argo's agent, the agent.

use crate::Error;
use crate::up::{Optional, optional_address};
use dhow_api::management::Health;
use dhow_api::server::{Listener, Stop};
use dhow_argo::runner::Watched;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Requests under way have this long when the process ends.
const GRACE: Duration = Duration::from_secs(1);

/// Where whoever watches the process finds it.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct ManagementArgs {
    /// Answer /healthz, /readyz and /metrics here; port 0 lets the system choose [default: off]
    #[arg(long, value_name = "HOST:PORT|off", value_parser = optional_address, env = "DHOW_MANAGEMENT_ADDR")]
    management_addr: Option<Optional>,
}

/// Whoever watches is answered as long as it is there.
pub(crate) struct Management(Stop);

/// Stands for what is to be watched until that is there.
#[derive(Default)]
pub(crate) struct Later(OnceLock<Arc<dyn Watched>>);

// === impl Later ===

impl Later {
    /// It is there; only the first one counts.
    pub(crate) fn is(&self, watched: Arc<dyn Watched>) {
        let _ = self.0.set(watched);
    }
}

impl Watched for Later {
    fn readiness(&self) -> Result<(), String> {
        self.0.get().map_or_else(|| Err("waiting for NATS".to_owned()), |watched| watched.readiness())
    }

    fn metrics(&self) -> String {
        self.0.get().map(|watched| watched.metrics()).unwrap_or_default()
    }
}

// === impl ManagementArgs ===

impl ManagementArgs {
    /// Begins to answer, if somebody is to watch. Within a runtime.
    pub(crate) fn serve(self, watched: Arc<dyn Watched>) -> Result<Management, Error> {
        let stop = Stop::default();
        if let Some(Optional(Some(address))) = self.management_addr {
            let listener = Listener::tcp(address).map_err(|error| Error::new(error.to_string()))?;
            let address = listener.address().unwrap_or(address);
            let counted = Arc::clone(&watched);
            let health = Health {
                readiness: Box::new(move || watched.readiness()),
                metrics: Box::new(move || counted.metrics()),
            };
            tokio::spawn(listener.serve(Arc::new(health), stop.clone(), GRACE));
            crate::say(format_args!("Health and metrics: http://{address}/metrics"));
        }
        Ok(Management(stop))
    }
}

impl Drop for Management {
    fn drop(&mut self) {
        self.0.stop();
    }
}
