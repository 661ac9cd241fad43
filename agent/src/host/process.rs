//! What processes cost the node.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use procfs::process::{Process, Stat};

/// As proc(5) tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time, in user and kernel mode.
    pub(crate) cpu: Duration,
    /// Memory that is in RAM.
    pub(crate) resident_bytes: u64,
    /// Open file descriptors.
    pub(crate) open_files: u64,
}

/// The usage until now. None if the kernel does not tell.
pub(crate) fn usage() -> Option<Usage> {
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    Some(Usage {
        cpu: processor_time(&stat)?,
        resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        open_files: process.fd_count().ok()?.try_into().ok()?,
    })
}

/// The processor time that the process `id` has used. None if there is no such process.
pub(crate) fn processor_time_of(id: u32) -> Option<Duration> {
    processor_time(&Process::new(id.try_into().ok()?).ok()?.stat().ok()?)
}

fn processor_time(stat: &Stat) -> Option<Duration> {
    let ticks = u32::try_from(stat.utime + stat.stime).ok()?;
    // Not by procfs: it asks /proc/self/auxv where the kernel is older than 6.4, and panics in a process that is
    // not dumpable, as the compiler is.
    let second = u32::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    Some(Duration::from_secs(1).saturating_mul(ticks) / second)
}
