//! What bundles declare, as the object `ProfileCatalog` holds it: each reference that a pod can make, and the
//! Node label that says where its profile is loaded.
//!
//! - What is published is declared, refused or not: the version before may be loaded. An AppArmor text that
//!   is refused, or not compiled yet, declares what can be read of it, and what its key declared with the last
//!   text that was accepted.
//! - An AppArmor name belongs to the oldest bundle that declares it.
//! - The label is that of the profile, if every Node has room for it, as [`labelling`] counts: with all
//!   bundles counted, whichever Nodes they are for. Else it is that of the bundle. What can't be told of a
//!   bundle counts by what the object had at the start.
//! - What nobody declares any more stays for the removal delay, as on nodes. After a start, what the object
//!   has counts as declared until then.
//!
//! Invariants: what there is to hold follows from the bundles and from what the object held at the start, so
//! a restart changes nothing. Nothing goes, and no label of what the object has is another, before the bundles
//! of all namespaces are known. It is smaller than an object may be; what there is no room for is left out by
//! whole bundles, and an older one never goes for a newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::object::{Status, Totals};
use crate::annotation::Annotations;
use crate::apparmor::name::ProfileName;
use crate::apparmor::text;
use crate::bundle::{Bundle, BundleId, Document, Kind, MOST_KEYS, MOST_NAMES, Source, has_error};
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::label::LabelKey;
use crate::labelling;
use crate::name::{Namespace, ProfileKey};
use crate::reference::Reference;
use crate::time::Time;
use crate::writing::Draft;

/// How much the object holds, in bytes. etcd takes 1.5 MiB for one, and whoever reads it gets all of it.
const ROOM: usize = 900 << 10;
/// What JSON needs for an entry beside its two texts.
const AROUND: usize = 6;

/// What one ConfigMap declares.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Declared {
    id: BundleId,
    created: Option<i64>,
    has_profile_labels: bool,
    content: Content,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Content {
    /// Nothing: its label names no kind that there is.
    Nothing,
    /// That can't be told: it has too many keys. Nodes keep what they have of it.
    Unreadable(Kind),
    /// Seccomp profiles, by their keys.
    Seccomp(BTreeSet<ProfileKey>),
    /// AppArmor texts, by their keys.
    AppArmor(BTreeMap<ProfileKey, Text>),
}

/// An AppArmor text.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Text {
    /// None: it is binary.
    digest: Option<Digest>,
    /// What can be read of it.
    names: Arc<BTreeSet<ProfileName>>,
    /// What the last one declared that was accepted. None: nobody knows.
    held: Option<Arc<BTreeSet<ProfileName>>>,
}

impl Text {
    /// A text that its own words do not refuse.
    fn accepted(document: &Document) -> Self {
        Self { digest: Some(document.digest()), names: document.shared_names(), held: None }
    }

    /// Another one. Its names are kept if there is `room` for so many.
    fn refused(text: &str, room: &mut usize) -> Self {
        let mut names = text::scan(text).names;
        match room.checked_sub(names.len()) {
            Some(rest) => *room = rest,
            None => names.clear(),
        }
        Self { digest: Some(Digest::of(text.as_bytes())), names: names.into(), held: None }
    }

    fn binary() -> Self {
        Self { digest: None, names: Arc::default(), held: None }
    }

    fn names(&self) -> BTreeSet<&ProfileName> {
        self.names.iter().chain(self.held.iter().flat_map(|held| held.iter())).collect()
    }
}

