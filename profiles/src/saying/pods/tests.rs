//! What is said about pods, and when: a story of checks and writes, with simulated time.

use std::time::Duration;

use super::super::{How, Next, Outcome, REPEAT, SETTLING, Write};
use super::*;
use crate::check::ReferenceState;
use crate::name::{Namespace, NodeName};
use crate::platform::AppArmor;
use crate::pod::ContainerId;
use crate::state::{Config, Event};

/// A node's pods, the agent that speaks of them, the Events that the API server has, and the time.
struct Scene {
    state: State,
    saying: Saying,
    checks: PodChecks,
    /// By name: reason, how often it was said, and when the last time.
    events: BTreeMap<String, (&'static str, u32, Time)>,
    now: Time,
    creates: usize,
    repeats: usize,
}

impl Scene {
    /// An agent that knows these pods of the namespace `ns`, and all that they ask for.
    fn new(pods: &[&str]) -> Self {
        let mut scene = Self {
            state: State::new(Config {
                home: Namespace::new("home").unwrap(),
                others: [].into(),
                removal_delay: Duration::ZERO,
                node: Some(NodeName::new("node1").unwrap()),
                apparmor: AppArmor::Enabled,
            }),
            saying: saying(),
            checks: PodChecks::default(),
            events: BTreeMap::new(),
            now: Time::default(),
            creates: 0,
            repeats: 0,
        };
        let pods = pods.iter().map(|name| (id(name), Pod::default())).collect();
        scene.state.apply(Event::PodsListed(pods), scene.now);
        scene.resolve("", ReferenceState::Resolved);
        scene
    }

    /// The one reference that there is, besides those with findings, is of this pod, and in this state.
    fn resolve(&mut self, pod: &str, state: ReferenceState) {
        self.checks.references = [((Kind::Seccomp, state), 1)].into();
        let is_decided = state == ReferenceState::Resolved;
        self.checks.undecided = if is_decided { [].into() } else { [id(pod)].into() };
        self.find(&[]);
    }

    /// This is found from now on.
    fn find(&mut self, findings: &[PodFinding]) {
        self.checks.findings = findings.to_vec();
        self.turn();
    }

    /// One turn of the loop.
    fn turn(&mut self) {
        self.saying.pods(&self.state, &self.checks, self.now);
    }

    /// Another agent takes over, and knows at first nothing.
    fn restart(&mut self) {
        self.saying = saying();
        let checks = std::mem::take(&mut self.checks);
        self.turn();
        self.checks = checks;
        self.turn();
    }

    /// Lets time pass, in which the API server takes everything, and forgets Events after an hour.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.turn();
            let next = self.saying.next(self.now);
            if let Some(write) = next.write {
                let outcome = self.serve(&write);
                self.saying.written(&write, outcome, self.now);
                continue;
            }
            match next.wake_at {
                Some(at) if at <= end => self.now = at,
                _ => break,
            }
        }
        self.now = end;
    }

    fn serve(&mut self, write: &Write) -> Outcome {
        let now = self.now;
        self.events.retain(|_, (.., last)| *last + Duration::from_hours(1) > now);
        let name = write.statement.name();
        let reason = write.statement.reason.as_str();
        match (write.how, self.events.get_mut(&name)) {
            (How::First, None) => {
                self.creates += 1;
                self.events.insert(name, (reason, 1, now));
            }
            (How::First, Some((_, count, last))) => {
                return Outcome::WasSaid(*count, now.elapsed().saturating_sub(last.elapsed()));
            }
            (How::Again(count), Some(event)) => {
                self.repeats += 1;
                *event = (reason, count, now);
            }
            (How::Again(_), None) => return Outcome::Gone,
        }
        Outcome::Said
    }

    /// Claims the reasons and counts of all Events, in the order in which they were last said.
    fn expect(&self, expected: &[(&str, u32)]) {
        let mut events: Vec<_> = self.events.values().collect();
        events.sort_by_key(|(.., last)| *last);
        let said: Vec<(&str, u32)> = events.iter().map(|(reason, count, _)| (*reason, *count)).collect();
        assert_eq!(said, expected);
    }
}

fn saying() -> Saying {
    Saying::of_pods(&NodeName::new("node1").unwrap())
}

fn id(name: &str) -> PodId {
    PodId { namespace: "ns".to_owned(), name: name.to_owned(), uid: format!("{name}-1") }
}

fn finding(pod: &str, container: &str, reason: PodReason) -> PodFinding {
    PodFinding {
        pod: id(pod),
        container: container.to_owned(),
        container_kind: ContainerKind::Regular,
        kind: Kind::Seccomp,
        reference: "web/x.json".to_owned(),
        reason,
        message: "there is no file web/x.json on this node".to_owned(),
    }
}

