//! Which pods are told that they wait for a profile, and when it is looked why.
//!
//! Nodes are looked at only while a pod waits that selects on labels of ours, and has waited for [`PATIENCE`]:
//! most pods have a Node by then. Why it waits is the business of [`crate::placement`]; when that is written
//! is that of [`Saying`].
//!
//! Invariants: what is kept of pods is bounded, whatever their authors write, and however many there are. Of
//! one owner's pods a few are spoken of, and the same as long as they wait. What is said stays the same, word
//! for word, while its gist does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::label::LabelKey;
use crate::placement::{Bundles, Constraints, Node, Site, Suggestions, Why};
use crate::pod::{Asked, Container, Pod, PodId};
use crate::saying::{Outcome, Review, Saying, Write};
use crate::statement::{Reason, Statement, Subject};
use crate::time::Time;

/// For how long a pod waits before it is asked why. A ConfigMap and its pods may be made by one command, and
/// agents need a second to load what is new.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between the end of a look at the Nodes and the next look.
pub const PAUSE: Duration = Duration::from_secs(15);
/// The same after many looks at the same pods. A pod may wait for days.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);
/// So many pods are known at a time.
const MOST: usize = 1_000;
/// Of so many of one namespace it is known: who fills one leaves room for the others.
const MOST_OF_NAMESPACE: usize = 250;
/// Of so many of one owner it is known. All wait for the same.
const MOST_OF_OWNER: usize = 16;
/// So many of one owner are spoken of.
const MOST_SPOKEN_OF: usize = 3;
/// Of so many pods it is found out at a time why they wait: of one it can take milliseconds.
const MOST_AT_A_TIME: usize = 4;
/// A pod with more bytes of its author's, in what is kept of it, is not known.
const LARGEST: usize = 8 << 10;

/// A look is about so many labels of others that pods ask for, each of which takes memory for every Node. A pod
/// that asks for more is not known.
const MOST_ASKED: usize = 32;

/// A pod that waits for a Node.
#[derive(Clone, Debug)]
pub struct Waiting {
    id: PodId,
    /// The `uid` of the object that made it.
    owner: Option<String>,
    pod: Pod,
    constraints: Constraints,
}

/// The pods that wait, and what is said of them.
#[derive(Debug)]
pub struct Pending {
    pods: BTreeMap<PodId, Known>,
    /// Those that a list of all has, as far as it was read.
    listing: BTreeMap<PodId, Waiting>,
    /// Those that it has besides, for which there is room if who was known before is gone.
    spare: BTreeMap<PodId, Waiting>,
    saying: Saying,
    is_listed: bool,
    is_looking: bool,
    /// When the last look began or, if that was later, last went on.
    looked_at: Option<Time>,
    /// How long after that the pods that were looked at then are looked at again.
    pause: Duration,
}

#[derive(Debug)]
struct Known {
    waiting: Waiting,
    /// Since when it is known.
    since: Time,
    /// Whether it came while somebody looked.
    is_news: bool,
    /// Why it waits, if it is for a label of ours.
    why: Option<Why>,
    is_spoken_of: bool,
    /// When it was last found out why it waits.
    looked_at: Option<Time>,
}

/// What to do now.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Todo {
    /// Whether Nodes are to be looked at: see [`Pending::look`].
    pub look: bool,
    /// What is to be written, before anything else is.
    pub write: Option<Write>,
    /// When to ask again, if nothing happens before.
    pub wake_at: Option<Time>,
}

/// A look at the Nodes.
#[derive(Debug)]
pub struct Look {
    /// Of whom it is to be found out why they wait.
    pods: BTreeSet<PodId>,
    keys: Arc<BTreeSet<String>>,
    suggestions: Suggestions,
}

impl Look {
    /// The keys of the labels of Nodes that have to be known.
    #[must_use]
    pub fn keys(&self) -> Arc<BTreeSet<String>> {
        self.keys.clone()
    }
}

impl Waiting {
    /// A pod that has no Node yet, and may have one. None if it does not select on labels of ours, is too large to
    /// be kept, or asks for too many labels of others.
    #[must_use]
    pub fn of(id: PodId, owner: Option<String>, mut pod: Pod, constraints: Constraints) -> Option<Self> {
        let refers = |one: &Container| {
            [&one.seccomp, &one.apparmor].iter().any(|one| matches!(one, Asked::Localhost(_)))
        };
        pod.containers.retain(refers);
        let labels: usize = pod.selects.iter().map(|label| label.as_str().len()).sum();
        let own = labels + constraints.size() + owner.as_ref().map_or(0, String::len);
        let size = pod.containers.iter().map(Container::size).sum::<usize>() + own;
        let waiting = Self { id, owner, pod, constraints };
        let is_within = size <= LARGEST && waiting.asked(&BTreeSet::new()).len() <= MOST_ASKED;
        (is_within && !waiting.pod.selects.is_empty()).then_some(waiting)
    }

