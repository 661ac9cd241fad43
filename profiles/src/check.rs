//! What is wrong with the profiles that the node's pods ask for, and how many there are of what.
//!
//! Invariant: while nothing changes that it is about, a finding stays the same, word for word: so it is one
//! Event, and one entry of the report.

use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::Kind;
use crate::pod::{Asked, Container, ContainerKind, Pod, PodId};
use crate::resolution::{Problem, Resolution, names};
use crate::state::State;
use crate::suggestion;
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
    /// What is wrong, by pod and container: of one pod, 16 references and 16 containers that run at most.
    pub findings: Vec<PodFinding>,
    /// References of containers, each counted in one state.
    pub references: BTreeMap<(Kind, ReferenceState), usize>,
    /// Running containers with a reference, each counted in one state for each kind.
    pub containers: BTreeMap<(Kind, ContainerState), usize>,
    /// The pods with a reference that is pending or unchecked: that nothing is found does not say that all is right.
    pub undecided: BTreeSet<PodId>,
}

impl PodReason {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::ProfileMissing,
        Self::AppArmorUnavailable,
        Self::ProfileInvalid,
        Self::ProfileUnsafe,
        Self::ProfileChanged,
        Self::ProfileNotEnforced,
        Self::ProfileOutdated,
    ];

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

    /// Whether it is worth an Event. That a container is outdated follows from each edit of a profile, for
    /// every container that has it: that is in the report only.
    #[must_use]
    pub fn is_event(self) -> bool {
        self != Self::ProfileOutdated
    }
}

/// So many names are compared with all others, at most: whoever asks for more of what nobody knows is not
/// helped by it.
const MOST_COMPARED: usize = 50;

/// Of one pod so many problems are told at most, of its references and of its containers that run: nobody reads more,
/// and its author must not decide how much memory they take. All are counted.
const MOST_FOUND: usize = 16;

impl State {
    /// Checks the node's pods by what is known at `now`. Nothing is said before the pods, the bundles and the
    /// disk are known, and the kernel's AppArmor profiles.
    #[must_use]
    pub fn check_pods(&self, now: Time) -> PodChecks {
        let mut checks = PodChecks::default();
        let Some(pods) = self.pods.all().filter(|_| self.is_resolvable()) else { return checks };
        let resolutions = self.resolutions(pods, now);
        for (id, pod) in pods {
            if pod.is_rejected {
                self.explain_rejected(id, pod, &mut checks);
            } else if !pod.has_ended {
                checks.add_references(id, pod, &resolutions);
            }
        }
        self.check_enforcement(&mut checks);
        checks.findings.sort_by(|a, b| (&a.pod, &a.container, a.kind).cmp(&(&b.pod, &b.container, b.kind)));
        checks
    }

    /// What becomes of each reference of containers that may be started, once.
    fn resolutions<'p>(&self, pods: &'p BTreeMap<PodId, Pod>, now: Time) -> Resolutions<'p> {
        let mut all = Resolutions::new();
        let alive = pods.values().filter(|pod| !pod.has_ended && !pod.is_rejected);
        for container in alive.flat_map(|pod| &pod.containers) {
            for (kind, reference) in references(container) {
                all.entry((kind, reference)).or_insert_with(|| self.resolve(kind, reference, now));
            }
        }
        for kind in Kind::ALL {
            self.suggest(kind, &mut all);
        }
        all
    }

    /// Says what may have been meant by what nobody knows.
    fn suggest(&self, kind: Kind, all: &mut Resolutions<'_>) {
        let mut unheard_of: Vec<(&str, &mut Problem)> = Vec::new();
        for ((of, reference), resolution) in all {
            if let Resolution::Unresolved(problem) = resolution
                && *of == kind
                && problem.is_unheard_of
            {
                unheard_of.push((reference, problem));
            }
        }
        if unheard_of.is_empty() {
            return;
        }
        let known = names::known(self, kind);
        for (reference, problem) in unheard_of.into_iter().take(MOST_COMPARED) {
            problem.suggest(&suggestion::references(reference, known.iter().map(String::as_str)));
        }
    }

    /// The kubelet fails a pod that asks for AppArmor, whatever the profile, where there is none.
    fn explain_rejected(&self, id: &PodId, pod: &Pod, checks: &mut PodChecks) {
        for container in &pod.containers {
            let reference = match &container.apparmor {
                Asked::Localhost(reference) => Some(reference.as_str()),
                Asked::RuntimeDefault => None,
                Asked::Nothing | Asked::Unconfined | Asked::Unknown(_) => continue,
            };
            checks.count(Kind::AppArmor, ReferenceState::Unresolved, 1);
            let shown = reference.unwrap_or(RUNTIME_DEFAULT);
            checks.find(id, container, Kind::AppArmor, shown, &self.rejected(reference));
        }
    }
}

