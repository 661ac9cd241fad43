//! The rules about bundles that are for some nodes.

use super::kernel::check_apparmor;
use super::scene::{Scene, check};

/// What takes all of the bundle `web` with the profile `a` off a node.
const REMOVAL: &[(&str, &str)] =
    &[("+299s", "wake 1s"), ("+1s", "-bundle/web -seccomp/web_a"), ("done", "remove web/a"), ("done", "")];

#[test]
fn a_bundle_is_loaded_only_where_its_selector_matches() {
    check(&[
        ("scan", ""),
        ("node disk=ssd", ""),
        ("list web[disk=ssd]:a=1 old[disk!=ssd]:a=1 all:a=1", "install all/a=1 install web/a=1"),
        ("done", "+bundle/all +bundle/web +seccomp/all_a +seccomp/web_a"),
        ("done", ""),
    ]);
}

#[test]
fn a_node_that_is_not_seen_yet_takes_and_loses_nothing() {
    check(&[
        ("scan old/a=1", ""),
        ("list web[disk=ssd]:a=1 old[disk=ssd]:a=1 all:a=1", "install all/a=1 keep old/a"),
        ("done", ""),
        ("gone", ""),
        ("+9000s", ""),
        ("node seccomp/old_a bundle/old", "+bundle/all +seccomp/all_a wake 300s"),
    ]);
}

#[test]
fn a_node_is_relabelled_out_of_a_selector_and_into_it() {
    let begin = [
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web disk=ssd", ""),
        ("list web[disk=ssd]:a=1", ""),
        ("+9000s", ""),
        ("node seccomp/web_a bundle/web disk=hdd", "wake 300s"),
    ];
    check(&[&begin, REMOVAL].concat());
    check(&[&begin[..], &[("+299s", "wake 1s"), ("node seccomp/web_a bundle/web disk=ssd", "")]].concat());
    let again = [("node disk=ssd", "install web/a=1"), ("done", "+bundle/web +seccomp/web_a"), ("done", "")];
    check(&[&begin, REMOVAL, &again].concat());
}

#[test]
fn a_bundle_is_aimed_at_other_nodes_and_back() {
    let begin = [
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web disk=ssd", ""),
        ("list web:a=1", ""),
        ("apply web[disk=ssd]:a=1", ""),
        ("+9000s", ""),
        ("apply web[disk=hdd]:a=1", "wake 300s"),
    ];
    check(&[&begin, REMOVAL].concat());
    check(
        &[&begin[..], &[("+299s", "wake 1s"), ("apply web:a=2", "install web/a=2"), ("done", "")]].concat(),
    );
}

#[test]
fn the_delay_runs_from_the_moment_of_deselection() {
    check(&[
        ("scan web/a=1", ""),
        ("node disk=ssd seccomp/web_a bundle/web", ""),
        ("list web[disk=ssd]:a=1", ""),
        ("node disk=hdd seccomp/web_a bundle/web", "wake 300s"),
        ("+100s", "wake 200s"),
        ("node disk=tape seccomp/web_a bundle/web", "wake 200s"),
        ("apply web[disk=ssd]:a=2", "wake 200s"),
        ("list web[disk=ssd]:a=2", "wake 200s"),
        ("delete web", "wake 200s"),
        ("+200s", "-bundle/web -seccomp/web_a"),
    ]);
}

#[test]
fn a_selector_that_can_not_be_read_keeps_files_and_labels() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web disk=ssd", ""),
        ("list web[disk=ssd]:a=1", ""),
        ("apply web[=]:a=2", ""),
        ("+9000s", ""),
        ("node seccomp/web_a bundle/web disk=hdd", ""),
        ("+9000s", ""),
        ("apply web[disk=hdd]:a=2", "install web/a=2"),
        ("done", ""),
    ]);
}

#[test]
fn a_selector_that_can_not_be_read_brings_nothing_new() {
    check(&[
        ("scan", ""),
        ("node disk=ssd", ""),
        ("list web[=]:a=1 old[disk=ssd]:a=1", "install old/a=1"),
        ("done", "+bundle/old +seccomp/old_a"),
        ("done", ""),
        ("apply old[=]:a=1,b=1", "-bundle/old"),
        ("done", ""),
        ("apply old[=]:b=1", "wake 300s"),
        ("+9000s", "-seccomp/old_a"),
        ("done", "remove old/a"),
        ("done", ""),
    ]);
}

#[test]
fn a_selector_that_can_not_be_read_stops_a_removal() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web[disk=ssd]:a=1", "wake 300s"),
        ("+299s", "wake 1s"),
        ("apply web[=]:a=1", "keep web/a"),
        ("done", ""),
        ("+9000s", ""),
        ("apply web[disk=ssd]:a=1", "wake 300s"),
    ]);
}

#[test]
fn the_last_labels_of_a_node_that_went_away_count() {
    check(&[
        ("scan web/a=1", ""),
        ("node disk=ssd", ""),
        ("list web[disk=ssd]:a=1", "+bundle/web +seccomp/web_a"),
        ("done", ""),
        ("gone", ""),
        ("apply web[disk=ssd]:a=2", "install web/a=2"),
        ("done", ""),
        ("apply other[disk=hdd]:a=1", ""),
        ("node disk=hdd", "install other/a=1 wake 300s"),
        ("done", "+bundle/other +seccomp/other_a wake 300s"),
    ]);
}

