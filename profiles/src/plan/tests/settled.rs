//! The rules for who runs the agent once.

use super::scene::Scene;

/// Plays `script`: after each line, this is unserved; or not all is done yet, where the line says `-`.
fn check(script: &[(&str, &str)]) {
    let mut scene = Scene::new();
    for (happens, expected) in script {
        scene.play(happens);
        let unserved = Vec::from_iter(scene.state.unserved()).join(" ");
        let seen = if scene.state.is_settled(scene.now) { unserved.as_str() } else { "-" };
        assert_eq!(seen, *expected, "after {happens:?}");
    }
}

#[test]
fn it_is_waited_until_all_is_known_written_and_labelled() {
    check(&[
        ("scan", "-"),
        ("list-home web:a=1", "-"),
        ("list-team", "-"),
        ("done", "-"),
        ("node", "-"),
        ("send", "-"),
        ("lost", "-"),
        ("+1s", "-"),
        ("send", "-"),
        ("written", ""),
        ("gone", "-"),
    ]);
}

#[test]
fn without_a_node_no_label_is_waited_for() {
    check(&[("no-node", "-"), ("list web:a=1", "-"), ("scan", "-"), ("done", "")]);
}

#[test]
fn removals_that_are_due_later_are_not_waited_for() {
    check(&[("no-node", "-"), ("scan web/a=1", "-"), ("list", ""), ("+300s", "-"), ("done", "")]);
}

#[test]
fn pods_are_waited_for_and_what_they_need_is_not() {
    check(&[
        ("pods-unknown", "-"),
        ("scan web/a=1", "-"),
        ("node seccomp/web_a", "-"),
        ("list", "-"),
        ("+300s", "-"),
        ("pods p=web/a", ""),
        ("pods p=%seccomp/web_a", ""),
        ("scan web/a=changed", ""),
        ("pods", "-"),
        ("done", "-"),
        ("done", ""),
    ]);
}

#[test]
fn each_profile_is_tried_once() {
    for outcome in ["fail", "fail-owned", "foreign"] {
        check(&[
            ("no-node", "-"),
            ("scan", "-"),
            ("list web:a=1", "-"),
            (outcome, "web/a"),
            ("+60s", "-"),
            ("done", ""),
        ]);
    }
}

#[test]
fn what_is_refused_is_not_served_even_if_the_version_before_is_there() {
    check(&[
        ("no-node", "-"),
        ("scan web/a=1", "-"),
        ("list web:a=bad,b=1", "-"),
        ("done", "web/a"),
        ("list web:a=1,/=1", "bundle home/web"),
        ("list web:unreadable", "bundle home/web"),
        ("list web:a=1", ""),
        ("strays notes", "notes"),
        ("strays", ""),
    ]);
}

#[test]
fn what_is_wrong_with_a_bundle_for_other_nodes_is_none_of_ours() {
    check(&[
        ("scan", "-"),
        ("node disk=hdd", "-"),
        ("list web[disk=ssd]:a=1,/=1", ""),
        ("apply web[disk=hdd]:/=1", "bundle home/web"),
    ]);
}
