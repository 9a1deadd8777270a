//! The module inside a plain image (`FROM scratch` and a .wasm file): which file of which layer, found without
//! unpacking anything to disk.
//!
//! Layers are tar archives that change what the layers below hold
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md>). They are first listed, then the one file
//! that is wanted is read (`image/layer.rs`). What an archive may do harm with is not there to begin with: no name is ever a path on this
//! machine. All the same a name with `..` is refused, since no honest tool writes one.

mod layer;
mod zstd;

pub(crate) use layer::{Layer, Limits};

use crate::client::error::RegistryError;
use crate::client::transport::bytes_of;
use crate::sniff::sniff;
use bytes::Bytes;
use layer::{Budget, clean, each_entry, link};
use std::collections::BTreeMap;
use tar::EntryType;

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
    let mut budget = Budget::new(limits);
    let mut names = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        list(&mut names, index, layer, &mut budget)?;
    }
    let Some(name) = choose(&names, command).map_err(no_module)? else { return Ok(None) };
    let (name, index) = follow(&names, name).map_err(no_module)?;
    let layer = layers.get(index).ok_or_else(|| no_module("it has no such layer".to_owned()))?;
    let mut budget = Budget::new(limits);
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

#[cfg(test)]
mod tests {
    use super::{Layer, Limits, module};
    use crate::digest::Digest;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
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

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    /// A frame that holds no content.
    fn skipped(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [&[0x50, 0x2a, 0x4d, 0x18], &length[..], content].concat()
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
        let app = tar(&[file("app.wasm", WASM)]);
        // A frame without a size, whose window is 1 << (10 + 17) bytes.
        let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3][..], &[1, 0, 0]].concat();
        /// What it is about, the layers, the command, and what is found.
        type Case<'a> = (&'a str, Vec<Vec<u8>>, &'a [&'a str], Result<&'a [u8], &'a str>);
        let halves = app.split_at(700);
        let cases: [Case<'_>; 25] = [
            ("one file", vec![tar(&[file("app.wasm", WASM)])], &[], Ok(WASM)),
            ("gzip", vec![gzip(&tar(&[file("app.wasm", WASM)]))], &["/app.wasm"], Ok(WASM)),
            ("zstd", vec![zstd(&app)], &["/app.wasm"], Ok(WASM)),
            (
                "zstd in several frames",
                vec![
                    [skipped(b"head"), zstd(halves.0), skipped(b""), zstd(halves.1), skipped(b"end")]
                        .concat(),
                ],
                &[],
                Ok(WASM),
            ),
            (
                "zstd that skips more than there is",
                vec![[&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff][..], &zstd(&app)].concat()],
                &[],
                Err("no whole tar archive"),
            ),
            ("zstd with a window of 128 MiB", vec![window], &[], Err("no whole tar archive: ")),
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
        let packed = zstd(&half);
        let cut = packed[..packed.len() / 2].to_vec();
        let cases = [
            ("bytes", vec![gzip(&tar(&[file("a.wasm", &zeros)]))], "1 MiB"),
            ("bytes of two layers", vec![gzip(&half), gzip(&half)], "1 MiB"),
            ("bytes of zstd", vec![zstd(&tar(&[file("a.wasm", &zeros)]))], "1 MiB"),
            ("cut off zstd", vec![cut], "no whole tar archive"),
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
