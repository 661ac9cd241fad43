//! When something is said about an object of the API: a bundle's ConfigMap, or a pod.
//!
//! A [`Review`] is all that there is to say about an object; here it is decided when each [`Statement`] is
//! written: when it begins to be true, and every half hour while it stays true, as the API server forgets
//! Events after an hour. A statement has one Event, whose name follows from what it says; saying it again
//! counts up in that Event.
//!
//! Invariants: what is not true any more is not written, also if it was due. While nothing changes, a
//! statement is written twice an hour, and one about an object with which nothing is wrong never. That
//! nothing is wrong any more is not said before all is known.

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::check::PodFinding;
use crate::name::NodeName;
use crate::statement::{Reason, Statement, Subject};
use crate::time::{Retry, Time};

/// How long after it was said what still holds is said again. API servers keep Events for an hour
/// (`--event-ttl`).
pub const REPEAT: Duration = Duration::from_mins(30);

/// For how long something must be so about a pod before it is said. A ConfigMap and the pods that refer to it
/// can be made by one command, and reach the node in any order.
pub const SETTLING: Duration = Duration::from_millis(300);

/// All that is to be said about one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Review {
    /// Which.
    pub subject: Subject,
    /// Its `uid`.
    pub uid: String,
    /// What is wrong with it, the worst first. Empty: nothing.
    pub statements: Vec<Statement>,
    /// Whether that is all that there is to know.
    pub is_complete: bool,
}

/// What is to be said, and what was.
#[derive(Debug)]
pub struct Saying {
    /// For how long a statement must hold before it is said.
    settling: Duration,
    /// How it is said that nothing is wrong with an object any more, if it is.
    end: Option<(Reason, String)>,
    subjects: BTreeMap<Subject, Known>,
    /// Where writing failed. A namespace that is being deleted must not keep others from being heard.
    retries: BTreeMap<String, Retry>,
    /// Whether all was known of pods once.
    are_pods_known: bool,
    /// The containers that were last seen to run, and not under their profile.
    unconfined: Vec<PodFinding>,
}

/// An object that exists, also one that is all right.
#[derive(Debug)]
struct Known {
    uid: String,
    /// What holds, by the names of the Events.
    standing: BTreeMap<String, Standing>,
    /// Whether the version that there is was seen as new, and not found by who had just started.
    is_news: bool,
    /// Whether all is known that there is to say.
    is_complete: bool,
    /// Whether something was said that does not hold any more, and nothing came after it.
    owes_an_end: bool,
}

/// A statement that holds.
#[derive(Debug)]
struct Standing {
    statement: Statement,
    /// Whether it began to hold while somebody looked, so that it has to be seen as new.
    is_news: bool,
    /// How often it was said; 0 as long as its Event is not known to exist.
    count: u32,
    /// When to write it; never, if it was said and is not to be repeated.
    due: Option<Time>,
}

/// One write to the API server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// What is said.
    pub statement: Statement,
    /// How.
    pub how: How,
}

/// How something is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// By making its Event.
    First,
    /// By saying in its Event that it was now seen so many times.
    Again(u32),
}

/// How a write ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The Event says it now.
    Said,
    /// The Event was there before: the statement was seen so many times, the last time so long ago.
    WasSaid(u32, Duration),
    /// There is no such Event any more.
    Gone,
    /// The API server does not take this statement.
    Refused,
    /// It may be taken later.
    Failed,
}

/// What to do now.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Next {
    /// What is to be written now, before anything else is.
    pub write: Option<Write>,
    /// When to ask again, if nothing happens before; none if something is to be written now.
    pub wake_at: Option<Time>,
}

impl Saying {
    /// Of bundles, for all nodes.
    #[must_use]
    pub fn of_bundles() -> Self {
        let note = "nothing is wrong with the profiles any more".to_owned();
        Self::new(Duration::ZERO, Some((Reason::ProfilesAccepted, note)))
    }

    /// Of the pods of `node`.
    #[must_use]
    pub fn of_pods(node: &NodeName) -> Self {
        let end = format!("all profiles that its containers ask for are as they should be on {node}");
        Self::new(SETTLING, Some((Reason::ProfilesResolved, end)))
    }

    /// Of pods that wait for a profile. What ends that is said by others: the scheduler, or who deletes them.
    #[must_use]
    pub fn of_pending() -> Self {
        Self::new(Duration::ZERO, None)
    }

    fn new(settling: Duration, end: Option<(Reason, String)>) -> Self {
        let (subjects, retries) = (BTreeMap::new(), BTreeMap::new());
        Self { settling, end, subjects, retries, are_pods_known: false, unconfined: Vec::new() }
    }

    /// These are all the objects of `namespace`.
    pub fn listed(&mut self, namespace: &str, reviews: Vec<Review>, now: Time) {
        let listed: BTreeSet<Subject> = reviews.iter().map(|review| review.subject.clone()).collect();
        self.subjects.retain(|subject, _| subject.namespace != namespace || listed.contains(subject));
        for review in reviews {
            // What is wrong at the first look may have been said before a restart.
            let is_news = self.subjects.contains_key(&review.subject);
            self.take(review, is_news, now);
        }
    }

    /// An object is new, or has changed.
    pub fn reviewed(&mut self, review: Review, now: Time) {
        self.take(review, true, now);
    }

    /// More is known of an object, which has not changed. So it is no more news than the object is.
    pub fn compiled(&mut self, review: Review, now: Time) {
        let is_news = self.subjects.get(&review.subject).is_none_or(|known| known.is_news);
        self.take(review, is_news, now);
    }

