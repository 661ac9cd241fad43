//! Whether all is done that can be done now, and what is missing: for who runs the agent once.

use std::collections::BTreeSet;

use crate::file::{File, Want};
use crate::state::State;
use crate::time::Time;

impl State {
    /// Whether all is known that is asked for, each profile of it was tried at least once, and the labels of
    /// the Node, where there is one, are right. What is to be removed later is not waited for.
    #[must_use]
    pub fn is_settled(&self, now: Time) -> bool {
        self.waits(now).is_empty() && !self.plan(now).has_disk_steps()
    }

    /// What is asked for and not served, by name: profiles that were refused or are not on disk, bundles that
    /// are not served in full, and what is at their source and is none.
    #[must_use]
    pub fn unserved(&self) -> BTreeSet<String> {
        let profiles = self.files.iter().filter(|(_, file)| !file.is_served());
        let profiles = profiles.map(|(reference, _)| reference.to_string());
        let bundles = self.bundles_here().filter(|bundle| !bundle.is_sound());
        let bundles = bundles.map(|bundle| format!("bundle {}", bundle.id));
        profiles.chain(bundles).chain(self.strays.values().flatten().cloned()).collect()
    }
}

impl File {
    /// Whether what is asked for is there, if anything is.
    fn is_served(&self) -> bool {
        self.want != Want::Refused && self.missing().is_none()
    }
}
