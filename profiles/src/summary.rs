//! What is known, in numbers, and what is still to come: for metrics and probes.
//!
//! Invariants: a query changes nothing, and its answers are numbers. They name no bundle, profile or
//! namespace.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::apparmor::name::ProfileName;
use crate::bundle::{Bundle, Document, Kind, Profile};
use crate::claims::Grant;
use crate::diagnostic::Code;
use crate::digest::Digest;
use crate::file::File;
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::state::State;
use crate::time::Time;

/// So long after all bundles are known texts that are being compiled are waited for: an author of many that
/// take long is not to hold up the rollout of a new agent.
const COMPILING: Duration = Duration::from_mins(2);

/// How many there are of what is known of one [`Kind`]. But for the bundles, all are profiles; a text that is
/// refused counts as one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Bundles.
    pub bundles: usize,
    /// Bundles ask for it, whether it is accepted or refused.
    pub desired: usize,
    /// It is on disk, or in the kernel, in some version that was accepted.
    pub loaded: usize,
    /// It is there, and no bundle asks for it: not any more, or not yet, because they are not all known.
    pub retained: usize,
    /// Its newest version is refused, or the selector of its bundle can't be read.
    pub refused: usize,
    /// Its path, or its name in the kernel, is taken by something that is not ours.
    pub foreign: usize,
    /// Somebody changed it, and it is not put right.
    pub drifted: usize,
    /// Compiling its text failed, which is not the text's fault.
    pub uncompiled: usize,
    /// Writing or loading it failed.
    pub unwritten: usize,
    /// Removing it failed.
    pub unremoved: usize,
}

impl Summary {
    fn count_bundle(&mut self, bundle: &Bundle) {
        // A key that can be no part of a reference is a finding about the bundle, and has no file.
        let unusable = bundle.diagnostics.iter().filter(|finding| finding.code == Code::InvalidKey).count();
        // What only waits for the Node to be seen is wanted as if it were refused, and is not.
        let is_refused =
            |profile: &&Profile| bundle.nodes.is_none() || matches!(profile, Profile::Refused(_));
        self.desired += unusable;
        self.refused += unusable + bundle.profiles.values().filter(is_refused).count();
    }

    fn count_policy(&mut self, profile: &KernelProfile) {
        let is_wanted = profile.is_claimed();
        self.desired += usize::from(is_wanted);
        self.loaded += usize::from(profile.is_loaded());
        self.retained += usize::from(profile.is_loaded() && !is_wanted);
        self.foreign += usize::from(is_wanted && profile.is_foreign());
        self.drifted += usize::from(profile.is_drifted());
        self.unremoved += usize::from(!is_wanted && profile.pace.is_failing);
    }

    fn count_file(&mut self, file: &File) {
        let is_wanted = file.is_wanted();
        self.desired += usize::from(is_wanted);
        self.loaded += usize::from(file.is_loaded());
        self.retained += usize::from(file.is_loaded() && !is_wanted);
        self.foreign += usize::from(is_wanted && file.is_foreign());
        self.drifted += usize::from(file.is_drifted());
        self.unwritten += usize::from(is_wanted && file.pace.is_failing);
        self.unremoved += usize::from(!is_wanted && file.pace.is_failing);
    }
}

/// Something that has to happen before a node is for the first time as its bundles want it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// A first look at the disk.
    Disk,
    /// A first look at the kernel's AppArmor profiles.
    Kernel,
    /// The lists of bundles of so many namespaces.
    Bundles(usize),
    /// The first attempt to compile so many texts.
    Compiles(usize),
    /// The first attempt to load so many texts.
    Loads(usize),
    /// The first attempt to write so many profiles.
    Writes(usize),
    /// A first sight of the Node.
    Node,
    /// The list of the Node's pods.
    Pods,
    /// A change of the Node's labels that succeeds.
    Labels,
    /// Another attempt to load so many profiles, or texts, which succeeds.
    Retries(usize),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => write!(f, "the disk is not scanned yet"),
            Self::Kernel => write!(f, "the kernel's AppArmor profiles are not scanned yet"),
            Self::Compiles(count) => write!(f, "AppArmor texts that are not compiled yet: {count}"),
            Self::Loads(count) => write!(f, "AppArmor texts that are not loaded yet: {count}"),
            Self::Bundles(count) => write!(f, "namespaces whose bundles are not listed yet: {count}"),
            Self::Writes(count) => write!(f, "profiles that are not written yet: {count}"),
            Self::Node => write!(f, "the Node is not seen yet"),
            Self::Pods => write!(f, "the pods of the Node are not listed yet"),
            Self::Labels => write!(f, "the labels of the Node are not written yet"),
            Self::Retries(count) => {
                write!(f, "profiles that can't be loaded, for reasons in the log: {count}")
            }
        }
    }
}

