//! What was judged before, so that an edit of one profile among many costs as much as one profile.
//!
//! Invariant: of each bundle, the verdicts of its last version are here, and no others.

use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::{BundleId, Kind, Profile};
use crate::digest::Digest;
use crate::platform::Platform;

/// The verdicts on the bundles of a source, for one kind of node.
#[derive(Debug)]
pub struct Verdicts {
    platform: Platform,
    /// By the kinds and digests of the texts that were judged.
    last: BTreeMap<BundleId, BTreeMap<(Kind, Digest), Profile>>,
}

impl Verdicts {
    /// None yet.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self { platform, last: BTreeMap::new() }
    }

    /// Forgets a bundle that is gone.
    pub fn forget(&mut self, id: &BundleId) {
        self.last.remove(id);
    }

    /// Forgets all bundles but these, which are all that there are.
    pub fn retain(&mut self, bundles: &BTreeSet<&BundleId>) {
        self.last.retain(|id, _| bundles.contains(id));
    }

    /// Judges the texts of a new version of the bundle `id`, which is of `kind`, by their keys.
    pub(crate) fn of(
        &mut self,
        kind: Kind,
        id: &BundleId,
        data: BTreeMap<String, String>,
    ) -> Vec<(String, Profile)> {
        let mut before = self.last.remove(id).unwrap_or_default();
        let mut now = BTreeMap::new();
        let mut profiles = Vec::new();
        for (key, text) in data {
            let of = (kind, Digest::of(text.as_bytes()));
            let judge = || before.remove(&of).unwrap_or_else(|| Profile::of(kind, text, self.platform));
            profiles.push((key, now.entry(of).or_insert_with(judge).clone()));
        }
        self.last.insert(id.clone(), now);
        profiles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Bundle, Source};

    /// A version of a bundle: a key and the text at it, each.
    type Version<'t> = &'t [(&'t str, &'t str)];

    const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
    const WARNED: &str = r#"{"defaultAction":"SCMP_ACT_LOG","x":1}"#;
    const RESOLVED: &str = r#"{"defaultAction":"SCMP_ACT_LOG","defaultErrno":"EPERM"}"#;
    const REFUSED: &str = "{}";

    fn judged(verdicts: &mut Verdicts, name: &str, version: Version<'_>) -> Bundle {
        Bundle::of(Source::example(name, version), verdicts)
    }

    /// Whether two profiles are one verdict, not two equal ones.
    fn is_same(one: Option<&Profile>, other: Option<&Profile>) -> bool {
        match (one, other) {
            (Some(Profile::Accepted(one, _)), Some(Profile::Accepted(other, _))) => {
                one.content().as_ptr() == other.content().as_ptr()
            }
            (Some(Profile::Refused(one)), Some(Profile::Refused(other))) => one.as_ptr() == other.as_ptr(),
            _ => false,
        }
    }

    /// Claims which keys of the version `after` are not judged again after `before`.
    fn check(before: Version<'_>, after: Version<'_>, expected: &[&str]) {
        let mut verdicts = Verdicts::new(Platform::EXAMPLE);
        let one = judged(&mut verdicts, "b", before);
        let other = judged(&mut verdicts, "b", after);
        let of_same_text = |key: &str| {
            let text = after.iter().find(|(other, _)| *other == key)?.1;
            let (key, _) = before.iter().find(|(_, other)| *other == text)?;
            one.profiles.iter().find(|(other, _)| other.as_str() == *key).map(|(_, profile)| profile)
        };
        let kept = other.profiles.iter().filter(|(key, new)| is_same(of_same_text(key.as_str()), Some(new)));
        assert_eq!(kept.map(|(key, _)| key.as_str()).collect::<Vec<_>>(), expected);
        let fresh = judged(&mut Verdicts::new(Platform::EXAMPLE), "b", after);
        assert_eq!(other, fresh, "what is kept differs from what is judged");
    }

    #[test]
    fn what_is_unchanged_is_not_judged_again() {
        let before = [("a", GOOD), ("b", WARNED), ("c", RESOLVED), ("d", REFUSED)];
        check(&before, &before, &["a", "b", "c", "d"]);
        check(&before, &[("a", GOOD), ("b", REFUSED), ("e", RESOLVED)], &["a", "b", "e"]);
        check(&before, &[("a", " {}"), ("d", REFUSED)], &["d"]);
    }

    #[test]
    fn a_text_that_becomes_one_of_another_kind_is_judged_anew() {
        let mut verdicts = Verdicts::new(Platform::EXAMPLE);
        let seccomp = Source::example("b", &[("k", "profile a {\n}\n")]);
        let apparmor = Source { kind: "apparmor".to_owned(), ..seccomp.clone() };
        let is_accepted =
            |bundle: &Bundle| matches!(bundle.profiles.values().next(), Some(Profile::Accepted(..)));
        assert!(!is_accepted(&Bundle::of(seccomp, &mut verdicts)));
        assert!(is_accepted(&Bundle::of(apparmor, &mut verdicts)));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut verdicts = Verdicts::new(Platform::EXAMPLE);
        let size = |verdicts: &Verdicts| verdicts.last.values().map(BTreeMap::len).sum::<usize>();
        for name in ["a", "b", "c"] {
            judged(&mut verdicts, name, &[("k", GOOD), ("l", GOOD), ("m", REFUSED)]);
        }
        assert_eq!(size(&verdicts), 6);
        let a = judged(&mut verdicts, "a", &[("k", WARNED)]);
        assert_eq!(size(&verdicts), 5);
        verdicts.forget(&BundleId::new("ns", "b").unwrap());
        assert_eq!(size(&verdicts), 3);
        verdicts.retain(&[&a.id].into());
        assert_eq!(size(&verdicts), 1);
    }
}
