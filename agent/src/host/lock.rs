//! One agent at a time.
//!
//! Invariant: while a [`Lock`] lives, no other process has one of the same state directory. The kernel drops
//! it with the process, however that ends.

use std::fs::{self, File};
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
        let file = File::create(&path).map_err(|error| HostError::new("opening", &path, error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(flock) => Ok(Some(Self { _flock: flock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(HostError::new("locking", &path, error)),
        }
    }
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
}
