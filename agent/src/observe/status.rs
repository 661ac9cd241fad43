//! What the agent answers to probes and scrapes.
//!
//! Invariant: it is ready when it has once since its start brought the node in line with its bundles, as far
//! as that is up to it, and now can compile each text and write and remove each profile, on the disk and in
//! the kernel.

use profiles::bundle::Kind;
use profiles::state::State;
use profiles::time::Time;
use tokio::sync::watch;

use super::metrics::Metrics;

/// Told by the loop, read by whoever asks.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) metrics: Metrics,
    readiness: watch::Sender<Readiness>,
}

/// Whether the agent is ready, and why not.
#[derive(Debug)]
struct Readiness {
    /// Whether there was a moment since the start at which nothing was left to wait for. What comes later
    /// does not take that back: profiles stay served without the API server.
    is_complete: bool,
    /// What is in the way of being ready, in words.
    reasons: Vec<String>,
}

impl Status {
    /// Of an agent that starts.
    pub(crate) fn new() -> Self {
        let reasons = vec!["the agent is starting".to_owned()];
        let readiness = watch::Sender::new(Readiness { is_complete: false, reasons });
        Self { metrics: Metrics::new(), readiness }
    }

    /// Takes over what is known at `now`, after all was done that could be done.
    pub(crate) fn update(&self, state: &State, now: Time) {
        let summaries = Kind::ALL.into_iter().map(|kind| (kind, state.summary(kind, now)));
        let (mut uncompiled, mut unwritten, mut unremoved) = (0, 0, 0);
        for (kind, summary) in summaries {
            self.metrics.show(kind, &summary);
            uncompiled += summary.uncompiled;
            unwritten += summary.unwritten;
            unremoved += summary.unremoved;
        }
        self.metrics.is_tainted(state.has_startup_taint());
        self.readiness.send_modify(|readiness| {
            let waits = if readiness.is_complete { Vec::new() } else { state.waits(now) };
            let failures = [("compiled", uncompiled), ("written", unwritten), ("removed", unremoved)]
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(what, count)| {
                    format!("profiles that can't be {what}, for reasons in the log: {count}")
                });
            readiness.is_complete = waits.is_empty();
            readiness.reasons = waits.iter().map(ToString::to_string).chain(failures).collect();
            self.metrics.is_ready(readiness.reasons.is_empty());
        });
    }

    /// What is in the way of being ready, in words; nothing when it is.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.readiness.borrow().reasons.clone()
    }
}
