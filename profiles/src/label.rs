//! The labels that tell the scheduler what a node has loaded.
//!
//! Invariant: a [`LabelKey`] is a key that the API server accepts and that only this project uses. It follows
//! from the reference alone.
//!
//! | label | stands while |
//! |---|---|
//! | `seccomp.pavise.dev/<bundle>_<key>` | the profile of a bundle in the home namespace is loaded |
//! | `<namespace>.seccomp.pavise.dev/<bundle>_<key>` | the same, in another namespace |
//! | `apparmor.pavise.dev/<name>` | the AppArmor profile of that name is loaded |
//! | `bundle.pavise.dev/<bundle>`, `<namespace>.bundle.pavise.dev/<bundle>` | all profiles of the bundle are loaded |
//!
//! and, once it stands, while a pod of the node selects on it. Not every bundle has labels for its profiles:
//! [`crate::labelling`] says which.
//!
//! The part after `/` must have at most 63 characters of `[-._A-Za-z0-9]` and start and end with a letter or
//! digit. One that does not is shortened: its first 46 characters (`_` for those that are not allowed, `x`
//! before one that can't be the first), `_`, and the first 16 hex digits of its SHA-256. Two references can
//! then share a label (an author can even arrange for it), so a label stands only while *all* that share it
//! are loaded.

use std::fmt;
use std::sync::Arc;

use crate::apparmor::name::ProfileName;
use crate::digest::Digest;
use crate::name::{BundleName, Namespace, is_dns_part};
use crate::reference::Reference;

/// The value of every label of ours, as node-feature-discovery has it.
pub const LABEL_VALUE: &str = "true";

const PROJECT: &str = "pavise.dev";
const SECCOMP: &str = "seccomp.pavise.dev";
const APPARMOR: &str = "apparmor.pavise.dev";
const BUNDLE: &str = "bundle.pavise.dev";

/// Longest name of a label, after the `/`.
const LONGEST: usize = 63;
/// What of a name is kept when it is shortened: `_` and 16 digits follow.
const KEPT: usize = LONGEST - 17;

/// The key of a node label of ours. Cloning one is cheap.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LabelKey(Arc<str>);

impl LabelKey {
    /// The label of one profile.
    #[must_use]
    pub fn of_profile(reference: &Reference) -> Self {
        let name = format!("{}_{}", reference.bundle(), reference.key());
        Self::new(reference.namespace(), SECCOMP, &name)
    }

    /// The label of an AppArmor profile. Kernels have one name for it, whatever the bundle's namespace.
    #[must_use]
    pub fn of_policy(name: &ProfileName) -> Self {
        Self::new(None, APPARMOR, name.as_str())
    }

    /// The label of a whole bundle; `namespace` is none for the home namespace.
    #[must_use]
    pub fn of_bundle(namespace: Option<&Namespace>, bundle: &BundleName) -> Self {
        Self::new(namespace, BUNDLE, bundle.as_str())
    }

    /// The label that follows from a reference to a seccomp profile alone, if it fits as it is.
    pub(crate) fn by_rule(reference: &str) -> Option<Self> {
        let reference: Reference = reference.parse().ok()?;
        let name = format!("{}_{}", reference.bundle(), reference.key());
        fits(&name).then(|| Self::of_profile(&reference))
    }

    /// The same of the name of an AppArmor profile.
    pub(crate) fn by_rule_of_policy(name: &str) -> Option<Self> {
        let name = ProfileName::new(name).ok()?;
        fits(name.as_str()).then(|| Self::of_policy(&name))
    }

    /// A key seen on a Node, if it is one that only this project sets.
    #[must_use]
    pub fn observed(key: &str) -> Option<Self> {
        Self::is_ours(key).then(|| Self(key.into()))
    }

    /// Whether `key` is in a name space of ours: whatever stands there, we may set and unset.
    ///
    /// The same as `^([a-z0-9]([-a-z0-9]*[a-z0-9])?[.])?(seccomp|apparmor|bundle)[.]pavise[.]dev/`.
    #[must_use]
    pub fn is_ours(key: &str) -> bool {
        before_domain(key).is_some_and(|rest| match rest.strip_suffix('.') {
            Some(namespace) => is_dns_part(namespace),
            None => rest.is_empty(),
        })
    }

    /// Whether `key` is below a domain of this project at all, so that it may one day be ours.
    pub(crate) fn is_of_project(key: &str) -> bool {
        let domain = key.split_once('/').and_then(|(prefix, _)| prefix.strip_suffix(PROJECT));
        domain.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Whether it is the label of an AppArmor profile: which bundle that is of does not follow from it.
    pub(crate) fn is_of_policy(&self) -> bool {
        self.0.split_once('/').is_some_and(|(prefix, _)| prefix == APPARMOR)
    }

    /// Whether it is the label of one profile, not of a bundle.
    pub(crate) fn is_of_profile(&self) -> bool {
        self.0.split_once('/').is_some_and(|(prefix, _)| !prefix.ends_with(BUNDLE))
    }

    /// The namespace of the profile or bundle that it is the label of; none for the home namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        before_domain(&self.0)?.strip_suffix('.')
    }

    /// Whether it can be the shortened name of something else than what its name says.
    pub(crate) fn may_be_shortened(&self) -> bool {
        let (name, digest) = self.name().rsplit_once('_').unwrap_or_default();
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        !name.is_empty() && name.len() <= KEPT && digest.len() == 16 && digest.bytes().all(is_digit)
    }

