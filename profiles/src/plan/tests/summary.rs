//! What is told of the state in numbers, each case as a script.

use super::scene::Scene;
use crate::bundle::Kind;
use crate::summary::Summary;

/// Claims what the numbers and the waits read like after each event of `script`.
fn check(script: &[(&str, &str, &str)]) {
    let mut scene = Scene::new();
    for (number, (happens, numbers, waits)) in script.iter().enumerate() {
        scene.play(happens);
        assert_eq!(
            in_words(scene.state.summary(Kind::Seccomp, scene.now)),
            *numbers,
            "after line {number}, {happens:?}"
        );
        let shown: Vec<String> =
            scene.state.waits(scene.now).iter().map(|wait| format!("{wait:?}")).collect();
        assert_eq!(shown.join(" "), *waits, "after line {number}, {happens:?}");
    }
}

/// The numbers that are not 0.
pub(super) fn in_words(summary: Summary) -> String {
    let all = [
        ("bundles", summary.bundles),
        ("desired", summary.desired),
        ("loaded", summary.loaded),
        ("retained", summary.retained),
        ("refused", summary.refused),
        ("foreign", summary.foreign),
        ("drifted", summary.drifted),
        ("uncompiled", summary.uncompiled),
        ("unwritten", summary.unwritten),
        ("unremoved", summary.unremoved),
    ];
    let shown = all.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}={count}"));
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_start_waits_for_all_that_decides() {
    check(&[
        ("+1s", "", "Disk Bundles(2) Node"),
        ("scan web/a=1", "loaded=1 retained=1", "Bundles(2) Node"),
        ("list-home web:a=1,b=1", "bundles=1 desired=2 loaded=1", "Bundles(1) Writes(1) Node"),
        ("done", "bundles=1 desired=2 loaded=2", "Bundles(1) Node"),
        ("node", "bundles=1 desired=2 loaded=2", "Bundles(1) Labels"),
        ("send", "bundles=1 desired=2 loaded=2", "Bundles(1) Labels"),
        ("written", "bundles=1 desired=2 loaded=2", "Bundles(1)"),
        ("list-team", "bundles=1 desired=2 loaded=2", ""),
    ]);
}

#[test]
fn a_change_of_labels_that_fails_is_still_waited_for() {
    check(&[
        ("scan web/a=1", "loaded=1 retained=1", "Bundles(2) Node"),
        ("node", "loaded=1 retained=1", "Bundles(2)"),
        ("list web:a=1", "bundles=1 desired=1 loaded=1", "Labels"),
        ("send", "bundles=1 desired=1 loaded=1", "Labels"),
        ("lost", "bundles=1 desired=1 loaded=1", "Labels"),
        ("+1s", "bundles=1 desired=1 loaded=1", "Labels"),
        ("done", "bundles=1 desired=1 loaded=1", ""),
    ]);
}

#[test]
fn what_is_refused_or_taken_is_not_waited_for() {
    check(&[
        ("scan", "", "Bundles(2) Node"),
        ("node", "", "Bundles(2)"),
        ("list web:a=bad,b=1", "bundles=1 desired=2 refused=1", "Writes(1)"),
        ("foreign", "bundles=1 desired=2 refused=1 foreign=1", ""),
        ("+60s", "bundles=1 desired=2 refused=1 foreign=1", "Writes(1)"),
        ("done", "bundles=1 desired=2 loaded=1 refused=1", "Labels"),
    ]);
}

#[test]
fn a_key_that_can_be_no_reference_counts_as_refused() {
    check(&[("list web:.=1,a=1", "bundles=1 desired=2 refused=1", "Disk Writes(1) Node")]);
}

#[test]
fn a_step_that_fails_is_a_problem_until_it_succeeds() {
    check(&[
        ("scan", "", "Bundles(2) Node"),
        ("node", "", "Bundles(2)"),
        ("list web:a=1", "bundles=1 desired=1", "Writes(1)"),
        ("fail", "bundles=1 desired=1 unwritten=1", ""),
        ("+1s", "bundles=1 desired=1 unwritten=1", "Writes(1)"),
        ("fail-owned", "bundles=1 desired=1 unwritten=1", ""),
        ("+2s", "bundles=1 desired=1 unwritten=1", "Writes(1)"),
        ("done", "bundles=1 desired=1 loaded=1", "Labels"),
        ("done", "bundles=1 desired=1 loaded=1", ""),
        ("delete web", "loaded=1 retained=1", ""),
        ("+300s", "loaded=1 retained=1", "Labels"),
        ("done", "loaded=1 retained=1", ""),
        ("fail-removal", "unremoved=1", ""),
        ("+1s", "unremoved=1", ""),
        ("done", "", ""),
    ]);
}

#[test]
fn a_drift_counts_while_it_is_not_repaired() {
    check(&[
        ("scan web/a=1", "loaded=1 retained=1", "Bundles(2) Node"),
        ("list web:a=1", "bundles=1 desired=1 loaded=1", "Node"),
        ("scan web/a=changed", "bundles=1 desired=1 drifted=1", "Writes(1) Node"),
        ("fail-owned", "bundles=1 desired=1 unwritten=1", "Node"),
        ("scan web/a=notafile", "bundles=1 desired=1 drifted=1", "Writes(1) Node"),
        ("foreign", "bundles=1 desired=1 drifted=1", "Node"),
        ("apply web:a=bad", "bundles=1 desired=1 refused=1 drifted=1", "Writes(1) Node"),
        ("apply web:a=1", "bundles=1 desired=1 drifted=1", "Writes(1) Node"),
        ("done", "bundles=1 desired=1 loaded=1", "Node"),
    ]);
}

#[test]
fn a_profile_is_asked_for_since_its_newest_content_came_until_it_is_on_disk() {
    let mut scene = Scene::new();
    for (happens, expected) in [
        ("scan web/b=1", None),
        ("+5s", None),
        ("list web:a=1,b=1", Some(5)),
        ("+5s", Some(5)),
        ("fail", Some(5)),
        ("apply web:a=1,b=1", Some(5)),
        ("apply web:a=2,b=1", Some(10)),
        ("done", None),
        ("scan web/a=changed web/b=1", None),
        ("scan web/a=2 web/b=1", None),
        ("apply web:a=3,b=1", Some(10)),
        ("scan web/a=3 web/b=1", None),
        ("apply web:a=4,b=1", Some(10)),
        ("foreign", None),
    ] {
        scene.play(happens);
        let asked = |reference: &str| scene.state.asked_at(&reference.parse().unwrap());
        assert_eq!(asked("web/a").map(|at| at.elapsed().as_secs()), expected, "{happens:?}");
        assert_eq!(asked("web/b"), None, "{happens:?}");
    }
}

#[test]
fn what_waits_for_the_node_to_be_seen_is_not_refused() {
    check(&[
        ("scan web/a=1", "loaded=1 retained=1", "Bundles(2) Node"),
        ("list web[disk=ssd]:a=1,b=bad other[=]:a=1", "bundles=2 desired=3 loaded=1 refused=2", "Node"),
        ("node disk=hdd", "bundles=2 desired=1 loaded=1 retained=1 refused=1", ""),
    ]);
}

#[test]
fn what_was_never_written_is_no_drift() {
    check(&[
        ("scan web/b=absent", "", "Bundles(2) Node"),
        ("list web:a=1,b=bad", "bundles=1 desired=2 refused=1", "Writes(1) Node"),
        ("fail-owned", "bundles=1 desired=2 refused=1 unwritten=1", "Node"),
        ("apply web:a=bad,b=bad", "bundles=1 desired=2 refused=2", "Node"),
    ]);
}
