//! Zip archives: written as they go, read by their central directory, of which nothing is believed.
//!
//! Format: PKWARE's APPNOTE 6.3.10, with ZIP64; the methods that Go's and Python's libraries write, which are *stored*
//! and *deflate*. As in tar archives of artifacts, the last part of the path is the top entry.

use super::archive::{MAX_DEPTH, base_name, followed, names, relative, stays_inside};
use super::repository::ArtifactError;
use super::unpack::{Left, copy, inside};
use cap_std::fs::{Dir, MetadataExt, Permissions, PermissionsExt};
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;

/// Sizes follow the content; names are UTF-8.
const FLAGS: u16 = 1 << 3 | 1 << 11;
const ENCRYPTED: u16 = 1;
const STORED: u16 = 0;
const DEFLATE: u16 = 8;

/// Made by version 4.5 on Unix: then the high half of the attributes is a file's mode.
const MADE_BY: u16 = 3 << 8 | 45;
const UNIX: u16 = 3;

/// 1980-01-01, the first day that the format knows.
const FIRST_DAY: u16 = 1 << 5 | 1;

/// The end record with the longest comment, and the locator before it.
const MAX_END: u64 = 22 + 65_535 + 20;

/// Longest target of a link.
const MAX_LINK: u64 = 4096;

/// What the central directory says of an entry.
struct Entry {
    name: String,
    mode: u32,
    method: u16,
    flags: u16,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
}

// === writing ===

/// A writer that counts.
struct Counted<'a> {
    to: &'a mut dyn Write,
    count: u64,
}

struct Archive<'a> {
    to: Counted<'a>,
    entries: Vec<Entry>,
}

/// Writes an archive of a file or folder.
pub(super) fn pack(root: &Dir, path: &str, to: &mut dyn Write) -> Result<(), ArtifactError> {
    let path = relative(path);
    let mut archive = Archive { to: Counted { to, count: 0 }, entries: Vec::new() };
    archive.add(root, &path, &base_name(&path), 0)?;
    Ok(archive.finish()?)
}

// === impl Archive ===

