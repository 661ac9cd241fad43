//! What becomes of references: what happens, what is at the places, and what is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::apparmor::policy::Mode;
use crate::bundle::Kind;
use crate::check::{PodChecks, PodFinding, ReferenceState};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::digest::Digest;
use crate::name::NodeName;
use crate::plan::tests::kernel::apparmor;
use crate::plan::tests::scene::Scene;
use crate::pod::{Asked, Container, ContainerKind, Pod, PodId};
use crate::sight::{Effect, FileSight, Judged, Looks, PolicySight, SeccompPath, Sights};
use crate::state::Event;

use super::LONGEST;
use Kind::{AppArmor, Seccomp};

fn container(kind: Kind, asked: Asked) -> Container {
    let (seccomp, apparmor) = match kind {
        Seccomp => (asked, Asked::Nothing),
        AppArmor => (Asked::Nothing, asked),
    };
    let name = "c".to_owned();
    Container { name, kind: ContainerKind::Regular, is_privileged: false, seccomp, apparmor, running: None }
}

fn pod_of(container: Container) -> Pod {
    Pod { containers: vec![container], ..Pod::default() }
}

fn referring(kind: Kind, reference: &str) -> Pod {
    pod_of(container(kind, Asked::Localhost(reference.to_owned())))
}

fn id(name: &str) -> PodId {
    PodId { namespace: "ns".to_owned(), name: name.to_owned(), uid: name.to_owned() }
}

/// A node whose Node, bundles, disk and kernel are known, after what `script` says.
fn scene(script: &[&str]) -> Scene {
    let mut scene = apparmor();
    scene.state.config.node = Some(NodeName::new("node1").unwrap());
    scene.play("kernel");
    scene.play("node disk=hdd");
    for line in script {
        scene.play(line);
    }
    scene
}

/// Lets a node with this pod look where that leads to, and find `there`, or nothing.
fn look(scene: &mut Scene, pod: Pod, there: Option<&Sight>) {
    scene.apply(Event::PodsListed([(id("p"), pod)].into()));
    let Looks { files, policies } = scene.state.looks();
    let file = |path| match there {
        Some(Sight::File(sight)) => (path, sight.clone()),
        _ => (path, FileSight::Absent),
    };
    let policy = |name| match there {
        Some(Sight::Policy(sight)) => (name, *sight),
        _ => (name, PolicySight::Absent),
    };
    let (files, policies) =
        (files.into_iter().map(file).collect(), policies.into_iter().map(policy).collect());
    scene.apply(Event::Looked(Sights { files, policies }));
    assert_eq!(scene.state.looks(), Looks::default(), "a place is looked at once");
}

/// What is at a place.
enum Sight {
    File(FileSight),
    Policy(PolicySight),
}

fn file(effect: Effect) -> Sight {
    let message = "a reason".to_owned();
    let finding = Diagnostic { code: Code::UnknownAction, place: Place::at("$"), message, help: "do so" };
    let digest = Digest::of(b"theirs");
    Sight::File(FileSight::File(Judged { digest, effect, diagnostics: Arc::new([finding]) }))
}

fn policy(mode: Option<Mode>) -> Sight {
    Sight::Policy(PolicySight::Present(mode))
}

/// What is said of the only reference: its state, or the reason and the message.
fn said(checks: &PodChecks) -> String {
    match &checks.findings[..] {
        [] => {
            let states: Vec<String> =
                checks.references.keys().map(|(_, state)| format!("{state:?}")).collect();
            states.join(" ")
        }
        [finding] => {
            assert_eq!(checks.references, BTreeMap::from([((finding.kind, ReferenceState::Unresolved), 1)]));
            assert!(finding.message.len() <= LONGEST, "{} is too long", finding.message);
            format!("{}: {}", finding.reason.as_str(), finding.message)
        }
        more => panic!("{more:?}"),
    }
}

/// Claims what is said of a reference, after `script` and with this at its place.
fn check(script: &[&str], kind: Kind, reference: &str, there: Option<&Sight>, expected: &str) {
    let mut scene = scene(script);
    look(&mut scene, referring(kind, reference), there);
    let said = said(&scene.state.check_pods(scene.now));
    assert_eq!(said, expected, "{reference} after {script:?}");
}

