//! The rules, each as a script.

mod claims;
mod drift;
pub(crate) mod kernel;
mod labelling;
mod needs;
mod policies;
mod random;
pub(crate) mod scene;
mod settled;
mod summary;
mod taint;
mod targeting;

use std::time::Duration;

use super::*;
use crate::bundle::Profile;
use crate::file::Want;
use scene::{Scene, check};

#[test]
fn nothing_is_done_before_the_disk_was_scanned() {
    check(&[("node", ""), ("list web:a=1", ""), ("scan", "install web/a=1")]);
}

#[test]
fn a_profile_is_labelled_after_it_is_loaded() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1 team/x:b=1", "install web/a=1 install _team/x/b=1"),
        ("done", "+bundle/web +seccomp/web_a +team.bundle/x +team.seccomp/x_b"),
        ("done", ""),
    ]);
}

#[test]
fn a_profile_is_unlabelled_before_it_is_removed() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_a"),
        ("send", ""),
        ("written", "remove web/a"),
        ("done", ""),
    ]);
}

#[test]
fn nothing_is_removed_while_the_labels_of_the_node_are_unknown() {
    check(&[("scan web/a=1", ""), ("list", "wake 300s"), ("+300s", ""), ("node", "remove web/a")]);
    check(&[("scan web/a=1", ""), ("node", ""), ("list", "wake 300s"), ("gone", "wake 300s"), ("+300s", "")]);
}

#[test]
fn a_profile_is_installed_while_the_api_server_is_away() {
    check(&[
        ("scan", ""),
        ("list web:a=1", "install web/a=1"),
        ("done", ""),
        ("apply web:a=2", "install web/a=2"),
        ("done", ""),
        ("node", "+bundle/web +seccomp/web_a"),
    ]);
}

#[test]
fn unknown_desired_state_removes_nothing() {
    check(&[
        ("scan _team/web/a=1 _team/web/b=changed", ""),
        ("node team.seccomp/web_a team.seccomp/web_b team.bundle/old", ""),
        ("+9000s", ""),
        ("list-home", ""),
        ("+9000s", ""),
        ("list-team", "-team.bundle/old -team.seccomp/web_b wake 300s"),
        ("done", "wake 299s"),
        ("+299s", "remove _team/web/b"),
        ("done", "-team.seccomp/web_a"),
    ]);
}

#[test]
fn a_namespace_that_can_not_be_listed_holds_up_only_what_may_be_its_own() {
    check(&[
        ("scan web/a=absent web/b=1 _team/x/c=1 _other/x/d=1", ""),
        ("node seccomp/web_a seccomp/web_b team.seccomp/x_c team.seccomp/z other.apparmor/z", ""),
        ("list-home web:a=bad", "-seccomp/web_a wake 300s"),
        ("done", "wake 299s"),
        ("+299s", "-seccomp/web_b"),
        ("done", "remove web/b"),
        ("done", ""),
        ("list-team x:c=1", "-other.apparmor/z -team.seccomp/z wake 300s"),
        ("list-team team/x:c=1", "+team.bundle/x -other.apparmor/z -team.seccomp/z wake 300s"),
        ("done", "wake 299s"),
        ("+299s", "remove _other/x/d"),
        ("done", ""),
    ]);
}

#[test]
fn without_a_node_no_label_holds_up_a_removal() {
    check(&[
        ("no-node", ""),
        ("scan web/a=1", ""),
        ("list", "wake 300s"),
        ("+300s", "remove web/a"),
        ("done", ""),
        ("list web:b=1", "install web/b=1"),
        ("done", ""),
    ]);
}

#[test]
fn what_can_not_be_read_asks_for_what_it_asked_for_before() {
    check(&[
        ("no-node", ""),
        ("scan", ""),
        ("list web:a=1 x:c=1", "install web/a=1 install x/c=1"),
        ("done", ""),
        ("list web:unreadable", "wake 300s"),
        ("+300s", "remove x/c"),
        ("done", ""),
        ("scan web/a=changed", "install web/a=1"),
        ("done", ""),
        ("list web:b=1", "install web/b=1 wake 300s"),
    ]);
}

