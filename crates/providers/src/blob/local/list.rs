//! Names of the files below a folder, page by page, in their order as bytes.

use super::{OWN, failed, info};
use cap_std::fs::Dir;
use dhow_blocks::blob::{BlobError, Info, List, MAX_PAGE, Page};
use dhow_blocks::error::BlockError;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Files that are looked at for one page at most.
const MAX_FILES: usize = 100_000;

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 64;

/// What a list is about to show: an object, or none for a beginning of names that counts as one.
type Found = BTreeMap<String, Option<Info>>;

/// One page.
pub(super) fn page(root: &Dir, folder: &Path, list: &List) -> Result<Page, BlobError> {
    let start = match folder.as_os_str().is_empty() {
        true => root.try_clone(),
        false => root.open_dir(folder),
    };
    let start = start.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BlobError::NotFound { what: format!("bucket {:?}", list.bucket) },
        _ => failed(&list.bucket, &error),
    })?;
    let (mut found, mut left) = (Found::new(), MAX_FILES);
    walk(&start, "", 0, list, &mut left, &mut found)?;
    let limit = list.limit.clamp(1, MAX_PAGE);
    let is_truncated = found.len() > limit;
    let (mut page, mut last) = (Page::default(), None);
    for (name, info) in found.into_iter().take(limit) {
        last = Some(name.clone());
        match info {
            Some(info) => page.objects.push(info),
            None => page.prefixes.push(name),
        }
    }
    page.next = last.filter(|_| is_truncated);
    Ok(page)
}

/// Adds what is below a folder, whose name is `prefix`.
fn walk(
    folder: &Dir,
    prefix: &str,
    depth: usize,
    list: &List,
    left: &mut usize,
    found: &mut Found,
) -> Result<(), BlobError> {
    let io = |error: io::Error| failed(prefix, &error);
    for entry in folder.entries().map_err(io)? {
        let entry = entry.map_err(io)?;
        *left = left.checked_sub(1).ok_or_else(|| {
            BlockError::failed(format!(
                "there are more than {MAX_FILES} files; list those of a longer prefix"
            ))
        })?;
        // A name that is not UTF-8 cannot be asked for.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if depth == 0 && name == OWN {
            continue;
        }
        let name = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(io)?;
        if kind.is_dir() {
            let below = format!("{name}/");
            let common = below.len().min(list.prefix.len());
            let is_wanted = below.as_bytes()[..common] == list.prefix.as_bytes()[..common];
            if is_wanted && depth < MAX_DEPTH {
                walk(&entry.open_dir().map_err(io)?, &below, depth + 1, list, left, found)?;
            }
            continue;
        }
        let Some(rest) = name.strip_prefix(list.prefix.as_str()).filter(|_| kind.is_file()) else { continue };
        let delimiter = if list.delimiter.is_empty() { None } else { rest.find(&list.delimiter) };
        let counted = match delimiter {
            Some(at) => name[..list.prefix.len() + at + list.delimiter.len()].to_owned(),
            None => name.clone(),
        };
        if counted <= list.after || found.contains_key(&counted) {
            continue;
        }
        let object = match delimiter {
            Some(_) => None,
            // Gone meanwhile: it is not listed.
            None => match entry.metadata() {
                Ok(metadata) => Some(info(name, &metadata)),
                Err(_) => continue,
            },
        };
        found.insert(counted, object);
    }
    Ok(())
}
