//! The module inside a plain image (`FROM scratch` and a .wasm file): which file of which layer, found without
//! unpacking anything to disk.
//!
//! Layers are tar archives that change what the layers below hold
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md>). They are first listed, then the one file
//! that is wanted is read. What an archive may do harm with is not there to begin with: no name is ever a path on this
//! machine. All the same a name with `..` is refused, since no honest tool writes one.

use crate::client::error::RegistryError;
use crate::client::transport::bytes_of;
use crate::digest::Digest;
use crate::sniff::sniff;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
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

/// What is under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// A file: its layer.
    File(usize),
    /// Another name for this one.
    Link(String),
    /// A folder, device or pipe.
    Other(&'static str),
}

/// Names that lead to other names are followed so often.
const MAX_LINKS: usize = 8;

/// Names that are told when there is a choice.
const TOLD: usize = 5;

/// What begins the name of a file that removes another one.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Unpacked bytes of all layers, of which there may not be too many.
struct Budget {
    limits: Limits,
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

/// The module of an image: the file that `command` starts, which may be anything, else the one .wasm file that there is.
/// `None` where it starts nothing that it holds, and holds no such file. `reference` is for messages.
pub(crate) fn module(
    reference: &str,
    layers: &[Layer],
    command: &[String],
    limits: Limits,
) -> Result<Option<Bytes>, RegistryError> {
    let no_module = |reason: String| RegistryError::NoModule { reference: reference.to_owned(), reason };
    // Tools that push any file as it is call it a tar archive, too.
    if let [layer] = layers
        && sniff(&layer.bytes).is_wasm()
    {
        return Ok(Some(layer.bytes.clone()));
    }
    let mut budget = Budget { limits, bytes: 0, entries: 0, names: 0 };
    let mut names = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        list(&mut names, index, layer, &mut budget)?;
    }
    let Some(name) = choose(&names, command).map_err(no_module)? else { return Ok(None) };
    let (name, index) = follow(&names, name).map_err(no_module)?;
    let layer = layers.get(index).ok_or_else(|| no_module("it has no such layer".to_owned()))?;
    let mut budget = Budget { limits, bytes: 0, entries: 0, names: 0 };
    read(layer, name, &mut budget).map(Some)
}

/// Adds what a layer says to what is known of those below.
fn list(
    names: &mut BTreeMap<String, Found>,
    index: usize,
    layer: &Layer,
    budget: &mut Budget,
) -> Result<(), RegistryError> {
    // A layer removes what is below it, never what it holds itself.
    let mut added = BTreeMap::new();
    each_entry(layer, budget, |name, head, _| {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", &name));
        if file == OPAQUE {
            remove_below(names, folder);
        } else if let Some(removed) = file.strip_prefix(WHITEOUT) {
            let removed = if folder.is_empty() { removed.to_owned() } else { format!("{folder}/{removed}") };
            names.remove(&removed);
            remove_below(names, &removed);
        } else {
            let found = match head.kind {
                EntryType::Regular | EntryType::Continuous => Found::File(index),
                // A head that says it is gigabytes.
                EntryType::GNUSparse => Found::Other("a sparse file"),
                EntryType::Link => Found::Link(link(head, "")?),
                EntryType::Symlink => Found::Link(link(head, folder)?),
                EntryType::Directory => Found::Other("a folder"),
                EntryType::Char | EntryType::Block => Found::Other("a device"),
                EntryType::Fifo => Found::Other("a pipe"),
                _ => return Ok(false),
            };
            added.insert(name, found);
        }
        Ok(false)
    })?;
    names.extend(added);
    Ok(())
}

