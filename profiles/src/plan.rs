//! What is to be done now, given what is known.
//!
//! Invariants, each with tests of its own:
//! - a profile is labelled after it is loaded, and unlabelled before it is removed;
//! - nothing is taken away before all is known that could ask for it;
//! - no profile is removed, and no label is taken away, while a pod of the node needs it;
//! - an AppArmor text is loaded only if each name that it declares is to be of it;
//! - there is one change of labels for everything, and never two writes to the Node under way;
//! - the startup taint goes after the labels stand, or when it has stood for too long;
//! - where nothing changed there is nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::apparmor::kernel::Load;
use crate::apparmor::name::ProfileName;
use crate::bundle::{Bundle, BundleId, Document, Kind};
use crate::digest::Digest;
use crate::file::File;
use crate::label::{LABEL_VALUE, LabelKey};
use crate::name::Namespace;
use crate::policies::bundle_label;
use crate::reference::Reference;
use crate::sight::{Inspect, Looks};
use crate::state::State;
use crate::time::Time;

mod needs;
mod policies;
mod settled;
mod taint;
#[cfg(test)]
pub(crate) mod tests;

pub use needs::Retained;
pub use taint::Untaint;

/// The steps to take now. Each must be answered with the events that say how it ended.
///
/// Steps on the disk come first and alone: they are quick, and how they end decides about the labels. So all
/// that was loaded in one go is labelled with one change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Profiles to put on disk.
    pub install: Vec<Install>,
    /// Profiles to take off it.
    pub remove: Vec<Reference>,
    /// Profiles to read from it, of which a newer version is refused.
    pub keep: Vec<Keep>,
    /// AppArmor texts to compile. That takes a while, and holds up nothing. Announce each with
    /// [`crate::state::Event::Compiling`].
    pub compile: Vec<Compile>,
    /// AppArmor texts to load into the kernel, by what was made of them. If there are other names in a blob
    /// than are said, it must not be loaded: they belong to somebody else.
    pub load: Vec<Load>,
    /// AppArmor profiles to take out of it.
    pub unload: Vec<ProfileName>,
    /// Places to look at, as pods refer to them. Answer with [`crate::state::Event::Looked`].
    pub look: Looks,
    /// Containers to ask the kernel about. Answer with [`crate::state::Event::Inspected`].
    pub inspect: BTreeSet<Inspect>,
    /// How to change the Node's labels. Announce it with [`crate::state::Event::LabelsSent`].
    pub labels: Option<LabelChange>,
    /// How to take the startup taint off the Node. Announce it with [`crate::state::Event::UntaintSent`].
    pub untaint: Option<Untaint>,
    /// When to ask again, if nothing happens before.
    pub wake_at: Option<Time>,
}

/// One profile to put on disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Install {
    /// Where to.
    pub reference: Reference,
    /// What.
    pub document: Document,
}

/// One profile to read from disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keep {
    /// Which.
    pub reference: Reference,
    /// Of what is to be there.
    pub digest: Digest,
}

/// One AppArmor text to compile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compile {
    /// The digest of the text.
    pub text: Digest,
    /// The text; none if no bundle has it any more: then the host has it.
    pub document: Option<Document>,
    /// The profiles that it declares; of one that the host has, those that the ledger has of it.
    pub names: BTreeSet<ProfileName>,
    /// The bundles that have the text.
    pub bundles: BTreeSet<BundleId>,
}

/// One write to the Node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeWrite {
    /// Of labels.
    Labels(LabelChange),
    /// The startup taint is taken away.
    Untaint(Untaint),
}

/// A change of the Node's labels; all of it is one write.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LabelChange {
    /// Labels to set to [`LABEL_VALUE`].
    pub set: BTreeSet<LabelKey>,
    /// Labels to take away.
    pub unset: BTreeSet<LabelKey>,
}

/// What is done to a label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Deed {
    Set,
    Unset,
}

impl LabelChange {
    /// Each label with what is done to it.
    pub(crate) fn deeds(&self) -> impl Iterator<Item = (&LabelKey, Deed)> {
        let set = self.set.iter().map(|label| (label, Deed::Set));
        set.chain(self.unset.iter().map(|label| (label, Deed::Unset)))
    }
}

impl Plan {
    /// What to write to the Node: one thing at a time.
    #[must_use]
    pub fn node_write(self) -> Option<NodeWrite> {
        self.labels.map(NodeWrite::Labels).or(self.untaint.map(NodeWrite::Untaint))
    }

