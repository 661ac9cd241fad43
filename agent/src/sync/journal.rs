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
                    warn!(path, advice, "This is no bundle");
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
                "Profile retained: no bundle has it any more, and pods of this node refer to it, or select on its label"
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use profiles::bundle::Source;
    use profiles::digest::Digest;
    use profiles::name::NodeName;
    use profiles::platform::AppArmor;
    use profiles::state::{Config, NodeLabels};
    use profiles::time::Time;

    use super::*;
    use crate::examples::{apparmor_source, judged, pod_with_seccomp, source};

    const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

    fn journal() -> Journal {
        Journal::new(namespace(), Metrics::new())
    }

    fn namespace() -> Namespace {
        Namespace::new("n").unwrap()
    }

    fn bundle(data: &[(&str, &str)]) -> Bundle {
        judged(source("n", "b", data))
    }

    /// The same, for Nodes with the label `disk=ssd`.
    fn bundle_for_some(data: &[(&str, &str)]) -> Bundle {
        let annotations = [("pavise.dev/node-selector".to_owned(), "disk=ssd".to_owned())].into();
        judged(Source { annotations, ..source("n", "b", data) })
    }

    fn id() -> BundleId {
        BundleId::new("n", "b").unwrap()
    }

    fn state() -> State {
        let others = [Namespace::new("m").unwrap()].into();
        State::new(Config {
            home: namespace(),
            others,
            removal_delay: Duration::from_mins(5),
            node: Some(NodeName::new("node1").unwrap()),
            apparmor: AppArmor::Disabled,
        })
    }

    /// One turn of the loop.
    fn turn(journal: &mut Journal, state: &mut State, event: Event) {
        journal.note(&event);
        state.apply(event, Time::default());
        journal.acted(state, Time::default());
    }

    /// The Node has this label.
    fn node(key: &str, value: &str) -> Event {
        let others = [(key.to_owned(), value.to_owned())].into();
        Event::NodeLabels(NodeLabels { others, ..NodeLabels::default() })
    }

    #[test]
    fn a_text_that_nobody_has_any_more_is_forgotten() {
        let (mut journal, others) = (journal(), BTreeSet::new());
        let removal_delay = Duration::from_mins(5);
        let config =
            Config { home: namespace(), others, removal_delay, node: None, apparmor: AppArmor::Enabled };
        let mut state = State::new(config);
        let text = |number: u32| format!("profile a {{\n  file,\n}}\n# {number}\n");
        for number in 0..3 {
            let bundle = judged(apparmor_source("n", "b", &[("k", &text(number))]));
            turn(&mut journal, &mut state, Event::Applied(bundle));
            journal.not_compiled(Digest::of(text(number).as_bytes()), "nobody listens");
            assert_eq!(journal.policies.uncompiled(), 1);
        }
        turn(&mut journal, &mut state, Event::Deleted(id()));
        assert_eq!(journal.policies.uncompiled(), 0);
    }

    /// Claims how many lines each next version of one bundle is worth; a version is its profiles' contents.
    fn check(versions: &[(&[(&str, &str)], usize)]) {
        let mut journal = journal();
        for (data, expected) in versions {
            assert_eq!(journal.new_lines(&bundle(data)).len(), *expected);
        }
    }

    #[test]
    fn a_refusal_is_said_once_per_content() {
        check(&[
            (&[("a", "{}"), ("b", "{}")], 2),
            (&[("a", "{}"), ("b", "{}")], 0),
            (&[("a", "{}"), ("b", "[")], 1),
            (&[("a", GOOD), ("b", "[")], 0),
            (&[("a", "{}"), ("b", "[")], 1),
        ]);
    }

    #[test]
    fn a_refusal_names_the_reference() {
        for (home, expected) in [("n", "b/a"), ("elsewhere", "_n/b/a")] {
            let mut journal = Journal::new(Namespace::new(home).unwrap(), Metrics::new());
            let lines = journal.new_lines(&bundle(&[("a", "{}")]));
            let references: Vec<String> =
                lines.into_iter().filter_map(|(reference, _)| Some(reference?.to_string())).collect();
            assert_eq!(references, [expected]);
        }
    }

    #[test]
    fn a_problem_of_a_profile_is_said_when_it_begins_or_changes() {
        let mut problems = Problems::default();
        let reference: Reference = "b/a".parse().unwrap();
        let news = ["full", "full", "read-only", "full"].map(|text| problems.is_news(&reference, text));
        assert_eq!(news, [true, false, true, true]);
    }

    #[test]
    fn the_problem_of_a_profile_ends_when_its_bundle_does_not_ask_for_it() {
        let other = |namespace, name| judged(source(namespace, name, &[("a", GOOD)]));
        let listed = |bundles| Event::Listed { namespace: namespace(), bundles };
        let elsewhere = |bundles| Event::Listed { namespace: Namespace::new("m").unwrap(), bundles };
        for (event, remembered) in [
            (Event::Deleted(id()), &["c/a", "_m/b/a"][..]),
            (Event::Applied(bundle(&[("z", GOOD)])), &["c/a", "_m/b/a"]),
            (Event::Applied(bundle(&[("a", GOOD)])), &["b/a", "c/a", "_m/b/a"]),
            (Event::Applied(bundle_for_some(&[("a", GOOD)])), &["c/a", "_m/b/a"]),
            (listed(vec![bundle(&[("a", "{}")])]), &["b/a", "_m/b/a"]),
            (listed(Vec::new()), &["_m/b/a"]),
            (elsewhere(Vec::new()), &["b/a", "c/a"]),
        ] {
            let (mut journal, mut state) = (journal(), state());
            turn(&mut journal, &mut state, node("disk", "hdd"));
            turn(&mut journal, &mut state, listed(vec![bundle(&[("a", GOOD)]), other("n", "c")]));
            turn(&mut journal, &mut state, elsewhere(vec![other("m", "b")]));
            for reference in ["b/a", "c/a", "_m/b/a"] {
                journal.unwritten.is_news(&reference.parse().unwrap(), "full");
            }
            turn(&mut journal, &mut state, event.clone());
            let left: Vec<String> = journal.unwritten.0.keys().map(ToString::to_string).collect();
            assert_eq!(left, remembered, "{event:?}");
        }
    }

    #[test]
    fn a_stray_is_said_once_until_it_is_gone() {
        let mut journal = journal();
        for (strays, news) in [(&["x"][..], 1), (&["x", "y"], 1), (&["y"], 0), (&["x"], 1)] {
            let strays = strays.iter().map(|stray| ((*stray).to_owned(), "why")).collect();
            assert_eq!(journal.new_strays(&namespace(), &strays).len(), news);
        }
    }

    #[test]
    fn a_drift_is_said_once_until_another_is_found() {
        let reference: Reference = "b/a".parse().unwrap();
        let digest = Digest::of(b"");
        let mut journal = journal();
        for (found, news) in [
            (Found::Absent, None),
            (Found::Changed("another mode or owner"), None),
            (Found::Ours(digest), None),
            (Found::Changed("other content"), Some("other content")),
            (Found::Changed("other content"), None),
            (Found::NotAFile("a FIFO"), Some("a FIFO")),
            (Found::Ours(digest), None),
            (Found::Absent, Some("nothing")),
            (Found::Absent, None),
        ] {
            journal.note(&Event::Scanned([(reference.clone(), found)].into()));
            let said: Vec<_> = journal.drifts.news().map(|(_, found)| found).collect();
            assert_eq!(said, Vec::from_iter(news), "{found:?}");
        }
        assert!(!journal.drifts.is_loaded(&reference));
        assert_eq!(journal.drifts.loaded(&reference), Some("nothing"));
        assert!(journal.drifts.is_loaded(&reference));
        assert_eq!(journal.drifts.loaded(&reference), None);
    }

    #[test]
    fn a_removal_that_fails_is_said_once_until_the_profile_is_asked_for_again() {
        let (mut journal, mut state) = (journal(), state());
        turn(&mut journal, &mut state, node("disk", "hdd"));
        let reference = "b/a".parse().unwrap();
        let mut check = |event: Event, is_news: bool| {
            turn(&mut journal, &mut state, event.clone());
            assert_eq!(journal.unremoved.is_news(&reference, "read-only"), is_news, "{event:?}");
        };
        check(Event::Deleted(id()), true);
        check(Event::Listed { namespace: namespace(), bundles: Vec::new() }, false);
        check(Event::Applied(bundle(&[("z", GOOD)])), false);
        check(Event::Applied(bundle_for_some(&[("a", GOOD)])), false);
        check(Event::Applied(bundle(&[("a", GOOD)])), true);
    }

    #[test]
    fn a_bundle_for_other_nodes_is_said_once_until_it_is_for_this_one() {
        let (mut journal, mut state) = (journal(), state());
        let mut check = |event: Event, expected: usize| {
            state.apply(event.clone(), Time::default());
            assert_eq!(journal.newly_elsewhere(&state).len(), expected, "{event:?}");
        };
        check(Event::Applied(bundle_for_some(&[("a", GOOD)])), 0);
        check(node("disk", "hdd"), 1);
        check(node("disk", "tape"), 0);
        check(Event::Applied(bundle_for_some(&[("b", GOOD)])), 0);
        check(node("disk", "ssd"), 0);
        check(node("disk", "hdd"), 1);
    }

    #[test]
    fn what_only_pods_keep_is_said_once_until_it_is_asked_for_again() {
        let (mut journal, mut state) = (journal(), state());
        let reference: Reference = "b/a".parse().unwrap();
        let found = Found::Ours(Digest::of(GOOD.as_bytes()));
        let pod = |number: u32| {
            let name = format!("p{number}");
            (PodId { namespace: "ns".to_owned(), name: name.clone(), uid: name }, pod_with_seccomp("b/a"))
        };
        for event in [
            Event::Scanned([(reference, found)].into()),
            Event::PodsListed((1..=5).map(pod).collect()),
            Event::Listed { namespace: namespace(), bundles: Vec::new() },
        ] {
            state.apply(event, Time::default());
        }
        let later = Time::since_start(Duration::from_mins(10));
        let mut check = |event: Event, expected: &[&str]| {
            state.apply(event, later);
            let news = journal.newly_retained(&state, later + Duration::from_mins(10));
            let said: Vec<String> =
                news.iter().map(|one| format!("{}: {}", one.reference, some_of(&one.pods))).collect();
            assert_eq!(said, expected);
        };
        check(Event::PodDeleted(pod(2).0), &["b/a: ns/p1, ns/p3, ns/p4, and 1 more"]);
        check(Event::PodDeleted(pod(1).0), &[]);
        check(Event::Applied(bundle(&[("a", GOOD)])), &[]);
        check(Event::Deleted(id()), &["b/a: ns/p3, ns/p4, ns/p5"]);
        check(Event::PodsListed(BTreeMap::new()), &[]);
    }

    #[test]
    fn what_follows_from_all_bundles_is_said_once() {
        let keys: Vec<String> = (0..257).map(|number| format!("k{number}")).collect();
        let data: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), GOOD)).collect();
        let many = || Event::Listed { namespace: namespace(), bundles: vec![bundle(&data)] };
        let (mut journal, mut state) = (journal(), state());
        let mut check = |event: Event, expected: usize| {
            state.apply(event, Time::default());
            assert_eq!(journal.new_findings(&state).len(), expected);
        };
        check(many(), 0);
        check(Event::Listed { namespace: Namespace::new("m").unwrap(), bundles: Vec::new() }, 1);
        check(many(), 0);
        check(Event::Applied(bundle(&[("a", GOOD)])), 0);
        check(many(), 1);
    }

    #[test]
    fn the_problem_of_a_profile_ends_with_a_step_that_does_not_fail() {
        let (mut journal, reference) = (journal(), "b/a".parse().unwrap());
        journal.unwritten.is_news(&reference, "full");
        journal.unremoved.is_news(&reference, "full");
        journal.removed(&reference, &Ok(()));
        journal.installed(&reference, &Ok(Installed::Written(Digest::of(b""))), None);
        assert!(journal.unwritten.0.is_empty() && journal.unremoved.0.is_empty());
    }
}
