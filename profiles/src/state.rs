//! What is known, and how each event changes it. What follows from it is in [`crate::plan`].
//!
//! Invariant: an [`Event`] only records; it never decides to act. Events may come in any order and be
//! repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::apparmor::kernel::FoundPolicy;
use crate::apparmor::name::ProfileName;
use crate::apparmor::policy::Policy;
use crate::bundle::{Bundle, BundleId, Document, Kind, Profile};
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::enforcement::Enforcement;
use crate::file::{File, Want};
use crate::name::{Namespace, NodeName, ProfileKey};
use crate::node::{Labels, Rest, Taint};
use crate::plan::LabelChange;
use crate::platform::AppArmor;
use crate::pod::{ContainerId, Pod, PodId, Pods};
use crate::policies::Policies;
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::sight::{Confinement, Known, Sights};
use crate::time::Time;

pub use crate::node::NodeLabels;

/// What the agent was told by whoever runs it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace whose bundles need no namespace in a reference.
    pub home: Namespace,
    /// The other namespaces that bundles are read from.
    pub others: BTreeSet<Namespace>,
    /// How long a profile and its label stay after no bundle asks for it any more.
    pub removal_delay: Duration,
    /// The Node to be labelled. Where there is none, no label and no pod stands in the way of a removal.
    pub node: Option<NodeName>,
    /// Whether the node's kernel has AppArmor that this agent can use. Where it does not, bundles of AppArmor
    /// texts are for other nodes.
    pub apparmor: AppArmor,
}

