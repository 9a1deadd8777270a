//! A registry for modules, images and artifacts: OCI distribution 1.1 over a folder, which knows what a module is.
//!
//! | file | subject |
//! |---|---|
//! | `http` | the API on the wire, the page for people |
//! | `server`, `control` | sockets; what the owner's commands ask of a registry that runs |
//! | `auth` | who somebody is, and what they may do |
//! | `manifests`, `manifest` | manifests, tags, referrers |
//! | `links`, `uploads` | blobs of repositories, and how they arrive |
//! | `blobs` | content by digest, which is never given out damaged |
//! | `layout`, `storage` | the format on disk, and what the disk may be |
//! | `catalogue`, [`search`] | what is in memory of all this, and how it is searched |
//! | [`examine`] | the module in a manifest |
//! | [`collect`], [`scrub`] | removing what nobody refers to, finding what is damaged |
//! | [`client`] | asking a registry of this kind |
//!
//! What a token means is not known here: whoever opens a registry passes an [`Examiner`].

use crate::digest::Digest;
use auth::Auth;
use blobs::Blobs;
use catalogue::Catalogue;
use counters::Counters;
use name::Repository;
use refusal::Refusal;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use storage::Storage;
use storage::folder::Folder;
use tokio::sync::{MutexGuard, Semaphore};
use uploads::Uploads;

pub mod auth;
mod blobs;
mod catalogue;
pub mod client;
pub mod collect;
pub mod control;
mod counters;
pub mod examine;
pub mod http;
mod layout;
mod links;
mod manifest;
mod manifests;
mod name;
mod refusal;
pub mod scrub;
pub mod search;
pub mod server;
pub mod storage;
mod uploads;

pub use blobs::Damage;
pub use examine::{Claims, Examination, Examiner, Trust};
pub use storage::StorageError;

/// Repositories whose names change at once.
const TURNS: usize = 64;

/// Modules that are examined at once: each may be in memory whole.
const EXAMINED_AT_ONCE: usize = 2;

/// Changes under way at once; more wait in their requests.
const CHANGED_AT_ONCE: usize = 256;

/// What an operator says about a registry.
#[derive(Debug)]
pub struct Options {
    /// Its folder.
    pub folder: PathBuf,
    /// What happens to modules whose token does not hold.
    pub signed: SignedPolicy,
    /// Bytes of a blob at most.
    pub max_blob: u64,
    /// Bytes of all blobs and manifests of a repository at most.
    pub max_repository: Option<u64>,
    /// Uploads at once; more are asked to wait.
    pub max_uploads: usize,
    /// An upload that nobody goes on with is removed after this long.
    pub upload_expiry: Duration,
}

/// What happens to modules whose token does not hold, or that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignedPolicy {
    /// They are taken like others.
    Accept,
    /// They are taken, and who pushes and who looks is told.
    #[default]
    Mark,
    /// They are refused.
    Refuse,
}

/// A registry that is open. Only one process has it open at a time.
pub struct Registry {
    options: Options,
    storage: Arc<dyn Storage>,
    blobs: Arc<Blobs>,
    uploads: Uploads,
    catalogue: Catalogue,
    auth: Auth,
    examiner: Arc<dyn Examiner>,
    examining: Arc<Semaphore>,
    /// Places for changes, which go on without their clients.
    changing: Arc<Semaphore>,
    /// One change of a repository's names at a time.
    turns: [tokio::sync::Mutex<()>; TURNS],
    /// Bytes of repositories, where somebody asked.
    usage: Mutex<HashMap<Repository, u64>>,
    counters: Counters,
    opened: Instant,
    /// Locked as long as it is open.
    _lock: File,
}

/// The right to change a repository's names.
type Turn<'a> = MutexGuard<'a, ()>;

