//! The kernel's AppArmor policy, in securityfs.
//!
//! Invariants: a blob goes in one write (`aa_simple_write_to_buffer` in security/apparmor/apparmorfs.c). Which
//! profiles there are is read from `profiles`, as a whole: the kernel gives that in parts, and begins each after
//! as many lines as were read (`p_start`), so what is removed meanwhile hides a profile that is there.
//! `policy/profiles` only adds what a profile came from. A load that fails can leave directories behind there, and no profile (seen on Linux 6.12): of several
//! of one name the last one made is that of the profile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statfs::{SECURITYFS_MAGIC, statfs};
use nix::unistd::geteuid;
use procfs::process::Process;
use profiles::apparmor::name::ProfileName;
use profiles::apparmor::policy::Mode;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::warn;

use super::kernel::{CHILD, Child, Kernel, Present, Raw, Sha1};
use crate::host::error::HostError;

const APPARMOR: &str = "apparmor";
const REPLACE: &str = ".replace";
const REMOVE: &str = ".remove";
const PROFILES: &str = "profiles";
const REVISION: &str = "revision";
/// The profiles' directories: the name, mangled, and a number.
const DIRECTORIES: &str = "policy/profiles";
/// `CAP_MAC_ADMIN` (include/uapi/linux/capability.h).
const MAC_ADMIN: u32 = 33;
/// How often to look where the kernel does not tell of changes.
const POLL: Duration = Duration::from_secs(5);
/// How often the policy is read anew that changed meanwhile. Then what was read last has to do.
const LOOKS: usize = 10;
/// No text in securityfs that is read here is longer, but for the list of all profiles.
const SHORT: u64 = 64 << 10;

const NO_RIGHT: &str = " (changing AppArmor policy needs root, CAP_MAC_ADMIN in the initial user namespace, no \
                        AppArmor confinement that forbids it, and apparmor.lock_policy off)";
const NOT_MOUNTED: &str = "the kernel has it enabled, but securityfs is not mounted here: it must be mounted from the \
                           node, as the volume `securityfs` of the DaemonSet is (see --securityfs)";
const UNKNOWN_FORMAT: &str =
    " (the kernel does not know what the blob holds: it was compiled for another one)";
const TOO_LARGE: &str = " (the kernel has no memory for it)";
const LEFT_OVER: &str = " (something is left of a load that failed before: the kernel loads nothing until some profile is \
                         removed, or the node rebooted)";
const NO_PARENT: &str =
    " (the kernel found no parent for a child in it: children of children are not supported)";

/// The kernel of this node.
#[derive(Clone, Debug)]
pub(crate) struct SecurityFs {
    /// Its directory `apparmor`.
    root: PathBuf,
}

