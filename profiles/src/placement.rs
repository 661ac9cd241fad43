//! On which Nodes a pod finds what it refers to, as far as the API server knows, and why it waits for one.
//!
//! Invariant: a Node counts as having a profile only if a label of ours says so: that of the profile, or that
//! of a bundle which has it. What was not read makes an answer [`Verdict::Unknown`], never
//! [`Verdict::Missing`].

mod constraints;
mod declared;
mod selection;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use constraints::{Constraints, Unscheduled};
pub use declared::Bundles;
use declared::Target;
pub use waiting::{Site, Suggestions, Why};

use crate::bundle::Kind;
use crate::label::{LABEL_VALUE, LabelKey};
use crate::pod::{Asked, ContainerKind, Pod};

/// In the order in which they are told.
const KINDS: [Kind; 2] = [Kind::Seccomp, Kind::AppArmor];

/// What matters of a Node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The labels of ours that it has. Most Nodes have the same ones, so that these can be shared.
    pub ours: Arc<BTreeMap<String, String>>,
    /// Its other labels, by which bundles choose their nodes.
    pub others: BTreeMap<String, String>,
}

/// What is known of a cluster.
#[derive(Debug)]
pub struct Cluster {
    /// All Nodes, in the order in which they are named.
    pub nodes: Vec<Node>,
    /// Its bundles.
    pub bundles: Bundles,
}

/// What comes of a pod.
#[derive(Debug)]
pub struct Placement<'c> {
    /// On how many Nodes it can be by its own words ([`Constraints`]).
    pub candidates: usize,
    /// Its references, in the order of its containers.
    pub references: Vec<Resolution<'c>>,
    /// What to add to its `nodeSelector`, each with the value [`LABEL_VALUE`]. Empty if there is nothing to
    /// add, or nothing that would help.
    pub selector: BTreeSet<LabelKey>,
    /// The Nodes on which all resolve that resolve on any.
    pub together: Vec<&'c str>,
    /// How many containers were not looked at.
    pub unchecked: usize,
}

/// What comes of a reference.
#[derive(Debug)]
pub struct Resolution<'c> {
    /// The container.
    pub container: String,
    /// Which list of the pod it is in.
    pub container_kind: ContainerKind,
    /// What it refers to.
    pub kind: Kind,
    /// The reference; if its type is not known, the type.
    pub reference: String,
    /// Whether it resolves.
    pub verdict: Verdict,
    /// The Nodes on which it does, of those on which the pod can be.
    pub on: Vec<&'c str>,
    /// The others of those.
    pub not_on: Vec<&'c str>,
    /// Why it does not resolve on all; empty if it does.
    pub why: String,
    /// The reference that was probably meant.
    pub meant: Option<String>,
}

/// Whether a reference resolves, on the Nodes on which its pod can be.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// On all of them.
    Resolved,
    /// It does not matter: runtimes do not look at it.
    Ignored,
    /// On some of them.
    Partly,
    /// On none of them.
    Missing,
    /// That can't be told.
    Unknown,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Resolved, Self::Ignored, Self::Partly, Self::Missing, Self::Unknown];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Ignored => "ignored",
            Self::Partly => "partly",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a pod with such a reference can be relied on to start, as far as that is up to it.
    #[must_use]
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Resolved | Self::Ignored)
    }
}

impl Placement<'_> {
    /// Whether all references resolve wherever the pod can be.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.unchecked == 0 && self.references.iter().all(|one| one.verdict.is_fine())
    }

    /// Whether each reference resolves somewhere, and no Node has them all.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.together.is_empty() && self.references.iter().any(|one| one.verdict == Verdict::Partly)
    }
}

impl Node {
    /// The Node of this `name` that has these `labels`.
    #[must_use]
    pub fn new(name: String, labels: BTreeMap<String, String>) -> Self {
        let (ours, others): (_, BTreeMap<_, _>) =
            labels.into_iter().partition(|(key, _)| LabelKey::is_ours(key));
        Self { name, ours: Arc::new(ours), others }
    }

    /// The value of its label `key`.
    fn label(&self, key: &str) -> Option<&str> {
        self.others.get(key).or_else(|| self.ours.get(key)).map(String::as_str)
    }

    fn has(&self, label: &LabelKey) -> bool {
        self.ours.get(label.as_str()).is_some_and(|value| value == LABEL_VALUE)
    }

