//! What is known, and how each event changes it. What follows from it is in [`crate::plan`].
//!
//! Invariant: an [`Event`] only records; it never decides to act. Events may come in any order and be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bundle::{Bundle, BundleId};
use crate::digest::Digest;
use crate::file::{File, Want};
use crate::label::LabelKey;
use crate::name::{Namespace, ProfileKey};
use crate::plan::LabelChange;
use crate::reference::Reference;
use crate::time::{Retry, Time};

/// What the agent was told by whoever runs it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace whose bundles need no namespace in a reference.
    pub home: Namespace,
    /// The other namespaces that bundles are read from.
    pub others: BTreeSet<Namespace>,
    /// How long a profile and its label stay after no bundle asks for it any more.
    pub removal_delay: Duration,
}

impl Config {
    /// All namespaces that bundles are read from.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        std::iter::once(&self.home).chain(self.others.iter().filter(|other| **other != self.home))
    }
}

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Event {
    /// All bundles of a namespace: what is not among them is gone.
    Listed {
        /// The namespace.
        namespace: Namespace,
        /// Its bundles.
        bundles: Vec<Bundle>,
    },
    /// A bundle was made or changed.
    Applied(Bundle),
    /// A bundle is gone.
    Deleted(BundleId),
    /// What the ledger has, and what the disk holds there.
    Scanned(BTreeMap<Reference, Found>),
    /// A profile is on disk, written now or found equal.
    Installed {
        /// Which profile.
        reference: Reference,
        /// Of the content that is there.
        digest: Digest,
    },
    /// A profile can't be put where something is that the ledger does not have, or that is no file.
    Foreign(Reference),
    /// A profile could not be put on disk.
    InstallFailed(Reference),
    /// A profile is off the disk and the ledger.
    Removed(Reference),
    /// A profile could not be taken off the disk, or not durably.
    RemoveFailed(Reference),
    /// The labels of ours that the API server says our Node has.
    NodeLabels(NodeLabels),
    /// Our Node does not exist.
    NodeGone,
    /// A change of the labels is under way.
    LabelsSent(LabelChange),
    /// The API server has accepted it; the labels in its answer came as [`Event::NodeLabels`] before.
    LabelsWritten,
    /// It failed, or nobody knows how it ended.
    LabelsFailed,
}

/// What a scan finds at a path of the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A content that the ledger says is ours.
    Ours(Digest),
    /// A file with bytes that the ledger does not know.
    Changed,
    /// Something that is no regular file, or that is not reached through directories.
    NotAFile,
}

/// One observation of the Node.
#[derive(Clone, Debug, Default)]
pub struct NodeLabels {
    /// The Node's resource version, if it is a number. Numbers grow with every write.
    pub version: Option<u64>,
    /// The labels of ours.
    pub labels: BTreeMap<LabelKey, String>,
}

/// What the agent knows.
#[derive(Debug)]
pub struct State {
    pub(crate) config: Config,
    pub(crate) bundles: BTreeMap<BundleId, Bundle>,
    /// Every reference that is wanted or owned.
    pub(crate) files: BTreeMap<Reference, File>,
    pub(crate) labels: Labels,
    /// The namespaces whose bundles are not known yet.
    unlisted: BTreeSet<Namespace>,
    pub(crate) is_scanned: bool,
    /// Since when all is known that could ask for a profile. Before that nothing is taken away.
    pub(crate) known_since: Option<Time>,
}

/// What is known about the Node's labels.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// None while there is no Node to be seen.
    pub(crate) observed: Option<BTreeMap<LabelKey, String>>,
    newest: Option<u64>,
    /// The one change that is under way.
    pub(crate) sent: Option<LabelChange>,
    /// Labels of changes that failed: they may stand, although we have not seen them.
    pub(crate) doubtful: BTreeSet<LabelKey>,
    pub(crate) retry: Retry,
}

impl Labels {
    /// Time between two changes, so that bundles that come one by one do not cost a write each.
    const GAP: Duration = Duration::from_millis(200);

    /// Whether the scheduler may see `label` now, or soon: unknown counts as yes.
    pub(crate) fn may_stand(&self, label: &LabelKey) -> bool {
        let is_sent = self.sent.as_ref().is_some_and(|sent| sent.set.contains(label));
        let is_observed = self.observed.as_ref().is_none_or(|observed| observed.contains_key(label));
        is_observed || is_sent || self.doubtful.contains(label)
    }

    /// Takes an observation over, unless it is older than one that was seen before: watch and patch come over
    /// two connections, and an old `the label is absent` would let a file go while its label stands.
    fn observe(&mut self, node: NodeLabels) {
        if node.version.is_some() && node.version < self.newest {
            return;
        }
        self.newest = node.version.or(self.newest);
        self.observed = Some(node.labels);
    }

