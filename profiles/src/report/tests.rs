//! Reports of what events lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::limits::first;
use super::*;
use crate::apparmor::kernel::{FoundPolicy, InKernel};
use crate::bundle::{Bundle, BundleId, Kind, Source};
use crate::check::{PodFinding, PodReason};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::digest::Digest;
use crate::name::{Namespace, NodeName};
use crate::platform::AppArmor;
use crate::pod::examples::pod;
use crate::pod::{ContainerKind, PodId};
use crate::state::{Compiled, Config, Event, Found, NodeLabels, State};
use crate::time::Time;
use crate::verdicts::Verdicts;

const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
const TEXT: &str = "profile web {\n  file,\n}\n";

/// A report with a problem of this message, of an agent that is ready unless that is `starting`.
pub(crate) fn example(message: &str, clock: &str) -> Report {
    let is_ready = message != "starting";
    let unready = if is_ready { Vec::new() } else { vec!["the disk is not scanned yet".to_owned()] };
    let report = report(false, &node(), 0, &unready, clock);
    let problem = Problem {
        bundle: None,
        name: None,
        code: "foreign".to_owned(),
        message: message.to_owned(),
        since: clock.to_owned(),
    };
    Report { conditions: report.conditions[..1].to_vec(), problems: vec![problem], ..report }.started()
}

impl Report {
    /// With conditions that are as old as the example is.
    fn started(mut self) -> Self {
        self.conditions
            .iter_mut()
            .for_each(|condition| "once".clone_into(&mut condition.last_transition_time));
        self
    }
}

fn config(has_apparmor: bool) -> Config {
    let (home, others) = (Namespace::new("ns").unwrap(), BTreeSet::new());
    Config {
        home,
        others,
        removal_delay: Duration::from_mins(5),
        node: Some(NodeName::new("node1").unwrap()),
        apparmor: if has_apparmor { AppArmor::Enabled } else { AppArmor::Disabled },
    }
}

fn node() -> Vec<Event> {
    vec![Event::NodeListed(NodeLabels::default())]
}

/// What is reported `seconds` after these events, all of which come at the start.
fn report(has_apparmor: bool, events: &[Event], seconds: u64, unready: &[String], clock: &str) -> Report {
    let mut state = State::new(config(has_apparmor));
    for event in events {
        state.apply(event.clone(), Time::default());
    }
    let agent = Agent { version: "1".to_owned(), pod: Some("pavise-agent-x".to_owned()) };
    let now = Time::since_start(Duration::from_secs(seconds));
    let circumstances = Circumstances {
        agent: &agent,
        platform: Platform::EXAMPLE,
        unready,
        findings: &state.check_pods(now).findings,
        clock,
    };
    state.report(now, &circumstances).unwrap()
}

fn bundle(name: &str, kind: &str, selector: &str, data: &[(&str, &str)]) -> Bundle {
    let annotations = [("pavise.dev/node-selector".to_owned(), selector.to_owned())];
    let annotations: BTreeMap<String, String> =
        annotations.into_iter().filter(|_| !selector.is_empty()).collect();
    let source = Source { kind: kind.to_owned(), annotations, ..Source::example(name, data) };
    Bundle::of(source, &mut Verdicts::new(Platform::EXAMPLE))
}

fn listed(bundles: Vec<Bundle>) -> Event {
    Event::Listed { namespace: Namespace::new("ns").unwrap(), bundles }
}

fn installed(reference: &str) -> Event {
    Event::Installed { reference: reference.parse().unwrap(), digest: Digest::of(GOOD.as_bytes()) }
}

/// What a report says of deviations, and its conditions, in a line each.
fn lines(report: &Report) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let conditions =
        report.conditions.iter().map(|one| format!("{} {:?} {}", one.kind, one.status, one.reason));
    let bundles = report.bundles.iter().map(|one| {
        format!("bundle {} {} {:?} {}/{}", one.name, text(&one.kind), one.here, one.loaded, one.desired)
    });
    let problems = report
        .problems
        .iter()
        .map(|one| format!("problem {} {} {}", text(&one.bundle), text(&one.name), one.code));
    let retained = report
        .retained
        .iter()
        .map(|one| format!("retained {} {} {:?} {:?}", one.kind, one.reference, one.by, one.pods));
    conditions.skip(1).chain(bundles).chain(problems).chain(retained).collect()
}

