//! All AppArmor texts and names: what is known of them, and how events change it.
//!
//! Invariant: a verdict is kept while a bundle for this node, or the ledger, has its text, and no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::apparmor::kernel::FoundPolicy;
use crate::apparmor::name::ProfileName;
use crate::apparmor::policy::Policy;
use crate::bundle::{Bundle, BundleId, Kind, Profile};
use crate::claims::{Claims, Grant, Slot};
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::label::LabelKey;
use crate::name::Namespace;
use crate::policy::KernelProfile;
use crate::state::{Compiled, State};
use crate::time::{Retry, Time};

/// What is known of texts and names.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// Whether it is known what the ledger and the kernel have.
    pub(crate) is_scanned: bool,
    /// Every name that a bundle has, or the ledger.
    pub(crate) profiles: BTreeMap<ProfileName, KernelProfile>,
    /// Every text that a bundle for this node has, or the ledger.
    pub(crate) texts: BTreeMap<Digest, Text>,
    /// What each key of the bundles for this node gets.
    pub(crate) grants: BTreeMap<Slot, Grant>,
    held: BTreeMap<Slot, BTreeSet<ProfileName>>,
    /// Whether all is known that could ask for something.
    pub(crate) is_complete: bool,
    /// Whether there is a bundle of which nothing can be told, not even what it asked for before.
    has_unreadable: bool,
}

/// What compiling a text came to.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) verdict: Verdict,
    /// When to compile it again, if that failed.
    pub(crate) retry: Retry,
    /// Whether it failed the last time.
    pub(crate) is_failing: bool,
}

/// The verdict of compiler and blob reader.
#[derive(Clone, Debug, Default)]
pub(crate) enum Verdict {
    /// None yet.
    #[default]
    Pending,
    /// It is being compiled.
    Compiling,
    /// It may be loaded, in spite of these warnings.
    Accepted(Arc<Policy>, Arc<[Diagnostic]>),
    /// It must not be loaded, for these reasons.
    Refused(Arc<[Diagnostic]>),
}

impl Text {
    /// Whether it has yet to be compiled for the first time.
    fn is_pending(&self) -> bool {
        matches!(self.verdict, Verdict::Pending | Verdict::Compiling) && !self.is_failing
    }
}

impl Policies {
    /// What `slot` had with its last accepted text, if that is known.
    pub(crate) fn held(&self, slot: &Slot) -> Option<&BTreeSet<ProfileName>> {
        self.held.get(slot)
    }

    /// The text of which the ledger says that `name` is.
    pub(crate) fn owned_text(&self, name: &ProfileName) -> Option<Digest> {
        Some(self.profiles.get(name)?.owned?.text)
    }

    /// What was made of `text`, if it is accepted.
    pub(crate) fn accepted(&self, text: Digest) -> Option<&Policy> {
        match &self.texts.get(&text)?.verdict {
            Verdict::Accepted(policy, _) => Some(policy),
            Verdict::Pending | Verdict::Compiling | Verdict::Refused(_) => None,
        }
    }

    pub(crate) fn is_accepted(&self, text: Digest) -> bool {
        self.accepted(text).is_some()
    }

    /// Whether `text` has yet to be compiled for the first time.
    pub(crate) fn is_pending(&self, text: Digest) -> bool {
        self.texts.get(&text).is_none_or(Text::is_pending)
    }

    /// Whether compiling `text` failed, which is not its fault.
    pub(crate) fn is_failing(&self, text: Digest) -> bool {
        self.texts.get(&text).is_some_and(|text| text.is_failing)
    }

    /// Whether the compiler refuses `text`.
    pub(crate) fn is_refused(&self, text: Digest) -> bool {
        self.texts.get(&text).is_some_and(|text| matches!(text.verdict, Verdict::Refused(_)))
    }

    /// What the compiler has to say about `text`.
    pub(crate) fn diagnostics(&self, text: Digest) -> &[Diagnostic] {
        match self.texts.get(&text).map(|text| &text.verdict) {
            Some(Verdict::Accepted(_, diagnostics) | Verdict::Refused(diagnostics)) => diagnostics,
            Some(Verdict::Pending | Verdict::Compiling) | None => &[],
        }
    }

