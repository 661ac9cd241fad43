//! What is logged when, and what is remembered of it.

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
    let config = Config { home: namespace(), others, removal_delay, node: None, apparmor: AppArmor::Enabled };
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
