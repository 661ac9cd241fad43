//! Where mounts come from.
//!
//! The kernel tells for each mount which directory of which file system it shows: for the volumes of a
//! container, the node's own. That says whether what was mounted is what should have been.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use thiserror::Error;

/// The seccomp directory is not the one that the kubelet's containers have their profiles from.
#[derive(Debug, Eq, Error, PartialEq)]
pub(crate) enum WrongDirectory {
    /// It belongs to the container, and goes with it.
    #[error(
        "checking {path}: it is not mounted from the node (the DaemonSet needs the volume `seccomp`, with the hostPath \
         <kubelet's --root-dir>/seccomp, mounted at <--kubelet-root>/seccomp)"
    )]
    NotMounted {
        /// Its path here.
        path: String,
    },
    /// It is another one of the node.
    #[error(
        "checking {path}: it is {found} in the node's file system, but the kubelet's own files are beside {expected}, \
         so no container would find its profiles (in the DaemonSet, patch the hostPath of the volume `seccomp` to \
         <kubelet's --root-dir>/seccomp; if the node links or mounts it there from elsewhere, mount the node's \
         /etc/hosts at /etc/hosts of the agent's container, and this is not checked)"
    )]
    Elsewhere {
        /// Its path here.
        path: String,
        /// Its path in the file system that it is in.
        found: String,
        /// The path in the same file system where it should be.
        expected: String,
    },
}

/// A line of mountinfo, as proc(5) has it. Special characters in paths are escaped.
#[derive(Debug)]
struct Mount<'a> {
    id: &'a str,
    /// The file system.
    device: &'a str,
    /// What of the file system is mounted.
    root: &'a str,
    /// Where.
    point: &'a str,
}

impl Mount<'_> {
    /// Where `path`, which is in this mount, is in its file system.
    fn origin(&self, path: &str) -> Option<String> {
        let below = path.strip_prefix(self.point.trim_end_matches('/'))?;
        Some(format!("{}{below}", self.root.trim_end_matches('/')))
    }
}

/// Where the directory `fd` is in its file system: for a container's volume, the path of the node's
/// directory, also after that was moved. None if the kernel does not tell.
pub(crate) fn origin(fd: impl AsFd) -> Option<String> {
    let mounts = mountinfo()?;
    mount_of(&mounts, &mount_id(&fd)?)?.origin(&path_of(fd)?)
}

/// Whether the directory `fd` is `<root>/seccomp`, where `<root>` is the directory of the kubelet that made
/// the container that this process runs in. False if that can't be told, as outside of a container.
pub(crate) fn is_the_kubelets(fd: impl AsFd) -> Result<bool, WrongDirectory> {
    match (path_of(&fd), mount_id(&fd), mountinfo()) {
        (Some(path), Some(id), Some(mounts)) => compare(&mounts, &id, &path),
        _ => Ok(false),
    }
}

/// The same for the directory at `path`, which is in the mount `id`.
///
/// kubelet, `makeHostsMount` in `pkg/kubelet/kubelet_pods.go`: the file `<root>/pods/<uid>/etc-hosts` is
/// mounted at `/etc/hosts` of every container that has no mount of its own there.
fn compare(mounts: &str, id: &str, path: &str) -> Result<bool, WrongDirectory> {
    // What was mounted last covers what was before.
    let hosts = mounts.lines().filter_map(parse).rfind(|mount| mount.point == "/etc/hosts");
    let (Some(hosts), Some(own)) = (hosts, mount_of(mounts, id)) else { return Ok(false) };
    let Some(kubelet_root) = kubelet_root(hosts.root) else { return Ok(false) };
    let path = path.to_owned();
    if own.point == "/" {
        return Err(WrongDirectory::NotMounted { path });
    }
    let Some(found) = own.origin(&path).filter(|_| own.device == hosts.device) else { return Ok(false) };
    let expected = format!("{kubelet_root}/seccomp");
    if found == expected { Ok(true) } else { Err(WrongDirectory::Elsewhere { path, found, expected }) }
}

/// The kubelet's root, given the path of a pod's file for `/etc/hosts`; none if it is not the kubelet's.
fn kubelet_root(hosts: &str) -> Option<&str> {
    let (pods, _uid) = hosts.strip_suffix("/etc-hosts")?.rsplit_once('/')?;
    pods.strip_suffix("/pods")
}

fn path_of(fd: impl AsFd) -> Option<String> {
    let path = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd())).ok()?;
    path.into_os_string().into_string().ok()
}

fn mountinfo() -> Option<String> {
    fs::read_to_string("/proc/thread-self/mountinfo").ok()
}

fn mount_id(fd: impl AsFd) -> Option<String> {
    // proc(5): fdinfo tells the mount.
    let status = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().to_owned())
}

fn mount_of<'a>(mounts: &'a str, id: &str) -> Option<Mount<'a>> {
    mounts.lines().filter_map(parse).find(|mount| mount.id == id)
}

