//! Objects that grow at their end.
//!
//! What comes is received whole before the object is touched. Who appends holds a lock on the file, so that others do
//! so before or after, also from other processes; what breaks off on the way is cut off again.

use super::{Local, failed, path_of};
use dhow_blocks::blob::{BlobError, Name};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, Instant};

/// Whoever holds a file for longer is not one of us.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at a lock, which no event tells of.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn append(
    store: &Local,
    name: &Name,
    position: Option<u64>,
    body: Body,
    length: Option<u64>,
) -> Result<u64, BlobError> {
    let (path, key) = (path_of(name)?, name.key.clone());
    let written = store.receive(body, length).await?;
    let Some(new) = written.path.clone() else { return Err(crate::shutdown::closed().into()) };
    let grown = store.on_disk(move |root| {
        let io = |error: io::Error| failed(&key, &error);
        // A pipe would be waited for.
        let found = root.metadata(&path);
        let is_new = matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound);
        if found.is_ok_and(|found| !found.is_file()) {
            return Err(io(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        if is_new && position.is_some_and(|position| position > 0) {
            return Err(misplaced(position.unwrap_or_default(), 0));
        }
        if let Some(folder) = path.parent().filter(|folder| is_new && !folder.as_os_str().is_empty()) {
            root.create_dir_all(folder).map_err(io)?;
        }
        let mut options = cap_std::fs::OpenOptions::new();
        options.append(true).create(true);
        let mut file = root.open_with(&path, &options).map_err(io)?.into_std();
        locked(&file).map_err(io)?;
        let end = file.metadata().map_err(io)?.len();
        if let Some(position) = position.filter(|position| *position != end) {
            return Err(misplaced(position, end));
        }
        let mut more = root.open(&new).map_err(io)?.into_std();
        match add(&mut file, &mut more) {
            Ok(bytes) => Ok(end + bytes),
            Err(error) => {
                // Better whole and old than torn; if this fails too, the disk is lost anyway.
                let _ = file.set_len(end);
                Err(io(error))
            }
        }
    });
    grown.await
}

/// Waits for others who append, which is as long as a copy on the disk takes.
fn locked(file: &File) -> io::Result<()> {
    let until = Instant::now() + DEADLINE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Err(io::Error::from(io::ErrorKind::ResourceBusy)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn add(file: &mut File, more: &mut File) -> io::Result<u64> {
    let bytes = io::copy(more, file)?;
    file.sync_all()?;
    Ok(bytes)
}

fn misplaced(position: u64, end: u64) -> BlobError {
    BlockError::invalid(format!("position {position}: the object ends at {end}, append there")).into()
}
