//! What the agent says of its node's pods, as Events.
//!
//! Invariants: at most one write is under way, and nothing waits for it: what is put right meanwhile may make a
//! write that is not sent yet needless. When what is said is decided by [`profiles::saying`].

use futures::FutureExt;
use futures::future::{Fuse, FusedFuture, LocalBoxFuture};
use profiles::check::PodChecks;
use profiles::name::NodeName;
use profiles::saying::{Outcome, Saying, Write};
use profiles::state::State;
use profiles::time::Time;

/// Starts a write, which tells how it ended.
pub(crate) type WriteEvent = Box<dyn Fn(Write) -> LocalBoxFuture<'static, Outcome>>;

/// What is said, and the one write that is under way.
pub(crate) struct Announcer {
    saying: Saying,
    write: WriteEvent,
    writing: Fuse<LocalBoxFuture<'static, (Write, Outcome)>>,
}

impl Announcer {
    /// Says by `write` what is wrong with the pods of `node`. Nothing happens yet.
    pub(crate) fn new(node: &NodeName, write: WriteEvent) -> Self {
        Self { saying: Saying::of_pods(node), write, writing: Fuse::terminated() }
    }

    /// Takes over what `checks` found, and starts what is to be written now. Returns when there is more to do,
    /// if nothing happens before.
    pub(super) fn checked(&mut self, state: &State, checks: &PodChecks, now: Time) -> Option<Time> {
        self.saying.pods(state, checks, now);
        if !self.writing.is_terminated() {
            return None;
        }
        let next = self.saying.next(now);
        if let Some(next) = next.write {
            let outcome = (self.write)(next.clone());
            self.writing = async move { (next, outcome.await) }.boxed_local().fuse();
        }
        next.wake_at
    }

    /// Records how a write ended.
    pub(super) fn written(&mut self, write: &Write, outcome: Outcome, now: Time) {
        self.saying.written(write, outcome, now);
    }
}

/// How the write that is under way ends; none if there is none.
pub(super) async fn next_outcome(announcer: &mut Option<Announcer>) -> Option<(Write, Outcome)> {
    let writing = &mut announcer.as_mut()?.writing;
    if writing.is_terminated() { None } else { Some(writing.await) }
}