    fn failed(&mut self, now: Time) {
        self.doubtful.extend(self.sent.take().into_iter().flat_map(|sent| sent.set));
        self.retry.failed(now);
    }
}

impl State {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            unlisted: config.namespaces().cloned().collect(),
            config,
            bundles: BTreeMap::new(),
            files: BTreeMap::new(),
            labels: Labels::default(),
            is_scanned: false,
            known_since: None,
        }
    }

    /// Records what happened at `now`.
    pub fn apply(&mut self, event: Event, now: Time) {
        match event {
            Event::Listed { namespace, bundles } => self.listed(&namespace, bundles, now),
            Event::Applied(bundle) => self.applied(bundle, now),
            Event::Deleted(id) => self.deleted(&id, now),
            Event::Scanned(found) => self.scanned(found, now),
            Event::Installed { reference, digest } => {
                self.update(&reference, |file| file.installed(digest));
            }
            Event::Foreign(reference) => self.update(&reference, |file| file.blocked(now)),
            Event::InstallFailed(reference) => self.update(&reference, |file| file.install_failed(now)),
            Event::Removed(reference) => self.update(&reference, File::removed),
            Event::RemoveFailed(reference) => self.update(&reference, |file| file.remove_failed(now)),
            Event::NodeLabels(node) => self.labels.observe(node),
            Event::NodeGone => self.labels.observed = None,
            Event::LabelsSent(change) => self.labels.sent = Some(change),
            Event::LabelsWritten => self.labels_written(now),
            Event::LabelsFailed => self.labels.failed(now),
        }
        if self.known_since.is_none() && self.is_scanned && self.unlisted.is_empty() {
            self.known_since = Some(now);
        }
    }

    fn listed(&mut self, namespace: &Namespace, bundles: Vec<Bundle>, now: Time) {
        let listed: BTreeSet<BundleId> = bundles.iter().map(|bundle| bundle.id.clone()).collect();
        let is_gone = |id: &&BundleId| id.namespace == *namespace && !listed.contains(id);
        let gone: Vec<BundleId> = self.bundles.keys().filter(is_gone).cloned().collect();
        for id in gone {
            self.deleted(&id, now);
        }
        for bundle in bundles {
            self.applied(bundle, now);
        }
        self.unlisted.remove(namespace);
    }

    fn applied(&mut self, bundle: Bundle, now: Time) {
        for (key, profile) in &bundle.profiles {
            let reference = Reference::new(&self.config.home, &bundle.id, key.clone());
            self.file(reference, now).set_want(Want::from(profile));
        }
        let old = self.bundles.remove(&bundle.id).map(|old| old.profiles).unwrap_or_default();
        for key in old.keys().filter(|key| !bundle.profiles.contains_key(key)) {
            self.unwant(&bundle.id, key, now);
        }
        self.bundles.insert(bundle.id.clone(), bundle);
    }

    fn deleted(&mut self, id: &BundleId, now: Time) {
        let old = self.bundles.remove(id).map(|old| old.profiles).unwrap_or_default();
        for key in old.keys() {
            self.unwant(id, key, now);
        }
    }

    fn unwant(&mut self, id: &BundleId, key: &ProfileKey, now: Time) {
        let reference = Reference::new(&self.config.home, id, key.clone());
        self.update(&reference, |file| file.unwant(now));
    }

    fn scanned(&mut self, mut found: BTreeMap<Reference, Found>, now: Time) {
        for (reference, file) in &mut self.files {
            file.scanned(found.remove(reference));
        }
        for (reference, found) in found {
            self.file(reference, now).scanned(Some(found));
        }
        self.files.retain(|_, file| !file.is_forgettable());
        self.is_scanned = true;
    }

    /// A write that leaves everything to be written again was undone by somebody: that is no success.
    fn labels_written(&mut self, now: Time) {
        self.labels.doubtful.clear();
        let sent = self.labels.sent.take();
        if sent.is_some() && sent == self.label_change(now) {
            self.labels.retry.failed(now);
        } else {
            self.labels.retry.pause(now, Labels::GAP);
        }
    }

    fn file(&mut self, reference: Reference, now: Time) -> &mut File {
        let new = File::new(&reference, now);
        self.files.entry(reference).or_insert(new)
    }

    fn update(&mut self, reference: &Reference, change: impl FnOnce(&mut File)) {
        let Some(file) = self.files.get_mut(reference) else { return };
        change(file);
        if file.is_forgettable() {
            self.files.remove(reference);
        }
    }
}