    /// Whether anything is to be done on the disk, or in the kernel.
    #[must_use]
    pub fn has_disk_steps(&self) -> bool {
        let is_disk_idle = self.install.is_empty() && self.remove.is_empty() && self.keep.is_empty();
        !is_disk_idle || !self.load.is_empty() || !self.unload.is_empty()
    }

    fn consider_install(&mut self, reference: &Reference, file: &File, now: Time) {
        let Some(document) = file.missing() else { return };
        match file.blocked_until(now) {
            Some(later) => self.wake(later),
            None => self.install.push(Install { reference: reference.clone(), document: document.clone() }),
        }
    }

    fn consider_keep(&mut self, reference: &Reference, file: &File, now: Time) {
        let Some(digest) = file.unkept() else { return };
        match file.blocked_until(now) {
            Some(later) => self.wake(later),
            None => self.keep.push(Keep { reference: reference.clone(), digest }),
        }
    }

    pub(crate) fn wake(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// What is to become of a label. Where several profiles share one, the lowest counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Standing {
    /// It must go, unless a pod needs it.
    Down,
    /// It stays if it is there: nobody asks for the profile, but it is still loaded.
    Kept,
    /// It must be there.
    Up,
}

type Standings = BTreeMap<LabelKey, Standing>;

impl State {
    /// What to do at `now`.
    #[must_use]
    pub fn plan(&self, now: Time) -> Plan {
        let mut plan = Plan::default();
        let standings = self.standings(now);
        if self.is_scanned {
            for (reference, file) in &self.files {
                plan.consider_install(reference, file, now);
                plan.consider_keep(reference, file, now);
                self.plan_removal(reference, file, &standings, now, &mut plan);
            }
        }
        if self.policies.is_scanned {
            self.plan_policies(&standings, now, &mut plan);
        }
        if self.is_all_scanned() && !plan.has_disk_steps() {
            plan.look = self.looks();
            self.plan_labels(&standings, now, &mut plan);
        }
        if !plan.has_disk_steps() {
            self.plan_untaint(now, &mut plan);
        }
        self.plan_inspections(now, &mut plan);
        plan
    }

    /// Whether it is known what the node has, in all places that labels speak of.
    pub(crate) fn is_all_scanned(&self) -> bool {
        self.is_scanned && (self.policies.is_scanned || !self.config.has_apparmor())
    }

    fn plan_removal(
        &self,
        reference: &Reference,
        file: &File,
        standings: &Standings,
        now: Time,
        plan: &mut Plan,
    ) {
        let Some(due) = self.removal_due(reference, file) else { return };
        let later = Some(due).filter(|due| *due > now).or(file.blocked_until(now));
        let must_go_first = |label| self.is_going_first(label, standings);
        if due <= now && !self.is_file_free(reference, file) {
            // Pods need it: their end is an event.
        } else if let Some(later) = later {
            plan.wake(later);
        } else if !must_go_first(&file.label) && !must_go_first(&file.bundle_label) {
            plan.remove.push(reference.clone());
        }
    }

    /// Whether `label` has to go, and may still stand.
    fn is_going_first(&self, label: &LabelKey, standings: &Standings) -> bool {
        let may_stand = self.config.has_node() && self.labels.may_stand(label);
        may_stand && standings.get(label) == Some(&Standing::Down)
    }

    /// Whether a write to the Node is under way.
    fn is_node_written(&self) -> bool {
        self.labels.sent.is_some() || self.taint.is_sent()
    }

    fn plan_labels(&self, standings: &Standings, now: Time, plan: &mut Plan) {
        if self.is_node_written() {
            return;
        }
        let Some(change) = self.change_towards(standings) else { return };
        match self.labels.retry.blocked_until(now) {
            Some(later) => plan.wake(later),
            None => plan.labels = Some(change),
        }
    }

    /// Whether the Node was seen, or has answered, with all labels that it is to have, and no other of ours
    /// that is known to be wrong.
    pub(crate) fn are_labels_right(&self, now: Time) -> bool {
        let is_seen = self.labels.observed.is_some() && self.labels.sent.is_none();
        is_seen && self.change_towards(&self.standings(now)).is_none()
    }

