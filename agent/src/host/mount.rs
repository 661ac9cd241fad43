//! Where a mount comes from.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

/// Where in its file system the mount begins that `fd` is in: for a container's volume, the path of the node's
/// directory, also after that was moved. None if the kernel does not tell.
pub(crate) fn origin(fd: impl AsFd) -> Option<String> {
    // proc(5): fdinfo tells the mount, mountinfo its root.
    let status = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()?;
    let mount = status.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    mounts.lines().find_map(|line| root_of(mount, line))
}

fn root_of(mount: &str, line: &str) -> Option<String> {
    let mut fields = line.split(' ');
    (fields.next() == Some(mount)).then(|| fields.nth(2).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_a_mount_is_told() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(root_of("36", line).as_deref(), Some("/mnt1"));
        assert_eq!(root_of("3", line), None);
        assert!(origin(fs::File::open("/").unwrap()).is_some_and(|origin| origin.starts_with('/')));
    }
}
