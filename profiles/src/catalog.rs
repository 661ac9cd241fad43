//! What is wrong with bundles, said once for all nodes, and when it is said.
//!
//! [`review`] decides what there is to say about a ConfigMap; here it is decided when each [`Statement`] is
//! written: at once when it begins to be true, and every half hour while it stays true, as the API server
//! forgets Events after an hour. A statement has one Event, whose name follows from what it says; saying it
//! again counts up in that Event.
//!
//! What a ConfigMap holds is judged when it is seen; what there is to say of AppArmor texts is known when
//! they are compiled, which [`asking`] sees to. Nothing else waits for that.
//!
//! Invariants: what is not true any more is not written, also if it was due. While nothing changes, a
//! statement is written twice an hour and a bundle with which nothing is wrong never. That nothing is wrong
//! any more is not said before all is known.

pub mod asking;
mod review;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use review::{Reason, Review, Statement, Texts};

use crate::bundle::BundleId;
use crate::name::Namespace;
use crate::time::{Retry, Time};

/// How long after it was said what still holds is said again. API servers keep Events for an hour
/// (`--event-ttl`).
pub const REPEAT: Duration = Duration::from_mins(30);

/// What is to be said, and what was.
#[derive(Debug, Default)]
pub struct Catalog {
    bundles: BTreeMap<BundleId, Known>,
    /// Where writing failed. A namespace that is being deleted must not keep others from being heard.
    retries: BTreeMap<Namespace, Retry>,
}

/// A bundle that exists, also one that is all right.
#[derive(Debug)]
struct Known {
    uid: String,
    /// What holds, by the names of the Events.
    standing: BTreeMap<String, Standing>,
    /// Whether the version that there is was seen as new, and not found by a catalog that had just started.
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
    /// Whether it began to hold while this catalog looked, so that it has to be seen as new.
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

impl Catalog {
    /// These are all the bundles of `namespace`.
    pub fn listed(&mut self, namespace: &Namespace, reviews: Vec<Review>, now: Time) {
        let listed: BTreeSet<BundleId> = reviews.iter().map(|review| review.id.clone()).collect();
        self.bundles.retain(|id, _| id.namespace != *namespace || listed.contains(id));
        for review in reviews {
            // What is wrong when this catalog first looks may have been said by the one before it.
            let is_news = self.bundles.contains_key(&review.id);
            self.take(review, is_news, now);
        }
    }

    /// A bundle is new, or has changed.
    pub fn reviewed(&mut self, review: Review, now: Time) {
        self.take(review, true, now);
    }

    /// More is known of a bundle, which has not changed. So it is no more news than the bundle is.
    pub fn compiled(&mut self, review: Review, now: Time) {
        let is_news = self.bundles.get(&review.id).is_none_or(|known| known.is_news);
        self.take(review, is_news, now);
    }

    /// A bundle is gone, or is none any more.
    pub fn deleted(&mut self, id: &BundleId) {
        self.bundles.remove(id);
    }

    fn take(&mut self, review: Review, is_news: bool, now: Time) {
        let Review { id, uid, mut statements, is_complete } = review;
        let before = self.bundles.remove(&id).filter(|known| known.uid == uid);
        let (mut before, owed) =
            before.map_or_else(Default::default, |known| (known.standing, known.owes_an_end));
        let mut owes_an_end = statements.is_empty() && (owed || before.values().any(Standing::wants_an_end));
        let end = Statement::accepted(id.clone(), uid.clone());
        // While it is not known whether it holds, one that was said stays, and none is said.
        let was_said = || before.get(&end.name()).is_some_and(|end| end.count > 0);
        if owes_an_end && (is_complete || was_said()) {
            statements.push(end);
            owes_an_end = false;
        }
        let standing = statements.into_iter().map(|statement| {
            let name = statement.name();
            let standing = before.remove(&name);
            (name, standing.unwrap_or_else(|| Standing::new(statement, is_news, now)))
        });
        let standing = standing.collect();
        self.bundles.insert(id, Known { uid, standing, is_news, is_complete, owes_an_end });
    }

    /// What is to be written now, or when there may be something.
    #[must_use]
    pub fn next(&self, now: Time) -> Next {
        let all = self.bundles.values().flat_map(|known| known.standing.values());
        let due = all.filter_map(|standing| {
            let retry = self.retries.get(&standing.statement.bundle.namespace);
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
        let Statement { bundle, uid, .. } = &write.statement;
        if outcome == Outcome::Failed {
            self.retries.entry(bundle.namespace.clone()).or_default().failed(now);
            return;
        }
        self.retries.remove(&bundle.namespace);
        let Some(known) = self.bundles.get_mut(bundle).filter(|known| known.uid == *uid) else { return };
        if let Some(standing) = known.standing.get_mut(&write.statement.name()) {
            standing.written(write.how, outcome, now);
        } else if known.standing.is_empty() && write.statement.reason.is_problem() {
            // It was put right while this was on its way, and this must not be the last word.
            if !known.is_complete {
                known.owes_an_end = true;
                return;
            }
            let end = Standing::new(Statement::accepted(bundle.clone(), uid.clone()), true, now);
            known.standing.insert(end.statement.name(), end);
        }
    }
}

impl Standing {
    fn new(statement: Statement, is_news: bool, now: Time) -> Self {
        Self { statement, is_news, count: 0, due: Some(now) }
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
