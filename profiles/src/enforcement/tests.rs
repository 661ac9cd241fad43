//! Containers and what the kernel says of them, as scripts.

use super::*;
use crate::check::PodFinding;
use crate::name::{Namespace, NodeName};
use crate::platform::AppArmor;
use crate::pod::ContainerKind;
use crate::sight::{Effect, Judged};
use crate::state::{Config, Event};

/// A node with pods, and what its kernel says when it is asked.
struct Scene {
    state: State,
    now: Time,
    kernel: BTreeMap<ContainerId, Confinement>,
}

impl Scene {
    fn new(pods: &[&str]) -> Self {
        let config = Config {
            home: Namespace::new("home").unwrap(),
            others: [].into(),
            removal_delay: Duration::from_mins(5),
            node: Some(NodeName::new("node1").unwrap()),
            apparmor: AppArmor::Enabled,
        };
        let mut scene = Self { state: State::new(config), now: Time::default(), kernel: BTreeMap::new() };
        scene.apply(Event::Listed { namespace: Namespace::new("home").unwrap(), bundles: Vec::new() });
        scene.apply(Event::Scanned(BTreeMap::new()));
        scene.apply(Event::PodsListed(pods.iter().map(|line| pod(line)).collect()));
        scene
    }

    /// What happens; after news of pods, so much time passes that the kernel is asked.
    fn apply(&mut self, event: Event) {
        let is_of_pods = matches!(event, Event::PodsListed(_) | Event::PodApplied(..));
        self.state.apply(event, self.now);
        if is_of_pods {
            self.now = self.now + SETTLING;
        }
    }

    /// The kernel says this of the container `id`.
    fn says(&mut self, id: &str, said: &str) {
        self.kernel.insert(ContainerId(id.to_owned()), confinement(said));
    }

    /// Asks the kernel what the plan says. Returns about which containers, and after how many seconds there
    /// is more to do.
    fn ask(&mut self) -> (String, Option<u64>) {
        let inspect = self.state.plan(self.now).inspect;
        let asked: Vec<&str> = inspect.iter().map(|inspect| inspect.id.0.as_str()).collect();
        let asked = asked.join(" ");
        if !inspect.is_empty() {
            let answer = |Inspect { id, .. }: Inspect| (id.clone(), self.kernel.get(&id).cloned());
            self.apply(Event::Inspected(inspect.into_iter().map(answer).collect()));
        }
        let plan = self.state.plan(self.now);
        assert_eq!(plan.inspect, [].into(), "asked twice");
        let later = plan.wake_at.map(|at| at.elapsed().checked_sub(self.now.elapsed()).unwrap());
        let more = later.map(|later| u64::try_from(later.as_millis().div_ceil(1_000)).unwrap());
        (asked, more)
    }

    /// Time passes.
    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// What is found, and how many containers are in which state.
    fn checks(&self) -> (Vec<String>, String) {
        let mut checks = PodChecks::default();
        self.state.check_enforcement(&mut checks);
        let PodChecks { findings, containers, .. } = checks;
        let finding = |finding: PodFinding| {
            assert!(finding.message.len() <= 800, "{}", finding.message);
            format!(
                "{} {} {:?}: {}",
                finding.container,
                finding.reason.as_str(),
                finding.kind,
                finding.message
            )
        };
        let counts: Vec<String> =
            containers.iter().map(|((kind, state), count)| format!("{kind:?} {state:?} {count}")).collect();
        (findings.into_iter().map(finding).collect(), counts.join(", "))
    }
}