/// Claims what is reported `seconds` after these events on a node that was seen and scanned, with its pods
/// known.
fn check(has_apparmor: bool, events: Vec<Event>, seconds: u64, profiles: &str, expected: &[&str]) {
    let before = vec![
        Event::Scanned(BTreeMap::new()),
        Event::PolicyScanned(BTreeMap::new()),
        Event::PodsListed(BTreeMap::new()),
    ];
    let events: Vec<Event> = node().into_iter().chain(before).chain(events).collect();
    let report = report(has_apparmor, &events, seconds, &[], "now");
    assert_eq!(lines(&report), expected);
    assert_eq!(report.totals.profiles, profiles);
}

const LOADED: &str = "ProfilesLoaded True AllLoaded";
const NOT_LOADED: &str = "ProfilesLoaded False NotAllLoaded";
const RESOLVED: &str = "ReferencesResolved True AllResolved";

#[test]
fn what_is_all_right_is_counted() {
    let events = vec![
        listed(vec![
            bundle("b", "seccomp", "", &[("a", GOOD), ("c", GOOD)]),
            bundle("other", "seccomp", "disk=ssd", &[("a", GOOD)]),
            bundle("text", "apparmor", "", &[("a", TEXT)]),
        ]),
        installed("b/a"),
        installed("b/c"),
    ];
    check(
        false,
        events,
        0,
        "2/2",
        &[
            LOADED,
            RESOLVED,
            "bundle b seccomp True 2/2",
            "bundle other seccomp False 0/0",
            "bundle text apparmor False 0/0",
        ],
    );
}

#[test]
fn what_is_not_known_yet_is_not_claimed() {
    let report = report(false, &node(), 0, &["the disk".to_owned(), "the lists".to_owned()], "now");
    assert_eq!(lines(&report), ["ProfilesLoaded Unknown NotKnown", "ReferencesResolved Unknown NotKnown"]);
    assert_eq!(report.conditions[0].message, "the disk; the lists");
    assert!(!report.is_ready());
}

#[test]
fn a_refused_profile_is_a_problem_with_a_place_and_a_help() {
    let refused = r#"{"defaultAction":"SCMP_ACT_NO","archMap":1}"#;
    let events = vec![
        listed(vec![bundle("b", "seccomp", "", &[("a", refused), ("c", GOOD), ("d/e", GOOD)])]),
        installed("b/c"),
    ];
    let expected = [
        NOT_LOADED,
        RESOLVED,
        "bundle b seccomp True 1/3",
        "problem ns/b - invalid-key",
        "problem ns/b b/a unknown-action",
    ];
    check(false, events.clone(), 0, "1/3", &expected);
    let all: Vec<Event> = node().into_iter().chain(events).collect();
    let report = report(false, &all, 0, &[], "now");
    let message = &report.problems[1].message;
    assert!(message.starts_with("line 1, column ") && message.contains("SCMP_ACT_NO"), "{message}");
    assert!(message.ends_with("(and 1 more)"), "{message}");
}

#[test]
fn what_the_node_has_against_a_profile_is_a_problem() {
    let reference = || "b/a".parse().unwrap();
    let failed = Event::InstallFailed { reference: reference(), is_owned: false };
    let gone = [Event::Deleted(bundle("b", "seccomp", "", &[]).id), Event::RemoveFailed(reference())];
    for (events, profiles, expected) in [
        (vec![Event::Foreign(reference())], "0/1", "problem ns/b b/a foreign"),
        (vec![failed], "0/1", "problem ns/b b/a unwritten"),
        (
            vec![installed("b/a"), Event::Scanned([(reference(), Found::Absent)].into())],
            "0/1",
            "problem ns/b b/a drifted",
        ),
    ] {
        let events = [vec![listed(vec![bundle("b", "seccomp", "", &[("a", GOOD)])])], events].concat();
        check(false, events, 0, profiles, &[NOT_LOADED, RESOLVED, "bundle b seccomp True 0/1", expected]);
    }
    let listed = listed(vec![bundle("b", "seccomp", "", &[("a", GOOD)])]);
    let events = [vec![listed, installed("b/a")], gone.into()].concat();
    check(false, events, 0, "0/0", &[LOADED, RESOLVED, "problem ns/b b/a unremoved"]);
}