/// Claims why a profile is missing.
fn check_missing(script: &[&str], kind: Kind, reference: &str, expected: &str) {
    let word = super::word(kind);
    let expected = format!("ProfileMissing: the {word} profile {reference} is not on node1: {expected}");
    check(script, kind, reference, None, &expected);
}

#[test]
fn nothing_is_said_before_all_is_known() {
    let mut scene = Scene::new();
    scene.apply(Event::PodsListed([(id("p"), referring(Seccomp, "web/a"))].into()));
    for line in ["node", "list-home", "list-team", "scan"] {
        assert_eq!(scene.state.check_pods(scene.now), PodChecks::default(), "before {line}");
        scene.play(line);
    }
    assert_eq!(said(&scene.state.check_pods(scene.now)), "Pending");
    scene.state.config.apparmor = crate::platform::AppArmor::Enabled;
    assert_eq!(scene.state.check_pods(scene.now), PodChecks::default(), "the kernel is not known");
}

#[test]
fn what_is_ours_resolves() {
    check(&["list web:a=1", "done"], Seccomp, "web/a", None, "Resolved");
    check(&["list web:a=1", "done"], Seccomp, "./web//a", None, "Resolved");
    check(&["list web:a=1", "done", "apply web:a=bad"], Seccomp, "web/a", None, "Resolved");
    check(&["list web:a=1", "done", "delete web"], Seccomp, "web/a", None, "Resolved");
    check(&["list ~web:k=a/1", "compiled", "done"], AppArmor, "a", None, "Resolved");
}

#[test]
fn what_a_runtime_drops_of_a_reference_is_dropped_once_and_not_again_here() {
    let script = &["list ~web:k=a/1", "compiled", "done"];
    check_missing(script, AppArmor, "localhost/a", "no bundle declares it; did you mean a?");
}

#[test]
fn what_is_about_to_be_there_is_waited_for() {
    check(&["list web:a=1"], Seccomp, "web/a", None, "Pending");
    check(&["list ~web:k=a/1"], AppArmor, "a", None, "Pending");
    check(&["list ~web:k=a/1", "compiling"], AppArmor, "a", None, "Pending");
    check(&["list ~web:k=a/1", "compiled"], AppArmor, "a", None, "Pending");
}

#[test]
fn somebody_elses_is_judged_by_what_it_does() {
    let list: &[&str] = &["list"];
    for (there, expected) in [
        (file(Effect::Confined), "Resolved"),
        (
            file(Effect::Unconfined),
            "ProfileUnsafe: the seccomp profile web/a on node1 is somebody else's, and would leave the container unconfined: \
             unknown-action: a reason; do so",
        ),
        (
            file(Effect::Weakened),
            "ProfileUnsafe: the seccomp profile web/a on node1 is somebody else's, and would confine the container by less than \
             it says: it is written for Docker or Podman, and containerd drops archMap, includes, excludes, name, errno, \
             defaultErrno, and keys that stand twice; publish it in a bundle, which is resolved for each node, and move it away \
             here",
        ),
        (
            file(Effect::Unusable),
            "ProfileInvalid: the seccomp profile web/a on node1 is somebody else's, and is one that no runtime starts a container \
             with: unknown-action: a reason; do so",
        ),
        (
            Sight::File(FileSight::NotAFile("a directory")),
            "ProfileInvalid: the seccomp profile web/a on node1 is a directory, and no file",
        ),
        (Sight::File(FileSight::Unreadable("why".to_owned())), "Unchecked"),
    ] {
        check(list, Seccomp, "web/a", Some(&there), expected);
    }
    for (there, expected) in [
        (policy(Some(Mode::Enforce)), "Resolved"),
        (policy(Some(Mode::Kill)), "Resolved"),
        (policy(Some(Mode::User)), "Resolved"),
        (policy(None), "Unchecked"),
        (
            policy(Some(Mode::Complain)),
            "ProfileUnsafe: the AppArmor profile a on node1 is somebody else's, and is in complain mode: what it does not allow \
             is only logged",
        ),
        (
            policy(Some(Mode::Unconfined)),
            "ProfileUnsafe: the AppArmor profile a on node1 is somebody else's, and has the flag unconfined: it restricts nothing",
        ),
    ] {
        check(list, AppArmor, "a", Some(&there), expected);
    }
    let foreign: &[&str] = &["list web:a=1", "foreign"];
    check(foreign, Seccomp, "web/a", Some(&file(Effect::Confined)), "Resolved");
    check(
        foreign,
        Seccomp,
        "web/a",
        Some(&file(Effect::Unusable)),
        "ProfileInvalid: the seccomp profile web/a on node1 is somebody else's, and is one that no runtime starts a container with: \
         unknown-action: a reason; do so, and keeps the bundle's profile out: move it away",
    );
}

