//! Files that change while a host runs.
//!
//! They are looked at again and again: what a system tells of a folder ends when the folder is made anew, and it tells
//! nothing of the file that a link leads to.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Builds write a file several times; a change is over when nothing happened for this long.
const SETTLED: Duration = Duration::from_millis(150);

/// A file that is written without a pause is told of when this time has passed.
const LONGEST: Duration = Duration::from_secs(5);

/// Tells when one of a set of files has changed.
pub struct Changes {
    files: Files,
}

/// Files as they were seen; none: there is no such file.
type Files = BTreeMap<PathBuf, Option<Mark>>;

/// What tells one content of a file from another: device, inode, size, and when it was written and changed.
type Mark = (u64, u64, u64, [i64; 4]);

impl Changes {
    /// Watches these files; they, their folders and what links lead to may be replaced, removed and made again.
    pub fn watch(files: impl IntoIterator<Item = PathBuf>) -> Changes {
        let files = files.into_iter().map(|file| (mark(&file), file)).map(|(mark, file)| (file, mark));
        Changes { files: files.collect() }
    }

    /// Watches these files from now on. Changes that were not yet told of are not forgotten.
    pub fn follow(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut watched = Changes::watch(files).files;
        for (file, mark) in &mut watched {
            if let Some(known) = self.files.get(file) {
                *mark = *known;
            }
        }
        self.files = watched;
    }

    /// Waits for a change, and until the writer is done.
    pub async fn changed(&mut self) {
        let mut seen = self.look(LOOK).await;
        while seen == self.files {
            seen = self.look(LOOK).await;
        }
        let end = Instant::now() + LONGEST;
        while Instant::now() < end {
            let later = self.look(SETTLED).await;
            if later == seen {
                break;
            }
            seen = later;
        }
        self.files = seen;
    }

    /// How the files are after a pause.
    async fn look(&self, pause: Duration) -> Files {
        tokio::time::sleep(pause).await;
        let files: Vec<PathBuf> = self.files.keys().cloned().collect();
        // A file system of the network may take its time.
        let looked = tokio::task::spawn_blocking(move || Changes::watch(files).files).await;
        looked.unwrap_or_else(|_| self.files.clone())
    }
}

fn mark(file: &Path) -> Option<Mark> {
    let meta = std::fs::metadata(file).ok()?;
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    Some((meta.dev(), meta.ino(), meta.size(), times))
}

#[cfg(test)]
mod tests {
    use super::{Changes, LOOK};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    #[tokio::test]
    async fn whatever_leads_to_another_content_is_a_change() {
        let home = tempfile::tempdir().unwrap();
        let place = |name: &str| home.path().join(name);
        fs::create_dir_all(place("v1")).unwrap();
        fs::create_dir_all(place("v2")).unwrap();
        fs::create_dir_all(place("build")).unwrap();
        for file in ["v1/a", "v2/a", "build/b", "plain"] {
            fs::write(place(file), "1").unwrap();
        }
        symlink("v1", place("current")).unwrap();
        symlink("current/a", place("link")).unwrap();
        let files = ["link", "build/b", "plain"].map(place);
        let mut changes = Changes::watch(files);
        type Change<'a> = (&'a str, &'a dyn Fn(&Path));
        let all: [Change<'_>; 6] = [
            ("a file is written", &|home| fs::write(home.join("plain"), "22").unwrap()),
            ("it is replaced", &|home| {
                fs::write(home.join("new"), "22").unwrap();
                fs::rename(home.join("new"), home.join("plain")).unwrap();
            }),
            ("a folder goes", &|home| fs::remove_dir_all(home.join("build")).unwrap()),
            ("and is made anew", &|home| {
                fs::create_dir(home.join("build")).unwrap();
                fs::write(home.join("build/b"), "1").unwrap();
            }),
            ("what a link leads to is written", &|home| fs::write(home.join("v1/a"), "22").unwrap()),
            ("a link leads elsewhere", &|home| {
                fs::remove_file(home.join("current")).unwrap();
                symlink("v2", home.join("current")).unwrap();
            }),
        ];
        for (what, change) in all {
            change(home.path());
            let told = tokio::time::timeout(Duration::from_secs(10), changes.changed()).await;
            assert!(told.is_ok(), "{what}");
        }
        let more = tokio::time::timeout(4 * LOOK, changes.changed()).await;
        assert!(more.is_err(), "nothing else has changed");
    }
}
