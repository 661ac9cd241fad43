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

/// The state of a node, as its agent reports it. What is wrong is listed, what is right is counted.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The agent that wrote this report.
    pub agent: Agent,
    /// The properties of the node that matter for profiles.
    pub node: Node,
    /// The conditions of the node: `Ready`, `ProfilesLoaded` and `ReferencesResolved`.
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// Numbers of bundles, profiles and problems on this node.
    pub totals: Totals,
    /// The bundles that the agent reads, including those for other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_BUNDLES))]
    pub bundles: Vec<BundleEntry>,
    /// Problems that keep profiles from being loaded as bundles ask for them, or labels of profiles from the
    /// Node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_DETAILS))]
    pub problems: Vec<Problem>,
    /// Profiles that are loaded although no bundle asks for them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_DETAILS))]
    pub retained: Vec<Retained>,
    /// Problems with the profiles that the node's pods ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_DETAILS))]
    pub references: Vec<PodReference>,
    /// Numbers of entries that are left out of the lists, to keep the report small. The totals include these
    /// entries.
    #[serde(default, skip_serializing_if = "Omitted::is_nothing")]
    pub omitted: Omitted,
}

/// The agent of a node.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Agent {
    /// The version of the agent.
    pub version: String,
    /// The name of the agent's pod, in the namespace of the agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub pod: Option<String>,
}

/// The properties of a node that matter for profiles.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The node's architecture, as in the label kubernetes.io/arch.
    pub architecture: String,
    /// The release of the node's kernel, such as 6.12: the two numbers on which profiles can depend.
    pub kernel: String,
    /// Whether the node's kernel has AppArmor. `Enabled`: it has, and the agent loads profiles into it.
    /// `Disabled`: it has none. `Unknown`: the agent can't see whether it has.
    pub app_armor: AppArmor,
    /// What the kubelet gives to containers that ask for no seccomp profile (its setting seccompDefault), as
    /// far as running containers show it. `Unknown`: no container shows it.
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

/// A condition of the node, in the form that Kubernetes uses everywhere.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The type of the condition. `Ready`: the agent has brought the node in line with its bundles, as its
    /// /readyz says. `ProfilesLoaded`: everything that bundles ask of this node is loaded as they ask for it.
    /// `ReferencesResolved`: nothing is known to be wrong with the profiles that the node's pods ask for.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the condition holds.
    pub status: Truth,
    /// Why the condition has this status, in one word.
    pub reason: String,
    /// Why the condition has this status, in a sentence.
    pub message: String,
    /// When the status of the condition last changed (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// Numbers of bundles, profiles and problems on this node.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// How many of the profiles that bundles ask of this node are loaded, such as 11/12.
    pub profiles: String,
    /// Number of bundles that the agent reads, including those for other nodes.
    pub bundles: usize,
    /// Number of profiles that bundles ask of this node. An AppArmor text that is refused counts as one.
    pub profiles_desired: usize,
    /// Number of profiles that bundles ask of this node and that are loaded, in some version that was
    /// accepted.
    pub profiles_loaded: usize,
    /// Number of problems, including those that are left out of the list.
    pub problems: usize,
    /// Number of retained profiles, including those that are left out of the list.
    pub retained: usize,
    /// Number of problems with the profiles that pods ask for, including those that are left out of the list
    /// of references. Those with the reason `ProfileOutdated` do not count: such a reference resolves.
    pub unresolved: usize,
}

/// A bundle that the agent reads.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleEntry {
    /// The namespace of the bundle.
    pub namespace: String,
    /// The name of the bundle.
    pub name: String,
    /// The kind of profiles in the bundle, seccomp or apparmor. Absent if the bundle's label says something
    /// else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub kind: Option<String>,
    /// Whether the bundle is for this node.
    pub here: Truth,
    /// The SHA-256 of the bundle's keys and of what each key is on this node. Bundles with equal digests are
    /// equal. Absent if the bundle is for other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub digest: Option<String>,
    /// Number of profiles that the bundle asks of this node.
    pub desired: usize,
    /// Number of profiles that the bundle asks of this node and that are loaded.
    pub loaded: usize,
}

/// A problem that keeps a profile from being loaded as a bundle asks for it, or a label of a profile from the
/// Node.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Problem {
    /// The bundle with the problem, as NAMESPACE/NAME. Absent if no bundle asks for the profile any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub bundle: Option<String>,
    /// What has the problem: the reference of a seccomp profile, the bundle and key of an AppArmor text, or
    /// the name of an AppArmor profile. Absent if it is the whole bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// What is wrong, in one word: the code of a finding (see docs/diagnostics.md), or foreign, drifted,
    /// uncompiled, unwritten or unremoved.
    pub code: String,
    /// What is wrong, in a sentence, and what to do about it.
    #[schemars(length(max = 512))]
    pub message: String,
    /// When the problem began (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
}

/// A profile that is loaded although no bundle asks for it any more.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Retained {
    /// The kind of the profile, seccomp or apparmor.
    pub kind: String,
    /// The reference by which pods ask for the profile.
    pub reference: String,
    /// Why the profile stays. `Bundles`: it is not known yet which bundles there are. `RemovalDelay`: the
    /// removal delay has not passed. `Pods`: pods of this node need the profile. `Processes`: processes run
    /// under it. `Removal`: its label has to go first, or removing it failed.
    pub by: RetainedBy,
    /// Some of the pods that need the profile, as NAMESPACE/NAME, if pods keep it from being removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_PODS))]
    pub pods: Vec<String>,
    /// Since when the profile is retained (RFC 3339).
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

/// A problem with a profile that a container asks for.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReference {
    /// The pod with the problem, as NAMESPACE/NAME.
    pub pod: String,
    /// The name of the container with the problem.
    pub container: String,
    /// The kind of the container: init, sidecar, regular or ephemeral.
    pub container_kind: String,
    /// The kind of the profile, seccomp or apparmor.
    pub kind: String,
    /// The reference to the profile, as the pod has it.
    #[schemars(length(max = 512))]
    pub reference: String,
    /// What is wrong, in one word, such as `ProfileMissing` (see docs/references.md).
    pub reason: String,
    /// What is wrong, in a sentence, and what to do about it.
    #[schemars(length(max = 512))]
    pub message: String,
    /// When the problem began (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
}

/// Numbers of entries that are left out of the lists, to keep the report small.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Omitted {
    /// Number of bundles that are left out of the list.
    pub bundles: usize,
    /// Number of problems that are left out of the list.
    pub problems: usize,
    /// Number of retained profiles that are left out of the list.
    pub retained: usize,
    /// Number of problems with pods' references that are left out of the list.
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
