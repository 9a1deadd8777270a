//! Steps run by other machines: a queue in NATS JetStream between those who begin steps and those who run them.
//!
//! | file | subject |
//! |---|---|
//! | `connection` | the server, its streams, patience with it |
//! | [`message`] | what is sent: a step, and its end |
//! | `results` | ends of steps: the first one counts |
//! | `contents` | files and folders in the stream, by their digests |
//! | `idle` | whether the steps are taken, and what to do if not |
//! | `exchange` | artifacts of a step, in and out |
//! | [`submit`] | hands steps over and waits for their ends |
//! | [`awaited`](Awaited) | the same for a server that is not there yet |
//! | [`worker`] | takes steps from the queue |
//! | `attempt` | one step that was taken |
//!
//! Three streams. `DHOW_STEPS` is a work queue with one subject a step, so a step is in it once. A worker holds a step by
//! telling the server, again and again, that it is at work; when it falls silent the server gives the step to another
//! one. `DHOW_RESULTS` has one subject a step, too, and the server takes the first message of a subject only: whatever
//! a worker does that was thought dead, a step ends once. The step leaves the queue after its end is in the stream.
//! `DHOW_ARTIFACTS` holds modules and artifacts in chunks, named by the digest of what they are: no attempt can spoil
//! what another one left. Which of them a key of the repository means is said by the submitter, of the end that counts.
//!
//! A submitter that is killed loses nothing: a step's name in the queue comes of the workflow's uid and its own name, so
//! asking again finds the step, or its end.
//!
//! Nothing secret is in a message: a worker reaches registries, repositories and building blocks with what its own
//! configuration says.

mod attempt;
mod awaited;
mod connection;
mod contents;
mod exchange;
mod idle;
pub mod message;
mod results;
pub mod submit;
pub mod worker;

pub use awaited::Awaited;
pub use connection::{Address, Connection, PATIENCE, Queue, WorkersError};
pub use submit::{Remote, RemoteOptions};
pub use worker::{Worker, WorkerOptions};

/// How long a worker may be silent until its steps are begun elsewhere, unless it says otherwise.
pub const LEASE: std::time::Duration = std::time::Duration::from_secs(15);
