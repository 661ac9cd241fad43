//! The rules about what pods of the node need.

use super::kernel::{check_apparmor, settled};
use super::random::Random;
use super::scene::{Scene, check};
use crate::bundle::Kind;
use crate::label::LabelKey;
use crate::plan::tests::summary::in_words;
use crate::pod::Need;
use crate::seed;

/// Plays `script` on a node with the bundle `web` of `a` and `b` on disk, labelled.
fn check_web(script: &[(&str, &str)]) {
    let begin: &[(&str, &str)] = &[
        ("scan web/a=1 web/b=1", ""),
        ("node seccomp/web_a seccomp/web_b bundle/web", ""),
        ("list web:a=1,b=1", ""),
    ];
    check(&[begin, script].concat());
}

#[test]
fn a_file_that_a_pod_refers_to_stays_with_its_label() {
    check_web(&[
        ("pods p=web/a q=.//web/a,x/y", ""),
        ("delete web", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_b"),
        ("done", "remove web/b"),
        ("done", ""),
        ("+9000s", ""),
        ("pod-gone p", ""),
        ("pod q=x/y", "-seccomp/web_a"),
        // A label that is about to go can't be had back.
        ("send", ""),
        ("pod r=web/a", ""),
        ("written", ""),
        ("pod-gone r", "remove web/a"),
        ("fail-removal", "wake 1s"),
        ("pod r=web/a", ""),
        ("+1s", ""),
        ("pod-gone r", "remove web/a"),
        ("done", ""),
    ]);
}

#[test]
fn what_a_label_speaks_of_stays_while_a_pod_selects_on_it() {
    check_web(&[
        ("pods p=%seccomp/web_a", ""),
        ("delete web", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_b"),
        ("done", "remove web/b"),
        ("done", ""),
        ("pods", "-seccomp/web_a"),
        ("done", "remove web/a"),
    ]);
    check_web(&[
        ("pods p=%bundle/web", ""),
        ("delete web", "wake 300s"),
        ("+300s", ""),
        ("pod p=%team.bundle/web", "-bundle/web -seccomp/web_a -seccomp/web_b"),
    ]);
    // Also what only shares the label.
    let long = "k".repeat(60);
    let label = LabelKey::of_profile(&format!("web/{long}").parse().unwrap());
    let twin = label.as_str().split_once('_').unwrap().1.to_owned();
    let short = label.as_str().replace(".pavise.dev", "");
    check(&[
        (&format!("scan web/{long}=1 web/{twin}=1"), ""),
        (&format!("node {short} bundle/web"), ""),
        (&format!("pods p=%{short}"), ""),
        ("list", "wake 300s"),
        ("+300s", ""),
        ("pods", &format!("-bundle/web -{short}")),
    ]);
}

#[test]
fn it_does_not_matter_why_a_profile_would_go() {
    for (node, end) in [
        ("node seccomp/web_a seccomp/web_b bundle/web", "delete web"),
        ("node seccomp/web_a seccomp/web_b bundle/web", "list"),
        ("node seccomp/web_a seccomp/web_b bundle/web disk=hdd", "apply web[disk=ssd]:a=1,b=1"),
        ("node seccomp/web_a seccomp/web_b bundle/web", "apply ~web:k=a/1"),
    ] {
        check_web(&[
            (node, ""),
            ("pods p=web/a,web/b", ""),
            (end, "wake 300s"),
            ("+9000s", ""),
            ("apply web:a=1,b=1", ""),
            ("pods", ""),
        ]);
    }
    check_web(&[
        ("pods p=web/b", ""),
        ("apply web:a=1", "wake 300s"),
        ("+300s", ""),
        ("pods", "-seccomp/web_b"),
    ]);
}

#[test]
fn nothing_is_taken_away_before_pods_are_known() {
    check(&[
        ("pods-unknown", ""),
        ("scan web/a=1 web/b=changed", ""),
        ("node seccomp/web_a seccomp/web_b bundle/x apparmor/x", ""),
        ("list new:c=1", "install new/c=1 wake 300s"),
        ("done", "+bundle/new +seccomp/new_c wake 300s"),
        ("done", "wake 299s"),
        ("+9000s", ""),
        ("pod p=web/a", ""),
        ("pods p=web/b,%bundle/x", "-apparmor/x -seccomp/web_a -seccomp/web_b"),
        ("done", "remove web/a"),
        ("done", ""),
        ("pods", "remove web/b"),
        ("done", "-bundle/x"),
    ]);
}

#[test]
fn a_label_that_a_pod_needs_stays_although_the_profile_can_not_be_held() {
    check_web(&[
        ("pods p=%seccomp/web_a q=web/a", ""),
        ("scan web/a=notafile web/b=1", "install web/a=1"),
        ("foreign", "-bundle/web wake 60s"),
        ("done", "wake 59s"),
        ("pod-gone p", "-seccomp/web_a wake 59s"),
    ]);
    check_web(&[
        ("pods p=%seccomp/web_a,%bundle/web", ""),
        ("scan web/a=changed web/b=1", "install web/a=1"),
        ("fail-owned", "wake 1s"),
        // It is not set anew, if somebody takes it away.
        ("node seccomp/web_b bundle/web", "wake 1s"),
        ("+1s", "install web/a=1"),
        ("done", "+seccomp/web_a"),
    ]);
    check_web(&[
        ("pods p=%seccomp/web_a,%bundle/web", ""),
        ("delete web", "wake 300s"),
        ("scan web/a=changed web/b=1", "wake 300s"),
        ("+300s", ""),
        ("pods", "-bundle/web -seccomp/web_a -seccomp/web_b"),
        ("done", "remove web/a remove web/b"),
    ]);
}

#[test]
fn a_bundle_that_wants_no_labels_of_profiles_any_more_keeps_those_that_pods_need() {
    check_web(&[
        ("pods p=%seccomp/web_a", ""),
        ("apply web!:a=1,b=1", "-seccomp/web_b"),
        ("done", ""),
        ("pods", "-seccomp/web_a"),
        ("node bundle/web", ""),
    ]);
}

#[test]
fn a_label_that_a_pod_needs_is_put_right_as_long_as_it_is_true() {
    check_web(&[
        ("pods p=%seccomp/web_a", ""),
        ("node seccomp/web_a=false seccomp/web_b bundle/web", "+seccomp/web_a"),
        ("done", ""),
        ("delete web", "wake 300s"),
        ("node seccomp/web_a=false seccomp/web_b bundle/web", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_b"),
    ]);
}

#[test]
fn where_there_is_no_node_pods_do_not_matter() {
    check(&[
        ("no-node", ""),
        ("pods-unknown", ""),
        ("scan web/a=1", ""),
        ("list", "wake 300s"),
        ("+300s", "remove web/a"),
    ]);
}

#[test]
fn apparmor_profiles_and_their_labels_stay_as_well() {
    for pods in ["pods p=%apparmor/a", "pods p=%bundle/web", "pods p=a"] {
        settled(&[
            (pods, ""),
            ("delete web", "wake 300s"),
            ("+300s", ""),
            ("kernel a=a/1:absent", "load a/1"),
            ("done", ""),
            ("pods", "-apparmor/a -bundle/web"),
            ("done", "unload a"),
        ]);
    }
    settled(&[
        ("pods p=%apparmor/a", ""),
        ("kernel a=a/1:changed", "load a/1"),
        ("foreign", "-bundle/web wake 60s"),
        ("done", "wake 59s"),
        ("pods", "-apparmor/a wake 59s"),
    ]);
    check_apparmor(&[
        ("pods-unknown", ""),
        ("kernel a=a/1", ""),
        ("node apparmor/a apparmor/b bundle/web", ""),
        ("list", "wake 300s"),
        ("+300s", ""),
        ("pods p=%apparmor/a q=%apparmor/b", "-bundle/web"),
        ("done", ""),
        ("pods q=a", "-apparmor/b"),
    ]);
}

#[test]
fn who_retains_what_is_told() {
    let mut scene = super::kernel::apparmor();
    for (line, expected, numbers) in [
        ("scan web/a=1 web/b=1", "", "loaded=2 retained=2"),
        ("kernel p=p/1", "", "loaded=2 retained=2"),
        ("node", "", "loaded=2 retained=2"),
        ("pods x=web/a y=%bundle/web,web//a,p z=other", "", "loaded=2 retained=2"),
        ("list", "", "loaded=2 retained=2"),
        ("+300s", "web/a:x,y web/b:y p:y", "loaded=2 retained=2"),
        ("pod y=%apparmor/p", "web/a:x p:y", "loaded=2 retained=2"),
        ("done", "web/a:x p:y", "loaded=1 retained=1"),
        ("list web:a=1", "p:y", "bundles=1 desired=1 loaded=1"),
    ] {
        scene.play(line);
        let shown = scene.state.retained_by_pods(scene.now).into_iter().map(|retained| {
            let pods: Vec<&str> = retained.pods.iter().map(|id| id.uid.as_str()).collect();
            format!("{}:{}", retained.reference, pods.join(","))
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{line}");
        assert_eq!(in_words(scene.state.summary(Kind::Seccomp, scene.now)), numbers, "{line}");
    }
}

/// What may happen to the bundle `web`, its files and labels, and the pod `p`.
const LINES: &[&str] = &[
    "apply web:a=1",
    "apply web:a=2,b=1",
    "apply web:a=bad",
    "apply web!:a=1,b=1",
    "apply web[disk=ssd]:a=1",
    "delete web",
    "list",
    "list-home web:b=1",
    "scan web/a=changed web/b=1",
    "scan web/a=1 web/b=absent",
    "node seccomp/web_a seccomp/web_b bundle/web disk=ssd",
    "node seccomp/web_a=false",
    "gone",
    "done",
    "done",
    "done",
    "fail-owned",
    "foreign",
    "fail-removal",
    "+1s",
    "+300s",
    "+300s",
    "pod p=web/a",
    "pod p=%seccomp/web_b",
    "pod p=%bundle/web",
    "pod p=",
    "pod-gone p",
    "pods-unknown",
    "pods",
    "pods p=%seccomp/web_a q=web/b",
];

#[test]
fn what_a_pod_needs_is_not_taken_away_in_random_histories() {
    for history in 0..100 {
        let mut random = Random(seed::number().wrapping_mul(1_000_000) + history);
        let (mut scene, mut log) = (Scene::new(), Vec::new());
        for line in ["scan", "node disk=ssd", "list"] {
            scene.play(line);
        }
        for _ in 0..100 {
            let line = random.pick(LINES);
            log.push(line);
            scene.play(line);
            let plan = scene.state.plan(scene.now);
            let is_needed = |need: Need| scene.state.pods.needing(&need).next().is_some();
            let is_selected = |label: &LabelKey| is_needed(Need::Label(label.clone()));
            for reference in &plan.remove {
                let bundle = LabelKey::of_bundle(reference.namespace(), reference.bundle());
                let is_selected = is_selected(&LabelKey::of_profile(reference)) || is_selected(&bundle);
                let is_referred = is_needed(Need::Profile(Kind::Seccomp, reference.to_string()));
                assert!(!is_referred && !is_selected, "{reference} is needed: {log:?}");
            }
            let unset = plan.labels.map(|change| change.unset).unwrap_or_default();
            assert!(!unset.iter().any(is_selected), "{unset:?} are needed: {log:?}");
            let takes_away = !plan.remove.is_empty() || !unset.is_empty();
            assert!(!takes_away || scene.state.pods.are_known(), "nothing is known: {log:?}");
        }
        for line in ["pods", "list", "node seccomp/web_a"].iter().chain([&"done", &"+300s"].repeat(10)) {
            scene.play(line);
        }
        let left = (scene.state.files.len(), scene.node().count(), scene.plan());
        assert_eq!(left, (0, 0, String::new()), "{log:?}");
    }
}
