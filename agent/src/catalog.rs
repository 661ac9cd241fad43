//! The loop of `pavise catalog`: bundles in, Events and the object `ProfileCatalog` out.
//!
//! Invariants: at most one write of an Event is under way, and nothing waits for it: what is seen meanwhile is
//! judged, and may make a write that is not sent yet needless. Nothing waits for the compiler either: what it
//! says of a text is taken when it comes, and a text that no bundle has any more is hung up on. Nothing is
//! decided here; that is the business of [`profiles::catalog`] and [`profiles::saying`]. The object is kept
//! beside all of that ([`object`]).

pub(crate) mod object;

pub(crate) mod pending;

use std::collections::BTreeSet;

use anyhow::Result;
use futures::future::{Fuse, FusedFuture, LocalBoxFuture};
use futures::stream::LocalBoxStream;
use futures::{FutureExt, Stream, StreamExt};
use profiles::bundle::Document;
use profiles::catalog::asking::{Asking, Judged};
use profiles::diagnostic::Diagnostic;
use profiles::digest::Digest;
use profiles::platform::Platform;
use profiles::saying::{Outcome, Saying, Write};
use profiles::statement::Subject;
use profiles::time::Time;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cluster::bundles::Seen;
use crate::compiler::queue::Queue;
use object::Object;

/// AppArmor texts on their way to the compiler, and what was found when they come back. An error: there is no
/// answer.
pub(crate) type Compiling = Queue<Document, Result<Vec<Diagnostic>>>;

/// Runs until `stop` completes. `watch` starts to watch all bundles, judged for the platforms that it is
/// given; it is called anew when these change. `write` starts a write of an Event.
pub(crate) async fn run(
    platforms: impl Stream<Item = BTreeSet<Platform>>,
    watch: impl Fn(BTreeSet<Platform>) -> LocalBoxStream<'static, Seen<Judged>>,
    mut compiling: Compiling,
    write: impl Fn(Write) -> LocalBoxFuture<'static, Outcome>,
    object: Object,
    stop: impl Future<Output = ()>,
) {
    let (mut platforms, mut stop) = (std::pin::pin!(platforms), std::pin::pin!(stop));
    let started = Instant::now();
    let now = || Time::since_start(started.elapsed());
    let mut known = Known { saying: Saying::of_bundles(), asking: Asking::default(), object };
    // Nothing is judged before it is known for which platforms.
    let mut bundles = futures::stream::pending().boxed_local();
    let mut writing = Fuse::terminated();
    loop {
        compiling.retain(|text| known.asking.is_asked(text));
        let (texts, mut wake_at) = known.asking.ask(now());
        for (document, bundles) in texts {
            compiling.wait(document.digest(), bundles, document);
        }
        if writing.is_terminated() {
            let next = known.saying.next(now());
            wake_at = wake_at.into_iter().chain(next.wake_at).min();
            if let Some(next) = next.write {
                let outcome = write(next.clone());
                writing = async move { (next, outcome.await) }.boxed_local().fuse();
            }
        }
        wake_at = wake_at.into_iter().chain(known.object.turn(now())).min();
        let wake_at = wake_at.and_then(|at| started.checked_add(at.elapsed()));
        tokio::select! {
            () = &mut stop => return,
            Some(platforms) = platforms.next() => bundles = watch(platforms),
            Some(seen) = bundles.next() => known.take(seen, now()),
            Some((text, found)) = compiling.next() => known.compiled(text, found, now()),
            (write, outcome) = &mut writing, if !writing.is_terminated() => {
                known.saying.written(&write, outcome, now());
            }
            Some(answer) = known.object.answer() => known.object.take(answer, now()),
            () = tokio::time::sleep_until(wake_at.unwrap_or(started)), if wake_at.is_some() => {}
        }
    }
}

struct Known {
    saying: Saying,
    asking: Asking,
    object: Object,
}

impl Known {
    fn take(&mut self, seen: Seen<Judged>, now: Time) {
        match seen {
            Seen::Listed(namespace, judged) => {
                let declared = judged.iter().map(|judged| judged.declared.clone());
                self.object.declaring.listed(&namespace, declared);
                let reviews = self.asking.listed(&namespace, judged);
                let bad = reviews.iter().filter(|review| !review.statements.is_empty()).count();
                info!(%namespace, bundles = reviews.len(), bad, "Bundles listed");
                self.saying.listed(namespace.as_str(), reviews, now);
            }
            Seen::Applied(judged) => {
                self.object.declaring.applied(judged.declared.clone());
                let review = self.asking.applied(judged);
                self.saying.reviewed(review, now);
            }
            Seen::Deleted(id) => {
                self.object.declaring.deleted(&id);
                self.asking.deleted(&id);
                self.saying.deleted(&Subject::from(&id));
            }
        }
    }

