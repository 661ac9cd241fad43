//! What is to be done about AppArmor texts and names.
//!
//! Each name is to be of one text: the one that the bundle wants which has the name, if that is accepted; or
//! else the one that the ledger has, until the name goes. A text is one blob, which the kernel takes as a
//! whole: it is loaded when a name that is to be of it is not, and only if *all* its names are to be of it.
//! So no name is taken from its owner, not even for a moment. What can't be loaded for that reason stays as
//! it is, and counts as a problem where it is missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::apparmor::kernel::Load;
use crate::apparmor::name::ProfileName;
use crate::bundle::BundleId;
use crate::claims::{Grant, Slot, Want};
use crate::digest::Digest;
use crate::label::LabelKey;
use crate::plan::{Compile, Plan, Standing, Standings, Tally};
use crate::policies::{Verdict, bundle_label};
use crate::policy::{KernelProfile, Owned};
use crate::state::State;
use crate::time::Time;

/// What is to be under a name: the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Desired {
    pub(crate) text: Digest,
    /// What was made of it; none if it has to be compiled anew.
    pub(crate) blob: Option<Digest>,
}

/// What is to be under each name.
type AllDesired<'a> = BTreeMap<&'a ProfileName, Desired>;

impl State {
    /// What is to be under `name` at `now`; none if nothing is, or if it is to go.
    pub(crate) fn desired(&self, name: &ProfileName, profile: &KernelProfile, now: Time) -> Option<Desired> {
        if let Some(Want::Text(text)) = profile.want()
            && let Some(policy) = self.policies.accepted(text)
        {
            return Some(Desired { text, blob: Some(policy.blob) });
        }
        let Owned { text, blob, is_current } = profile.owned?;
        if self.is_going(name, profile, now) {
            return None;
        }
        let accepted = self.policies.accepted(text).map(|policy| policy.blob);
        Some(Desired { text, blob: accepted.or(is_current.then_some(blob)) })
    }

