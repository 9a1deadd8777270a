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
    _watcher: notify::RecommendedWatcher,
}

impl Changes {
    /// Watches these files; they may be replaced, removed and made again.
    pub(crate) fn watch(files: impl IntoIterator<Item = PathBuf>) -> Result<Changes, Error> {
        let failed = |error: notify::Error| Error::new(format!("cannot watch files: {error}"));
        let (sender, events) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
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
        let files: BTreeSet<PathBuf> = files.into_iter().map(|file| absolute(&file)).collect();
        // A file that is replaced by renaming is a new file: the folder has to be watched.
        let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive).map_err(failed)?;
        }
        Ok(Changes { events, files, _watcher: watcher })
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

fn absolute(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (whole.parent().and_then(|parent| parent.canonicalize().ok()), whole.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => whole,
    }
}