    /// The keys of the labels of others that it asks for, and that are not among `keys`.
    fn asked(&self, keys: &BTreeSet<String>) -> BTreeSet<&str> {
        let others = self.constraints.keys().filter(|key| !LabelKey::is_ours(key));
        others.filter(|key| !keys.contains(*key)).collect()
    }

    /// The namespace and the `uid` of the object that made it: that of an owner is written by its pod's author.
    fn owner(&self) -> Option<(&str, &str)> {
        Some((&self.id.namespace, self.owner.as_deref()?))
    }

    /// Which.
    #[must_use]
    pub fn id(&self) -> &PodId {
        &self.id
    }
}

/// Whether `waiting` can be known beside these.
fn has_room<'w>(others: impl Iterator<Item = &'w Waiting>, waiting: &'w Waiting) -> bool {
    let (mut count, mut of_namespace, mut of_owner) = (0, 0, 0);
    for other in others {
        count += 1;
        of_namespace += usize::from(other.id.namespace == waiting.id.namespace);
        let owner = other.owner();
        of_owner += usize::from(owner.is_some() && owner == waiting.owner());
    }
    count < MOST && of_namespace < MOST_OF_NAMESPACE && of_owner < MOST_OF_OWNER
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            pods: BTreeMap::new(),
            listing: BTreeMap::new(),
            spare: BTreeMap::new(),
            saying: Saying::of_pending(),
            is_listed: false,
            is_looking: false,
            looked_at: None,
            pause: PAUSE,
        }
    }
}

impl Pending {
    /// A list of all pods that wait begins. What was read of another one counts for nothing.
    pub fn listing(&mut self) {
        self.listing.clear();
        self.spare.clear();
    }

    /// The list has this one. Who was known before keeps its room until the list ends: else others of one owner
    /// would be spoken of whenever a list has another order.
    pub fn found(&mut self, waiting: Waiting) {
        let gone = self.pods.iter().filter(|(id, _)| !self.listing.contains_key(id));
        let others = self.listing.values().chain(gone.map(|(_, known)| &known.waiting));
        if self.pods.contains_key(&waiting.id) || has_room(others, &waiting) {
            self.listing.insert(waiting.id.clone(), waiting);
        } else if has_room(self.listing.values().chain(self.spare.values()), &waiting) {
            self.spare.insert(waiting.id.clone(), waiting);
        }
    }

    /// The list ends: these are all the pods that wait.
    pub fn listed(&mut self, now: Time) {
        for (id, waiting) in std::mem::take(&mut self.spare) {
            if has_room(self.listing.values(), &waiting) {
                self.listing.insert(id, waiting);
            }
        }
        let mut before = std::mem::take(&mut self.pods);
        for (id, waiting) in std::mem::take(&mut self.listing) {
            // What waits at the first look may have been told so before a restart.
            let known = before.remove(&id).map(|known| Known { waiting: waiting.clone(), ..known });
            self.pods.insert(id, known.unwrap_or_else(|| Known::new(waiting, now, self.is_listed)));
        }
        for id in before.keys() {
            self.saying.deleted(&Subject::from(id));
        }
        self.is_listed = true;
    }

    /// A pod begins to wait, or has changed.
    pub fn applied(&mut self, waiting: Waiting, now: Time) {
        if let Some(known) = self.pods.get_mut(&waiting.id) {
            known.waiting = waiting;
        } else if has_room(self.pods.values().map(|known| &known.waiting), &waiting) {
            self.pods.insert(waiting.id.clone(), Known::new(waiting, now, true));
        }
    }

    /// A pod does not wait any more.
    pub fn deleted(&mut self, id: &PodId) {
        if self.pods.remove(id).is_some() {
            self.saying.deleted(&Subject::from(id));
        }
    }

    /// What is to be done now.
    #[must_use]
    pub fn todo(&self, now: Time) -> Todo {
        let next = self.saying.next(now);
        let look_at = self.look_at();
        let look = look_at.is_some_and(|at| at <= now);
        let later = look_at.filter(|at| *at > now);
        Todo { look, write: next.write, wake_at: next.wake_at.into_iter().chain(later).min() }
    }

    /// When Nodes are to be looked at next; none while they are, or no pod waits.
    fn look_at(&self) -> Option<Time> {
        let due = |known: &Known| match self.looked_at {
            None => known.since + PATIENCE,
            Some(at) if known.looked_at.is_some() => at + self.pause,
            Some(at) => (known.since + PATIENCE).max(at + PAUSE),
        };
        self.pods.values().map(due).min().filter(|_| !self.is_looking)
    }