fn missing() -> PodFinding {
    finding("web", "c", PodReason::ProfileMissing)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_hour_of_retries_is_one_event() {
    let mut scene = Scene::new(&["web"]);
    for _ in 0..12 {
        // The kubelet tries again all the time, so the pod changes all the time.
        scene.state.apply(Event::PodApplied(id("web"), Pod::default()), scene.now);
        scene.find(&[missing()]);
        scene.pass(Duration::from_mins(5));
    }
    scene.expect(&[("ProfileMissing", 2)]);
    assert_eq!((scene.creates, scene.repeats), (1, 1));
    // Which does not expire, and has an end.
    scene.pass(Duration::from_hours(24));
    assert_eq!((scene.creates, scene.repeats), (1, 49));
    scene.find(&[]);
    scene.pass(SECOND);
    scene.expect(&[("ProfileMissing", 50), ("ProfilesResolved", 1)]);
    scene.pass(Duration::from_mins(50));
    assert_eq!((scene.creates, scene.repeats), (2, 49));
    assert_eq!(scene.saying.next(scene.now), Next::default());
}

#[test]
fn what_passes_at_once_is_not_said() {
    let mut scene = Scene::new(&["web"]);
    scene.find(&[missing()]);
    scene.pass(SETTLING.saturating_sub(Duration::from_millis(1)));
    scene.find(&[]);
    scene.pass(Duration::from_hours(1));
    scene.expect(&[]);
    scene.find(&[missing()]);
    scene.pass(SETTLING);
    scene.expect(&[("ProfileMissing", 1)]);
    // Nor is that it was put right, if that passes.
    scene.find(&[]);
    scene.find(&[missing()]);
    scene.pass(Duration::from_mins(1));
    scene.expect(&[("ProfileMissing", 2)]);
}

#[test]
fn the_last_word_is_the_newest_event() {
    let mut scene = Scene::new(&["web"]);
    for _ in 0..3 {
        scene.find(&[missing()]);
        scene.pass(SECOND);
        scene.find(&[]);
        scene.pass(SECOND);
    }
    scene.expect(&[("ProfileMissing", 3), ("ProfilesResolved", 3)]);
    scene.find(&[missing()]);
    scene.pass(SECOND);
    scene.expect(&[("ProfilesResolved", 3), ("ProfileMissing", 4)]);
}

#[test]
fn a_restart_says_nothing_twice_and_lets_nothing_expire() {
    let mut scene = Scene::new(&["web"]);
    scene.find(&[missing()]);
    scene.pass(Duration::from_mins(20));
    scene.restart();
    scene.pass(Duration::from_mins(9));
    scene.expect(&[("ProfileMissing", 1)]);
    scene.pass(Duration::from_mins(2));
    scene.expect(&[("ProfileMissing", 2)]);
    // What is put right under the new agent has its end.
    scene.find(&[]);
    scene.pass(SECOND);
    scene.expect(&[("ProfileMissing", 2), ("ProfilesResolved", 1)]);
}

#[test]
fn a_pod_that_is_gone_or_has_ended_is_not_spoken_of_any_more() {
    for end in [Event::PodDeleted(id("web")), {
        Event::PodApplied(id("web"), Pod { has_ended: true, ..Pod::default() })
    }] {
        let mut scene = Scene::new(&["web", "other"]);
        scene.find(&[missing()]);
        scene.pass(SECOND);
        scene.state.apply(end, scene.now);
        scene.find(&[]);
        scene.pass(Duration::from_mins(40));
        scene.expect(&[("ProfileMissing", 1)]);
        assert_eq!(scene.saying.next(scene.now), Next::default());
    }
}

#[test]
fn a_pod_that_was_rejected_is_spoken_of_though_it_has_ended() {
    let mut scene = Scene::new(&[]);
    let rejected = Pod { has_ended: true, is_rejected: true, ..Pod::default() };
    scene.state.apply(Event::PodApplied(id("web"), rejected), scene.now);
    scene.find(&[finding("web", "c", PodReason::AppArmorUnavailable)]);
    scene.pass(SECOND);
    scene.expect(&[("AppArmorUnavailable", 1)]);
}

#[test]
fn the_end_waits_until_all_of_the_pod_is_known() {
    for state in [ReferenceState::Pending, ReferenceState::Unchecked] {
        let mut scene = Scene::new(&["web", "other"]);
        scene.find(&[missing()]);
        scene.pass(SECOND);
        scene.resolve("web", state);
        scene.pass(Duration::from_mins(1));
        scene.expect(&[("ProfileMissing", 1)]);
        // Somebody else's pod keeps nobody waiting.
        scene.resolve("other", state);
        scene.pass(SECOND);
        scene.expect(&[("ProfileMissing", 1), ("ProfilesResolved", 1)]);
    }
}

#[test]
fn a_pod_made_anew_is_another_one() {
    let mut scene = Scene::new(&["web"]);
    scene.find(&[missing()]);
    scene.pass(SECOND);
    let again = PodId { uid: "web-2".to_owned(), ..id("web") };
    scene.state.apply(Event::PodDeleted(id("web")), scene.now);
    scene.state.apply(Event::PodApplied(again.clone(), Pod::default()), scene.now);
    scene.find(&[PodFinding { pod: again, ..missing() }]);
    scene.pass(SECOND);
    scene.expect(&[("ProfileMissing", 1), ("ProfileMissing", 1)]);
}

/// Claims reason, field and note of all that is said of a pod with these findings.
fn check(findings: &[PodFinding], expected: &[(&str, &str, &str)]) {
    let findings: Vec<&PodFinding> = findings.iter().collect();
    let said: Vec<(&str, String, String)> = review(&id("web"), &findings, true)
        .statements
        .into_iter()
        .map(|one| (one.reason.as_str(), one.field.unwrap_or_default(), one.note))
        .collect();
    let said: Vec<(&str, &str, &str)> =
        said.iter().map(|(reason, field, note)| (*reason, field.as_str(), note.as_str())).collect();
    assert_eq!(said, expected);
}

#[test]
fn a_container_is_spoken_of_where_and_as_the_kubelet_does() {
    let of_kind = |container_kind| PodFinding { container_kind, ..missing() };
    for (container_kind, field) in [
        (ContainerKind::Init, "spec.initContainers{c}"),
        (ContainerKind::Sidecar, "spec.initContainers{c}"),
        (ContainerKind::Regular, "spec.containers{c}"),
        (ContainerKind::Ephemeral, "spec.ephemeralContainers{c}"),
    ] {
        let note = "container c: there is no file web/x.json on this node";
        check(&[of_kind(container_kind)], &[("ProfileMissing", field, note)]);
    }
}

#[test]
fn a_container_is_spoken_of_once_for_each_kind_and_the_worst_comes_first() {
    let of =
        |kind, reason, message: &str| PodFinding { kind, reason, message: message.to_owned(), ..missing() };
    check(
        &[
            of(Kind::AppArmor, PodReason::ProfileNotEnforced, "it is unconfined"),
            of(Kind::Seccomp, PodReason::ProfileNotEnforced, "it runs without a filter"),
            of(Kind::Seccomp, PodReason::ProfileUnsafe, "it would be unconfined"),
        ],
        &[
            (
                "ProfileUnsafe",
                "spec.containers{c}",
                "container c: it would be unconfined; it runs without a filter",
            ),
            ("ProfileNotEnforced", "spec.containers{c}", "container c: it is unconfined"),
        ],
    );
}

#[test]
fn a_pod_of_many_containers_is_spoken_of_nine_times_and_a_note_fits() {
    let of = |number: usize| {
        let message = "ä".repeat(400);
        PodFinding { message, ..finding("web", &format!("c{number:0200}"), PodReason::ProfileMissing) }
    };
    let findings: Vec<PodFinding> = (0..64).map(of).collect();
    let findings: Vec<&PodFinding> = findings.iter().collect();
    let said = review(&id("web"), &findings, true).statements;
    assert_eq!(said.len(), 9);
    assert!(said.iter().all(|one| one.note.len() <= 1_024));
    assert_eq!(said[8].reason, Reason::MoreProblems);
    assert!(said[8].note.starts_with("at least 56 more "), "{}", said[8].note);
}

#[test]
fn what_is_for_the_report_alone_is_no_event() {
    let mut scene = Scene::new(&["web"]);
    scene.find(&[finding("web", "c", PodReason::ProfileOutdated)]);
    scene.pass(REPEAT);
    scene.expect(&[]);
}

#[test]
fn a_crash_of_a_container_puts_nothing_right() {
    for (container_kind, expected) in [
        (ContainerKind::Regular, &[("ProfileNotEnforced", 1)][..]),
        (ContainerKind::Init, &[("ProfileNotEnforced", 1), ("ProfilesResolved", 1)]),
    ] {
        let mut scene = Scene::new(&[]);
        let run = |scene: &mut Scene, running: Option<&str>, is_wrong: bool| {
            let mut pod = crate::pod::examples::pod(["p"]);
            pod.containers[0].kind = container_kind;
            pod.containers[0].running = running.map(|id| ContainerId(id.to_owned()));
            scene.state.apply(Event::PodApplied(id("web"), pod), scene.now);
            let found = is_wrong.then(|| PodFinding {
                container_kind,
                ..finding("web", "c0", PodReason::ProfileNotEnforced)
            });
            scene.find(&found.into_iter().collect::<Vec<_>>());
            scene.pass(Duration::from_secs(10));
        };
        run(&mut scene, Some("1"), true);
        run(&mut scene, None, false);
        scene.expect(expected);
        if container_kind == ContainerKind::Init {
            continue;
        }
        run(&mut scene, Some("2"), true);
        run(&mut scene, None, false);
        scene.expect(&[("ProfileNotEnforced", 1)]);
        run(&mut scene, Some("3"), false);
        scene.expect(&[("ProfileNotEnforced", 1), ("ProfilesResolved", 1)]);
    }
}

#[test]
fn where_writing_failed_is_forgotten_with_the_last_pod_that_is_spoken_of() {
    let mut scene = Scene::new(&["web"]);
    scene.find(&[missing()]);
    scene.now = scene.now + SETTLING;
    let write = scene.saying.next(scene.now).write.unwrap();
    scene.saying.written(&write, Outcome::Failed, scene.now);
    scene.turn();
    assert_eq!(scene.saying.next(scene.now).wake_at, Some(scene.now + SECOND));
    scene.state.apply(Event::PodDeleted(id("web")), scene.now);
    scene.find(&[]);
    assert!(scene.saying.retries.is_empty());
}