/// Whether there is AppArmor to be used.
#[derive(Debug)]
pub(crate) enum Availability {
    /// There is.
    Enabled(SecurityFs),
    /// The node has none, or it is off. Why that is known.
    Disabled(&'static str),
    /// The kernel has it, but its files are not here. What to do about it.
    OutOfReach(&'static str),
}

impl SecurityFs {
    /// Looks whether this node has AppArmor. `securityfs` is where that is mounted, `sys` where sysfs is.
    ///
    /// # Errors
    /// It has, but this process can't use it.
    pub(crate) fn find(securityfs: &Path, sys: &Path) -> Result<Availability, HostError> {
        let root = securityfs.join(APPARMOR);
        match fs::metadata(root.join(REPLACE)) {
            Ok(_) => {
                may_change_policy()
                    .map_err(|error| HostError::new("using", &root, error).advise(NO_RIGHT))?;
                return Ok(Availability::Enabled(Self { root }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(HostError::new("looking at", &root, error).advise(NO_RIGHT)),
        }
        if statfs(securityfs).is_ok_and(|status| status.filesystem_type() == SECURITYFS_MAGIC) {
            return Ok(Availability::Disabled("securityfs has no directory apparmor"));
        }
        // security/apparmor/lsm.c: Y or N.
        let enabled = fs::read_to_string(sys.join("module/apparmor/parameters/enabled"));
        if enabled.is_ok_and(|enabled| enabled.starts_with('Y')) {
            return Ok(Availability::OutOfReach(NOT_MOUNTED));
        }
        Ok(Availability::Disabled("securityfs is not mounted, and the kernel has no module apparmor enabled"))
    }

    fn read(&self, name: &str) -> Result<String, HostError> {
        let path = self.root.join(name);
        fs::read_to_string(&path).map_err(|error| failed("reading", &path, error))
    }

    /// Writes `content` in one write.
    fn write(&self, attempted: &'static str, name: &str, content: &[u8]) -> Result<(), HostError> {
        let path = self.root.join(name);
        let write = || OpenOptions::new().write(true).open(&path)?.write(content);
        match write() {
            Ok(written) if written == content.len() => Ok(()),
            Ok(_) => Err(failed(attempted, &path, io::ErrorKind::WriteZero.into())),
            Err(error) => Err(failed(attempted, &path, error)),
        }
    }

    /// Which blob the profile in this directory came from.
    fn raw(directory: &Path) -> Raw {
        let told = |name: &str| short(&directory.join(name));
        if let Some(sha256) = told("raw_sha256") {
            return format!("sha256:{sha256}").parse().map_or(Raw::Untold, Raw::Sha256);
        }
        told("raw_sha1").map_or(Raw::Untold, |sha1| Raw::Sha1(Sha1::told(&sha1)))
    }

    /// The directories in `parent` of the profiles of these names; names are those within `parent`.
    fn directories<'a>(
        parent: &Path,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeMap<&'a str, PathBuf>, HostError> {
        let mut wanted: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in names {
            wanted.entry(mangled(name)).or_default().push(name);
        }
        let mut found: BTreeMap<&str, (u64, PathBuf)> = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let entries = fs::read_dir(parent).map_err(|error| failed("listing", parent, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed("listing", parent, error))?;
            let file_name = entry.file_name();
            let Some((start, number)) = file_name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            let (Some(candidates), Ok(number)) = (wanted.get(start), number.parse::<u64>()) else { continue };
            let name = short(&entry.path().join("name"));
            let Some(name) = candidates.iter().find(|candidate| name.as_deref() == Some(**candidate)) else {
                continue;
            };
            if found.get(name).is_none_or(|(before, _)| *before < number) {
                found.insert(name, (number, entry.path()));
            }
        }
        Ok(found.into_iter().map(|(name, (_, path))| (name, path)).collect())
    }

    /// What a profile and its children came from. `listed` are their modes, by their whole names.
    fn present(name: &ProfileName, directory: Option<&PathBuf>, listed: &Listed) -> Present {
        let raw = directory.map_or(Raw::Untold, |directory| Self::raw(directory));
        let mode = listed.0.get(name.as_str()).copied().flatten();
        let child = |(child, mode): (&str, Option<Mode>)| {
            // A child's directory is in that of its parent, under the last part of its name.
            let step = |directory: PathBuf, part| {
                Self::directories(&directory.join(PROFILES), [part].into_iter()).ok()?.remove(part)
            };
            let directory =
                directory.and_then(|directory| child.split(CHILD).skip(1).try_fold(directory.clone(), step));
            let raw = directory.map_or(Raw::Untold, |directory| Self::raw(&directory));
            (child.to_owned(), Child { mode, raw })
        };
        Present { mode, raw, children: listed.children_of(name.as_str()).map(child).collect() }
    }

    /// What is read of `names` while the policy may change.
    fn look_once(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, Present>, HostError> {
        let listed = Listed::of(&self.read(PROFILES)?, names);
        let present = || names.iter().filter(|name| listed.0.contains_key(name.as_str()));
        let directories =
            Self::directories(&self.root.join(DIRECTORIES), present().map(ProfileName::as_str))?;
        let look =
            |name: &ProfileName| (name.clone(), Self::present(name, directories.get(name.as_str()), &listed));
        Ok(present().map(look).collect())
    }
}

impl Kernel for SecurityFs {
    fn look(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, Present>, HostError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        unchanged(|| self.revision(), || self.look_once(names))
    }

    fn replace(&self, blob: &[u8]) -> Result<(), HostError> {
        self.write("loading a blob into", REPLACE, blob)
    }

    fn remove(&self, name: &str) -> Result<(), HostError> {
        self.write("removing a profile through", REMOVE, name.as_bytes())
    }

    fn features(&self) -> Result<String, HostError> {
        let mut text = String::new();
        flatten(&self.root.join("features"), &mut text)?;
        Ok(text)
    }

    fn revision(&self) -> Result<u64, HostError> {
        let path = self.root.join(REVISION);
        let revision = open_revision(&path).and_then(|file| read_revision(&file));
        revision.map_err(|error| failed("reading", &path, error))
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let path = self.root.join(REVISION);
        // Opened now: what changes from here on is told.
        let watched = open_revision(&path).and_then(watch);
        let watched = match watched {
            Ok(watched) => Some(watched),
            Err(error) => {
                warn!(path = %path.display(), %error, "Changes of AppArmor policy are noticed late");
                None
            }
        };
        let last = self.revision().ok();
        stream::unfold((self.clone(), watched, last), |(kernel, watched, last)| async move {
            if told(watched.as_ref()).await.is_some() {
                return Some(((), (kernel, watched, last)));
            }
            let now = kernel.next_revision(last).await;
            Some(((), (kernel, None, now)))
        })
        .boxed()
    }
}

impl SecurityFs {
    /// Waits for another revision than `last`.
    async fn next_revision(&self, last: Option<u64>) -> Option<u64> {
        loop {
            sleep(POLL).await;
            let now = self.revision().ok();
            if now != last {
                return now;
            }
        }
    }
}

/// What is read between two equal revisions.
fn unchanged<T, E>(
    mut revision: impl FnMut() -> Result<u64, E>,
    mut read: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut before = revision()?;
    let mut found = read()?;
    for _ in 1..LOOKS {
        let after = revision()?;
        if after == before {
            break;
        }
        before = after;
        found = read()?;
    }
    Ok(found)
}

/// Has the kernel tell of changes of an open `revision` from here on.
#[expect(unsafe_code, reason = "tokio leaves to its caller that a descriptor stays open")]
fn watch(file: File) -> io::Result<AsyncFd<File>> {
    read_revision(&file)?;
    // SAFETY: a `File` owns its descriptor, tells the same one each time and closes it when it is dropped, which
    // is when the `AsyncFd` that owns it is. Nothing takes it out of there.
    unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }.map_err(io::Error::from)
}

/// Waits until the kernel tells of a change. None if it does not tell.
async fn told(watched: Option<&AsyncFd<File>>) -> Option<()> {
    let watched = watched?;
    loop {
        let mut ready = watched.readable().await.ok()?;
        ready.clear_ready();
        // Only what was read is told again when it changes (`ns_revision_poll`).
        match read_once(watched.get_ref()) {
            Ok(_) => return Some(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

/// The modes of the profiles that are asked for, and of their children, by their whole names.
struct Listed(BTreeMap<String, Option<Mode>>);

impl Listed {
    /// Reads `profiles`: lines of `name (mode)`. What else is listed is left out.
    fn of(text: &str, names: &BTreeSet<ProfileName>) -> Self {
        let names: BTreeSet<&str> = names.iter().map(ProfileName::as_str).collect();
        let line = |line: &str| {
            let (name, mode) = line.strip_suffix(')')?.rsplit_once(" (")?;
            let root = name.split(CHILD).next()?;
            names.contains(root).then(|| (name.to_owned(), Mode::from_word(mode)))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn children_of(&self, name: &str) -> impl Iterator<Item = (&str, Option<Mode>)> {
        let start = format!("{name}{CHILD}");
        let children = self.0.iter().filter(move |(child, _)| child.starts_with(&start));
        children.map(|(child, mode)| (child.as_str(), *mode))
    }
}

/// The start of the name of a profile's directory (`mangle_name` in security/apparmor/apparmorfs.c).
fn mangled(name: &str) -> String {
    let rest = name.trim_start_matches(['/', '.']);
    let mangle = |c: char| match c {
        '/' => Some('.'),
        c if c.is_ascii_whitespace() => Some('_'),
        c => (c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')).then_some(c),
    };
    rest.chars().filter_map(mangle).collect()
}

/// Whether this process has what `aa_may_manage_policy` asks for, as far as it can tell.
fn may_change_policy() -> io::Result<()> {
    let status = Process::myself().and_then(|process| process.status()).map_err(io::Error::other)?;
    let is_capable = status.capeff & (1 << MAC_ADMIN) != 0;
    if geteuid().is_root() && is_capable { Ok(()) } else { Err(Errno::EPERM.into()) }
}

/// The content of a file of one line; none if it is not there, or vanishes.
fn short(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(SHORT).read_to_string(&mut text).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

fn open_revision(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: a second read would wait for a change.
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

fn read_once(mut file: &File) -> io::Result<u64> {
    let mut text = [0; 32];
    let length = file.read(&mut text)?;
    let text = std::str::from_utf8(&text[..length]).map_err(io::Error::other)?;
    text.trim().parse().map_err(io::Error::other)
}

/// The revision, read for the first time.
fn read_revision(file: &File) -> io::Result<u64> {
    match read_once(file) {
        // `ns_revision_read`: as long as nothing was loaded, there is nothing to read.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Adds what is in a directory, as `apparmor_parser` writes it: `name {content}`, a directory's content being
/// that of its entries.
fn flatten(directory: &Path, text: &mut String) -> Result<(), HostError> {
    let failed = |error| failed("reading", directory, error);
    let entries = fs::read_dir(directory).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        text.push_str(&path.file_name().unwrap_or_default().to_string_lossy());
        text.push_str(" {");
        if path.is_dir() {
            flatten(&path, text)?;
        } else {
            text.push_str(&fs::read_to_string(&path).map_err(failed)?);
        }
        text.push_str("}\n");
    }
    Ok(())
}

/// What to do about what the kernel answers (`policy.c`, `policy_unpack.c` and
/// `apparmorfs.c` in security/apparmor).
fn failed(attempted: &'static str, path: &Path, error: io::Error) -> HostError {
    let errno = error.raw_os_error().map(Errno::from_raw);
    let is_change = matches!(path.file_name().and_then(|name| name.to_str()), Some(REPLACE | REMOVE));
    let advice = match errno.filter(|_| is_change) {
        Some(Errno::EACCES | Errno::EPERM) => Some(NO_RIGHT),
        Some(Errno::EPROTO | Errno::EPROTONOSUPPORT | Errno::EINVAL) => Some(UNKNOWN_FORMAT),
        Some(Errno::ENOMEM | Errno::ENOSPC | Errno::E2BIG) => Some(TOO_LARGE),
        Some(Errno::EEXIST) => Some(LEFT_OVER),
        Some(Errno::ENOENT) if path.ends_with(REPLACE) => Some(NO_PARENT),
        _ => None,
    };
    let failed = HostError::new(attempted, path, error);
    match advice {
        Some(advice) => failed.advise(advice),
        None => failed,
    }
}

#[cfg(test)]
mod tests;
