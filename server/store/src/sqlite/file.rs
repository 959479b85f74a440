//! Whose the file is: a lock that only one process holds, and whether the file is still the one that was opened.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// The right to a folder's `tasks.db`, held until it is dropped.
#[derive(Debug)]
pub(super) struct OwnFile {
    path: PathBuf,
    /// Device and inode, once the file is there.
    id: Option<(u64, u64)>,
    _lock: File,
    /// The queue's file itself, locked as well (flock(2), which SQLite's own locks do not meet): a lock file can be removed.
    /// It is open as long as SQLite has the file open; to close it earlier would take SQLite's locks away.
    _file: File,
}

impl OwnFile {
    /// Only one process at a time may take the tasks in a file for its own.
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("tasks.db");
        let trouble = |source| OpenError::Folder { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(trouble)?;
        // A file of its own: SQLite's locks on `tasks.db` would go with any handle of ours on it.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("tasks.lock"))
            .map_err(trouble)?;
        let lock_or_tell = |file: &File| match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(OpenError::Taken { path: path.clone() }),
            Err(TryLockError::Error(source)) => Err(trouble(source)),
        };
        lock_or_tell(&lock)?;
        // Made if it is missing: SQLite takes an empty file for a new one.
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(trouble)?;
        lock_or_tell(&file)?;
        Ok(Self { path, id: None, _lock: lock, _file: file })
    }

    /// From now on this is the file.
    pub(super) fn remember(&mut self) {
        self.id = id(&self.path).ok();
    }

    /// Another file has its name, or none: what is written to the one that is open is lost with the process.
    pub(super) fn replaced(&self) -> bool {
        match (self.id, id(&self.path)) {
            (Some(known), Ok(found)) => known != found,
            (Some(_), Err(error)) => error.kind() == ErrorKind::NotFound,
            (None, _) => false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// SQLite's write-ahead log.
    pub(super) fn log(&self) -> PathBuf {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        PathBuf::from(log)
    }
}

fn id(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}
