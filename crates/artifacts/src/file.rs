//! Modules from paths and from standard input.

use crate::Received;
use crate::error::FetchError;
use bytes::Bytes;
use std::io::ErrorKind;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are asked for at once.
const CHUNK: usize = 256 * 1024;

/// Names that are compared when a file is missing; a folder with more is not searched further.
const MAX_NAMES: usize = 10_000;

/// Reads a file. Pipes and devices are read like standard input, so a shell's `<(…)` works.
pub(crate) async fn read(
    path: &Path,
    limit: u64,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<Bytes, FetchError> {
    let name = path.display().to_string();
    let fail = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => FetchError::NotFound { path: path.to_owned(), nearest: nearest_name(path) },
        ErrorKind::IsADirectory => FetchError::IsDirectory { path: path.to_owned() },
        _ => FetchError::Unreadable { name: name.clone(), source },
    };
    // Asked before it is opened: a folder can be opened, and says so only when it is read.
    let metadata = tokio::fs::metadata(path).await.map_err(&fail)?;
    if metadata.is_dir() {
        return Err(FetchError::IsDirectory { path: path.to_owned() });
    }
    let total = metadata.is_file().then_some(metadata.len());
    let file = tokio::fs::File::open(path).await.map_err(&fail)?;
    read_all(file, Received::new(&name, limit, total)?, progress).await
}

/// Reads standard input to its end.
pub(crate) async fn read_stdin(
    limit: u64,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<Bytes, FetchError> {
    read_all(tokio::io::stdin(), Received::new("standard input", limit, None)?, progress).await
}

async fn read_all(
    mut from: impl AsyncRead + Unpin,
    mut received: Received<'_>,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<Bytes, FetchError> {
    loop {
        received.bytes.reserve(CHUNK);
        let read = from.read_buf(&mut received.bytes).await;
        match read {
            Ok(0) => return Ok(received.bytes.freeze()),
            Ok(_) => received.arrived(progress)?,
            Err(source) => return Err(FetchError::Unreadable { name: received.name.to_owned(), source }),
        }
    }
}

/// A file of the same folder whose name is nearly that of the missing one.
fn nearest_name(path: &Path) -> Option<String> {
    let wrong = path.file_name()?.to_str()?.to_lowercase();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = std::fs::read_dir(dir)
        .ok()?
        .take(MAX_NAMES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= (wrong.chars().count() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::read_all;
    use crate::Received;
    use crate::error::FetchError;

    #[tokio::test]
    async fn a_stream_without_end_is_cut_at_the_limit() {
        let received = Received::new("standard input", 1_000_000, None).unwrap();
        let mut last = 0;
        let error =
            read_all(tokio::io::repeat(b'x'), received, &mut |bytes, _| last = bytes).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { limit: 1_000_000, .. }), "{error}");
        assert!(last > 0 && last <= 1_000_000, "{last}");
    }
}
