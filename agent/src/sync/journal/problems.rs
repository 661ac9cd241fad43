//! Problems that last.
//!
//! Invariant: one is news when it begins and when it changes.

use std::collections::BTreeMap;

/// The last problem of each thing that has one.
#[derive(Debug)]
pub(super) struct Problems<K>(pub(super) BTreeMap<K, String>);

impl<K> Default for Problems<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Clone + Ord> Problems<K> {
    /// Whether this problem was not the last one of `thing`.
    pub(super) fn is_news(&mut self, thing: &K, text: &str) -> bool {
        let before = self.0.insert(thing.clone(), text.to_owned());
        before.as_deref() != Some(text)
    }
}