    fn compiled(&mut self, text: Digest, found: Result<Vec<Diagnostic>>, now: Time) {
        let was_failing = self.asking.is_failing();
        let (found, error) = match found {
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(found) = &found {
            self.object.declaring.compiled(text, found);
        }
        for review in self.asking.answered(text, found, now) {
            self.saying.compiled(review, now);
        }
        if let Some(error) = error
            && !was_failing
            && self.asking.is_failing()
        {
            let error = format!("{error:#}");
            warn!(
                error,
                "AppArmor texts can't be compiled, so Events about them are incomplete; trying again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::bail;
    use futures::stream;
    use profiles::catalog::declaring::Declaring;
    use profiles::diagnostic::{Code, Place};
    use profiles::name::Namespace;
    use profiles::saying::How;
    use profiles::statement::Reason;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::examples::{PLATFORM, apparmor_source, source};

    /// A bundle `name` whose one profile has `text`, as it is judged for `platforms`.
    fn judged(name: &str, text: &str, platforms: &BTreeSet<Platform>) -> Judged {
        Judged::of(&source("ns", name, &[("a.json", text)]), platforms)
    }

    /// The bundle `web`, whose one text declares the profile `name`.
    fn text_of(name: &str) -> Judged {
        let text = format!("profile {name} {{\n  file,\n}}\n");
        Judged::of(&apparmor_source("ns", "web", &[("a", &text)]), &platforms("amd64"))
    }

    fn platforms(architecture: &str) -> BTreeSet<Platform> {
        [Platform { architecture: architecture.parse().unwrap(), ..PLATFORM }].into()
    }

    /// An object that is never read.
    fn no_object() -> Object {
        let declaring = Declaring::new(Namespace::new("ns").unwrap(), BTreeSet::new(), Duration::ZERO);
        Object::new(declaring, |_| futures::future::pending().boxed_local())
    }

    /// Runs for `duration`. Each write takes a second. Returns when which bundle was written about, and how.
    async fn watched_for(
        duration: Duration,
        platforms: impl Stream<Item = BTreeSet<Platform>>,
        watch: impl Fn(BTreeSet<Platform>) -> LocalBoxStream<'static, Seen<Judged>>,
    ) -> Vec<(u64, String, How)> {
        let started = Instant::now();
        let writes = Rc::new(RefCell::new(Vec::new()));
        let log = writes.clone();
        let write = move |write: Write| {
            let log = log.clone();
            async move {
                let bundle = write.statement.subject.name.clone();
                log.borrow_mut().push((started.elapsed().as_secs(), bundle, write.how));
                tokio::time::sleep(Duration::from_secs(1)).await;
                Outcome::Said
            }
            .boxed_local()
        };
        let compiling = Queue::new(1, |_| panic!("nothing is to be compiled"));
        run(platforms, watch, compiling, write, no_object(), tokio::time::sleep(duration)).await;
        writes.take()
    }

    /// Runs for `duration` while `web` is seen as it is in `story`, after so many seconds each. `compile`
    /// answers about the profile of a name when it is asked for the nth time, and is asked about one at a
    /// time. Returns what was written about `web`, and when, and how often there was an answer to be had.
    async fn compiled_for(
        duration: Duration,
        story: &'static [(u64, &'static str)],
        compile: impl Fn(&str, usize) -> LocalBoxFuture<'static, Result<Vec<Diagnostic>>> + 'static,
    ) -> (Vec<(u64, Reason, How)>, usize) {
        let started = Instant::now();
        let (writes, asked) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(0)));
        let (log, count, turns) = (writes.clone(), asked.clone(), Arc::new(Semaphore::new(1)));
        let write = move |write: Write| {
            log.borrow_mut().push((started.elapsed().as_secs(), write.statement.reason, write.how));
            async { Outcome::Said }.boxed_local()
        };
        let compile = move |document: Document| {
            *count.borrow_mut() += 1;
            let name = document.names().first().map(ToString::to_string).unwrap_or_default();
            one_at_a_time(&turns, compile(&name, *count.borrow()))
        };
        let watch = |_| {
            let listed = Seen::Listed(Namespace::new("ns").unwrap(), vec![text_of(story[0].1)]);
            let edits = story[1..].iter().map(|(at, name)| (Duration::from_secs(*at), text_of(name)));
            let edits = stream::iter(edits).then(move |(at, edit)| async move {
                tokio::time::sleep_until(started + at).await;
                Seen::Applied(edit)
            });
            stream::iter([listed]).chain(edits).chain(stream::pending()).boxed_local()
        };
        let known = stream::iter([platforms("amd64")]).chain(stream::pending());
        run(known, watch, Queue::new(1, compile), write, no_object(), tokio::time::sleep(duration)).await;
        (writes.take(), asked.take())
    }

