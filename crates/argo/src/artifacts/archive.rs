//! A file or folder into what is stored.
//!
//! As Argo's executor does it: tar, gzipped, with the last part of the path as its top entry; or plain. What a step
//! left behind is not trusted: nothing outside its own root is ever read, whatever links it made.

use super::repository::ArtifactError;
use cap_std::fs::{Dir, Metadata, MetadataExt};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Deepest folder in a folder.
pub(super) const MAX_DEPTH: usize = 256;

/// A path of a step as one inside its root.
pub(crate) fn relative(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

/// Writes a file and flushes it to the disk.
pub(super) fn flushed(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), ArtifactError>,
) -> Result<(), ArtifactError> {
    let mut writer = BufWriter::with_capacity(64 << 10, File::create(path)?);
    write(&mut writer)?;
    let file = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(file.sync_all()?)
}

/// Writes a gzipped tar archive.
pub(super) fn tar(
    root: &Dir,
    path: &str,
    level: Option<u32>,
    to: &mut dyn Write,
) -> Result<(), ArtifactError> {
    let path = relative(path);
    let name = base_name(&path);
    let level = level.map_or_else(Compression::default, Compression::new);
    let mut builder = tar::Builder::new(GzEncoder::new(to, level));
    append(&mut builder, root, &path, &name, 0)?;
    builder.into_inner()?.finish()?;
    Ok(())
}

/// The last part of a path, which is the top entry of its archive.
pub(super) fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    root: &Dir,
    path: &str,
    name: &str,
    depth: usize,
) -> Result<(), ArtifactError> {
    if depth > MAX_DEPTH {
        return Err(ArtifactError::Hostile(format!("{path:?} is nested deeper than {MAX_DEPTH} folders")));
    }
    // Of the artifact itself a link is followed, inside the root; links in a folder are kept as links.
    let meta = if depth == 0 { root.metadata(path)? } else { root.symlink_metadata(path)? };
    let mut header = tar::Header::new_gnu();
    header.set_mode(meta.mode() & 0o777);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    let kind = meta.file_type();
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        builder.append_data(&mut header, format!("{name}/"), io::empty())?;
        for entry in names(root, path)? {
            append(builder, root, &format!("{path}/{entry}"), &format!("{name}/{entry}"), depth + 1)?;
        }
    } else if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        let target = root.read_link(path)?;
        if !stays_inside(&target.to_string_lossy(), depth.saturating_sub(1)) {
            return Err(ArtifactError::Hostile(format!("the link {path:?} leads out of the artifact")));
        }
        builder.append_link(&mut header, name, target)?;
    } else if kind.is_file() {
        let file = root.open(path)?;
        header.set_size(meta.len());
        // A file that changes under the hand is cut or filled up: nothing runs any more that could write to it.
        builder.append_data(&mut header, name, io::Read::take(file, meta.len()))?;
    } else {
        return Err(ArtifactError::Hostile(not_a_file(path)));
    }
    Ok(())
}

/// What is known of an entry of a folder; a link is followed to a file inside the root. A link to a folder may be to
/// one that it stands in itself.
pub(super) fn followed(root: &Dir, path: &str) -> Result<Metadata, ArtifactError> {
    let meta = root.symlink_metadata(path)?;
    let meta = match meta.is_symlink() {
        false => return is_plain(path, meta),
        true => root.metadata(path)?,
    };
    if meta.is_dir() {
        let what = format!("the link {path:?} is to a folder: only tar archives keep links");
        return Err(ArtifactError::Unsupported(what));
    }
    is_plain(path, meta)
}

fn is_plain(path: &str, meta: Metadata) -> Result<Metadata, ArtifactError> {
    if meta.is_dir() || meta.is_file() { Ok(meta) } else { Err(ArtifactError::Hostile(not_a_file(path))) }
}

fn not_a_file(path: &str) -> String {
    format!("{path:?} is neither a file nor a folder nor a link")
}

/// The names in a folder, sorted: the same folder makes the same archive.
pub(super) fn names(root: &Dir, path: &str) -> Result<Vec<String>, ArtifactError> {
    let mut names = Vec::new();
    for entry in root.read_dir(path)? {
        let name = entry?.file_name().into_string();
        names
            .push(name.map_err(|name| ArtifactError::Unsupported(format!("the name {name:?} is no UTF-8")))?);
    }
    names.sort();
    Ok(names)
}

/// Whether a link's target stays in the archive, for a link that stands so many folders deep below its top entry.
pub(super) fn stays_inside(target: &str, depth: usize) -> bool {
    let mut depth = i64::try_from(depth).unwrap_or(0);
    if target.starts_with('/') {
        return false;
    }
    target.split('/').all(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth >= 0
    })
}

/// Visits the files in a folder, by their names relative to it; links are followed, inside the root.
pub(super) fn each_file(
    root: &Dir,
    path: &str,
    visit: &mut dyn FnMut(&str) -> Result<(), ArtifactError>,
) -> Result<(), ArtifactError> {
    each_file_below(root, path, "", visit, 0)
}

fn each_file_below(
    root: &Dir,
    folder: &str,
    prefix: &str,
    visit: &mut dyn FnMut(&str) -> Result<(), ArtifactError>,
    depth: usize,
) -> Result<(), ArtifactError> {
    if depth > MAX_DEPTH {
        return Err(ArtifactError::Hostile(format!("{folder:?} is nested deeper than {MAX_DEPTH} folders")));
    }
    for name in names(root, folder)? {
        let (path, name) = (format!("{folder}/{name}"), format!("{prefix}{name}"));
        if followed(root, &path)?.is_dir() {
            each_file_below(root, &path, &format!("{name}/"), visit, depth + 1)?;
        } else {
            visit(&name)?;
        }
    }
    Ok(())
}

/// Stores a folder as one file for each file.
pub(super) fn plain(root: &Dir, path: &str, to: &Path) -> Result<(), ArtifactError> {
    copy(root, &relative(path), to, 0)
}

fn copy(root: &Dir, path: &str, to: &Path, depth: usize) -> Result<(), ArtifactError> {
    if depth > MAX_DEPTH {
        return Err(ArtifactError::Hostile(format!("{path:?} is nested deeper than {MAX_DEPTH} folders")));
    }
    let meta = if depth == 0 { root.metadata(path)? } else { followed(root, path)? };
    if meta.is_dir() {
        std::fs::create_dir(to)?;
        for name in names(root, path)? {
            copy(root, &format!("{path}/{name}"), &to.join(&name), depth + 1)?;
        }
    } else {
        let mut file = root.open(path)?;
        flushed(to, |to| {
            io::copy(&mut file, to)?;
            Ok(())
        })?;
    }
    Ok(())
}