/// A pod of a line such as `p class=kata c(id privileged s=web/a.json a=web) d()`: containers with their
/// runtime's name, and the profiles that they ask for.
fn pod(line: &str) -> (PodId, Pod) {
    let (name, rest) = line.split_once(' ').unwrap();
    let mut pod = Pod::default();
    for part in rest.split_inclusive(')').map(str::trim) {
        let (words, container) = part.split_once('(').unwrap();
        let mut words = words.split_whitespace();
        let container_name = words.next_back().unwrap();
        for word in words {
            match word.split_once('=') {
                Some(("class", class)) => pod.runtime_class = Some(class.to_owned()),
                _ => pod.has_ended = true,
            }
        }
        let mut container_of_it = Container {
            name: container_name.to_owned(),
            kind: ContainerKind::Regular,
            is_privileged: false,
            seccomp: Asked::Nothing,
            apparmor: Asked::Nothing,
            running: None,
        };
        for word in container.trim_end_matches(')').split_whitespace() {
            match word.split_once('=') {
                Some(("s", "default")) => container_of_it.seccomp = Asked::RuntimeDefault,
                Some(("s", reference)) => container_of_it.seccomp = Asked::Localhost(reference.to_owned()),
                Some((_, name)) => container_of_it.apparmor = Asked::Localhost(name.to_owned()),
                None if word == "privileged" => container_of_it.is_privileged = true,
                None => container_of_it.running = Some(ContainerId(word.to_owned())),
            }
        }
        pod.containers.push(container_of_it);
    }
    let id = PodId { namespace: "ns".to_owned(), name: name.to_owned(), uid: name.to_owned() };
    (id, pod)
}

/// What the kernel says, as `2` or `2 old`, and a label after a comma.
fn confinement(said: &str) -> Confinement {
    let (seccomp, label) =
        said.split_once(',').map_or((said, None), |(seccomp, label)| (seccomp, Some(label)));
    let mut words = seccomp.split_whitespace();
    Confinement {
        seccomp_mode: words.next().unwrap().parse().unwrap(),
        seccomp_filters: None,
        apparmor: label.map(str::to_owned),
        is_outdated: words.next() == Some("old"),
    }
}

/// Claims what is found of a pod of which the kernel says the same twice: the beginning of each finding, and
/// the states.
fn check(line: &str, said: &str, findings: &[&str], states: &str) {
    let mut scene = Scene::new(&[line]);
    if !said.is_empty() {
        scene.says("1", said);
    }
    scene.ask();
    scene.pass(1);
    scene.ask();
    let (found, counted) = scene.checks();
    assert_eq!(counted, states, "{line}: {said}");
    assert_eq!(found.len(), findings.len(), "{line}: {said}: {found:#?}");
    for (found, expected) in found.iter().zip(findings) {
        assert!(found.starts_with(expected), "{line}: {said}: {found} is not {expected}");
    }
}

#[test]
fn a_container_has_a_seccomp_profile_if_the_kernel_says_that_it_has_filters() {
    let check = |said: &str, findings: &[&str], state: &str| {
        check("p c(1 s=web/a.json)", said, findings, &format!("Seccomp {state} 1"));
    };
    check("2", &[], "Enforced");
    check("0", &["c ProfileNotEnforced Seccomp: the container runs without a seccomp filter"], "NotEnforced");
    check(
        "2 old",
        &["c ProfileOutdated Seccomp: the file of the profile has got another content"],
        "Outdated",
    );
    check("0 old", &["c ProfileNotEnforced Seccomp: "], "NotEnforced");
    check("1", &[], "Unknown");
    check("", &[], "Unknown");
}

#[test]
fn a_container_has_an_apparmor_profile_if_its_label_has_it_and_it_restricts() {
    let check = |label: &str, findings: &[&str], state: &str| {
        check("p c(1 s=default a=web)", &format!("2,{label}"), findings, &format!("AppArmor {state} 1"));
    };
    for label in
        ["web (enforce)\n", "web (kill)", "web//hat (enforce)", "x//&web (mixed)", "web//&x (enforce)"]
    {
        check(label, &[], "Enforced");
    }
    let none = "c ProfileNotEnforced AppArmor: the container runs without any AppArmor profile";
    check("unconfined\n", &[none], "NotEnforced");
    let other = |label: &str| {
        format!(
            "c ProfileNotEnforced AppArmor: the container runs under another AppArmor profile, `{label}`: "
        )
    };
    for (label, shown) in [
        ("cri-containerd.apparmor.d (enforce)", "cri-containerd.apparmor.d"),
        ("webs (enforce)", "webs"),
        (":ns:web (enforce)", ":ns:web"),
        ("x//web (complain)", "x//web"),
        ("a\u{1b}b (enforce)", "a\\u{1b}b"),
    ] {
        check(label, &[&other(shown)], "NotEnforced");
    }
    check(&"ä".repeat(500), &[&other(&"ä".repeat(150))], "NotEnforced");
    let lenient = |words: &str| {
        format!("c ProfileNotEnforced AppArmor: the profile that the container runs under {words}")
    };
    check("web (complain)", &[&lenient("is in complain mode")], "NotEnforced");
    check("web (unconfined)", &[&lenient("has the flag unconfined")], "NotEnforced");
    // A program decides; a word of a newer kernel; none.
    for label in ["web (user)", "web (future)", "web"] {
        check(label, &[], "Unknown");
    }
}

