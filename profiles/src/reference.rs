//! What a pod writes into `localhostProfile`, and where that file is.
//!
//! Invariant: a bundle and a key have one [`Reference`], and no two of them share one. A bundle's name can't
//! hold `_` or `/` and a key can't hold `/`, so `<bundle>/<key>` and `_<namespace>/<bundle>/<key>` read back
//! in one way only; whether a reference of another bundle takes a path needs no check at run time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::BundleId;
use crate::name::{BundleName, InvalidName, Namespace, ProfileKey};

/// A reference, which is also the file's path below `<kubelet root>/seccomp`.
///
/// `<bundle>/<key>` for a bundle of the home namespace, `_<namespace>/<bundle>/<key>` for one of another.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    namespace: Option<Namespace>,
    bundle: BundleName,
    key: ProfileKey,
}

/// A text that is not a reference to something of ours.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum InvalidReference {
    /// The number of components is wrong, or the first does not tell a namespace where it has to.
    #[error("{0:?} is neither <bundle>/<key> nor _<namespace>/<bundle>/<key>")]
    Shape(String),
    /// One component is not the name it has to be.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl Reference {
    /// The reference of `key` in the bundle `id`, where bundles of `home` need no namespace.
    #[must_use]
    pub fn new(home: &Namespace, id: &BundleId, key: ProfileKey) -> Self {
        let namespace = (id.namespace != *home).then(|| id.namespace.clone());
        Self { namespace, bundle: id.name.clone(), key }
    }

    /// The bundle that it is a reference into.
    #[must_use]
    pub fn bundle_id(&self, home: &Namespace) -> BundleId {
        let namespace = self.namespace.as_ref().unwrap_or(home).clone();
        BundleId { namespace, name: self.bundle.clone() }
    }

    /// The bundle's namespace; none for the home namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// The bundle's name.
    #[must_use]
    pub fn bundle(&self) -> &BundleName {
        &self.bundle
    }

    /// The key in the bundle.
    #[must_use]
    pub fn key(&self) -> &ProfileKey {
        &self.key
    }

    /// The directories on the way to the file, relative to `<kubelet root>/seccomp`, outermost first.
    #[must_use]
    pub fn directories(&self) -> Vec<String> {
        match &self.namespace {
            None => vec![self.bundle.to_string()],
            Some(namespace) => vec![format!("_{namespace}"), format!("_{namespace}/{}", self.bundle)],
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "_{namespace}/")?;
        }
        write!(f, "{}/{}", self.bundle, self.key)
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let shape = || InvalidReference::Shape(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, bundle, key) = match parts[..] {
            [bundle, key] => (None, bundle, key),
            [first, bundle, key] => (Some(first.strip_prefix('_').ok_or_else(shape)?), bundle, key),
            _ => return Err(shape()),
        };
        Ok(Self {
            namespace: namespace.map(Namespace::new).transpose()?,
            bundle: BundleName::new(bundle)?,
            key: ProfileKey::new(key)?,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(namespace: &str, expected: &str, directories: &[&str]) {
        let home = Namespace::new("pavise-profiles").unwrap();
        let id = BundleId::new(namespace, "web").unwrap();
        let reference = Reference::new(&home, &id, ProfileKey::new("audit.json").unwrap());
        assert_eq!(reference.to_string(), expected);
        assert_eq!(expected.parse(), Ok(reference.clone()));
        assert_eq!(reference.bundle_id(&home), id);
        assert_eq!(reference.directories(), directories);
    }

    #[test]
    fn a_bundle_at_home_needs_no_namespace() {
        check("pavise-profiles", "web/audit.json", &["web"]);
    }

    #[test]
    fn a_bundle_elsewhere_names_its_namespace() {
        check("team-a", "_team-a/web/audit.json", &["_team-a", "_team-a/web"]);
    }

    #[test]
    fn what_is_not_ours_is_no_reference() {
        for text in
            ["", "a", "/a", "a/", "a/b/c", "_a/b", "_/a/b", "_a/b/c/d", "a/../b", "a/..", "a//b", "/a/b"]
        {
            assert!(text.parse::<Reference>().is_err(), "{text:?} should be refused");
        }
    }
}