impl Config {
    /// Whether there is a Node to be labelled.
    #[must_use]
    pub fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// Whether AppArmor profiles can be loaded here.
    #[must_use]
    pub fn has_apparmor(&self) -> bool {
        self.apparmor == AppArmor::Enabled
    }

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
    /// All that is at the source of a namespace and is no bundle: why each is none, by what it is called.
    Strays {
        /// The namespace.
        namespace: Namespace,
        /// The strays.
        strays: BTreeMap<String, &'static str>,
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
    InstallFailed {
        /// Which profile.
        reference: Reference,
        /// Whether the ledger has it nevertheless, so that something of ours may be there.
        is_owned: bool,
    },
    /// What is on disk of a profile whose newest text is refused.
    Kept {
        /// Which profile.
        reference: Reference,
        /// What was read.
        document: Document,
    },
    /// It could not be read, or it was something else.
    KeepFailed(Reference),
    /// A profile is off the disk and the ledger.
    Removed(Reference),
    /// A profile could not be taken off the disk, or not durably.
    RemoveFailed(Reference),
    /// The labels of our Node and its startup taint, as a watch tells in its own time.
    NodeLabels(NodeLabels),
    /// The same from a list, with which a watch begins anew: what came later is told again after it.
    NodeListed(NodeLabels),
    /// Our Node does not exist.
    NodeGone,
    /// A change of the labels is under way.
    LabelsSent(LabelChange),
    /// The API server has accepted it, and our Node has these labels by its answer.
    LabelsWritten(NodeLabels),
    /// It failed, or nobody knows how it ended.
    LabelsFailed,
    /// The startup taint is being taken off our Node.
    UntaintSent,
    /// The API server has accepted it, and our Node is so by its answer.
    Untainted(NodeLabels),
    /// It failed, or nobody knows how it ended.
    UntaintFailed,
    /// What the ledger has of AppArmor profiles, and what the kernel holds of them.
    PolicyScanned(BTreeMap<ProfileName, FoundPolicy>),
    /// An AppArmor text is being compiled, or looked up among those that were.
    Compiling(Digest),
    /// What that came to.
    Compiled {
        /// Of the text.
        text: Digest,
        /// How it ended.
        outcome: Compiled,
    },
    /// The kernel has an AppArmor profile, loaded now or found equal.
    PolicyLoaded {
        /// Which profile.
        name: ProfileName,
        /// The text that it is of.
        text: Digest,
        /// What was made of that.
        blob: Digest,
    },
    /// It can't be loaded, as the kernel has one by this name that the ledger does not have.
    PolicyForeign(ProfileName),
    /// It was not loaded, as that holds of another profile of its text.
    PolicyWithheld(ProfileName),
    /// It could not be loaded.
    PolicyLoadFailed {
        /// Which profile.
        name: ProfileName,
        /// Whether the ledger has it nevertheless.
        is_owned: bool,
    },
    /// A profile is out of the kernel and the ledger.
    PolicyRemoved(ProfileName),
    /// It can't be removed now, as processes run under it.
    PolicyInUse(ProfileName),
    /// It could not be removed, or not durably.
    PolicyRemoveFailed(ProfileName),
    /// All pods of the node that matter.
    PodsListed(BTreeMap<PodId, Pod>),
    /// One of them is new, or has changed.
    PodApplied(PodId, Pod),
    /// One is gone, or does not matter any more.
    PodDeleted(PodId),
    /// What the node has where pods refer to, and nothing is that is ours.
    Looked(Sights),
    /// What the kernel says of containers; none of one that has no process, or that it does not tell of.
    Inspected(BTreeMap<ContainerId, Option<Confinement>>),
}

/// What a scan finds at a path of the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A content that the ledger says is ours.
    Ours(Digest),
    /// A file that somebody changed: in words, what of it.
    Changed(&'static str),
    /// Something that is no regular file, or that is not reached through directories: this, in words.
    NotAFile(&'static str),
}

/// What compiling a text came to.
#[derive(Clone, Debug)]
pub enum Compiled {
    /// It may be loaded, in spite of these warnings. The host has the blob.
    Accepted(Policy, Arc<[Diagnostic]>),
    /// It must not, for these reasons.
    Refused(Arc<[Diagnostic]>),
    /// It could not be compiled, which is not its fault.
    Failed,
}

/// What the agent knows.
#[derive(Debug)]
pub struct State {
    pub(crate) config: Config,
    pub(crate) bundles: BTreeMap<BundleId, Bundle>,
    pub(crate) strays: BTreeMap<Namespace, BTreeSet<String>>,
    /// Every reference that is wanted or owned.
    pub(crate) files: BTreeMap<Reference, File>,
    pub(crate) labels: Labels,
    pub(crate) taint: Taint,
    /// The labels of others that the Node has, or had when it was last seen; none if it never was.
    pub(crate) others: Option<BTreeMap<String, String>>,
    /// The namespaces whose bundles are known, and since when.
    pub(crate) listed: BTreeMap<Namespace, Time>,
    pub(crate) is_scanned: bool,
    pub(crate) pods: Pods,
    /// What the node has where they refer to.
    pub(crate) known: Known,
    pub(crate) policies: Policies,
    pub(crate) enforcement: Enforcement,
}

impl State {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            bundles: BTreeMap::new(),
            strays: BTreeMap::new(),
            files: BTreeMap::new(),
            labels: Labels::default(),
            taint: Taint::default(),
            others: None,
            listed: BTreeMap::new(),
            is_scanned: false,
            pods: Pods::default(),
            known: Known::default(),
            policies: Policies::default(),
            enforcement: Enforcement::default(),
        }
    }

