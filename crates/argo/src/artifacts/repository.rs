//! Artifacts by their keys, in whatever keeps them; and those that a workflow has elsewhere.
//!
//! Attempts that fail for the network's sake are repeated as Argo's executor repeats them: five, with a second between
//! the first two and 1.6 times as long each time after that.

use super::config::{Choice, Config, ConfigError, KEY_FORMAT, RepositoryRef, Secrets};
use super::folder::Folder;
use super::http::Site;
use super::interest;
use super::place::Place;
use super::s3::Bucket;
use super::store::Store;
use super::{Artifact, Location, Packing, archive, git, unpack, zip};
use crate::controller::Identity;
use crate::model::Inputs;
use crate::substitute::Scope;
use cap_std::fs::Dir;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use super::folder::sweep;

/// Attempts at most.
const ATTEMPTS: u32 = 7;

/// Between the first two.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// How much one artifact may be once it is unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes.
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { bytes: 64 << 30, entries: 1_000_000 }
    }
}

/// Artifacts by their keys.
pub struct Repository {
    store: Box<dyn Store>,
    key_format: String,
    archive_logs: bool,
    secrets: Secrets,
    /// Files of its own, on this machine.
    scratch: PathBuf,
    bounds: Bounds,
}

/// Why an artifact cannot be stored or had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is nothing there.
    #[error("there is nothing at {0:?}")]
    Missing(String),
    /// The key leads out of the repository.
    #[error("{0:?} is no key: expected names with slashes between them, none of them `..`")]
    Key(String),
    /// The archive does what no archive of ours does.
    #[error("{0}")]
    Hostile(String),
    /// It is packed, or kept, in a way that is not known here.
    #[error("{0}")]
    Unsupported(String),
    /// Whoever keeps it says no.
    #[error("{0}")]
    Refused(String),
    /// Whoever keeps it cannot be reached; another attempt may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

// === impl ArtifactError ===

impl ArtifactError {
    fn is_passing(&self) -> bool {
        match self {
            ArtifactError::Unavailable(_) => true,
            // The network's; see `stream`.
            ArtifactError::Io(error) => error.kind() == io::ErrorKind::ConnectionAborted,
            _ => false,
        }
    }
}

/// Does something as often as it takes.
fn repeated(mut attempt: impl FnMut() -> Result<(), ArtifactError>) -> Result<(), ArtifactError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_passing() && !interest::is_lost() => {
                tracing::info!("an artifact is tried again: {error}");
            }
            other => return other,
        }
        interest::pause(wait.mul_f64(1.0 + fastrand::f64() / 2.0))?;
        wait = wait.mul_f64(1.6);
    }
    attempt()
}

// === impl Repository ===

impl Repository {
    /// Uses a folder, making it if it is not there.
    pub fn open(folder: &Path, bounds: Bounds) -> io::Result<Repository> {
        let store = Folder::open(folder)?;
        let scratch = store.temporaries();
        Ok(Repository {
            store: Box::new(store),
            key_format: KEY_FORMAT.to_owned(),
            archive_logs: false,
            secrets: Secrets::default(),
            scratch,
            bounds,
        })
    }

    /// Uses what Argo's files or a command line say, or else the folder, in which temporary files are in any case.
    /// `wanted` is the workflow's own reference. Where it is a bucket, a runtime has to be entered.
    pub fn configured(
        folder: &Path,
        choice: &Choice,
        wanted: Option<&RepositoryRef>,
        bounds: Bounds,
    ) -> Result<Repository, ConfigError> {
        let failed =
            |error: &dyn std::fmt::Display| ConfigError::Unknown(format!("the artifact repository: {error}"));
        let mut repository = Repository::open(folder, bounds).map_err(|error| failed(&error))?;
        let config = Config::read(choice)?;
        let chosen = RepositoryRef::parse(&choice.reference);
        let wanted = if choice.reference.is_empty() { wanted } else { Some(&chosen) };
        let described = match choice.described() {
            Some(described) => Some(described),
            // The folder takes the place of whatever a cluster has.
            None if choice.files.is_empty() && choice.reference.is_empty() => None,
            None => config.choose(wanted)?,
        };
        repository.secrets = config.secrets;
        let described = described.unwrap_or_default();
        repository.archive_logs = choice.archive_logs.unwrap_or(described.archive_logs);
        if let Some((place, format)) = described.place().map_err(|error| failed(&error))? {
            if !format.is_empty() {
                repository.key_format = format;
            }
            let (store, _) = open(&place, &repository.secrets).map_err(|error| failed(&error))?;
            repository.store = store;
        }
        Ok(repository)
    }