    fn has_any(&self, labels: &[LabelKey]) -> bool {
        labels.iter().any(|label| self.has(label))
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Cluster {
    /// On which Nodes `pod` finds what it refers to, of those that `constraints` allow.
    #[must_use]
    pub fn place(&self, pod: &Pod, constraints: &Constraints) -> Placement<'_> {
        let candidates: Vec<&Node> = self.nodes.iter().filter(|node| constraints.allow(node)).collect();
        let mut references = Vec::new();
        // Of each reference that resolves on some of them: the labels that say so.
        let mut somewhere: Vec<Vec<LabelKey>> = Vec::new();
        let mut selector = BTreeSet::new();
        for (container, kind) in pod.containers.iter().flat_map(|one| KINDS.map(|kind| (one, kind))) {
            let nowhere = |verdict, why| Found { verdict, on: Vec::new(), not_on: Vec::new(), why };
            let (reference, found) = match container.asked(kind) {
                Asked::Nothing | Asked::RuntimeDefault | Asked::Unconfined => continue,
                Asked::Unknown(word) => {
                    (word, nowhere(Verdict::Unknown, "no such type of a profile is known".to_owned()))
                }
                Asked::Localhost(reference) if kind == Kind::Seccomp && container.is_privileged => {
                    let why = "runtimes start a privileged container without a seccomp profile";
                    (reference, nowhere(Verdict::Ignored, why.to_owned()))
                }
                Asked::Localhost(reference) => {
                    let target = Target::of(kind, reference);
                    let labels = self.bundles.labels(&target);
                    let found = self.resolve(&target, &labels, &candidates, constraints);
                    if found.verdict == Verdict::Partly {
                        selector.extend(telling(&labels, &candidates).cloned());
                    }
                    if !found.on.is_empty() {
                        somewhere.push(labels);
                    }
                    (reference, found)
                }
            };
            let is_missing = found.verdict == Verdict::Missing;
            references.push(Resolution {
                container: container.name.clone(),
                container_kind: container.kind,
                kind,
                reference: reference.clone(),
                verdict: found.verdict,
                on: found.on.iter().map(|node| node.name()).collect(),
                not_on: found.not_on.iter().map(|node| node.name()).collect(),
                why: found.why,
                meant: is_missing.then(|| self.bundles.nearest(kind, reference)).flatten(),
            });
        }
        let has_all = |node: &&&Node| {
            somewhere.iter().all(|labels| node.has_any(labels))
                && selector.iter().all(|label| node.has(label))
        };
        let together: Vec<&str> = candidates.iter().filter(has_all).map(|node| node.name()).collect();
        if together.is_empty() {
            selector.clear();
        }
        let (candidates, unchecked) = (candidates.len(), pod.unchecked);
        Placement { candidates, references, selector, together, unchecked }
    }

    /// Of `candidates`, on which the pod can be, those that have `target`, and why others do not.
    fn resolve<'c>(
        &'c self,
        target: &Target,
        labels: &[LabelKey],
        candidates: &[&'c Node],
        constraints: &Constraints,
    ) -> Found<'c> {
        let (on, not_on): (Vec<&Node>, Vec<&Node>) = candidates.iter().partition(|node| node.has_any(labels));
        if !on.is_empty() && not_on.is_empty() {
            return Found { verdict: Verdict::Resolved, on, not_on, why: String::new() };
        }
        if !on.is_empty() {
            let why = self.bundles.why(target, &not_on);
            return Found { verdict: Verdict::Partly, on, not_on, why };
        }
        let may_have = |node: &&&Node| {
            let mut bundles = node.ours.keys().filter_map(|key| LabelKey::observed(key));
            bundles.any(|key| node.has(&key) && self.bundles.may_have(target, &key))
        };
        let in_doubt = listed(not_on.iter().filter(may_have).map(|node| node.name()));
        let why = self.why_nowhere(target, labels, &not_on, constraints);
        if in_doubt.is_empty() {
            return Found { verdict: Verdict::Missing, on, not_on, why };
        }
        let doubt = "may have it with a bundle that has no labels for its profiles";
        Found { verdict: Verdict::Unknown, on, not_on, why: format!("{why}; {in_doubt} {doubt}") }
    }

    /// Why none of the Nodes `lacking`, on which the pod can be, has `target`.
    fn why_nowhere(
        &self,
        target: &Target,
        labels: &[LabelKey],
        lacking: &[&Node],
        constraints: &Constraints,
    ) -> String {
        let elsewhere = self.nodes.iter().filter(|node| node.has_any(labels) && !constraints.allow(node));
        let elsewhere = listed(elsewhere.map(Node::name));
        let nowhere = match constraints.node_name() {
            _ if !lacking.is_empty() => None,
            Some(name) => Some(format!("there is no node {name}")),
            None => Some("the pod can be on no node, by its nodeSelector and affinity".to_owned()),
        };
        let all: Vec<&Node> = self.nodes.iter().collect();
        let why = match (lacking, elsewhere.is_empty()) {
            ([], true) => Some(self.bundles.why(target, &all)),
            ([], false) => None,
            _ => Some(self.bundles.why(target, lacking)),
        };
        let elsewhere = (!elsewhere.is_empty()).then(|| format!("it is where the pod can't be: {elsewhere}"));
        [nowhere, why, elsewhere].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// What was found of one reference.
struct Found<'c> {
    verdict: Verdict,
    on: Vec<&'c Node>,
    not_on: Vec<&'c Node>,
    why: String,
}

/// Of `labels`, each of which tells that a Node has something, the one that most of `candidates` have.
fn telling<'l>(labels: &'l [LabelKey], candidates: &[&Node]) -> Option<&'l LabelKey> {
    // Of equals the last is taken, and the profile's own is to be.
    labels.iter().rev().max_by_key(|label| candidates.iter().filter(|node| node.has(label)).count())
}

/// The first few of `names`, and how many there are more.
#[must_use]
pub fn listed<'n, I: IntoIterator<Item = &'n str>>(names: I) -> String {
    /// So many are read.
    const MOST: usize = 5;
    let names: Vec<&str> = names.into_iter().collect();
    let more = names.len().saturating_sub(MOST);
    let first = names[..names.len() - more].join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}