#[test]
fn what_somebody_changed_and_is_not_put_right_is_no_profile_of_ours() {
    let begin = ["list web:a=1", "done"];
    let there = file(Effect::Confined);
    let check = |script: &[&str], expected: &str| {
        let expected = format!(
            "ProfileChanged: the seccomp profile web/a on node1 was changed by somebody: it has another content; {expected}"
        );
        check(&[&begin[..], script].concat(), Seccomp, "web/a", Some(&there), &expected);
    };
    check(
        &["scan web/a=changed", "fail-owned"],
        "putting it back failed, which is tried again: see the log of the agent on the node",
    );
    check(&["delete web", "scan web/a=changed"], "no bundle asks for it any more, so it is not put back");
    let fight: Vec<&str> = ["scan web/a=changed", "done"].repeat(10);
    check(
        &[&fight[..], &["scan web/a=changed"]].concat(),
        "it is put back once a minute at most, as that happens again and again: find out who does it",
    );
    super::tests::check(
        &["scan web/a=changed", "list web:a=bad"],
        Seccomp,
        "web/a",
        Some(&there),
        "ProfileChanged: the seccomp profile web/a on node1 was changed by somebody: it has another content; its newest text is \
         refused, and no copy of the one before is left: correct the bundle",
    );
}

#[test]
fn a_reason_for_a_missing_file_is_the_one_nearest_to_a_remedy() {
    for (script, reference, expected) in [
        (
            "list web:a=bad",
            "web/a",
            "the bundle home/web has it, and this node refuses it: missing-default-action: there is no default action, so \
             containerd and runc would run the container unconfined; add one, such as \"defaultAction\": \"SCMP_ACT_ERRNO\"",
        ),
        (
            "list web[disk=ssd,zone]:a=1",
            "web/a",
            "the bundle home/web has it for other nodes: its annotation pavise.dev/node-selector, disk=ssd,zone, does not match \
             the labels of node1",
        ),
        (
            "list web[=]:a=1",
            "web/a",
            "the bundle home/web has it, and it can't be told for which nodes: invalid-node-selector: \"=\" stands where there should be a label's \
             key; correct it; until then nodes keep what they have of the bundle, and take nothing new",
        ),
        (
            "list ~web:k=a/1",
            "web/k",
            "the bundle home/web holds AppArmor profiles, and this is a seccomp one",
        ),
        ("list ~web:k=a/1", "a", "it is an AppArmor profile: refer to it in appArmorProfile"),
        ("list web:unreadable", "web/a", "the bundle home/web can't be read: unreadable: ; "),
        (
            "list team/web:a=1",
            "web/a",
            "no bundle declares it, but team/web has such a key: write _team/web/a",
        ),
        ("list web:a=1", "_team/web/a", "no bundle declares it, but home/web has such a key: write web/a"),
        (
            "list web:a=1",
            "localhost/web/a",
            "a reference is a path below the kubelet's directory seccomp, with nothing before it: write web/a",
        ),
        (
            "list web:a=1",
            "seccomp/web/a",
            "a reference is a path below the kubelet's directory seccomp, with nothing before it: write web/a",
        ),
        (
            "list web:a=1",
            "/var/lib/kubelet/seccomp/web/a",
            "a reference is a path below the kubelet's directory seccomp: write web/a",
        ),
        (
            "list web:a=1",
            "../web/a",
            "a reference is a path below the kubelet's directory seccomp, without / in front and without ..",
        ),
        (
            "list profiles:audit.json=1",
            "profiles/adit.json",
            "the bundle home/profiles has no key adit.json; did you mean profiles/audit.json?",
        ),
        (
            "list profiles:audit.json=1",
            "profile/audit.json",
            "no bundle declares it; did you mean profiles/audit.json?",
        ),
        ("list web:a.json=1,b.json=1", "web/a", "the bundle home/web has no key a; did you mean web/a.json?"),
        (
            "list profiles:aa.json=1,ab.json=1,ac.json=1,ad.json=1",
            "profiles/ae.json",
            "the bundle home/profiles has no key ae.json; did you mean profiles/aa.json, profiles/ab.json or profiles/ac.json?",
        ),
        ("list", "some/where/else", "no bundle declares it"),
    ] {
        check_missing(&[script], Seccomp, reference, expected);
    }
    let failed =
        "a bundle has it, and writing it failed, which is tried again: see the log of the agent on the node";
    check_missing(&["list web:a=1", "fail"], Seccomp, "web/a", failed);
}