    /// Whether logs of steps are kept where nobody says otherwise.
    pub fn archives_logs(&self) -> bool {
        self.archive_logs
    }

    /// What the keys of a step's artifacts begin with.
    pub fn prefix(&self, workflow: &Identity, pod: &str, inputs: &Inputs) -> Result<String, String> {
        let mut scope = Scope::default();
        crate::controller::identity_scope(workflow, &mut scope);
        scope.set("pod.name", pod);
        for parameter in &inputs.parameters {
            let value = parameter.value.clone().unwrap_or_default();
            scope.set(format!("inputs.parameters.{}", parameter.name), value);
        }
        let text = scope.text(&self.key_format);
        text.map_err(|error| format!("keyFormat {:?} of the artifact repository: {error}", self.key_format))
    }

    /// Stores what a step left at `path` inside `root`, where the artifact says, else under `key`; and says where.
    /// Blocks.
    pub fn save_output(
        &self,
        root: &Dir,
        path: &str,
        artifact: &Artifact,
        key: &str,
    ) -> Result<Artifact, ArtifactError> {
        let mut stored = artifact.clone();
        match artifact.location() {
            Location::Raw(_) => {
                return Err(ArtifactError::Unsupported("nothing can be saved as `raw`".to_owned()));
            }
            Location::Own(kind) => {
                let (store, key) = self.elsewhere(kind, artifact)?;
                pack(&*store, root, path, artifact, &key)?;
            }
            Location::Key(own) => {
                self.save(root, path, artifact, &own)?;
                stored.set_key(&own);
            }
            Location::None => {
                self.save(root, path, artifact, key)?;
                stored.set_key(key);
            }
        }
        Ok(stored)
    }

    /// Stores what a step left at `path` inside `root`. Blocks.
    pub fn save(&self, root: &Dir, path: &str, artifact: &Artifact, key: &str) -> Result<(), ArtifactError> {
        pack(&*self.store, root, path, artifact, key)
    }

    /// Puts an artifact at `path` inside `root`, whose parent folder is there, wherever it is. Blocks.
    pub fn bring(&self, root: &Dir, path: &str, artifact: &Artifact) -> Result<(), ArtifactError> {
        match artifact.location() {
            Location::None => Err(ArtifactError::Missing(artifact.name.clone())),
            Location::Key(key) => self.load(&key, root, path, artifact),
            Location::Raw(data) => {
                root.write(archive::relative(path), data)?;
                unpack::permit(root, path, artifact)
            }
            Location::Own(kind) => {
                if let Place::Git(place) = Place::read(kind, &artifact.location)? {
                    no_part(kind, artifact)?;
                    self.repeated(root, path, || {
                        git::load(&place, root, path, &self.scratch, &self.secrets)
                    })?;
                    return unpack::permit(root, path, artifact);
                }
                let (store, key) = self.elsewhere(kind, artifact)?;
                self.take(&*store, &key, root, path, artifact)
            }
        }
    }

    /// Puts what is stored under `key` at `path` inside `root`, whose parent folder is there. Blocks.
    pub fn load(&self, key: &str, root: &Dir, path: &str, artifact: &Artifact) -> Result<(), ArtifactError> {
        self.take(&*self.store, key, root, path, artifact)
    }

    fn take(
        &self,
        store: &dyn Store,
        key: &str,
        root: &Dir,
        path: &str,
        artifact: &Artifact,
    ) -> Result<(), ArtifactError> {
        let key = match artifact.sub_path.trim_matches('/') {
            "" => key.to_owned(),
            part => format!("{}/{part}", key.trim_end_matches('/')),
        };
        self.repeated(root, path, || {
            if let Some(object) = store.get(&key)? {
                return unpack::object(object, root, path, artifact, self.bounds, &self.scratch);
            }
            let mut folder = unpack::Folder::begin(root, path, self.bounds)?;
            let is_there = store.list(&key, &mut |name| {
                let is_folder = name.ends_with('/');
                let object = if is_folder {
                    None
                } else {
                    store.get(&format!("{}/{name}", key.trim_end_matches('/')))?
                };
                match object {
                    Some(mut object) => folder.add(name, Some(&mut object)),
                    None if is_folder => folder.add(name, None),
                    // It was deleted since.
                    None => Ok(()),
                }
            })?;
            if is_there { Ok(()) } else { Err(ArtifactError::Missing(key.clone())) }
        })?;
        unpack::permit(root, path, artifact)
    }

