//! What the bundles say of a reference: which labels tell that a Node has it, and why one does not.
//!
//! Invariant: what was not read is never taken for what does not exist.

use std::collections::BTreeMap;

use super::Node;
use crate::apparmor::name::ProfileName;
use crate::bundle::{Bundle, BundleId, Document, Kind, Profile};
use crate::diagnostic::{Diagnostic, Severity};
use crate::label::LabelKey;
use crate::name::Namespace;
use crate::reference::Reference;
use crate::sight::SeccompPath;
use crate::suggestion;

/// What was read of the bundles.
#[derive(Debug)]
pub struct Bundles {
    /// The namespace whose bundles need none in references.
    pub home: Namespace,
    /// By namespace, what its bundles are, or why that is not known.
    pub read: BTreeMap<Namespace, Result<Vec<Bundle>, String>>,
}

/// What a reference can mean.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// A seccomp document.
    File(Reference),
    /// An AppArmor profile.
    Policy(ProfileName),
    /// Nothing that a bundle can have, for this reason.
    Nothing(String),
}

impl Target {
    /// What `reference` means to the kubelet and the runtime.
    pub(super) fn of(kind: Kind, reference: &str) -> Self {
        if reference.is_empty() {
            return Self::Nothing("it names no profile".to_owned());
        }
        match kind {
            Kind::Seccomp => match SeccompPath::of(reference) {
                None => Self::Nothing("it is no path below the kubelet's seccomp directory".to_owned()),
                Some(path) => match path.as_str().parse() {
                    Ok(reference) => Self::File(reference),
                    Err(error) => Self::Nothing(format!("no bundle can have it: {error}")),
                },
            },
            Kind::AppArmor => match ProfileName::new(reference) {
                Ok(name) => Self::Policy(name),
                Err(error) => Self::Nothing(format!("no bundle can have it: {error}")),
            },
        }
    }
}

impl Bundles {
    /// The labels that each tell that a Node has `target`: its own first.
    pub(super) fn labels(&self, target: &Target) -> Vec<LabelKey> {
        let own = match target {
            Target::File(reference) => LabelKey::of_profile(reference),
            Target::Policy(name) => LabelKey::of_policy(name),
            Target::Nothing(_) => return Vec::new(),
        };
        let bundles = self.having(target).map(|(bundle, _)| self.label(&bundle.id));
        std::iter::once(own).chain(bundles).collect()
    }

    /// Whether `key` is the label of a bundle that was not read, and that may have `target`.
    pub(super) fn may_have(&self, target: &Target, key: &LabelKey) -> bool {
        match target {
            Target::File(reference) => {
                let label = LabelKey::of_bundle(reference.namespace(), reference.bundle());
                *key == label && self.bundles_in(reference.namespace().unwrap_or(&self.home)).is_none()
            }
            Target::Policy(_) => {
                let namespace = key.namespace().map(Namespace::new).transpose();
                !key.is_of_profile()
                    && namespace
                        .is_ok_and(|one| self.bundles_in(one.as_ref().unwrap_or(&self.home)).is_none())
            }
            Target::Nothing(_) => false,
        }
    }

    /// Why the Nodes `lacking` do not have `target`, which others may have.
    pub(super) fn why(&self, target: &Target, lacking: &[&Node]) -> String {
        if let Some((bundle, profile)) = self.having(target).next() {
            return held_back(bundle, profile, lacking);
        }
        match target {
            Target::File(reference) => self.why_no_file(reference),
            Target::Policy(_) => self.why_no_policy(),
            Target::Nothing(why) => why.clone(),
        }
    }

    /// The reference to something that there is that `reference` was probably meant to be.
    pub(super) fn nearest(&self, kind: Kind, reference: &str) -> Option<String> {
        let all = self.references(kind);
        if all.iter().any(|one| one == reference) {
            return None;
        }
        suggestion::references(reference, all.iter().map(String::as_str)).first().map(ToString::to_string)
    }

    /// All that pods can refer to.
    fn references(&self, kind: Kind) -> Vec<String> {
        let of_bundle = |bundle: &Bundle| -> Vec<String> {
            let keys = bundle.profiles.iter();
            match kind {
                Kind::Seccomp => keys
                    .map(|(key, _)| Reference::new(&self.home, &bundle.id, key.clone()).to_string())
                    .collect(),
                Kind::AppArmor => {
                    keys.flat_map(|(_, profile)| names(profile)).map(ToString::to_string).collect()
                }
            }
        };
        self.of_kind(kind).flat_map(of_bundle).collect()
    }