    /// The change that would put the labels right, if they are not.
    fn change_towards(&self, standings: &Standings) -> Option<LabelChange> {
        let observed = self.labels.observed.as_ref()?;
        let is_right = |label: &LabelKey| observed.get(label).is_some_and(|value| value == LABEL_VALUE);
        let up = standings.iter().filter(|(_, standing)| **standing == Standing::Up);
        let set = up.map(|(label, _)| label).filter(|label| !is_right(label)).cloned().collect();

        let is_down =
            |label: &LabelKey| standings.get(label).is_none_or(|standing| *standing == Standing::Down);
        let may_go = |label: &LabelKey| self.is_label_known(label) && self.is_label_free(label);
        let present = observed.keys().chain(&self.labels.doubtful);
        let unset = present.filter(|label| is_down(label) && may_go(label)).cloned().collect();
        Some(LabelChange { set, unset }).filter(|change| *change != LabelChange::default())
    }

    /// Whether all is known that could ask for `label`.
    pub(crate) fn is_label_known(&self, label: &LabelKey) -> bool {
        if label.is_of_policy() {
            return self.all_known_since().is_some();
        }
        self.known_since(label.namespace()).is_some()
    }

    /// When `file` is to go, if no pod needs it then: none if it is to stay, or if that is not known yet.
    pub(crate) fn removal_due(&self, reference: &Reference, file: &File) -> Option<Time> {
        let known_since = self.known_since(reference.namespace().map(Namespace::as_str))?;
        let due = file.removal_due(known_since, self.config.removal_delay)?;
        let bundle = self.bundles.get(&reference.bundle_id(&self.config.home));
        let is_other_kind = |bundle: &Bundle| bundle.kind != Some(Kind::Seccomp);
        bundle.is_none_or(|bundle| bundle.is_readable() || is_other_kind(bundle)).then_some(due)
    }

    /// Whether `file` is to go now.
    fn is_file_going(&self, reference: &Reference, file: &File, now: Time) -> bool {
        self.removal_due(reference, file).is_some_and(|due| due <= now) && self.is_file_free(reference, file)
    }

    fn standings(&self, now: Time) -> Standings {
        let mut standings = Standings::new();
        let mut bundles: BTreeMap<LabelKey, Tally> = BTreeMap::new();
        let of_profiles = self.standings_of_profiles();
        for (reference, file) in &self.files {
            let stays = file.is_loaded() && !self.is_file_going(reference, file, now);
            bundles.entry(file.bundle_label.clone()).or_default().count(file.is_wanted(), stays);
            let standing = match (stays, file.is_wanted()) {
                (false, _) => Standing::Down,
                (true, false) => Standing::Kept,
                (true, true) => match of_profiles.get(&reference.bundle_id(&self.config.home)) {
                    Some(standing) => *standing,
                    None => continue,
                },
            };
            let lowest = standings.entry(file.label.clone()).or_insert(standing);
            *lowest = standing.min(*lowest);
        }
        self.policy_standings(&of_profiles, now, &mut standings, &mut bundles);
        for bundle in self.bundles_here().filter(|bundle| !bundle.is_complete()) {
            let label = bundle_label(&self.config.home, &bundle.id);
            bundles.entry(label).or_default().count(true, false);
        }
        standings.extend(bundles.into_iter().map(|(label, tally)| (label, tally.standing())));
        standings
    }
}

/// Counts a bundle's profiles.
#[derive(Debug, Default)]
struct Tally {
    wanted: u32,
    wanted_and_stays: u32,
    /// Wanted as well, but nobody knows whether all of it is there that was there before.
    kept: u32,
    unwanted_and_goes: u32,
}

impl Tally {
    fn count(&mut self, is_wanted: bool, stays: bool) {
        self.wanted += u32::from(is_wanted);
        self.wanted_and_stays += u32::from(is_wanted && stays);
        self.unwanted_and_goes += u32::from(!is_wanted && !stays);
    }

    /// Counts something that is wanted, and by itself says this.
    fn count_as(&mut self, standing: Standing) {
        self.count(true, standing == Standing::Up);
        self.kept += u32::from(standing == Standing::Kept);
    }

    /// A bundle that asks for nothing any more is judged by what it left behind.
    fn standing(&self) -> Standing {
        if self.wanted == 0 && self.unwanted_and_goes == 0 {
            Standing::Kept
        } else if self.wanted > 0 && self.wanted == self.wanted_and_stays {
            Standing::Up
        } else if self.wanted > 0 && self.wanted == self.wanted_and_stays + self.kept {
            Standing::Kept
        } else {
            Standing::Down
        }
    }
}