#[test]
fn what_the_kernel_does_not_tell_of_apparmor_is_unknown() {
    check("p c(1 a=web s=default)", "2", &[], "AppArmor Unknown 1");
    check("p c(1 a=web s=web/a.json)", "2", &[], "AppArmor Unknown 1, Seccomp Enforced 1");
}

#[test]
fn each_profile_of_a_container_is_judged_by_itself() {
    check(
        "p c(1 s=web/a.json a=web)",
        "0,x (enforce)",
        &["c ProfileNotEnforced Seccomp: ", "c ProfileNotEnforced AppArmor: "],
        "AppArmor NotEnforced 1, Seccomp NotEnforced 1",
    );
    check(
        "p c(1 s=web/a.json a=web)",
        "2 old,web (enforce)",
        &["c ProfileOutdated Seccomp: "],
        "AppArmor Enforced 1, Seccomp Outdated 1",
    );
}

#[test]
fn privileged_containers_have_no_seccomp_profile_also_before_they_run() {
    let privileged = "c ProfileNotEnforced Seccomp: the container is privileged, and ";
    check("p c(privileged s=web/a.json)", "", &[privileged], "");
    check("p class=kata c(privileged s=web/a.json)", "", &[privileged], "");
    check("p c(1 privileged s=web/a.json)", "2", &[privileged], "Seccomp NotEnforced 1");
    let both = "AppArmor Enforced 1, Seccomp NotEnforced 1";
    check("p c(1 privileged s=web/a.json a=web)", "0,web (enforce)", &[privileged], both);
    check("p ended c(privileged s=web/a.json)", "", &[], "");
}

#[test]
fn what_is_in_another_runtime_is_enforced_or_unknown() {
    let check = |said: &str, state: &str| {
        let states = format!("AppArmor {state} 1, Seccomp {state} 1");
        check("p class=kata c(1 s=web/a.json a=web)", said, &[], &states);
    };
    check("2,web (enforce)", "Enforced");
    check("0,unconfined", "Unknown");
    check("0,kata (enforce)", "Unknown");
    check("", "Unknown");
}

#[test]
fn containers_without_a_profile_of_the_node_are_nobody_s_business() {
    check("p c(1 s=default)", "0,unconfined", &[], "");
    check("p c(s=web/a.json a=web)", "0", &[], "");
}

#[test]
fn what_is_said_once_may_be_the_runtime_on_its_way() {
    let mut scene = Scene::new(&["p c(1 s=web/a.json)"]);
    scene.says("1", "0");
    assert_eq!(scene.ask(), ("1".to_owned(), Some(1)));
    assert_eq!(scene.checks(), (vec![], "Seccomp Unknown 1".to_owned()));
    // Another container is asked about in the same second.
    let (id, second) = pod("q c(2 s=web/a.json)");
    scene.says("2", "2");
    scene.apply(Event::PodApplied(id, second));
    assert_eq!(scene.ask(), ("1 2".to_owned(), Some(1)));
    assert_eq!(scene.checks().0, Vec::<String>::new());
    scene.pass(2);
    assert_eq!(scene.ask(), ("1".to_owned(), Some(1)));
    let found = scene.checks();
    assert_eq!((found.0.len(), found.1.as_str()), (1, "Seccomp Enforced 1, Seccomp NotEnforced 1"));
    scene.pass(4);
    scene.ask();
    assert_eq!(scene.checks(), found, "the words changed");
    scene.says("1", "2");
    scene.pass(8);
    scene.ask();
    assert_eq!(scene.checks(), (vec![], "Seccomp Enforced 2".to_owned()));
}

