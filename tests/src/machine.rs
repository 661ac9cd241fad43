//! What a cluster could leave behind on the machine, to be compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::{cgroup, layout, private_root};

/// What a pod network likes to change, beside what the kubelet does.
const FORWARDING: &str = "net/ipv4/ip_forward";

/// What tells the cgroups of a cluster's programs from those that come and go with everything else on a
/// machine.
const CGROUP_WORDS: &[&str] = &["pavise", "kube", "containerd", "runc", "cri-"];

/// The machine, as far as clusters touch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    things: BTreeSet<String>,
}

impl Machine {
    /// Looks at the clusters' processes, cgroups and directories, and at all mounts, network links and
    /// settings.
    ///
    /// # Errors
    /// /proc or /sys can't be read.
    pub fn observe() -> anyhow::Result<Self> {
        let mut things = BTreeSet::new();
        for process in
            names_in(Path::new("/proc"))?.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        {
            let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&layout::directory().display().to_string())
                || command.contains("testbed-init")
            {
                things.insert(format!("process {process}: {}", command.trim()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading mounts")?;
        things.extend(
            mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|target| format!("mount {target}")),
        );
        things.extend(names_in(Path::new("/sys/class/net"))?.iter().map(|link| format!("link {link}")));
        let cgroups = cgroup::all()?.into_iter().map(|cgroup| cgroup.display().to_string());
        let is_of_nodes = |cgroup: &String| CGROUP_WORDS.iter().any(|word| cgroup.contains(word));
        things.extend(cgroups.filter(is_of_nodes).map(|cgroup| format!("cgroup {cgroup}")));
        for tunable in private_root::TUNABLES.iter().chain([&FORWARDING]) {
            let value = fs::read_to_string(Path::new("/proc/sys").join(tunable)).unwrap_or_default();
            things.insert(format!("setting {tunable} = {}", value.trim()));
        }
        if layout::directory().is_dir() {
            let clusters = names_in(&layout::directory())?;
            things.extend(
                clusters
                    .iter()
                    .filter(|name| !name.contains('.'))
                    .map(|name| format!("directory of the cluster {name}")),
            );
        }
        Ok(Self { things })
    }

    /// Compares the machine as it is now with this.
    ///
    /// # Errors
    /// Something was left or is gone: the error lists it.
    pub fn expect_unchanged(&self) -> anyhow::Result<()> {
        let now = Self::observe()?;
        let left = now.things.difference(&self.things).map(|thing| format!("+ {thing}"));
        let gone = self.things.difference(&now.things).map(|thing| format!("- {thing}"));
        let changes: Vec<String> = left.chain(gone).collect();
        if !changes.is_empty() {
            bail!("the machine is not as it was before:\n  {}", changes.join("\n  "));
        }
        Ok(())
    }
}

fn names_in(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}