    /// Records what happened at `now`.
    pub fn apply(&mut self, event: Event, now: Time) {
        match event {
            Event::Listed { namespace, bundles } => self.listed(&namespace, bundles, now),
            Event::Strays { namespace, strays } => {
                self.strays.insert(namespace, strays.into_keys().collect());
            }
            Event::Applied(bundle) => {
                self.applied(bundle, now);
                self.reclaim(now);
            }
            Event::Deleted(id) => {
                self.deleted(&id, now);
                self.reclaim(now);
            }
            Event::Scanned(found) => self.scanned(found, now),
            Event::Installed { reference, digest } => {
                self.enforcement.installed(&reference, now);
                self.update(&reference, |file| file.installed(digest));
            }
            Event::Foreign(reference) => self.update(&reference, |file| file.blocked(now)),
            Event::InstallFailed { reference, is_owned } => {
                self.update(&reference, |file| file.install_failed(is_owned, now));
            }
            Event::Kept { reference, document } => self.update(&reference, |file| file.kept(document)),
            Event::KeepFailed(reference) => self.update(&reference, |file| file.keep_failed(now)),
            Event::Removed(reference) => self.update(&reference, File::removed),
            Event::RemoveFailed(reference) => self.update(&reference, |file| file.remove_failed(now)),
            Event::NodeLabels(node) => {
                let rest = self.labels.watched(node);
                self.observed(rest, now);
            }
            Event::NodeListed(node) => {
                let rest = self.labels.listed(node);
                self.observed(Some(rest), now);
            }
            Event::NodeGone => {
                self.labels.gone();
                self.taint.gone();
            }
            Event::LabelsSent(change) => self.labels.sent(change),
            Event::LabelsWritten(node) => {
                let rest = self.labels.written(node, now);
                self.observed(rest, now);
            }
            Event::LabelsFailed => self.labels.failed(now),
            Event::UntaintSent => self.taint.sent(),
            Event::Untainted(node) => {
                self.taint.taken_away();
                let rest = self.labels.watched(node);
                self.observed(rest, now);
            }
            Event::UntaintFailed => self.taint.failed(now),
            Event::PolicyScanned(found) => {
                self.enforcement.policy_changed();
                self.policy_scanned(found, now);
            }
            Event::Compiling(text) => self.policies.compiling(text),
            Event::Compiled { text, outcome } => self.compiled(text, outcome, now),
            Event::PolicyLoaded { name, text, blob } => {
                self.policies.update(&name, |profile| profile.loaded(text, blob));
            }
            Event::PolicyForeign(name) => self.policies.update(&name, |profile| profile.blocked(now)),
            Event::PolicyWithheld(name) => self.policies.update(&name, |profile| profile.withheld(now)),
            Event::PolicyLoadFailed { name, is_owned } => {
                self.policies.update(&name, |profile| profile.load_failed(is_owned, now));
            }
            Event::PolicyRemoved(name) => self.policies.update(&name, KernelProfile::removed),
            Event::PolicyInUse(name) => self.policies.update(&name, |profile| profile.in_use(now)),
            Event::PolicyRemoveFailed(name) => {
                self.policies.update(&name, |profile| profile.remove_failed(now));
            }
            Event::PodsListed(pods) => {
                self.enforcement.listed(&pods, now);
                self.pods.listed(pods);
                self.policies.pods_changed();
            }
            Event::PodApplied(id, pod) => {
                self.enforcement.changed(self.pods.all().and_then(|pods| pods.get(&id)), Some(&pod), now);
                if self.pods.applied(&id, pod) {
                    self.policies.pods_changed();
                }
            }
            Event::PodDeleted(id) => {
                self.enforcement.changed(self.pods.all().and_then(|pods| pods.get(&id)), None, now);
                if self.pods.deleted(&id) {
                    self.policies.pods_changed();
                }
            }
            Event::Looked(sights) => {
                self.enforcement.looked(&sights, now);
                self.looked(sights);
            }
            Event::Inspected(answers) => self.inspected(answers, now),
        }
    }

    /// Since when all is known that could ask for something of `namespace`. None: it is not known yet, so
    /// nothing of it is taken away. What belongs to no namespace that bundles are read from has to wait for
    /// all of them.
    pub(crate) fn known_since(&self, namespace: Option<&str>) -> Option<Time> {
        let namespace = namespace.unwrap_or(self.config.home.as_str());
        if let Some(namespace) = self.config.namespaces().find(|known| known.as_str() == namespace) {
            return self.listed.get(namespace).copied();
        }
        self.all_known_since()
    }

    /// Since when all is known that could ask for something of no namespace, such as an AppArmor profile.
    pub(crate) fn all_known_since(&self) -> Option<Time> {
        let listed = |namespace: &Namespace| self.listed.get(namespace).copied();
        let all: Option<BTreeSet<Time>> = self.config.namespaces().map(listed).collect();
        all?.last().copied()
    }

    /// Whether the bundles of all namespaces are known.
    pub(crate) fn is_all_listed(&self) -> bool {
        self.config.namespaces().all(|namespace| self.listed.contains_key(namespace))
    }

    /// Whether some bundle asks for `reference` on this node.
    #[must_use]
    pub fn is_wanted(&self, reference: &Reference) -> bool {
        self.files.get(reference).is_some_and(File::is_wanted)
    }

