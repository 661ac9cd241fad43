//! What a node holds, what is wrong there, since when and what to do about it, as one object for people and
//! dashboards to read.
//!
//! ```text
//!  State ──▶ Report::settled (since when) ──▶ Writing (when) ──▶ read, write
//! ```
//!
//! Invariants: a report has details of deviations only, so neither its size nor how often it changes depends
//! on how many profiles and pods are all right. Its lists, its texts and its bytes are bounded, whoever wrote
//! what stands in them. Without a change there is no other report: order and words follow from what is known.

mod entries;
mod limits;
mod problems;
mod retention;
#[cfg(test)]
pub(crate) mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::PodFinding;
use crate::platform::{AppArmor, Platform};
use crate::writing;
use limits::{MOST_BUNDLES, MOST_DETAILS, MOST_PODS};

/// What the agent of a node says about it. What is wrong is listed, what is all right is counted.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The agent that says so.
    pub agent: Agent,
    /// What the node is.
    pub node: Node,
    /// Aspects of the node: `Ready`, `ProfilesLoaded` and `ReferencesResolved`.
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// How many there are of what.
    pub totals: Totals,
    /// The bundles that the agent reads, also those for other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_BUNDLES))]
    pub bundles: Vec<BundleEntry>,
    /// What keeps profiles from being loaded as they are asked for, or their labels from the Node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_DETAILS))]
    pub problems: Vec<Problem>,
    /// Profiles that are loaded, and that no bundle asks for any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_DETAILS))]
    pub retained: Vec<Retained>,
    /// What is wrong with the profiles that the node's pods ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_DETAILS))]
    pub references: Vec<PodReference>,
    /// How many entries the lists would have besides. The totals count them.
    #[serde(default, skip_serializing_if = "Omitted::is_nothing")]
    pub omitted: Omitted,
}

/// An agent.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// Its pod, in the namespace of the agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub pod: Option<String>,
}

/// What a node is, as far as profiles depend on it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// As in the label kubernetes.io/arch.
    pub architecture: String,
    /// The release of its kernel: the two numbers on which profiles can depend.
    pub kernel: String,
    /// Whether the kernel has AppArmor, and the agent is to load profiles into it.
    pub app_armor: AppArmor,
    /// What the kubelet gives to containers that ask for no seccomp profile (its setting seccompDefault), as
    /// far as running containers show it.
    pub kubelet_seccomp_default: SeccompDefault,
}

/// What containers get that ask for no seccomp profile.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SeccompDefault {
    /// The runtime's own profile.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// No container shows it.
    Unknown,
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Truth {
    /// It is.
    True,
    /// It is not.
    False,
    /// That is not known.
    Unknown,
}

/// One aspect of the node, as conditions are everywhere in Kubernetes.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect. The type `Ready` says that the agent has brought the node in line with its bundles, as its
    /// /readyz does; `ProfilesLoaded` that all that bundles ask of this node is loaded as they ask for it;
    /// `ReferencesResolved` that nothing is known to be wrong with the profiles that its pods ask for.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is so.
    pub status: Truth,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Since when the status is what it is.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// How many there are of what.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// How many of the profiles that bundles ask of this node are loaded, such as 11/12.
    pub profiles: String,
    /// Bundles that the agent reads, also those for other nodes.
    pub bundles: usize,
    /// Profiles that bundles ask of this node; an AppArmor text that is refused counts as one.
    pub profiles_desired: usize,
    /// Those of them that are loaded, in some version that was accepted.
    pub profiles_loaded: usize,
    /// Entries of problems.
    pub problems: usize,
    /// Entries of retained.
    pub retained: usize,
    /// Entries of references, but those for `ProfileOutdated`, which is no reference that does not resolve.
    pub unresolved: usize,
}

/// A bundle.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleEntry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it holds profiles of, seccomp or apparmor; none if its label says something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub kind: Option<String>,
    /// Whether it is for this node.
    pub here: Truth,
    /// The SHA-256 of its keys and of what each is on this node. Equal ones are equal bundles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub digest: Option<String>,
    /// How many profiles it asks of this node.
    pub desired: usize,
    /// How many of them are loaded.
    pub loaded: usize,
}

/// Something that keeps a profile from being loaded as it is asked for, or a label from the Node.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Problem {
    /// The bundle, as NAMESPACE/NAME; none if no bundle asks for the profile any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub bundle: Option<String>,
    /// The reference, the bundle and key of an AppArmor text, or the name of an AppArmor profile; none if it
    /// is about the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// What is wrong, in one word, such as refused findings have (docs/diagnostics.md), or foreign, drifted,
    /// uncompiled, unwritten or unremoved.
    pub code: String,
    /// The same in a sentence, with what to do about it.
    #[schemars(length(max = 512))]
    pub message: String,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
}