impl Declared {
    /// What `source` declares. `judged`: the same with its AppArmor texts judged, if they are.
    #[must_use]
    pub fn of(source: &Source, judged: Option<&Bundle>) -> Self {
        let has_profile_labels = Annotations::read(&source.annotations).has_profile_labels;
        let count = source.data.len() + source.binary_keys.len();
        let content = match Kind::from_word(&source.kind) {
            None => Content::Nothing,
            Some(kind) if count > MOST_KEYS => Content::Unreadable(kind),
            Some(Kind::Seccomp) => {
                let keys = source.data.keys().chain(&source.binary_keys);
                Content::Seccomp(keys.filter_map(|key| ProfileKey::new(key).ok()).collect())
            }
            Some(Kind::AppArmor) => {
                let accepted: BTreeMap<&ProfileKey, &Document> =
                    judged.into_iter().flat_map(Bundle::accepted).collect();
                let names: usize = accepted.values().map(|document| document.names().len()).sum();
                let mut room = MOST_NAMES.saturating_sub(names);
                let texts = source.data.iter().filter_map(|(key, text)| {
                    let key = ProfileKey::new(key).ok()?;
                    let accepted = accepted.get(&key).map(|document| Text::accepted(document));
                    let text = accepted.unwrap_or_else(|| Text::refused(text, &mut room));
                    Some((key, text))
                });
                let binary = source.binary_keys.iter();
                let binary = binary.filter_map(|key| Some((ProfileKey::new(key).ok()?, Text::binary())));
                Content::AppArmor(texts.chain(binary).collect())
            }
        };
        Self { id: source.id.clone(), created: source.created, has_profile_labels, content }
    }

    /// The same, after the version `before` of the bundle.
    fn after(mut self, before: Option<Self>) -> Self {
        match (&mut self.content, before.map(|before| before.content)) {
            (Content::Unreadable(Kind::Seccomp), Some(before @ Content::Seccomp(_)))
            | (Content::Unreadable(Kind::AppArmor), Some(before @ Content::AppArmor(_))) => {
                self.content = before;
            }
            (Content::AppArmor(texts), Some(Content::AppArmor(mut before))) => {
                let mut room = MOST_NAMES;
                for (key, text) in texts {
                    let held = before.remove(key).and_then(|before| before.held);
                    let rest = room.checked_sub(held.as_ref().map_or(0, |held| held.len()));
                    text.held = if rest.is_some() { held } else { Some(Arc::default()) };
                    room = rest.unwrap_or(room);
                }
            }
            _ => {}
        }
        self
    }

    /// Its AppArmor texts, if it has any.
    fn texts(&mut self) -> impl Iterator<Item = &mut Text> {
        let texts = match &mut self.content {
            Content::AppArmor(texts) => Some(texts),
            Content::Nothing | Content::Unreadable(_) | Content::Seccomp(_) => None,
        };
        texts.into_iter().flat_map(BTreeMap::values_mut)
    }

    /// How many labels of profiles it may ask of a Node. Nodes count what they hold of what can't be told here:
    /// what of `unclaimed` may be its own counts, and is taken out, for it can be of one bundle only. Rather too
    /// many than too few: then a label is that of a bundle, which does not depend on room.
    fn labels_asked(&self, home: &Namespace, unclaimed: &mut BTreeMap<Entry, LabelKey>) -> usize {
        if !self.has_profile_labels {
            return 0;
        }
        let known = match &self.content {
            Content::Nothing | Content::Unreadable(_) => 0,
            Content::Seccomp(keys) => keys.len(),
            Content::AppArmor(texts) => texts.values().map(|text| text.names().len().max(1)).sum(),
        };
        if !self.is_unsure() {
            return known;
        }
        let own = self.label(home);
        let held = unclaimed.extract_if(.., |entry, label| {
            (label.is_of_profile() || *label == own) && self.may_have(home, entry)
        });
        known + held.count()
    }

    /// Whether it may declare something that can't be told.
    fn is_unsure(&self) -> bool {
        match &self.content {
            Content::Nothing | Content::Seccomp(_) => false,
            Content::Unreadable(_) => true,
            Content::AppArmor(texts) => texts.values().any(|text| text.held.is_none()),
        }
    }

