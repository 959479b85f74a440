//! One process at a time builds, and one at a time changes the running cluster.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Held until dropped, or until the process ends however it may end: the kernel lets go.
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits for whoever holds it, and says so.
    pub(crate) fn take(path: &Path, holder: &str) -> anyhow::Result<Self> {
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .with_context(|| format!("cannot open the lock {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    eprintln!("waiting for {holder} to end ({})", path.display());
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            // Whoever held it may have removed the file: then we hold what nobody else will look at.
            let here = std::fs::metadata(path).map(|named| named.ino());
            if here.is_ok_and(|inode| file.metadata().is_ok_and(|ours| ours.ino() == inode)) {
                return Ok(Self { path: path.to_owned(), _file: file });
            }
        }
    }

    /// Removes the file too, so that nothing is left behind.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_for_a_removed_lock_takes_a_new_one() {
        let path = std::env::temp_dir().join(format!("graceful-lock-{}", std::process::id()));
        let first = Lock::take(&path, "the first").unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, "the first").unwrap()
        });
        first.remove();
        let second = waiting.join().unwrap();
        assert!(path.exists(), "the second holder's lock must be where others look");
        assert!(matches!(File::open(&path).unwrap().try_lock(), Err(TryLockError::WouldBlock)));
        second.remove();
        assert!(!path.exists());
    }
}