impl Archive<'_> {
    fn add(&mut self, root: &Dir, path: &str, name: &str, depth: usize) -> Result<(), ArtifactError> {
        if depth > MAX_DEPTH {
            return Err(ArtifactError::Hostile(format!(
                "{path:?} is nested deeper than {MAX_DEPTH} folders"
            )));
        }
        let meta = if depth == 0 { root.metadata(path)? } else { followed(root, path)? };
        if meta.is_dir() {
            self.entry(format!("{name}/"), meta.mode(), STORED, &mut io::empty())?;
            for entry in names(root, path)? {
                self.add(root, &format!("{path}/{entry}"), &format!("{name}/{entry}"), depth + 1)?;
            }
            return Ok(());
        }
        Ok(self.entry(name.to_owned(), meta.mode(), DEFLATE, &mut root.open(path)?)?)
    }

    fn entry(&mut self, name: String, mode: u32, method: u16, from: &mut dyn Read) -> io::Result<()> {
        let long = u16::try_from(name.len()).map_err(|_| io::Error::other("a name is too long for zip"))?;
        let offset = self.to.count;
        let mut header = Bytes::default();
        header.u32(LOCAL).u16(45).u16(FLAGS).u16(method).u16(0).u16(FIRST_DAY);
        header.u32(0).u32(0).u32(0).u16(long).u16(0).bytes(name.as_bytes());
        self.to.write_all(&header.0)?;
        let begin = self.to.count;
        let mut summed = Summed { from, crc: Crc::new(), size: 0 };
        if method == DEFLATE {
            let mut encoder = DeflateEncoder::new(&mut self.to, Compression::default());
            io::copy(&mut summed, &mut encoder)?;
            encoder.finish()?;
        }
        let (crc, size, packed) = (summed.crc.sum(), summed.size, self.to.count - begin);
        let mut descriptor = Bytes::default();
        descriptor.u32(DESCRIPTOR).u32(crc);
        // As Go does it: with eight bytes a size where four do not do.
        match (u32::try_from(packed), u32::try_from(size)) {
            (Ok(packed), Ok(size)) => descriptor.u32(packed).u32(size),
            _ => descriptor.u64(packed).u64(size),
        };
        self.to.write_all(&descriptor.0)?;
        self.entries.push(Entry { name, mode, method, flags: FLAGS, crc, packed, size, offset });
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let begin = self.to.count;
        for entry in &self.entries {
            let mut extra = Bytes::default();
            let is_large =
                [entry.packed, entry.size, entry.offset].iter().any(|number| *number >= u64::from(u32::MAX));
            if is_large {
                extra.u16(1).u16(24).u64(entry.size).u64(entry.packed).u64(entry.offset);
            }
            let short =
                |number: u64| if is_large { u32::MAX } else { u32::try_from(number).unwrap_or(u32::MAX) };
            let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            let mut header = Bytes::default();
            header.u32(CENTRAL).u16(MADE_BY).u16(45).u16(entry.flags).u16(entry.method).u16(0).u16(FIRST_DAY);
            header.u32(entry.crc).u32(short(entry.packed)).u32(short(entry.size));
            header.u16(length(entry.name.as_bytes())).u16(length(&extra.0)).u16(0).u16(0).u16(0);
            header.u32(entry.mode << 16).u32(short(entry.offset));
            header.bytes(entry.name.as_bytes()).bytes(&extra.0);
            self.to.write_all(&header.0)?;
        }
        let (count, end) = (self.entries.len() as u64, self.to.count);
        let mut record = Bytes::default();
        if count >= u64::from(u16::MAX) || end >= u64::from(u32::MAX) {
            record.u32(END64).u64(44).u16(MADE_BY).u16(45).u32(0).u32(0).u64(count).u64(count);
            record.u64(end - begin).u64(begin).u32(LOCATOR64).u32(0).u64(end).u32(1);
        }
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        record.u32(END).u16(0).u16(0).u16(count).u16(count).u32(short(end - begin)).u32(short(begin)).u16(0);
        self.to.write_all(&record.0)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Numbers as the format has them, the lowest byte first.
#[derive(Default)]
struct Bytes(Vec<u8>);

// === impl Bytes ===

impl Bytes {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Bytes {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, number: u16) -> &mut Bytes {
        self.bytes(&number.to_le_bytes())
    }

    fn u32(&mut self, number: u32) -> &mut Bytes {
        self.bytes(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Bytes {
        self.bytes(&number.to_le_bytes())
    }
}

/// A reader that sums up.
struct Summed<R> {
    from: R,
    crc: Crc,
    size: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.crc.update(buffer.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }
}

// === reading ===

/// A file from some place on.
struct At<'a> {
    file: &'a File,
    position: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

fn damaged(what: &str) -> ArtifactError {
    ArtifactError::Hostile(format!("the zip archive is damaged: {what}"))
}

/// Unpacks an archive of that length into a folder.
pub(super) fn unpack(file: &File, length: u64, folder: &Dir, left: &mut Left) -> Result<(), ArtifactError> {
    let (count, directory) = end(file, length)?;
    let mut directory = BufReader::new(At { file, position: directory });
    let mut packed = 0_u64;
    for _ in 0..count {
        let entry = central(&mut directory)?;
        // Entries that share their content make bombs out of small files.
        packed = packed.saturating_add(entry.packed);
        if packed > length {
            return Err(ArtifactError::Hostile("entries of the zip archive overlap".to_owned()));
        }
        extract(file, &entry, folder, left)?;
    }
    Ok(())
}

/// How many entries there are, and where the central directory begins.
fn end(file: &File, length: u64) -> Result<(u64, u64), ArtifactError> {
    let from = length.saturating_sub(MAX_END);
    let mut tail = Vec::new();
    At { file, position: from }.take(MAX_END).read_to_end(&mut tail)?;
    let at = (0..=tail.len().saturating_sub(22)).rev().find(|at| {
        let record = tail.get(*at..).unwrap_or_default();
        let comment = number(record, 20, 2).and_then(|comment| usize::try_from(comment).ok());
        number(record, 0, 4) == Some(END.into())
            && comment.is_some_and(|comment| record.len() == 22 + comment)
    });
    let none = || ArtifactError::Hostile("it is said to be a zip archive and is none".to_owned());
    let at = at.ok_or_else(none)?;
    let record = tail.get(at..).unwrap_or_default();
    let field = |offset, bytes| number(record, offset, bytes).unwrap_or(0);
    let (count, begin) = (field(10, 2), field(16, 4));
    let locator = at.checked_sub(20).and_then(|at| tail.get(at..)).unwrap_or_default();
    if number(locator, 0, 4) != Some(LOCATOR64.into()) {
        return Ok((count, begin));
    }
    let mut record = Vec::new();
    let position = number(locator, 8, 8).unwrap_or(0);
    At { file, position }.take(56).read_to_end(&mut record)?;
    match (number(&record, 0, 4), number(&record, 32, 8), number(&record, 48, 8)) {
        (Some(magic), Some(count), Some(begin)) if magic == u64::from(END64) => Ok((count, begin)),
        _ => Err(damaged("its end is not where it is said to be")),
    }
}

/// Up to eight bytes as a number.
fn number(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn short(bytes: &[u8], offset: usize) -> u16 {
    number(bytes, offset, 2).and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
}

fn central(directory: &mut impl Read) -> Result<Entry, ArtifactError> {
    let mut header = [0; 46];
    directory.read_exact(&mut header).map_err(|_| damaged("its directory breaks off"))?;
    if number(&header, 0, 4) != Some(CENTRAL.into()) {
        return Err(damaged("its directory is none"));
    }
    let field = |offset| number(&header, offset, 4).unwrap_or(0);
    let mut name = vec![0; short(&header, 28).into()];
    let mut extra = vec![0; short(&header, 30).into()];
    let mut comment = vec![0; short(&header, 32).into()];
    for part in [&mut name, &mut extra, &mut comment] {
        directory.read_exact(part).map_err(|_| damaged("its directory breaks off"))?;
    }
    let name = String::from_utf8(name)
        .map_err(|_| ArtifactError::Unsupported("a name in the archive is no UTF-8".to_owned()))?;
    let is_unix = short(&header, 4) >> 8 == UNIX;
    let mode = u32::try_from(field(38) >> 16).unwrap_or(0);
    let mut entry = Entry {
        name,
        mode: if is_unix { mode } else { 0 },
        flags: short(&header, 8),
        method: short(&header, 10),
        crc: u32::try_from(field(16)).unwrap_or(0),
        packed: field(20),
        size: field(24),
        offset: field(42),
    };
    // ZIP64: of size, packed size and offset those that did not fit, in this order.
    let mut rest = extra.as_slice();
    while let (Some(kind), Some(length)) = (number(rest, 0, 2), number(rest, 2, 2)) {
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(4);
        let field = rest.get(4..end).unwrap_or_default();
        if kind == 1 {
            let mut at = 0;
            for value in [&mut entry.size, &mut entry.packed, &mut entry.offset] {
                if *value == u64::from(u32::MAX) {
                    *value = number(field, at, 8).ok_or_else(|| damaged("a size is missing"))?;
                    at += 8;
                }
            }
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(entry)
}

fn extract(file: &File, entry: &Entry, folder: &Dir, left: &mut Left) -> Result<(), ArtifactError> {
    let name = &entry.name;
    let path = inside(name)?;
    let depth = path.matches('/').count();
    left.entry(depth)?;
    if path == "." {
        return Ok(());
    }
    if entry.flags & ENCRYPTED != 0 {
        return Err(ArtifactError::Unsupported(format!("{name:?} is encrypted")));
    }
    let kind = entry.mode & 0o170_000;
    let permissions = entry.mode & 0o777;
    if name.ends_with('/') {
        folder.create_dir_all(&path)?;
        if permissions != 0 {
            folder.set_permissions(&path, Permissions::from_mode(permissions | 0o700))?;
        }
        return Ok(());
    }
    if let Some((parent, _)) = path.rsplit_once('/') {
        folder.create_dir_all(parent)?;
    }
    let mut header = [0; 30];
    At { file, position: entry.offset }
        .read_exact(&mut header)
        .map_err(|_| damaged("an entry is missing"))?;
    if number(&header, 0, 4) != Some(LOCAL.into()) {
        return Err(damaged("an entry is not where it is said to be"));
    }
    let names = u64::from(short(&header, 26)) + u64::from(short(&header, 28));
    let position = entry.offset.saturating_add(30 + names);
    let content = BufReader::new(At { file, position }).take(entry.packed);
    let content: Box<dyn Read> = match entry.method {
        STORED => Box::new(content),
        DEFLATE => Box::new(DeflateDecoder::new(content)),
        method => {
            let what =
                format!("{name:?} is packed with method {method}; known are stored (0) and deflate (8)");
            return Err(ArtifactError::Unsupported(what));
        }
    };
    let mut content = Summed { from: content, crc: Crc::new(), size: 0 };
    match kind {
        0o120_000 => {
            let mut target = String::new();
            (&mut content).take(MAX_LINK).read_to_string(&mut target)?;
            if !stays_inside(&target, depth) {
                return Err(ArtifactError::Hostile(format!("the link {name:?} leads out of the archive")));
            }
            folder.symlink(&target, &path)?;
        }
        0 | 0o100_000 => {
            let mode = if permissions == 0 { 0o644 } else { permissions };
            // The last of several entries of one name counts.
            let _ = folder.remove_file(&path);
            copy(&mut content, folder, &path, mode, left)?;
        }
        _ => {
            return Err(ArtifactError::Hostile(format!(
                "{name:?} is neither a file nor a folder nor a link"
            )));
        }
    }
    if content.crc.sum() != entry.crc || content.size != entry.size {
        return Err(damaged(&format!("{name:?} is not what its checksum says")));
    }
    Ok(())
}
