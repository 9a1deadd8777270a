//! How an invocation can fail, and how an app can fail to load.

use dhow_blocks::invoke::BodyError;
use http::StatusCode;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// Why a guest did not answer. What it answers, 500 included, is not a failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// It trapped, or broke the component model's rules.
    #[error("{message}")]
    Trap {
        /// The trap, and the limit that it came from if one was reached.
        message: String,
        /// Where in the guest, frame by frame; for logs only.
        backtrace: String,
    },
    /// It ended the whole program where it should have answered.
    #[error("it exited with code {0} instead of answering")]
    Exit(i32),
    /// It returned without answering.
    #[error("it returned without setting a response")]
    NoAnswer,
    /// It answered with an error of its own interface instead of a response.
    #[error("it answered with an error: {0}")]
    ErrorAnswer(String),
    /// It paused a stream, and nothing that could let it go on is under way.
    #[error("it paused the request and waits for nothing that could let it go on")]
    Paused,
    /// It did not finish in time.
    #[error("it did not finish within {0:?}")]
    Deadline(std::time::Duration),
    /// The request has more bytes than the app accepts.
    #[error("the request body has more than the {0} bytes allowed")]
    RequestTooLarge(u64),
    /// The response has more bytes than the app may send.
    #[error("its response body has more than the {0} bytes allowed")]
    ResponseTooLarge(u64),
    /// All instances that the engine reserved are in use.
    #[error("all instances of the host are in use: {0}")]
    NoRoom(String),
    /// The app behind a filter broke off its response.
    #[error("the response body ended early: {0}")]
    Behind(Box<Failure>),
    /// The host could not do its part.
    #[error("the host failed: {0}")]
    Host(String),
}

/// Why an app cannot be run at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// It speaks an ABI that no room of this crate serves.
    #[error("{0}")]
    Abi(String),
    /// It imports something that nobody provides.
    #[error("it imports {import}, which {hint}")]
    UnknownImport {
        /// The import as the module names it.
        import: String,
        /// What would provide it.
        hint: &'static str,
    },
    /// Its imports or exports have other types than the interface they name.
    #[error("its imports do not fit: {0}")]
    Mismatch(String),
}

// === impl Failure ===

impl Failure {
    /// An answer with a status of 1xx, after which another answer would have to come.
    pub(crate) fn informational(status: StatusCode) -> Failure {
        Failure::ErrorAnswer(format!("the status {status}, which ends no request"))
    }

    /// Reads an error that came out of running a guest. `refused` is the limit it ran into, if any.
    pub(crate) fn of(error: &wasmtime::Error, refused: Option<&'static str>) -> Failure {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Failure::Exit(exit.0);
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Failure::NoRoom(error.to_string());
        }
        let cause = match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => "wasm trap: call stack exhausted".to_owned(),
            Some(trap) => trap.to_string(),
            None if is_full(error) => "it has more handles open than it may".to_owned(),
            None => error.root_cause().to_string(),
        };
        let message = match refused {
            Some(limit) => format!("{cause} (after it reached {limit})"),
            None => cause,
        };
        let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
        Failure::Trap { message, backtrace }
    }
}

impl From<wasmtime_wasi_http::Error> for Failure {
    fn from(error: wasmtime_wasi_http::Error) -> Failure {
        BodyError::from(error).into()
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Failure {
        match error.downcast() {
            Ok(failure) => *failure,
            Err(error) => Failure::Trap { message: error.to_string(), backtrace: String::new() },
        }
    }
}

/// Whether the guest wanted one more resource than its limit of handles.
fn is_full(error: &wasmtime::Error) -> bool {
    matches!(error.downcast_ref(), Some(ResourceTableError::Full))
}
