//! What an author publishes: one ConfigMap's worth of profiles, each judged.
//!
//! Invariant: refusals are per profile. A [`Bundle`] can always be made, whatever its ConfigMap holds; what is
//! wrong with it is in its diagnostics, and the rest is served.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::digest::Digest;
use crate::name::{BundleName, InvalidName, Namespace, ProfileKey};
use crate::platform::Platform;
use crate::seccomp;

/// Which bundle: the namespace and name of its ConfigMap. Written `<namespace>/<name>`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BundleId {
    /// The namespace of the ConfigMap.
    pub namespace: Namespace,
    /// The name of the ConfigMap.
    pub name: BundleName,
}

impl BundleId {
    /// Checks both names.
    ///
    /// # Errors
    /// [`InvalidName`] for the first that is not valid.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { namespace: Namespace::new(namespace)?, name: BundleName::new(name)? })
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A bundle as it was last seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// Which bundle it is.
    pub id: BundleId,
    /// Its profiles, accepted or refused.
    pub profiles: BTreeMap<ProfileKey, Profile>,
    /// Findings about the bundle itself; those about one profile are with the profile.
    pub diagnostics: Vec<Diagnostic>,
}

impl Bundle {
    /// Judges the ConfigMap `id`: `data` as it stands there, and the keys of its `binaryData`.
    #[must_use]
    pub fn of_seccomp(id: BundleId, data: BTreeMap<String, String>, binary_keys: Vec<String>) -> Self {
        let mut bundle = Self { id, profiles: BTreeMap::new(), diagnostics: Vec::new() };
        for (key, text) in data {
            bundle.add("data", &key, Profile::of_seccomp(text));
        }
        for key in binary_keys {
            bundle.add("binaryData", &key, Profile::Refused(vec![binary(&key)]));
        }
        if bundle.profiles.is_empty() {
            bundle.diagnostics.push(empty());
        }
        bundle
    }

    fn add(&mut self, field: &str, key: &str, profile: Profile) {
        match ProfileKey::new(key) {
            Ok(key) => drop(self.profiles.insert(key, profile)),
            Err(error) => self.diagnostics.push(Diagnostic {
                code: Code::InvalidKey,
                place: Place::at(format!("$.{field}[{key:?}]")),
                message: error.to_string(),
                help: "rename the key",
            }),
        }
    }

    /// Whether nothing is wrong with the bundle as a whole, so that its profiles are all there is to it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !has_error(&self.diagnostics)
    }
}

/// One key of a bundle, judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Profile {
    /// It may be put on nodes, in spite of these warnings.
    Accepted(Document, Vec<Diagnostic>),
    /// It must not, for these reasons.
    Refused(Vec<Diagnostic>),
}

impl Profile {
    fn of_seccomp(text: String) -> Self {
        let diagnostics = seccomp::check(&text, Platform::of_this_program());
        if has_error(&diagnostics) {
            return Self::Refused(diagnostics);
        }
        Self::Accepted(Document::new(text), diagnostics)
    }

    /// What is to be said of it: warnings, or the reasons for its refusal.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Accepted(_, diagnostics) | Self::Refused(diagnostics) => diagnostics,
        }
    }
}

/// An accepted content. Cloning one is cheap.
#[derive(Clone, Debug)]
pub struct Document {
    content: Arc<str>,
    digest: Digest,
}

impl Document {
    fn new(text: String) -> Self {
        Self { digest: Digest::of(text.as_bytes()), content: text.into() }
    }

    /// The bytes, as the author wrote them.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.content.as_bytes()
    }

    /// The digest of [`Self::content`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Document {}

fn has_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error)
}

fn binary(key: &str) -> Diagnostic {
    Diagnostic {
        code: Code::BinaryData,
        place: Place::at(format!("$.binaryData[{key:?}]")),
        message: "the document is in binaryData, so it is not UTF-8 text".to_owned(),
        help: "put it into data, as UTF-8 without a byte order mark",
    }
}

fn empty() -> Diagnostic {
    Diagnostic {
        code: Code::EmptyBundle,
        place: Place::at("$.data"),
        message: "the bundle holds no profile".to_owned(),
        help: "add one profile per key, or delete the ConfigMap",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

    /// Claims which keys are accepted and refused, and the codes of the bundle's own diagnostics.
    fn check(data: &[(&str, &str)], binary: &[&str], accepted: &[&str], refused: &[&str], codes: &[Code]) {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let binary = binary.iter().map(|key| (*key).to_owned()).collect();
        let bundle = Bundle::of_seccomp(BundleId::new("ns", "b").unwrap(), data, binary);
        let (good, bad): (Vec<_>, Vec<_>) =
            bundle.profiles.iter().partition(|(_, profile)| matches!(profile, Profile::Accepted(..)));
        assert_eq!(good.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), accepted);
        assert_eq!(bad.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), refused);
        assert_eq!(bundle.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), codes);
    }

    #[test]
    fn one_bad_profile_does_not_keep_the_others_out() {
        check(&[("a.json", GOOD), ("b.json", "{}")], &[], &["a.json"], &["b.json"], &[]);
    }

    #[test]
    fn binary_data_is_refused_and_the_rest_is_served() {
        check(&[("a.json", GOOD)], &["z.json"], &["a.json"], &["z.json"], &[]);
    }

    #[test]
    fn a_key_that_is_no_path_component_is_refused_and_the_rest_is_served() {
        check(&[("a.json", GOOD), ("../b", GOOD)], &["c/d"], &["a.json"], &[], &[Code::InvalidKey; 2]);
    }

    #[test]
    fn an_empty_bundle_is_worth_a_warning() {
        check(&[], &[], &[], &[], &[Code::EmptyBundle]);
        assert_eq!(Code::EmptyBundle.severity(), Severity::Warning);
    }
}
