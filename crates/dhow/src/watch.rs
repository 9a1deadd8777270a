//! Files that change while a host runs (`--watch`).

use crate::Error;
use notify::{RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Builds write a file several times; a change is over when nothing happened for this long.
const SETTLED: Duration = Duration::from_millis(150);

/// Tells when one of a set of files has changed.
pub(crate) struct Changes {
    events: mpsc::UnboundedReceiver<PathBuf>,
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    watcher: notify::RecommendedWatcher,
}

impl Changes {
    /// Watches these files; they may be replaced, removed and made again.
    pub(crate) fn watch(files: impl IntoIterator<Item = PathBuf>) -> Result<Changes, Error> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, notify::EventKind::Access(_)) {
                return;
            }
            for path in event.paths {
                // The receiver is gone when the host stops.
                let _ = sender.send(path);
            }
        })
        .map_err(failed)?;
        let mut changes = Changes { events, files: BTreeSet::new(), folders: BTreeSet::new(), watcher };
        changes.follow(files)?;
        Ok(changes)
    }

    /// Watches these files from now on. Changes that were not yet told of are not forgotten.
    pub(crate) fn follow(&mut self, files: impl IntoIterator<Item = PathBuf>) -> Result<(), Error> {
        self.files = files.into_iter().map(|file| absolute(&file)).collect();
        // A file that is replaced by renaming is a new file: the folder has to be watched.
        let folders: BTreeSet<PathBuf> =
            self.files.iter().filter_map(|file| Some(file.parent()?.to_owned())).collect();
        for folder in self.folders.difference(&folders) {
            // It may be gone, and its watch with it.
            let _ = self.watcher.unwatch(folder);
        }
        self.folders.retain(|folder| folders.contains(folder));
        for folder in folders {
            // What is missing cannot be loaded either, and that is told where it is tried.
            if !self.folders.contains(&folder) && folder.is_dir() {
                self.watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(failed)?;
                self.folders.insert(folder);
            }
        }
        Ok(())
    }

    /// Waits for a change, and until the writer is done.
    pub(crate) async fn changed(&mut self) {
        while let Some(path) = self.events.recv().await {
            if self.files.contains(&absolute(&path)) {
                break;
            }
        }
        while let Ok(Some(_)) = tokio::time::timeout(SETTLED, self.events.recv()).await {}
    }
}

fn failed(error: notify::Error) -> Error {
    Error::new(format!("cannot watch files: {error}"))
}

fn absolute(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (whole.parent().and_then(|parent| parent.canonicalize().ok()), whole.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => whole,
    }
}