    /// Whether there is a key of which it is not known what it had before: then it may be any of the names
    /// that the ledger has, and that no key has had since the start.
    pub(crate) fn is_past_unknown(&self) -> bool {
        self.has_unreadable || self.grants.keys().any(|slot| !self.held.contains_key(slot))
    }

    /// Whether a bundle has this name, or may have it.
    pub(crate) fn may_be_claimed(&self, profile: &KernelProfile) -> bool {
        profile.is_claimed() || !profile.is_traced() && self.is_past_unknown()
    }

    /// Since when no bundle can have this name; none if one may.
    pub(crate) fn unclaimed_since(&self, profile: &KernelProfile) -> Option<Time> {
        profile.unclaimed_since().filter(|_| !self.may_be_claimed(profile))
    }

    fn scanned(&mut self, mut found: BTreeMap<ProfileName, FoundPolicy>, now: Time) {
        for (name, profile) in &mut self.profiles {
            profile.scanned(found.remove(name), now);
        }
        for (name, found) in found {
            self.profile(&name, now).scanned(Some(found), now);
        }
        // What was compiled, and the host has lost, is to be compiled again.
        for owned in self.profiles.values().filter_map(|profile| profile.owned) {
            let is_lost = |text: &&mut Text| match &text.verdict {
                Verdict::Accepted(policy, _) => policy.blob == owned.blob && !owned.is_current,
                _ => false,
            };
            if let Some(text) = self.texts.get_mut(&owned.text).filter(is_lost) {
                text.verdict = Verdict::Pending;
            }
        }
        self.is_scanned = true;
    }

    fn profile(&mut self, name: &ProfileName, now: Time) -> &mut KernelProfile {
        self.profiles.entry(name.clone()).or_insert_with(|| KernelProfile::new(name, now))
    }

    /// Changes what is known of `name`, if anything is.
    pub(crate) fn update(&mut self, name: &ProfileName, change: impl FnOnce(&mut KernelProfile)) {
        let Some(profile) = self.profiles.get_mut(name) else { return };
        change(profile);
        if profile.is_forgettable() {
            self.profiles.remove(name);
        }
    }

    /// The compiler has begun with `text`.
    pub(crate) fn compiling(&mut self, text: Digest) {
        if let Some(text) = self.texts.get_mut(&text).filter(|text| matches!(text.verdict, Verdict::Pending))
        {
            text.verdict = Verdict::Compiling;
        }
    }

    fn compiled(&mut self, text: Digest, outcome: Compiled, now: Time) {
        let Some(text) = self.texts.get_mut(&text) else { return };
        text.is_failing = false;
        text.verdict = match outcome {
            Compiled::Accepted(policy, warnings) => Verdict::Accepted(policy.into(), warnings),
            Compiled::Refused(findings) => Verdict::Refused(findings),
            Compiled::Failed => {
                text.is_failing = true;
                text.retry.failed(now);
                Verdict::Pending
            }
        };
    }

    /// Each key that was granted `text`, if that is accepted now, has its names from now on. So many texts
    /// can be compiled one by one without finding out each time who has what. False if that has to be found
    /// out: a key has names besides, which others may wait for.
    fn hold(&mut self, text: Digest) -> bool {
        let is_accepted = self.is_accepted(text);
        for (slot, grant) in &self.grants {
            let Some(document) = grant.document().filter(|document| document.digest() == text) else {
                continue;
            };
            if self.held(slot).is_some_and(|held| !held.is_subset(document.names())) {
                return false;
            }
            if is_accepted && matches!(grant, Grant::Granted(_)) {
                self.held.insert(slot.clone(), document.names().clone());
            }
        }
        true
    }

    /// If it has become known what each key had before, what nobody has goes after the delay, from now on.
    fn past_is_known(&mut self, was_unknown: bool, now: Time) {
        if was_unknown && !self.is_past_unknown() {
            let untraced = self.profiles.values_mut().filter(|profile| !profile.is_traced());
            untraced.for_each(|profile| profile.delay_removal(now));
        }
    }

    /// Pods have come or gone.
    pub(crate) fn pods_changed(&mut self) {
        self.profiles.values_mut().for_each(KernelProfile::pods_changed);
    }

