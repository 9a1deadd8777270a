//! What is stored into a file or folder, however hostile.
//!
//! As Argo's executor does it: with one top entry that entry becomes the artifact, with several the folder of them;
//! what nobody said to be an archive is looked at, and unpacked if it is a gzipped tar. Entries that lead out are
//! refused, and so are devices; sizes and counts are bounded.

use super::Artifact;
use super::archive::{names, relative, stays_inside};
use super::repository::{ArtifactError, Bounds};
use super::zip;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
use flate2::read::MultiGzDecoder;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Longest name in an archive, in bytes.
const MAX_NAME: u64 = 64 << 10;

/// As much of the beginning as shows what it is.
const BEGIN: u64 = 64 << 10;

/// What is left of the bounds.
pub(super) struct Left {
    bytes: u64,
    entries: u64,
    bounds: Bounds,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
}

/// Unpacks or copies an object. `scratch` is a folder for files of its own: zip archives are read from their end.
pub(super) fn object(
    mut from: impl Read,
    root: &Dir,
    path: &str,
    artifact: &Artifact,
    bounds: Bounds,
    scratch: &Path,
) -> Result<(), ArtifactError> {
    let path = relative(path);
    let archive = artifact.archive.clone().unwrap_or_default();
    let mut left = Left::new(bounds);
    let mut begin = Vec::new();
    if archive.none.is_none() && archive.zip.is_none() {
        (&mut from).take(BEGIN).read_to_end(&mut begin)?;
    }
    let is_gzip = begin.starts_with(&[0x1f, 0x8b]);
    let is_tar = match is_gzip {
        true => looks_like_tar(MultiGzDecoder::new(begin.as_slice())),
        false => archive.tar.is_some() && looks_like_tar(begin.as_slice()),
    };
    if archive.tar.is_some() && !is_tar {
        return Err(ArtifactError::Hostile("it is said to be a tar archive and is none".to_owned()));
    }
    let whole = BufReader::with_capacity(64 << 10, io::Cursor::new(begin).chain(from));
    if archive.zip.is_some() {
        let mut file = tempfile::tempfile_in(scratch)?;
        let length = io::copy(&mut whole.take(bounds.bytes.saturating_add(1)), &mut file)?;
        if length > bounds.bytes {
            return Err(left.too_many_bytes());
        }
        into_place(root, &path, |folder| zip::unpack(&file, length, folder, &mut left))?;
    } else if is_gzip && is_tar {
        into_place(root, &path, |folder| tar(MultiGzDecoder::new(whole), folder, &mut left))?;
    } else if is_tar {
        into_place(root, &path, |folder| tar(whole, folder, &mut left))?;
    } else {
        copy(whole, root, &path, 0o644, &mut left)?;
    }
    Ok(())
}

/// Unpacks beside the path: a single top entry takes its name, several become a folder.
fn into_place(
    root: &Dir,
    path: &str,
    unpack: impl FnOnce(&Dir) -> Result<(), ArtifactError>,
) -> Result<(), ArtifactError> {
    let temporary = unpacked(path);
    root.create_dir(&temporary)?;
    unpack(&root.open_dir(&temporary)?)?;
    match names(root, &temporary)?.as_slice() {
        [only] => {
            root.rename(format!("{temporary}/{only}"), root, path)?;
            root.remove_dir(&temporary)?;
        }
        _ => root.rename(&temporary, root, path)?,
    }
    Ok(())
}

fn unpacked(path: &str) -> String {
    format!("{path}.unpacked")
}

/// Takes away what an attempt left that broke off.
pub(super) fn clear(root: &Dir, path: &str) {
    let path = relative(path);
    for path in [unpacked(&path), path] {
        if root.remove_file(&path).is_err() {
            let _ = root.remove_dir_all(&path);
        }
    }
}

/// A folder whose files are objects.
pub(super) struct Folder<'a> {
    root: &'a Dir,
    path: String,
    left: Left,
}

// === impl Folder ===

