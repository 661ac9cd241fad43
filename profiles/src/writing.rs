//! When an object of ours is read from the API server, and when it is written: the report of a node, and what
//! bundles declare.
//!
//! It is read once before anything is written: so a start writes nothing where nothing has changed, and what
//! was so before it has been so since then. It is read again every ten minutes, to find that somebody deleted
//! or edited it. A watch would tell at once, and would cost the API server memory for every node, for
//! something that hardly ever happens.
//!
//! Invariants: one request is under way at most. What is there is not written again. A change is written at
//! once, unless many came before it: then there is one write in [`EVERY`], with what is true by then.

use std::time::Duration;

use crate::time::{Retry, Time};

/// Time between two looks at what is there.
const PERIOD: Duration = Duration::from_mins(10);
/// So many writes can come at once.
const BURST: u32 = 10;
/// After so long there is one more.
const EVERY: Duration = Duration::from_secs(10);
/// So long after the start it is waited for all to be known: else each start would write what it knows by
/// then, and a moment later the rest.
const START: Duration = Duration::from_secs(20);

/// What is to be there. Cloning a `T` should be cheap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Draft<T> {
    /// All of it.
    pub content: T,
    /// Whether all is known that it says. At a start, that is awaited.
    pub is_ready: bool,
}

/// What is asked of the API server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request<T> {
    /// What is there.
    Read,
    /// To have this there instead.
    Write(T),
}

/// How that ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer<T> {
    /// This is there; none if there is nothing, or something that we do not write like that.
    Found(Option<T>),
    /// What was to be there is.
    Written,
    /// It failed, or nobody knows how it ended.
    Failed,
}

/// What is to be done now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next<T> {
    /// To ask this, which is under way then.
    Ask(Request<T>),
    /// Nothing. When to come here again, if nothing happens before.
    Wait(Option<Time>),
}

/// What is there, and what is under way.
#[derive(Debug)]
pub struct Writing<T> {
    /// Time between two looks: other agents have others.
    period: Duration,
    there: There<T>,
    /// What was last said, or found to be said already.
    said: Option<T>,
    /// When to look what is there.
    look_at: Time,
    under_way: Option<Request<T>>,
    budget: Budget,
    retry: Retry,
}

/// What the API server has.
#[derive(Debug)]
enum There<T> {
    /// That is not known.
    Unknown,
    /// This, as far as is known.
    Known(Option<T>),
}

/// How many writes there may be at once.
#[derive(Debug)]
struct Budget {
    left: u32,
    /// When it last grew, or began to.
    grown_at: Time,
}

impl Budget {
    fn grow(&mut self, now: Time) {
        while self.left < BURST && self.grown_at + EVERY <= now {
            self.left += 1;
            self.grown_at = self.grown_at + EVERY;
        }
        if self.left == BURST {
            self.grown_at = now;
        }
    }
}

impl<T: Clone + Eq> Writing<T> {
    /// Nothing was asked yet. `jitter` keeps agents that start together from looking together.
    #[must_use]
    pub fn new(jitter: Duration) -> Self {
        Self {
            period: PERIOD + jitter,
            there: There::Unknown,
            said: None,
            look_at: Time::default(),
            under_way: None,
            budget: Budget { left: BURST, grown_at: Time::default() },
            retry: Retry::default(),
        }
    }

    /// What is to be done at `now`. `draft` makes what is to be there, after what was said before, as far as
    /// that is known; none if there is nothing to be said.
    pub fn next(&mut self, draft: impl FnOnce(Option<&T>) -> Option<Draft<T>>, now: Time) -> Next<T> {
        self.budget.grow(now);
        if self.under_way.is_some() {
            return Next::Wait(None);
        }
        if let Some(later) = self.retry.blocked_until(now) {
            return Next::Wait(Some(later));
        }
        let is_look_due = matches!(self.there, There::Unknown) || self.look_at <= now;
        if self.budget.left == 0 && !is_look_due {
            return Next::Wait(Some(self.look_at.min(self.budget.grown_at + EVERY)));
        }
        let Some(Draft { content, is_ready }) = draft(self.before()) else {
            self.there = There::Unknown;
            self.said = None;
            return Next::Wait(None);
        };
        let found = match &self.there {
            There::Known(found) if !is_look_due => found,
            There::Known(_) | There::Unknown => return self.ask(Request::Read),
        };
        let start = Time::default() + START;
        if self.said.is_none() && !is_ready && now < start {
            return Next::Wait(Some(start));
        }
        if found.as_ref() == Some(&content) {
            self.retry = Retry::default();
            self.said = Some(content);
            return Next::Wait(Some(self.look_at));
        }
        self.budget.left = self.budget.left.saturating_sub(1);
        self.ask(Request::Write(content))
    }

    /// What was said, by this process or the one before.
    fn before(&self) -> Option<&T> {
        let found = match &self.there {
            There::Known(found) => found.as_ref(),
            There::Unknown => None,
        };
        self.said.as_ref().or(found)
    }

    fn ask(&mut self, request: Request<T>) -> Next<T> {
        self.under_way = Some(request.clone());
        Next::Ask(request)
    }