/// Why a registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process has the registry in {folder} open{}", owner.map_or(String::new(), |pid| format!(" (process {pid})")), folder = folder.display())]
    InUse {
        /// Its folder.
        folder: PathBuf,
        /// The process, where it said so.
        owner: Option<u32>,
    },
    /// The folder cannot be used.
    #[error("the registry's folder {folder} cannot be used: {source}", folder = folder.display())]
    Folder {
        /// Its folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its entries are elsewhere.
    #[error("the registry in {folder} keeps its content in {known}, not in {wanted}; name that with --storage", folder = folder.display())]
    Elsewhere {
        /// Its folder.
        folder: PathBuf,
        /// Where it keeps them.
        known: String,
        /// Where it was looked for.
        wanted: String,
    },
    /// An entry cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

// === impl Options ===

impl Options {
    /// What holds where the operator says nothing.
    pub fn new(folder: &Path) -> Options {
        Options {
            folder: folder.to_owned(),
            signed: SignedPolicy::default(),
            max_blob: 10 << 30,
            max_repository: None,
            max_uploads: 1000,
            upload_expiry: Duration::from_secs(24 * 3600),
        }
    }
}

// === impl Registry ===

impl Registry {
    /// Opens or makes the registry in a folder: takes its lock, removes what a kill has left half-written, and reads what
    /// there is.
    pub async fn open(
        options: Options,
        auth: Auth,
        examiner: Arc<dyn Examiner>,
    ) -> Result<Arc<Registry>, OpenError> {
        Registry::open_in(None, options, auth, examiner).await
    }

    /// The same with entries in a storage that is elsewhere. The folder still has the lock, and uploads under way. It
    /// remembers which storage that is: `name` says it, such as `s3://bucket/prefix`.
    pub async fn open_in(
        elsewhere: Option<(&str, Arc<dyn Storage>)>,
        options: Options,
        auth: Auth,
        examiner: Arc<dyn Examiner>,
    ) -> Result<Arc<Registry>, OpenError> {
        let folder = options.folder.clone();
        let (name, elsewhere) = elsewhere.map(|(name, storage)| (name.to_owned(), storage)).unzip();
        let max_uploads = options.max_uploads;
        let opened = tokio::task::spawn_blocking(move || {
            let lock = lock_folder(&folder)?;
            same_storage(&folder, name.as_deref())?;
            let failed = |source| OpenError::Folder { folder: folder.clone(), source };
            let storage = Folder::open(&folder).map_err(failed)?;
            let uploads = Uploads::open(&folder.join("uploads"), max_uploads).map_err(failed)?;
            Ok::<_, OpenError>((lock, storage, uploads))
        });
        let failed =
            |error| OpenError::Folder { folder: options.folder.clone(), source: io::Error::other(error) };
        let (lock, storage, uploads) = opened.await.map_err(failed)??;
        let storage: Arc<dyn Storage> = elsewhere.unwrap_or_else(|| Arc::new(storage));
        let registry = Registry {
            blobs: Arc::new(Blobs::open(Arc::clone(&storage)).await?),
            options,
            storage,
            uploads,
            catalogue: Catalogue::default(),
            auth,
            examiner,
            examining: Arc::new(Semaphore::new(EXAMINED_AT_ONCE)),
            changing: Arc::new(Semaphore::new(CHANGED_AT_ONCE)),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            usage: Mutex::default(),
            counters: Counters::default(),
            opened: Instant::now(),
            _lock: lock,
        };
        registry.load().await?;
        Ok(Arc::new(registry))
    }

    /// Blobs that are known to be damaged.
    pub fn damaged(&self) -> std::collections::BTreeMap<Digest, Damage> {
        self.blobs.all_damaged()
    }

    /// Examines all modules again, as after a change of whom to trust; how many there are.
    pub async fn reindex(&self) -> io::Result<usize> {
        self.examine_again().await.map_err(io::Error::other)
    }

    /// Removes uploads that expired; how many.
    pub async fn expire_uploads(&self) -> usize {
        self.uploads.expire(self.options.upload_expiry).await
    }

    /// Waits until nobody else changes names of this repository.
    async fn turn(&self, repository: &Repository) -> Turn<'_> {
        let mut hasher = DefaultHasher::new();
        repository.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default();
        self.turns[index].lock().await
    }

    /// Makes a change to its end, also where its client goes away meanwhile: between two steps of it the registry is not as
    /// anybody expects it.
    async fn complete<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        // The semaphore is never closed.
        let place = Arc::clone(&self.changing).acquire_owned().await;
        let changed = tokio::spawn(async move {
            let changed = change.await;
            drop(place);
            changed
        });
        let failed = |error| StorageError::new("a change", io::Error::other(error));
        changed.await.unwrap_or_else(|error| Err(failed(error).into()))
    }
}

/// Remembers where a registry keeps its content, and refuses another place: nothing would be found there.
fn same_storage(folder: &Path, name: Option<&str>) -> Result<(), OpenError> {
    let failed = |source| OpenError::Folder { folder: folder.to_owned(), source };
    const HERE: &str = "the folder";
    let (path, wanted) = (folder.join("storage"), name.unwrap_or(HERE));
    let known = match std::fs::read_to_string(&path) {
        Ok(known) => known.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_old = folder.join(layout::BLOBS).is_dir();
            if is_old { HERE.to_owned() } else { wanted.to_owned() }
        }
        Err(error) => return Err(failed(error)),
    };
    if known != wanted {
        return Err(OpenError::Elsewhere { folder: folder.to_owned(), known, wanted: wanted.to_owned() });
    }
    match name {
        Some(name) => std::fs::write(path, format!("{name}\n")).map_err(failed),
        None => Ok(()),
    }
}

/// Locks the folder for this process, which writes its id there.
fn lock_folder(folder: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Folder { folder: folder.to_owned(), source };
    storage::folder::make_folder(folder).map_err(failed)?;
    let path = folder.join("registry.lock");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let owner = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            return Err(OpenError::InUse { folder: folder.to_owned(), owner });
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0)
        .and_then(|()| io::Write::write_all(&mut file, format!("{}\n", std::process::id()).as_bytes()))
        .map_err(failed)?;
    Ok(file)
}
