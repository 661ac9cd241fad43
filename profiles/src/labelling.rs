//! Which profiles have labels, and what is to be said of all bundles together.
//!
//! Each label of a Node is sent to everybody who watches Nodes, with every change of that Node: a thousand of
//! ours are some 100 KB. So there are [`MOST`] labels of profiles. They are given to whole bundles, the
//! oldest first, and each bundle has its own label in any case. By age, so that all nodes agree, and a new
//! bundle takes no label away from an older one. What counts is what bundles ask for, not what is loaded,
//! which changes by itself.

use std::collections::BTreeMap;
use std::fmt;

use crate::apparmor::name::ProfileName;
use crate::bundle::{Bundle, BundleId, Kind, Profile};
use crate::claims::{Grant, Slot};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::label::LabelKey;
use crate::name::ProfileKey;
use crate::plan::Standing;
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::state::State;

/// So many labels of profiles a Node has at most.
pub(crate) const MOST: usize = 256;

/// Something to be said about a bundle that follows from the others, or from the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The bundle.
    pub bundle: BundleId,
    /// The bundle and key that it is about, if it is about one.
    pub reference: Option<Reference>,
    /// What is to be said.
    pub diagnostic: Diagnostic,
}

impl State {
    /// What is to become of the labels of a bundle's profiles, if they are loaded. A bundle that is not in
    /// here has none.
    ///
    /// While a namespace is not listed yet, those of its labels that stand on the Node are taken for what its
    /// bundles will get, and no label is taken away for want of room: a restart leaves labels as they are.
    pub(crate) fn standings_of_profiles(&self) -> BTreeMap<&BundleId, Standing> {
        let mut left = MOST.saturating_sub(self.labels_of_unlisted());
        let mut bundles: Vec<&Bundle> =
            self.bundles.values().filter(|bundle| bundle.has_profile_labels).collect();
        bundles.sort_by_key(|bundle| bundle.seniority());
        let mut standings = BTreeMap::new();
        for bundle in bundles {
            if let Some(rest) = left.checked_sub(self.labels_asked(bundle)) {
                left = rest;
                standings.insert(&bundle.id, Standing::Up);
            } else if !self.is_all_listed() {
                standings.insert(&bundle.id, Standing::Kept);
            }
        }
        standings
    }

    /// How many labels of profiles there may be of namespaces that are not listed yet.
    fn labels_of_unlisted(&self) -> usize {
        let is_unlisted = |label: &&LabelKey| !self.is_label_known(label);
        let observed = self.labels.observed.iter().flat_map(BTreeMap::keys);
        observed.filter(|label| label.is_of_profile()).filter(is_unlisted).count()
    }

    /// How many labels the profiles of `bundle` ask for on this node. If it may be for other nodes, those
    /// that can stand already: a selector that can't be read takes no label away from other bundles.
    fn labels_asked(&self, bundle: &Bundle) -> usize {
        if bundle.kind == Some(Kind::AppArmor) {
            return self.policy_labels_asked(bundle);
        }
        let is_owned = |key: &&ProfileKey| {
            let reference = Reference::new(&self.config.home, &bundle.id, (*key).clone());
            self.files.get(&reference).is_some_and(|file| file.is_owned)
        };
        match self.is_here(bundle) {
            Some(true) => bundle.profiles.len(),
            Some(false) => 0,
            None => bundle.profiles.keys().filter(is_owned).count(),
        }
    }

    /// The same for a bundle of AppArmor texts: each of their names has a label. A refused text counts for
    /// the names that its key has from before, or as one.
    fn policy_labels_asked(&self, bundle: &Bundle) -> usize {
        let is_its_own =
            |profile: &KernelProfile| profile.slot().is_some_and(|slot| slot.bundle == bundle.id);
        match self.is_here(bundle) {
            Some(true) => bundle
                .profiles
                .iter()
                .map(|(key, profile)| match profile {
                    Profile::Accepted(document, _) => document.names().len(),
                    Profile::Refused(_) => {
                        let slot = Slot { bundle: bundle.id.clone(), key: key.clone() };
                        self.policies.held(&slot).map_or(1, |held| held.len().max(1))
                    }
                })
                .sum(),
            Some(false) => 0,
            None => {
                let all = self.policies.profiles.values();
                all.filter(|profile| profile.is_owned && is_its_own(profile)).count()
            }
        }
    }

    /// The bundles that are not for this node.
    pub fn elsewhere(&self) -> impl Iterator<Item = &BundleId> {
        let bundles = self.bundles.values().filter(|bundle| self.is_here(bundle) == Some(false));
        bundles.map(|bundle| &bundle.id)
    }

