//! What stays because pods of the node need it.
//!
//! A profile is needed by the pods that refer to it, which start their containers anew, and by those that
//! select on its label or that of its bundle. A label is needed by those that select on it, whatever has
//! become of the profile: a kubelet that is restarted fails such a pod with `NodeAffinity` if the label is
//! gone (`generalFilter` in Kubernetes' pkg/kubelet/lifecycle/predicate.go, unless the feature gate
//! `NotEvictPodOnKubeletRestart` is on), and the DaemonSet controller deletes one of its own at once
//! (`NodeShouldRunDaemonPod` in `pkg/controller/daemon/daemon_controller.go`).
//!
//! Invariant: where there is a Node, all is needed until its pods are known.

use std::collections::BTreeSet;

use crate::apparmor::name::ProfileName;
use crate::bundle::Kind;
use crate::file::File;
use crate::label::LabelKey;
use crate::pod::{Need, PodId};
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::state::State;
use crate::time::Time;

/// A profile that would go if no pod needed it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retained<'a> {
    /// What it is.
    pub kind: Kind,
    /// What pods refer to it by.
    pub reference: String,
    /// The pods that refer to it, or select on its label or that of its bundle.
    pub pods: BTreeSet<&'a PodId>,
}

impl State {
    /// The profiles that would go at `now` if no pod needed them.
    #[must_use]
    pub fn retained_by_pods(&self, now: Time) -> Vec<Retained<'_>> {
        let is_due = |due: Option<Time>| due.is_some_and(|due| due <= now);
        let files = self.files.iter().filter(|(_, file)| file.is_owned);
        let files = files.filter(|(reference, file)| is_due(self.removal_due(reference, file)));
        let files = files.map(|(reference, file)| {
            self.retained(Kind::Seccomp, reference.to_string(), needs_of_file(reference, file))
        });
        let policies = self.policies.profiles.iter().filter(|(_, profile)| profile.is_owned);
        let policies = policies.filter(|(_, profile)| is_due(self.policy_due(profile)));
        let policies = policies.map(|(name, profile)| {
            self.retained(Kind::AppArmor, name.to_string(), needs_of_policy(name, profile))
        });
        files.chain(policies).filter(|retained| !retained.pods.is_empty()).collect()
    }

    fn retained(&self, kind: Kind, reference: String, needs: impl IntoIterator<Item = Need>) -> Retained<'_> {
        let pods = needs.into_iter().flat_map(|need| self.pods.needing(&need).collect::<Vec<_>>());
        Retained { kind, reference, pods: pods.collect() }
    }

    /// Whether no pod needs `file`.
    pub(super) fn is_file_free(&self, reference: &Reference, file: &File) -> bool {
        self.are_free(needs_of_file(reference, file))
    }

    /// Whether no pod needs `profile`.
    pub(super) fn is_policy_free(&self, name: &ProfileName, profile: &KernelProfile) -> bool {
        self.are_free(needs_of_policy(name, profile))
    }

    /// Whether no pod needs `label`.
    pub(super) fn is_label_free(&self, label: &LabelKey) -> bool {
        self.are_free([Need::Label(label.clone())])
    }

    fn are_free(&self, needs: impl IntoIterator<Item = Need>) -> bool {
        let is_free = |need| self.pods.needing(&need).next().is_none();
        !self.config.has_node() || self.pods.are_known() && needs.into_iter().all(is_free)
    }
}

/// How a pod can need `file`.
fn needs_of_file(reference: &Reference, file: &File) -> impl Iterator<Item = Need> {
    let labels = [&file.label, &file.bundle_label].into_iter().cloned().map(Need::Label);
    std::iter::once(Need::Profile(Kind::Seccomp, reference.to_string())).chain(labels)
}

/// How a pod can need `profile`. Which bundle had it is not known if that went before the agent started.
fn needs_of_policy(name: &ProfileName, profile: &KernelProfile) -> impl Iterator<Item = Need> {
    let labels = std::iter::once(&profile.label).chain(profile.bundle_label()).cloned().map(Need::Label);
    std::iter::once(Need::Profile(Kind::AppArmor, name.to_string())).chain(labels)
}
