//! What goes through the queue: a step to be run, and how it ended. JSON; whoever reads a version that it does not know
//! says so and does nothing.

use crate::controller::Identity;
use crate::model::Template;
use crate::node::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of both messages.
pub const VERSION: u32 = 1;

/// A step to be run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// [`VERSION`].
    pub version: u32,
    /// Of which workflow.
    pub workflow: Identity,
    /// The step's name.
    pub step: String,
    /// Under what its artifacts are kept.
    pub pod: String,
    /// Everything that it is, all tags replaced.
    pub template: Template,
    /// Milliseconds that it may take; counted anew by each attempt, for clocks differ.
    pub limit: Option<u64>,
    /// The module, where it is no worker's business where it came from: a file of the submitter.
    pub module: Option<Module>,
    /// Where its artifacts are.
    pub artifacts: Artifacts,
}

/// Where the artifacts of a step are.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Artifacts {
    /// In the stream: what each key of the inputs means. A key that is not here means nothing.
    Stream(BTreeMap<String, Content>),
    /// In a repository that the worker was told of when it was started.
    Repository,
}

/// A module in the stream.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Module {
    /// What it was called; one name, without slashes.
    pub name: String,
    /// Its bytes.
    pub content: Content,
}

/// A file or folder in the stream.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// BLAKE3 of its bytes, in hexadecimal digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of each chunk but the last.
    pub chunk: u32,
    /// The bytes are a tar archive of a folder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_folder: bool,
}

/// How a step ended.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// [`VERSION`].
    pub version: u32,
    /// Which attempt's it is; different for each.
    pub attempt: String,
    /// Whose.
    pub worker: String,
    /// What became of the step; none: nobody wants it any more.
    pub outcome: Option<Outcome>,
    /// What the keys of its outputs mean.
    #[serde(default)]
    pub contents: BTreeMap<String, Content>,
    /// The end of its log.
    #[serde(default)]
    pub log: String,
}

/// The name of a step in the queue: the same whenever the same step of the same workflow is asked for.
pub fn step_id(workflow: &Identity, step: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&workflow.uid, &workflow.namespace, &workflow.name, step] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let mut id = hasher.finalize().to_hex().to_string();
    id.truncate(32);
    id
}

/// Who tried, and when: different for each attempt.
pub(super) fn attempt_id() -> String {
    format!("{:08x}", fastrand::u32(..))
}

pub(super) fn step_subject(id: &str) -> String {
    format!("dhow.steps.{id}")
}

pub(super) fn result_subject(id: &str) -> String {
    format!("dhow.results.{id}")
}

/// Not kept: says that there is a result.
pub(super) fn done_subject(id: &str) -> String {
    format!("dhow.done.{id}")
}

/// Not kept: says that nobody wants the step any more.
pub(super) fn cancel_subject(id: &str) -> String {
    format!("dhow.cancel.{id}")
}

/// Not kept: asks who has the step at this moment; a worker that has it answers.
pub(super) fn held_subject(id: &str) -> String {
    format!("dhow.held.{id}")
}

// === impl Content ===

impl Content {
    /// How many chunks it has; none is as good as one.
    pub(super) fn chunks(&self) -> u64 {
        self.size.div_ceil(u64::from(self.chunk.max(1)))
    }

    pub(super) fn chunk_subject(&self, index: u64) -> String {
        format!("dhow.artifacts.{}.{index}", self.digest)
    }

    /// Where it is said that all chunks are there.
    pub(super) fn whole_subject(&self) -> String {
        format!("dhow.artifacts.{}.whole", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_step_is_its_own() {
        let workflow = |uid: &str, name: &str| Identity {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: "default".to_owned(),
            created: 0,
        };
        let id = step_id(&workflow("1", "w"), "w.a");
        assert_eq!(id, step_id(&workflow("1", "w"), "w.a"));
        assert_eq!(id.len(), 32);
        for (other, step) in [
            (workflow("2", "w"), "w.a"),
            (workflow("1", "w"), "w.b"),
            (workflow("1", "ww"), ".a"),
            (workflow("1w", ""), "w.a"),
        ] {
            assert_ne!(id, step_id(&other, step), "{other:?} {step}");
        }
    }

    #[test]
    fn chunks() {
        for (size, chunk, expected) in [(0, 10, 0), (1, 10, 1), (10, 10, 1), (11, 10, 2), (5, 0, 5)] {
            let content = Content { digest: String::new(), size, chunk, is_folder: false };
            assert_eq!(content.chunks(), expected, "{content:?}");
        }
    }
}
