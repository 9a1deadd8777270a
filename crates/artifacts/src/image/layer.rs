//! One layer of an image: a tar archive, plain or packed with gzip or Zstandard, read entry by entry within bounds.

use super::{shown, zstd};
use crate::client::error::RegistryError;
use crate::client::transport::bytes_of;
use crate::digest::Digest;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use std::io::{self, Read};
use tar::{Archive, EntryType};

/// Bounds of what is unpacked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of all layers, unpacked.
    pub(crate) unpacked: u64,
    /// Files, folders and links of all layers.
    pub(crate) entries: usize,
    /// Bytes of the module.
    pub(crate) module: u64,
}

/// Unpacked bytes of an image, as a multiple of the largest module.
const UNPACKED: u64 = 4;

/// Files, folders and links of an image that are looked at.
const MAX_ENTRIES: usize = 200_000;

/// Bytes of a name or of a PAX head, which are read whole, and of all names and links together.
const MAX_HEAD: u64 = 1 << 20;
const MAX_NAMES: usize = 64 << 20;

/// A layer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

/// Unpacked bytes of all layers, of which there may not be too many.
pub(super) struct Budget {
    pub(super) limits: Limits,
    bytes: u64,
    entries: usize,
    names: usize,
}

// === impl Limits ===

impl Limits {
    /// Where a module may have so many bytes.
    pub(crate) fn of(module: u64) -> Limits {
        Limits { unpacked: module.saturating_mul(UNPACKED), entries: MAX_ENTRIES, module }
    }
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(limits: Limits) -> Budget {
        Budget { limits, bytes: 0, entries: 0, names: 0 }
    }
}

/// Calls for each entry with its name in the image, until the answer is that it is enough.
pub(super) fn each_entry(
    layer: &Layer,
    budget: &mut Budget,
    mut each: impl FnMut(String, &Head, &mut dyn Read) -> Result<bool, String>,
) -> Result<(), RegistryError> {
    let refused = |reason: String| RegistryError::Layer { digest: layer.digest.clone(), reason };
    let (limits, entries) = (budget.limits, budget.entries);
    let exceeded = std::cell::Cell::new(false);
    let packed = &layer.bytes[..];
    // Whatever its media type says.
    let reader: Box<dyn Read + '_> = match packed {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        _ if zstd::is_packed(packed) => Box::new(zstd::Unpacked::new(packed)),
        _ => Box::new(packed),
    };
    let counted = Counted {
        inner: reader,
        left: limits.unpacked - budget.bytes.min(limits.unpacked),
        exceeded: &exceeded,
    };
    let mut archive = Archive::new(counted);
    let mut count = entries;
    let mut named = budget.names;
    let mut walk = || -> Result<(), String> {
        let mut before = Before::default();
        // The library reads what stands before an entry whole, however long it is; so that is read here.
        for entry in archive.entries().map_err(|error| damaged(&error))?.raw(true) {
            let mut entry = entry.map_err(|error| damaged(&error))?;
            count += 1;
            if count > limits.entries {
                return Ok(());
            }
            if before.take(&mut entry)? {
                continue;
            }
            let (path, head) = std::mem::take(&mut before).applied_to(&entry)?;
            let name = clean(&path)?;
            named = named.saturating_add(name.len() + head.link.as_ref().map_or(0, Vec::len));
            if named > MAX_NAMES {
                return Err(format!("its names have more than {MAX_NAMES} bytes"));
            }
            if each(name, &head, &mut entry)? {
                return Ok(());
            }
        }
        Ok(())
    };
    let walked = walk();
    if count > limits.entries {
        let what = format!("the image, at layer {},", layer.digest);
        return Err(RegistryError::Limit { what, limit: format!("{} files", limits.entries) });
    }
    if exceeded.get() {
        let what = format!("the image, at layer {}, unpacked,", layer.digest);
        return Err(RegistryError::Limit { what, limit: bytes_of(limits.unpacked) });
    }
    walked.map_err(refused)?;
    budget.bytes = limits.unpacked - archive.into_inner().left;
    budget.entries = count;
    budget.names = named;
    Ok(())
}

