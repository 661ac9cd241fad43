//! Unix sockets in directories that others may write to as well.
//!
//! Invariant: what is connected to is the socket that is at the path itself. No symbolic link is followed, so
//! who can write the directory can't have this process, which may go where they may not, talk to others.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// A socket that was found, whether or not somebody listens.
#[derive(Debug)]
pub(crate) struct SocketFile(File);

impl SocketFile {
    /// Finds the socket at `path`.
    ///
    /// # Errors
    /// There is none, or something else.
    pub(crate) fn find(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        if file.metadata()?.file_type().is_socket() {
            Ok(Self(file))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "what is there is no socket"))
        }
    }

    /// A path to it, whatever becomes of the one by which it was found (proc(5), `/proc/self/fd`).
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn only_the_socket_itself_is_connected_to() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        let _listener = UnixListener::bind(at("socket")).unwrap();
        let found = SocketFile::find(&at("socket")).unwrap();
        symlink(at("socket"), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        for name in ["link", "file", "."] {
            let error = SocketFile::find(&at(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert_eq!(SocketFile::find(&at("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
        // What takes its name later is another one.
        fs::rename(at("link"), at("socket")).unwrap();
        UnixStream::connect(found.path()).unwrap();
    }
}