    /// The label of the bundle.
    fn label(&self, home: &Namespace) -> LabelKey {
        LabelKey::of_bundle(Some(&self.id.namespace).filter(|namespace| *namespace != home), &self.id.name)
    }

    /// What it declares, each with the label to select on: those of its profiles, or its own.
    fn entries(&self, home: &Namespace, by_profile: bool) -> Vec<(Entry, LabelKey)> {
        let own = self.label(home);
        let label = |of_profile: LabelKey| if by_profile { of_profile } else { own.clone() };
        match &self.content {
            Content::Nothing | Content::Unreadable(_) => Vec::new(),
            Content::Seccomp(keys) => {
                let references = keys.iter().map(|key| Reference::new(home, &self.id, key.clone()));
                let entry = |reference: Reference| {
                    ((Kind::Seccomp, reference.to_string()), label(LabelKey::of_profile(&reference)))
                };
                references.map(entry).collect()
            }
            Content::AppArmor(texts) => {
                let names: BTreeSet<&ProfileName> = texts.values().flat_map(Text::names).collect();
                let entry = |name: &ProfileName| {
                    ((Kind::AppArmor, name.to_string()), label(LabelKey::of_policy(name)))
                };
                names.into_iter().map(entry).collect()
            }
        }
    }

    /// Whether `entry`, which the object had at the start, may be its own: what it declares can't be told.
    fn may_have(&self, home: &Namespace, (kind, reference): &Entry) -> bool {
        match (&self.content, kind) {
            (Content::Unreadable(Kind::Seccomp), Kind::Seccomp) => {
                reference.parse().is_ok_and(|reference: Reference| reference.bundle_id(home) == self.id)
            }
            (Content::Unreadable(Kind::AppArmor), Kind::AppArmor) => true,
            (Content::AppArmor(_), Kind::AppArmor) => self.is_unsure(),
            _ => false,
        }
    }
}

/// A reference, and what to.
type Entry = (Kind, String);

/// What the object is to have under a reference.
#[derive(Clone, Debug)]
struct Standing {
    label: LabelKey,
    since: Since,
}

/// Why it is to have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Since {
    /// It had it at the start. Whose it is is not known yet.
    Found,
    /// A bundle declares it.
    Declared,
    /// Nobody declares it since then.
    Gone(Time),
}

/// All that is known of what bundles declare.
#[derive(Debug)]
pub struct Declaring {
    /// The namespace whose references have none.
    home: Namespace,
    removal_delay: Duration,
    /// The namespaces whose bundles are not known yet.
    unlisted: BTreeSet<Namespace>,
    is_any_listed: bool,
    bundles: BTreeMap<BundleId, Declared>,
    /// The AppArmor texts in them that the compiler accepted.
    accepted: BTreeSet<Digest>,
    /// Whether it is known what the object held at the start.
    is_found: bool,
    entries: BTreeMap<Entry, Standing>,
    status: Arc<Status>,
    is_changed: bool,
    /// When something goes, if nothing happens before.
    due: Option<Time>,
}

impl Declaring {
    /// Nothing is known yet. `others`: the bundle namespaces beside `home`.
    #[must_use]
    pub fn new(home: Namespace, others: BTreeSet<Namespace>, removal_delay: Duration) -> Self {
        let mut unlisted = others;
        unlisted.insert(home.clone());
        Self {
            home,
            removal_delay,
            unlisted,
            is_any_listed: false,
            bundles: BTreeMap::new(),
            accepted: BTreeSet::new(),
            is_found: false,
            entries: BTreeMap::new(),
            status: Arc::default(),
            is_changed: false,
            due: None,
        }
    }

