//! Whether all is done that can be done now, and what is missing: for who runs the agent once.

use std::collections::BTreeSet;

use crate::claims::{Grant, Slot};
use crate::file::{File, Want};
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::state::State;
use crate::time::Time;

impl State {
    /// Whether all is known that is asked for, each profile of it was tried at least once, and the labels of
    /// the Node, where there is one, are right, and its startup taint is gone, if that can go now. What is to be
    /// removed later is not waited for.
    #[must_use]
    pub fn is_settled(&self, now: Time) -> bool {
        self.waits(now).is_empty() && !self.plan(now).has_disk_steps() && !self.is_taint_going(now)
    }

    /// What is asked for and not served, by name: profiles, or AppArmor texts, that were refused or are not on disk, bundles that
    /// are not served in full, and what is at their source and is none.
    #[must_use]
    pub fn unserved(&self) -> BTreeSet<String> {
        let profiles = self.files.iter().filter(|(_, file)| !file.is_served());
        let profiles = profiles.map(|(reference, _)| reference.to_string());
        let bundles = self.bundles_here().filter(|bundle| !bundle.is_sound());
        let bundles = bundles.map(|bundle| format!("bundle {}", bundle.id));
        let texts = self.policies.grants.iter().filter(|(slot, grant)| !self.is_text_served(slot, grant));
        let texts = texts
            .map(|(slot, _)| Reference::new(&self.config.home, &slot.bundle, slot.key.clone()).to_string());
        profiles.chain(bundles).chain(texts).chain(self.strays.values().flatten().cloned()).collect()
    }

    /// Whether the kernel has all that the text at `slot` declares.
    fn is_text_served(&self, slot: &Slot, grant: &Grant) -> bool {
        let Grant::Granted(document) = grant else { return false };
        let Some(policy) = self.policies.accepted(document.digest()) else { return false };
        let holds = |profile: &KernelProfile| profile.slot() == Some(slot) && profile.holds(policy.blob);
        document.names().iter().all(|name| self.policies.profiles.get(name).is_some_and(holds))
    }
}

impl File {
    /// Whether what is asked for is there, if anything is.
    fn is_served(&self) -> bool {
        self.want != Want::Refused && self.missing().is_none()
    }
}
