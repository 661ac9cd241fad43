//! The object `ProfileCatalog`, beside Events: what is to stand in it follows from the bundles, after each turn
//! of the loop.
//!
//! Invariant: at most one request about it is under way, and neither the loop nor Events wait for it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use profiles::catalog::declaring::Declaring;
use profiles::catalog::object::Status;
use profiles::time::Time;
use profiles::writing::{Next, Writing};

use crate::cluster::profile_catalog::{Answer, Request};

/// The object, and the request that is under way.
pub(crate) struct Object {
    /// What bundles declare.
    pub(super) declaring: Declaring,
    writing: Writing<Arc<Status>>,
    ask: Box<dyn Fn(Request) -> LocalBoxFuture<'static, Answer>>,
    under_way: Option<LocalBoxFuture<'static, Answer>>,
}

impl Object {
    /// Nothing was asked yet. `ask` asks the API server.
    pub(crate) fn new(
        declaring: Declaring,
        ask: impl Fn(Request) -> LocalBoxFuture<'static, Answer> + 'static,
    ) -> Self {
        Self { declaring, writing: Writing::new(Duration::ZERO), ask: Box::new(ask), under_way: None }
    }

    /// Asks what is to be asked at `now`. Returns when to come here again, if nothing happens before.
    pub(super) fn turn(&mut self, now: Time) -> Option<Time> {
        let draft = self.declaring.draft(now);
        let later = match self.writing.next(|_| draft, now) {
            Next::Ask(request) => {
                self.under_way = Some((self.ask)(request));
                None
            }
            Next::Wait(later) => later,
        };
        later.into_iter().chain(self.declaring.due()).min()
    }

    /// The answer to what is under way, if anything is. To be taken with [`Self::take`].
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        let answer = self.under_way.as_mut()?.await;
        self.under_way = None;
        Some(answer)
    }

    /// Takes the answer that came at `now`.
    pub(super) fn take(&mut self, answer: Answer, now: Time) {
        if let Answer::Found(found) = &answer {
            self.declaring.found(found.as_deref());
        }
        self.writing.answered(answer, now);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use futures::{FutureExt, Stream, StreamExt, stream};
    use profiles::catalog::asking::Judged;
    use profiles::name::Namespace;
    use profiles::platform::Platform;
    use profiles::saying::Outcome;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::catalog;
    use crate::cluster::bundles::Seen;
    use crate::compiler::queue::Queue;
    use crate::examples::{PLATFORM, source};

    fn namespace() -> Namespace {
        Namespace::new("ns").unwrap()
    }

    /// The bundle `web` with these keys. All are refused.
    fn web(keys: &[&str]) -> Judged {
        let data: Vec<(&str, &str)> = keys.iter().map(|key| (*key, "{}")).collect();
        Judged::of(&source("ns", "web", &data), &[PLATFORM].into())
    }

    /// The object of a bundle `web` with these keys.
    fn declared(keys: &[&str]) -> Arc<Status> {
        let mut declaring = Declaring::new(namespace(), BTreeSet::new(), Duration::ZERO);
        declaring.found(None);
        declaring.listed(&namespace(), [web(keys).declared]);
        declaring.draft(Time::default()).unwrap().content
    }

    /// Runs for `minutes`, in which `seen` is seen. Each answer takes a second: what the object has at first
    /// is `found`, and then what was written. With `fails`, the first so many writes fail. Returns what was
    /// written, and after how many seconds it was asked for, and about how many Events.
    async fn written(
        minutes: u64,
        found: Option<Arc<Status>>,
        fails: usize,
        seen: impl Stream<Item = Seen<Judged>> + 'static,
    ) -> (Vec<(u64, Vec<String>)>, usize) {
        let started = Instant::now();
        let writes = Rc::new(RefCell::new(Vec::new()));
        let there = Rc::new(RefCell::new(found));
        let log = writes.clone();
        let ask = move |request: Request| {
            let (there, log) = (there.clone(), log.clone());
            async move {
                let asked_at = started.elapsed().as_secs();
                sleep(Duration::from_secs(1)).await;
                match request {
                    Request::Read => Answer::Found(there.borrow().clone()),
                    Request::Write(status) => {
                        log.borrow_mut().push((asked_at, status.seccomp.keys().cloned().collect()));
                        if log.borrow().len() <= fails {
                            return Answer::Failed;
                        }
                        there.replace(Some(status));
                        Answer::Written
                    }
                }
            }
            .boxed_local()
        };
        let declaring = Declaring::new(namespace(), BTreeSet::new(), Duration::from_mins(5));
        let seen = RefCell::new(Some(seen.chain(stream::pending()).boxed_local()));
        let events = Rc::new(RefCell::new(0));
        let count = events.clone();
        let write = move |_| {
            *count.borrow_mut() += 1;
            futures::future::pending::<Outcome>().boxed_local()
        };
        catalog::run(
            stream::iter([BTreeSet::<Platform>::from([PLATFORM])]).chain(stream::pending()),
            |_| seen.take().unwrap(),
            Queue::new(1, |_| panic!("nothing is to be compiled")),
            write,
            Object::new(declaring, ask),
            sleep(Duration::from_mins(minutes)),
        )
        .await;
        let events = *events.borrow();
        (writes.take(), events)
    }

    fn after(seconds: u64, seen: Seen<Judged>) -> impl Stream<Item = Seen<Judged>> {
        stream::once(async move {
            sleep(Duration::from_secs(seconds)).await;
            seen
        })
    }

    fn listed(keys: &[&str]) -> Seen<Judged> {
        Seen::Listed(namespace(), vec![web(keys)])
    }

    #[tokio::test(start_paused = true)]
    async fn what_bundles_declare_is_written_and_goes_after_the_delay() {
        let seen = after(10, listed(&["a", "b"])).chain(after(10, Seen::Applied(web(&["b", "c"]))));
        let (writes, events) = written(60, None, 0, seen).await;
        let of = |keys: &[&str]| keys.iter().map(|key| format!("web/{key}")).collect::<Vec<_>>();
        assert_eq!(writes, [(11, of(&["a", "b"])), (20, of(&["a", "b", "c"])), (320, of(&["b", "c"]))]);
        assert_eq!(events, 1, "an Event that is under way holds up the object, or the other way round");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_writes_nothing_where_nothing_has_changed() {
        let there = Some(declared(&["a"]));
        let (writes, _) = written(60, there.clone(), 0, after(3, listed(&["a"]))).await;
        assert_eq!(writes, []);
        // Nor one that does not get to know the bundles.
        let (writes, _) = written(60, there, 0, stream::pending()).await;
        assert_eq!(writes, []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_failed_is_tried_again() {
        let (writes, _) = written(60, None, 2, after(3, listed(&["a"]))).await;
        assert_eq!(writes.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [4, 7, 11]);
    }
}