    /// Whether `bundle` is for this node; none if that can't be told.
    pub(crate) fn is_here(&self, bundle: &Bundle) -> Option<bool> {
        if bundle.kind == Some(Kind::AppArmor) && !self.config.has_apparmor() {
            return Some(false);
        }
        bundle.is_for(self.others.as_ref())
    }

    /// The bundles that are for this node, or may be.
    pub(crate) fn bundles_here(&self) -> impl Iterator<Item = &Bundle> {
        self.bundles.values().filter(|bundle| self.is_here(bundle) != Some(false))
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
        self.listed.entry(namespace.clone()).or_insert(now);
        self.reclaim(now);
    }

    fn applied(&mut self, mut bundle: Bundle, now: Time) {
        if !bundle.is_readable() {
            // It asks for what it asked for before.
            let before = self.bundles.get(&bundle.id).filter(|before| before.kind == bundle.kind);
            bundle.profiles = before.map(|before| before.profiles.clone()).unwrap_or_default();
        }
        let is_seccomp = bundle.kind == Some(Kind::Seccomp);
        if is_seccomp {
            self.ask(&bundle, now);
        }
        let old = self.forget(&bundle.id, now);
        for key in old.keys().filter(|key| !is_seccomp || !bundle.profiles.contains_key(key)) {
            self.unwant(&bundle.id, key, now);
        }
        self.bundles.insert(bundle.id.clone(), bundle);
    }

    /// Takes over what `bundle`, of seccomp profiles, asks of this node: nothing, if it is for others.
    fn ask(&mut self, bundle: &Bundle, now: Time) {
        let is_here = self.is_here(bundle);
        for (key, profile) in &bundle.profiles {
            match Want::of(profile, is_here) {
                Some(want) => {
                    let reference = Reference::new(&self.config.home, &bundle.id, key.clone());
                    self.file(reference, now).set_want(want, now);
                }
                None => self.unwant(&bundle.id, key, now),
            }
        }
    }

    /// Takes over what was seen of the Node beside labels of ours. If the labels of others are other ones than
    /// before, bundles may ask for something else.
    fn observed(&mut self, rest: Option<Rest>, now: Time) {
        let Some(Rest { others, startup_taints }) = rest else { return };
        self.taint.seen(startup_taints, now);
        if self.others.as_ref() == Some(&others) {
            return;
        }
        self.others = Some(others);
        let bundles = std::mem::take(&mut self.bundles);
        for bundle in bundles.values().filter(|bundle| bundle.kind == Some(Kind::Seccomp)) {
            self.ask(bundle, now);
        }
        self.bundles = bundles;
        self.reclaim(now);
    }

    fn deleted(&mut self, id: &BundleId, now: Time) {
        for key in self.forget(id, now).keys() {
            self.unwant(id, key, now);
        }
    }

    /// Forgets the bundle `id`, whose profiles are returned. If it could not be read, it might have asked for
    /// anything until now.
    fn forget(&mut self, id: &BundleId, now: Time) -> BTreeMap<ProfileKey, Profile> {
        let Some(old) = self.bundles.remove(id) else { return BTreeMap::new() };
        if !old.is_readable() {
            let is_of_it = |reference: &Reference| reference.bundle_id(&self.config.home) == *id;
            let files = self.files.iter_mut().filter(|(reference, _)| is_of_it(reference));
            files.for_each(|(_, file)| file.delay_removal(now));
        }
        old.profiles
    }

    fn unwant(&mut self, id: &BundleId, key: &ProfileKey, now: Time) {
        let reference = Reference::new(&self.config.home, id, key.clone());
        self.update(&reference, |file| file.unwant(now));
    }

    fn scanned(&mut self, mut found: BTreeMap<Reference, Found>, now: Time) {
        for (reference, file) in &mut self.files {
            file.scanned(found.remove(reference), now);
        }
        for (reference, found) in found {
            self.file(reference, now).scanned(Some(found), now);
        }
        self.files.retain(|_, file| !file.is_forgettable());
        self.known.files.clear();
        self.is_scanned = true;
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