    /// Begins a look: what it is about, by what is known of `bundles` now. Pods for whose labels there is no room
    /// come first in the next one.
    pub fn look(&mut self, bundles: &Bundles, now: Time) -> Look {
        self.is_looking = true;
        self.looked_at = Some(now);
        let due = self.pods.iter().filter(|(_, known)| known.since + PATIENCE <= now);
        let mut due: Vec<(&PodId, &Known)> = due.collect();
        due.sort_by_key(|(_, known)| known.looked_at.unwrap_or(known.since));
        let is_nothing_new = due.iter().all(|(_, known)| known.looked_at.is_some());
        self.pause = if is_nothing_new { self.pause.saturating_mul(2).min(LONGEST_PAUSE) } else { PAUSE };
        let mut pods = BTreeSet::new();
        let mut keys: BTreeSet<String> = bundles.asked().map(str::to_owned).collect();
        let mut room = MOST_ASKED;
        for (id, Known { waiting, .. }) in due {
            let asked = waiting.asked(&keys).len();
            if asked <= room {
                room -= asked;
                keys.extend(waiting.constraints.keys().map(str::to_owned));
                pods.insert(id.clone());
            }
        }
        Look { pods, keys: Arc::new(keys), suggestions: Suggestions::default() }
    }

    /// Goes on with `look`, which has found these Nodes, by their names: finds out of its next few pods why they
    /// wait. Returns whether it has ended: until it has, nothing of it is said.
    ///
    /// It comes to nothing, and is to be repeated, if there are no Nodes, or if a bundle asks for a label that the
    /// look is not about: who has it is not known, so the bundle would seem to be for no Node.
    #[must_use]
    pub fn looked(&mut self, look: &mut Look, nodes: Option<&[Node]>, bundles: &Bundles, now: Time) -> bool {
        self.looked_at = Some(now);
        let nodes = nodes.filter(|_| bundles.asked().all(|key| look.keys.contains(key)));
        let Some(nodes) = nodes else {
            self.is_looking = false;
            return true;
        };
        let site = Site { nodes, bundles };
        for _ in 0..MOST_AT_A_TIME {
            let Some(id) = look.pods.pop_first() else { break };
            let Some(Known { waiting, why, looked_at, .. }) = self.pods.get_mut(&id) else { continue };
            *looked_at = Some(now);
            let found = site.why(&waiting.pod, &waiting.constraints, &mut look.suggestions);
            let is_same = matches!((&*why, &found), (Some(before), Some(now)) if before.gist == now.gist);
            if !is_same {
                *why = found;
            }
        }
        if !look.pods.is_empty() {
            return false;
        }
        self.is_looking = false;
        self.choose();
        let spoken_of = self.pods.values().filter(|known| known.is_spoken_of);
        let reviews = spoken_of.filter_map(|known| Some((known.review()?, known.is_news))).collect();
        self.saying.waiting(reviews, now);
        true
    }

    /// Of whom it is spoken: those that it was spoken of first.
    fn choose(&mut self) {
        let mut of_owner: BTreeMap<(String, String), usize> = BTreeMap::new();
        for was_spoken_of in [true, false] {
            for known in self.pods.values_mut().filter(|known| known.is_spoken_of == was_spoken_of) {
                known.is_spoken_of = known.why.is_some()
                    && known.waiting.owner().is_none_or(|(namespace, uid)| {
                        let count = of_owner.entry((namespace.to_owned(), uid.to_owned())).or_default();
                        *count += 1;
                        *count <= MOST_SPOKEN_OF
                    });
            }
        }
    }

    /// Records how `write` ended.
    pub fn written(&mut self, write: &Write, outcome: Outcome, now: Time) {
        self.saying.written(write, outcome, now);
    }
}

impl Known {
    fn new(waiting: Waiting, since: Time, is_news: bool) -> Self {
        Self { waiting, since, is_news, why: None, is_spoken_of: false, looked_at: None }
    }

    fn review(&self) -> Option<Review> {
        let PodId { uid, .. } = &self.waiting.id;
        let subject = Subject::from(&self.waiting.id);
        let statement = Statement {
            subject: subject.clone(),
            uid: uid.clone(),
            field: None,
            reason: Reason::NoNodeHasProfile,
            note: self.why.as_ref()?.note.clone(),
        };
        Some(Review { subject, uid: uid.clone(), statements: vec![statement], is_complete: true })
    }
}

#[cfg(test)]
mod tests;