#[test]
fn what_is_known_against_a_container_holds_until_the_kernel_says_otherwise() {
    let mut scene = Scene::new(&["p c(1 s=web/a.json)"]);
    scene.says("1", "0");
    let ended = |scene: &mut Scene| scene.kernel.clear();
    scene.ask();
    // Not if it was said once.
    ended(&mut scene);
    scene.pass(1);
    scene.ask();
    assert_eq!(scene.checks(), (vec![], "Seccomp Unknown 1".to_owned()));
    scene.says("1", "0");
    for pause in [2, 4] {
        scene.pass(pause);
        scene.ask();
    }
    let found = scene.checks();
    assert_eq!((found.0.len(), found.1.as_str()), (1, "Seccomp NotEnforced 1"));
    ended(&mut scene);
    scene.pass(8);
    assert_eq!(scene.ask(), ("1".to_owned(), Some(4)));
    assert_eq!(scene.checks(), found);
    scene.says("1", "2");
    scene.pass(16);
    scene.ask();
    assert_eq!(scene.checks(), (vec![], "Seccomp Enforced 1".to_owned()));
}

#[test]
fn a_container_that_is_not_found_is_looked_for_ever_more_slowly() {
    let mut scene = Scene::new(&["p c(1 s=web/a.json)"]);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(scene.ask(), ("1".to_owned(), Some(pause)));
        assert_eq!(scene.checks().1, "Seccomp Unknown 1");
        scene.pass(pause);
    }
    scene.says("1", "2");
    assert_eq!(scene.ask(), ("1".to_owned(), Some(300)));
    assert_eq!(scene.checks().1, "Seccomp Enforced 1");
}

/// Claims what is asked about after each event, some seconds after all was asked.
fn check_asked(seconds: u64, happens: impl FnOnce(&mut Scene), expected: (&str, Option<u64>)) {
    let mut scene =
        Scene::new(&["p c(1 s=web/a.json) d(2 a=web s=default)", "q c(3 s=web/b.json) d(4 s=default)"]);
    for id in ["1", "2", "3"] {
        scene.says(id, "2,web (enforce)");
    }
    assert_eq!(scene.ask(), ("1 2 3".to_owned(), Some(300)));
    scene.pass(seconds);
    happens(&mut scene);
    assert_eq!(scene.ask(), (expected.0.to_owned(), expected.1), "after {seconds} s");
}

#[test]
fn containers_are_asked_about_when_something_changed_and_now_and_then() {
    let installed = |reference: &str| Event::Installed {
        reference: reference.parse().unwrap(),
        digest: Digest::of(b"x"),
    };
    check_asked(5, |_| {}, ("", Some(295)));
    check_asked(300, |_| {}, ("1 2 3", Some(300)));
    check_asked(5, |scene| scene.apply(installed("web/a.json")), ("1", Some(295)));
    check_asked(5, |scene| scene.apply(installed("web/c.json")), ("", Some(295)));
    let scanned = || Event::PolicyScanned(BTreeMap::new());
    check_asked(5, |scene| scene.apply(scanned()), ("", Some(5)));
    check_asked(15, |scene| scene.apply(scanned()), ("2", Some(285)));
    let applied = |line: &str| {
        let (id, pod) = pod(line);
        Event::PodApplied(id, pod)
    };
    // The same pod again; a container that was started again; one that is not asked for any more.
    check_asked(5, |scene| scene.apply(applied("q c(3 s=web/b.json) d(4 s=default)")), ("", Some(295)));
    check_asked(5, |scene| scene.apply(applied("q c(5 s=web/b.json) d(4 s=default)")), ("5", Some(1)));
    check_asked(5, |scene| scene.apply(applied("q c(s=web/b.json) d(4 s=default)")), ("", Some(295)));
    let gone = |line: &str| Event::PodDeleted(pod(line).0);
    check_asked(300, |scene| scene.apply(gone("p c()")), ("3", Some(300)));
    check_asked(300, |scene| scene.apply(Event::PodsListed(BTreeMap::new())), ("", None));
    check_asked(
        5,
        |scene| scene.apply(Event::PodsListed([pod("q c(3 s=web/b.json)")].into())),
        ("", Some(295)),
    );
}

