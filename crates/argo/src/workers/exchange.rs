//! Artifacts of steps whose repository is the stream itself.
//!
//! A worker's repository is a folder of its own then. What a step needs is brought there under the digest of its
//! content, so that a key can never mean something old, and what several steps need is brought once. What a step leaves
//! goes into the stream before anybody hears of its end.

use super::connection::Connection;
use super::message::{Artifacts, Content};
use crate::artifacts::{Artifact, Location};
use crate::model::{Outputs, Template};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// Folder of contents in a worker's repository.
const CONTENTS: &str = "content";

/// Folder of what steps leave under keys that are not theirs alone, until it is stored.
const OUTPUTS: &str = "leaving";

/// Folder of what is not complete yet; the repository's own.
pub(super) const SCRATCH: &str = ".incomplete";

/// A content that no step asked for in this time is let go.
const KEPT: Duration = Duration::from_secs(3600);

/// A worker's folder of artifacts.
pub(super) struct Exchange {
    folder: PathBuf,
    /// Who brings a content keeps the others waiting for it.
    bringing: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// What an attempt's outputs are called while it runs, and what they are called in the end.
pub(super) struct Renamed(BTreeMap<String, String>);

// === impl Exchange ===

impl Exchange {
    /// Uses a folder, which is a repository's.
    pub(super) fn new(folder: &Path) -> std::io::Result<Exchange> {
        for name in [CONTENTS, OUTPUTS, SCRATCH] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        Ok(Exchange { folder: folder.to_owned(), bringing: Mutex::default() })
    }

    /// Brings what a step needs, and names it as it is named here.
    pub(super) async fn bring(
        &self,
        connection: &Connection,
        template: &mut Template,
        known: &BTreeMap<String, Content>,
    ) -> Result<(), String> {
        for artifact in &mut template.inputs.artifacts {
            let Location::Key(key) = artifact.location() else { continue };
            // What means nothing is missing here as well, and told by its own name.
            let Some(content) = known.get(key.trim_end_matches('/')) else { continue };
            let brought = self.content(connection, content).await;
            brought.map_err(|error| format!("artifact '{}': {error}", artifact.name))?;
            artifact.set_key(&format!("{CONTENTS}/{}", content.digest));
        }
        Ok(())
    }

    /// The file or folder of a content.
    pub(super) async fn content(
        &self,
        connection: &Connection,
        content: &Content,
    ) -> Result<PathBuf, String> {
        if content.digest.len() != 64 || !content.digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("{:?} is no digest", content.digest));
        }
        let place = self.folder.join(CONTENTS).join(&content.digest);
        let turn = {
            let mut bringing = self.bringing.lock();
            bringing.retain(|_, turn| turn.strong_count() > 0);
            let known = bringing.get(&content.digest).and_then(Weak::upgrade);
            let turn = known.unwrap_or_default();
            bringing.insert(content.digest.clone(), Arc::downgrade(&turn));
            turn
        };
        let _turn = turn.lock().await;
        if !is_touched(&place) {
            connection.fetch(content, &place, &self.folder.join(SCRATCH)).await?;
        }
        Ok(place)
    }

    /// Gives the outputs of an attempt, under keys that the template names, keys of its own.
    pub(super) fn rename(template: &mut Template, attempt: &str) -> Renamed {
        let mut renamed = BTreeMap::new();
        for (index, artifact) in template.outputs.artifacts.iter_mut().enumerate() {
            let Location::Key(key) = artifact.location() else { continue };
            let own = format!("{OUTPUTS}/{attempt}-{index}");
            artifact.set_key(&own);
            renamed.insert(own, key);
        }
        Renamed(renamed)
    }

    /// Stores what an attempt left in the stream; what each key means.
    pub(super) async fn ship(
        &self,
        connection: &Connection,
        outputs: &mut Outputs,
        renamed: &Renamed,
    ) -> Result<BTreeMap<String, Content>, String> {
        let mut contents = BTreeMap::new();
        for artifact in &mut outputs.artifacts {
            let Location::Key(local) = artifact.location() else { continue };
            let Some(place) = place(&self.folder, &local) else { continue };
            let stored = connection.store(&place, &self.folder.join(SCRATCH)).await;
            let content = stored.map_err(|error| format!("artifact '{}': {error}", artifact.name))?;
            // The next step may well run here.
            let kept = self.folder.join(CONTENTS).join(&content.digest);
            if is_touched(&kept) || tokio::fs::rename(&place, &kept).await.is_err() {
                remove(&place).await;
            }
            let key = renamed.0.get(&local).cloned().unwrap_or(local);
            artifact.set_key(&key);
            contents.insert(key.trim_end_matches('/').to_owned(), content);
        }
        Ok(contents)
    }

    /// Lets go what no step has asked for in a long time. Blocks.
    pub(super) fn sweep(&self) {
        for name in [CONTENTS, OUTPUTS] {
            let_go(&self.folder.join(name));
        }
    }
}