#[test]
fn what_could_not_be_read_since_the_start_keeps_its_profiles() {
    check(&[
        ("no-node", ""),
        ("scan web/a=1 x/c=1", ""),
        ("list web:unreadable", "wake 300s"),
        ("+300s", "remove x/c"),
        ("done", ""),
        ("+9000s", ""),
        ("apply web:b=1", "install web/b=1 wake 300s"),
        ("done", "wake 300s"),
        ("+300s", "remove web/a"),
    ]);
    check(&[
        ("no-node", ""),
        ("scan web/a=1", ""),
        ("list web:unreadable", ""),
        ("+9000s", ""),
        ("list", "wake 300s"),
    ]);
}

#[test]
fn a_restart_rewrites_nothing() {
    check(&[
        ("scan web/a=1 web/b=1", ""),
        ("node seccomp/web_a seccomp/web_b bundle/web", ""),
        ("list web:a=1,b=1", ""),
        ("+9000s", ""),
        ("list web:a=1,b=1", ""),
    ]);
}

#[test]
fn an_edit_rewrites_the_file_and_touches_no_label() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=1", ""),
        ("apply web:a=2", "install web/a=2"),
        ("done", ""),
    ]);
}

#[test]
fn a_bad_new_version_keeps_the_old_one() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=bad", "keep web/a"),
        ("done", ""),
        ("+9000s", ""),
        ("list web:a=bad", ""),
        ("apply web:a=1", ""),
    ]);
}

#[test]
fn a_bundle_is_labelled_only_when_all_of_it_is_loaded() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1,b=bad", "install web/a=1"),
        ("done", "+seccomp/web_a"),
        ("done", ""),
        ("apply web:a=1,b=1", "install web/b=1"),
        ("fail", "wake 1s"),
        ("+1s", "install web/b=1"),
        ("done", "+bundle/web +seccomp/web_b"),
    ]);
}

#[test]
fn an_empty_bundle_has_no_label() {
    check(&[("scan", ""), ("node", ""), ("list web:", ""), ("node bundle/web", "-bundle/web")]);
}

#[test]
fn a_bundle_with_an_unusable_key_has_no_label() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1,..x=1", "install web/a=1"),
        ("done", "+seccomp/web_a"),
    ]);
}

#[test]
fn a_bundle_keeps_its_label_when_a_profile_leaves_it() {
    check(&[
        ("scan web/a=1 web/b=1", ""),
        ("node seccomp/web_a seccomp/web_b bundle/web", ""),
        ("list web:a=1", "wake 300s"),
        ("+300s", "-seccomp/web_b"),
        ("done", "remove web/b"),
        ("done", ""),
    ]);
}

#[test]
fn what_comes_back_in_time_was_never_away() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=1", ""),
        ("delete web", "wake 300s"),
        ("+299s", "wake 1s"),
        ("apply web:a=1", ""),
        ("+9000s", ""),
    ]);
}

#[test]
fn the_delay_starts_when_the_last_bundle_stops_asking() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("done", ""),
        ("delete web", "wake 300s"),
        ("+200s", "wake 100s"),
        ("list", "wake 100s"),
        ("+100s", "-bundle/web -seccomp/web_a"),
    ]);
}

#[test]
fn a_label_that_the_disk_does_not_justify_is_unset() {
    check(&[
        ("scan web/a=absent web/b=notafile web/c=changed", ""),
        ("node seccomp/web_a seccomp/web_b seccomp/web_c apparmor/x team.bundle/y", ""),
        (
            "list web:a=bad,b=bad,c=bad",
            "-apparmor/x -seccomp/web_a -seccomp/web_b -seccomp/web_c -team.bundle/y",
        ),
    ]);
}

#[test]
fn a_label_with_another_value_is_set_right() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a=false bundle/web", ""),
        ("list web:a=1", "+seccomp/web_a"),
    ]);
}

#[test]
fn what_changed_or_vanished_on_disk_is_put_back() {
    check(&[
        ("scan web/a=absent web/b=changed", ""),
        ("node", ""),
        ("list web:a=1,b=1", "install web/a=1 install web/b=1"),
    ]);
}