    /// Records how the request that is under way ended.
    pub fn answered(&mut self, answer: Answer<T>, now: Time) {
        let request = self.under_way.take();
        match (request, answer) {
            (request, Answer::Failed) => {
                self.retry.failed(now);
                // Nobody knows what is there now. To read it is no success yet: the next write may fail again.
                if matches!(request, Some(Request::Write(_))) {
                    self.look_at = now;
                }
            }
            (Some(Request::Write(content)), Answer::Written) => {
                self.retry = Retry::default();
                self.there = There::Known(Some(content.clone()));
                self.said = Some(content);
            }
            (Some(Request::Read), Answer::Found(found)) => {
                self.there = There::Known(found);
                self.look_at = now + self.period;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Answer;
    use crate::report::tests::example;

    /// Plays what happens at these seconds, and what is then asked. `said` is the message of the only problem
    /// of the report of then, or `gone`, or `starting`.
    fn check(script: &[(u64, &str, Option<Answer>, &str)]) {
        let mut writing = Writing::new(Duration::ZERO);
        for (seconds, said, answer, expected) in script {
            let now = Time::since_start(Duration::from_secs(*seconds));
            if let Some(answer) = answer {
                writing.answered(answer.clone(), now);
            }
            let report = || (*said != "gone").then(|| example(said, &format!("at {seconds}")));
            let asked = match writing.next(|before| Some(report()?.draft(before.map(Box::as_ref))), now) {
                Next::Ask(Request::Read) => "read".to_owned(),
                Next::Ask(Request::Write(report)) => {
                    format!("{} {}", report.problems[0].message, report.problems[0].since)
                }
                Next::Wait(None) => "-".to_owned(),
                Next::Wait(Some(at)) => format!("{}", at.elapsed().as_secs()),
            };
            assert_eq!(asked, *expected, "at {seconds}, with {said}");
        }
    }

    fn found(message: &str, clock: &str) -> Answer {
        Answer::Found(Some(Box::new(example(message, clock))))
    }

    #[test]
    fn what_is_there_is_not_written_again() {
        check(&[
            (1, "a", None, "read"),
            (1, "a", None, "-"),
            (2, "a", Some(found("a", "before")), "602"),
            (3, "b", None, "b before"),
            (4, "b", Some(Answer::Written), "602"),
            (602, "b", None, "read"),
            (603, "b", Some(found("b", "before")), "1203"),
        ]);
    }

    #[test]
    fn what_somebody_deleted_or_edited_is_written_again() {
        for answer in [Some(found("b", "before")), Some(found("a", "yesterday")), Some(Answer::Found(None))] {
            check(&[
                (1, "a", None, "read"),
                (2, "a", Some(found("a", "before")), "602"),
                (602, "a", None, "read"),
                (603, "a", answer, "a before"),
            ]);
        }
    }

    #[test]
    fn what_failed_is_tried_again_later() {
        check(&[
            (1, "a", None, "read"),
            (2, "a", Some(Answer::Failed), "3"),
            (3, "a", None, "read"),
            (4, "a", Some(Answer::Found(None)), "a at 4"),
            (5, "a", Some(Answer::Failed), "7"),
            // It may have been written all the same.
            (7, "b", None, "read"),
            (7, "b", Some(Answer::Found(None)), "b at 7"),
            (8, "b", Some(Answer::Failed), "12"),
            (12, "b", None, "read"),
            (12, "b", Some(found("b", "at 7")), "612"),
            (13, "c", None, "c at 7"),
            (13, "c", Some(Answer::Written), "612"),
        ]);
    }

    #[test]
    fn a_start_that_is_not_done_is_not_reported_at_once() {
        check(&[
            (0, "starting", None, "read"),
            (0, "starting", Some(found("a", "before")), "20"),
            (1, "a", None, "600"),
            (2, "starting", None, "starting before"),
        ]);
        check(&[
            (0, "starting", None, "read"),
            (0, "starting", Some(Answer::Found(None)), "20"),
            (20, "starting", None, "starting at 20"),
        ]);
    }

    #[test]
    fn without_a_node_nothing_is_written_and_a_new_one_has_a_new_report() {
        check(&[
            (1, "gone", None, "-"),
            (2, "a", None, "read"),
            (3, "a", Some(found("a", "before")), "603"),
            (4, "gone", None, "-"),
            (5, "a", None, "read"),
            (6, "a", Some(Answer::Found(None)), "a at 6"),
        ]);
    }

    #[test]
    fn many_changes_are_one_write_in_ten_seconds() {
        let mut writing = Writing::new(Duration::ZERO);
        let mut written = Vec::new();
        for second in 0..100 {
            let now = Time::since_start(Duration::from_secs(second));
            let said = second.to_string();
            match writing.next(|_| Some(example(&said, "").draft(None)), now) {
                Next::Ask(Request::Read) => writing.answered(Answer::Found(None), now),
                Next::Ask(Request::Write(_)) => {
                    written.push(second);
                    writing.answered(Answer::Written, now);
                }
                Next::Wait(_) => {}
            }
        }
        let expected: Vec<u64> = (1..=10).chain((11..100).step_by(10)).collect();
        assert_eq!(written, expected);
    }
}