    /// The answer that there is after so many seconds: the profile `bad…` is refused, any other is not.
    fn answer(name: &str, after: u64) -> LocalBoxFuture<'static, Result<Vec<Diagnostic>>> {
        let place = Place::at("$");
        let finding =
            Diagnostic { code: Code::InvalidPolicy, place, message: "syntax error".to_owned(), help: "" };
        let found = if name.starts_with("bad") { vec![finding] } else { Vec::new() };
        async move {
            tokio::time::sleep(Duration::from_secs(after)).await;
            Ok(found)
        }
        .boxed_local()
    }

    /// The same answer. It panics if another one is out.
    fn one_at_a_time<T: 'static>(
        turns: &Arc<Semaphore>,
        answer: LocalBoxFuture<'static, T>,
    ) -> LocalBoxFuture<'static, T> {
        let turns = turns.clone();
        async move {
            let _turn = turns.try_acquire().unwrap();
            answer.await
        }
        .boxed_local()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_compiler_finds_is_said_when_it_is_known_and_its_end_too() {
        let story = &[(0, "bad"), (60, "good"), (120, "better")];
        let (writes, asked) = compiled_for(Duration::from_hours(1), story, |name, _| answer(name, 5)).await;
        assert_eq!(
            writes,
            [(5, Reason::ProfileRefused, How::First), (65, Reason::ProfilesAccepted, How::First)]
        );
        assert_eq!(asked, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_about_an_edited_text_changes_nothing() {
        let story = &[(0, "bad"), (10, "good")];
        let late = |name: &str, _| answer(name, if name == "bad" { 20 } else { 1 });
        let (writes, asked) = compiled_for(Duration::from_hours(1), story, late).await;
        assert_eq!((writes, asked), (vec![], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_compiler_that_does_not_answer_is_asked_again_and_is_no_event() {
        let story = &[(0, "bad"), (10, "worse"), (20, "bad")];
        let failing = |name: &str, nth: usize| {
            if nth > 12 {
                return answer(name, 0);
            }
            async { bail!("nobody listens") }.boxed_local()
        };
        // At 0, 1, 3 and 7 s, with the edits at 10, 11, 13 and 17 s, and at 20, 21, 23, 27 and 35 s.
        let (writes, asked) = compiled_for(Duration::from_mins(20), story, failing).await;
        assert_eq!((writes, asked), (vec![(35, Reason::ProfileRefused, How::First)], 13));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_compiler_holds_up_no_other_bundle() {
        let writes = Rc::new(RefCell::new(Vec::new()));
        let log = writes.clone();
        let write = move |write: Write| {
            log.borrow_mut().push(write.statement.subject.name.clone());
            async { Outcome::Said }.boxed_local()
        };
        let watch = |platforms| {
            let bad = judged("other", "{}", &platforms);
            let listed = Seen::Listed(Namespace::new("ns").unwrap(), vec![text_of("bad"), bad]);
            stream::iter([listed]).chain(stream::pending()).boxed_local()
        };
        let known = stream::iter([platforms("amd64")]).chain(stream::pending());
        let compiling = Queue::new(1, |_| futures::future::pending().boxed_local());
        run(known, watch, compiling, write, no_object(), tokio::time::sleep(Duration::from_secs(1))).await;
        assert_eq!(writes.take(), ["other"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_edited_text_is_hung_up_on_and_out_once_if_it_comes_back() {
        let story = &[(0, "bad"), (10, "worse"), (20, "bad")];
        let (writes, asked) = compiled_for(Duration::from_mins(30), story, |name, _| answer(name, 600)).await;
        assert_eq!((writes, asked), (vec![(620, Reason::ProfileRefused, How::First)], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_many_texts_holds_up_nobody() {
        let started = Instant::now();
        let (written, turns) = (Rc::new(RefCell::new(Vec::new())), Arc::new(Semaphore::new(1)));
        let log = written.clone();
        let write = move |write: Write| {
            log.borrow_mut().push((started.elapsed().as_secs(), write.statement.subject.name.clone()));
            async { Outcome::Said }.boxed_local()
        };
        let watch = |platforms: BTreeSet<_>| {
            let text = |number: usize| (format!("k{number}"), format!("profile p{number} {{\n}}\n"));
            let texts: Vec<_> = (0..20).map(text).collect();
            let data: Vec<_> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
            let many = Judged::of(&apparmor_source("ns", "many", &data), &platforms);
            let listed = Seen::Listed(Namespace::new("ns").unwrap(), vec![many, text_of("bad")]);
            stream::iter([listed]).chain(stream::pending()).boxed_local()
        };
        let compile = move |document: Document| {
            let name = document.names().first().unwrap().to_string();
            one_at_a_time(&turns, answer(&name, 30))
        };
        let known = stream::iter([platforms("amd64")]).chain(stream::pending());
        let stop = tokio::time::sleep(Duration::from_mins(5));
        run(known, watch, Queue::new(1, compile), write, no_object(), stop).await;
        assert_eq!(written.take(), [(60, "web".to_owned())]);
    }

    fn after(seconds: u64, seen: Seen<Judged>) -> impl Stream<Item = Seen<Judged>> {
        stream::once(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seen
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_write_is_under_way_and_what_is_put_right_meanwhile_is_not_written() {
        let writes = watched_for(Duration::from_mins(31), stream::iter([platforms("amd64")]), |platforms| {
            let bad = |name| judged(name, "{}", &platforms);
            let listed = vec![bad("one"), bad("three"), bad("two")];
            let good = judged("three", r#"{"defaultAction":"SCMP_ACT_LOG"}"#, &platforms);
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
            let bad = judged("one", "{}", &platforms);
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