    /// What is to be said now about bundles that follows from all of them, and what compiling their texts
    /// came to. Nothing is said about labels where there is no Node.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (slot, grant) in &self.policies.grants {
            findings.extend(self.findings_of_slot(slot, grant));
        }
        if !self.config.has_node() {
            return findings;
        }
        if self.is_all_listed() {
            findings.extend(self.bundles_without_labels().map(labels_by_bundle));
        }
        findings.extend(self.collisions());
        findings.extend(self.policy_collisions());
        findings
    }

    fn findings_of_slot(&self, slot: &Slot, grant: &Grant) -> Vec<Finding> {
        let diagnostics = match grant {
            Grant::Taken { name, by } => vec![taken(slot, name, by)],
            Grant::Granted(document) | Grant::Waiting(document) => {
                self.policies.diagnostics(document.digest()).to_vec()
            }
            Grant::Refused | Grant::Undecided { .. } => Vec::new(),
        };
        diagnostics.into_iter().map(|diagnostic| self.finding(slot, diagnostic)).collect()
    }

    /// `diagnostic`, which is about the text at `slot`.
    fn finding(&self, slot: &Slot, diagnostic: Diagnostic) -> Finding {
        let reference = Reference::new(&self.config.home, &slot.bundle, slot.key.clone());
        Finding { bundle: slot.bundle.clone(), reference: Some(reference), diagnostic }
    }

    /// The same as [`Self::collisions`], of AppArmor profiles.
    fn policy_collisions(&self) -> Vec<Finding> {
        let mut sharing: BTreeMap<&LabelKey, Vec<(&ProfileName, &Slot)>> = BTreeMap::new();
        for (name, profile) in &self.policies.profiles {
            sharing.entry(&profile.label).or_default().extend(profile.slot().map(|slot| (name, slot)));
        }
        let mut findings = Vec::new();
        for (label, names) in sharing.into_iter().filter(|(_, names)| names.len() > 1) {
            for (index, (_, slot)) in names.iter().enumerate() {
                let (other, _) = names[usize::from(index == 0)];
                findings.push(self.finding(slot, collision(&slot.key, other, label)));
            }
        }
        findings
    }

    /// The bundles whose profiles would have labels if there were not too many.
    fn bundles_without_labels(&self) -> impl Iterator<Item = &Bundle> {
        let standings = self.standings_of_profiles();
        let bundles = self.bundles.values().filter(|bundle| bundle.has_profile_labels);
        bundles.filter(move |bundle| !standings.contains_key(&bundle.id))
    }

    fn collisions(&self) -> Vec<Finding> {
        let mut sharing: BTreeMap<&LabelKey, Vec<&Reference>> = BTreeMap::new();
        for (reference, file) in self.files.iter().filter(|(_, file)| file.is_wanted()) {
            sharing.entry(&file.label).or_default().push(reference);
        }
        let mut findings = Vec::new();
        for (label, references) in sharing.into_iter().filter(|(_, references)| references.len() > 1) {
            for (index, reference) in references.iter().enumerate() {
                let other = references[usize::from(index == 0)];
                findings.push(Finding {
                    bundle: reference.bundle_id(&self.config.home),
                    reference: Some((*reference).clone()),
                    diagnostic: collision(reference.key(), other, label),
                });
            }
        }
        findings
    }
}

fn labels_by_bundle(bundle: &Bundle) -> Finding {
    let diagnostic = Diagnostic {
        code: Code::LabelsByBundle,
        place: Place::at("$.data"),
        message: format!(
            "its {} profiles have no labels: a Node has {MOST} of them at most, and older bundles come first",
            bundle.profiles.len()
        ),
        help: "select nodes by the bundle's label, or annotate others with pavise.dev/node-labels: bundle",
    };
    Finding { bundle: bundle.id.clone(), reference: None, diagnostic }
}

fn taken(slot: &Slot, name: &ProfileName, by: &Slot) -> Diagnostic {
    let place = Place::at(format!("$.data[\"{}\"]", slot.key));
    if slot.bundle == by.bundle {
        return Diagnostic {
            code: Code::DuplicateProfile,
            place,
            message: format!("the key {} has the profile {name} already", by.key),
            help: "rename one of the two profiles, or take one of the texts out",
        };
    }
    Diagnostic {
        code: Code::ProfileTaken,
        place,
        message: format!("the profile {name} belongs to the older bundle {}", by.bundle),
        help: "rename the profile, or take it out of the other bundle",
    }
}

fn collision(key: &ProfileKey, other: &impl fmt::Display, label: &LabelKey) -> Diagnostic {
    Diagnostic {
        code: Code::LabelCollision,
        place: Place::at(format!("$.data[\"{key}\"]")),
        message: format!(
            "its label {label} is shortened, and {other} has the same: it stands only while all are loaded"
        ),
        help: "rename one of them",
    }
}
