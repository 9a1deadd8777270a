//! What an app is given when it runs.

use crate::proxy::shared::Vm;
use dhow_blocks::invoke::RuntimeApi;
use dhow_blocks::scope::Scope;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything about an app that its guests need; the same for all invocations.
pub struct Setup {
    /// Identity, grants, blocks.
    pub scope: Arc<Scope>,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Folders that the guest sees.
    pub dirs: Vec<Directory>,
    /// How much of everything.
    pub bounds: Bounds,
    /// Invocations that one instance may serve; 1 means a fresh instance each time. None: as the ABI has it, which is 1
    /// for all but proxy-wasm and waPC, whose instances live long.
    pub reuse: Option<u32>,
    /// Where lines go that the guest prints or logs.
    pub output: Arc<dyn Output>,
    /// Numbers that the guests keep by themselves.
    pub meters: Arc<dyn Meters>,
    /// What proxy-wasm guests share with others of their VM.
    pub vm: Arc<Vm>,
    /// Where capabilities of a waPC module lead to.
    pub bindings: Vec<CapabilityBinding>,
    /// What answers at the app's own Dapr endpoint.
    pub runtime_api: Option<Arc<dyn RuntimeApi>>,
    /// `host:port` under which the guest knows its Dapr endpoint, with `https://` before it if it is asked so; requests
    /// there never leave the process.
    pub runtime_authorities: Vec<String>,
    /// What the names led to that its guests asked for.
    pub names: crate::Names,
    /// Sends the guest's other HTTP requests.
    pub client: Arc<crate::HttpClient>,
}

/// A folder of the host, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub host: PathBuf,
    /// Where the guest finds it.
    pub guest: String,
    /// The guest may change it.
    pub writable: bool,
}

/// What a capability of a waPC module leads to. A capability may have several, told apart by name.
#[derive(Clone, PartialEq, Eq)]
pub struct CapabilityBinding {
    /// Short name of the capability: `keyvalue`, `messaging`, `blobstore`, `eventstreams`, `httpserver`, …; `actor` of
    /// another app.
    pub capability: String,
    /// Name of the binding.
    pub name: String,
    /// The component; none for the usual one.
    pub component: Option<String>,
    /// Values of the binding. Not shown by `Debug`.
    pub values: BTreeMap<String, String>,
}

/// Longer than any program runs.
pub const UNLIMITED: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Bounds of one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Memory, tables, instances.
    pub engine: dhow_engine::Limits,
    /// From the beginning of an invocation to the last byte of its response.
    pub deadline: Duration,
    /// From the start of a program to its exit, when it is run as one; invoked, it has `deadline`.
    pub program: Duration,
    /// Bytes of a request body.
    pub request_body: u64,
    /// Bytes of a response body.
    pub response_body: u64,
    /// Outgoing requests that may be under way at once.
    pub host_calls: usize,
    /// Open resources: streams, requests, files, buckets, …
    pub handles: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            engine: dhow_engine::Limits::default(),
            deadline: Duration::from_secs(30),
            program: UNLIMITED,
            request_body: 16 << 20,
            response_body: 64 << 20,
            host_calls: 64,
            handles: 10_000,
        }
    }
}

/// Severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Finest detail.
    Trace,
    /// For developers.
    Debug,
    /// Normal operation; also everything printed to stdout.
    Info,
    /// Something to look at.
    Warn,
    /// A failure.
    Error,
}

/// Which way a line came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// `wasi:logging`.
    Log(Level),
}

/// Takes the lines that guests print and log.
pub trait Output: Send + Sync + 'static {
    /// One line, without its end.
    fn line(&self, app_id: &str, stream: Stream, line: &str);

    /// What a program wrote to a standard stream, exactly, in pieces of any size; for those who keep it whole. The same
    /// arrives as lines, too.
    fn written(&self, _: Stream, _: &[u8]) {}
}

/// Keeps the numbers that one app's guests define themselves, bounded in how many.
pub trait Meters: Send + Sync + 'static {
    /// The metric of that name, made if it is not there; none if there are too many, or it is of another kind.
    fn define(&self, kind: MeterKind, name: &str) -> Option<u32>;

    /// Adds to a counter, sets a gauge, or observes a value.
    fn record(&self, id: u32, value: u64) -> Result<(), MeterError>;

    /// Adds to a counter or a gauge; a counter only grows.
    fn increment(&self, id: u32, by: i64) -> Result<(), MeterError>;

    /// The value of a counter or a gauge.
    fn value(&self, id: u32) -> Result<u64, MeterError>;
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How values are spread.
    Histogram,
}

/// Why a metric was not changed or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterError {
    /// There is none of that number.
    Unknown,
    /// A metric of that kind cannot do this.
    Kind,
}

/// Where the standard streams of a command lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// To those of this process.
    Inherit,
    /// Output to [`Output`], input empty.
    Lines,
}

impl fmt::Debug for CapabilityBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secret: names only.
        f.debug_struct("CapabilityBinding")
            .field("capability", &self.capability)
            .field("name", &self.name)
            .field("component", &self.component)
            .field("values", &self.values.keys().collect::<Vec<_>>())
            .finish()
    }
}
