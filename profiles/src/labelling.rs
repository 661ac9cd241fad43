//! Which profiles have labels, and what is to be said of all bundles together.
//!
//! Each label of a Node is sent to everybody who watches Nodes, with every change of that Node: a thousand of
//! ours are some 100 KB. So there are [`MOST`] labels of profiles. They are given to whole bundles, the
//! oldest first, and each bundle has its own label in any case. By age, so that all nodes agree, and a new
//! bundle takes no label away from an older one. What counts is what bundles ask for, not what is loaded,
//! which changes by itself.

use std::collections::BTreeMap;

use crate::bundle::{Bundle, BundleId};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::label::LabelKey;
use crate::name::ProfileKey;
use crate::plan::Standing;
use crate::reference::Reference;
use crate::state::State;

/// So many labels of profiles a Node has at most.
const MOST: usize = 256;

/// Something to be said about a bundle that follows from the others, or from the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The bundle.
    pub bundle: BundleId,
    /// The profile that it is about, if it is about one.
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
        bundles.sort_by_key(|bundle| (bundle.created.unwrap_or(i64::MAX), &bundle.id));
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
        let is_unlisted = |label: &&LabelKey| self.known_since(label.namespace()).is_none();
        let observed = self.labels.observed.iter().flat_map(BTreeMap::keys);
        observed.filter(|label| label.is_of_profile()).filter(is_unlisted).count()
    }

    /// How many labels the profiles of `bundle` ask for on this node. If it may be for other nodes, those
    /// that can stand already: a selector that can't be read takes no label away from other bundles.
    fn labels_asked(&self, bundle: &Bundle) -> usize {
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

    /// The bundles that are not for this node.
    pub fn elsewhere(&self) -> impl Iterator<Item = &BundleId> {
        let bundles = self.bundles.values().filter(|bundle| self.is_here(bundle) == Some(false));
        bundles.map(|bundle| &bundle.id)
    }

    /// What is to be said now about bundles that follows from all of them. It is about labels, so nothing
    /// where there is no Node.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.config.has_node {
            return findings;
        }
        if self.is_all_listed() {
            findings.extend(self.bundles_without_labels().map(labels_by_bundle));
        }
        findings.extend(self.collisions());
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
                    diagnostic: collision(reference, other, label),
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

fn collision(reference: &Reference, other: &Reference, label: &LabelKey) -> Diagnostic {
    Diagnostic {
        code: Code::LabelCollision,
        place: Place::at(format!("$.data[\"{}\"]", reference.key())),
        message: format!(
            "its label {label} is shortened, and {other} has the same: it stands only while all are loaded"
        ),
        help: "rename one of them",
    }
}