/// The content of one file; the last of its name wins, as it does when an archive is unpacked.
fn read(layer: &Layer, wanted: &str, budget: &mut Budget) -> Result<Bytes, RegistryError> {
    let limit = budget.limits.module;
    let mut content = None;
    let mut too_large = false;
    each_entry(layer, budget, |name, head, entry| {
        let is_file = matches!(head.kind, EntryType::Regular | EntryType::Continuous);
        if name != wanted || !is_file {
            return Ok(false);
        }
        if head.size > limit {
            too_large = true;
            return Ok(true);
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        content = Some(Bytes::from(bytes));
        Ok(false)
    })?;
    if too_large {
        let what = format!("the file {wanted} in layer {}", layer.digest);
        return Err(RegistryError::Limit { what, limit: bytes_of(limit) });
    }
    content.ok_or_else(|| RegistryError::Layer {
        digest: layer.digest.clone(),
        reason: format!("{wanted} is no plain file"),
    })
}

/// Calls for each entry with its name in the image, until the answer is that it is enough.
fn each_entry(
    layer: &Layer,
    budget: &mut Budget,
    mut each: impl FnMut(String, &Head, &mut dyn Read) -> Result<bool, String>,
) -> Result<(), RegistryError> {
    let refused = |reason: String| RegistryError::Layer { digest: layer.digest.clone(), reason };
    let (limits, entries) = (budget.limits, budget.entries);
    let exceeded = std::cell::Cell::new(false);
    let packed = &layer.bytes[..];
    let reader: Box<dyn Read + '_> = match packed.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(MultiGzDecoder::new(packed)),
        false => Box::new(packed),
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
struct Head {
    kind: EntryType,
    size: u64,
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
fn clean(path: &[u8]) -> Result<String, String> {
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
fn link(head: &Head, folder: &str) -> Result<String, String> {
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

fn remove_below(names: &mut BTreeMap<String, Found>, folder: &str) {
    if folder.is_empty() {
        names.clear();
        return;
    }
    let prefix = format!("{folder}/");
    names.retain(|name, _| !name.starts_with(&prefix));
}

/// The file that the image would start, else its one .wasm file.
fn choose<'a>(names: &'a BTreeMap<String, Found>, command: &[String]) -> Result<Option<&'a str>, String> {
    let is_wasm = |name: &str| name.ends_with(".wasm") || name.ends_with(".wat");
    // `file#function` starts another function of the file; which is not for the registry to know.
    let known = |word: &String| {
        let word = word.split('#').next().unwrap_or_default();
        resolve(names, &clean(word.as_bytes()).ok()?)
    };
    if let Some(first) = command.first().and_then(known) {
        return Ok(Some(first));
    }
    if let Some(word) = command.iter().find(|word| is_wasm(word.split('#').next().unwrap_or_default())) {
        return known(word)
            .map(Some)
            .ok_or_else(|| format!("the image starts {:?}, which is in none of its layers", shown(word)));
    }
    let files: Vec<&str> = names
        .iter()
        .filter(|(name, found)| is_wasm(name) && matches!(found, Found::File(_)))
        .map(|(name, _)| name.as_str())
        .collect();
    match files.as_slice() {
        [file] => Ok(Some(file)),
        [] => Ok(None),
        files => {
            let told: Vec<String> = files.iter().take(TOLD).map(|file| shown(file)).collect();
            Err(format!(
                "the image holds {} .wasm files ({}{}) and its entrypoint names none of them",
                files.len(),
                told.join(", "),
                if files.len() > TOLD { ", …" } else { "" }
            ))
        }
    }
}

/// The name under which a file or link lies, whose folders may be links: `/bin` is one to `usr/bin` in many images.
fn resolve<'a>(names: &'a BTreeMap<String, Found>, path: &str) -> Option<&'a str> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        if let Some((name, _)) = names.get_key_value(&path) {
            return Some(name);
        }
        let linked = |(at, _): (usize, &str)| match (names.get(path.get(..at)?)?, path.get(at..)?) {
            (Found::Link(target), rest) => Some(format!("{target}{rest}")),
            _ => None,
        };
        path = path.match_indices('/').find_map(linked)?.trim_start_matches('/').to_owned();
    }
    None
}

