//! The steps of a write to the disk or to the kernel's policy, one by one, so that tests can have each of them
//! fail and look at both in between.

use std::path::Path;

/// A step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// To write a file under its temporary name.
    Write,
    /// To make the content of one file durable.
    Sync,
    /// To make all of the file system durable.
    SyncAll,
    /// To give a file its name.
    Rename,
    /// To make the names in a directory durable.
    SyncDirectory,
    /// To load a blob into the kernel.
    Load,
    /// To look at what the kernel has after that.
    Verify,
    /// To remove a profile from the kernel.
    Unload,
}

/// Says that `step` on `path` comes next. Fails only where a test wants it.
#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "tests have it fail"))]
pub(crate) fn about_to(step: Step, path: &Path) -> nix::Result<()> {
    #[cfg(test)]
    tests::told(step, path)?;
    let _ = (step, path);
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use super::*;

    type Watcher = Box<dyn FnMut(Step, &Path) -> nix::Result<()>>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Runs `body`. `watcher` is told each step on this thread before it is done, and says how it fails.
    pub(crate) fn watched<T>(
        watcher: impl FnMut(Step, &Path) -> nix::Result<()> + 'static,
        body: impl FnOnce() -> T,
    ) -> T {
        WATCHER.set(Some(Box::new(watcher)));
        let outcome = body();
        WATCHER.take();
        outcome
    }

    pub(super) fn told(step: Step, path: &Path) -> nix::Result<()> {
        WATCHER.with_borrow_mut(|watcher| watcher.as_mut().map_or(Ok(()), |watcher| watcher(step, path)))
    }
}
