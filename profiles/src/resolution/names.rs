//! What may have been meant by a reference that nobody knows.

use std::collections::BTreeSet;

use crate::bundle::{Document, Kind, Profile};
use crate::reference::Reference;
use crate::state::State;

/// How many names are suggested.
const MOST: usize = 3;
/// So many letters are wrong at most: paths of one bundle have most of theirs in common, so that a likeness
/// in relation to the length, as for single words, would call all of them alike.
const WRONG: usize = 3;
/// A name that is a part of another has so many bytes at least.
const PART: usize = 5;
/// Longer references are not compared.
const LONGEST: usize = 253;

/// The references of one kind that mean something on this node, or would if a selector were another one.
pub(crate) fn known(state: &State, kind: Kind) -> BTreeSet<String> {
    let home = &state.config.home;
    let bundles = state.bundles.values().filter(|bundle| bundle.kind == Some(kind));
    match kind {
        Kind::Seccomp => {
            let of_bundles = bundles.flat_map(|bundle| {
                bundle.profiles.keys().map(|key| Reference::new(home, &bundle.id, key.clone()).to_string())
            });
            of_bundles.chain(state.files.keys().map(ToString::to_string)).collect()
        }
        Kind::AppArmor => {
            let documents =
                bundles.flat_map(|bundle| bundle.profiles.values()).filter_map(|profile| match profile {
                    Profile::Accepted(document, _) => Some(document),
                    Profile::Refused(_) => None,
                });
            let of_bundles = documents.flat_map(Document::names);
            of_bundles.chain(state.policies.profiles.keys()).map(ToString::to_string).collect()
        }
    }
}

/// Those of `names` that `reference` may have been meant to be, the likeliest first.
pub(crate) fn nearest<'n>(reference: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    if reference.len() > LONGEST {
        return Vec::new();
    }
    let word = reference.to_ascii_lowercase();
    let distance = |name: &'n str| Some((wrong(&word, &name.to_ascii_lowercase())?, name));
    let mut all: Vec<(usize, &str)> = names.into_iter().filter_map(distance).collect();
    all.sort_unstable();
    all.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// How far `name` is from `word`; none if it is something else.
fn wrong(word: &str, name: &str) -> Option<usize> {
    // A third of a short word makes another word of it.
    let most = WRONG.min(word.len() / 3);
    let is_as_long = word.len().abs_diff(name.len()) <= most;
    let letters = is_as_long.then(|| strsim::osa_distance(word, name)).filter(|letters| *letters <= most);
    let last = |path: &str| path.rsplit('/').next().map(|last| last.trim_end_matches(".json").to_owned());
    let is_part = |part: &str, whole: &str| part.len() >= PART && whole.contains(part);
    let is_part = || is_part(word, name) || is_part(name, word);
    let alike = || is_part().then_some(WRONG + 1).or_else(|| (last(word) == last(name)).then_some(WRONG + 2));
    letters.or_else(alike)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_understood_and_nonsense_is_not() {
        let names = [
            "profiles/audit.json",
            "profiles/fine-grained.json",
            "profiles/violation.json",
            "_team/web/audit.json",
            "deny-write",
            "web/a",
        ];
        for (reference, expected) in [
            ("profiles/adit.json", &["profiles/audit.json"][..]),
            ("Profiles/Audit.json", &["profiles/audit.json", "_team/web/audit.json"]),
            ("profiles/audit", &["profiles/audit.json", "_team/web/audit.json"]),
            ("audit.json", &["_team/web/audit.json", "profiles/audit.json"]),
            ("profiles/vialotion.json", &["profiles/violation.json"]),
            ("k8s-deny-write", &["deny-write"]),
            ("deny-wrtie", &["deny-write"]),
            ("web/b", &["web/a"]),
            ("banana", &[]),
            ("x", &[]),
        ] {
            assert_eq!(nearest(reference, names), expected, "{reference}");
        }
    }
}