#[test]
fn one_change_of_labels_is_under_way_at_most() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("done", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("apply new:b=1", "install new/b=1"),
        ("done", ""),
        ("written", "wake 0.2s"),
        ("+1s", "+bundle/new +seccomp/new_b"),
    ]);
}

#[test]
fn a_label_that_may_have_been_set_keeps_its_file() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("done", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("delete web", "wake 300s"),
        ("+300s", ""),
        ("lost", "wake 1s"),
        ("+1s", "-bundle/web -seccomp/web_a"),
        ("done", "remove web/a"),
    ]);
}

#[test]
fn an_old_observation_does_not_count() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list", "wake 300s"),
        ("stale", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_a"),
    ]);
}

#[test]
fn a_failed_install_is_retried_more_and_more_slowly() {
    check(&[
        ("scan", ""),
        ("list web:a=1", "install web/a=1"),
        ("fail", "wake 1s"),
        ("+1s", "install web/a=1"),
        ("fail", "wake 2s"),
        ("+2s", "install web/a=1"),
        ("fail", "wake 4s"),
        ("apply web:a=2", "install web/a=2"),
        ("fail", "wake 1s"),
    ]);
}

#[test]
fn a_failed_install_of_an_edit_keeps_the_label_of_the_old_version() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=2", "install web/a=2"),
        ("fail", "wake 1s"),
    ]);
}

#[test]
fn a_failed_removal_is_retried_and_leaves_nothing_to_lean_on() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list", "wake 300s"),
        ("+300s", "remove web/a"),
        ("fail-removal", "wake 1s"),
        ("+1s", "remove web/a"),
        ("fail-removal", "wake 2s"),
        ("apply web:a=1", "install web/a=1"),
    ]);
}

#[test]
fn failed_changes_of_labels_are_retried_more_and_more_slowly() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("lost", "wake 1s"),
        ("+1s", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("lost", "wake 2s"),
    ]);
}

#[test]
fn a_change_of_labels_that_somebody_undoes_is_retried_more_and_more_slowly() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("written", ""),
        ("node", "wake 0.2s"),
        ("+1s", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("written", ""),
        ("node seccomp/web_a", "wake 1s"),
        ("+1s", "+bundle/web"),
        ("send", ""),
        ("node bundle/web", ""),
        ("written", "wake 2s"),
        ("+2s", "+seccomp/web_a"),
        ("send", ""),
        ("written", ""),
        ("+9000s", ""),
        ("node", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("node", ""),
        ("written", "wake 0.2s"),
    ]);
}

#[test]
fn a_lasting_fight_over_labels_costs_a_write_a_minute() {
    // What the Node is left with after each write, in turn.
    for undone in [["node", "node"], ["node seccomp/web_a", "node bundle/web"]] {
        let mut scene = Scene::new();
        for line in ["scan web/a=1", "node", "list web:a=1"] {
            scene.play(line);
        }
        let mut writes = 0;
        while scene.now.elapsed() < Duration::from_hours(1) {
            if scene.state.plan(scene.now).labels.is_some() {
                for line in ["send", "written", undone[writes % 2]] {
                    scene.play(line);
                }
                writes += 1;
            }
            scene.now = scene.now + Duration::from_millis(100);
        }
        assert!((60..70).contains(&writes), "{writes} writes in an hour, {undone:?}");
    }
}

#[test]
fn a_change_of_mind_is_no_fight_over_labels() {
    let script = [
        ("apply web:a=1,b=bad", "-bundle/web"),
        ("done", ""),
        ("apply web:a=1", "+bundle/web"),
        ("done", ""),
    ];
    let mut all = vec![("scan web/a=1", ""), ("node seccomp/web_a bundle/web", ""), ("list web:a=1", "")];
    (0..10).for_each(|_| all.extend(script));
    check(&all);
}

#[test]
fn a_restored_etcd_is_noticed_by_a_list() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=1", ""),
        ("restore", ""),
        ("relist seccomp/x", "+bundle/web +seccomp/web_a -seccomp/x"),
        ("done", ""),
        ("node bundle/web", "+seccomp/web_a"),
    ]);
}

