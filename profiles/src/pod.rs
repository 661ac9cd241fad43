//! The pods of the node: which profiles their containers ask for, and which labels of ours they select on.
//!
//! Invariant: a pod counts until it is known to be gone or at its end. What a pod says is taken as it is: a
//! reference to no profile of ours harms nobody.

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

pub(crate) use spec::{ContainerSpec, LOCALHOST, Os, SecurityContext, ours};
pub use spec::{Limits, MOST, Spec, Status};

use crate::bundle::Kind;
use crate::label::LabelKey;
use crate::sight::SeccompPath;

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
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Pod {
    /// Its containers, of all kinds, in the order in which they are started: [`MOST`] at most, unless all were
    /// asked for.
    pub containers: Vec<Container>,
    /// How many containers it has beyond those, which nobody looks at.
    pub unchecked: usize,
    /// The labels of ours that the scheduler has to find on its Node (`nodeSelector`, required node
    /// affinity).
    pub selects: BTreeSet<LabelKey>,
    /// Its `runtimeClassName`: something else than the node's default runtime may run it.
    pub runtime_class: Option<String>,
    /// Whether it says that it is for Windows, where there are no such profiles (`os.name`).
    pub is_windows: bool,
    /// Whether the kubelet has failed it because the node has no AppArmor (`status.reason` is `AppArmor`).
    pub is_rejected: bool,
    /// Whether no container of it runs any more, nor will one again: it uses nothing.
    pub has_ended: bool,
}

/// What matters of a container.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
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

    /// The profile of the node that it asks for; none if it asks for another kind, or for nothing.
    #[must_use]
    pub fn localhost(&self, kind: Kind) -> Option<&str> {
        match self.asked(kind) {
            Asked::Localhost(reference) => Some(reference),
            Asked::Nothing | Asked::RuntimeDefault | Asked::Unconfined | Asked::Unknown(_) => None,
        }
    }
}

/// Which list of a pod a container is in, and how long it lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
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

impl ContainerKind {
    /// As reports have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Regular => "regular",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// What a container asks for, after the kubelet's precedence.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
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

/// Something that a pod needs on its node for as long as it has not ended.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Need {
    /// The profile that a container may be started with: its name in the kernel, or its path below the
    /// seccomp directory. However a pod writes a path, it is one.
    Profile(Kind, String),
    /// A label of the Node.
    Label(LabelKey),
}

/// The node's pods.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    /// None while they are not known.
    all: Option<BTreeMap<PodId, Pod>>,
    /// Who needs what: each plan asks that of many profiles, and there are many pods.
    needed: BTreeMap<Need, BTreeSet<Arc<PodId>>>,
}

impl Pods {
    /// These are all.
    pub(crate) fn listed(&mut self, pods: BTreeMap<PodId, Pod>) {
        self.needed.clear();
        for (id, pod) in &pods {
            self.add(id, pod.needs());
        }
        self.all = Some(pods);
    }

    /// A pod is new, or has changed. Before all are known, one says nothing. Returns whether it needs
    /// something else than before.
    pub(crate) fn applied(&mut self, id: &PodId, pod: Pod) -> bool {
        let Some(pods) = &mut self.all else { return false };
        let needs = pod.needs();
        let before = pods.insert(id.clone(), pod).map(|before| before.needs()).unwrap_or_default();
        if needs == before {
            return false;
        }
        self.remove(id, &before);
        self.add(id, needs);
        true
    }

    /// A pod is gone, or at its end. Returns whether it needed something.
    pub(crate) fn deleted(&mut self, id: &PodId) -> bool {
        let before = self.all.as_mut().and_then(|pods| pods.remove(id)).map(|before| before.needs());
        let before = before.unwrap_or_default();
        self.remove(id, &before);
        !before.is_empty()
    }

    /// Whether it is known which pods there are.
    pub(crate) fn are_known(&self) -> bool {
        self.all.is_some()
    }

    /// All of them; none while they are not known.
    pub(crate) fn all(&self) -> Option<&BTreeMap<PodId, Pod>> {
        self.all.as_ref()
    }

    /// The pods that are known to need this.
    pub(crate) fn needing(&self, need: &Need) -> impl Iterator<Item = &PodId> {
        self.needed.get(need).into_iter().flatten().map(AsRef::as_ref)
    }

    fn add(&mut self, id: &PodId, needs: BTreeSet<Need>) {
        let id = Arc::new(id.clone());
        for need in needs {
            self.needed.entry(need).or_default().insert(id.clone());
        }
    }

