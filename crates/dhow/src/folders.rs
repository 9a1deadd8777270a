//! Where the list of running hosts is kept: in the user's state folder
//! (<https://specifications.freedesktop.org/basedir-spec/latest/>), and in a private folder below `/tmp` for
//! what must be short or has no home.

use crate::error::{Context, Error};
use crate::process;
use std::env;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The list of running hosts: `$XDG_STATE_HOME/dhow/hosts`, else `~/.local/state/dhow/hosts`; `None`
/// without a home.
pub(crate) fn hosts() -> Option<PathBuf> {
    Some(xdg("XDG_STATE_HOME", ".local/state")?.join("dhow/hosts"))
}

/// Keys: `$XDG_CONFIG_HOME/dhow/keys`, else `~/.config/dhow/keys`; `None` without a home.
pub(crate) fn keys() -> Option<PathBuf> {
    Some(xdg("XDG_CONFIG_HOME", ".config")?.join("dhow/keys"))
}

/// What can be had again: `$XDG_CACHE_HOME/dhow`, else `~/.cache/dhow`; without a home, this user's own folder below
/// `/tmp`.
pub(crate) fn cache() -> PathBuf {
    xdg("XDG_CACHE_HOME", ".cache").map_or_else(temporary, |cache| cache.join("dhow"))
}

/// This user's own folder below `/tmp`.
pub(crate) fn temporary() -> PathBuf {
    PathBuf::from(format!("/tmp/dhow-{}", process::user_id()))
}

/// Makes the folder if it is not there, for this user only, and refuses one that others may write to.
pub(crate) fn make_private(folder: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .context(|| format!("cannot make the folder {}", folder.display()))?;
    check_private(folder)
}

/// Whether the folder is a real one, belongs to this user, and others cannot write to it.
pub(crate) fn check_private(folder: &Path) -> Result<(), Error> {
    let meta =
        fs::symlink_metadata(folder).context(|| format!("cannot look at the folder {}", folder.display()))?;
    let wrong = if !meta.is_dir() {
        "it is not a folder"
    } else if meta.uid() != process::user_id() {
        "it belongs to another user"
    } else if meta.mode() & 0o022 != 0 {
        "other users may write to it"
    } else {
        return Ok(());
    };
    Err(Error::new(format!(
        "{} cannot be trusted: {wrong}; remove it, or set XDG_STATE_HOME",
        folder.display()
    )))
}

/// A base directory; relative values are ignored, as the specification wants.
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}