    /// Whether it can be the label of a profile of the bundle `bundle`: all such begin with the bundle's name.
    pub(crate) fn may_be_of(&self, bundle: &BundleName) -> bool {
        let bundle = bundle.as_str();
        self.name().starts_with(&bundle[..bundle.floor_char_boundary(KEPT)])
    }

    /// What stands after its `/`.
    pub(crate) fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// The key as the API server writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(namespace: Option<&Namespace>, domain: &str, name: &str) -> Self {
        let prefix = namespace.map(|namespace| format!("{namespace}.")).unwrap_or_default();
        Self(format!("{prefix}{domain}/{}", fitted(name)).into())
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands before the domain of ours in the prefix of `key`, if there is such a domain.
fn before_domain(key: &str) -> Option<&str> {
    let (prefix, _) = key.split_once('/')?;
    [SECCOMP, APPARMOR, BUNDLE].into_iter().find_map(|domain| prefix.strip_suffix(domain))
}

/// `name`, shortened if a label can't hold it: of what is kept, `_` stands for what no label can have, and
/// `x` goes before what it can't start with. It is ASCII.
fn fitted(name: &str) -> String {
    if fits(name) {
        return name.to_owned();
    }
    let start = if name.starts_with(|c: char| c.is_ascii_alphanumeric()) { "" } else { "x" };
    let kept = start.chars().chain(name.chars().map(|c| if is_allowed(c) { c } else { '_' }));
    format!("{}_{}", kept.take(KEPT).collect::<String>(), Digest::of(name.as_bytes()).short())
}

/// Whether a label can have `name` after its `/`.
fn fits(name: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_alphanumeric();
    let is_short = name.len() <= LONGEST && name.chars().all(is_allowed);
    is_short && name.starts_with(is_alphanumeric) && name.ends_with(is_alphanumeric)
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reference: &str, profile: &str, bundle: &str) {
        let reference: Reference = reference.parse().unwrap();
        let labels = [
            LabelKey::of_profile(&reference),
            LabelKey::of_bundle(reference.namespace(), reference.bundle()),
        ];
        assert_eq!(labels.each_ref().map(LabelKey::as_str), [profile, bundle]);
        for label in &labels {
            assert!(LabelKey::is_ours(label.as_str()));
            assert_eq!(label.namespace(), reference.namespace().map(Namespace::as_str));
            let name = label.as_str().split_once('/').unwrap().1;
            assert!(name.len() <= 63 && name.ends_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
        }
    }

    #[test]
    fn a_label_follows_from_the_reference() {
        check("web/audit.json", "seccomp.pavise.dev/web_audit.json", "bundle.pavise.dev/web");
        check(
            "_team-a/web/audit.json",
            "team-a.seccomp.pavise.dev/web_audit.json",
            "team-a.bundle.pavise.dev/web",
        );
    }

    #[test]
    fn a_name_that_does_not_fit_is_shortened() {
        check("web/a.", "seccomp.pavise.dev/web_a._37b4857a1749fe1c", "bundle.pavise.dev/web");
        let fits = "k".repeat(59);
        check(&format!("web/{fits}"), &format!("seccomp.pavise.dev/web_{fits}"), "bundle.pavise.dev/web");
        check(
            &format!("web/{}", "k".repeat(60)),
            "seccomp.pavise.dev/web_kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk_efcec6c18e5c40f6",
            "bundle.pavise.dev/web",
        );
        check(
            &format!("{}/k", "b".repeat(64)),
            "seccomp.pavise.dev/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_4e3697f1c4f468cf",
            "bundle.pavise.dev/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_a0fab1377f49a759",
        );
    }

    #[test]
    fn the_label_of_an_apparmor_profile_follows_from_its_name() {
        for (name, label) in [
            ("deny-write", "deny-write"),
            ("team/web", "team_web_a5cb1ff62f8ed32c"),
            ("_x", "x_x_a01e47cb4cec0963"),
            ("a+", "a__85e200cddd8f0561"),
        ] {
            let key = LabelKey::of_policy(&ProfileName::new(name).unwrap());
            assert_eq!(key.as_str(), format!("apparmor.pavise.dev/{label}"));
            assert!(key.is_of_profile() && key.namespace().is_none());
        }
    }

    #[test]
    fn only_our_own_name_spaces_are_ours() {
        let long = format!("{}.seccomp.pavise.dev/x", "a".repeat(64));
        for key in [
            "seccomp.pavise.dev/x",
            "apparmor.pavise.dev/",
            "bundle.pavise.dev/x/y",
            "a-b.bundle.pavise.dev/x",
            &long,
        ] {
            assert!(LabelKey::is_ours(key), "{key} is ours");
        }
        for key in [
            "seccomp.pavise.dev",
            "pavise.dev/not-ready",
            "xseccomp.pavise.dev/x",
            ".seccomp.pavise.dev/x",
            "a.b.seccomp.pavise.dev/x",
            "-a.seccomp.pavise.dev/x",
            "A.seccomp.pavise.dev/x",
            "seccomp.pavise.dev.example/x",
            "kubernetes.io/hostname",
        ] {
            assert!(!LabelKey::is_ours(key), "{key} is not ours");
        }
    }
}
