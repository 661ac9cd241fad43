//! The pods of the node: which profiles their containers ask for, and which labels of ours they select on.
//!
//! Invariant: a pod counts until it is known to be gone or at its end. What a pod says is taken as it is: a
//! reference to no profile of ours harms nobody.

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use spec::{MOST, Spec, Status};

use crate::bundle::Kind;
use crate::label::LabelKey;

/// Which pod. Written `<namespace>/<name>`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What tells it from an earlier pod of that name.
    pub uid: String,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What matters of one pod.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pod {
    /// Its containers, [`MOST`] at most, of all kinds.
    pub containers: Vec<Container>,
    /// How many containers it has beyond those, which nobody looks at.
    pub unchecked: usize,
    /// The labels of ours that the scheduler has to find on its Node (`nodeSelector`, required node affinity).
    pub selects: BTreeSet<LabelKey>,
    /// Its `runtimeClassName`: something else than the node's default runtime may run it.
    pub runtime_class: Option<String>,
    /// Whether the kubelet has failed it because the node has no AppArmor (`status.reason` is `AppArmor`).
    pub is_rejected: bool,
    /// Whether no container of it runs any more, nor will one again: it uses nothing.
    pub has_ended: bool,
}

/// What matters of a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Container {
    /// Its name, which no other container of the pod has.
    pub name: String,
    /// Which list of the pod it is in.
    pub kind: ContainerKind,
    /// Whether it is privileged: runtimes start such a container without a seccomp filter.
    pub is_privileged: bool,
    /// Its seccomp profile: its own, or the pod's.
    pub seccomp: Asked,
    /// Its AppArmor profile: its own, that of the annotation, or the pod's.
    pub apparmor: Asked,
    /// As which container of the runtime it runs now; none if it does not.
    pub running: Option<ContainerId>,
}

impl Container {
    /// What it asks for.
    #[must_use]
    pub fn asked(&self, kind: Kind) -> &Asked {
        match kind {
            Kind::Seccomp => &self.seccomp,
            Kind::AppArmor => &self.apparmor,
        }
    }
}

/// Which list of a pod a container is in, and how long it lives.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ContainerKind {
    /// One of `initContainers`, which ends before the others start.
    Init,
    /// One of `initContainers` with `restartPolicy: Always` (KEP-753).
    Sidecar,
    /// One of `containers`.
    Regular,
    /// One of `ephemeralContainers` (KEP-277).
    Ephemeral,
}

/// What a container asks for, after the kubelet's precedence.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Asked {
    /// Nothing is said: the kubelet's default (seccomp), or the runtime's (AppArmor).
    #[default]
    Nothing,
    /// The runtime's own profile.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// The profile of the node that this `localhostProfile` names. Empty if the pod names none.
    Localhost(String),
    /// A type that this agent does not know.
    Unknown(String),
}

/// The runtime's name of a container, without the name of the runtime: 64 hex digits, as a rule.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContainerId(pub String);

/// The node's pods.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    /// None while they are not known.
    all: Option<BTreeMap<PodId, Pod>>,
}

impl Pods {
    /// These are all.
    pub(crate) fn listed(&mut self, pods: BTreeMap<PodId, Pod>) {
        self.all = Some(pods);
    }

    /// A pod is new, or has changed. Before all are known, one says nothing.
    pub(crate) fn applied(&mut self, id: PodId, pod: Pod) {
        let Some(pods) = &mut self.all else { return };
        pods.insert(id, pod);
    }

    /// A pod is gone, or at its end.
    pub(crate) fn deleted(&mut self, id: &PodId) {
        let Some(pods) = &mut self.all else { return };
        pods.remove(id);
    }

    /// Whether it is known which there are.
    pub(crate) fn are_known(&self) -> bool {
        self.all.is_some()
    }

    /// The pods that are known to refer to the AppArmor profile `name`.
    pub(crate) fn referring_to<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a PodId> {
        let pods = self.all.iter().flatten();
        pods.filter(move |(_, pod)| pod.refers_to(Kind::AppArmor, name)).map(|(id, _)| id)
    }

    /// Whether a pod refers to the AppArmor profile `name`; none if that is not known.
    pub(crate) fn refer_to(&self, name: &str) -> Option<bool> {
        Some(self.all.as_ref()?.values().any(|pod| pod.refers_to(Kind::AppArmor, name)))
    }
}

impl Pod {
    /// Whether a container of it may be started with the profile `reference`.
    #[must_use]
    pub fn refers_to(&self, kind: Kind, reference: &str) -> bool {
        let asks = |container: &Container| matches!(container.asked(kind), Asked::Localhost(asked) if asked == reference);
        !self.has_ended && self.containers.iter().any(asks)
    }
}

/// Pods for tests.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// A pod with a container for each of these AppArmor profiles.
    pub(crate) fn with_apparmor(references: impl IntoIterator<Item: AsRef<str>>) -> Pod {
        let container = |(index, reference)| Container {
            name: format!("c{index}"),
            kind: ContainerKind::Regular,
            is_privileged: false,
            seccomp: Asked::Nothing,
            apparmor: Asked::Localhost(reference),
            running: None,
        };
        let references = references.into_iter().map(|reference| reference.as_ref().to_owned());
        Pod { containers: references.enumerate().map(container).collect(), ..Pod::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::examples::with_apparmor;
    use super::*;

    #[test]
    fn what_pods_refer_to_is_known_from_their_list_on() {
        let id = |uid: &str| PodId { namespace: "ns".to_owned(), name: "p".to_owned(), uid: uid.to_owned() };
        let referred = |pods: &Pods| {
            let all: Option<Vec<&str>> = ["a", "b", "c"]
                .into_iter()
                .map(|name| Some(pods.refer_to(name)?.then_some(name)))
                .collect::<Option<Vec<_>>>()
                .map(|all| all.into_iter().flatten().collect());
            all.map(|all| all.join(" "))
        };
        let mut pods = Pods::default();
        pods.applied(id("1"), with_apparmor(["a"]));
        assert_eq!(referred(&pods), None);
        pods.listed([(id("1"), with_apparmor(["a", "b"])), (id("2"), with_apparmor(["b"]))].into());
        assert_eq!(referred(&pods).as_deref(), Some("a b"));
        pods.deleted(&id("1"));
        pods.applied(id("3"), with_apparmor(["c"]));
        assert_eq!(referred(&pods).as_deref(), Some("b c"));
        pods.applied(id("3"), with_apparmor([""; 0]));
        pods.listed([].into());
        assert_eq!(referred(&pods).as_deref(), Some(""));
    }
}
