//! What the log says about bundles and profiles, and what is counted of it.
//!
//! Invariants: a problem is logged when it begins and when it changes, not each time it is met again: a
//! bundle that is listed anew, or a step that is tried every minute, adds no line. What a bundle does not ask
//! for any more is forgotten, so the same problem of one that asks again is a new one. What is counted is
//! what happened, logged or not.

mod drifts;
mod pods;
mod policies;
mod problems;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use profiles::bundle::{Bundle, BundleId, Kind, Profile};
use profiles::check::PodChecks;
use profiles::diagnostic::{Diagnostic, Severity};
use profiles::labelling::Finding;
use profiles::name::Namespace;
use profiles::plan::Retained;
use profiles::pod::PodId;
use profiles::reference::Reference;
use profiles::saying::Outcome;
use profiles::state::{Event, Found, State};
use profiles::time::Time;
use tracing::{info, warn};

use crate::host::Installed;
use crate::host::error::HostError;
use crate::observe::metrics::{self, Metrics};
use drifts::Drifts;
use pods::Pods;
use policies::Policies;
use problems::Problems;

/// What a diagnostic is about.
const PROBLEM: &str = "Bundle has a problem";
const FLAW: &str = "Profile has a flaw";
const REFUSED_EDIT: &str = "Profile refused; the version before it stays";
const REFUSED: &str = "Profile refused; nothing was loaded before";
const TEXT_FLAW: &str = "Text has a flaw";
const REFUSED_TEXT: &str = "Text refused; what was loaded of it before stays";

/// So many pods are named.
const MOST_NAMED: usize = 3;

/// Remembers the problems that were logged.
#[derive(Debug)]
pub(crate) struct Journal {
    home: Namespace,
    bundles: BTreeMap<BundleId, BTreeSet<Line>>,
    strays: BTreeMap<Namespace, BTreeMap<String, &'static str>>,
    /// What is said of bundles because of the others.
    findings: BTreeSet<(BundleId, Line, Severity)>,
    /// The bundles that are not for this node.
    elsewhere: BTreeSet<BundleId>,
    /// Why profiles that are asked for are not on disk.
    unwritten: Problems<Reference>,
    /// Why profiles that nobody asks for are still there.
    unremoved: Problems<Reference>,
    /// The profiles that only pods keep.
    retained: BTreeSet<(Kind, String)>,
    drifts: Drifts<Reference>,
    /// The same of AppArmor profiles.
    policies: Policies,
    pods: Pods,
    metrics: Metrics,
}

/// A diagnostic as it is logged: the reference of the profile, none for the bundle itself, and the text.
type Line = (Option<Reference>, String);

impl Journal {
    /// Remembers nothing yet. Bundles of `home` need no namespace in a reference.
    pub(crate) fn new(home: Namespace, metrics: Metrics) -> Self {
        Self {
            home,
            bundles: BTreeMap::new(),
            strays: BTreeMap::new(),
            findings: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            unwritten: Problems::default(),
            unremoved: Problems::default(),
            retained: BTreeSet::new(),
            drifts: Drifts::default(),
            policies: Policies::default(),
            pods: Pods::default(),
            metrics,
        }
    }

