//! Stamps: a file beside a result that says what the result was made from, so that it is made only once.
//!
//! A stamp is written after its result and removed before the result is touched: a crash between leaves work
//! to do again, never a half result that counts. A lock file keeps two runs from making the same thing.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

/// Makes a result unless its stamp already holds `content`; whether it was made now.
pub fn once(stamp: &Path, content: &str, made: impl FnOnce() -> Result<(), String>) -> Result<bool, String> {
    let at = |e: std::io::Error| format!("{}: {e}", stamp.display());
    fs::create_dir_all(stamp.parent().unwrap_or(Path::new("."))).map_err(at)?;
    let lock = File::create(stamp.with_extension("lock")).map_err(at)?;
    lock.lock().map_err(at)?;
    if fs::read_to_string(stamp).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    match fs::remove_file(stamp) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(e)),
        _ => {}
    }
    made()?;
    fs::write(stamp, content).map_err(at)?;
    Ok(true)
}

/// A digest of files and folders, names included. Results of builds and hidden files do not count.
pub fn digest(paths: &[&Path]) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        add(path, &mut hasher)?;
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn add(path: &Path, hasher: &mut DefaultHasher) -> Result<(), String> {
    let at = |e: std::io::Error| format!("{}: {e}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    hasher.write(name.as_bytes());
    if !path.is_dir() {
        hasher.write(&fs::read(path).map_err(at)?);
        hasher.write_u8(0xff);
        return Ok(());
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(at)? {
        inside.push(entry.map_err(at)?.path());
    }
    inside.sort();
    for path in inside {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let result = matches!(&*name, "build" | "target" | "node_modules" | "__pycache__");
        if !result && !name.starts_with('.') && !name.ends_with(".wasm") {
            add(&path, hasher)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_made_once_for_each_content() {
        let folder = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        let stamp = folder.join("result.stamp");
        for (content, outcome, expected) in [
            ("a", Ok(()), Ok(true)),
            ("a", Ok(()), Ok(false)),
            ("b", Err("no".to_owned()), Err("no".to_owned())),
            ("a", Ok(()), Ok(true)), // a failed attempt leaves no stamp behind
            ("b", Ok(()), Ok(true)),
        ] {
            assert_eq!(once(&stamp, content, || outcome), expected, "{content}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_digest_sees_content_and_names_but_no_results() {
        let folder = std::env::temp_dir().join(format!("xtask-digest-{}", std::process::id()));
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::create_dir_all(folder.join("target")).unwrap();
        let mut seen = Vec::new();
        for (file, text, changes) in [
            ("src/a.rs", "1", true),
            ("src/a.rs", "2", true),
            ("src/b.rs", "2", true),
            ("target/a", "1", false),
            ("src/x.wasm", "1", false),
            ("src/.a.swp", "1", false),
        ] {
            fs::write(folder.join(file), text).unwrap();
            let now = digest(&[&folder]).unwrap();
            assert_eq!(!seen.contains(&now), changes, "{file} {text}");
            seen.push(now);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