    /// Takes over who has what.
    fn claimed(
        &mut self,
        claims: Claims,
        bundles: &[(&Bundle, Option<bool>)],
        label: impl Fn(&BundleId) -> LabelKey,
        now: Time,
    ) {
        let was_past_unknown = self.is_past_unknown();
        for (name, profile) in &mut self.profiles {
            if !claims.names.contains_key(name) {
                profile.unclaim(now);
            }
        }
        for (name, claim) in claims.names {
            let label = label(&claim.slot.bundle);
            self.profile(&name, now).claim(claim.slot, label, claim.want, now);
        }
        self.grants = claims.grants;
        self.held = claims.held;
        self.has_unreadable =
            bundles.iter().any(|(bundle, _)| !bundle.is_readable() && bundle.profiles.is_empty());
        self.past_is_known(was_past_unknown, now);
        self.profiles.retain(|_, profile| !profile.is_forgettable());

        let published = bundles.iter().flat_map(|(bundle, _)| bundle.profiles.values());
        let published = published.filter_map(|profile| match profile {
            Profile::Accepted(document, _) => Some(document.digest()),
            Profile::Refused(_) => None,
        });
        let owned = self.profiles.values().filter_map(|profile| Some(profile.owned?.text));
        let texts: BTreeSet<Digest> = published.chain(owned).collect();
        self.texts.retain(|text, _| texts.contains(text));
        for text in texts {
            self.texts.entry(text).or_default();
        }
    }
}

impl State {
    /// The bundles of AppArmor texts that are for this node, or may be, the oldest first.
    fn apparmor_bundles(&self) -> Vec<(&Bundle, Option<bool>)> {
        let all = self.bundles_here().filter(|bundle| bundle.kind == Some(Kind::AppArmor));
        let mut all: Vec<_> = all.map(|bundle| (bundle, self.is_here(bundle))).collect();
        all.sort_by_key(|(bundle, _)| bundle.seniority());
        all
    }

    /// Finds out anew who has which name. To be called whenever that may have changed.
    pub(crate) fn reclaim(&mut self, now: Time) {
        if !self.config.has_apparmor() {
            return;
        }
        let mut policies = std::mem::take(&mut self.policies);
        let bundles = self.apparmor_bundles();
        let is_decided =
            |(bundle, is_here): &(&Bundle, Option<bool>)| is_here.is_some() || bundle.nodes.is_none();
        let is_complete = self.is_all_listed() && bundles.iter().all(is_decided);
        let claims = Claims::of(&bundles, &policies, is_complete);
        policies.is_complete = is_complete;
        policies.claimed(claims, &bundles, |bundle| bundle_label(&self.config.home, bundle), now);
        self.policies = policies;
    }

    /// Takes over what the ledger and the kernel have.
    pub(crate) fn policy_scanned(&mut self, found: BTreeMap<ProfileName, FoundPolicy>, now: Time) {
        self.policies.scanned(found, now);
        self.known.policies.clear();
        self.reclaim(now);
    }

    /// Takes over what compiling `text` came to.
    pub(crate) fn compiled(&mut self, text: Digest, outcome: Compiled, now: Time) {
        let was_past_unknown = self.policies.is_past_unknown();
        self.policies.compiled(text, outcome, now);
        if self.policies.hold(text) {
            self.policies.past_is_known(was_past_unknown, now);
        } else {
            self.reclaim(now);
        }
    }

    /// Whether a bundle for this node, or the ledger, has the AppArmor text of this digest.
    #[must_use]
    pub fn has_text(&self, text: Digest) -> bool {
        self.policies.texts.contains_key(&text)
    }

    /// Whether some bundle has the AppArmor profile `name` on this node.
    #[must_use]
    pub fn is_claimed(&self, name: &ProfileName) -> bool {
        self.policies.profiles.get(name).is_some_and(KernelProfile::is_claimed)
    }
}

/// The label of the bundle `id`.
pub(crate) fn bundle_label(home: &Namespace, id: &BundleId) -> LabelKey {
    LabelKey::of_bundle(Some(&id.namespace).filter(|namespace| *namespace != home), &id.name)
}