/// Goes on where links lead, to a file and its layer.
fn follow<'a>(names: &'a BTreeMap<String, Found>, begin: &'a str) -> Result<(&'a str, usize), String> {
    let mut name = begin;
    for _ in 0..MAX_LINKS {
        match names.get(name) {
            Some(Found::File(layer)) => return Ok((name, *layer)),
            Some(Found::Link(target)) => name = resolve(names, target).unwrap_or(target),
            Some(Found::Other(kind)) => {
                return Err(format!("the image starts {:?}, which is {kind}", shown(name)));
            }
            None => return Err(format!("the image starts {:?}, a link to nothing", shown(begin))),
        }
    }
    Err(format!("the image starts {:?}, a link that leads to links without end", shown(begin)))
}

fn shown(name: &str) -> String {
    name.chars().take(100).collect()
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

#[cfg(test)]
mod tests {
    use super::{Layer, Limits, module};
    use crate::digest::Digest;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;
    use tar::{Builder, EntryType, Header};

    const LIMITS: Limits = Limits { unpacked: 1 << 20, entries: 50, module: 1000 };
    const WASM: &[u8] = b"\0asm\x01\0\0\0";

    /// What an archive is made of: name, kind, content or where a link leads.
    type Item<'a> = (&'a str, EntryType, &'a [u8]);

    fn file<'a>(name: &'a str, content: &'a [u8]) -> Item<'a> {
        (name, EntryType::Regular, content)
    }

    fn tar(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in items {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            // Written by hand: the library refuses names that lead out.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            let is_link = matches!(kind, EntryType::Link | EntryType::Symlink);
            if is_link {
                header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content);
            }
            let content = if is_link { &b""[..] } else { content };
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn run(layers: &[Vec<u8>], command: &[&str]) -> Result<Vec<u8>, String> {
        let layers: Vec<Layer> = layers
            .iter()
            .map(|bytes| Layer { digest: Digest::sha256(bytes), bytes: bytes.clone().into() })
            .collect();
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let found = module("oci://r.io/a", &layers, &command, LIMITS);
        match found.map_err(|error| error.to_string())? {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err("no .wasm file".to_owned()),
        }
    }

    /// An entry that is about the next one, with this content.
    fn before(kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes
    }

    #[test]
    fn what_stands_before_an_entry_counts_and_is_never_long() {
        let small = |bytes: Vec<u8>| {
            let layer = Layer { digest: Digest::sha256(&bytes), bytes: bytes.into() };
            let limits = Limits { unpacked: 8 << 20, entries: 50, module: 1000 };
            module("oci://r.io/a", &[layer], &[], limits).map_err(|error| error.to_string())
        };
        let app = tar(&[file("cut", WASM)]);
        let with = |kind, content: &[u8]| [before(kind, content), app.clone()].concat();
        let long = format!("{}/long.wasm\0", "folder/".repeat(40));
        assert_eq!(small(with(EntryType::GNULongName, long.as_bytes())).unwrap().unwrap(), WASM);
        assert_eq!(small(with(EntryType::XHeader, b"17 path=pax.wasm\n")).unwrap().unwrap(), WASM);
        let two = small(with(EntryType::XHeader, b"12 size=100\n")).unwrap_err();
        assert!(two.contains("two sizes"), "{two}");
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let bomb = gzip(&with(kind, &vec![b'a'; 2 << 20]));
            let refused = small(bomb).unwrap_err();
            assert!(refused.contains("at most 1048576"), "{refused}");
        }
    }

    #[test]
    fn the_file_that_the_image_starts_is_found() {
        let other: &[u8] = b"other";
        let two = [file("./a.wasm", WASM), file("bin/b.wasm", other)];
        /// What it is about, the layers, the command, and what is found.
        type Case<'a> = (&'a str, Vec<Vec<u8>>, &'a [&'a str], Result<&'a [u8], &'a str>);
        let cases: [Case<'_>; 21] = [
            ("one file", vec![tar(&[file("app.wasm", WASM)])], &[], Ok(WASM)),
            ("gzip", vec![gzip(&tar(&[file("app.wasm", WASM)]))], &["/app.wasm"], Ok(WASM)),
            ("a module as it is", vec![WASM.to_vec()], &[], Ok(WASM)),
            ("entrypoint", vec![tar(&two)], &["/bin/b.wasm", "x"], Ok(other)),
            ("entrypoint in front of words", vec![tar(&two)], &["run", "a.wasm#main"], Ok(WASM)),
            ("no ending", vec![tar(&[file("app", WASM), file("b.wasm", other)])], &["app"], Ok(WASM)),
            ("two, and no entrypoint", vec![tar(&two)], &[], Err("2 .wasm files (a.wasm, bin/b.wasm)")),
            ("none", vec![tar(&[file("x", other)])], &["sh"], Err("no .wasm file")),
            ("missing", vec![tar(&two)], &["c.wasm"], Err("in none of its layers")),
            (
                "the upper layer wins",
                vec![tar(&[file("a.wasm", other)]), tar(&[file("a.wasm", WASM)])],
                &["a.wasm"],
                Ok(WASM),
            ),
            ("whiteout", vec![tar(&two), tar(&[file("bin/.wh.b.wasm", b""), file("c", b"")])], &[], Ok(WASM)),
            ("whiteout of a folder", vec![tar(&two), tar(&[file(".wh.bin", b"")])], &[], Ok(WASM)),
            (
                "opaque folder",
                vec![tar(&two), tar(&[file("bin/c.wasm", WASM), file("bin/.wh..wh..opq", b"")])],
                &["bin/b.wasm"],
                Err("in none of its layers"),
            ),
            (
                "links",
                vec![tar(&[
                    file("lib/real.wasm", WASM),
                    ("hard", EntryType::Link, b"lib/real.wasm"),
                    ("bin/soft", EntryType::Symlink, b"../../../hard"),
                ])],
                &["/bin/soft"],
                Ok(WASM),
            ),
            (
                "a linked folder",
                vec![
                    tar(&[("bin", EntryType::Symlink, b"usr/bin"), file("usr/bin/a.wasm", b"other")]),
                    tar(&[file("usr/bin/a.wasm", WASM), ("usr/sbin", EntryType::Symlink, b"/bin")]),
                ],
                &["/usr/sbin/a.wasm"],
                Ok(WASM),
            ),
            (
                "linked folders in a circle",
                vec![tar(&[("a", EntryType::Symlink, b"b"), ("b", EntryType::Symlink, b"a")])],
                &["/a/x.wasm"],
                Err("in none of its layers"),
            ),
            (
                "links in a circle",
                vec![tar(&[("a", EntryType::Symlink, b"b"), ("b", EntryType::Symlink, b"a")])],
                &["a"],
                Err("without end"),
            ),
            (
                "a link to what is outside",
                vec![tar(&[("a", EntryType::Symlink, b"/etc/passwd")])],
                &["a"],
                Err("a link to nothing"),
            ),
            (
                "a device",
                vec![tar(&[("a.wasm", EntryType::Char, b"")])],
                &["a.wasm"],
                Err("which is a device"),
            ),
            (
                "a name that leads out",
                vec![tar(&[file("../a.wasm", WASM)])],
                &[],
                Err("leads out of the image"),
            ),
            ("no archive", vec![b"x".repeat(1024)], &[], Err("no whole tar archive")),
        ];
        for (what, layers, command, expected) in cases {
            match (run(&layers, command), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{what}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{what}: {found}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let zeros = vec![0; 4 << 20];
        let many: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
        let many: Vec<Item<'_>> = many.iter().map(|name| file(name, b"")).collect();
        let half = tar(&[file("a.wasm", &zeros[..600 << 10])]);
        let cases = [
            ("bytes", vec![gzip(&tar(&[file("a.wasm", &zeros)]))], "1 MiB"),
            ("bytes of two layers", vec![gzip(&half), gzip(&half)], "1 MiB"),
            ("entries", vec![gzip(&tar(&many))], "50 files"),
            ("module", vec![gzip(&tar(&[file("a.wasm", &zeros[..2000])]))], "1000 bytes"),
            (
                "cut off",
                vec![gzip(&tar(&[file("a.wasm", &zeros[..2000])]))[..30].to_vec()],
                "no whole tar archive",
            ),
        ];
        for (what, layers, part) in cases {
            let error = run(&layers, &[]).unwrap_err();
            assert!(error.contains(part), "{what}: {error}");
        }
    }
}
