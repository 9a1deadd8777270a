//! Artifacts there and back, and archives that nobody should unpack.

use super::repository::{ArtifactError, Bounds, Repository};
use super::{Archive, Artifact, Tar};
use cap_std::fs::Dir;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    repository: Repository,
}

fn place(bounds: Bounds) -> Place {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("root")).unwrap();
    let repository = Repository::open(&folder.path().join("artifacts"), bounds).unwrap();
    Place { folder, repository }
}

impl Place {
    fn root(&self) -> Dir {
        Dir::open_ambient_dir(self.folder.path().join("root"), cap_std::ambient_authority()).unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn plain() -> Option<Archive> {
    Some(Archive { none: Some(json!({})), ..Archive::default() })
}

fn packed(level: i32) -> Option<Archive> {
    Some(Archive { tar: Some(Tar { compression_level: Some(level) }), ..Archive::default() })
}

/// Everything below a folder: names, with the contents of files and the targets of links.
fn tree(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                found.push((name, "folder".to_owned()));
                open.push(path);
            } else if meta.is_symlink() {
                found.push((name, format!("-> {}", fs::read_link(path).unwrap().display())));
            } else {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn files_and_folders_come_back_as_they_were() {
    for archive in [None, packed(0), packed(9), plain()] {
        let place = place(Bounds::default());
        let root = place.path("root");
        fs::create_dir_all(root.join("out/inner")).unwrap();
        fs::write(root.join("out/a.txt"), "a").unwrap();
        fs::write(root.join("out/inner/b.txt"), "b".repeat(100_000)).unwrap();
        fs::write(root.join("one.txt"), "one").unwrap();
        fs::set_permissions(root.join("one.txt"), fs::Permissions::from_mode(0o755)).unwrap();
        let artifact = Artifact { archive: archive.clone(), ..Artifact::default() };
        for (path, key) in [("/out", "w/out.tgz"), ("/one.txt", "w/one.tgz")] {
            place.repository.save(&place.root(), path, &artifact, key).unwrap();
        }
        // How it is packed need not be said again, but for what looks packed and is not to be unpacked.
        let wanted = Artifact::default();
        place.repository.load("w/out.tgz", &place.root(), "/in", &wanted).unwrap();
        place.repository.load("w/one.tgz", &place.root(), "/renamed.txt", &wanted).unwrap();
        assert_eq!(tree(&root.join("in")), tree(&root.join("out")), "{archive:?}");
        assert_eq!(fs::read_to_string(root.join("renamed.txt")).unwrap(), "one");
        if archive != plain() {
            let mode = fs::metadata(root.join("renamed.txt")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        } else {
            let part = Artifact { sub_path: "inner/b.txt".to_owned(), ..Artifact::default() };
            place.repository.load("w/out.tgz", &place.root(), "/part", &part).unwrap();
            assert_eq!(fs::read_to_string(root.join("part")).unwrap().len(), 100_000);
        }
        // Stored again, it replaces what was there.
        fs::write(root.join("one.txt"), "two").unwrap();
        place.repository.save(&place.root(), "one.txt", &artifact, "w/one.tgz").unwrap();
        place.repository.load("w/one.tgz", &place.root(), "/again.txt", &wanted).unwrap();
        assert_eq!(fs::read_to_string(root.join("again.txt")).unwrap(), "two");
        assert_eq!(fs::read_dir(place.path("artifacts/.incomplete")).unwrap().count(), 0);
    }
}

#[test]
fn folders_under_one_key_keep_each_others_files() {
    let place = place(Bounds::default());
    let root = place.path("root");
    let artifact = Artifact { archive: plain(), ..Artifact::default() };
    // What a step leaves, and what is under the key then.
    for (files, expected) in [
        (vec![("one", "1"), ("deep/two", "2")], vec!["deep=folder", "deep/two=2", "one=1"]),
        (
            vec![("deep/three", "3"), ("one", "new")],
            vec!["deep=folder", "deep/three=3", "deep/two=2", "one=new"],
        ),
    ] {
        fs::create_dir_all(root.join("out/deep")).unwrap();
        files.iter().for_each(|(name, text)| fs::write(root.join("out").join(name), text).unwrap());
        place.repository.save(&place.root(), "/out", &artifact, "shared/").unwrap();
        fs::remove_dir_all(root.join("out")).unwrap();
        place.repository.load("shared", &place.root(), "/in", &Artifact::default()).unwrap();
        let found = tree(&root.join("in")).into_iter().map(|(name, text)| format!("{name}={text}"));
        assert_eq!(found.collect::<Vec<_>>(), expected);
        fs::remove_dir_all(root.join("in")).unwrap();
    }
    // A file cannot be where a folder is.
    fs::write(root.join("file"), "file").unwrap();
    for key in ["shared", "shared/deep", "shared/one/more"] {
        assert!(place.repository.save(&place.root(), "/file", &artifact, key).is_err(), "{key}");
    }
    fs::create_dir_all(root.join("out/one")).unwrap();
    fs::write(root.join("out/one/x"), "x").unwrap();
    assert!(place.repository.save(&place.root(), "/out", &artifact, "shared").is_err());
    assert_eq!(fs::read_to_string(place.path("artifacts/shared/one")).unwrap(), "new");
    assert_eq!(fs::read_dir(place.path("artifacts/.incomplete")).unwrap().count(), 0);
}

#[test]
fn what_is_stored_is_unpacked_by_argos_rules() {
    let place = place(Bounds::default());
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let two = archive(&[("a", "1"), ("b/c", "2")]);
    /// What it is, the object, its strategy, and the files that come out.
    type Case = (&'static str, Vec<u8>, Option<Archive>, &'static [(&'static str, &'static str)]);
    let cases: [Case; 5] = [
        (
            "several entries are a folder",
            gzip(&two),
            None,
            &[("x", "folder"), ("x/a", "1"), ("x/b", "folder"), ("x/b/c", "2")],
        ),
        (
            "a single entry is renamed",
            gzip(&archive(&[("deep/a", "1")])),
            None,
            &[("x", "folder"), ("x/a", "1")],
        ),
        ("gzip of something else stays", gzip(b"text"), plain(), &[]),
        (
            "tar that is not gzipped, if it is said",
            two.clone(),
            packed(0),
            &[("x", "folder"), ("x/a", "1"), ("x/b", "folder"), ("x/b/c", "2")],
        ),
        ("an empty archive is an empty folder", gzip(&[0; 1024]), None, &[("x", "folder")]),
    ];
    for (what, bytes, archive, expected) in cases {
        place.repository.put(&bytes, "k").unwrap();
        let wanted = Artifact { archive, ..Artifact::default() };
        place.repository.load("k", &place.root(), "/x", &wanted).unwrap();
        if expected.is_empty() {
            assert_eq!(fs::read(place.path("root/x")).unwrap(), bytes, "{what}");
            fs::remove_file(place.path("root/x")).unwrap();
            continue;
        }
        let found = tree(&place.path("root"));
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(found, expected, "{what}");
        fs::remove_dir_all(place.path("root/x")).unwrap();
    }
    let mode = Artifact { mode: Some(0o500), recurse_mode: Some(true), ..Artifact::default() };
    place.repository.put(&gzip(&two), "k").unwrap();
    place.repository.load("k", &place.root(), "/x", &mode).unwrap();
    for name in ["root/x", "root/x/a", "root/x/b/c"] {
        assert_eq!(fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777, 0o500, "{name}");
    }
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// One entry with any name, which no builder would make.
fn entry(name: &str, kind: tar::EntryType, target: &str, text: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

#[test]
fn hostile_archives_are_refused_and_touch_nothing_outside() {
    use tar::EntryType::{Block, Char, Fifo, Link, Regular, Symlink, XHeader};
    let long = "9".repeat(70_000);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("..", entry("../evil", Regular, "", "x")),
        ("hidden ..", entry("a/../../evil", Regular, "", "x")),
        ("absolute", entry("/tmp/evil", Regular, "", "x")),
        ("link up", entry("a", Symlink, "../evil", "")),
        ("link to the root", entry("a", Symlink, "/etc/passwd", "")),
        ("hard link up", entry("a", Link, "../../artifacts/k", "")),
        ("hard link to nothing", entry("a", Link, "b", "")),
        ("through a link", [entry("a", Symlink, "b/../..", ""), entry("a/evil", Regular, "", "x")].concat()),
        ("device", entry("a", Block, "", "")),
        ("terminal", entry("a", Char, "", "")),
        ("pipe", entry("a", Fifo, "", "")),
        ("long name", entry("a", XHeader, "", &long)),
        ("damaged header", entry("a", XHeader, "", "99 path=x\n")),
        (
            "name of an extended header",
            [entry("a", XHeader, "", "16 path=../evil\n"), entry("a", Regular, "", "x")].concat(),
        ),
        ("too many bytes", entry("a", Regular, "", &"x".repeat(20_000))),
        ("too many files", (0..30).flat_map(|n| entry(&format!("f{n}"), Regular, "", "")).collect()),
    ];
    for (what, mut bytes) in cases {
        let place = place(Bounds { bytes: 10_000, entries: 20 });
        bytes.extend([0; 1024]);
        place.repository.put(&bytes, "k").unwrap();
        let wanted = Artifact { archive: packed(0), ..Artifact::default() };
        let error = place.repository.load("k", &place.root(), "/x", &wanted);
        assert!(error.is_err(), "{what}");
        assert!(!place.path("evil").exists() && !place.path("root/evil").exists(), "{what}");
        assert!(!Path::new("/tmp/evil").exists(), "{what}");
    }
    // A small file that becomes a large one.
    let place = place(Bounds { bytes: 1 << 20, entries: 20 });
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&entry("a", Regular, "", &"x".repeat(64 << 20))).unwrap();
    place.repository.put(&encoder.finish().unwrap(), "bomb").unwrap();
    let error = place.repository.load("bomb", &place.root(), "/x", &Artifact::default()).unwrap_err();
    assert!(matches!(error, ArtifactError::Hostile(_)), "{error}");
}

#[test]
fn a_steps_links_and_keys_lead_nowhere() {
    let place = place(Bounds::default());
    let root = place.path("root");
    fs::write(place.path("secret"), "secret").unwrap();
    fs::create_dir(root.join("out")).unwrap();
    std::os::unix::fs::symlink(place.path("secret"), root.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("up")).unwrap();
    std::os::unix::fs::symlink("../../secret", root.join("out/inner")).unwrap();
    for path in ["/absolute", "/up", "/out", "/../secret", "/out/inner"] {
        for archive in [None, plain()] {
            let artifact = Artifact { archive, ..Artifact::default() };
            assert!(place.repository.save(&place.root(), path, &artifact, "k").is_err(), "{path}");
        }
    }
    for key in ["../secret", "/etc/passwd", "a//b", "a/../b", "", ".incomplete/x", "a\\b"] {
        let error = place.repository.load(key, &place.root(), "/x", &Artifact::default()).unwrap_err();
        let is_refused = matches!(error, ArtifactError::Key(_) | ArtifactError::Missing(_));
        assert!(is_refused, "{key}: {error}");
    }
    assert!(!place.path("artifacts/k").exists());
}

fn zip() -> Option<Archive> {
    Some(Archive { zip: Some(json!({})), ..Archive::default() })
}

/// A zip archive of one file of that name, which is as long as `out.x`.
fn zipped(name: &str, content: &[u8]) -> Vec<u8> {
    const ORIGINAL: &str = "out.x";
    assert_eq!(name.len(), ORIGINAL.len());
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(ORIGINAL), content).unwrap();
    let root = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
    let mut bytes = Vec::new();
    super::zip::pack(&root, ORIGINAL, &mut bytes).unwrap();
    let places: Vec<usize> = bytes
        .windows(ORIGINAL.len())
        .enumerate()
        .filter(|(_, part)| *part == ORIGINAL.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert_eq!(places.len(), 2, "once before the content, once in the directory");
    for at in places {
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    }
    bytes
}

#[test]
fn zip_archives_are_as_careful_as_others() {
    let here = place(Bounds::default());
    let root = here.path("root");
    fs::create_dir_all(root.join("out/inner")).unwrap();
    fs::write(root.join("out/a.txt"), "a".repeat(100_000)).unwrap();
    fs::write(root.join("out/inner/empty"), "").unwrap();
    fs::set_permissions(root.join("out/a.txt"), fs::Permissions::from_mode(0o751)).unwrap();
    let artifact = Artifact { archive: zip(), ..Artifact::default() };
    here.repository.save(&here.root(), "/out", &artifact, "k").unwrap();
    here.repository.load("k", &here.root(), "/in", &artifact).unwrap();
    assert_eq!(tree(&root.join("in")), tree(&root.join("out")));
    assert_eq!(fs::metadata(root.join("in/a.txt")).unwrap().permissions().mode() & 0o777, 0o751);
    // Nobody guesses that it is one.
    here.repository.load("k", &here.root(), "/file", &Artifact::default()).unwrap();
    assert!(root.join("file").is_file());

    let good = zipped("fine1", b"fine");
    let changed = |at: usize, by: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= by;
        bytes
    };
    let directory = good.windows(4).position(|part| part == [0x50, 0x4b, 1, 2]).unwrap();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("..", zipped("../ev", b"x")),
        ("absolute", zipped("/tmp1", b"x")),
        ("a bomb", zipped("bomb1", &vec![0; 1 << 20])),
        ("no zip", b"PK\x03\x04 and no more".to_vec()),
        ("cut", good[..good.len() - 30].to_vec()),
        ("another checksum", changed(directory + 16, 1)),
        ("encrypted", changed(directory + 8, 1)),
        ("another method", changed(directory + 10, 1)),
        ("another place", changed(directory + 42, 1)),
        ("a device", changed(directory + 41, 0o140)),
        ("more packed than there is", changed(directory + 22, 1)),
        ("nothing", Vec::new()),
    ];
    for (what, bytes) in cases {
        let there = place(Bounds { bytes: 10_000, entries: 20 });
        there.repository.put(&bytes, "k").unwrap();
        let error = there.repository.load("k", &there.root(), "/x", &artifact);
        assert!(error.is_err(), "{what}");
        assert_eq!(tree(&there.path("root")), [], "{what}: nothing is left");
    }
    let there = place(Bounds { bytes: 10_000, entries: 20 });
    there.repository.put(&good, "k").unwrap();
    there.repository.load("k", &there.root(), "/x", &artifact).unwrap();
    assert_eq!(fs::read_to_string(there.path("root/x")).unwrap(), "fine");
}

#[test]
fn links_to_folders_are_not_followed_for_ever() {
    let place = place(Bounds::default());
    let root = place.path("root");
    fs::create_dir(root.join("out")).unwrap();
    fs::write(root.join("out/file"), "file").unwrap();
    std::os::unix::fs::symlink("file", root.join("out/link")).unwrap();
    for archive in [plain(), zip()] {
        let key = if archive == zip() { "zip" } else { "plain" };
        let artifact = Artifact { archive, ..Artifact::default() };
        place.repository.save(&place.root(), "/out", &artifact, key).unwrap();
        place.repository.load(key, &place.root(), "/in", &artifact).unwrap();
        assert_eq!(fs::read_to_string(root.join("in/link")).unwrap(), "file");
        fs::remove_dir_all(root.join("in")).unwrap();
    }
    std::os::unix::fs::symlink(".", root.join("out/round")).unwrap();
    for archive in [plain(), zip()] {
        let artifact = Artifact { archive, ..Artifact::default() };
        let error = place.repository.save(&place.root(), "/out", &artifact, "k").unwrap_err();
        assert!(matches!(error, ArtifactError::Unsupported(_)), "{error}");
    }
}

#[test]
fn what_makes_a_location_is_argos_rule() {
    use super::Location::{Key, None, Own, Raw};
    let cases = [
        (json!({}), None),
        (json!({"s3": {"key": "a"}}), Key("a".to_owned())),
        (json!({"s3": {"bucket": "b", "key": "a"}}), Key("a".to_owned())),
        (json!({"s3": {"endpoint": "e", "bucket": "b", "key": "a"}}), Own("s3")),
        (json!({"gcs": {"bucket": "b", "key": "a"}}), Own("gcs")),
        (json!({"gcs": {"key": "a"}}), Key("a".to_owned())),
        (json!({"azure": {"blob": "a"}}), Key("a".to_owned())),
        (json!({"raw": {"data": "text"}}), Raw("text".to_owned())),
        (json!({"http": {"url": "http://h"}}), Own("http")),
        (json!({"git": {"repo": "https://h/r"}}), Own("git")),
        (json!({"http": {}}), None),
    ];
    for (location, expected) in cases {
        let artifact: Artifact = serde_json::from_value(location.clone()).unwrap();
        assert_eq!(artifact.location(), expected, "{location}");
    }
}