fn parse(line: &str) -> Option<Mount<'_>> {
    let mut fields = line.split(' ');
    let (id, _parent) = (fields.next()?, fields.next()?);
    Some(Mount { id, device: fields.next()?, root: fields.next()?, point: fields.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_a_directory_is_told() {
        for (mount, path, expected) in [
            ("98:0 /mnt1 /mnt2", "/mnt2", Some("/mnt1")),
            ("98:0 /mnt1 /mnt2", "/mnt2/a/b", Some("/mnt1/a/b")),
            ("98:0 / /mnt2", "/mnt2/a", Some("/a")),
            ("98:0 / /", "/a/b", Some("/a/b")),
            ("98:0 /mnt1 /mnt\\0402", "/mnt 2/a", None),
        ] {
            let line = format!("36 35 {mount} rw,noatime master:1 - ext3 /dev/root rw,errors=continue");
            let origin = mount_of(&line, "36").unwrap().origin(path);
            assert_eq!(origin.as_deref(), expected, "{mount}");
            assert!(mount_of(&line, "3").is_none());
        }
        let temporary = tempfile::tempdir().unwrap();
        let name = temporary.path().file_name().unwrap().to_str().unwrap();
        assert!(
            origin(fs::File::open(temporary.path()).unwrap()).is_some_and(|origin| origin.ends_with(name))
        );
    }

    const PATH: &str = "/var/lib/kubelet/seccomp";
    const HOSTS: &str = "8:1 /var/lib/kubelet/pods/6d1c-4b/etc-hosts /etc/hosts";

    /// Claims what is said of the directory [`PATH`] in the last of these mounts, each a device, what of it
    /// is mounted, and where. For one that is elsewhere: where it is and where it should be.
    fn check(mounts: &[&str], expected: Result<bool, (&str, &str)>) {
        let line = |(id, mount): (usize, &&str)| format!("{id} 1 {mount} rw,relatime - ext4 /dev/x rw\n");
        let lines: String = mounts.iter().enumerate().map(line).collect();
        let expected = expected.map_err(|(found, expected)| WrongDirectory::Elsewhere {
            path: PATH.to_owned(),
            found: found.to_owned(),
            expected: expected.to_owned(),
        });
        assert_eq!(compare(&lines, &(mounts.len() - 1).to_string(), PATH), expected, "{lines}");
    }

    #[test]
    fn the_kubelets_directory_is_known_by_the_files_beside_it() {
        check(&[HOSTS, "8:1 /var/lib/kubelet/seccomp /var/lib/kubelet/seccomp"], Ok(true));
        check(&[HOSTS, "8:1 /var/lib/kubelet /var/lib/kubelet"], Ok(true));
        check(&[HOSTS, "8:1 /var /var"], Ok(true));
        // A disk of its own for the kubelet's root.
        check(&["8:2 /pods/6d1c/etc-hosts /etc/hosts", "8:2 /seccomp /var/lib/kubelet/seccomp"], Ok(true));
        check(&["8:2 /pods/6d1c/etc-hosts /etc/hosts", "8:2 / /var/lib/kubelet"], Ok(true));
        // kind: a volume of the container engine. Btrfs: a subvolume.
        let kind = "/docker/volumes/77ab/_data/lib/kubelet";
        let hosts = format!("8:1 {kind}/pods/6d1c/etc-hosts /etc/hosts");
        check(&[&hosts, &format!("8:1 {kind}/seccomp {PATH}")], Ok(true));
        let hosts = "0:31 /@/var/lib/kubelet/pods/6d1c/etc-hosts /etc/hosts";
        check(&[hosts, "0:31 /@/var/lib/kubelet/seccomp /var/lib/kubelet/seccomp"], Ok(true));
    }

    #[test]
    fn another_directory_is_refused() {
        let hosts = "8:1 /var/lib/k0s/kubelet/pods/6d1c/etc-hosts /etc/hosts";
        let elsewhere = Err((PATH, "/var/lib/k0s/kubelet/seccomp"));
        check(&[hosts, "8:1 /var/lib/kubelet/seccomp /var/lib/kubelet/seccomp"], elsewhere);
        check(&[hosts, "8:1 /var/lib/kubelet /var/lib/kubelet"], elsewhere);
        check(&[HOSTS, hosts, "8:1 /var/lib/kubelet/seccomp /var/lib/kubelet/seccomp"], elsewhere);
        let nested = Err(("/var/lib/kubelet/seccomp/seccomp", PATH));
        check(&[HOSTS, "8:1 /var/lib/kubelet/seccomp /var/lib/kubelet"], nested);
        let mounts = format!("1 0 {HOSTS} rw - ext4 x rw\n2 0 0:40 / / rw - overlay x rw");
        let not_mounted = WrongDirectory::NotMounted { path: PATH.to_owned() };
        assert_eq!(compare(&mounts, "2", PATH), Err(not_mounted));
    }

    #[test]
    fn what_can_not_be_told_is_not_refused() {
        let own = "8:1 /var/lib/kubelet/seccomp /var/lib/kubelet/seccomp";
        check(&[own], Ok(false));
        check(&["8:1 / /"], Ok(false));
        check(&["8:2 /pods/6d1c/etc-hosts /etc/hosts", own], Ok(false));
        for hosts in
            ["/etc/hosts", "/containers/77ab/hosts", "/etc-hosts", "/pod/6d1c/etc-hosts", "/pods/etc-hosts"]
        {
            check(&[HOSTS, &format!("8:1 {hosts} /etc/hosts"), own], Ok(false));
        }
        assert_eq!(compare("", "1", PATH), Ok(false));
        assert_eq!(is_the_kubelets(fs::File::open("/").unwrap()), Ok(false));
    }
}