/// A profile that is loaded, and that no bundle asks for any more.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Retained {
    /// Of what it is, seccomp or apparmor.
    pub kind: String,
    /// What pods call it.
    pub reference: String,
    /// Why it stays.
    pub by: RetainedBy,
    /// Pods that need it, as NAMESPACE/NAME, if those retain it: some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_PODS))]
    pub pods: Vec<String>,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
}

/// Why a profile stays that no bundle asks for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RetainedBy {
    /// It is not known yet which bundles there are.
    Bundles,
    /// The removal delay has not passed.
    RemovalDelay,
    /// Pods of this node need it: they refer to it, or select on its label.
    Pods,
    /// Processes run under it.
    Processes,
    /// Its label has to go first, or removing it failed.
    Removal,
}

/// Something that is wrong with what a container asks for.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReference {
    /// The pod, as NAMESPACE/NAME.
    pub pod: String,
    /// The container.
    pub container: String,
    /// Which list of the pod it is in, as init, sidecar, regular or ephemeral.
    pub container_kind: String,
    /// What the reference is to, seccomp or apparmor.
    pub kind: String,
    /// The reference, as the pod has it.
    #[schemars(length(max = 512))]
    pub reference: String,
    /// What is wrong, in one word.
    pub reason: String,
    /// The same in a sentence, with what to do about it.
    #[schemars(length(max = 512))]
    pub message: String,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
}

/// How many entries are left out of each list, to keep the report small.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Omitted {
    /// Of bundles.
    pub bundles: usize,
    /// Of problems.
    pub problems: usize,
    /// Of retained.
    pub retained: usize,
    /// Of references.
    pub references: usize,
}

impl Omitted {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a report says that [`crate::state::State`] does not know.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The agent.
    pub agent: &'a Agent,
    /// What the node is.
    pub platform: Platform,
    /// What is in the way of being ready, in words; nothing when the agent is.
    pub unready: &'a [String],
    /// What is wrong with the node's pods.
    pub findings: &'a [PodFinding],
    /// The date and time, in UTC, by RFC 3339, to the second.
    pub clock: &'a str,
}

/// When a report is read and written.
pub type Writing = writing::Writing<Box<Report>>;
/// What is asked of the API server about it.
pub type Request = writing::Request<Box<Report>>;
/// How that ended.
pub type Answer = writing::Answer<Box<Report>>;
/// A report that is to be there.
pub type Draft = writing::Draft<Box<Report>>;

/// The condition that has to do with [`Circumstances::unready`].
const READY: &str = "Ready";

/// An entry that has a beginning.
trait Lasting {
    /// Whether `before` is about the same thing.
    fn continues(&self, before: &Self) -> bool;

    /// Takes over since when that has been so.
    fn begin_as(&mut self, before: &Self);
}

impl Lasting for Condition {
    fn continues(&self, before: &Self) -> bool {
        self.kind == before.kind && self.status == before.status
    }

    fn begin_as(&mut self, before: &Self) {
        self.last_transition_time.clone_from(&before.last_transition_time);
    }
}

impl Lasting for Problem {
    fn continues(&self, before: &Self) -> bool {
        self.bundle == before.bundle && self.name == before.name && self.code == before.code
    }

    fn begin_as(&mut self, before: &Self) {
        self.since.clone_from(&before.since);
    }
}

impl Lasting for Retained {
    fn continues(&self, before: &Self) -> bool {
        self.kind == before.kind && self.reference == before.reference
    }

    fn begin_as(&mut self, before: &Self) {
        self.since.clone_from(&before.since);
    }
}

impl Lasting for PodReference {
    fn continues(&self, before: &Self) -> bool {
        fn what(one: &PodReference) -> [&str; 5] {
            [&one.pod, &one.container, &one.kind, &one.reference, &one.reason]
        }
        what(self) == what(before)
    }

    fn begin_as(&mut self, before: &Self) {
        self.since.clone_from(&before.since);
    }
}

fn settle<T: Lasting>(entries: &mut [T], before: &[T]) {
    for entry in entries {
        if let Some(before) = before.iter().find(|before| entry.continues(before)) {
            entry.begin_as(before);
        }
    }
}

impl Report {
    /// The same, with what was so in the one before it being so since then.
    #[must_use]
    pub fn settled(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before {
            settle(&mut self.conditions, &before.conditions);
            settle(&mut self.problems, &before.problems);
            settle(&mut self.retained, &before.retained);
            settle(&mut self.references, &before.references);
        }
        self
    }

    /// It, to be written after the one before.
    #[must_use]
    pub fn draft(self, before: Option<&Self>) -> Draft {
        let report = self.settled(before);
        Draft { is_ready: report.is_ready(), content: Box::new(report) }
    }

    /// Whether the agent is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.kind == READY && condition.status == Truth::True)
    }
}