#[test]
fn an_old_observation_selects_nothing() {
    check(&[
        ("scan", ""),
        ("node disk=ssd", ""),
        ("list web[disk=hdd]:a=1", ""),
        ("stale disk=hdd", ""),
        ("relist disk=hdd", "install web/a=1"),
    ]);
}

#[test]
fn the_answer_to_a_change_of_labels_tells_of_other_labels() {
    let mut scene = Scene::new();
    for line in ["scan", "node disk=ssd", "list web[disk=hdd]:b=1 all:a=1", "done"] {
        scene.play(line);
    }
    assert_eq!(scene.plan(), "+bundle/all +seccomp/all_a");
    scene.play("restore disk=hdd");
    scene.play("done");
    assert_eq!(scene.plan(), "install web/b=1");
}

#[test]
fn a_restart_rewrites_nothing_of_a_bundle_for_some_nodes() {
    let (scan, node) = (("scan web/a=1", ""), ("node seccomp/web_a bundle/web disk=ssd", ""));
    let (list, later) = (("list web[disk=ssd]:a=1", ""), ("+9000s", ""));
    for order in [[scan, node, list], [node, list, scan]] {
        check(&[&order[..], &[later, list, node, later]].concat());
    }
    // Until the node is seen, nobody knows whether the bundle still asks for what is there.
    for [first, (second, _)] in [[scan, list], [list, scan]] {
        let undecided = [first, (second, "keep web/a"), ("done", "")];
        check(&[&undecided[..], &[node, later, list, node, later]].concat());
    }
}

#[test]
fn what_changed_before_a_restart_is_repaired_when_the_node_is_seen() {
    check(&[
        ("scan web/a=changed", ""),
        ("list web[disk=ssd]:a=1", ""),
        ("node seccomp/web_a bundle/web disk=ssd", "install web/a=1"),
        ("done", ""),
    ]);
}

#[test]
fn a_restart_starts_the_delay_anew_when_the_node_is_seen() {
    check(&[
        ("scan web/a=1", ""),
        ("list web[disk=ssd]:a=1", "keep web/a"),
        ("done", ""),
        ("+100s", ""),
        ("node seccomp/web_a bundle/web", "wake 300s"),
    ]);
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("+100s", ""),
        ("list web[disk=ssd]:a=1", "wake 300s"),
    ]);
}

#[test]
fn an_unusable_key_of_a_bundle_for_other_nodes_is_none_of_ours() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web[disk=ssd]:a=1,..x=1", "wake 300s"),
    ]);
}

#[test]
fn the_bundles_for_other_nodes_are_told() {
    let mut scene = Scene::new();
    let mut check = |line: &str, expected: &[&str]| {
        scene.play(line);
        let elsewhere: Vec<String> = scene.state.elsewhere().map(ToString::to_string).collect();
        assert_eq!(elsewhere, expected, "after {line:?}");
    };
    check("list web[disk=ssd]:a=1 bad[=]:a=1 all:a=1", &[]);
    check("node disk=hdd", &["home/web"]);
    check("gone", &["home/web"]);
    check("node disk=ssd", &[]);
}

/// The steps of docs/canary.md, on a node of the pool.
#[test]
fn a_name_passes_to_the_bundle_of_a_pool_and_back() {
    let narrowed: &[(&str, &str)] = &[
        ("kernel a=a/1", ""),
        ("node disk=ssd apparmor/a bundle/web", ""),
        ("pods p=a", ""),
        ("list ~web@1:k=a/1", "compile a/1"),
        ("compiled", ""),
        ("apply ~next[disk=ssd]@2:k=a/2", ""),
        ("apply ~web[disk!=ssd]@1:k=a/1", "compile a/2 -bundle/web"),
        ("done", "compile a/2"),
    ];
    let passed = &[narrowed, &[("compiled", "load a/2"), ("done", "+bundle/next"), ("done", "")]].concat();
    let promoted = &[
        ("apply ~web@1:k=a/2", "+bundle/web -bundle/next"),
        ("done", ""),
        ("delete next", ""),
        ("+9000s", ""),
    ];
    let went_back = &[("apply ~web@1:k=a/1", "load a/1"), ("done", "+bundle/web -bundle/next"), ("done", "")];
    let left = &[
        ("node disk=hdd apparmor/a bundle/next", "load a/1"),
        ("done", "+bundle/web -bundle/next"),
        ("done", ""),
    ];
    // That is no way back.
    let deleted = &[("delete next", "wake 300s"), ("+9000s", "")];
    for end in [&promoted[..], went_back, left, deleted] {
        check_apparmor(&[passed, end].concat());
    }
    check_apparmor(&[narrowed, &[("refused", ""), ("+9000s", "")]].concat());
}

/// As an autoscaler does, for a node that is not there yet (docs/nodes.md).
#[test]
fn labels_that_were_set_in_advance_are_put_right() {
    check(&[
        ("scan", ""),
        ("node seccomp/web_a bundle/web seccomp/none_a bundle/none", ""),
        ("list web:a=1", "install web/a=1"),
        ("done", "-bundle/none -seccomp/none_a"),
        ("done", ""),
    ]);
    check_apparmor(&[
        ("kernel", ""),
        ("pods", ""),
        ("node apparmor/a bundle/web apparmor/none", ""),
        ("list ~web:k=a/1", "compile a/1 -apparmor/a -apparmor/none"),
        ("done", "compile a/1"),
        ("compiled", "load a/1"),
        ("done", "+apparmor/a"),
        ("done", ""),
    ]);
}