    /// The AppArmor profiles that there are.
    pub(super) fn names(&self) -> impl Iterator<Item = &ProfileName> {
        self.of_kind(Kind::AppArmor).flat_map(|bundle| bundle.profiles.values()).flat_map(names)
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Bundle> {
        self.all().filter(move |bundle| bundle.kind == Some(kind))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Bundle> {
        self.read.values().flatten().flatten()
    }

    /// The bundles that have `target`, with the profile.
    pub(super) fn having<'b>(
        &'b self,
        target: &'b Target,
    ) -> impl Iterator<Item = (&'b Bundle, &'b Profile)> {
        self.all().filter_map(move |bundle| match target {
            Target::File(reference) => {
                let is_it =
                    bundle.kind == Some(Kind::Seccomp) && bundle.id == reference.bundle_id(&self.home);
                // The home namespace is not said in references.
                let is_said = reference.namespace() == Some(&self.home);
                (is_it && !is_said).then(|| bundle.profiles.get(reference.key()))?.map(|one| (bundle, one))
            }
            Target::Policy(name) => {
                let mut profiles = bundle.profiles.values();
                profiles.find(|profile| names(profile).any(|one| one == name)).map(|one| (bundle, one))
            }
            Target::Nothing(_) => None,
        })
    }

    /// Those of a namespace; none if they are not known.
    pub(super) fn bundles_in(&self, namespace: &Namespace) -> Option<&[Bundle]> {
        self.read.get(namespace)?.as_deref().ok()
    }

    pub(super) fn label(&self, id: &BundleId) -> LabelKey {
        LabelKey::of_bundle(Some(&id.namespace).filter(|one| **one != self.home), &id.name)
    }

    fn why_no_file(&self, reference: &Reference) -> String {
        if reference.namespace() == Some(&self.home) {
            return format!("bundles of {} are referred to without their namespace", self.home);
        }
        let id = reference.bundle_id(&self.home);
        let bundle = match self.bundle(&id) {
            Ok(bundle) => bundle,
            Err(why) => return why,
        };
        match (bundle.kind, first_error(&bundle.diagnostics)) {
            (Some(Kind::AppArmor), _) => format!("the bundle {id} holds AppArmor texts"),
            (_, Some(error)) => format!("the bundle {id} has a problem: {error}"),
            _ => format!("the bundle {id} has no key {}", reference.key()),
        }
    }

    /// The bundle `id`, or why there is none.
    fn bundle(&self, id: &BundleId) -> Result<&Bundle, String> {
        let bundles = match self.read.get(&id.namespace) {
            None => return Err(format!("the namespace {} is not among --bundle-namespace", id.namespace)),
            Some(Err(why)) => return Err(format!("the bundles of {} are not known: {why}", id.namespace)),
            Some(Ok(bundles)) => bundles,
        };
        bundles.iter().find(|bundle| bundle.id == *id).ok_or_else(|| format!("there is no bundle {id}"))
    }

    /// Why the Nodes `lacking` do not have the label of the bundle `id`, which stands where all profiles of it
    /// are loaded.
    pub(super) fn why_not_whole(&self, id: &BundleId, lacking: &[&Node]) -> String {
        let bundle = match self.bundle(id) {
            Ok(bundle) => bundle,
            Err(why) => return why,
        };
        if let Some(error) = first_error(&bundle.diagnostics) {
            return format!("the bundle {id} has a problem: {error}");
        }
        let refused = bundle.profiles.iter().find(|(_, profile)| matches!(profile, Profile::Refused(_)));
        match refused.or_else(|| bundle.profiles.first_key_value()) {
            Some((key, profile @ Profile::Refused(_))) => {
                format!(
                    "it stands where all of {id} is loaded; of its key {key}: {}",
                    held_back(bundle, profile, lacking)
                )
            }
            Some((_, profile)) => held_back(bundle, profile, lacking),
            None => format!("the bundle {id} holds no profile"),
        }
    }

    fn why_no_policy(&self) -> String {
        let is_refused =
            |bundle: &&Bundle| bundle.profiles.values().any(|one| matches!(one, Profile::Refused(_)));
        let refused = self.of_kind(Kind::AppArmor).filter(is_refused).map(|bundle| bundle.id.to_string());
        let refused: Vec<String> = refused.collect();
        let unread = self.read.iter().filter_map(|(namespace, read)| Some((namespace, read.as_ref().err()?)));
        let unread: Vec<String> = unread
            .map(|(namespace, why)| format!("; the bundles of {namespace} are not known: {why}"))
            .collect();
        let unless = match &refused[..] {
            [] => String::new(),
            some => format!(", unless a text that is refused does, in {}", some.join(", ")),
        };
        format!("no bundle declares it{unless}{}", unread.concat())
    }
}

/// Why Nodes lack `profile`, which `bundle` has.
fn held_back(bundle: &Bundle, profile: &Profile, lacking: &[&Node]) -> String {
    let id = &bundle.id;
    if bundle.nodes.is_none() {
        return format!("the annotation pavise.dev/node-selector of its bundle {id} can't be read");
    }
    if lacking.iter().all(|node| bundle.is_for(Some(&node.others)) == Some(false)) {
        return format!("its bundle {id} is for other nodes (pavise.dev/node-selector)");
    }
    match (profile, bundle.kind) {
        (Profile::Refused(findings), _) => {
            let error = first_error(findings).map(ToString::to_string).unwrap_or_default();
            format!("{id} has it, and it is refused: {error}")
        }
        (Profile::Accepted(..), Some(Kind::AppArmor)) => {
            format!("{id} declares it, and it is not loaded there: the node may lack AppArmor, or an agent")
        }
        (Profile::Accepted(..), _) => {
            format!(
                "{id} has it, and it is not loaded there: see what `kubectl get npr` says of the node's agent"
            )
        }
    }
}

fn first_error(findings: &[Diagnostic]) -> Option<&Diagnostic> {
    findings.iter().find(|finding| finding.severity() == Severity::Error)
}

/// The profiles that an accepted text declares.
fn names(profile: &Profile) -> impl Iterator<Item = &ProfileName> {
    profile.accepted().into_iter().flat_map(Document::names)
}