#[test]
fn a_reason_for_a_missing_policy_is_the_one_nearest_to_a_remedy() {
    let log = "which is tried again: see the log of the agent on the node";
    for (script, expected) in [
        (
            &["list ~web:k=a/1", "refused"][..],
            "the bundle home/web has it, and this node refuses it: invalid-policy: syntax error; ",
        ),
        (
            &["list ~web:k=a/1", "failed"],
            &format!("the bundle home/web has it, and compiling it failed, {log}"),
        ),
        (
            &["list ~web:k=a/1", "compiled", "fail"],
            &format!("the bundle home/web has it, and loading it failed, {log}"),
        ),
        (
            &["list ~web[disk=ssd]:k=a/1"],
            "the bundle home/web has it for other nodes: its annotation pavise.dev/node-selector, disk=ssd, does not match the \
             labels of node1",
        ),
        (
            &["list ~old@1:k=b/1 ~web@2:k=a+b/1", "compiled", "done"],
            "the bundle home/web has it in its key k, which is refused: the profile b that it declares belongs to the key k of \
             home/old (profile-taken); rename one of the two",
        ),
        (
            &["list ~web:a=bad"],
            "the key a of the bundle home/web may declare it, and this node refuses that key: no-profile: the text declares no profile; \
             write profile <name> { … }",
        ),
        (&["list"], "no bundle declares it"),
    ] {
        check_missing(script, AppArmor, "a", expected);
    }
    check_missing(
        &["list ~web:k=deny-write/1"],
        AppArmor,
        "deny-wrtie",
        "no bundle declares it; did you mean deny-write?",
    );
    check_missing(
        &["list web:a=1"],
        AppArmor,
        "web/a",
        "it is a seccomp profile: refer to it in seccompProfile",
    );
    check(&["list"], AppArmor, "a b", None, "Unchecked");
}

#[test]
fn a_text_waits_for_all_of_its_names() {
    let mut scene = scene(&["list ~web:k=a+b/1", "compiled", "foreign"]);
    look(&mut scene, referring(AppArmor, "a"), None);
    assert_eq!(
        said(&scene.state.check_pods(scene.now)),
        "ProfileMissing: the AppArmor profile a is not on node1: the bundle home/web has it, in a text that declares b as well, which \
         the kernel has from somebody else: none of the text is loaded before that is removed, or renamed in the bundle"
    );
}

#[test]
fn what_somebody_changed_is_not_put_back_while_another_name_of_its_text_is_taken() {
    let mut scene = scene(&[
        "list ~web:k=a/1",
        "compiled",
        "done",
        "apply ~web:k=a+b/2",
        "compiled",
        "kernel a=a/1:changed",
        "foreign-name b",
    ]);
    let there = Sight::Policy(PolicySight::Present(Some(Mode::Enforce)));
    look(&mut scene, referring(AppArmor, "a"), Some(&there));
    assert_eq!(
        said(&scene.state.check_pods(scene.now)),
        "ProfileChanged: the AppArmor profile a on node1 was changed by somebody: the kernel has another one of that name; the \
         bundle has it in a text that declares b as well, which the kernel has from somebody else: none of the text is loaded \
         before that is removed, or renamed in the bundle"
    );
}