/// The runtime's own profile, as annotations call it.
const RUNTIME_DEFAULT: &str = "runtime/default";

/// What becomes of each reference.
type Resolutions<'p> = BTreeMap<(Kind, &'p str), Resolution>;

impl PodChecks {
    fn add_references(&mut self, id: &PodId, pod: &Pod, resolutions: &Resolutions<'_>) {
        let mut is_decided = pod.unchecked == 0;
        for container in &pod.containers {
            for kind in Kind::ALL {
                if is_unchecked(container, kind) {
                    self.count(kind, ReferenceState::Unchecked, 1);
                    is_decided = false;
                }
            }
            for (kind, reference) in references(container) {
                let state = match resolutions.get(&(kind, reference)) {
                    Some(Resolution::Resolved) => ReferenceState::Resolved,
                    Some(Resolution::Pending) => ReferenceState::Pending,
                    Some(Resolution::Unchecked) | None => ReferenceState::Unchecked,
                    Some(Resolution::Unresolved(problem)) => {
                        self.find(id, container, kind, reference, problem);
                        ReferenceState::Unresolved
                    }
                };
                self.count(kind, state, 1);
                is_decided &= matches!(state, ReferenceState::Resolved | ReferenceState::Unresolved);
            }
        }
        if !is_decided {
            self.undecided.insert(id.clone());
        }
        if pod.unchecked > 0 {
            for kind in Kind::ALL {
                self.count(kind, ReferenceState::Unchecked, pod.unchecked);
            }
        }
    }

    fn count(&mut self, kind: Kind, state: ReferenceState, count: usize) {
        *self.references.entry((kind, state)).or_default() += count;
    }

    fn find(&mut self, id: &PodId, container: &Container, kind: Kind, reference: &str, problem: &Problem) {
        self.add(id, container, kind, reference, (problem.reason, &problem.message));
    }

    /// Adds what is found of a container, with those of its pod.
    pub(crate) fn add(
        &mut self,
        id: &PodId,
        container: &Container,
        kind: Kind,
        reference: &str,
        (reason, message): (PodReason, &str),
    ) {
        let is_of_running = |reason| reason >= PodReason::ProfileNotEnforced;
        let is_beside =
            |other: &&PodFinding| other.pod == *id && is_of_running(other.reason) == is_of_running(reason);
        if self.findings.iter().rev().take_while(is_beside).count() == MOST_FOUND {
            return;
        }
        self.findings.push(PodFinding {
            pod: id.clone(),
            container: container.name.clone(),
            container_kind: container.kind,
            kind,
            reference: reference.to_owned(),
            reason,
            message: message.to_owned(),
        });
    }
}

/// The references of a container that runtimes look at: for a privileged one they read no seccomp file.
fn references(container: &Container) -> impl Iterator<Item = (Kind, &str)> {
    let checked = Kind::ALL.into_iter().filter(|kind| !is_unchecked(container, *kind));
    checked.filter_map(|kind| Some((kind, container.localhost(kind)?)))
}

/// Whether a container asks for something that is not looked at here.
fn is_unchecked(container: &Container, kind: Kind) -> bool {
    match container.asked(kind) {
        Asked::Localhost(_) => kind == Kind::Seccomp && container.is_privileged,
        Asked::Unknown(_) => true,
        Asked::Nothing | Asked::RuntimeDefault | Asked::Unconfined => false,
    }
}
