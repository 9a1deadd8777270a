//! Tells when a file may have changed, which need not be there, and nor need its folder.

use notify::{RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// A change is over when nothing happened for this long …
const SETTLED: Duration = Duration::from_millis(50);

/// … or when it has lasted this long.
const LONGEST: Duration = Duration::from_secs(1);

/// How often the file is looked at where the system tells of no changes.
const POLL: Duration = Duration::from_secs(2);

/// Follows one file.
pub(super) struct Watch {
    path: PathBuf,
    events: mpsc::Receiver<()>,
    /// None where the system tells of no changes.
    watcher: Option<notify::RecommendedWatcher>,
    /// The folder that is watched: the file's, or the nearest one above it that there is.
    folder: Option<PathBuf>,
}

// === impl Watch ===

impl Watch {
    /// Begins to watch.
    pub(super) fn new(path: &Path) -> Watch {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // One event that waits says as much as many.
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What was overlooked is an event, too; what was only read is none.
            if !matches!(event.map(|event| event.kind), Ok(notify::EventKind::Access(_))) {
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(
                |error| tracing::warn!(%error, "the system does not tell of changes; looking every {POLL:?}"),
            )
            .ok();
        let mut watch = Watch { path, events, watcher, folder: None };
        watch.arm();
        watch
    }

    /// Waits until the file may have changed, and its writer is done.
    pub(super) async fn changed(&mut self) {
        let event = if self.folder.is_some() {
            self.events.recv().await
        } else {
            timeout(POLL, self.events.recv()).await.ok().flatten()
        };
        if event.is_some() {
            let end = Instant::now() + LONGEST;
            while Instant::now() < end && matches!(timeout(SETTLED, self.events.recv()).await, Ok(Some(()))) {
            }
        }
        self.arm();
    }

    /// Watches the folder that is now the nearest one. The file itself is not watched: one that is replaced
    /// is another file.
    fn arm(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        loop {
            let nearest = self.path.ancestors().skip(1).find(|folder| folder.is_dir());
            let nearest = nearest.map(Path::to_path_buf);
            // A folder that was removed and made again is another one, which the path does not show: only a
            // watch on the folder of the file itself ends with an event.
            let Some(folder) = nearest else { return };
            if let Some(before) = self.folder.take()
                && before != folder
            {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(&before);
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => self.folder = Some(folder.clone()),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "cannot watch; looking every {POLL:?}");
                    return;
                }
            }
            // A nearer folder may have come while this one was not watched yet.
            let nearer = self.path.ancestors().skip(1).find(|folder| folder.is_dir());
            if nearer == Some(&folder) {
                return;
            }
        }
    }
}