#[test]
fn a_node_without_apparmor_says_what_becomes_of_the_pod() {
    let mut scene = scene(&["list"]);
    scene.state.config.apparmor = crate::platform::AppArmor::Disabled;
    look(&mut scene, referring(AppArmor, "team/web"), None);
    let advice = "the kubelet fails such a pod for good: delete it, and add the nodeSelector \
                  apparmor.pavise.dev/team_web_a5cb1ff62f8ed32c: \"true\", so that the next one comes to a node that has the profile";
    assert_eq!(
        said(&scene.state.check_pods(scene.now)),
        format!("AppArmorUnavailable: node1 has no AppArmor, and {advice}")
    );
    scene.state.config.apparmor = crate::platform::AppArmor::Unknown;
    assert_eq!(said(&scene.state.check_pods(scene.now)), "Unchecked", "the agent can't see it");

    let rejected = Pod { is_rejected: true, has_ended: true, ..referring(AppArmor, "team/web") };
    look(&mut scene, rejected, None);
    let expected = format!("AppArmorUnavailable: node1 had no AppArmor when the pod came, and {advice}");
    assert_eq!(said(&scene.state.check_pods(scene.now)), expected);
    let rejected =
        Pod { is_rejected: true, has_ended: true, ..pod_of(container(AppArmor, Asked::RuntimeDefault)) };
    look(&mut scene, rejected, None);
    let expected = "AppArmorUnavailable: node1 had no AppArmor when the pod came, and the kubelet fails such a pod for good: delete it, \
                    and have the next one select nodes that have AppArmor";
    assert_eq!(said(&scene.state.check_pods(scene.now)), expected);
}

#[test]
fn what_asks_for_no_profile_of_the_node_is_left_alone() {
    for (asked, expected) in [
        (Asked::Nothing, ""),
        (Asked::RuntimeDefault, ""),
        (Asked::Unconfined, ""),
        (Asked::Unknown("OCI".to_owned()), "Unchecked"),
        (
            Asked::Localhost(String::new()),
            "ProfileMissing: the seccomp profile of type Localhost has no localhostProfile, so the kubelet does not start the \
             container (CreateContainerConfigError): add one",
        ),
    ] {
        let mut scene = scene(&["list"]);
        look(&mut scene, pod_of(container(Seccomp, asked)), None);
        assert_eq!(said(&scene.state.check_pods(scene.now)), expected);
    }
    let mut scene = scene(&["list"]);
    let privileged =
        Container { is_privileged: true, ..container(Seccomp, Asked::Localhost("web/a".to_owned())) };
    scene.apply(Event::PodsListed([(id("p"), pod_of(privileged))].into()));
    assert_eq!(scene.state.looks(), Looks::default(), "the runtime does not read it either");
    let checks = scene.state.check_pods(scene.now);
    assert_eq!(checks.references, BTreeMap::from([((Seccomp, ReferenceState::Unchecked), 1)]));
    look(&mut scene, Pod { has_ended: true, ..referring(Seccomp, "web/a") }, None);
    assert_eq!(scene.state.check_pods(scene.now), PodChecks::default());
}

#[test]
fn all_is_looked_at_again_after_a_scan_and_what_can_not_be_told_only_then() {
    let mut scene = scene(&["list"]);
    let mut pod = referring(Seccomp, "web/a");
    pod.containers.push(container(AppArmor, Asked::Localhost("a".to_owned())));
    look(&mut scene, pod, None);
    for line in ["scan", "kernel"] {
        scene.play(line);
        let looks = scene.state.looks();
        assert_eq!((looks.files.len(), looks.policies.len()), if line == "scan" { (1, 0) } else { (0, 1) });
        scene.apply(Event::Looked(Sights::default()));
        assert_eq!(scene.state.looks(), Looks::default());
    }
    let checks = scene.state.check_pods(scene.now);
    assert_eq!(checks.references.values().sum::<usize>(), 2);
    assert!(checks.references.keys().all(|(_, state)| *state == ReferenceState::Unchecked));
    assert_eq!(checks.undecided, [id("p")].into(), "nor can it be told that all is right");
}

