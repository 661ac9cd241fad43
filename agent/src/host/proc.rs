//! The node's procfs: which processes it shows.
//!
//! Invariant: a process that ends while it is looked at is no error.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use procfs::FromRead;
use procfs::process::{Stat, StatFlags};

/// The thread that starts all threads of the kernel: only the process namespace of the node has it.
const KTHREADD: &str = "2";

/// Whether `proc` shows all processes of the node: a container's own, or one with `hidepid`, does not.
pub(crate) fn shows_the_node(proc: &Path) -> bool {
    let stat = Stat::from_file(proc.join(KTHREADD).join("stat"));
    stat.is_ok_and(|stat| stat.flags & StatFlags::PF_KTHREAD.bits() != 0)
}

/// The numbers of processes or threads in `directory`.
pub(crate) fn numbers(directory: &Path) -> io::Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.push(name);
        }
    }
    Ok(numbers)
}

/// Nothing where there is nothing: of a process or thread that ended, or that does not have it (EINVAL).
pub(crate) fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

/// A procfs of the tests' own.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// A text of `/proc/2/stat` on a node.
    pub(crate) const KTHREADD_STAT: &str = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 24 0 0 \
        18446744073709551615 0 0 0 0 0 0 0 2147483647 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    /// One that shows the node, with these files: a path below it, and what is there.
    pub(crate) fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temporary = tempfile::tempdir().unwrap();
        for (path, content) in files.iter().copied().chain([("2/stat", KTHREADD_STAT)]) {
            let path = temporary.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        temporary
    }
}
