//! The cgroup that all pods of a cluster run below, in every mounted hierarchy (v1, v2 or both: cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How long the processes of a cgroup may take to be gone after they were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Creates the cgroup `name` at the top of each hierarchy: the kubelet wants it there before it starts.
///
/// # Errors
/// The hierarchies can't be read or written.
pub(crate) fn create(name: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let cgroup = hierarchy.join(name);
        fs::create_dir_all(&cgroup).with_context(|| format!("creating the cgroup {}", cgroup.display()))?;
    }
    Ok(())
}

/// Removes the cgroup `name` and all below it from each hierarchy.
///
/// # Errors
/// A cgroup is still in use ten seconds later.
pub(crate) fn remove(name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for hierarchy in hierarchies()? {
        let cgroup = hierarchy.join(name);
        while cgroup.exists() {
            let removed = remove_tree(&cgroup);
            if Instant::now() > deadline {
                removed.with_context(|| format!("removing the cgroup {}", cgroup.display()))?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Every cgroup of this machine, as paths.
///
/// # Errors
/// The hierarchies can't be read.
pub fn all() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = hierarchies()?;
    while let Some(cgroup) = waiting.pop() {
        waiting.extend(children(&cgroup)?);
        found.push(cgroup);
    }
    found.sort();
    Ok(found)
}

/// A cgroup has no files that could be removed, only directories.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for child in children(cgroup)? {
        remove_tree(&child)?;
    }
    fs::remove_dir(cgroup)
}

fn children(cgroup: &Path) -> std::io::Result<Vec<PathBuf>> {
    // A cgroup may end while it is looked at.
    let Ok(entries) = fs::read_dir(cgroup) else { return Ok(Vec::new()) };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()).filter(|path| path.is_dir()))
        .map(Ok)
        .collect()
}

fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let is_cgroup = |fields: &[&str]| fields.get(2).is_some_and(|kind| kind.starts_with("cgroup"));
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields
        .filter(|fields| is_cgroup(fields))
        .filter_map(|fields| fields.get(1).map(PathBuf::from))
        .collect())
}
