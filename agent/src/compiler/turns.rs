//! Whose text the compiler works on next.
//!
//! Invariant: no more texts are out than the compiler works on at a time. The next one is of the namespace, and
//! in that of the bundle, that has had the least of the compiler's time since a text had to wait. So who has
//! many texts, or such as take long, has others wait for the one that is out, and not for all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use profiles::bundle::BundleId;
use profiles::digest::Digest;
use profiles::name::Namespace;
use tokio::time::Instant;

/// The texts that wait, each with a `T`, and those that are out.
#[derive(Debug)]
pub(super) struct Turns<T> {
    most: usize,
    /// In the order in which they came.
    waiting: Vec<Waiting<T>>,
    out: BTreeMap<Digest, Out>,
    /// What each has had of the compiler's time.
    bundles: BTreeMap<BundleId, Duration>,
    namespaces: BTreeMap<Namespace, Duration>,
}

#[derive(Debug)]
struct Waiting<T> {
    text: Digest,
    bundles: BTreeSet<BundleId>,
    content: T,
}

#[derive(Debug)]
struct Out {
    bundles: BTreeSet<BundleId>,
    since: Instant,
}

impl<T> Turns<T> {
    /// Nothing waits yet, and `most` texts can be out at a time.
    pub(super) fn new(most: usize) -> Self {
        let (bundles, namespaces) = (BTreeMap::new(), BTreeMap::new());
        Self { most, waiting: Vec::new(), out: BTreeMap::new(), bundles, namespaces }
    }

    /// Whether `text` waits or is out.
    pub(super) fn has(&self, text: Digest) -> bool {
        self.out.contains_key(&text) || self.waiting.iter().any(|waiting| waiting.text == text)
    }

    /// Has `text`, which these bundles have, wait for its turn. One that no bundle has any more comes first:
    /// something that is loaded needs it.
    pub(super) fn wait(&mut self, text: Digest, bundles: BTreeSet<BundleId>, content: T) {
        self.waiting.push(Waiting { text, bundles, content });
    }

    /// The text whose turn it is, if another one can be out. From now on it is.
    pub(super) fn next(&mut self) -> Option<(Digest, T)> {
        if self.out.len() >= self.most {
            return None;
        }
        let all = self.waiting.iter().enumerate();
        let (first, _) = all.min_by_key(|(_, waiting)| self.had(&waiting.bundles))?;
        let Waiting { text, bundles, content } = self.waiting.remove(first);
        self.out.insert(text, Out { bundles, since: Instant::now() });
        Some((text, content))
    }

    /// Nothing is done about `text` any more.
    pub(super) fn ended(&mut self, text: Digest) {
        let Some(Out { bundles, since }) = self.out.remove(&text) else { return };
        let namespaces: BTreeSet<Namespace> = bundles.iter().map(|bundle| bundle.namespace.clone()).collect();
        for bundle in bundles {
            *self.bundles.entry(bundle).or_default() += since.elapsed();
        }
        for namespace in namespaces {
            *self.namespaces.entry(namespace).or_default() += since.elapsed();
        }
        if self.waiting.is_empty() {
            self.bundles.clear();
            self.namespaces.clear();
        }
    }

    /// Gives up what waits and is not `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(Digest) -> bool) {
        self.waiting.retain(|waiting| wanted(waiting.text));
    }

    /// How much of the compiler's time the one of `bundles` had, with its namespace, that had the least.
    fn had(&self, bundles: &BTreeSet<BundleId>) -> Option<(Duration, Duration)> {
        let had = |bundle: &BundleId| {
            let of_namespace = self.namespaces.get(&bundle.namespace).copied();
            (of_namespace.unwrap_or_default(), self.bundles.get(bundle).copied().unwrap_or_default())
        };
        bundles.iter().map(had).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims in which order texts are out, one at a time. Each is its bundles, and how many seconds it takes;
    /// a text waits from the moment on at which the one out is the first of its group.
    async fn check(groups: &[&[(&str, u64)]], expected: &[&str]) {
        let mut turns = Turns::new(1);
        let mut order = Vec::new();
        let mut number = 0_u32;
        for group in groups {
            for (bundles, seconds) in *group {
                let id = |bundle: &str| {
                    let (namespace, name) = bundle.split_once('/').unwrap();
                    BundleId::new(namespace, name).unwrap()
                };
                let text = Digest::of(number.to_string().as_bytes());
                number += 1;
                let bundles_of_it = bundles.split_whitespace().map(id).collect();
                turns.wait(text, bundles_of_it, ((*bundles).to_owned(), *seconds));
                assert!(turns.has(text));
            }
            // Of the last group all have their turn, of the others one.
            let is_last = std::ptr::eq(*group, groups[groups.len() - 1]);
            for _ in 0..if is_last { usize::MAX } else { 1 } {
                let Some((text, (bundles, seconds))) = turns.next() else { break };
                assert!(turns.has(text) && turns.next().is_none(), "two are out");
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                turns.ended(text);
                assert!(!turns.has(text));
                order.push(bundles);
            }
        }
        assert_eq!(order, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_had_the_least_of_the_compiler_is_next() {
        check(&[&[("a/x", 1), ("a/y", 1)]], &["a/x", "a/y"]).await;
        // Many of one bundle.
        check(
            &[&[("a/x", 30), ("a/x", 30), ("a/x", 30)], &[("a/y", 1), ("a/y", 1)]],
            &["a/x", "a/y", "a/y", "a/x", "a/x"],
        )
        .await;
        // One each of many bundles in one namespace.
        check(
            &[&[("a/1", 30), ("a/2", 30), ("a/3", 30)], &[("b/x", 20), ("b/x", 20), ("b/x", 20)]],
            &["a/1", "b/x", "b/x", "a/2", "b/x", "a/3"],
        )
        .await;
        // A text that others copied waits no longer than without them, and what no bundle has does not wait.
        check(
            &[&[("a/x", 30), ("a/x", 30)], &[("b/y", 2), ("b/y", 2), ("a/x c/z", 1), ("", 1)]],
            &["a/x", "", "b/y", "a/x c/z", "b/y", "a/x"],
        )
        .await;
    }

    #[test]
    fn what_is_not_wanted_any_more_has_no_turn() {
        let mut turns = Turns::new(2);
        let texts = ["1", "2", "3"].map(|text| Digest::of(text.as_bytes()));
        for text in texts {
            turns.wait(text, BTreeSet::new(), ());
        }
        turns.retain(|text| text != texts[0]);
        assert_eq!(
            [turns.next(), turns.next(), turns.next()],
            [Some((texts[1], ())), Some((texts[2], ())), None]
        );
        assert!(!turns.has(texts[0]) && turns.has(texts[2]));
    }
}