    /// Repeats attempts to put something at `path`; of a failed one nothing is left.
    fn repeated(
        &self,
        root: &Dir,
        path: &str,
        mut attempt: impl FnMut() -> Result<(), ArtifactError>,
    ) -> Result<(), ArtifactError> {
        repeated(|| attempt().inspect_err(|_| unpack::clear(root, path)))
    }

    /// What keeps an artifact that is not in the repository, and its key there.
    fn elsewhere(&self, kind: &str, artifact: &Artifact) -> Result<(Box<dyn Store>, String), ArtifactError> {
        let place = Place::read(kind, &artifact.location)?;
        if let Place::Http(_) = place {
            no_part(kind, artifact)?;
        }
        open(&place, &self.secrets)
    }

    /// Stores a file or folder of this machine, as it is. Blocks.
    pub fn keep(&self, folder: &Path, name: &str, key: &str) -> Result<(), ArtifactError> {
        let root = Dir::open_ambient_dir(folder, cap_std::ambient_authority())?;
        let archive = Some(super::Archive { none: Some(serde_json::json!({})), ..Default::default() });
        self.save(&root, name, &Artifact { archive, ..Artifact::default() }, key)
    }

    /// Puts an artifact into a folder of this machine, under the last part of its path; what was there goes. Blocks.
    pub fn fetch(&self, artifact: &Artifact, folder: &Path) -> Result<PathBuf, ArtifactError> {
        let root = Dir::open_ambient_dir(folder, cap_std::ambient_authority())?;
        let name = artifact.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = if name.is_empty() { &artifact.name } else { name };
        unpack::clear(&root, name);
        self.bring(&root, name, artifact)?;
        Ok(folder.join(name))
    }

    /// Stores bytes. Blocks.
    pub fn put(&self, bytes: &[u8], key: &str) -> Result<(), ArtifactError> {
        repeated(|| self.store.put(key, &mut |to: &mut dyn Write| Ok(to.write_all(bytes)?)))
    }

    /// Stores a file of this machine, as it is. Blocks.
    pub fn put_file(&self, file: &Path, key: &str) -> Result<(), ArtifactError> {
        let mut fill = |to: &mut dyn Write| {
            io::copy(&mut std::fs::File::open(file)?, to)?;
            Ok(())
        };
        repeated(|| self.store.put(key, &mut fill))
    }

    /// Takes away what a process left that was killed while it wrote.
    pub fn sweep(&self) {
        sweep(&self.scratch);
    }
}

/// What keeps a place, and the key of the place in it.
fn open(place: &Place, secrets: &Secrets) -> Result<(Box<dyn Store>, String), ArtifactError> {
    Ok(match place {
        Place::S3(place) => (Box::new(Bucket::open(place, secrets)?), place.key.clone()),
        #[cfg(feature = "gcs-azure")]
        Place::Gcs(place) => (Box::new(super::cloud::gcs(place, secrets)?), place.key.clone()),
        #[cfg(feature = "gcs-azure")]
        Place::Azure(place) => (Box::new(super::cloud::azure(place, secrets)?), place.blob.clone()),
        #[cfg(not(feature = "gcs-azure"))]
        Place::Gcs(_) | Place::Azure(_) => {
            let what = "this dhow was built without the Cargo feature `gcs-azure`".to_owned();
            return Err(ArtifactError::Unsupported(what));
        }
        Place::Http(place) => {
            let site = Site::open(place, secrets)?;
            let name = site.name();
            (Box::new(site), name)
        }
        Place::Git(_) => {
            return Err(ArtifactError::Unsupported("nothing can be saved as `git`, as in Argo".to_owned()));
        }
    })
}

fn no_part(kind: &str, artifact: &Artifact) -> Result<(), ArtifactError> {
    if artifact.sub_path.is_empty() {
        return Ok(());
    }
    Err(ArtifactError::Unsupported(format!("`subPath` is for locations with a key, and `{kind}` has none")))
}

/// Packs and stores.
fn pack(
    store: &dyn Store,
    root: &Dir,
    path: &str,
    artifact: &Artifact,
    key: &str,
) -> Result<(), ArtifactError> {
    let path = archive::relative(path);
    let is_folder = root.metadata(&path)?.is_dir();
    repeated(|| match artifact.packing() {
        Packing::Tar(level) => store.put(key, &mut |to: &mut dyn Write| archive::tar(root, &path, level, to)),
        Packing::Zip => store.put(key, &mut |to: &mut dyn Write| zip::pack(root, &path, to)),
        Packing::None if is_folder => store.put_folder(key, root, &path),
        Packing::None => store.put(key, &mut |to: &mut dyn Write| {
            io::copy(&mut root.open(&path)?, to)?;
            Ok(())
        }),
    })
}
