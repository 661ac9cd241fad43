//! What is known, in numbers, and what is still to come: for metrics and probes.
//!
//! Invariants: a query changes nothing, and its answers are numbers. They name no bundle, profile or
//! namespace.

use std::fmt;

use crate::bundle::{Bundle, Profile};
use crate::diagnostic::Code;
use crate::file::File;
use crate::reference::Reference;
use crate::state::State;
use crate::time::Time;

/// How many there are of what is known. But for the bundles, all are profiles.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Bundles.
    pub bundles: usize,
    /// Bundles ask for it, whether it is accepted or refused.
    pub desired: usize,
    /// It is on disk, in some version that was accepted.
    pub loaded: usize,
    /// It is on disk, and no bundle asks for it: not any more, or not yet, because they are not all known.
    pub retained: usize,
    /// Its newest version is refused, or the selector of its bundle can't be read.
    pub refused: usize,
    /// Its path is taken by something that is not ours.
    pub foreign: usize,
    /// Somebody changed it on disk, and it is not put right.
    pub drifted: usize,
    /// Writing it failed.
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
    /// The lists of bundles of so many namespaces.
    Bundles(usize),
    /// The first attempt to write so many profiles.
    Writes(usize),
    /// A first sight of the Node.
    Node,
    /// A change of the Node's labels that succeeds.
    Labels,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => write!(f, "the disk is not scanned yet"),
            Self::Bundles(count) => write!(f, "namespaces whose bundles are not listed yet: {count}"),
            Self::Writes(count) => write!(f, "profiles that are not written yet: {count}"),
            Self::Node => write!(f, "the Node is not seen yet"),
            Self::Labels => write!(f, "the labels of the Node are not written yet"),
        }
    }
}

impl State {
    /// The numbers of now.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { bundles: self.bundles.len(), ..Summary::default() };
        self.bundles_here().for_each(|bundle| summary.count_bundle(bundle));
        self.files.values().for_each(|file| summary.count_file(file));
        summary
    }

    /// What is still to come at `now`. Nothing that is up to somebody else: a profile that is refused, or
    /// whose path is taken, is done. Nor what was tried and failed: that is in the [`Summary`].
    #[must_use]
    pub fn waits(&self, now: Time) -> Vec<Wait> {
        let unlisted = self.config.namespaces().filter(|one| !self.listed.contains_key(*one)).count();
        let is_due = |file: &&File| file.missing().is_some() && file.blocked_until(now).is_none();
        let writes = self.files.values().filter(is_due).count();
        let (has_node, is_node_seen) = (self.config.has_node, self.labels.observed.is_some());
        let all = [
            (!self.is_scanned, Wait::Disk),
            (unlisted > 0, Wait::Bundles(unlisted)),
            (writes > 0, Wait::Writes(writes)),
            (has_node && !is_node_seen, Wait::Node),
            (has_node && is_node_seen && !self.are_labels_right(now), Wait::Labels),
        ];
        all.into_iter().filter(|(is_awaited, _)| *is_awaited).map(|(_, wait)| wait).collect()
    }

    /// Since when bundles ask for a content of `reference` that was never on disk. None if there is no such
    /// content, and if the path was found taken: then it is not up to us when it comes.
    #[must_use]
    pub fn asked_at(&self, reference: &Reference) -> Option<Time> {
        self.files.get(reference)?.asked_at
    }
}
