//! How a command ends when it fails: what happened, why, and the exit code.
//!
//! Libraries have an error type a subject; here all of them become text for a person, once.

use crate::logging;
use dhow_blocks::invoke::InvokeError;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::process::ExitCode;
use tracing::Level;

/// A command failed.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong; clap uses the same.
pub(crate) const USAGE: u8 = 2;
/// The guest did not finish in time; `timeout` of GNU coreutils uses the same.
pub(crate) const DEADLINE: u8 = 124;
/// The guest did not even start; `timeout` and `docker run` use the same.
pub(crate) const BEFORE_GUEST: u8 = 125;

/// Why a command ends without success. Deliberately no [`StdError`] itself, so that `?` turns every error
/// of a library into one.
#[derive(Debug)]
pub(crate) struct Error {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    code: u8,
}

/// Adds to an error what was being done.
pub(crate) trait Context<T> {
    /// The message stands before the cause.
    fn context(self, message: impl FnOnce() -> String) -> Result<T, Error>;
}

// === impl Error ===

impl Error {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), source: None, code: FAILURE }
    }

    /// The user asked for something that cannot be: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Error {
        Error::new(message).with_code(USAGE)
    }

    /// The guest could not be started: exit code 125.
    pub(crate) fn before_guest(message: impl Into<String>) -> Error {
        Error::new(message).with_code(BEFORE_GUEST)
    }

    /// A failure before any guest was started: exit code 125, unless it has another one.
    pub(crate) fn too_early(self) -> Error {
        Error { code: if self.code == FAILURE { BEFORE_GUEST } else { self.code }, ..self }
    }

    /// The guest failed: exit code 124 if its time was up, 125 if it never ran, else 1.
    pub(crate) fn invocation(error: &InvokeError) -> Error {
        let code = match error {
            InvokeError::DeadlineExceeded { .. } => DEADLINE,
            InvokeError::NotLoadable { .. } => BEFORE_GUEST,
            _ => FAILURE,
        };
        Error::new(error.to_string()).with_code(code)
    }

    /// Another exit code.
    pub(crate) fn with_code(self, code: u8) -> Error {
        Error { code, ..self }
    }

    /// Tells the user on standard error; the answer is what the process ends with.
    pub(crate) fn report(&self) -> ExitCode {
        // Whoever reads our output had enough of it (`dhow logs | head`): that is no failure.
        if self.message.is_empty() && self.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        logging::tell(Level::ERROR, &format_args!("dhow: error: {self}"), self);
        ExitCode::from(self.code)
    }

    fn is_closed_pipe(&self) -> bool {
        let error = self.source.as_deref().and_then(|source| source.downcast_ref::<io::Error>());
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut said = self.message.clone();
        let mut cause: Option<&dyn StdError> = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors already have their cause in their own text.
            if !said.contains(&text) {
                if !said.is_empty() {
                    f.write_str("\n  because: ")?;
                }
                f.write_str(&text)?;
                said.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        Error { message: String::new(), source: Some(Box::new(error)), code: FAILURE }
    }
}

// === impl Context ===

impl<T, E: StdError + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error { message: message(), source: Some(Box::new(error)), code: FAILURE })
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Error};
    use std::io;

    #[test]
    fn causes_are_told_once() {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        let cases = [
            (Error::new("it is so"), "it is so"),
            (Error::from(missing()), "no such file"),
            (
                Err::<(), _>(missing()).context(|| "cannot read a".into()).unwrap_err(),
                "cannot read a\n  because: no such file",
            ),
            (Err::<(), _>(missing()).context(|| "a: no such file".into()).unwrap_err(), "a: no such file"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(Error::from(pipe()).is_closed_pipe());
        assert!(!Error::from(missing()).is_closed_pipe());
    }
}
