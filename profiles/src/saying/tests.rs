//! When it is said: a story of ConfigMaps and writes, with simulated time.

use super::*;
use crate::bundle::BundleId;

const MINUTE: u64 = 60;

/// What is said of bundles, the Events that the API server has, and the time.
struct Scene {
    saying: Saying,
    /// By name: how often each was said, and when the last time.
    events: BTreeMap<String, (u32, Time)>,
    now: Time,
    writes: usize,
}

impl Scene {
    /// A catalog that has seen that there is nothing.
    fn new() -> Self {
        let mut scene =
            Self { saying: Saying::of_bundles(), events: BTreeMap::new(), now: Time::default(), writes: 0 };
        scene.list(&[]);
        scene
    }

    fn list(&mut self, bundles: &[(&str, &[&str])]) {
        let reviews = bundles.iter().map(|(name, notes)| review(name, "u", notes)).collect();
        self.saying.listed("ns", reviews, self.now);
    }

    fn judge(&mut self, bundle: &str, notes: &[&str]) {
        self.saying.reviewed(review(bundle, "u", notes), self.now);
    }

    /// The bundle has changed, and what holds besides is not known yet.
    fn judge_partly(&mut self, bundle: &str, notes: &[&str]) {
        let review = Review { is_complete: false, ..review(bundle, "u", notes) };
        self.saying.reviewed(review, self.now);
    }

    /// All is known of the bundle.
    fn complete(&mut self, bundle: &str, notes: &[&str]) {
        self.saying.compiled(review(bundle, "u", notes), self.now);
    }

    /// Another catalog takes over.
    fn restart(&mut self) {
        self.saying = Saying::of_bundles();
    }

    /// Lets time pass, in which the API server takes everything, and forgets Events after an hour.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let next = self.saying.next(self.now);
            if let Some(write) = next.write {
                let outcome = self.serve(&write);
                self.saying.written(&write, outcome, self.now);
                continue;
            }
            match next.wake_at {
                Some(at) if at <= end => self.now = at,
                _ => break,
            }
        }
        self.now = end;
    }

    fn serve(&mut self, write: &Write) -> Outcome {
        let now = self.now;
        self.events.retain(|_, (_, last)| *last + Duration::from_hours(1) > now);
        let name = write.statement.name();
        match (write.how, self.events.get_mut(&name)) {
            (How::First, None) => drop(self.events.insert(name, (1, now))),
            (How::First, Some((count, last))) => {
                return Outcome::WasSaid(*count, now.elapsed().saturating_sub(last.elapsed()));
            }
            (How::Again(count), Some(event)) => *event = (count, now),
            (How::Again(_), None) => return Outcome::Gone,
        }
        self.writes += 1;
        Outcome::Said
    }

    /// Claims the counts of all Events, in the order in which they were last said, and how many writes there
    /// were.
    fn expect(&self, counts: &[u32], writes: usize) {
        let mut events: Vec<(Time, u32)> =
            self.events.values().map(|(count, last)| (*last, *count)).collect();
        events.sort_unstable();
        let counted: Vec<u32> = events.iter().map(|(_, count)| *count).collect();
        assert_eq!((counted.as_slice(), self.writes), (counts, writes));
    }
}

fn subject(bundle: &str) -> Subject {
    Subject::from(&BundleId::new("ns", bundle).unwrap())
}

fn review(bundle: &str, uid: &str, notes: &[&str]) -> Review {
    let subject = subject(bundle);
    let statement = |note: &&str| Statement {
        subject: subject.clone(),
        uid: uid.to_owned(),
        field: Some("data[a]".to_owned()),
        reason: Reason::ProfileRefused,
        note: (*note).to_owned(),
    };
    let statements = notes.iter().map(statement).collect();
    Review { statements, uid: uid.to_owned(), subject: subject.clone(), is_complete: true }
}

