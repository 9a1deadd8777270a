//! Writing a JSON file of values that operators edit, too: everything else in it stays as it is.
//!
//! A new file takes the place of the old one at once, so that nobody reads half of it. Writers of several processes wait
//! for each other by a lock on the folder's file `<name>.lock`; an editor knows nothing of it.

use dhow_blocks::configuration::{ConfigurationItem, Items};
use dhow_blocks::error::BlockError;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Sets these values, and deletes those keys.
pub(super) fn edit(path: &Path, set: Items, delete: &[String]) -> Result<(), BlockError> {
    let failed =
        |error: io::Error| BlockError::unavailable(format!("cannot write {}: {error}", path.display()));
    // What a link leads to is written, not the link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let lock = File::create(beside(path, ".lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let (mut entries, permissions) = match File::open(path) {
        Ok(file) => (read(path, &file)?, file.metadata().ok().map(|metadata| metadata.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Map::new(), None),
        Err(error) => return Err(failed(error)),
    };
    for key in delete {
        entries.shift_remove(key);
    }
    for (key, item) in set {
        entries.insert(key, entry(item));
    }
    let text = serde_json::to_string_pretty(&Value::Object(entries)).unwrap_or_default();
    let new = beside(path, ".new");
    let written = || {
        let mut file = File::create(&new)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(failed)
}

fn read(path: &Path, file: &File) -> Result<Map<String, Value>, BlockError> {
    let text = io::read_to_string(file)
        .map_err(|error| BlockError::unavailable(format!("cannot read {}: {error}", path.display())))?;
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    // The text may hold secrets: the error has a place and a reason only.
    serde_json::from_str(&text).map_err(|error| {
        BlockError::failed(format!(
            "{} is not one JSON object, and is left as it is: {error}",
            path.display()
        ))
    })
}

fn beside(path: &Path, ending: &str) -> std::path::PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// As an operator would write it: a value alone where there is nothing else.
fn entry(item: ConfigurationItem) -> Value {
    let ConfigurationItem { value, version, metadata } = item;
    if version.is_empty() && metadata.is_empty() {
        return Value::String(value);
    }
    let mut entry = json!({ "value": value });
    if !version.is_empty() {
        entry["version"] = version.into();
    }
    if !metadata.is_empty() {
        entry["metadata"] = json!(metadata);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_blocks::events::Metadata;

    #[test]
    fn what_else_is_in_a_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/config.json");
        let item = |value: &str, metadata: &[(&str, &str)]| ConfigurationItem {
            value: value.to_owned(),
            version: String::new(),
            metadata: metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Metadata>(),
        };
        edit(&path, Items::from([("a".to_owned(), item("1", &[]))]), &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"a\": \"1\"\n}");
        fs::write(&path, r#"{"z": 1.50, "a": {"value": "x", "version": "3"}, "gone": true}"#).unwrap();
        let set = Items::from([("b".to_owned(), item("2", &[("tag.x", "y")]))]);
        edit(&path, set, &["gone".to_owned(), "never".to_owned()]).unwrap();
        let found: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let expected = json!({
            "z": 1.50, "a": {"value": "x", "version": "3"}, "b": {"value": "2", "metadata": {"tag.x": "y"}},
        });
        assert_eq!(found, expected);
        for broken in ["[1]", "{"] {
            fs::write(&path, broken).unwrap();
            assert!(edit(&path, Items::new(), &["a".to_owned()]).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), broken);
        }
    }
}