impl Folder<'_> {
    pub(super) fn begin<'a>(root: &'a Dir, path: &str, bounds: Bounds) -> Result<Folder<'a>, ArtifactError> {
        let path = relative(path);
        root.create_dir(&path)?;
        Ok(Folder { root, path, left: Left::new(bounds) })
    }

    /// Puts an object, or with a slash at the end of its name an empty folder, into it.
    pub(super) fn add(&mut self, name: &str, from: Option<&mut dyn Read>) -> Result<(), ArtifactError> {
        let path = inside(name)?;
        self.left.entry(path.matches('/').count())?;
        let path = format!("{}/{path}", self.path);
        match (from, path.rsplit_once('/')) {
            (None, _) => self.root.create_dir_all(&path)?,
            (Some(from), parent) => {
                if let Some((parent, _)) = parent {
                    self.root.create_dir_all(parent)?;
                }
                copy(from, self.root, &path, 0o644, &mut self.left)?;
            }
        }
        Ok(())
    }
}

pub(super) fn copy(
    from: impl Read,
    root: &Dir,
    path: &str,
    mode: u32,
    left: &mut Left,
) -> Result<(), ArtifactError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut to = root.open_with(path, &options)?;
    let copied = io::copy(&mut from.take(left.bytes.saturating_add(1)), &mut to)?;
    left.bytes(copied)
}

/// Gives an artifact the permissions that it is said to have.
pub(super) fn permit(root: &Dir, path: &str, artifact: &Artifact) -> Result<(), ArtifactError> {
    let Some(mode) = artifact.mode else { return Ok(()) };
    set_mode(root, &relative(path), mode & 0o777, artifact.recurse_mode == Some(true), 0)
}

/// The first block of a tar archive says so; a stream that cannot be read says nothing.
fn looks_like_tar(mut reader: impl Read) -> bool {
    let mut block = [0; 512];
    reader.read_exact(&mut block).is_ok()
        && (block.get(257..262) == Some(b"ustar") || block.iter().all(|byte| *byte == 0))
}

fn tar(reader: impl Read, folder: &Dir, left: &mut Left) -> Result<(), ArtifactError> {
    // What is read is bounded too: names and padding are no entries.
    let limit = left.bounds.bytes.saturating_add(left.bounds.entries.saturating_mul(2048));
    let mut archive = tar::Archive::new(reader.take(limit));
    let mut extended = Extended::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            extended.name = Some(long_name(&mut entry)?);
            continue;
        }
        if kind.is_gnu_longlink() {
            extended.link = Some(long_name(&mut entry)?);
            continue;
        }
        if kind.is_pax_local_extensions() {
            pax(&mut entry, &mut extended)?;
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let Extended { name, link } = std::mem::take(&mut extended);
        let name = match name {
            Some(name) => name,
            None => text(&entry.path_bytes())?,
        };
        let path = inside(&name)?;
        let depth = path.matches('/').count();
        left.entry(depth)?;
        if path == "." {
            continue;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            folder.create_dir_all(parent)?;
        }
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let target = |entry: &tar::Entry<'_, _>| match &link {
            Some(link) => Ok(link.clone()),
            None => entry.link_name_bytes().map_or_else(|| Ok(String::new()), |bytes| text(&bytes)),
        };
        if kind.is_dir() {
            folder.create_dir_all(&path)?;
            // The owner has to be able to write what comes next.
            folder.set_permissions(&path, Permissions::from_mode(mode | 0o700))?;
        } else if kind.is_symlink() {
            let target = target(&entry)?;
            if !stays_inside(&target, depth) {
                return Err(ArtifactError::Hostile(format!("the link {name:?} leads out of the archive")));
            }
            folder.symlink(&target, &path)?;
        } else if kind.is_hard_link() {
            let target = inside(&target(&entry)?)?;
            if !folder.symlink_metadata(&target)?.is_file() {
                return Err(ArtifactError::Hostile(format!(
                    "the link {name:?} is to no file of the archive"
                )));
            }
            folder.hard_link(&target, folder, &path)?;
        } else if kind.is_file() || kind == tar::EntryType::Continuous {
            // The last of several entries of one name counts.
            let _ = folder.remove_file(&path);
            copy(&mut entry, folder, &path, mode | 0o600, left)?;
        } else {
            return Err(ArtifactError::Hostile(format!(
                "{name:?} is neither a file nor a folder nor a link"
            )));
        }
    }
    Ok(())
}

