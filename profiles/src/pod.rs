//! The pods of the node: which AppArmor profiles they refer to.
//!
//! Invariant: a pod counts until it is known to be gone or at its end. What a pod says is taken as it is: a
//! reference to no profile of ours harms nobody.

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use spec::{MOST, Spec, Status, apparmor_references};

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

/// The references of the node's pods.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    /// None while they are not known.
    references: Option<BTreeMap<PodId, BTreeSet<String>>>,
}

impl Pods {
    /// These are all.
    pub(crate) fn listed(&mut self, pods: BTreeMap<PodId, BTreeSet<String>>) {
        self.references = Some(pods);
    }

    /// A pod is new, or has changed. Before all are known, one says nothing.
    pub(crate) fn applied(&mut self, id: PodId, references: BTreeSet<String>) {
        let Some(pods) = &mut self.references else { return };
        pods.insert(id, references);
    }

    /// A pod is gone, or at its end.
    pub(crate) fn deleted(&mut self, id: &PodId) {
        let Some(pods) = &mut self.references else { return };
        pods.remove(id);
    }

    /// The pods that are known to refer to the profile `name`.
    pub(crate) fn referring_to<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a PodId> {
        let pods = self.references.iter().flatten();
        pods.filter(move |(_, references)| references.contains(name)).map(|(id, _)| id)
    }

    /// Whether a pod refers to the profile `name`; none if that is not known.
    pub(crate) fn refer_to(&self, name: &str) -> Option<bool> {
        Some(self.references.as_ref()?.values().any(|references| references.contains(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_refer_to_is_known_from_their_list_on() {
        let id = |uid: &str| PodId { namespace: "ns".to_owned(), name: "p".to_owned(), uid: uid.to_owned() };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let referred = |pods: &Pods| {
            let all: Option<Vec<&str>> = ["a", "b", "c"]
                .into_iter()
                .map(|name| Some(pods.refer_to(name)?.then_some(name)))
                .collect::<Option<Vec<_>>>()
                .map(|all| all.into_iter().flatten().collect());
            all.map(|all| all.join(" "))
        };
        let mut pods = Pods::default();
        pods.applied(id("1"), names(&["a"]));
        assert_eq!(referred(&pods), None);
        pods.listed([(id("1"), names(&["a", "b"])), (id("2"), names(&["b"]))].into());
        assert_eq!(referred(&pods).as_deref(), Some("a b"));
        pods.deleted(&id("1"));
        pods.applied(id("3"), names(&["c"]));
        assert_eq!(referred(&pods).as_deref(), Some("b c"));
        pods.applied(id("3"), names(&[]));
        pods.listed([].into());
        assert_eq!(referred(&pods).as_deref(), Some(""));
    }
}