#[test]
fn of_a_pod_no_more_problems_are_told_than_anybody_reads_and_all_are_counted() {
    let mut scene = scene(&["list"]);
    let pod = |containers| Pod { containers, ..Pod::default() };
    let missing = |number: usize| container(Seccomp, Asked::Localhost(format!("web/{number}")));
    let many: Vec<Container> = (0..64).map(missing).collect();
    let one = vec![missing(0)];
    look(&mut scene, pod(many.clone()), None);
    scene.apply(Event::PodsListed([(id("p"), pod(many)), (id("q"), pod(one))].into()));
    let checks = scene.state.check_pods(scene.now);
    let told = |name: &str| checks.findings.iter().filter(|finding| finding.pod == id(name)).count();
    assert_eq!((told("p"), told("q")), (16, 1));
    assert_eq!(checks.references, [((Seccomp, ReferenceState::Unresolved), 65)].into());
}

#[test]
fn what_was_seen_for_pods_that_are_gone_is_forgotten() {
    let mut scene = scene(&["list"]);
    for number in 0..10 {
        let mut pod = referring(Seccomp, &format!("web/{number}"));
        pod.containers.push(container(AppArmor, Asked::Localhost(format!("a{number}"))));
        look(&mut scene, pod, None);
    }
    assert_eq!((scene.state.known.files.len(), scene.state.known.policies.len()), (1, 1));
}

#[test]
fn what_a_pod_says_is_shown_and_does_nothing() {
    let mut scene = scene(&["list"]);
    let reference = format!("a\n\u{202e}{}", "\u{1b}x".repeat(5000));
    look(&mut scene, referring(Seccomp, &reference), None);
    let said = said(&scene.state.check_pods(scene.now));
    assert!(said.starts_with("ProfileMissing: the seccomp profile a\\n\\u{202e}\\u{1b}x\\u{1b}x"), "{said}");
    assert!(
        !said.contains(char::is_control) && said.ends_with("is not on node1: no bundle declares it"),
        "{said}"
    );
}

#[test]
fn a_message_has_a_bound() {
    let names: Vec<String> =
        (0..3).map(|number| format!("~web{number}[{}]:k=a/1", "disk=x,".repeat(200) + "disk=y")).collect();
    let mut scene = scene(&[&format!("list {}", names.join(" "))]);
    let path = SeccompPath::of(&"\u{1b}".repeat(600)).unwrap();
    look(&mut scene, referring(Seccomp, path.as_str()), None);
    said(&scene.state.check_pods(scene.now));
    look(&mut scene, referring(AppArmor, "a"), None);
    said(&scene.state.check_pods(scene.now));
}

#[test]
fn names_are_suggested_for_the_first_of_many_that_are_unknown() {
    for (unknown, suggested) in [(50, 50), (51, 50)] {
        let mut scene = scene(&["list web:audit.json=1 ~policies:k=a/1", "done"]);
        let pod = |number: usize| {
            let mut pod = referring(Seccomp, &format!("web{number}/audit.json"));
            pod.containers.push(container(Seccomp, Asked::Localhost("web/audit.json".to_owned())));
            (id(&format!("p{number:02}")), pod)
        };
        scene.apply(Event::PodsListed((0..unknown).map(pod).collect()));
        let files = scene.state.looks().files.into_iter().map(|path| (path, FileSight::Absent)).collect();
        scene.apply(Event::Looked(Sights { files, policies: BTreeMap::new() }));
        let checks = scene.state.check_pods(scene.now);
        let counted = [(ReferenceState::Resolved, unknown), (ReferenceState::Unresolved, unknown)];
        assert_eq!(checks.references, counted.map(|(state, count)| ((Seccomp, state), count)).into());
        let has_names = |finding: &&PodFinding| finding.message.ends_with("; did you mean web/audit.json?");
        assert_eq!(checks.findings.iter().filter(has_names).count(), suggested);
    }
}
