//! The seam between artifacts and the places that keep them: a folder, a bucket, a web server.
//!
//! All of it blocks: artifacts are packed and unpacked by threads that may. How bytes get from such a thread to the
//! network and back is in [`stream`](super::stream).

use super::archive;
use super::repository::ArtifactError;
use cap_std::fs::Dir;
use std::io::{self, Read, Write};

/// Writes the content of an object. It is called again when the first attempt could not be stored.
pub(super) type Fill<'a> = dyn FnMut(&mut dyn Write) -> Result<(), ArtifactError> + 'a;

/// Is told the name of a file below a folder; of a folder itself, with a slash at its end.
pub(super) type Visit<'a> = dyn FnMut(&str) -> Result<(), ArtifactError> + 'a;

/// Keeps objects by their keys.
pub(super) trait Store: Send + Sync {
    /// Stores an object, which is there whole or not at all.
    fn put(&self, key: &str, fill: &mut Fill<'_>) -> Result<(), ArtifactError>;

    /// Stores a folder as one object for each file, under the key as their prefix.
    fn put_folder(&self, key: &str, root: &Dir, path: &str) -> Result<(), ArtifactError> {
        archive::each_file(root, path, &mut |name| {
            let mut fill = |to: &mut dyn Write| {
                io::copy(&mut root.open(format!("{path}/{name}"))?, to)?;
                Ok(())
            };
            self.put(&format!("{}/{name}", key.trim_end_matches('/')), &mut fill)
        })
    }

    /// Reads an object; none if there is no such.
    fn get(&self, key: &str) -> Result<Option<Box<dyn Read + Send>>, ArtifactError>;

    /// Visits what is in the folder of that key, by names relative to it. Whether there is such a folder.
    fn list(&self, key: &str, visit: &mut Visit<'_>) -> Result<bool, ArtifactError>;
}
