//! Child processes.
//!
//! Invariant: a child that ends with its parent does so however that ends.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// It had no processor time left (`RLIMIT_CPU`).
    OutOfTime,
    /// Somebody, or the kernel for want of memory, ended it.
    Killed,
    /// By a fault of its own, such as a wrong address or abort(3).
    Crashed,
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        if let Some(code) = status.code() {
            return Self::Code(code);
        }
        match status.signal().and_then(|number| Signal::try_from(number).ok()) {
            Some(Signal::SIGXCPU) => Self::OutOfTime,
            Some(Signal::SIGKILL | Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP) => Self::Killed,
            _ => Self::Crashed,
        }
    }
}

/// Has the kernel end this process when the thread that started it ends.
///
/// # Errors
/// `parent` is not this process's parent (any more).
pub(crate) fn end_with_parent(parent: u32) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("tying this process to its parent (PR_SET_PDEATHSIG)")?;
    // It may have ended before that.
    if u32::try_from(getppid().as_raw()) != Ok(parent) {
        bail!("process {parent} is not the parent (any more)");
    }
    Ok(())
}
