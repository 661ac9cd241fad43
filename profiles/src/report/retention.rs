//! Which profiles are loaded though no bundle asks for them, and why.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::MOST_PODS;
use super::{Retained, RetainedBy};
use crate::bundle::Kind;
use crate::pod::PodId;
use crate::state::State;
use crate::time::Time;

impl State {
    pub(super) fn reported_retained(&self, now: Time, clock: &str) -> Vec<Retained> {
        let pods = self.pods_that_retain(now);
        let retained = |kind: Kind, reference: String, due: Option<Time>, is_in_use: bool| {
            let pods = pods.get(&(kind, reference.clone())).cloned().unwrap_or_default();
            let by = match due {
                None => RetainedBy::Bundles,
                Some(due) if due > now => RetainedBy::RemovalDelay,
                Some(_) if !pods.is_empty() => RetainedBy::Pods,
                Some(_) if is_in_use => RetainedBy::Processes,
                Some(_) => RetainedBy::Removal,
            };
            Retained { kind: kind.to_string(), reference, by, pods, since: clock.to_owned() }
        };
        let policies = self.policies.profiles.iter();
        let policies = policies.filter(|(_, profile)| profile.is_loaded() && !profile.is_claimed());
        let policies = policies.map(|(name, profile)| {
            retained(Kind::AppArmor, name.to_string(), self.policy_due(profile), profile.is_in_use())
        });
        let files = self.files.iter().filter(|(_, file)| file.is_loaded() && !file.is_wanted());
        let files = files.map(|(reference, file)| {
            retained(Kind::Seccomp, reference.to_string(), self.removal_due(reference, file), false)
        });
        policies.chain(files).collect()
    }

    /// Some of the pods that retain each profile.
    fn pods_that_retain(&self, now: Time) -> BTreeMap<(Kind, String), Vec<String>> {
        let all = self.retained_by_pods(now).into_iter();
        let named =
            |pods: BTreeSet<&PodId>| pods.into_iter().take(MOST_PODS).map(ToString::to_string).collect();
        all.map(|retained| ((retained.kind, retained.reference), named(retained.pods))).collect()
    }
}
