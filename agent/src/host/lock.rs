//! One agent at a time.
//!
//! Invariant: while a [`Lock`] lives, no other process has one of the same state directory. The kernel drops
//! it with the process, however that ends.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::HostError;

const NAME: &str = "lock";

/// The right to act on this node.
#[derive(Debug)]
pub(crate) struct Lock {
    _flock: Flock<File>,
}

impl Lock {
    /// Takes the lock of `state_dir`, which is made if it is absent. None if another process has it.
    pub(crate) fn try_take(state_dir: &Path) -> Result<Option<Self>, HostError> {
        fs::create_dir_all(state_dir).map_err(|error| {
            HostError::new("making directory", state_dir, error).advise(" (see --state-dir)")
        })?;
        let path = state_dir.join(NAME);
        let file = File::create(&path)
            .map_err(|error| HostError::new("opening", &path, error).advise(" (see --state-dir)"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(flock) => {
                // If it was deleted while it was waited for, another process can have a new one.
                let is_in_place =
                    identity(flock.metadata()).is_some_and(|it| Some(it) == identity(fs::metadata(&path)));
                Ok(is_in_place.then_some(Self { _flock: flock }))
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(HostError::new("locking", &path, error)),
        }
    }
}

/// What tells a file from all others.
fn identity(metadata: io::Result<Metadata>) -> Option<(u64, u64)> {
    metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_has_to_wait() {
        let temporary = tempfile::tempdir().unwrap();
        let state_dir = temporary.path().join("made/for/it");
        let first = Lock::try_take(&state_dir).unwrap();
        assert!(first.is_some());
        assert!(Lock::try_take(&state_dir).unwrap().is_none());
        drop(first);
        assert!(Lock::try_take(&state_dir).unwrap().is_some());
    }

    #[test]
    fn a_lock_that_was_deleted_is_none() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join(NAME);
        let file = File::create(&path).unwrap();
        assert_eq!(identity(file.metadata()), identity(fs::metadata(&path)));
        fs::remove_file(&path).unwrap();
        assert_ne!(identity(file.metadata()), identity(fs::metadata(&path)));
        let other = File::create(&path).unwrap();
        assert_ne!(identity(file.metadata()), identity(other.metadata()));
    }
}
