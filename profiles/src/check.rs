//! What is wrong with the profiles that the node's pods ask for, and how many there are of what.
//!
//! Invariant: while nothing changes that it is about, a finding stays the same, word for word: so it is one Event,
//! and one entry of the report.

use std::collections::BTreeMap;

use crate::bundle::Kind;
use crate::pod::{ContainerKind, PodId};
use crate::state::State;
use crate::time::Time;

/// Something that is wrong with what a container asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodFinding {
    /// The pod.
    pub pod: PodId,
    /// The container's name.
    pub container: String,
    /// Which list of the pod it is in.
    pub container_kind: ContainerKind,
    /// What the reference is to.
    pub kind: Kind,
    /// The reference, as the pod has it.
    pub reference: String,
    /// What is wrong.
    pub reason: PodReason,
    /// That in words, with what to do about it: a sentence without the container, at most 800 bytes.
    pub message: String,
}

/// What can be wrong with what a container asks for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PodReason {
    /// The node has no such profile.
    ProfileMissing,
    /// The node has no AppArmor.
    AppArmorUnavailable,
    /// What is there is no profile that a runtime could use: the container does not start.
    ProfileInvalid,
    /// What is there confines by less than it says, or not at all.
    ProfileUnsafe,
    /// Somebody changed the profile, and it is not put right.
    ProfileChanged,
    /// The container runs, and not under the profile.
    ProfileNotEnforced,
    /// The container runs under a version of the file that is not the newest one.
    ProfileOutdated,
}

/// What becomes of a reference, for counting.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ReferenceState {
    /// The node has the profile.
    Resolved,
    /// It is being loaded, or looked at.
    Pending,
    /// It has not, or what it has is not right: see the finding.
    Unresolved,
    /// This agent does not know the type of the profile, or does not look at the container.
    Unchecked,
}

/// What becomes of a running container with a reference, for counting.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ContainerState {
    /// The kernel says that it runs under the profile.
    Enforced,
    /// It says that it does not.
    NotEnforced,
    /// It runs under a former version of the file.
    Outdated,
    /// The kernel of the node can't tell, or was not asked yet.
    Unknown,
}

/// All about the node's pods.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodChecks {
    /// What is wrong, by pod and container.
    pub findings: Vec<PodFinding>,
    /// References of containers, each counted in one state.
    pub references: BTreeMap<(Kind, ReferenceState), usize>,
    /// Running containers with a reference, each counted in one state for each kind.
    pub containers: BTreeMap<(Kind, ContainerState), usize>,
}

impl PodReason {
    /// As Events and reports have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProfileMissing => "ProfileMissing",
            Self::AppArmorUnavailable => "AppArmorUnavailable",
            Self::ProfileInvalid => "ProfileInvalid",
            Self::ProfileUnsafe => "ProfileUnsafe",
            Self::ProfileChanged => "ProfileChanged",
            Self::ProfileNotEnforced => "ProfileNotEnforced",
            Self::ProfileOutdated => "ProfileOutdated",
        }
    }

    /// Whether it is worth an Event. That a container is outdated follows from each edit of a profile, for every
    /// container that has it: that is in the report only.
    #[must_use]
    pub fn is_event(self) -> bool {
        self != Self::ProfileOutdated
    }
}

impl State {
    /// Checks the node's pods by what is known at `now`. Nothing is said before the pods, the bundles and the disk
    /// are known.
    #[must_use]
    pub fn check_pods(&self, _now: Time) -> PodChecks {
        let mut checks = PodChecks::default();
        if self.is_all_listed() && self.is_scanned {
            self.check_enforcement(&mut checks);
        }
        checks
    }
}