#[test]
fn a_foreign_file_is_compared_with_what_was_seen_before() {
    let looked = |content: &str| {
        let judged = Judged {
            digest: Digest::of(content.as_bytes()),
            effect: Effect::Confined,
            diagnostics: [].into(),
        };
        let files = [(SeccompPath::of("web/a.json").unwrap(), FileSight::File(judged))].into();
        Event::Looked(Sights { files, ..Sights::default() })
    };
    check_asked(5, |scene| scene.apply(looked("1")), ("", Some(295)));
    check_asked(
        5,
        |scene| ["1", "1"].into_iter().for_each(|content| scene.apply(looked(content))),
        ("", Some(295)),
    );
    check_asked(
        5,
        |scene| ["1", "2"].into_iter().for_each(|content| scene.apply(looked(content))),
        ("1", Some(295)),
    );
}

#[test]
fn what_is_due_soon_is_asked_along() {
    let mut scene = Scene::new(&["p c(1 s=web/a.json)"]);
    scene.says("1", "2");
    scene.ask();
    scene.pass(250);
    let (id, second) = pod("q c(2 s=web/a.json)");
    scene.apply(Event::PodApplied(id, second));
    scene.says("2", "2");
    assert_eq!(scene.ask(), ("1 2".to_owned(), Some(300)));
}

#[test]
fn the_node_s_default_is_told_by_containers_that_ask_for_nothing() {
    let mut scene = Scene::new(&[
        "p c(1 privileged) d(2 s=default)",
        "q class=kata c(3)",
        "r ended c(4)",
        "s c() d(6 a=web) e(5)",
    ]);
    assert_eq!(scene.state.seccomp_default(), None);
    scene.says("6", "2,web (enforce)");
    // Not found: another one is asked.
    assert_eq!(scene.ask(), ("5 6".to_owned(), Some(1)));
    assert_eq!(scene.state.seccomp_default(), None);
    scene.pass(1);
    assert_eq!(scene.ask(), ("6".to_owned(), Some(300)));
    assert_eq!(scene.state.seccomp_default(), Some(true));
    scene.says("5", "0");
    scene.pass(300);
    assert_eq!(scene.ask().0, "5 6");
    assert_eq!(scene.state.seccomp_default(), Some(false));
    // One that has a filter, maybe of its own, is no reason to say something else each time.
    scene.pass(300);
    assert_eq!(scene.ask().0, "6");
    assert_eq!(scene.state.seccomp_default(), Some(false));
    scene.apply(Event::PodApplied(pod("s c()").0, pod("s c() d(6 a=web) e()").1));
    scene.pass(300);
    assert_eq!(scene.ask().0, "6");
    assert_eq!(scene.state.seccomp_default(), Some(true));
    scene.says("6", "0");
    scene.pass(300);
    assert_eq!(scene.ask().0, "6");
    assert_eq!(scene.state.seccomp_default(), Some(false));
    scene.apply(Event::PodsListed(BTreeMap::new()));
    scene.pass(300);
    assert_eq!(scene.ask(), (String::new(), None));
    assert_eq!(scene.state.seccomp_default(), Some(false));
}

#[test]
fn containers_that_start_together_are_asked_about_together() {
    let mut scene = Scene::new(&[]);
    let start = scene.now;
    for number in 0..5 {
        let (id, pod) = pod(&format!("p{number} c({number} s=web/a.json)"));
        scene.state.apply(Event::PodApplied(id, pod), scene.now);
        assert_eq!(scene.ask().0, "", "not yet");
        scene.now = scene.now + SETTLING / 10;
    }
    scene.now = start + SETTLING;
    assert_eq!(scene.ask().0, "0 1 2 3 4");
}

#[test]
fn what_is_said_against_one_profile_does_not_confirm_what_is_said_against_the_other() {
    let mut scene = Scene::new(&["p c(1 s=web/a.json a=web)"]);
    scene.says("1", "0,web (enforce)");
    scene.ask();
    scene.pass(1);
    scene.says("1", "0,unconfined");
    assert_eq!(scene.ask(), ("1".to_owned(), Some(1)));
    assert_eq!(scene.checks().1, "AppArmor Unknown 1, Seccomp NotEnforced 1");
    scene.pass(1);
    scene.ask();
    assert_eq!(scene.checks().1, "AppArmor NotEnforced 1, Seccomp NotEnforced 1");
}
