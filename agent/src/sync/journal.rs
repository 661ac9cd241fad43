//! What the log says about bundles and profiles.
//!
//! Invariant: a problem is logged when it begins and when it changes, not each time it is met again: a bundle that is
//! listed anew, or a step that is tried every minute, adds no line.

use std::collections::BTreeMap;

use profiles::bundle::{Bundle, BundleId, Profile};
use profiles::diagnostic::Diagnostic;
use profiles::reference::Reference;
use profiles::state::Event;
use tracing::{info, warn};

use crate::host::Installed;
use crate::host::error::HostError;

/// Remembers the problems that were logged.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    bundles: BTreeMap<BundleId, Vec<Line>>,
    profiles: BTreeMap<Reference, String>,
}

/// A diagnostic as it is logged: the key of the profile, none for the bundle itself, and the text.
type Line = (Option<String>, String);

impl Journal {
    /// Logs what `event` says about bundles.
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Listed { namespace, bundles } => {
                info!(%namespace, bundles = bundles.len(), "Bundles listed");
                self.bundles.retain(|id, _| {
                    id.namespace != *namespace || bundles.iter().any(|bundle| bundle.id == *id)
                });
                for bundle in bundles {
                    self.judged(bundle);
                }
            }
            Event::Applied(bundle) => self.judged(bundle),
            Event::Deleted(id) => {
                info!(bundle = %id, "Bundle deleted");
                self.bundles.remove(id);
            }
            _ => {}
        }
    }

    /// Logs how putting a profile on disk ended.
    pub(crate) fn installed(&mut self, reference: &Reference, outcome: &Result<Installed, HostError>) {
        match outcome {
            Ok(Installed::Written(digest)) => {
                self.profiles.remove(reference);
                info!(%reference, %digest, "Profile written");
            }
            Ok(Installed::Adopted(digest)) => {
                self.profiles.remove(reference);
                info!(%reference, %digest, "Profile adopted");
            }
            Ok(Installed::Foreign(what)) if self.is_news(reference, what) => {
                let advice = "move it away, or rename the profile";
                warn!(%reference, there = what, advice, "Profile not written: its path is taken");
            }
            Err(error) if self.is_news(reference, &error.in_full()) => {
                warn!(%reference, error = error.in_full(), "Profile not written; trying again");
            }
            Ok(Installed::Foreign(_)) | Err(_) => {}
        }
    }

    /// Logs how taking a profile off the disk ended.
    pub(crate) fn removed(&mut self, reference: &Reference, outcome: &Result<(), HostError>) {
        match outcome {
            Ok(()) => {
                self.profiles.remove(reference);
                info!(%reference, "Profile removed");
            }
            Err(error) if self.is_news(reference, &error.in_full()) => {
                warn!(%reference, error = error.in_full(), "Profile not removed; trying again");
            }
            Err(_) => {}
        }
    }

    fn judged(&mut self, bundle: &Bundle) {
        for (key, diagnostic) in self.new_lines(bundle) {
            if let Some(key) = key {
                warn!(bundle = %bundle.id, key, diagnostic, "Profile refused");
            } else {
                warn!(bundle = %bundle.id, diagnostic, "Bundle has a problem");
            }
        }
    }

    /// What is to be logged about `bundle` that was not yet.
    fn new_lines(&mut self, bundle: &Bundle) -> Vec<Line> {
        let lines = lines(bundle);
        let before = self.bundles.remove(&bundle.id).unwrap_or_default();
        if !lines.is_empty() {
            self.bundles.insert(bundle.id.clone(), lines.clone());
        }
        lines.into_iter().filter(|line| !before.contains(line)).collect()
    }

    /// Whether this problem was not the last one of `reference`.
    fn is_news(&mut self, reference: &Reference, text: &str) -> bool {
        let before = self.profiles.insert(reference.clone(), text.to_owned());
        before.as_deref() != Some(text)
    }
}

/// All that is to be said about `bundle`.
fn lines(bundle: &Bundle) -> Vec<Line> {
    let own = bundle.diagnostics.iter().map(|diagnostic| (None, diagnostic.to_string()));
    let mut lines: Vec<Line> = own.collect();
    for (key, profile) in &bundle.profiles {
        if let Profile::Refused(diagnostics) = profile {
            let line = |diagnostic: &Diagnostic| (Some(key.to_string()), diagnostic.to_string());
            lines.extend(diagnostics.iter().map(line));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims how many lines each next version of one bundle is worth; a version is its profiles' contents.
    fn check(versions: &[(&[(&str, &str)], usize)]) {
        let mut journal = Journal::default();
        for (data, expected) in versions {
            let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            let bundle = Bundle::of_seccomp(BundleId::new("n", "b").unwrap(), data, Vec::new());
            assert_eq!(journal.new_lines(&bundle).len(), *expected);
        }
    }

    #[test]
    fn a_refusal_is_said_once_per_content() {
        let good = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
        check(&[
            (&[("a", "{}"), ("b", "{}")], 2),
            (&[("a", "{}"), ("b", "{}")], 0),
            (&[("a", "{}"), ("b", "[")], 1),
            (&[("a", good), ("b", "[")], 0),
            (&[("a", "{}"), ("b", "[")], 1),
        ]);
    }

    #[test]
    fn a_problem_of_a_profile_is_said_when_it_begins_or_changes() {
        let mut journal = Journal::default();
        let reference = "web/a".parse().unwrap();
        let news = ["full", "full", "read-only", "full"].map(|text| journal.is_news(&reference, text));
        assert_eq!(news, [true, false, true, true]);
        journal.removed(&reference, &Ok(()));
        assert!(journal.is_news(&reference, "full"));
    }
}