#[test]
fn what_nobody_asks_for_any_more_is_retained_and_says_by_what() {
    let ours = || Event::Scanned([("b/a".parse().unwrap(), Found::Ours(Digest::of(GOOD.as_bytes())))].into());
    for (events, seconds, expected) in [
        (vec![ours(), listed(vec![])], 299, &[LOADED, RESOLVED, "retained seccomp b/a RemovalDelay []"][..]),
        (vec![ours(), listed(vec![])], 301, &[LOADED, RESOLVED, "retained seccomp b/a Removal []"]),
        (
            vec![ours()],
            301,
            &[
                "ProfilesLoaded Unknown NotKnown",
                "ReferencesResolved Unknown NotKnown",
                "retained seccomp b/a Bundles []",
            ],
        ),
    ] {
        check(false, events, seconds, "0/0", expected);
    }
}

#[test]
fn an_apparmor_profile_that_is_in_use_is_retained_by_whoever_uses_it() {
    let (text, blob) = (Digest::of(TEXT.as_bytes()), Digest::of(b"blob"));
    let found = FoundPolicy { text, blob, is_current: true, kernel: InKernel::Ours(blob) };
    let scanned = || Event::PolicyScanned([("web".parse().unwrap(), found)].into());
    let pods = || {
        let id =
            |uid: u32| PodId { namespace: "x".to_owned(), name: format!("p{uid}"), uid: uid.to_string() };
        Event::PodsListed((0..9).map(|uid| (id(uid), pod(["web"]))).collect())
    };
    for (events, seconds, expected) in [
        (vec![pods()], 301, r#"retained apparmor web Pods ["x/p0", "x/p1", "x/p2", "x/p3", "x/p4"]"#),
        (vec![pods()], 299, "retained apparmor web RemovalDelay []"),
        (vec![Event::PolicyInUse("web".parse().unwrap())], 301, "retained apparmor web Processes []"),
    ] {
        let events = [vec![scanned(), listed(vec![])], events].concat();
        check(true, events, seconds, "0/0", &[LOADED, RESOLVED, expected]);
    }
}

#[test]
fn what_the_compiler_says_is_a_problem() {
    let why = Diagnostic {
        code: Code::PolicyMismatch,
        place: Place::at("$"),
        message: "it is wrong".to_owned(),
        help: "change it",
    };
    let text = Digest::of(TEXT.as_bytes());
    for (outcome, expected) in [
        (Compiled::Refused([why].into()), "problem ns/text text/a policy-mismatch"),
        (Compiled::Failed, "problem ns/text text/a uncompiled"),
    ] {
        let events = vec![
            listed(vec![bundle("text", "apparmor", "", &[("a", TEXT)])]),
            Event::Compiled { text, outcome },
        ];
        check(true, events, 0, "0/1", &[NOT_LOADED, RESOLVED, "bundle text apparmor True 0/1", expected]);
    }
}

#[test]
fn without_a_node_there_is_no_report() {
    let mut state = State::new(config(false));
    let agent = Agent { version: "1".to_owned(), pod: None };
    let circumstances = Circumstances {
        agent: &agent,
        platform: Platform::EXAMPLE,
        unready: &[],
        findings: &[],
        clock: "now",
    };
    for (event, is_reported) in [(Event::NodeGone, false), (node().remove(0), true), (Event::NodeGone, false)]
    {
        state.apply(event, Time::default());
        assert_eq!(state.report(Time::default(), &circumstances).is_some(), is_reported);
    }
}

#[test]
fn what_was_so_before_is_so_since_then() {
    let retained = |reference: &str, by, since: &str| Retained {
        kind: "seccomp".to_owned(),
        reference: reference.to_owned(),
        by,
        pods: Vec::new(),
        since: since.to_owned(),
    };
    let before = Report { retained: vec![retained("a", RetainedBy::RemovalDelay, "1")], ..example("x", "1") };
    let now = || Report {
        retained: vec![retained("a", RetainedBy::Pods, "2"), retained("b", RetainedBy::Pods, "2")],
        ..example("starting", "2")
    };
    let settled = now().settled(Some(&before));
    assert_eq!(settled.problems[0].since, "1", "other words for the same");
    assert_eq!(settled.retained.iter().map(|one| one.since.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(settled.conditions[0].last_transition_time, "once");
    assert_eq!(now().settled(None), now());

    let mut other = now();
    other.problems[0].code = "drifted".to_owned();
    other.conditions[0].last_transition_time = "2".to_owned();
    let settled = other.settled(Some(&before));
    assert_eq!(
        (settled.problems[0].since.as_str(), settled.conditions[0].last_transition_time.as_str()),
        ("2", "2")
    );
}

#[test]
fn a_report_reads_back_as_it_was_written() {
    let report = example("x", "1");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert!(!json.contains("omitted") && !json.contains("null"), "{json}");
}

#[test]
fn a_profile_more_that_is_all_right_is_a_digit_more_at_most() {
    let size = |count: usize| {
        let keys: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
        let data: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), GOOD)).collect();
        let installed = keys.iter().map(|key| installed(&format!("b/{key}")));
        let events =
            node().into_iter().chain([listed(vec![bundle("b", "seccomp", "", &data)])]).chain(installed);
        let report = report(false, &events.collect::<Vec<_>>(), 0, &[], "now");
        serde_json::to_vec(&report).unwrap().len()
    };
    assert!(size(200) - size(1) < 20);
}

