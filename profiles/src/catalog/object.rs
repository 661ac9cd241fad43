//! What the object `ProfileCatalog` holds: what an administrator says of profiles, and what bundles declare.
//!
//! There is one, [`NAME`]. Admission policies have it as their parameter, so what is decided here is decided
//! there, too, in CEL: `manifests/components/place` and `manifests/components/validate`. The end-to-end tests
//! compare the two.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bundle::Kind;
use crate::label::LabelKey;
use crate::level::Level;
use crate::sight::SeccompPath;

/// The name of the one object.
pub const NAME: &str = "pavise";
/// How many entries a list of the administrator's has at most: policies look at each, for each container.
const MOST: usize = 64;
/// How many characters an entry has at most: the user of a ServiceAccount may have 340.
const LONGEST: usize = 512;

/// The longest reference of a bundle is `_`, a namespace of 63 characters, a name and a key of 253, and two `/`.
const LONGEST_REFERENCE: usize = 600;

/// The profiles that bundles declare, and what the cluster's administrator requires of pods. Admission
/// policies decide by this object.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct ProfileCatalog {
    /// What the administrator requires of pods, and knows about profiles. The catalog never writes it.
    pub spec: Spec,
    /// What bundles declare. Only the catalog writes it.
    pub status: Status,
}

/// What the administrator requires of pods, and knows about profiles.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The levels of namespaces without a label of their own: unrestricted, known, confined or localhost.
    pub defaults: Defaults,
    /// Namespaces, runtime classes and users that no level applies to.
    pub exemptions: Exemptions,
    /// References to profiles that something other than bundles puts on all nodes. A reference that ends with
    /// `*` stands for all references that begin with what is before it.
    pub also_known: AlsoKnown,
}

/// The levels of namespaces without a label of their own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Defaults {
    /// The level for namespaces without the label pavise.dev/enforce. Pods below it are refused. Needs the
    /// component manifests/components/enforce-by-default.
    pub enforce: Level,
    /// The level for namespaces without the label pavise.dev/warn. Whoever creates pods below it, or objects
    /// that create such pods, gets a warning.
    pub warn: Level,
    /// The level for namespaces without the label pavise.dev/audit. Pods below it, and objects that create
    /// such pods, are noted in the API server's audit log.
    pub audit: Level,
}

/// Namespaces, runtime classes and users that no level applies to.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Exemptions {
    /// Users whose requests no level applies to. The pods of a Deployment are created by a controller's user,
    /// not by the Deployment's author.
    #[schemars(length(max = MOST), inner(length(min = 1, max = LONGEST)))]
    pub usernames: Vec<String>,
    /// Values of runtimeClassName: no level applies to pods with one of them.
    #[schemars(length(max = MOST), inner(length(min = 1, max = LONGEST)))]
    pub runtime_classes: Vec<String>,
    /// Namespaces that no level applies to.
    #[schemars(length(max = MOST), inner(length(min = 1, max = LONGEST)))]
    pub namespaces: Vec<String>,
}

/// References to profiles that something other than bundles puts on all nodes. A reference that ends with `*`
/// stands for all references that begin with what is before it.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AlsoKnown {
    /// References to seccomp profiles that are on all nodes: paths below the kubelet's directory seccomp.
    #[schemars(length(max = MOST), inner(length(min = 1, max = LONGEST)))]
    pub seccomp: Vec<String>,
    /// Names of AppArmor profiles that are on all nodes.
    #[schemars(length(max = MOST), inner(length(min = 1, max = LONGEST)))]
    pub app_armor: Vec<String>,
}

/// What bundles declare.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// References to seccomp profiles, each with the Node label that says where it is loaded.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub seccomp: BTreeMap<String, String>,
    /// AppArmor profile names, each with the Node label that says where it is loaded.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub app_armor: BTreeMap<String, String>,
    /// Numbers of references that bundles declare.
    pub totals: Totals,
}

/// Numbers of references that bundles declare.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Totals {
    /// Number of references to seccomp profiles.
    pub seccomp: u32,
    /// Number of references to AppArmor profiles.
    pub app_armor: u32,
    /// Number of references that the object has no room for. They count as declared by nobody.
    pub omitted: u32,
}

/// What a pod has to select on for one of its references.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selection {
    /// Nothing: the profile is on all nodes, and not through bundles.
    Nothing,
    /// This label.
    Label(LabelKey),
    /// There is no label of it: the pod can't be placed.
    Impossible,
}

impl ProfileCatalog {
    /// Whether `reference` is declared, by a bundle or by the administrator.
    #[must_use]
    pub fn is_known(&self, kind: Kind, reference: &str) -> bool {
        self.selection_known(kind, reference).is_some()
    }

    /// What a pod has to select on that refers to `reference`.
    #[must_use]
    pub fn selection(&self, kind: Kind, reference: &str) -> Selection {
        let by_rule = || match kind {
            Kind::Seccomp => LabelKey::by_rule(&meant(reference)?),
            Kind::AppArmor => LabelKey::by_rule_of_policy(reference),
        };
        let known = self.selection_known(kind, reference);
        known.or_else(|| by_rule().map(Selection::Label)).unwrap_or(Selection::Impossible)
    }

    fn selection_known(&self, kind: Kind, reference: &str) -> Option<Selection> {
        let (also_known, labels, reference) = match kind {
            Kind::Seccomp => (&self.spec.also_known.seccomp, &self.status.seccomp, meant(reference)?),
            Kind::AppArmor => (&self.spec.also_known.app_armor, &self.status.app_armor, reference.into()),
        };
        let is_it = |known: &String| match known.strip_suffix('*') {
            Some(beginning) => reference.starts_with(beginning),
            None => *known == reference,
        };
        if also_known.iter().any(is_it) {
            return Some(Selection::Nothing);
        }
        labels.get(&*reference).and_then(|label| LabelKey::observed(label)).map(Selection::Label)
    }
}

/// The path that `reference` to a seccomp profile means. A long one is taken as it is written: policies would need too
/// many steps for it, and none of a bundle is as long.
fn meant(reference: &str) -> Option<Cow<'_, str>> {
    if reference.chars().count() > LONGEST_REFERENCE {
        return Some(reference.into());
    }
    SeccompPath::of(reference).map(|path| path.as_str().to_owned().into())
}