impl State {
    /// The numbers of `now`.
    #[must_use]
    pub fn summary(&self, kind: Kind, now: Time) -> Summary {
        let is_of_kind = |bundle: &&Bundle| bundle.kind == Some(kind);
        let bundles = self.bundles.values().filter(is_of_kind).count();
        let mut summary = Summary { bundles, ..Summary::default() };
        self.bundles_here().filter(is_of_kind).for_each(|bundle| summary.count_bundle(bundle));
        match kind {
            Kind::Seccomp => self.files.values().for_each(|file| summary.count_file(file)),
            Kind::AppArmor => self.count_policies(&mut summary, now),
        }
        summary
    }

    fn count_policies(&self, summary: &mut Summary, now: Time) {
        self.policies.profiles.values().for_each(|profile| summary.count_policy(profile));
        summary.unwritten = self.unloaded(now).len();
        for (slot, grant) in &self.policies.grants {
            let has_none = || !self.policies.profiles.values().any(|profile| profile.slot() == Some(slot));
            let is_taken = matches!(grant, Grant::Taken { .. });
            let text = grant.document().map(Document::digest);
            let is_refused = is_taken || text.is_some_and(|text| self.policies.is_refused(text));
            // What is refused by itself was counted with its bundle.
            summary.refused += usize::from(is_refused);
            summary.desired += usize::from(grant.document().is_none() && has_none());
            summary.uncompiled += usize::from(text.is_some_and(|text| self.policies.is_failing(text)));
        }
    }

    /// What is still to come at `now`. Nothing that is up to somebody else: a profile that is refused, or
    /// whose path is taken, is done. Nor what was tried and failed: that is in the [`Summary`].
    #[must_use]
    pub fn waits(&self, now: Time) -> Vec<Wait> {
        let loads = if self.policies.is_scanned { self.plan(now).load.len() } else { 0 };
        let is_early = self.all_known_since().is_none_or(|since| now < since + COMPILING);
        let mut waits = self.waits_with(loads, now);
        waits.retain(|wait| is_early || !matches!(wait, Wait::Compiles(_)));
        waits
    }

    /// What the node lacks at `now` of what its bundles ask for, or of the labels that say so; also what was
    /// tried and failed. Nothing that is up to somebody else. If nothing is to be done on the disk.
    pub(crate) fn lacks(&self, now: Time) -> Vec<Wait> {
        let mut lacks = self.waits_with(0, now);
        // They only say what has to stay.
        lacks.retain(|wait| *wait != Wait::Pods);
        let retries = self.retries(now);
        lacks.extend((retries > 0).then_some(Wait::Retries(retries)));
        lacks
    }

    /// How many profiles, or texts, could not be loaded by the last attempt.
    fn retries(&self, now: Time) -> usize {
        let files = self.files.values().filter(|file| file.is_wanted() && file.pace.is_failing).count();
        let texts = self.policies.grants.values().filter_map(Grant::document);
        let texts: BTreeSet<Digest> =
            texts.map(Document::digest).filter(|text| self.policies.is_failing(*text)).collect();
        files + texts.len() + self.failing(now).len()
    }

    /// The same as [`Self::waits`], if so many loads are to be tried; of texts that are being compiled also
    /// those that take long.
    fn waits_with(&self, loads: usize, now: Time) -> Vec<Wait> {
        let unlisted = self.config.namespaces().filter(|one| !self.listed.contains_key(*one)).count();
        let is_due = |file: &&File| file.missing().is_some() && file.blocked_until(now).is_none();
        let writes = self.files.values().filter(is_due).count();
        let (has_node, has_apparmor) = (self.config.has_node(), self.config.has_apparmor());
        let compiles = self.policies.grants.values().filter_map(Grant::document);
        let compiles: BTreeSet<Digest> =
            compiles.map(Document::digest).filter(|text| self.policies.is_pending(*text)).collect();
        let (compiles, is_node_seen) = (compiles.len(), self.labels.observed.is_some());
        let all = [
            (!self.is_scanned, Wait::Disk),
            (has_apparmor && !self.policies.is_scanned, Wait::Kernel),
            (unlisted > 0, Wait::Bundles(unlisted)),
            (compiles > 0, Wait::Compiles(compiles)),
            (loads > 0, Wait::Loads(loads)),
            (writes > 0, Wait::Writes(writes)),
            (has_node && !is_node_seen, Wait::Node),
            (has_node && !self.pods.are_known(), Wait::Pods),
            (has_node && is_node_seen && !self.are_labels_right(now), Wait::Labels),
        ];
        all.into_iter().filter(|(is_awaited, _)| *is_awaited).map(|(_, wait)| wait).collect()
    }

    /// Whether the Node has the startup taint, as far as was seen.
    #[must_use]
    pub fn has_startup_taint(&self) -> bool {
        self.taint.standing().is_some()
    }

    /// Since when bundles ask for a content of `reference` that was never on disk. None if there is no such
    /// content, and if the path was found taken: then it is not up to us when it comes.
    #[must_use]
    pub fn asked_at(&self, reference: &Reference) -> Option<Time> {
        self.files.get(reference)?.asked_at
    }

    /// The same of an AppArmor profile.
    #[must_use]
    pub fn policy_asked_at(&self, name: &ProfileName) -> Option<Time> {
        self.policies.profiles.get(name)?.asked_at
    }
}
