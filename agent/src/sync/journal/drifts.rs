//! What somebody did to profiles that were loaded.
//!
//! Invariant: a drift is news once, until the profile is right again.

use std::collections::{BTreeMap, BTreeSet};

/// What is in the place of a profile that is gone.
pub(super) const NOTHING: &str = "nothing";

/// The drifts of profiles that are known by `K`.
#[derive(Debug)]
pub(super) struct Drifts<K> {
    /// The profiles that were seen to be right.
    loaded: BTreeSet<K>,
    /// What is in the place of some now, and whether nothing more is to be logged until it is repaired.
    found: BTreeMap<K, (&'static str, bool)>,
}

impl<K> Default for Drifts<K> {
    fn default() -> Self {
        Self { loaded: BTreeSet::new(), found: BTreeMap::new() }
    }
}

impl<K: Clone + Ord> Drifts<K> {
    /// Takes over what a scan found of all profiles of ours: nothing where it is right.
    pub(super) fn scanned<'a>(&mut self, all: impl Iterator<Item = (&'a K, Option<&'static str>)>)
    where
        K: 'a,
    {
        let all: BTreeMap<&K, Option<&'static str>> = all.collect();
        self.loaded.retain(|profile| all.contains_key(profile));
        self.found.retain(|profile, _| all.contains_key(profile));
        for (profile, found) in all {
            let what = match found {
                None => {
                    self.loaded(profile);
                    continue;
                }
                // What was never seen was not written before a crash.
                Some(NOTHING) if !self.loaded.contains(profile) => continue,
                Some(what) => what,
            };
            if self.found.get(profile).is_none_or(|(before, _)| *before != what) {
                // What happened before the start is repaired when the bundles are known, and said then.
                let is_old = !self.loaded.contains(profile);
                self.found.insert(profile.clone(), (what, is_old));
            }
        }
    }

    /// The profile is as it is to be. Returns what was in its place before, if that was a drift.
    pub(super) fn loaded(&mut self, profile: &K) -> Option<&'static str> {
        self.loaded.insert(profile.clone());
        self.found.remove(profile).map(|(what, _)| what)
    }

    /// Whether the profile was last seen as it is to be.
    pub(super) fn is_loaded(&self, profile: &K) -> bool {
        self.loaded.contains(profile) && !self.found.contains_key(profile)
    }

    pub(super) fn forget(&mut self, profile: &K) {
        self.loaded.remove(profile);
        self.found.remove(profile);
    }

    /// Those that are not logged yet, which now are.
    pub(super) fn news(&mut self) -> impl Iterator<Item = (&K, &'static str)> {
        let news = self.found.iter_mut().filter(|(_, (_, is_logged))| !*is_logged);
        news.map(|(profile, (what, is_logged))| {
            *is_logged = true;
            (profile, *what)
        })
    }
}
