//! One name of AppArmor's: who has it, what the ledger and the kernel hold of it.
//!
//! Invariant: [`KernelProfile::is_loaded`] is true only if the kernel was last seen to hold, under this name,
//! a blob that we gave it.

use std::time::Duration;

use crate::apparmor::kernel::{FoundPolicy, InKernel};
use crate::apparmor::name::ProfileName;
use crate::claims::{Slot, Want};
use crate::digest::Digest;
use crate::label::LabelKey;
use crate::pace::Pace;
use crate::time::{Retry, Time};

/// After so long it is asked again whether processes run under a profile that is to go.
const IN_USE: Duration = Duration::from_secs(10);

/// What is known about one name.
#[derive(Debug)]
pub(crate) struct KernelProfile {
    /// Its label; kept here because it is needed for every plan.
    pub(crate) label: LabelKey,
    /// The key of a bundle that has the name, and the label of that bundle. Kept when it gives the name up.
    last: Option<(Slot, LabelKey)>,
    /// What its bundle wants there; none if no bundle has the name.
    want: Option<Want>,
    /// Since when no bundle has it.
    since: Time,
    /// What the ledger has of it, as far as that is known.
    pub(crate) owned: Option<Owned>,
    /// Whether the ledger has it, so that we may replace and remove it.
    pub(crate) is_owned: bool,
    kernel: Kernel,
    /// Whether the kernel ever had it from us, as far as is known.
    was_loaded: bool,
    pub(crate) pace: Pace,
    /// Whether processes keep it from being removed.
    is_in_use: bool,
    /// Since when a text is wanted that was never loaded. None as well if the name was found taken.
    pub(crate) asked_at: Option<Time>,
}

/// What the ledger has of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Owned {
    /// The text.
    pub(crate) text: Digest,
    /// What was made of it.
    pub(crate) blob: Digest,
    /// Whether the host has that blob, and it is for this kernel and compiler.
    pub(crate) is_current: bool,
}

/// What the kernel has under the name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kernel {
    /// Nothing, as far as we know.
    Absent,
    /// A blob that we gave it.
    Ours(Digest),
    /// The name is ours, but we can't vouch for what is there.
    Changed,
    /// Something that we must not touch.
    Foreign,
}

impl KernelProfile {
    pub(crate) fn new(name: &ProfileName, now: Time) -> Self {
        Self {
            label: LabelKey::of_policy(name),
            last: None,
            want: None,
            since: now,
            owned: None,
            is_owned: false,
            kernel: Kernel::Absent,
            was_loaded: false,
            pace: Pace::default(),
            is_in_use: false,
            asked_at: None,
        }
    }

    /// The key `slot` of a bundle has the name. Another wish than before is tried at once.
    pub(crate) fn claim(&mut self, slot: Slot, bundle_label: LabelKey, want: Want, now: Time) {
        if self.want != Some(want) {
            self.pace.start_anew();
            let text = self.want.and_then(Want::text);
            if want.text().is_none() {
                self.asked_at = None;
            } else if want.text() != text && !self.has(want.text()) {
                self.asked_at = Some(now);
            }
        }
        self.last = Some((slot, bundle_label));
        self.want = Some(want);
        self.is_in_use = false;
    }

    /// No bundle has the name any more. Told again, it does not start the delay anew.
    pub(crate) fn unclaim(&mut self, now: Time) {
        if self.want.take().is_some() {
            self.since = now;
            self.asked_at = None;
            self.pace.start_anew();
        }
    }

    /// A bundle might have had the name until now.
    pub(crate) fn delay_removal(&mut self, now: Time) {
        if !self.is_claimed() {
            self.since = now;
        }
    }

    /// Whether this text is what the kernel has, by the ledger.
    fn has(&self, text: Option<Digest>) -> bool {
        self.is_loaded() && self.owned.map(|owned| owned.text) == text
    }

    /// Takes over what a scan says: none if the ledger does not have the name. What is news is acted upon at
    /// once, unless it is a fight. What is not keeps its pace: the kernel tells of each change of any
    /// profile.
    pub(crate) fn scanned(&mut self, found: Option<FoundPolicy>, now: Time) {
        self.is_owned = found.is_some();
        self.owned = found.map(|FoundPolicy { text, blob, is_current, .. }| Owned { text, blob, is_current });
        let kernel = match found.map(|found| found.kernel) {
            // The ledger's scan does not look at what was never ours.
            None if self.kernel == Kernel::Foreign => Kernel::Foreign,
            None | Some(InKernel::Absent) => Kernel::Absent,
            Some(InKernel::Ours(blob)) => Kernel::Ours(blob),
            Some(InKernel::Changed(_)) => Kernel::Changed,
        };
        if kernel == self.kernel {
            return;
        }
        let was_right = self.is_loaded();
        let is_removal_failing = self.pace.is_failing && !self.is_claimed();
        self.found(kernel);
        self.asked_at = self.asked_at.filter(|_| !self.has(self.want.and_then(Want::text)));
        if was_right {
            self.pace.drifted(now);
        } else if !is_removal_failing {
            self.pace.start_anew();
        }
    }

