//! Files of text: of bounded size, UTF-8, and nothing that could block when it is opened.

use crate::MAX_FILE_BYTES;
use crate::error::ResourceError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads a file of bounded size. A pipe or device is refused before it is opened: opening could wait forever.
pub(crate) fn read_text(path: &Path) -> Result<String, ResourceError> {
    let unreadable = |error: std::io::Error| {
        ResourceError::whole_file(path, format!("cannot be read: {error}"), "check the path")
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(ResourceError::whole_file(path, "is not a file", "expected a text file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    check_size(bytes.len(), path)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        ResourceError {
            line,
            column: 1,
            ..ResourceError::whole_file(path, "this line is not UTF-8 text", "save the file as UTF-8")
        }
    })
}

/// Refuses more than [`MAX_FILE_BYTES`].
pub(crate) fn check_size(bytes: usize, file: &Path) -> Result<(), ResourceError> {
    if bytes as u64 <= MAX_FILE_BYTES {
        return Ok(());
    }
    Err(ResourceError::whole_file(
        file,
        format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20),
        "expected a manifest or resource file: check the path",
    ))
}
