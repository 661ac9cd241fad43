//! What the agent says of its node's pods, as Events.
//!
//! Invariants: at most one write is under way, and nothing waits for it: what is put right meanwhile may make
//! a write that is not sent yet needless. When what is said is decided by [`profiles::saying`].

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

    /// Takes over what `checks` found, and starts what is to be written now. Returns when there is more to
    /// do, if nothing happens before.
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::rc::Rc;
    use std::time::Duration;

    use profiles::bundle::Kind;
    use profiles::check::{PodFinding, PodReason, ReferenceState};
    use profiles::name::Namespace;
    use profiles::platform::AppArmor;
    use profiles::pod::{ContainerKind, Pod, PodId};
    use profiles::saying::{How, SETTLING};
    use profiles::state::{Config, Event};
    use tokio::time::Instant;

    use super::*;

    fn id(pod: &str) -> PodId {
        PodId { namespace: "ns".to_owned(), name: pod.to_owned(), uid: format!("{pod}-1") }
    }

    fn finding(pod: &str) -> PodFinding {
        PodFinding {
            pod: id(pod),
            container: "c".to_owned(),
            container_kind: ContainerKind::Regular,
            kind: Kind::Seccomp,
            reference: "b/a.json".to_owned(),
            reason: PodReason::ProfileMissing,
            message: "there is none".to_owned(),
        }
    }

    fn state(pods: &[&str]) -> State {
        let mut state = State::new(Config {
            home: Namespace::new("home").unwrap(),
            others: BTreeSet::new(),
            removal_delay: Duration::ZERO,
            node: Some(NodeName::new("node1").unwrap()),
            apparmor: AppArmor::Disabled,
        });
        let pods = pods.iter().map(|pod| (id(pod), Pod::default())).collect();
        state.apply(Event::PodsListed(pods), Time::default());
        state
    }

    /// Says for `duration` what is wrong with the pods that `wrong` names at so many seconds, with an API
    /// server that takes a second for each write. Returns after how many milliseconds which pod was spoken
    /// of, and how.
    async fn said(duration: Duration, wrong: fn(u64) -> &'static [&'static str]) -> Vec<(u128, String, How)> {
        let (log, under_way) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let started = Instant::now();
        let (writes, count) = (log.clone(), under_way.clone());
        let write = move |write: Write| {
            let pod = write.statement.subject.name;
            writes.borrow_mut().push((started.elapsed().as_millis(), pod, write.how));
            assert_eq!(count.replace(1), 0, "two writes are under way");
            let count = count.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                count.set(0);
                Outcome::Said
            }
            .boxed_local()
        };
        let state = state(&["one", "two"]);
        let node = NodeName::new("node1").unwrap();
        let mut announcer = Some(Announcer::new(&node, Box::new(write)));
        let now = || Time::since_start(started.elapsed());
        while started.elapsed() < duration {
            let findings = wrong(started.elapsed().as_secs()).iter().map(|pod| finding(pod)).collect();
            let references = [((Kind::Seccomp, ReferenceState::Resolved), 1)].into();
            let checks = PodChecks { findings, references, ..PodChecks::default() };
            if let Some(announcer) = &mut announcer {
                announcer.checked(&state, &checks, now());
            }
            tokio::select! {
                Some((write, outcome)) = next_outcome(&mut announcer) => {
                    if let Some(announcer) = &mut announcer {
                        announcer.written(&write, outcome, now());
                    }
                }
                // Whatever else happens on a node.
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        log.take()
    }

    #[tokio::test(start_paused = true)]
    async fn one_write_is_under_way_and_what_is_put_right_meanwhile_is_not_written() {
        let settled = SETTLING.as_millis();
        let expected = |at, pod: &str, how| (at, pod.to_owned(), how);
        let both = said(Duration::from_mins(31), |_| &["one", "two"]).await;
        let first = [expected(settled, "one", How::First), expected(settled + 1_000, "two", How::First)];
        assert_eq!(both[..2], first);
        assert_eq!(both[2..].iter().map(|(_, _, how)| *how).collect::<Vec<_>>(), [How::Again(2); 2]);

        let one = said(Duration::from_mins(31), |second| if second < 1 { &["one", "two"] } else { &["one"] });
        let one: Vec<_> = one.await.into_iter().map(|(_, pod, how)| (pod, how)).collect();
        assert_eq!(one, [("one".to_owned(), How::First), ("one".to_owned(), How::Again(2))]);
    }
}