    /// An object is gone, or is not to be spoken of any more.
    pub fn deleted(&mut self, subject: &Subject) {
        self.subjects.remove(subject);
    }

    /// These are all the pods that are spoken of because they wait, each with whether it came while somebody
    /// looked.
    pub fn waiting(&mut self, reviews: Vec<(Review, bool)>, now: Time) {
        let all: BTreeSet<Subject> = reviews.iter().map(|(review, _)| review.subject.clone()).collect();
        self.subjects.retain(|subject, _| all.contains(subject));
        let namespaces: BTreeSet<&str> = all.iter().map(|subject| subject.namespace.as_str()).collect();
        self.retries.retain(|namespace, _| namespaces.contains(namespace.as_str()));
        for (review, is_news) in reviews {
            self.take(review, is_news, now);
        }
    }

    fn take(&mut self, review: Review, is_news: bool, now: Time) {
        let Review { subject, uid, mut statements, is_complete } = review;
        let before = self.subjects.remove(&subject).filter(|known| known.uid == uid);
        let (mut before, owed) =
            before.map_or_else(Default::default, |known| (known.standing, known.owes_an_end));
        let mut owes_an_end = statements.is_empty() && (owed || before.values().any(Standing::wants_an_end));
        let end = self.end_of(&subject, &uid);
        // While it is not known whether it holds, one that was said stays, and none is said.
        let was_said = || {
            let name = end.as_ref().map(Statement::name);
            name.and_then(|name| before.get(&name)).is_some_and(|end| end.count > 0)
        };
        if owes_an_end && (is_complete || was_said()) {
            statements.extend(end);
            owes_an_end = false;
        }
        let due = now + self.settling;
        let standing = statements.into_iter().map(|statement| {
            let name = statement.name();
            let standing = before.remove(&name);
            (name, standing.unwrap_or_else(|| Standing::new(statement, is_news, due)))
        });
        let standing = standing.collect();
        self.subjects.insert(subject, Known { uid, standing, is_news, is_complete, owes_an_end });
    }

    /// That nothing is wrong with an object any more.
    fn end_of(&self, subject: &Subject, uid: &str) -> Option<Statement> {
        let (reason, note) = self.end.clone()?;
        Some(Statement { subject: subject.clone(), uid: uid.to_owned(), field: None, reason, note })
    }

    /// What is to be written now, or when there may be something.
    #[must_use]
    pub fn next(&self, now: Time) -> Next {
        let all = self.subjects.values().flat_map(|known| known.standing.values());
        let due = all.filter_map(|standing| {
            let retry = self.retries.get(&standing.statement.subject.namespace);
            let blocked = retry.and_then(|retry| retry.blocked_until(now));
            Some((standing.due?.max(blocked.unwrap_or_default()), standing))
        });
        match due.min_by_key(|(due, _)| *due) {
            None => Next::default(),
            Some((due, _)) if due > now => Next { write: None, wake_at: Some(due) },
            Some((_, Standing { statement, count, .. })) => {
                let how = if *count == 0 { How::First } else { How::Again(count.saturating_add(1)) };
                Next { write: Some(Write { statement: statement.clone(), how }), wake_at: None }
            }
        }
    }

    /// Records how `write` ended.
    pub fn written(&mut self, write: &Write, outcome: Outcome, now: Time) {
        let Statement { subject, uid, .. } = &write.statement;
        if outcome == Outcome::Failed {
            self.retries.entry(subject.namespace.clone()).or_default().failed(now);
            return;
        }
        self.retries.remove(&subject.namespace);
        let end = self.end_of(subject, uid).map(|end| Standing::new(end, true, now + self.settling));
        let Some(known) = self.subjects.get_mut(subject).filter(|known| known.uid == *uid) else { return };
        if let Some(standing) = known.standing.get_mut(&write.statement.name()) {
            standing.written(write.how, outcome, now);
        } else if known.standing.is_empty() && write.statement.reason.is_problem() {
            // It was put right while this was on its way, and this must not be the last word.
            if known.is_complete {
                known.standing.extend(end.map(|end| (end.statement.name(), end)));
            } else {
                known.owes_an_end = true;
            }
        }
    }
}

impl Standing {
    fn new(statement: Statement, is_news: bool, due: Time) -> Self {
        Self { statement, is_news, count: 0, due: Some(due) }
    }

    /// Whether its end is worth a word: it is a problem that was said, or that end itself.
    fn wants_an_end(&self) -> bool {
        self.count > 0 || !self.statement.reason.is_problem()
    }

    fn written(&mut self, how: How, outcome: Outcome, now: Time) {
        let mut pause = REPEAT;
        match outcome {
            Outcome::Said => {
                self.count = match how {
                    How::First => 1,
                    How::Again(count) => count,
                };
                self.is_news = false;
            }
            Outcome::WasSaid(count, ago) => {
                self.count = count.max(1);
                pause = if self.is_news { Duration::ZERO } else { REPEAT.saturating_sub(ago) };
            }
            Outcome::Gone => {
                self.count = 0;
                pause = Duration::ZERO;
            }
            Outcome::Refused | Outcome::Failed => {}
        }
        let is_done = !self.statement.reason.is_problem() && pause == REPEAT;
        self.due = (!is_done).then(|| now + pause);
    }
}

#[cfg(test)]
mod tests;