    fn all_desired(&self, now: Time) -> AllDesired<'_> {
        let all = self.policies.profiles.iter();
        all.filter_map(|(name, profile)| Some((name, self.desired(name, profile, now)?))).collect()
    }

    /// When `profile` is to go, if no pod needs it then: none if it is to stay, or if that is not known.
    pub(crate) fn policy_due(&self, profile: &KernelProfile) -> Option<Time> {
        let since = self.policies.unclaimed_since(profile)?;
        Some(since.max(self.all_known_since()?) + self.config.removal_delay)
    }

    /// Whether `profile` is to go now.
    fn is_going(&self, name: &ProfileName, profile: &KernelProfile, now: Time) -> bool {
        self.policy_due(profile).is_some_and(|due| due <= now) && self.is_policy_free(name, profile)
    }

    pub(super) fn plan_policies(&self, standings: &Standings, now: Time, plan: &mut Plan) {
        let desired = self.all_desired(now);
        self.plan_compiling(&desired, now, plan);
        self.plan_loads(&desired, now, plan);
        for (name, profile) in self.policies.profiles.iter().filter(|(_, profile)| profile.is_owned) {
            self.plan_unload(name, profile, standings, now, plan);
        }
    }

    /// What bundles want, and what the host has only for another kernel or compiler.
    fn plan_compiling(&self, desired: &AllDesired<'_>, now: Time, plan: &mut Plan) {
        let mut wanted: BTreeMap<Digest, Compile> = BTreeMap::new();
        for (slot, grant) in &self.policies.grants {
            let Some(document) = grant.document() else { continue };
            let (text, names) = (document.digest(), document.names().clone());
            let of_bundle = || {
                let document = Some(document.clone());
                Compile { text, document, names, bundles: BTreeSet::new() }
            };
            let compile = wanted.entry(text).or_insert_with(of_bundle);
            compile.bundles.insert(slot.bundle.clone());
        }
        for (name, Desired { text, .. }) in desired.iter().filter(|(_, desired)| desired.blob.is_none()) {
            let of_host = || {
                let (names, bundles) = (BTreeSet::new(), BTreeSet::new());
                Compile { text: *text, document: None, names, bundles }
            };
            let compile = wanted.entry(*text).or_insert_with(of_host);
            compile.names.insert((*name).clone());
        }
        for (text, compile) in wanted {
            let Some(known) = self.policies.texts.get(&text) else { continue };
            if !matches!(known.verdict, Verdict::Pending) {
                continue;
            }
            match known.retry.blocked_until(now) {
                Some(later) => plan.wake(later),
                None => plan.compile.push(compile),
            }
        }
    }

    fn plan_loads(&self, desired: &AllDesired<'_>, now: Time, plan: &mut Plan) {
        for load in self.missing(desired) {
            if !is_clean(&load, desired) {
                continue;
            }
            let of_name = |name| self.policies.profiles.get(name)?.pace.blocked_until(now);
            match load.names.iter().filter_map(of_name).max() {
                Some(later) => plan.wake(later),
                None => plan.load.push(load),
            }
        }
    }

    /// The texts of which some name is not in the kernel as it is to be, with all that is in them.
    fn missing(&self, desired: &AllDesired<'_>) -> Vec<Load> {
        let mut loads: BTreeMap<Digest, Load> = BTreeMap::new();
        for (name, Desired { text, blob }) in desired {
            let Some(blob) = *blob else { continue };
            if self.policies.profiles.get(*name).is_none_or(|profile| profile.holds(blob)) {
                continue;
            }
            loads.entry(*text).or_insert_with(|| Load { text: *text, names: self.names_of(*text) });
        }
        loads.into_values().collect()
    }

    /// All names of `text`, as far as is known.
    fn names_of(&self, text: Digest) -> BTreeSet<ProfileName> {
        if let Some(policy) = self.policies.accepted(text) {
            return policy.profiles.keys().cloned().collect();
        }
        let all = self.policies.profiles.iter();
        let of_text = all.filter(|(_, profile)| profile.owned.is_some_and(|owned| owned.text == text));
        of_text.map(|(name, _)| name.clone()).collect()
    }

    /// The names that bundles have and that are not in the kernel, though there is something to be loaded:
    /// the host's last word on it was a failure, or it would take a name from its owner.
    pub(crate) fn unloaded(&self, now: Time) -> BTreeSet<&ProfileName> {
        let desired = self.all_desired(now);
        let missing = self.missing(&desired);
        let unclean = missing.iter().filter(|load| !is_clean(load, &desired)).flat_map(|load| {
            let is_of = |(_, one): &(&&ProfileName, &Desired)| one.text == load.text;
            desired.iter().filter(is_of).map(|(name, _)| *name).collect::<Vec<_>>()
        });
        let failing = self.failing(now);
        unclean.chain(failing).filter(|name| self.is_claimed(name)).collect()
    }

    /// Those of them of which the last attempt to load them failed.
    pub(crate) fn failing(&self, now: Time) -> BTreeSet<&ProfileName> {
        let is_failing = |(name, profile): &(&ProfileName, &KernelProfile)| {
            profile.pace.is_failing && self.desired(name, profile, now).is_some() && self.is_claimed(name)
        };
        let all = self.policies.profiles.iter();
        all.filter(is_failing).map(|(name, _)| name).collect()
    }

    fn plan_unload(
        &self,
        name: &ProfileName,
        profile: &KernelProfile,
        standings: &Standings,
        now: Time,
        plan: &mut Plan,
    ) {
        let Some(due) = self.policy_due(profile) else { return };
        if due > now {
            plan.wake(due);
            return;
        }
        let must_go_first = |label| self.is_going_first(label, standings);
        if !self.is_going(name, profile, now) {
            // Pods need it: their end is an event.
        } else if let Some(later) = profile.pace.blocked_until(now) {
            plan.wake(later);
        } else if !must_go_first(&profile.label) && !profile.bundle_label().is_some_and(must_go_first) {
            plan.unload.push(name.clone());
        }
    }

    /// What becomes of the labels of AppArmor profiles, and what their bundles' labels depend on.
    pub(super) fn policy_standings(
        &self,
        of_profiles: &BTreeMap<&BundleId, Standing>,
        now: Time,
        standings: &mut Standings,
        bundles: &mut BTreeMap<LabelKey, Tally>,
    ) {
        for (name, profile) in &self.policies.profiles {
            let stays = profile.is_loaded() && !self.is_going(name, profile, now);
            let standing = match (stays, profile.slot()) {
                (false, _) => Standing::Down,
                (true, None) => Standing::Kept,
                (true, Some(slot)) => match of_profiles.get(&slot.bundle) {
                    Some(standing) => *standing,
                    None => continue,
                },
            };
            let lowest = standings.entry(profile.label.clone()).or_insert(standing);
            *lowest = standing.min(*lowest);
        }
        for profile in self.policies.profiles.values().filter(|profile| !profile.is_claimed()) {
            let Some(label) = profile.bundle_label() else { continue };
            let stays = standings.get(&profile.label) != Some(&Standing::Down);
            bundles.entry(label.clone()).or_default().count(false, stays);
        }
        for (slot, grant) in &self.policies.grants {
            let label = bundle_label(&self.config.home, &slot.bundle);
            let standing = match self.standing_of_slot(slot, grant) {
                // An older bundle may still come that has a name of it.
                Standing::Up if !self.policies.is_complete => Standing::Kept,
                standing => standing,
            };
            bundles.entry(label).or_default().count_as(standing);
        }
    }

    /// What one key says about the label of its bundle. A text that was not accepted, or not yet, does not
    /// count: the version before it does, if that is known.
    fn standing_of_slot(&self, slot: &Slot, grant: &Grant) -> Standing {
        let is_loaded =
            |name: &ProfileName| self.policies.profiles.get(name).is_some_and(KernelProfile::is_loaded);
        let has = |name: &&ProfileName| {
            self.policies.profiles.get(*name).and_then(KernelProfile::slot) == Some(slot)
        };
        if let Some(held) = self.policies.held(slot) {
            let is_all_there = held.iter().all(|name| has(&name) && is_loaded(name));
            return if is_all_there && !held.is_empty() { Standing::Up } else { Standing::Down };
        }
        let is_pending = grant.document().is_some_and(|document| self.policies.is_pending(document.digest()));
        let all = self.policies.profiles.iter();
        let is_its_own =
            |name, profile: &KernelProfile| profile.is_owned && (has(&name) || !profile.is_traced());
        let mut may_be_its_own = all.filter(|(name, profile)| is_its_own(name, profile)).peekable();
        // After a reboot, the ledger can have profiles of which the kernel has none.
        let is_new = is_pending && may_be_its_own.peek().is_none();
        if is_new || may_be_its_own.any(|(_, profile)| profile.is_loaded()) {
            Standing::Kept
        } else {
            Standing::Down
        }
    }
}

/// Whether loading takes no name from its owner.
fn is_clean(load: &Load, desired: &AllDesired<'_>) -> bool {
    load.names.iter().all(|name| desired.get(name).is_some_and(|desired| desired.text == load.text))
}