#[test]
fn a_restored_etcd_is_noticed_by_the_answer_to_a_change() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("restore seccomp/x", "+bundle/web +seccomp/web_a"),
        ("done", "-seccomp/x"),
        ("done", ""),
        ("+9000s", ""),
        ("node bundle/web", "+seccomp/web_a"),
    ]);
}

#[test]
fn an_answer_that_the_watch_has_overtaken_does_not_count() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("node bundle/web seccomp/x", ""),
        ("written", "wake 0.2s"),
        ("+1s", "+seccomp/web_a -seccomp/x"),
    ]);
}

#[test]
fn a_label_from_before_the_node_went_back_keeps_its_file() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list", "wake 300s"),
        ("restore", "wake 300s"),
        ("relist", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_a"),
        ("send", ""),
        ("lost", "wake 1s"),
        ("+1s", "-bundle/web -seccomp/web_a"),
        ("done", "remove web/a"),
        ("done", ""),
    ]);
}

#[test]
fn a_node_that_is_made_anew_may_have_any_version() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=1", ""),
        ("restore", ""),
        ("gone", ""),
        ("node", "+bundle/web +seccomp/web_a"),
    ]);
}

#[test]
fn a_failed_install_leaves_only_what_the_ledger_has() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("fail", "wake 1s"),
        ("delete web", ""),
        ("apply web:a=1", "install web/a=1"),
        ("fail-owned", "wake 1s"),
        ("delete web", "wake 300s"),
        ("+300s", "remove web/a"),
        ("done", ""),
    ]);
}

#[test]
fn a_content_is_held_once() {
    let mut scene = Scene::new();
    for line in ["scan", "list web:a=1", "done", "apply web:a=1,b=1", "done", "list web:a=1,b=1"] {
        scene.play(line);
        let profiles = scene.state.bundles.values().flat_map(|bundle| bundle.profiles.values());
        for (profile, file) in profiles.zip(scene.state.files.values()) {
            let (Profile::Accepted(published, _), Want::Document(wanted)) = (profile, &file.want) else {
                panic!("{profile:?} should be wanted")
            };
            assert_eq!(published.content().as_ptr(), wanted.content().as_ptr(), "after {line:?}");
        }
    }
}

#[test]
fn a_foreign_file_is_left_alone_and_not_labelled() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("foreign", "wake 60s"),
        ("+60s", "install web/a=1"),
        ("foreign", "wake 60s"),
        ("apply web:a=2", "install web/a=2"),
        ("foreign", "wake 60s"),
        ("scan", "install web/a=2"),
        ("foreign", "wake 60s"),
        ("delete web", ""),
    ]);
}

#[test]
fn profiles_that_share_a_label_need_all_to_be_loaded() {
    // The shortened label of a long key is the plain label of a key that is chosen to match it.
    let long = "k".repeat(60);
    let label = LabelKey::of_profile(&format!("web/{long}").parse().unwrap());
    let twin = label.as_str().split_once('_').unwrap().1.to_owned();
    assert_eq!(LabelKey::of_profile(&format!("web/{twin}").parse().unwrap()), label);

    check(&[
        ("scan", ""),
        ("node", ""),
        (&format!("list web:{long}=1,{twin}=bad"), &format!("install web/{long}=1")),
        ("done", ""),
    ]);
}

#[test]
fn a_thousand_profiles_are_one_plan_and_one_change_of_labels() {
    let mut scene = Scene::new();
    let bundles = (0..10).map(|bundle| {
        let keys: Vec<String> = (0..100).map(|key| format!("k{key}=1")).collect();
        format!("b{bundle}:{}", keys.join(","))
    });
    let list = bundles.collect::<Vec<_>>().join(" ");
    for line in ["scan", "node", &format!("list {list}")] {
        scene.play(line);
    }
    assert_eq!(scene.state.plan(scene.now).install.len(), 1000);
    scene.play("done");
    assert_eq!(scene.state.plan(scene.now).labels.map(|change| change.set.len()), Some(210));
    scene.play("done");
    assert_eq!(scene.plan(), "");
}