#[test]
fn a_finding_stays_one_event_that_never_expires_while_it_holds() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    scene.pass(1);
    scene.expect(&[1], 1);
    for _ in 0..12 {
        scene.judge("web", &["bad"]);
        scene.pass(5 * MINUTE);
    }
    scene.expect(&[3], 3);
    scene.pass(24 * 60 * MINUTE);
    scene.expect(&[51], 51);
}

#[test]
fn who_has_nothing_to_say_writes_nothing_and_never_wakes() {
    let mut scene = Scene::new();
    scene.list(&[("web", &[]), ("db", &[])]);
    scene.judge("web", &[]);
    assert_eq!(scene.saying.next(scene.now), Next::default());
}

#[test]
fn a_bundle_that_becomes_good_is_told_so_once() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad", "worse"]);
    scene.pass(MINUTE);
    scene.judge("web", &["bad"]);
    scene.pass(MINUTE);
    scene.expect(&[1, 1], 2);
    scene.judge("web", &[]);
    scene.judge("web", &[]);
    scene.pass(MINUTE);
    scene.expect(&[1, 1, 1], 3);
    scene.judge("web", &[]);
    scene.pass(24 * 60 * MINUTE);
    assert_eq!(scene.writes, 3);
    assert_eq!(scene.saying.next(scene.now), Next::default());
}

#[test]
fn what_was_never_said_needs_no_end() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    scene.judge("web", &[]);
    scene.pass(MINUTE);
    scene.expect(&[], 0);
}

#[test]
fn a_bundle_that_becomes_good_while_a_problem_is_written_is_told_so() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    let write = scene.saying.next(scene.now).write.unwrap();
    scene.judge("web", &[]);
    scene.saying.written(&write, Outcome::Said, scene.now);
    let end = scene.saying.next(scene.now).write.unwrap();
    assert_eq!(end.statement.reason, Reason::ProfilesAccepted);
}

#[test]
fn the_last_word_is_the_newest_event() {
    let mut scene = Scene::new();
    for round in 1..=3 {
        scene.judge("web", &["bad"]);
        scene.pass(MINUTE);
        let bad = scene.events[&review("web", "u", &["bad"]).statements[0].name()];
        assert_eq!(bad, (round, scene.events.values().map(|(_, last)| *last).max().unwrap()));
        scene.judge("web", &[]);
        scene.pass(MINUTE);
    }
    scene.expect(&[3, 3], 6);
}

#[test]
fn a_restart_says_nothing_twice_and_lets_nothing_expire() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    scene.pass(20 * MINUTE);
    scene.restart();
    scene.list(&[("web", &["bad"])]);
    scene.pass(9 * MINUTE);
    scene.expect(&[1], 1);
    scene.pass(2 * MINUTE);
    scene.expect(&[2], 2);
    // One that was away for so long that the Event is about to expire says it at once.
    scene.saying = Saying::of_bundles();
    scene.pass(55 * MINUTE);
    scene.list(&[("web", &["bad"])]);
    scene.pass(1);
    scene.expect(&[3], 3);
}

#[test]
fn an_event_that_was_deleted_is_made_again_when_it_is_due() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    scene.pass(MINUTE);
    scene.events.clear();
    scene.pass(30 * MINUTE);
    scene.expect(&[1], 2);
}

#[test]
fn a_deleted_bundle_is_forgotten() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    scene.judge("db", &["bad"]);
    scene.pass(MINUTE);
    scene.saying.deleted(&subject("web"));
    scene.list(&[]);
    assert_eq!(scene.saying.next(scene.now), Next::default());
    // One of the same name is another object: what is wrong with it is said anew.
    scene.saying.reviewed(review("web", "v", &["bad"]), scene.now);
    scene.pass(1);
    scene.expect(&[1, 1, 1], 3);
    scene.saying.reviewed(review("web", "w", &[]), scene.now);
    assert_eq!(scene.saying.next(scene.now), Next::default());
}