/// What an archive says of an entry.
pub(super) struct Head {
    pub(super) kind: EntryType,
    pub(super) size: u64,
    /// Where it leads, of a link.
    link: Option<Vec<u8>>,
}

/// What stands before an entry because its own head has no room for it: long names of GNU, and PAX
/// (<https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>).
#[derive(Default)]
struct Before {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<u8>,
}

// === impl Before ===

impl Before {
    /// Takes an entry that is about the next one; whether it is such a one.
    fn take(&mut self, entry: &mut tar::Entry<'_, Counted<'_>>) -> Result<bool, String> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.name = Some(ended(whole(entry)?)),
            EntryType::GNULongLink => self.link = Some(ended(whole(entry)?)),
            EntryType::XHeader => self.pax = whole(entry)?,
            // About all that follow; nothing of it counts here.
            EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Name and head of the entry that it is about.
    fn applied_to(mut self, entry: &tar::Entry<'_, Counted<'_>>) -> Result<(Vec<u8>, Head), String> {
        let header = entry.header();
        let mut kind = header.entry_type();
        let size = entry.header().entry_size().map_err(|error| damaged(&error))?;
        if kind == EntryType::GNUSparse && header.as_gnu().is_some_and(tar::GnuHeader::is_extended) {
            return Err("a sparse file in it has many parts".to_owned());
        }
        let (mut name, mut link) = (None, None);
        for pair in tar::PaxExtensions::new(&self.pax) {
            let pair = pair.map_err(|error| damaged(&error))?;
            match pair.key_bytes() {
                b"path" => name = Some(pair.value_bytes().to_vec()),
                b"linkpath" => link = Some(pair.value_bytes().to_vec()),
                // Who reads the one, and who the other, would find two archives in this one.
                b"size" if pair.value_bytes() != size.to_string().as_bytes() => {
                    return Err("an entry in it has two sizes".to_owned());
                }
                key if key.starts_with(b"GNU.sparse.") => kind = EntryType::GNUSparse,
                _ => {}
            }
        }
        let name = self.name.take().or(name).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self.link.take().or(link).or_else(|| Some(header.link_name_bytes()?.into_owned()));
        Ok((name, Head { kind, size, link }))
    }
}

/// What an entry holds that is no file, which is never long.
fn whole(entry: &mut tar::Entry<'_, Counted<'_>>) -> Result<Vec<u8>, String> {
    if entry.size() > MAX_HEAD {
        return Err(format!("a name or head in it has {} bytes; at most {MAX_HEAD} are read", entry.size()));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
    Ok(bytes)
}

/// Without the NUL that ends a long name.
fn ended(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn damaged(error: &io::Error) -> String {
    format!("it is no whole tar archive: {error}")
}

/// A name without `.` and the slash at its begin or end.
pub(super) fn clean(path: &[u8]) -> Result<String, String> {
    let path = std::str::from_utf8(path).map_err(|_| "a name in it is not UTF-8".to_owned())?;
    let mut words = Vec::new();
    for word in path.split('/') {
        match word {
            "" | "." => {}
            ".." => return Err(format!("the name {:?} in it leads out of the image", shown(path))),
            word => words.push(word),
        }
    }
    Ok(words.join("/"))
}

/// Where a link leads: from the root, or from the folder that it is in.
pub(super) fn link(head: &Head, folder: &str) -> Result<String, String> {
    let target = head.link.as_deref().ok_or("a link in it leads nowhere")?;
    let target = std::str::from_utf8(target).map_err(|_| "a link in it is not UTF-8".to_owned())?;
    let mut words: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => folder.split('/').filter(|word| !word.is_empty()).collect(),
    };
    for word in target.split('/') {
        match word {
            "" | "." => {}
            // The folder above the root is the root, as everywhere; images with whole systems have such links.
            ".." => drop(words.pop()),
            word => words.push(word),
        }
    }
    Ok(words.join("/"))
}

/// Unpacked bytes, of which there may be so many.
struct Counted<'a> {
    inner: Box<dyn Read + 'a>,
    left: u64,
    exceeded: &'a std::cell::Cell<bool>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded.set(true);
                return Err(io::Error::other("too much"));
            }
        }
        Ok(read)
    }
}