    fn remove(&mut self, id: &PodId, needs: &BTreeSet<Need>) {
        for need in needs {
            let Some(pods) = self.needed.get_mut(need) else { continue };
            pods.remove(id);
            if pods.is_empty() {
                self.needed.remove(need);
            }
        }
    }
}

impl Pod {
    /// What it needs: nothing, once it has ended.
    pub(crate) fn needs(&self) -> BTreeSet<Need> {
        if self.has_ended {
            return BTreeSet::new();
        }
        let profile = |kind: Kind, container: &Container| {
            let reference = container.localhost(kind)?;
            let name = match kind {
                Kind::Seccomp => SeccompPath::of(reference)?.as_str().to_owned(),
                Kind::AppArmor => reference.to_owned(),
            };
            Some(Need::Profile(kind, name))
        };
        let of_container = |one| Kind::ALL.into_iter().filter_map(move |kind| profile(kind, one));
        let profiles = self.containers.iter().flat_map(of_container);
        profiles.chain(self.selects.iter().cloned().map(Need::Label)).collect()
    }
}

/// Pods for tests.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// A pod with a container for each of these words: `a`, an AppArmor profile, or `web/a.json`, a seccomp
    /// one. `%bundle.pavise.dev/web` is a label that it selects on.
    pub(crate) fn pod(words: impl IntoIterator<Item: AsRef<str>>) -> Pod {
        let mut pod = Pod::default();
        for word in words {
            let word = word.as_ref();
            if let Some(label) = word.strip_prefix('%') {
                pod.selects.extend(LabelKey::observed(label));
                continue;
            }
            let asked = Asked::Localhost(word.to_owned());
            let (seccomp, apparmor) =
                if word.contains('/') { (asked, Asked::Nothing) } else { (Asked::Nothing, asked) };
            pod.containers.push(Container {
                name: format!("c{}", pod.containers.len()),
                kind: ContainerKind::Regular,
                is_privileged: false,
                seccomp,
                apparmor,
                running: None,
            });
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::examples::pod;
    use super::*;

    fn id(uid: &str) -> PodId {
        PodId { namespace: "ns".to_owned(), name: "p".to_owned(), uid: uid.to_owned() }
    }

    /// Claims who needs what, as `need=pods` with the pods' numbers.
    fn check(pods: &Pods, expected: &str) {
        let word = |(need, pods): (&Need, &BTreeSet<Arc<PodId>>)| {
            let need = match need {
                Need::Profile(Kind::AppArmor, name) => name.clone(),
                Need::Profile(Kind::Seccomp, path) => format!("/{path}"),
                Need::Label(label) => format!("%{label}"),
            };
            format!("{need}={}", pods.iter().map(|id| id.uid.as_str()).collect::<Vec<_>>().join(","))
        };
        let words: Vec<String> = pods.needed.iter().map(word).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn what_pods_need_is_known_from_their_list_on() {
        let mut pods = Pods::default();
        assert!(!pods.applied(&id("1"), pod(["a"])) && !pods.deleted(&id("1")) && !pods.are_known());
        check(&pods, "");
        pods.listed([(id("1"), pod(["a", "b", "x/a"])), (id("2"), pod(["b", "b"]))].into());
        assert!(pods.are_known());
        check(&pods, "a=1 b=1,2 /x/a=1");
        assert!(pods.deleted(&id("1")) && !pods.deleted(&id("1")));
        assert!(pods.applied(&id("3"), pod(["c", "%bundle.pavise.dev/web"])));
        check(&pods, "b=2 c=3 %bundle.pavise.dev/web=3");
        assert!(pods.applied(&id("3"), pod([""; 0])) && !pods.deleted(&id("3")));
        check(&pods, "b=2");
        pods.listed([].into());
        check(&pods, "");
    }

    #[test]
    fn what_is_no_news_of_needs_is_told_apart() {
        let mut pods = Pods::default();
        pods.listed([(id("1"), pod(["a"]))].into());
        let mut running = pod(["a"]);
        running.containers[0].running = Some(ContainerId("c1".to_owned()));
        assert!(!pods.applied(&id("1"), running.clone()) && !pods.applied(&id("2"), pod([""; 0])));
        running.has_ended = true;
        assert!(pods.applied(&id("1"), running));
        check(&pods, "");
    }

    #[test]
    fn a_seccomp_profile_is_needed_at_the_place_that_a_reference_means() {
        let mut pods = Pods::default();
        let odd = ["web//a", "./web/a", "web/a/", "/web/a", "../web/a", "web/../x", "./"];
        pods.listed(odd.iter().map(|reference| (id(reference), pod([reference]))).collect());
        check(&pods, "/web/a=./web/a,web//a,web/a/");
    }
}
