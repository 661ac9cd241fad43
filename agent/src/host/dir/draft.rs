//! Files that are being written: first under a temporary name, then durable, then under their own.
//!
//! Invariants: under a name is the old content or the new, as a whole, whenever the process or the machine
//! ends. A draft that comes to nothing leaves nothing behind, and what a crash leaves is swept. Several can
//! be under way, so that they are made durable together.

use std::fs::File;
use std::io::Write;

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, renameat, renameat2};
use nix::sys::stat::{fchmod, fstat};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};
use profiles::platform::Kernel;

use super::{Directory, FILE_MODE};
use crate::host::error::HostError;
use crate::host::fault::{Step, about_to};
use crate::host::platform::kernel;

/// How the names of files begin that are being written; a number follows. No ConfigMap key can hold `~`, so
/// they are in nobody's way.
const TEMPORARY: &str = "~pavise";

/// A file that is to be called `name` and has a temporary name, until it is dropped.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    directory: &'a Directory,
    name: &'a str,
    temporary: String,
    /// Held open from the first write on: so no failure to write back its content escapes [`Self::sync`].
    file: File,
}

impl Directory {
    /// Writes `content` to what is to be called `name`. It needs a number that no other draft in this
    /// directory has, and that was swept.
    pub(crate) fn draft<'a>(
        &'a self,
        number: usize,
        name: &'a str,
        content: &[u8],
    ) -> Result<Draft<'a>, HostError> {
        let temporary = format!("{TEMPORARY}{number}");
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        let file =
            self.open_beneath(&temporary, flags).map_err(|error| self.error("writing", name, error))?;
        let mut draft = Draft { directory: self, name, temporary, file: File::from(file) };
        draft.write(content).map_err(|error| self.error("writing", name, error))?;
        Ok(draft)
    }

    /// Makes `content` what is called `name`, whatever file that was before. Call [`Self::sync`] afterwards:
    /// only then is it durable.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> Result<(), HostError> {
        self.sweep()?;
        let draft = self.draft(0, name, content)?;
        draft.sync()?;
        draft.replace()
    }

    /// Removes what drafts left behind that did not come to their end.
    pub(crate) fn sweep(&self) -> Result<(), HostError> {
        self.names()?.iter().filter(|name| is_temporary(name)).try_for_each(|name| self.remove_file(name))
    }

    /// Makes all that was written to the file system of this directory durable, if that is known to be as
    /// good as [`Draft::sync`] of each file. If not, or if it failed for whatever file, each is to be synced.
    pub(crate) fn has_synced_all(&self) -> bool {
        let sync = || about_to(Step::SyncAll, &self.path).and_then(|()| syncfs(&self.fd));
        does_syncfs_tell_failures() && self.does_syncfs_reach_the_device() && sync().is_ok()
    }

    /// Whether syncfs(2) is known to leave nothing in the memory of the kernel or of the device. FUSE, for
    /// one, does not tell its server, and what layers do depends on how they were mounted.
    fn does_syncfs_reach_the_device(&self) -> bool {
        let known = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
        fstatfs(&self.fd).is_ok_and(|status| known.contains(&status.filesystem_type()))
    }
}

impl Draft<'_> {
    fn write(&mut self, content: &[u8]) -> std::io::Result<()> {
        about_to(Step::Write, &self.directory.path.join(self.name))?;
        self.file.write_all(content)?;
        // Whatever the umask.
        fchmod(&self.file, FILE_MODE)?;
        Ok(())
    }

    /// Makes the content durable. That must be done, or [`Directory::has_synced_all`], before it gets its
    /// name.
    pub(crate) fn sync(&self) -> Result<(), HostError> {
        let sync = || fsync(&self.file);
        self.attempt(Step::Sync, "making durable", &sync)
    }

    /// Whether it is on the file system of `directory`.
    pub(crate) fn is_beside(&self, directory: &Directory) -> bool {
        let devices = (fstat(&self.file), fstat(&directory.fd));
        matches!(devices, (Ok(own), Ok(other)) if own.st_dev == other.st_dev)
    }

    /// Gives it its name, whatever file that was before.
    pub(crate) fn replace(self) -> Result<(), HostError> {
        self.place(&|| self.rename())
    }

    /// The same, whatever is called so, which [`Self::replace`] leaves alone if it is a directory. Returns
    /// whether that was possible: a directory that holds something is left as it is.
    pub(crate) fn replace_any(self) -> Result<bool, HostError> {
        self.place(&|| match self.rename() {
            // rename(2): a file is to take the place of a directory.
            Err(Errno::EISDIR) => match unlinkat(&self.directory.fd, self.name, UnlinkatFlags::RemoveDir) {
                Ok(()) => self.rename().map(|()| true),
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
                Err(error) => Err(error),
            },
            other => other.map(|()| true),
        })
    }

    /// The same where nothing is called so. Returns whether nothing was; if not, it is left as it is.
    pub(crate) fn create(self) -> Result<bool, HostError> {
        let fd = &self.directory.fd;
        let flags = RenameFlags::RENAME_NOREPLACE;
        self.place(&|| match renameat2(fd, self.temporary.as_str(), fd, self.name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            // renameat2(2): the file system does not know the flag.
            Err(Errno::EINVAL) => self.rename().map(|()| true),
            Err(error) => Err(error),
        })
    }

    fn rename(&self) -> nix::Result<()> {
        renameat(&self.directory.fd, self.temporary.as_str(), &self.directory.fd, self.name)
    }

    fn place<T>(&self, rename: &dyn Fn() -> nix::Result<T>) -> Result<T, HostError> {
        self.attempt(Step::Rename, "replacing", rename)
    }

    fn attempt<T>(
        &self,
        step: Step,
        attempted: &'static str,
        act: &dyn Fn() -> nix::Result<T>,
    ) -> Result<T, HostError> {
        let path = self.directory.path.join(self.name);
        about_to(step, &path).and_then(|()| act()).map_err(|error| HostError::new(attempted, &path, error))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // What has its own name by now has no other. If this fails, the next sweep tries again.
        drop(self.directory.remove_file(&self.temporary));
    }
}

fn is_temporary(name: &str) -> bool {
    let number = name.strip_prefix(TEMPORARY);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether syncfs(2) fails if anything could not be written back.
fn does_syncfs_tell_failures() -> bool {
    kernel().is_ok_and(tells_failures)
}

/// Since Linux 5.8 (syncfs(2)).
fn tells_failures(kernel: Kernel) -> bool {
    kernel >= Kernel { major: 5, minor: 8 }
}

#[cfg(test)]
mod tests;
