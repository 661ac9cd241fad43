//! Directories that others may write to as well.
//!
//! Invariants: nothing outside of a [`Directory`] is ever reached through it, no symbolic link is followed
//! but by [`Directory::follow`], which only reads, and opening what is there never blocks. A file is replaced
//! as a whole and durably, or not at all. Modes do not depend on the umask.

mod draft;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, stat};
use nix::unistd::{Uid, UnlinkatFlags, fsync, setfsuid, unlinkat};
use profiles::digest::Digest;
use profiles::seccomp;

use super::error::HostError;
use super::fault::{Step, about_to};
use super::mount::{self, WrongDirectory};
pub(crate) use draft::Draft;

const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);
/// All that chmod(2) can change.
const PERMISSIONS: u32 = 0o7777;
/// No profile is larger, so a larger file is none of ours and is not worth reading.
pub(super) const LARGEST: u64 = seccomp::LARGEST as u64;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Object {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Of its content; none if it is larger than any profile.
        digest: Option<Digest>,
        /// Whether mode and owner are those of the files that we make.
        is_as_made: bool,
    },
    /// A directory.
    Directory,
    /// Something else, in words.
    Other(&'static str),
}

/// Which state of which object a name stands for. Any change but those of [`Self::is_settled`] makes another
/// one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The times of files are those of the kernel's last tick, some milliseconds ago.
    const GRAIN: Duration = Duration::from_secs(1);

    fn of(status: &FileStat) -> Self {
        Self {
            device: status.st_dev,
            inode: status.st_ino,
            size: status.st_size,
            modified: (status.st_mtime, status.st_mtime_nsec),
            changed: (status.st_ctime, status.st_ctime_nsec),
        }
    }

    /// When the content was last written.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        time(self.modified)
    }

    /// Whether a change after `now` makes another stamp. One that comes in the same tick as the last does
    /// not.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        time(self.changed).is_some_and(|changed| now > changed + Self::GRAIN)
    }
}

/// Where a way through directories ends.
#[derive(Debug)]
pub(crate) enum Way {
    /// At the directory.
    Open(Directory),
    /// One on the way, or the last, does not exist.
    Absent,
    /// One on the way, or the last, is no directory.
    Blocked,
}

