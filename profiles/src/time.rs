//! Time as an argument.
//!
//! Invariant: nothing in this crate reads a clock. A [`Time`] only makes sense beside others of the same
//! process.

use std::ops::Add;
use std::time::Duration;

/// A point in time: how long after the agent's start, on a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(Duration);

impl Time {
    /// The point `elapsed` after the start.
    #[must_use]
    pub fn since_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the start this is.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Saturates: a delay of a million years is one that does not end.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// When something may be tried again: after 1 s, 2 s, 4 s … 60 s the more often it failed in a row.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Retry {
    failures: u32,
    not_before: Option<Time>,
}

impl Retry {
    const FIRST: Duration = Duration::from_secs(1);
    /// The longest pause, also for what only somebody else can put right.
    pub(crate) const LONGEST: Duration = Duration::from_mins(1);
    /// How long it is remembered what was done, to notice that somebody undoes it again and again. More than
    /// the longest pause, or a fight would go unnoticed.
    pub(crate) const MEMORY: Duration = Self::LONGEST.saturating_mul(2);

    /// One more failure, at `now`, than `failures` in a row.
    pub(crate) fn after(failures: u32, now: Time) -> Self {
        let mut retry = Self { failures, not_before: None };
        retry.failed(now);
        retry
    }

    /// Records a failure at `now`.
    pub(crate) fn failed(&mut self, now: Time) {
        let pause = Self::FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
    }

    /// Forgets the failures, and pauses for `pause` from `now`.
    pub(crate) fn pause(&mut self, now: Time, pause: Duration) {
        *self = Self { failures: 0, not_before: Some(now + pause) };
    }

    /// When the next attempt is due, if that is still to come.
    pub(crate) fn blocked_until(&self, now: Time) -> Option<Time> {
        self.not_before.filter(|not_before| *not_before > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut retry = Retry::default();
        let now = Time::since_start(Duration::from_secs(100));
        assert_eq!(retry.blocked_until(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            retry.failed(now);
            assert_eq!(retry.blocked_until(now), Some(now + Duration::from_secs(seconds)));
        }
        assert_eq!(retry.blocked_until(now + Retry::LONGEST), None);
    }

    #[test]
    fn time_never_overflows() {
        let now = Time::since_start(Duration::MAX);
        assert_eq!(now + Duration::MAX, now);
    }
}
