//! What is known of our Node: its labels, and whether its startup taint stands.
//!
//! Invariant: what is known is what was seen last, in the order of the Node's versions; who asks what to do
//! about it is told of one write at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::label::LabelKey;
use crate::pace::Pace;
use crate::plan::{Deed, LabelChange};
use crate::time::{Retry, Time};

/// The key of the taint with which a Node is registered so that it gets no ordinary pod before its profiles.
pub const STARTUP_TAINT: &str = "pavise.dev/not-ready";

/// One observation of the Node.
#[derive(Clone, Debug, Default)]
pub struct NodeLabels {
    /// The Node's resource version, if it is a number. Numbers grow with every write, and go back when etcd
    /// is restored from a backup.
    pub version: Option<u64>,
    /// The labels of ours.
    pub labels: BTreeMap<LabelKey, String>,
    /// All others, by which bundles choose their nodes.
    pub others: BTreeMap<String, String>,
    /// Where the Node's list of taints has [`STARTUP_TAINT`]: once for each effect.
    pub startup_taints: BTreeSet<usize>,
}

impl NodeLabels {
    fn is_older_than(&self, version: Option<u64>) -> bool {
        self.version.is_some() && self.version < version
    }
}

/// What an observation tells beside the labels of ours.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) others: BTreeMap<String, String>,
    pub(crate) startup_taints: BTreeSet<usize>,
}

/// What is known about the Node's labels.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// None while there is no Node to be seen.
    pub(crate) observed: Option<BTreeMap<LabelKey, String>>,
    newest: Option<u64>,
    /// The one change that is under way.
    pub(crate) sent: Option<LabelChange>,
    /// What `newest` was when it was sent.
    newest_when_sent: Option<u64>,
    /// Labels that may stand, although they were not in what we saw last: of changes that failed, and from
    /// before the Node went back to an older version.
    pub(crate) doubtful: BTreeSet<LabelKey>,
    /// What was done to each label of late.
    done: BTreeMap<LabelKey, Done>,
    pub(crate) retry: Retry,
}

/// What was last done to a label, and since when it is to be remembered.
#[derive(Clone, Copy, Debug)]
struct Done {
    deed: Deed,
    at: Time,
}

impl Labels {
    /// Time between two changes, so that bundles that come one by one do not cost a write each.
    const GAP: Duration = Duration::from_millis(200);

    /// Whether the scheduler may see `label` now, or soon: unknown counts as yes.
    pub(crate) fn may_stand(&self, label: &LabelKey) -> bool {
        let is_sent = self.sent.as_ref().is_some_and(|sent| sent.set.contains(label));
        let is_observed = self.observed.as_ref().is_none_or(|observed| observed.contains_key(label));
        is_observed || is_sent || self.doubtful.contains(label)
    }

    /// Takes over what a watch tells, unless it is older than what was seen before: watch and patch come over
    /// two connections, and an old `the label is absent` would let a file go while its label stands. Returns
    /// the rest of it, if it was taken over.
    pub(crate) fn watched(&mut self, node: NodeLabels) -> Option<Rest> {
        (!node.is_older_than(self.newest)).then(|| self.observe(node))
    }

    /// Takes over what a list tells, even if it is older: then etcd was restored, and all that follows is
    /// older as well. Or the list was overtaken by an answer of ours, and the watch is about to repeat what
    /// that said. So until a change is answered, what was seen before may stand. Returns the rest of
    /// it.
    pub(crate) fn listed(&mut self, node: NodeLabels) -> Rest {
        if node.is_older_than(self.newest) {
            self.doubtful.extend(self.observed.take().into_iter().flat_map(BTreeMap::into_keys));
        }
        self.observe(node)
    }

    /// Takes over the answer to the change that is under way. It can't be older than what was seen when that
    /// was sent, unless etcd was restored; older than what came since, it was overtaken by the watch. Returns
    /// the rest of it, if it was taken over.
    pub(crate) fn written(&mut self, node: NodeLabels, now: Time) -> Option<Rest> {
        let is_news = node.is_older_than(self.newest_when_sent) || !node.is_older_than(self.newest);
        let rest = is_news.then(|| self.observe(node));
        self.doubtful.clear();
        let change = self.sent.take().unwrap_or_default();
        self.done.retain(|_, done| done.at + Retry::MEMORY > now);
        if self.is_repeated(&change) {
            self.retry.failed(now);
            // While a fight lasts, nothing is forgotten: next time it may be about another label.
            self.done.values_mut().for_each(|done| done.at = now);
        } else {
            self.retry.pause(now, Self::GAP);
        }
        let done = |(label, deed): (&LabelKey, Deed)| (label.clone(), Done { deed, at: now });
        self.done.extend(change.deeds().map(done));
        rest
    }

    /// Whether any of `change` was done a moment ago: then somebody undid it, and doing it was no success. To
    /// set what was unset, or the reverse, is a change of mind.
    fn is_repeated(&self, change: &LabelChange) -> bool {
        change.deeds().any(|(label, deed)| self.done.get(label).is_some_and(|done| done.deed == deed))
    }

    fn observe(&mut self, node: NodeLabels) -> Rest {
        self.newest = node.version.or(self.newest);
        self.observed = Some(node.labels);
        Rest { others: node.others, startup_taints: node.startup_taints }
    }

    /// The Node is gone. One that is made anew may have any version.
    pub(crate) fn gone(&mut self) {
        self.newest = None;
        self.observed = None;
    }

    pub(crate) fn sent(&mut self, change: LabelChange) {
        self.newest_when_sent = self.newest;
        self.sent = Some(change);
    }

    pub(crate) fn failed(&mut self, now: Time) {
        self.doubtful.extend(self.sent.take().into_iter().flat_map(|sent| sent.set));
        self.retry.failed(now);
    }
}

/// What is known about the startup taint of the Node.
#[derive(Debug, Default)]
pub(crate) struct Taint {
    /// Where it stands in the Node's list of taints: nowhere as well while there is no Node to be seen.
    at: BTreeSet<usize>,
    /// Since when it stands, as far as was seen.
    since: Option<Time>,
    /// Whether it is being taken away.
    is_sent: bool,
    pub(crate) pace: Pace,
}

impl Taint {
    /// Where it stands, and since when; none if it does not.
    pub(crate) fn standing(&self) -> Option<(&BTreeSet<usize>, Time)> {
        self.since.map(|since| (&self.at, since))
    }

    /// Whether it is being taken away.
    pub(crate) fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// It stands there. One that comes back is taken away at once again, unless it is a fight.
    pub(crate) fn seen(&mut self, at: BTreeSet<usize>, now: Time) {
        if at.is_empty() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
            self.pace.drifted(now);
        }
        self.at = at;
    }

    /// There is no Node. One that is made anew may have it anew.
    pub(crate) fn gone(&mut self) {
        self.at.clear();
        self.since = None;
    }

    /// It is being taken away.
    pub(crate) fn sent(&mut self) {
        self.is_sent = true;
    }

    /// That has ended well. What the Node has now is told by what was seen of it.
    pub(crate) fn taken_away(&mut self) {
        self.is_sent = false;
    }

    /// It could not be taken away, or nobody knows.
    pub(crate) fn failed(&mut self, now: Time) {
        self.is_sent = false;
        self.pace.failed(now);
    }
}
