//! How soon a step is taken again that failed, or that somebody undid.
//!
//! Invariant: what fails, or is undone, again and again costs a step a minute in the end.

use std::time::Duration;

use crate::time::{Retry, Time};

/// The pace of the steps on one profile.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    retry: Retry,
    /// Whether the last step failed, and nothing has changed since.
    pub(crate) is_failing: bool,
    drifts: Drifts,
}

/// How often somebody changed what we had put there, in a row.
#[derive(Debug, Default)]
struct Drifts {
    count: u32,
    last: Option<Time>,
}

impl Drifts {
    /// So many in a row are repaired at once; what comes after that is a fight.
    const PATIENCE: u32 = 10;

    /// Counts one more. Returns whether it is one of a fight.
    fn count(&mut self, now: Time) -> bool {
        let is_in_a_row = self.last.is_some_and(|last| last + Retry::MEMORY > now);
        self.count = if is_in_a_row { self.count.saturating_add(1) } else { 1 };
        self.last = Some(now);
        self.count > Self::PATIENCE
    }

    /// How many of a fight came before the last one.
    fn fought(&self) -> u32 {
        self.count.saturating_sub(Self::PATIENCE + 1)
    }
}

impl Pace {
    /// Something is new: the next step may be taken at once.
    pub(crate) fn start_anew(&mut self) {
        self.retry = Retry::default();
        self.is_failing = false;
    }

    /// A step failed.
    pub(crate) fn failed(&mut self, now: Time) {
        self.is_failing = true;
        self.retry.failed(now);
    }

    /// A step led to nothing that would be a problem.
    pub(crate) fn slowed(&mut self, now: Time) {
        self.retry.failed(now);
    }

    /// Only somebody else can change what is in the way, so it is looked at again after `pause`, each time.
    pub(crate) fn blocked(&mut self, now: Time, pause: Duration) {
        self.is_failing = false;
        self.retry.pause(now, pause);
    }

    /// Somebody changed what was there: something new, unless it is a fight.
    pub(crate) fn drifted(&mut self, now: Time) {
        self.start_anew();
        if self.drifts.count(now) {
            self.retry = Retry::after(self.drifts.fought(), now);
        }
    }

    /// Until when the next step must wait, if that is still to come.
    pub(crate) fn blocked_until(&self, now: Time) -> Option<Time> {
        self.retry.blocked_until(now)
    }
}