    /// Logs what `event` says about bundles, counts what it says about labels, and remembers what it says
    /// about the disk.
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Listed { namespace, bundles } => {
                info!(%namespace, bundles = bundles.len(), "Bundles listed");
                let listed: BTreeSet<&BundleId> = bundles.iter().map(|bundle| &bundle.id).collect();
                let is_there = |id: &BundleId| id.namespace != *namespace || listed.contains(id);
                self.bundles.retain(|id, _| is_there(id));
                self.policies.texts.retain(|id, _| is_there(id));
                for bundle in bundles {
                    self.judged(bundle);
                }
            }
            Event::Strays { namespace, strays } => {
                for (path, advice) in self.new_strays(namespace, strays) {
                    warn!(path, advice, "Not a bundle; ignored");
                }
            }
            Event::Applied(bundle) => self.judged(bundle),
            Event::Deleted(id) => {
                info!(bundle = %id, "Bundle gone: deleted, or no longer labelled");
                self.bundles.remove(id);
                self.policies.texts.remove(id);
            }
            Event::Scanned(found) => {
                self.drifts.scanned(found.iter().map(|(reference, found)| (reference, seen(*found))));
            }
            Event::PolicyScanned(found) => self.policies.scanned(found),
            Event::LabelsWritten(_) => self.metrics.labels_changed(true),
            Event::LabelsFailed => self.metrics.labels_changed(false),
            _ => {}
        }
    }

    /// Logs how everything ended, for who runs the agent once.
    pub(crate) fn ended(unserved: &BTreeSet<String>) {
        if unserved.is_empty() {
            info!("Done: all is served");
        } else {
            let unserved = unserved.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            warn!(unserved, "Done: not all is served, for the reasons above");
        }
    }

    /// Logs what is so after all was done that can be done now, by what is known in `state`.
    pub(crate) fn acted(&mut self, state: &State, now: Time) {
        self.unwritten.0.retain(|reference, _| state.is_wanted(reference));
        self.unremoved.0.retain(|reference, _| !state.is_wanted(reference));
        self.policies.acted(state);
        for Retained { kind, reference, pods } in self.newly_retained(state, now) {
            let pods = some_of(&pods);
            info!(
                %kind,
                reference,
                pods,
                "Profile retained: no bundle has it any more, but pods of this node refer to it or select on its label"
            );
        }
        for id in self.newly_elsewhere(state) {
            info!(bundle = %id, "Bundle is not for this node");
        }
        for (id, line, severity) in self.new_findings(state) {
            let is_text = self.policies.texts.contains_key(&id);
            let what = match (&line.0, severity) {
                (None, _) => PROBLEM,
                (Some(_), Severity::Error) => REFUSED_TEXT,
                (Some(_), Severity::Warning) if is_text => TEXT_FLAW,
                (Some(_), Severity::Warning) => FLAW,
            };
            say(&id, &line, what, is_text);
        }
        for (reference, found) in self.drifts.news() {
            warn!(%reference, found, "Drift not repaired");
        }
    }

    /// Logs and counts what `checks` found. Returns when there may be more to say, if nothing happens before.
    pub(crate) fn checked(&mut self, checks: &PodChecks, now: Time) -> Option<Time> {
        self.metrics.checked(checks);
        let (news, wake_at) = self.pods.checked(checks, now);
        news.iter().for_each(pods::Line::log);
        wake_at
    }

    /// Counts how writing an Event ended.
    pub(crate) fn said(&self, outcome: Outcome) {
        match outcome {
            Outcome::Said => self.metrics.event_written(true),
            Outcome::Refused | Outcome::Failed => self.metrics.event_written(false),
            Outcome::WasSaid(..) | Outcome::Gone => {}
        }
    }

    /// Logs how putting a profile on disk ended. If that was for a new content, it was asked for since
    /// `latency`.
    pub(crate) fn installed(
        &mut self,
        reference: &Reference,
        outcome: &Result<Installed, HostError>,
        latency: Option<Duration>,
    ) {
        let outcome_of = |installed: &Installed| match installed {
            Installed::Written(_) => metrics::WRITTEN,
            Installed::Adopted(_) => metrics::ADOPTED,
            Installed::Foreign(_) => metrics::FOREIGN,
        };
        self.metrics.installed(Kind::Seccomp, outcome.as_ref().ok().map(outcome_of), latency);
        match outcome {
            Ok(Installed::Written(digest)) => {
                self.unwritten.0.remove(reference);
                if let Some(found) = self.drifts.loaded(reference) {
                    self.metrics.drift_repaired(Kind::Seccomp);
                    warn!(%reference, found, "Drift repaired");
                } else {
                    info!(%reference, %digest, "Profile written");
                }
            }
            Ok(Installed::Adopted(digest)) => {
                self.unwritten.0.remove(reference);
                self.drifts.loaded(reference);
                info!(%reference, %digest, "Profile adopted");
            }
            Ok(Installed::Foreign(what)) if self.unwritten.is_news(reference, what) => {
                let advice = "move it away, or rename the profile";
                warn!(%reference, there = what, advice, "Profile not written: its path is taken");
            }
            Err(error) if self.unwritten.is_news(reference, &error.in_full()) => {
                warn!(%reference, error = error.in_full(), "Profile not written; trying again");
            }
            Ok(Installed::Foreign(_)) | Err(_) => {}
        }
    }

    /// Logs how taking a profile off the disk ended.
    pub(crate) fn removed(&mut self, reference: &Reference, outcome: &Result<(), HostError>) {
        self.metrics.removed(Kind::Seccomp, outcome.is_ok());
        match outcome {
            Ok(()) => {
                self.unremoved.0.remove(reference);
                self.drifts.forget(reference);
                info!(%reference, "Profile removed");
            }
            Err(error) if self.unremoved.is_news(reference, &error.in_full()) => {
                warn!(%reference, error = error.in_full(), "Profile not removed; trying again");
            }
            Err(_) => {}
        }
    }

    /// Those of `strays` that were not among the last ones of `namespace`.
    fn new_strays(
        &mut self,
        namespace: &Namespace,
        strays: &BTreeMap<String, &'static str>,
    ) -> BTreeMap<String, &'static str> {
        let before = self.strays.insert(namespace.clone(), strays.clone()).unwrap_or_default();
        let is_news = |(path, why): &(&String, &&'static str)| before.get(*path) != Some(*why);
        strays.iter().filter(is_news).map(|(path, why)| (path.clone(), *why)).collect()
    }

    /// The bundles that are not for this node, and were, or were not known, when this was last asked.
    fn newly_elsewhere(&mut self, state: &State) -> Vec<BundleId> {
        let before = std::mem::replace(&mut self.elsewhere, state.elsewhere().cloned().collect());
        self.elsewhere.difference(&before).cloned().collect()
    }

    /// The profiles that only pods keep, and that were not among them when this was last asked.
    fn newly_retained<'a>(&mut self, state: &'a State, now: Time) -> Vec<Retained<'a>> {
        let mut all = state.retained_by_pods(now);
        let key = |retained: &Retained<'_>| (retained.kind, retained.reference.clone());
        let before = std::mem::replace(&mut self.retained, all.iter().map(key).collect());
        all.retain(|retained| !before.contains(&key(retained)));
        all
    }

    /// What is to be said of bundles because of the others, and was not when this was last asked.
    fn new_findings(&mut self, state: &State) -> Vec<(BundleId, Line, Severity)> {
        let line = |Finding { bundle, reference, diagnostic }: Finding| {
            (bundle, (reference, diagnostic.to_string()), diagnostic.severity())
        };
        let before = std::mem::replace(&mut self.findings, state.findings().into_iter().map(line).collect());
        self.findings.difference(&before).cloned().collect()
    }

    fn judged(&mut self, bundle: &Bundle) {
        self.policies.judged(bundle);
        let is_text = bundle.kind == Some(Kind::AppArmor);
        for line in self.new_lines(bundle) {
            let profile = line
                .0
                .as_ref()
                .and_then(|reference| Some((reference, bundle.profiles.get(reference.key())?)));
            let what = match profile {
                None => PROBLEM,
                Some((_, Profile::Accepted(..))) if is_text => TEXT_FLAW,
                Some((_, Profile::Refused(_))) if is_text => REFUSED_TEXT,
                Some((_, Profile::Accepted(..))) => FLAW,
                Some((reference, Profile::Refused(_))) if self.drifts.is_loaded(reference) => REFUSED_EDIT,
                Some((_, Profile::Refused(_))) => REFUSED,
            };
            say(&bundle.id, &line, what, is_text);
        }
    }

    /// What is to be logged about `bundle` that was not yet.
    fn new_lines(&mut self, bundle: &Bundle) -> Vec<Line> {
        let lines = self.lines(bundle);
        let before = self.bundles.remove(&bundle.id).unwrap_or_default();
        if !lines.is_empty() {
            self.bundles.insert(bundle.id.clone(), lines.iter().cloned().collect());
        }
        lines.into_iter().filter(|line| !before.contains(line)).collect()
    }

    /// All that is to be said about `bundle`.
    fn lines(&self, bundle: &Bundle) -> Vec<Line> {
        let own = bundle.diagnostics.iter().map(|diagnostic| (None, diagnostic.to_string()));
        let mut lines: Vec<Line> = own.collect();
        for (key, profile) in &bundle.profiles {
            let reference = Reference::new(&self.home, &bundle.id, key.clone());
            let line = |diagnostic: &Diagnostic| (Some(reference.clone()), diagnostic.to_string());
            lines.extend(profile.diagnostics().iter().map(line));
        }
        lines
    }
}

/// Some of `pods`, in words.
fn some_of(pods: &BTreeSet<&PodId>) -> String {
    let mut said: Vec<String> = pods.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    if pods.len() > MOST_NAMED {
        said.push(format!("and {} more", pods.len() - MOST_NAMED));
    }
    said.join(", ")
}

/// What a scan found of a profile: none if it is right.
fn seen(found: Found) -> Option<&'static str> {
    match found {
        Found::Ours(_) => None,
        Found::Absent => Some(drifts::NOTHING),
        Found::Changed(what) | Found::NotAFile(what) => Some(what),
    }
}

/// Pods refer to a profile of a text by its name, and not by where the text stands.
fn say(bundle: &BundleId, (reference, diagnostic): &Line, what: &str, is_text: bool) {
    match reference {
        None => warn!(%bundle, diagnostic, "{what}"),
        Some(text) if is_text => warn!(%bundle, %text, diagnostic, "{what}"),
        Some(reference) => warn!(%bundle, %reference, diagnostic, "{what}"),
    }
}