/// Lets go what nobody has touched in a folder in a long time. Blocks.
pub(super) fn let_go(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let used = entry.metadata().and_then(|meta| meta.modified());
        let idle = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
        let path = entry.path();
        if idle.is_some_and(|idle| idle > KEPT) && std::fs::remove_dir_all(&path).is_err() {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// What the keys of a step's inputs mean, for whoever submits it: what lies in the folder of the submitter goes into the
/// stream. `own` begins the keys that this submitter alone puts there.
pub(super) async fn inputs(
    connection: &Connection,
    folder: &Path,
    own: &str,
    template: &Template,
) -> Result<Artifacts, String> {
    let mut known = BTreeMap::new();
    for artifact in &template.inputs.artifacts {
        let Location::Key(key) = artifact.location() else { continue };
        // A part of a folder is found in the folder, by the worker.
        let key = key.trim_end_matches('/');
        let is_own = key.starts_with(own);
        let named = if is_own { None } else { connection.named(key).await? };
        let local = place(folder, key).filter(|place| place.exists());
        let content = match (named, local) {
            (Some(named), _) => named,
            (None, Some(local)) => {
                let scratch = folder.join(SCRATCH);
                let stored = connection.store(&local, &scratch).await;
                stored.map_err(|error| format!("artifact '{}': {error}", artifact.name))?
            }
            (None, None) => continue,
        };
        known.insert(key.to_owned(), content);
    }
    Ok(Artifacts::Stream(known))
}

/// Puts what a key means into a submitter's folder, where a repository finds it under that key.
pub(super) async fn bring_home(
    connection: &Connection,
    folder: &Path,
    artifact: &Artifact,
) -> Result<(), String> {
    let Location::Key(key) = artifact.location() else { return Ok(()) };
    let key = key.trim_end_matches('/');
    let Some(content) = connection.named(key).await? else { return Ok(()) };
    let place = place(folder, key).ok_or_else(|| format!("{key:?} is no key"))?;
    let failed = |error: std::io::Error| format!("{}: {error}", place.display());
    if let Some(parent) = place.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    }
    let scratch = folder.join(SCRATCH);
    tokio::fs::create_dir_all(&scratch).await.map_err(failed)?;
    remove(&place).await;
    connection.fetch(&content, &place, &scratch).await
}

/// Where a key is in a folder; none if it leads out of it.
fn place(folder: &Path, key: &str) -> Option<PathBuf> {
    let is_bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\0', '\\']);
    let key = key.trim_end_matches('/');
    if key.split('/').any(is_bad) || key.starts_with(SCRATCH) { None } else { Some(folder.join(key)) }
}

/// Whether something is there; from now on it is not idle.
fn is_touched(place: &Path) -> bool {
    let Ok(file) = std::fs::File::open(place) else { return false };
    let _ = file.set_modified(SystemTime::now());
    true
}

async fn remove(place: &Path) {
    if tokio::fs::remove_dir_all(place).await.is_err() {
        let _ = tokio::fs::remove_file(place).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_in_their_folder() {
        for (key, is_good) in [
            ("w/pod/a.tgz", true),
            ("w/folder/", true),
            ("", false),
            ("/etc/passwd", false),
            ("../a", false),
            ("a/../b", false),
            (".incomplete/a", false),
        ] {
            assert_eq!(place(Path::new("/folder"), key).is_some(), is_good, "{key}");
        }
    }

    #[test]
    fn what_nobody_asks_for_goes() {
        let home = tempfile::tempdir().unwrap();
        let exchange = Exchange::new(home.path()).unwrap();
        let contents = home.path().join(CONTENTS);
        for name in ["old", "new"] {
            std::fs::write(contents.join(name), name).unwrap();
        }
        let long_ago = SystemTime::now() - KEPT - Duration::from_secs(1);
        std::fs::File::open(contents.join("old")).unwrap().set_modified(long_ago).unwrap();
        exchange.sweep();
        assert!(!contents.join("old").exists() && contents.join("new").exists());
        std::fs::write(contents.join("old"), "").unwrap();
        std::fs::File::open(contents.join("old")).unwrap().set_modified(long_ago).unwrap();
        assert!(is_touched(&contents.join("old")));
        exchange.sweep();
        assert!(contents.join("old").exists());
    }
}