    /// This is what the object holds. The first time, what it holds counts; later, what is to be there is
    /// known better here.
    pub fn found(&mut self, status: Option<&Status>) {
        if mem::replace(&mut self.is_found, true) {
            return;
        }
        let Some(Status { seccomp, app_armor, .. }) = status else { return };
        let seccomp = seccomp.iter().map(|entry| (Kind::Seccomp, entry));
        let app_armor = app_armor.iter().map(|entry| (Kind::AppArmor, entry));
        for (kind, (reference, label)) in seccomp.chain(app_armor) {
            if let Some(label) = LabelKey::observed(label) {
                self.entries.insert((kind, reference.clone()), Standing { label, since: Since::Found });
            }
        }
        self.is_changed = true;
    }

    /// These are all the bundles of `namespace`.
    pub fn listed(&mut self, namespace: &Namespace, all: impl IntoIterator<Item = Declared>) {
        let is_there = |id: &BundleId| id.namespace == *namespace;
        let mut before: BTreeMap<_, _> = self.bundles.extract_if(.., |id, _| is_there(id)).collect();
        for declared in all {
            let before = before.remove(&declared.id);
            self.bundles.insert(declared.id.clone(), declared.after(before));
        }
        self.unlisted.remove(namespace);
        self.is_any_listed = true;
        self.accept();
    }

    /// A bundle is new, or has changed.
    pub fn applied(&mut self, declared: Declared) {
        let before = self.bundles.remove(&declared.id);
        self.bundles.insert(declared.id.clone(), declared.after(before));
        self.accept();
    }

    /// A bundle is gone, or is none any more.
    pub fn deleted(&mut self, id: &BundleId) {
        self.bundles.remove(id);
        self.accept();
    }

    /// The compiler found this in an AppArmor text.
    pub fn compiled(&mut self, text: Digest, found: &[Diagnostic]) {
        if !has_error(found) {
            self.accepted.insert(text);
            self.accept();
        }
    }

    /// Notes down which texts are accepted, and forgets those that no bundle has any more.
    fn accept(&mut self) {
        let mut there = BTreeSet::new();
        for text in self.bundles.values_mut().flat_map(Declared::texts) {
            if let Some(digest) = text.digest.filter(|digest| self.accepted.contains(digest)) {
                there.insert(digest);
                text.held = Some(text.names.clone());
            }
        }
        self.accepted = there;
        self.is_changed = true;
    }