    fn found(&mut self, kernel: Kernel) {
        self.kernel = kernel;
        self.was_loaded |= matches!(kernel, Kernel::Ours(_));
    }

    pub(crate) fn loaded(&mut self, text: Digest, blob: Digest) {
        self.is_owned = true;
        self.owned = Some(Owned { text, blob, is_current: true });
        self.found(Kernel::Ours(blob));
        self.asked_at = None;
        self.pace.start_anew();
    }

    /// The kernel has a profile of somebody else's by this name. Only they can change that, so it is looked
    /// at again at a slow, even pace.
    pub(crate) fn blocked(&mut self, now: Time) {
        self.kernel = Kernel::Foreign;
        self.asked_at = None;
        self.pace.blocked(now, Retry::LONGEST);
    }

    /// It was not loaded, for the sake of another profile of its text, which is looked at at this pace. Its own name
    /// is not taken, or not any more.
    pub(crate) fn withheld(&mut self, now: Time) {
        if self.kernel == Kernel::Foreign {
            self.kernel = Kernel::Absent;
        }
        self.asked_at = None;
        self.pace.blocked(now, Retry::LONGEST);
    }

    /// Loading failed. The kernel takes a blob as a whole or not at all, so what was there is still there, or
    /// what was to be.
    pub(crate) fn load_failed(&mut self, is_owned: bool, now: Time) {
        self.is_owned = is_owned;
        self.owned = self.owned.filter(|_| is_owned);
        self.pace.failed(now);
    }

    pub(crate) fn removed(&mut self) {
        self.is_owned = false;
        self.owned = None;
        self.kernel = Kernel::Absent;
        self.was_loaded = false;
        self.is_in_use = false;
        self.pace.start_anew();
    }

    /// Processes run under it.
    pub(crate) fn in_use(&mut self, now: Time) {
        self.is_in_use = true;
        self.pace.blocked(now, IN_USE);
    }

    /// Removing failed, maybe only after it was gone: nothing may lean on it any more.
    pub(crate) fn remove_failed(&mut self, now: Time) {
        self.kernel = Kernel::Changed;
        self.is_in_use = false;
        self.pace.failed(now);
    }

    /// Pods have come or gone, and processes with them.
    pub(crate) fn pods_changed(&mut self) {
        if self.is_in_use {
            self.is_in_use = false;
            self.pace.start_anew();
        }
    }

    pub(crate) fn is_loaded(&self) -> bool {
        matches!(self.kernel, Kernel::Ours(_))
    }

    /// Whether the kernel has this blob of ours.
    pub(crate) fn holds(&self, blob: Digest) -> bool {
        self.kernel == Kernel::Ours(blob)
    }

    pub(crate) fn want(&self) -> Option<Want> {
        self.want
    }

    /// Whether a bundle has the name.
    pub(crate) fn is_claimed(&self) -> bool {
        self.want.is_some()
    }

    /// The key that has the name.
    pub(crate) fn slot(&self) -> Option<&Slot> {
        self.last.as_ref().filter(|_| self.is_claimed()).map(|(slot, _)| slot)
    }

    /// The label of the bundle that had the name last.
    pub(crate) fn bundle_label(&self) -> Option<&LabelKey> {
        self.last.as_ref().map(|(_, label)| label)
    }

    /// Whether a bundle has had the name since the start.
    pub(crate) fn is_traced(&self) -> bool {
        self.last.is_some()
    }

    /// Since when no bundle has it; none if one does.
    pub(crate) fn unclaimed_since(&self) -> Option<Time> {
        (!self.is_claimed()).then_some(self.since)
    }

    /// Whether processes keep it from being removed.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    /// Whether there is no reason to remember it.
    pub(crate) fn is_forgettable(&self) -> bool {
        !self.is_claimed() && !self.is_owned
    }

    /// Whether its name is taken by something that was never ours.
    pub(crate) fn is_foreign(&self) -> bool {
        self.kernel == Kernel::Foreign
    }

    /// Whether somebody changed it, and it is not put right. What the kernel never had was not loaded yet.
    pub(crate) fn is_drifted(&self) -> bool {
        let is_changed = match self.kernel {
            Kernel::Ours(_) | Kernel::Foreign => false,
            Kernel::Absent => self.was_loaded,
            Kernel::Changed => true,
        };
        is_changed && self.is_claimed() && self.is_owned && !self.pace.is_failing
    }
}
