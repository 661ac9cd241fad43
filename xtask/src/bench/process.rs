//! What the kernel says of a process (proc(5)).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

/// A running process, by its directory in `/proc`.
pub(super) struct Process(PathBuf);

impl Process {
    pub(super) fn new(number: impl std::fmt::Display) -> Self {
        Self(PathBuf::from(format!("/proc/{number}")))
    }

    /// The size of its program's file, in bytes.
    pub(super) fn program_size(&self) -> anyhow::Result<u64> {
        Ok(fs::metadata(self.0.join("exe")).context("looking at the agent's program")?.len())
    }

    /// The memory that it takes now, in bytes.
    pub(super) fn resident(&self) -> anyhow::Result<u64> {
        self.field("status", "VmRSS:").map(|kibibytes| kibibytes * 1024)
    }

    /// What it has caused to be written to disks since it started, in bytes.
    pub(super) fn written(&self) -> anyhow::Result<u64> {
        self.field("io", "write_bytes:")
    }

    /// The processor time of its threads. `schedstat` has it in nanoseconds, `stat` in hundredths of a
    /// second.
    pub(super) fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut all = Duration::ZERO;
        for thread in fs::read_dir(self.0.join("task")).context("listing the agent's threads")? {
            let file = thread?.path().join("schedstat");
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
            all += Duration::from_nanos(nanoseconds.with_context(|| format!("reading {}", file.display()))?);
        }
        Ok(all)
    }

    /// The number in the line of a file that starts with `name`.
    fn field(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("{} has no number for {name}", path.display()))
    }
}