    /// What the object is to hold at `now`. None if no bundle namespace is known yet: to say that nothing is
    /// declared would be wrong.
    pub fn draft(&mut self, now: Time) -> Option<Draft<Arc<Status>>> {
        if !self.is_any_listed {
            return None;
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        if self.is_found && (self.is_changed || is_due) {
            let omitted = self.settle(now);
            let status = status_of(&self.entries, omitted);
            if *self.status != status {
                self.status = Arc::new(status);
            }
            self.is_changed = false;
        }
        Some(Draft { content: self.status.clone(), is_ready: self.is_found && self.is_all_listed() })
    }

    /// When it may be another one, if nothing happens before. To be asked after [`Self::draft`].
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    fn is_all_listed(&self) -> bool {
        self.unlisted.is_empty()
    }

    /// Brings what is to stand in line with what is known. Returns how much of what bundles declare there is no
    /// room for.
    fn settle(&mut self, now: Time) -> usize {
        let is_all_listed = self.is_all_listed();
        let mut room = ROOM;
        let mut before = mem::take(&mut self.entries);
        let unclaimed = self.unclaimed(&before);
        if !is_all_listed {
            self.entries = before.extract_if(.., |_, standing| standing.since == Since::Found).collect();
            room = room.saturating_sub(self.entries.iter().map(size).sum());
        }
        let left_out = self.add_declared(unclaimed, &mut room);
        self.due = None;
        for (entry, Standing { label, since }) in before {
            if self.entries.contains_key(&entry) {
                continue;
            }
            let since = match since {
                Since::Found | Since::Declared if !is_all_listed => since,
                Since::Found if self.may_be_declared(&entry) => since,
                Since::Found | Since::Declared => Since::Gone(now),
                Since::Gone(_) => since,
            };
            self.keep(entry, Standing { label, since }, &mut room, now);
        }
        let left_out = left_out.iter().filter_map(|id| self.bundles.get(id));
        let of_them = left_out.flat_map(|bundle| bundle.entries(&self.home, false));
        of_them.filter(|(entry, _)| !self.entries.contains_key(entry)).count()
    }

    /// What of `before` the object had at the start, and no bundle declares, as far as that can be told.
    fn unclaimed(&self, before: &BTreeMap<Entry, Standing>) -> BTreeMap<Entry, LabelKey> {
        let found = before.iter().filter(|(_, standing)| standing.since == Since::Found);
        let mut found: BTreeMap<_, _> =
            found.map(|(entry, standing)| (entry.clone(), standing.label.clone())).collect();
        if !found.is_empty() {
            let declared = self.bundles.values().flat_map(|bundle| bundle.entries(&self.home, false));
            declared.for_each(|(entry, _)| drop(found.remove(&entry)));
        }
        found
    }

    /// Keeps what nobody declares, unless its time is over, or there is no room.
    fn keep(&mut self, entry: Entry, standing: Standing, room: &mut usize, now: Time) {
        let end = match standing.since {
            Since::Gone(at) => Some(at + self.removal_delay),
            Since::Found | Since::Declared => None,
        };
        let rest = room.checked_sub(size((&entry, &standing)));
        if let Some(rest) = rest.filter(|_| end.is_none_or(|end| end > now)) {
            *room = rest;
            self.due = self.due.into_iter().chain(end).min();
            self.entries.insert(entry, standing);
        }
    }

    /// Adds what bundles declare, the oldest first, as far as there is room. Returns those that there was none
    /// for.
    fn add_declared(&mut self, mut unclaimed: BTreeMap<Entry, LabelKey>, room: &mut usize) -> Vec<BundleId> {
        let mut bundles: Vec<&Declared> = self.bundles.values().collect();
        bundles.sort_by_key(|bundle| (bundle.created.unwrap_or(i64::MAX), &bundle.id));
        let (mut left_out, mut labels) = (Vec::new(), 0);
        for bundle in bundles {
            labels += bundle.labels_asked(&self.home, &mut unclaimed);
            let by_profile = bundle.has_profile_labels && labels <= labelling::MOST;
            let entries = bundle.entries(&self.home, by_profile);
            let new: Vec<(Entry, Standing)> = entries
                .into_iter()
                .filter(|(entry, _)| !self.entries.contains_key(entry))
                .map(|(entry, label)| (entry, Standing { label, since: Since::Declared }))
                .collect();
            let needed = new.iter().map(|(entry, standing)| size((entry, standing))).sum();
            match room.checked_sub(needed) {
                Some(rest) => {
                    *room = rest;
                    self.entries.extend(new);
                }
                None => left_out.push(bundle.id.clone()),
            }
        }
        left_out
    }

    fn may_be_declared(&self, entry: &Entry) -> bool {
        self.bundles.values().any(|bundle| bundle.may_have(&self.home, entry))
    }
}

fn size(((_, reference), Standing { label, .. }): (&Entry, &Standing)) -> usize {
    reference.len() + label.as_str().len() + AROUND
}

/// The object with these entries, which had no room for `omitted` others.
fn status_of(entries: &BTreeMap<Entry, Standing>, omitted: usize) -> Status {
    let of = |kind: Kind| -> BTreeMap<String, String> {
        let of_kind = entries.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|((_, reference), standing)| (reference.clone(), standing.label.to_string())).collect()
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (seccomp, app_armor) = (of(Kind::Seccomp), of(Kind::AppArmor));
    let totals =
        Totals { seccomp: count(seccomp.len()), app_armor: count(app_armor.len()), omitted: count(omitted) };
    Status { seccomp, app_armor, totals }
}

#[cfg(test)]
mod tests;
