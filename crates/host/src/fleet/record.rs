//! What is remembered of the changes that were made while a host ran: who made them, what became of them, and what has to
//! run again after a restart.
//!
//! It is one JSON file in the host's data folder and a folder of modules named by their digest. Both are written whole,
//! synced and then renamed, so that a host that dies at any moment finds what was before or what is after.

use crate::binding::Binding;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Entries that are kept of one app; the oldest go.
const MAX_ENTRIES: usize = 200;

/// Versions of one app whose modules are kept.
const MAX_VERSIONS: usize = 10;

/// One line of an app's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counts the entries of the app, from 1.
    pub number: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// Who asked for it.
    pub who: String,
    /// What was asked for.
    pub action: Action,
    /// The version that it is about; 0 for one that was refused.
    pub version: u64,
    /// Digest of the module, if it was read.
    pub digest: String,
    /// Where the module came from, without secrets.
    pub from: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, or what else there is to say.
    #[serde(default)]
    pub note: String,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The host started with it, or the manifest or its module changed.
    Manifest,
    /// A new version.
    Update,
    /// A new version for a part of the invocations.
    Split,
    /// That version for all of them.
    Promote,
    /// Back to an earlier version.
    Rollback,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It took over.
    Done,
    /// It took over, and is gone again if it fails too often.
    Watched,
    /// It failed too often, and the version before is back.
    RolledBack,
    /// Nothing changed.
    Refused,
}

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kept {
    pub(super) apps: BTreeMap<String, KeptApp>,
    /// Resources that were added; later ones stand for earlier components of the same names.
    pub(super) added: Vec<AddedResource>,
    /// Names of components that were removed.
    pub(super) removed: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct KeptApp {
    pub(super) history: Vec<Entry>,
    pub(super) versions: BTreeMap<u64, KeptVersion>,
    /// The version that runs.
    pub(super) current: u64,
    /// That version stands in the place of the manifest's module, as long as that one stays what it was.
    pub(super) instead_of: Option<Base>,
    pub(super) split: Option<KeptSplit>,
    pub(super) window: Option<KeptWindow>,
    pub(super) bindings: Vec<Binding>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptVersion {
    pub(super) digest: String,
    pub(super) from: String,
    /// The version whose place it took.
    #[serde(default)]
    pub(super) before: Option<u64>,
}

/// The module that a manifest names, as it was when somebody decided to run another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Base {
    pub(super) source: String,
    /// None: it could not be read, or is behind a URL.
    pub(super) digest: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptSplit {
    pub(super) version: u64,
    pub(super) weight: u32,
    pub(super) header: Option<(String, String)>,
}

/// A version under observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeptWindow {
    pub(super) version: u64,
    pub(super) entry: u64,
    pub(super) millis: u64,
    /// Of 10,000 invocations, so many may fail.
    pub(super) max_errors: u32,
    /// The version that comes back.
    pub(super) before: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AddedResource {
    pub(super) text: String,
    pub(super) file: PathBuf,
}

/// A folder where it is remembered.
pub(super) struct Store {
    folder: PathBuf,
    /// Files of modules that are kept and not referred to yet, with how many hold each. Held while one is removed.
    pinned: Mutex<BTreeMap<String, usize>>,
    /// Tells the files apart that are being written.
    writes: AtomicU64,
}

/// A module that is kept, and stays even if nothing that is remembered refers to it, as long as this is held.
pub(super) struct Pinned {
    pub(super) path: PathBuf,
    name: String,
    store: Arc<Store>,
}

/// What could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// `blake3:…` as the name of a file.
fn file_name(digest: &str) -> String {
    format!("{}.wasm", digest.replace(':', "-"))
}

// === impl Kept ===

impl Kept {
    /// Digests of all modules that may be needed again.
    fn digests(&self) -> BTreeSet<&str> {
        let versions = self.apps.values().flat_map(|app| app.versions.values());
        versions.map(|version| version.digest.as_str()).collect()
    }
}

// === impl KeptApp ===

impl KeptApp {
    /// Adds an entry; the answer is its number.
    pub(super) fn add(&mut self, mut entry: Entry) -> u64 {
        entry.number = self.history.last().map_or(1, |last| last.number + 1);
        let number = entry.number;
        self.history.push(entry);
        let surplus = self.history.len().saturating_sub(MAX_ENTRIES);
        self.history.drain(..surplus);
        number
    }

    /// Remembers a version, and forgets the oldest ones that nothing needs.
    pub(super) fn add_version(&mut self, number: u64, version: KeptVersion) {
        self.versions.insert(number, version);
        let needed = |number: u64| {
            let watched = self.window.as_ref().map(|window| window.before);
            let split = self.split.as_ref().map(|split| split.version);
            let back = self.before(self.current);
            number == self.current || [watched, split, back].contains(&Some(number))
        };
        let surplus = self.versions.len().saturating_sub(MAX_VERSIONS);
        let oldest: Vec<u64> = self.versions.keys().copied().filter(|n| !needed(*n)).take(surplus).collect();
        for number in oldest {
            self.versions.remove(&number);
        }
    }

    /// The number of the next version.
    pub(super) fn next_version(&self) -> u64 {
        self.versions.keys().next_back().map_or(0, |last| *last).max(self.current) + 1
    }

    /// The version that ran before this one, as far as it is known.
    pub(super) fn before(&self, version: u64) -> Option<u64> {
        self.versions.get(&version)?.before.filter(|before| self.versions.contains_key(before))
    }

    /// Notes that a version takes the place of the one that runs.
    pub(super) fn take_over(&mut self, version: u64) {
        let before = self.current;
        if let Some(taking) = self.versions.get_mut(&version).filter(|_| before != version) {
            taking.before = Some(before);
        }
        self.current = version;
    }

    pub(super) fn entry_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.history.iter_mut().find(|entry| entry.number == number)
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(who: &str, action: Action, from: String) -> Entry {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Entry {
            number: 0,
            time: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            // It is shown on terminals.
            who: who.chars().filter(|c| !c.is_control()).take(128).collect(),
            action,
            version: 0,
            digest: String::new(),
            from,
            outcome: Outcome::Done,
            note: String::new(),
        }
    }
}

// === impl Store ===

impl Store {
    /// In this folder, which need not be there yet. Left-overs of a host that died are removed.
    pub(super) fn open(folder: PathBuf) -> Result<(Store, Kept), StoreError> {
        let store = Store { folder, pinned: Mutex::default(), writes: AtomicU64::new(0) };
        let path = store.state();
        let kept = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| StoreError {
                path,
                reason: format!(
                    "what was changed while a host ran cannot be read: {error}; move the file away to start with the \
                     manifest's modules and components"
                ),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(StoreError { path, reason: error.to_string() }),
        };
        store.clean(&kept);
        Ok((store, kept))
    }

    /// Where the module of this digest is, or would be.
    pub(super) fn module(&self, digest: &str) -> PathBuf {
        self.folder.join("modules").join(file_name(digest))
    }

    /// Keeps a module, at least until what is answered is dropped.
    pub(super) fn keep(self: &Arc<Self>, digest: &str, wasm: &[u8]) -> Result<Pinned, StoreError> {
        let (path, name) = (self.module(digest), file_name(digest));
        // Before it is looked for: from here on nobody removes it.
        *self.pinned.lock().entry(name.clone()).or_default() += 1;
        let pinned = Pinned { path, name, store: Arc::clone(self) };
        if !fs::metadata(&pinned.path).is_ok_and(|known| known.len() == wasm.len() as u64) {
            self.write(&pinned.path, wasm)?;
        }
        Ok(pinned)
    }

    /// Remembers this from now on.
    pub(super) fn save(&self, kept: &Kept) -> Result<(), StoreError> {
        let path = self.state();
        let text = serde_json::to_vec_pretty(kept)
            .map_err(|error| StoreError { path: path.clone(), reason: error.to_string() })?;
        self.write(&path, &text)
    }

    /// Removes modules that nothing refers to.
    pub(super) fn clean(&self, kept: &Kept) {
        let needed: BTreeSet<String> = kept.digests().into_iter().map(file_name).collect();
        let Ok(files) = fs::read_dir(self.folder.join("modules")) else { return };
        for file in files.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            // A file that is being written is called so with something behind it.
            let pinned = self.pinned.lock();
            let is_pinned = pinned.keys().any(|pinned| name.starts_with(pinned.as_str()));
            if !is_pinned && !needed.contains(&name) {
                // Tried again the next time.
                let _ = fs::remove_file(file.path());
            }
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let written = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.folder);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            // Two may write the same module at once.
            let number = self.writes.fetch_add(1, Ordering::Relaxed);
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{number}.new"));
            let new = path.with_file_name(name);
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            let renamed =
                file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
            if renamed.is_err() {
                // The number is not used again.
                let _ = fs::remove_file(&new);
            }
            renamed?;
            File::open(folder)?.sync_all()
        };
        written().map_err(|error| StoreError {
            path: path.to_owned(),
            reason: format!("cannot be written, so nothing was changed: {error}"),
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pinned = self.store.pinned.lock();
        if let Some(count) = pinned.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                pinned.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_there_again_and_left_overs_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("live");
        let (store, mut kept) = Store::open(folder.clone()).unwrap();
        let store = Arc::new(store);
        assert_eq!(kept, Kept::default());
        let app = kept.apps.entry("a".to_owned()).or_default();
        for number in 1..=30 {
            let (digest, from) = (format!("d{number}"), "x".to_owned());
            app.add_version(number, KeptVersion { digest, from, before: None });
            app.take_over(number);
            app.add(Entry::new("me\u{7}", Action::Update, "x".into()));
            store.keep(&format!("d{number}"), b"wasm").unwrap();
        }
        assert_eq!((app.versions.len(), app.before(30), app.next_version()), (MAX_VERSIONS, Some(29), 31));
        assert_eq!((app.history[29].number, app.history[0].who.as_str()), (30, "me"));
        store.save(&kept).unwrap();
        fs::write(folder.join("modules/half.new"), b"").unwrap();
        let (store, again) = Store::open(folder.clone()).unwrap();
        assert_eq!(again, kept);
        assert!(store.module("d30").exists() && !store.module("d1").exists());
        assert_eq!(fs::read_dir(folder.join("modules")).unwrap().count(), MAX_VERSIONS);
        fs::write(folder.join("state.json"), b"{").unwrap();
        assert!(Store::open(folder).err().unwrap().to_string().contains("move the file away"));
    }

    #[test]
    fn a_module_that_is_held_stays_while_others_are_cleaned_away() {
        let dir = tempfile::tempdir().unwrap();
        let (store, kept) = Store::open(dir.path().to_owned()).unwrap();
        let store = Arc::new(store);
        let (one, again) = (store.keep("b3:a", b"wasm").unwrap(), store.keep("b3:a", b"wasm").unwrap());
        let half = one.path.with_file_name("b3-a.wasm.7.new");
        fs::write(&half, b"wa").unwrap();
        drop(store.keep("b3:b", b"wasm").unwrap());
        for (held, is_there) in [(Some(one), true), (Some(again), true), (None, false)] {
            store.clean(&kept);
            let found = store.module("b3:a").exists();
            assert_eq!((found, half.exists(), store.module("b3:b").exists()), (is_there, is_there, false));
            drop(held);
        }
    }

    #[test]
    fn a_module_can_be_kept_by_many_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path().to_owned()).unwrap().0);
        let wasm = vec![7; 1 << 16];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| store.keep("b3:a", &wasm).map(drop).unwrap());
            }
        });
        assert_eq!(fs::read(store.module("b3:a")).unwrap(), wasm);
        assert_eq!(fs::read_dir(dir.path().join("modules")).unwrap().count(), 1, "no left-overs");
    }
}