impl Directory {
    /// Opens `path`, which is the operator's: links in it are followed.
    pub(crate) fn open(path: &Path) -> Result<Self, HostError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty())
            .map_err(|error| HostError::new("opening directory", path, error))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still exists, and its path still leads to it.
    pub(crate) fn is_in_place(&self) -> bool {
        let is_linked = fstat(&self.fd).is_ok_and(|status| status.st_nlink > 0);
        is_linked && identity(stat(&self.path)) == identity(fstat(&self.fd))
    }

    /// Whether `other` is the same directory, by whatever path.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        identity(fstat(&self.fd)) == identity(fstat(&other.fd))
    }

    /// What tells it from all others of this node, also after a reboot, and after it was deleted and made
    /// anew: its path in its file system. If the kernel does not tell that, its path here.
    pub(crate) fn origin(&self) -> String {
        mount::origin(&self.fd).unwrap_or_else(|| self.path.display().to_string())
    }

    /// Whether it is the directory `seccomp` of the kubelet that runs this process. False if that can't be
    /// told.
    pub(crate) fn is_the_kubelets(&self) -> Result<bool, WrongDirectory> {
        mount::is_the_kubelets(&self.fd)
    }

    /// Goes to the directory at `relative`.
    pub(crate) fn descend(&self, relative: &str) -> Result<Way, HostError> {
        match self.open_beneath(relative, OFlag::O_DIRECTORY | OFlag::O_RDONLY) {
            Ok(fd) => Ok(Way::Open(Self { fd, path: self.path.join(relative) })),
            Err(Errno::ENOENT) => Ok(Way::Absent),
            // openat2(2): ELOOP for a link under RESOLVE_NO_SYMLINKS.
            Err(Errno::ELOOP | Errno::ENOTDIR) => Ok(Way::Blocked),
            Err(error) => Err(self.error("opening directory", relative, error)),
        }
    }

    /// Goes to the directory `name` in this one, making it if it is absent, durably.
    pub(crate) fn make(&self, name: &str) -> Result<Self, HostError> {
        let is_new = match mkdirat(&self.fd, name, DIRECTORY_MODE) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(self.error("making directory", name, error)),
        };
        let made = match self.descend(name)? {
            Way::Open(made) => made,
            Way::Absent => return Err(self.error("making directory", name, Errno::ENOENT)),
            Way::Blocked => return Err(self.error("making directory", name, Errno::ENOTDIR)),
        };
        if is_new {
            fchmod(&made.fd, DIRECTORY_MODE)
                .map_err(|error| self.error("setting the mode of", name, error))?;
            self.sync()?;
        }
        Ok(made)
    }

    /// The names of what is in it, but for those that are not UTF-8.
    pub(crate) fn names(&self) -> Result<Vec<String>, HostError> {
        let failed = |error| HostError::new("listing", &self.path, error);
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        // By itself, because reading moves the position of what is open.
        let mut listing = Dir::openat(&self.fd, ".", flags, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().ok();
            names.extend(name.filter(|name| !matches!(*name, "." | "..")).map(str::to_owned));
        }
        Ok(names)
    }

    /// Looks at what is called `name`.
    pub(crate) fn look(&self, name: &str) -> Result<Object, HostError> {
        match self.open_file(name)? {
            Opened::Nothing(object) => Ok(object),
            Opened::File(file, status) => {
                let is_larger = u64::try_from(status.st_size).is_ok_and(|size| size > LARGEST);
                let content = if is_larger { None } else { Some(self.read_all(file, name)?) };
                let digest = content.map(|content| Digest::of(&content));
                Ok(Object::File { digest, is_as_made: is_as_made(&status) })
            }
        }
    }

    /// What identifies the state of what is called `name`, without opening it; none if that can't be told.
    pub(crate) fn stamp(&self, name: &str) -> Option<Stamp> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok().map(|status| Stamp::of(&status))
    }

    /// Reads the file `name`; none if there is nothing of that name.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        match self.open_file(name)? {
            Opened::Nothing(Object::Absent) => Ok(None),
            Opened::Nothing(_) => Err(self.error("reading", name, Errno::EINVAL)),
            Opened::File(file, _) => self.read_all(file, name).map(Some),
        }
    }

    /// Opens what is at `relative`, for reading, and follows the links on the way that stay in this
    /// directory.
    ///
    /// # Errors
    /// As those of openat2(2): `EXDEV` where a link leads out of it.
    pub(crate) fn follow(&self, relative: &str) -> nix::Result<Followed> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(self.fd.as_fd(), relative, how)?);
        let status = fstat(&file)?;
        Ok(match kind(&status) {
            SFlag::S_IFREG => {
                Followed::File(file, Stamp::of(&status), u64::try_from(status.st_size).unwrap_or(u64::MAX))
            }
            SFlag::S_IFDIR => Followed::Other("a directory"),
            SFlag::S_IFIFO => Followed::Other("a FIFO"),
            _ => Followed::Other("a socket or device"),
        })
    }

    /// Removes the file `name`, if there is one.
    pub(crate) fn remove_file(&self, name: &str) -> Result<(), HostError> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(self.error("removing", name, error)),
        }
    }

    /// Removes the directory at `relative` if it is empty. Returns whether there is none any more.
    pub(crate) fn remove_directory(&self, relative: &str) -> Result<bool, HostError> {
        let (parent, name) = match relative.rsplit_once('/') {
            None => (self.descend(".")?, relative),
            Some((parent, name)) => (self.descend(parent)?, name),
        };
        let Way::Open(parent) = parent else { return Ok(true) };
        match unlinkat(&parent.fd, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => parent.sync().map(|()| true),
            Err(Errno::ENOENT) => Ok(true),
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => Ok(false),
            Err(error) => Err(self.error("removing directory", relative, error)),
        }
    }

    /// Makes what was done to the names in this directory durable.
    pub(crate) fn sync(&self) -> Result<(), HostError> {
        let sync = about_to(Step::SyncDirectory, &self.path).and_then(|()| fsync(&self.fd));
        sync.map_err(|error| HostError::new("making durable", &self.path, error))
    }

    /// Opens `name` for reading if it is a regular file.
    fn open_file(&self, name: &str) -> Result<Opened, HostError> {
        // O_NONBLOCK: open(2) of a FIFO without a writer would wait for one.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
        let file = match self.open_beneath(name, flags) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(Opened::Nothing(Object::Absent)),
            Err(Errno::ELOOP) => return Ok(Opened::Nothing(Object::Other("a symbolic link"))),
            Err(Errno::ENXIO | Errno::ENODEV) => {
                return Ok(Opened::Nothing(Object::Other("a socket or device")));
            }
            Err(error) => return Err(self.error("opening", name, error)),
        };
        let status = fstat(&file).map_err(|error| self.error("inspecting", name, error))?;
        Ok(match kind(&status) {
            SFlag::S_IFREG => Opened::File(file, status),
            SFlag::S_IFDIR => Opened::Nothing(Object::Directory),
            SFlag::S_IFIFO => Opened::Nothing(Object::Other("a FIFO")),
            _ => Opened::Nothing(Object::Other("a socket or device")),
        })
    }

    fn read_all(&self, mut file: File, name: &str) -> Result<Vec<u8>, HostError> {
        let mut content = Vec::new();
        match file.read_to_end(&mut content) {
            Ok(_) => Ok(content),
            Err(error) => Err(self.error("reading", name, error)),
        }
    }

    fn open_beneath(&self, relative: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let mode = if flags.contains(OFlag::O_CREAT) { FILE_MODE } else { Mode::empty() };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(self.fd.as_fd(), relative, how)
    }

    fn error(&self, attempted: &'static str, name: &str, source: impl Into<std::io::Error>) -> HostError {
        HostError::new(attempted, &self.path.join(name), source)
    }
}