#[test]
fn failures_are_retried_more_and_more_slowly_and_block_only_their_namespace() {
    let mut saying = Saying::of_bundles();
    let mut now = Time::default();
    let write = |saying: &Saying, now| saying.next(now).write.unwrap();
    saying.reviewed(review("web", "u", &["bad"]), now);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let attempt = write(&saying, now);
        assert_eq!(attempt.how, How::First);
        saying.written(&attempt, Outcome::Failed, now);
        let due = now + Duration::from_secs(seconds);
        assert_eq!(saying.next(now), Next { write: None, wake_at: Some(due) });
        now = due;
    }
    saying.written(&write(&saying, now), Outcome::Failed, now);
    let mut elsewhere = review("web", "u", &["bad"]);
    elsewhere.subject.namespace = "other".to_owned();
    elsewhere.statements[0].subject = elsewhere.subject.clone();
    saying.reviewed(elsewhere.clone(), now);
    assert_eq!(write(&saying, now).statement, elsewhere.statements[0]);
}

#[test]
fn a_statement_that_is_not_taken_blocks_no_other() {
    let mut saying = Saying::of_bundles();
    let now = Time::default();
    saying.reviewed(review("web", "u", &["bad", "worse"]), now);
    let first = saying.next(now).write.unwrap();
    saying.written(&first, Outcome::Refused, now);
    let second = saying.next(now).write.unwrap();
    assert_ne!(first.statement, second.statement);
    saying.written(&second, Outcome::Said, now);
    assert_eq!(saying.next(now).wake_at, Some(now + REPEAT));
}

#[test]
fn that_nothing_is_wrong_any_more_is_said_when_all_is_known() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    scene.pass(MINUTE);
    scene.judge_partly("web", &[]);
    scene.pass(24 * 60 * MINUTE);
    assert_eq!(scene.writes, 1, "neither the end, nor what is not known to hold");
    // Also if there were two edits before that.
    scene.judge_partly("web", &[]);
    scene.complete("web", &[]);
    scene.pass(MINUTE);
    scene.expect(&[1], 2);
    // One edit more, which is as good: it was said.
    scene.judge_partly("web", &[]);
    scene.complete("web", &[]);
    scene.pass(24 * 60 * MINUTE);
    assert_eq!(scene.writes, 2);
    scene.judge_partly("web", &[]);
    scene.complete("web", &["worse"]);
    scene.complete("web", &[]);
    scene.pass(MINUTE);
    assert_eq!(scene.writes, 2, "what was never said needs no end");
}

#[test]
fn an_end_that_was_not_said_yet_waits_for_an_edit_to_be_known() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    scene.pass(MINUTE);
    scene.judge("web", &[]);
    scene.judge_partly("web", &[]);
    scene.pass(MINUTE);
    scene.expect(&[1], 1);
    scene.complete("web", &[]);
    scene.pass(MINUTE);
    scene.expect(&[1, 1], 2);
}

#[test]
fn a_problem_that_is_written_while_an_edit_is_not_known_yet_gets_its_end_later() {
    let mut scene = Scene::new();
    scene.judge("web", &["bad"]);
    let write = scene.saying.next(scene.now).write.unwrap();
    scene.judge_partly("web", &[]);
    scene.saying.written(&write, Outcome::Said, scene.now);
    assert_eq!(scene.saying.next(scene.now), Next::default());
    scene.complete("web", &[]);
    let end = scene.saying.next(scene.now).write.unwrap();
    assert_eq!(end.statement.reason, Reason::ProfilesAccepted);
}

#[test]
fn a_restart_says_nothing_twice_that_is_known_late() {
    let mut scene = Scene::new();
    scene.judge_partly("web", &[]);
    scene.complete("web", &["bad"]);
    scene.pass(MINUTE);
    scene.expect(&[1], 1);
    scene.restart();
    let listed = Review { is_complete: false, ..review("web", "u", &[]) };
    scene.saying.listed("ns", vec![listed], scene.now);
    scene.pass(MINUTE);
    scene.complete("web", &["bad"]);
    scene.pass(MINUTE);
    scene.expect(&[1], 1);
    // What comes of an edit is new.
    scene.judge_partly("web", &[]);
    scene.complete("web", &["bad"]);
    scene.pass(1);
    scene.expect(&[2], 2);
}