/// A name of an archive as a path below its folder.
pub(super) fn inside(name: &str) -> Result<String, ArtifactError> {
    if name.starts_with('/') || name.contains('\0') || name.split('/').any(|part| part == "..") {
        return Err(ArtifactError::Hostile(format!(
            "illegal file path {name:?}: it leads out of the archive"
        )));
    }
    Ok(relative(name))
}

fn long_name(entry: &mut impl Read) -> Result<String, ArtifactError> {
    let mut bytes = Vec::new();
    entry.take(MAX_NAME + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_NAME {
        return Err(ArtifactError::Hostile(format!("a name is longer than {MAX_NAME} bytes")));
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    text(&bytes)
}

/// Records of `LENGTH key=value\n`.
fn pax(entry: &mut impl Read, extended: &mut Extended) -> Result<(), ArtifactError> {
    let damaged = || ArtifactError::Hostile("an extended header is damaged".to_owned());
    let mut bytes = Vec::new();
    entry.take(MAX_NAME + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_NAME {
        return Err(ArtifactError::Hostile(format!("an extended header is longer than {MAX_NAME} bytes")));
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let (digits, _) = rest.split_at(space);
        let length: usize =
            std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(damaged)?;
        let record = rest.get(space + 1..length.saturating_sub(1)).ok_or_else(damaged)?;
        rest = rest.get(length..).ok_or_else(damaged)?;
        let record = text(record)?;
        match record.split_once('=') {
            Some(("path", value)) => extended.name = Some(value.to_owned()),
            Some(("linkpath", value)) => extended.link = Some(value.to_owned()),
            Some(("size", _)) => {
                let message = "a file of 8 GiB or more is not part of this version of dhow";
                return Err(ArtifactError::Unsupported(message.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, ArtifactError> {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|_| ArtifactError::Unsupported("a name in the archive is no UTF-8".to_owned()))
}

fn set_mode(
    root: &Dir,
    path: &str,
    mode: u32,
    is_recursive: bool,
    depth: usize,
) -> Result<(), ArtifactError> {
    let meta = root.symlink_metadata(path)?;
    if meta.is_symlink() || depth > 256 {
        return Ok(());
    }
    if is_recursive && meta.is_dir() {
        for name in names(root, path)? {
            set_mode(root, &format!("{path}/{name}"), mode, true, depth + 1)?;
        }
    }
    Ok(root.set_permissions(path, Permissions::from_mode(mode))?)
}

// === impl Left ===

impl Left {
    fn new(bounds: Bounds) -> Left {
        Left { bytes: bounds.bytes, entries: bounds.entries, bounds }
    }

    fn bytes(&mut self, count: u64) -> Result<(), ArtifactError> {
        self.bytes = self.bytes.checked_sub(count).ok_or_else(|| self.too_many_bytes())?;
        Ok(())
    }

    fn too_many_bytes(&self) -> ArtifactError {
        ArtifactError::Hostile(format!("it has more than {} bytes when it is unpacked", self.bounds.bytes))
    }

    pub(super) fn entry(&mut self, depth: usize) -> Result<(), ArtifactError> {
        let limit = self.bounds.entries;
        let too_many = || ArtifactError::Hostile(format!("it has more than {limit} files and folders"));
        self.entries = self.entries.checked_sub(1).ok_or_else(too_many)?;
        if depth > 256 {
            return Err(ArtifactError::Hostile("it is nested deeper than 256 folders".to_owned()));
        }
        Ok(())
    }
}
