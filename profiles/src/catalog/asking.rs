//! What the compiler is asked about the AppArmor texts of all bundles, and what came of it.
//!
//! A bundle is reviewed when it is seen, with what is known of its texts then, and again when the last of
//! those that are with the compiler is back. So one edit leads to two reviews, however many texts there are.
//!
//! Invariants: only what the text itself does not refuse is asked for, once at a time; an answer is kept as
//! long as a bundle has the text, and one to a text that no bundle has any more changes nothing. The content of
//! a text is kept until there is an answer, and not longer. Where there is no answer, that is nobody's fault
//! who writes bundles: it is asked for again, more and more slowly.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::declaring::Declared;
use super::review::{Compiled, Texts};
use crate::bundle::{Bundle, BundleId, Document, Profile, Source};
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::name::Namespace;
use crate::platform::Platform;
use crate::saying::Review;
use crate::time::{Retry, Time};

/// A ConfigMap, judged as far as that takes no compiler.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What it declares.
    pub declared: Declared,
    said: Said,
}

/// What there is to say of it.
#[derive(Clone, Debug)]
enum Said {
    /// All of it: of the ConfigMap no more is kept than the outline of its bundle, if it was judged for any
    /// platform.
    Reviewed(BundleId, Review, Option<Bundle>),
    /// It holds AppArmor texts.
    Texts(Texts),
}

impl Judged {
    /// Judges `source` as the agents on nodes of all these platforms do.
    #[must_use]
    pub fn of(source: &Source, platforms: &BTreeSet<Platform>) -> Self {
        let texts = Texts::of(source, platforms);
        let declared = Declared::of(source, texts.as_ref().map(|texts| &texts.bundle));
        let said = if let Some(texts) = texts {
            Said::Texts(texts)
        } else {
            let (review, outline) = Review::of(source, platforms);
            Said::Reviewed(source.id.clone(), review, outline)
        };
        Self { declared, said }
    }

    /// The bundle without contents.
    pub(super) fn outline(&self) -> Option<Bundle> {
        match &self.said {
            Said::Reviewed(_, _, outline) => outline.clone(),
            Said::Texts(texts) => Some(texts.bundle.outline()),
        }
    }
}

/// The texts of all bundles.
#[derive(Debug, Default)]
pub struct Asking {
    /// Without contents.
    bundles: BTreeMap<BundleId, Texts>,
    compiled: Compiled,
    /// What has to be compiled.
    waiting: BTreeMap<Digest, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    document: Document,
    /// Whether an answer is on its way.
    is_asked: bool,
    has_failed: bool,
    retry: Retry,
}

impl Asking {
    /// These are all the bundles of `namespace`. Returns what there is to say of each.
    pub fn listed(&mut self, namespace: &Namespace, judged: Vec<Judged>) -> Vec<Review> {
        self.bundles.retain(|id, _| id.namespace != *namespace);
        let reviews = judged.into_iter().map(|judged| self.hold(judged)).collect();
        self.settle();
        reviews
    }

    /// A bundle is new, or has changed. Returns what there is to say of it.
    pub fn applied(&mut self, judged: Judged) -> Review {
        let review = self.hold(judged);
        self.settle();
        review
    }

    /// A bundle is gone, or is none any more.
    pub fn deleted(&mut self, id: &BundleId) {
        self.bundles.remove(id);
        self.settle();
    }

    /// What is to be compiled now, which counts as asked for then, each text with the bundles that have it; and
    /// when there may be more, if nothing happens before.
    pub fn ask(&mut self, now: Time) -> (Vec<(Document, BTreeSet<BundleId>)>, Option<Time>) {
        let (mut due, mut wake_at) = (BTreeMap::new(), None::<Time>);
        for (text, waiting) in self.waiting.iter_mut().filter(|(_, waiting)| !waiting.is_asked) {
            if let Some(at) = waiting.retry.blocked_until(now) {
                wake_at = Some(wake_at.map_or(at, |wake_at| wake_at.min(at)));
            } else {
                waiting.is_asked = true;
                due.insert(*text, (waiting.document.clone(), BTreeSet::new()));
            }
        }
        if due.is_empty() {
            return (Vec::new(), wake_at);
        }
        for (id, texts) in &self.bundles {
            for document in documents(texts) {
                if let Some((_, bundles)) = due.get_mut(&document.digest()) {
                    bundles.insert(id.clone());
                }
            }
        }
        (due.into_values().collect(), wake_at)
    }

    /// Whether an answer about `text` is waited for. If not, nobody needs one.
    #[must_use]
    pub fn is_asked(&self, text: Digest) -> bool {
        self.waiting.get(&text).is_some_and(|waiting| waiting.is_asked)
    }

    /// Records what compiling `text` found, or that there is no answer. Returns what there is to say now.
    pub fn answered(&mut self, text: Digest, found: Option<Vec<Diagnostic>>, now: Time) -> Vec<Review> {
        let Some(waiting) = self.waiting.get_mut(&text) else { return Vec::new() };
        if let Some(found) = found {
            self.waiting.remove(&text);
            self.compiled.insert(text, found);
        } else {
            waiting.is_asked = false;
            waiting.has_failed = true;
            waiting.retry.failed(now);
        }
        let is_due = |texts: &&Texts| {
            let mut of_it = documents(texts).map(Document::digest).peekable();
            of_it.clone().any(|other| other == text) && !of_it.any(|text| self.is_asked(text))
        };
        self.bundles.values().filter(is_due).map(|texts| Review::of_texts(texts, &self.compiled)).collect()
    }

    /// Whether there is a text for which there was no answer the last time.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.waiting.values().any(|waiting| waiting.has_failed)
    }

    fn hold(&mut self, judged: Judged) -> Review {
        match judged.said {
            Said::Reviewed(id, review, _) => {
                self.bundles.remove(&id);
                review
            }
            Said::Texts(mut texts) => {
                let review = Review::of_texts(&texts, &self.compiled);
                for profile in texts.bundle.profiles.values_mut() {
                    let Profile::Accepted(document, _) = profile else { continue };
                    let outline = document.outline();
                    let document = mem::replace(document, outline);
                    if !self.compiled.contains_key(&document.digest()) {
                        self.waiting.entry(document.digest()).or_insert_with(|| Waiting {
                            document,
                            is_asked: false,
                            has_failed: false,
                            retry: Retry::default(),
                        });
                    }
                }
                self.bundles.insert(texts.bundle.id.clone(), texts);
                review
            }
        }
    }

    /// Forgets what no bundle has any more.
    fn settle(&mut self) {
        let all: BTreeSet<Digest> = self.bundles.values().flat_map(documents).map(Document::digest).collect();
        self.compiled.retain(|text, _| all.contains(text));
        self.waiting.retain(|text, _| all.contains(text));
    }
}

/// The texts that their own words do not refuse.
fn documents(texts: &Texts) -> impl Iterator<Item = &Document> + Clone {
    texts.bundle.accepted().map(|(_, document)| document)
}

#[cfg(test)]
mod tests;