#[test]
fn a_report_is_small_whoever_wrote_what_stands_in_it() {
    let hostile = format!(r#"{{"defaultAction":"{}"}}"#, r"\u0001\\\\".repeat(5000));
    let key = "\"".repeat(200);
    let one = bundle("b", "seccomp", "", &[("a", &hostile), (&"k".repeat(250), &hostile), (&key, GOOD)]);
    let bundles = (0..1000).map(|number| {
        let name = format!("{number}{}", "x".repeat(200));
        Bundle { id: BundleId::new("ns", &name).unwrap(), ..one.clone() }
    });
    let events: Vec<Event> = node().into_iter().chain([listed(bundles.collect())]).collect();
    let mut report = report(false, &events, 0, &[], "2026-01-01T00:00:00Z");
    assert_eq!(report.totals.problems, 3000);
    assert_eq!(report.problems.len() + report.omitted.problems, 3000);
    assert_eq!(report.bundles.len() + report.omitted.bundles, 1000);
    let finding = || PodFinding {
        pod: PodId { namespace: "n".repeat(63), name: "p".repeat(253), uid: String::new() },
        container: "c".repeat(63),
        container_kind: ContainerKind::Regular,
        kind: Kind::AppArmor,
        reference: "\\\u{1}".repeat(4096),
        reason: PodReason::ProfileMissing,
        message: "\"".repeat(800),
    };
    let references = (0..1000).map(|_| entries::reference(&finding(), "2026-01-01T00:00:00Z")).collect();
    (report.references, report.omitted.references) = first(references, MOST_DETAILS);
    report.retained = vec![
        Retained {
            kind: "seccomp".to_owned(),
            reference: "r".repeat(570),
            by: RetainedBy::RemovalDelay,
            pods: vec!["p".repeat(317); MOST_PODS],
            since: "2026-01-01T00:00:00Z".to_owned(),
        };
        1000
    ];
    (report.retained, report.omitted.retained) = first(report.retained, MOST_DETAILS);
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size < 192 * 1024, "{size} bytes");
}
