//! The loop of `pavise catalog`: bundles in, Events out.
//!
//! Invariants: at most one write is under way, and nothing waits for it: what is seen meanwhile is judged,
//! and may make a write that is not sent yet needless. Nothing is decided here; that is the business of
//! [`profiles::catalog`].

use std::collections::BTreeSet;

use futures::future::{Fuse, FusedFuture, LocalBoxFuture};
use futures::stream::LocalBoxStream;
use futures::{FutureExt, Stream, StreamExt};
use profiles::catalog::{Catalog, Outcome, Review, Write};
use profiles::platform::Platform;
use profiles::time::Time;
use tokio::time::Instant;
use tracing::info;

use crate::cluster::bundles::Seen;

/// Runs until `stop` completes. `watch` starts to watch all bundles, judged for the platforms that it is
/// given; it is called anew when these change. `write` starts a write.
pub(crate) async fn run(
    platforms: impl Stream<Item = BTreeSet<Platform>>,
    watch: impl Fn(BTreeSet<Platform>) -> LocalBoxStream<'static, Seen<Review>>,
    write: impl Fn(Write) -> LocalBoxFuture<'static, Outcome>,
    stop: impl Future<Output = ()>,
) {
    let (mut platforms, mut stop) = (std::pin::pin!(platforms), std::pin::pin!(stop));
    let started = Instant::now();
    let now = || Time::since_start(started.elapsed());
    let mut catalog = Catalog::default();
    // Nothing is judged before it is known for which platforms.
    let mut bundles = futures::stream::pending().boxed_local();
    let mut writing = Fuse::terminated();
    loop {
        let mut wake_at = None;
        if writing.is_terminated() {
            let next = catalog.next(now());
            wake_at = next.wake_at.and_then(|at| started.checked_add(at.elapsed()));
            if let Some(next) = next.write {
                let outcome = write(next.clone());
                writing = async move { (next, outcome.await) }.boxed_local().fuse();
            }
        }
        tokio::select! {
            () = &mut stop => return,
            Some(platforms) = platforms.next() => bundles = watch(platforms),
            Some(seen) = bundles.next() => take(&mut catalog, seen, now()),
            (write, outcome) = &mut writing, if !writing.is_terminated() => {
                catalog.written(&write, outcome, now());
            }
            () = tokio::time::sleep_until(wake_at.unwrap_or(started)), if wake_at.is_some() => {}
        }
    }
}

fn take(catalog: &mut Catalog, seen: Seen<Review>, now: Time) {
    match seen {
        Seen::Listed(namespace, reviews) => {
            let bad = reviews.iter().filter(|review| !review.statements.is_empty()).count();
            info!(%namespace, bundles = reviews.len(), bad, "Bundles listed");
            catalog.listed(&namespace, reviews, now);
        }
        Seen::Applied(review) => catalog.reviewed(review, now),
        Seen::Deleted(id) => catalog.deleted(&id),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::stream;
    use profiles::catalog::How;
    use profiles::name::Namespace;

    use super::*;
    use crate::examples::{PLATFORM, source};

    /// A bundle `name` whose one profile has `text`, as it is judged for `platforms`.
    fn review(name: &str, text: &str, platforms: &BTreeSet<Platform>) -> Review {
        Review::of(&source("ns", name, &[("a.json", text)]), platforms)
    }

    fn platforms(architecture: &str) -> BTreeSet<Platform> {
        [Platform { architecture: architecture.parse().unwrap(), ..PLATFORM }].into()
    }

    /// Runs for `duration`. Each write takes a second. Returns when which bundle was written about, and how.
    async fn watched_for(
        duration: Duration,
        platforms: impl Stream<Item = BTreeSet<Platform>>,
        watch: impl Fn(BTreeSet<Platform>) -> LocalBoxStream<'static, Seen<Review>>,
    ) -> Vec<(u64, String, How)> {
        let started = Instant::now();
        let writes = Rc::new(RefCell::new(Vec::new()));
        let log = writes.clone();
        let write = move |write: Write| {
            let log = log.clone();
            async move {
                let bundle = write.statement.bundle.name.to_string();
                log.borrow_mut().push((started.elapsed().as_secs(), bundle, write.how));
                tokio::time::sleep(Duration::from_secs(1)).await;
                Outcome::Said
            }
            .boxed_local()
        };
        run(platforms, watch, write, tokio::time::sleep(duration)).await;
        writes.take()
    }

    fn after(seconds: u64, seen: Seen<Review>) -> impl Stream<Item = Seen<Review>> {
        stream::once(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seen
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_write_is_under_way_and_what_is_put_right_meanwhile_is_not_written() {
        let writes = watched_for(Duration::from_mins(31), stream::iter([platforms("amd64")]), |platforms| {
            let bad = |name| review(name, "{}", &platforms);
            let listed = vec![bad("one"), bad("three"), bad("two")];
            let good = review("three", r#"{"defaultAction":"SCMP_ACT_LOG"}"#, &platforms);
            stream::iter([Seen::Listed(Namespace::new("ns").unwrap(), listed), Seen::Applied(good)])
                .chain(stream::pending())
                .boxed_local()
        })
        .await;
        let expected = [(0, "one", How::First), (1, "two", How::First), (1801, "one", How::Again(2))];
        let expected = expected.map(|(at, bundle, how)| (at, bundle.to_owned(), how));
        assert_eq!(writes[..3], expected);
        assert_eq!(writes.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn bundles_are_judged_when_platforms_are_known_and_again_when_they_change() {
        let later = stream::once(async {
            tokio::time::sleep(Duration::from_mins(10)).await;
            platforms("arm64")
        });
        let asked = Rc::new(RefCell::new(Vec::new()));
        let log = asked.clone();
        let known = stream::iter([platforms("amd64")]).chain(later).chain(stream::pending());
        let writes = watched_for(Duration::from_mins(11), known, move |platforms| {
            log.borrow_mut().extend(platforms.iter().map(|platform| platform.architecture.to_string()));
            let bad = review("one", "{}", &platforms);
            let listed = Seen::Listed(Namespace::new("ns").unwrap(), vec![bad]);
            after(1, listed).chain(stream::pending()).boxed_local()
        })
        .await;
        assert_eq!(asked.take(), ["amd64", "arm64"]);
        assert_eq!(writes, [(1, "one".to_owned(), How::First)]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_platforms_nothing_is_said() {
        let writes = watched_for(Duration::from_hours(2), stream::pending(), |_| panic!("it watches")).await;
        assert_eq!(writes, []);
    }
}