/// What following a path comes to.
#[derive(Debug)]
pub(crate) enum Followed {
    /// A regular file, its state and its size.
    File(File, Stamp, u64),
    /// Something else, in words.
    Other(&'static str),
}

/// What opening a name comes to.
enum Opened {
    /// A regular file and its status.
    File(File, FileStat),
    /// What is there instead.
    Nothing(Object),
}

/// A time of a file, of seconds and nanoseconds; none if it is before 1970.
fn time((seconds, nanoseconds): (i64, i64)) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Which object it is; none if that can't be told.
fn identity(status: nix::Result<FileStat>) -> Option<(u64, u64)> {
    status.ok().map(|status| (status.st_dev, status.st_ino))
}

fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

/// Whether mode and owner of a file are those of the files that this thread makes.
fn is_as_made(status: &FileStat) -> bool {
    // setfsuid(2): the owner of new files; -1 is no user, so that this only tells it.
    let owner = setfsuid(Uid::from_raw(u32::MAX));
    status.st_mode & PERMISSIONS == FILE_MODE.bits() && status.st_uid == owner.as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::umask;
    use nix::unistd::mkfifo;

    use super::*;

    pub(super) struct Scene {
        temporary: tempfile::TempDir,
        pub(super) directory: Directory,
    }

    pub(super) fn scene() -> Scene {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        Scene { temporary, directory }
    }

    impl Scene {
        pub(super) fn path(&self, name: &str) -> PathBuf {
            self.temporary.path().join(name)
        }

        fn mode(&self, name: &str) -> u32 {
            fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
        }
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        // unshare(2): from here on this thread has a umask of its own, and the other tests keep theirs.
        unshare(CloneFlags::CLONE_FS).unwrap();
        let scene = scene();
        for mask in [0o777, 0o000] {
            let name = format!("d{mask}");
            let before = umask(Mode::from_bits_truncate(mask));
            let written = scene.directory.make(&name).and_then(|made| made.replace("f", b"x"));
            umask(before);
            written.unwrap();
            assert_eq!(scene.mode(&name), 0o755);
            assert_eq!(scene.mode(&format!("{name}/f")), 0o644);
        }
    }

    #[test]
    fn what_is_there_is_told_without_blocking_or_following() {
        let scene = scene();
        for (name, mode) in [("file", 0o644), ("secret", 0o600), ("large", 0o644)] {
            fs::write(scene.path(name), "x").unwrap();
            fs::set_permissions(scene.path(name), Permissions::from_mode(mode)).unwrap();
        }
        File::options().write(true).open(scene.path("large")).unwrap().set_len(LARGEST + 1).unwrap();
        fs::create_dir(scene.path("directory")).unwrap();
        mkfifo(&scene.path("fifo"), FILE_MODE).unwrap();
        symlink("file", scene.path("link")).unwrap();
        let _socket = UnixListener::bind(scene.path("socket")).unwrap();
        for (name, expected) in [
            ("absent", Object::Absent),
            ("file", Object::File { digest: Some(Digest::of(b"x")), is_as_made: true }),
            ("secret", Object::File { digest: Some(Digest::of(b"x")), is_as_made: false }),
            ("large", Object::File { digest: None, is_as_made: true }),
            ("directory", Object::Directory),
            ("fifo", Object::Other("a FIFO")),
            ("link", Object::Other("a symbolic link")),
            ("socket", Object::Other("a socket or device")),
        ] {
            assert_eq!(scene.directory.look(name).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn no_link_is_followed_on_the_way() {
        let scene = scene();
        fs::create_dir_all(scene.path("real/inner")).unwrap();
        symlink("real", scene.path("outer")).unwrap();
        symlink("inner", scene.path("real/link")).unwrap();
        for way in ["outer", "outer/inner", "real/link"] {
            assert!(matches!(scene.directory.descend(way).unwrap(), Way::Blocked), "{way}");
        }
        assert!(scene.directory.make("outer").is_err());
    }

    #[test]
    fn nothing_above_is_reached() {
        let scene = scene();
        fs::create_dir(scene.path("d")).unwrap();
        let Way::Open(inner) = scene.directory.descend("d").unwrap() else { panic!("d is there") };
        for way in ["..", "/", "../d"] {
            assert!(inner.descend(way).is_err(), "{way}");
        }
    }

    #[test]
    fn a_stamp_tells_every_change_once_it_is_settled() {
        let scene = scene();
        fs::write(scene.path("f"), "1").unwrap();
        let stamp = scene.directory.stamp("f").unwrap();
        assert_eq!(scene.directory.stamp("f").unwrap(), stamp);
        assert!(!stamp.is_settled(SystemTime::now()));
        assert!(stamp.is_settled(SystemTime::now() + Stamp::GRAIN));
        // Until the kernel's clock has ticked.
        std::thread::sleep(Duration::from_millis(20));
        fs::set_permissions(scene.path("f"), Permissions::from_mode(0o600)).unwrap();
        assert_ne!(scene.directory.stamp("f").unwrap(), stamp);
    }

    #[test]
    fn a_directory_that_is_deleted_or_moved_is_not_in_place() {
        let scene = scene();
        for leave in
            [|path: &Path| fs::remove_dir(path), |path: &Path| fs::rename(path, path.with_extension("x"))]
        {
            let made = scene.directory.make("d").unwrap();
            assert!(made.is_in_place());
            leave(&scene.path("d")).unwrap();
            assert!(!made.is_in_place());
            fs::create_dir(scene.path("d")).unwrap();
            assert!(!made.is_in_place());
            fs::remove_dir(scene.path("d")).unwrap();
        }
    }

    #[test]
    fn only_an_empty_directory_is_removed() {
        let scene = scene();
        fs::create_dir_all(scene.path("a/b")).unwrap();
        assert!(!scene.directory.remove_directory("a").unwrap());
        assert!(scene.directory.remove_directory("a/b").unwrap());
        assert!(scene.directory.remove_directory("a").unwrap());
        assert!(scene.directory.remove_directory("a").unwrap());
    }
}
