//! The rules of the startup taint, each as a script.

use super::kernel::check_apparmor;
use super::scene::{Scene, check};
use super::*;

#[test]
fn the_taint_goes_after_the_labels_stand() {
    check(&[
        ("scan", ""),
        ("node !0", "wake 120s"),
        ("list-home web:a=1", "install web/a=1"),
        ("done", "+bundle/web +seccomp/web_a"),
        ("list-team x:b=1", "+bundle/web +seccomp/web_a"),
        ("list-team team/x:b=1", "install _team/x/b=1"),
        ("done", "+bundle/web +seccomp/web_a +team.bundle/x +team.seccomp/x_b"),
        ("send", ""),
        ("written", "untaint {0}"),
        ("untaint", ""),
        ("untainted", ""),
        ("+9000s", ""),
    ]);
}

#[test]
fn without_a_bundle_the_taint_goes_as_soon_as_that_is_known() {
    check(&[("scan", ""), ("node !0 !2", "wake 120s"), ("list", "untaint {0, 2}"), ("done", "")]);
}

#[test]
fn what_is_refused_or_taken_holds_no_node_up() {
    check(&[
        ("scan", ""),
        ("node !1 !2", "wake 120s"),
        ("list web:a=bad,b=1 sel[=]:a=1 gone:unreadable key:..x=1", "install web/b=1"),
        ("foreign", "untaint {1, 2} wake 60s"),
        ("done", "wake 60s"),
    ]);
}

#[test]
fn a_text_is_waited_for_until_it_is_loaded_or_refused() {
    check_apparmor(&[
        ("node !0", "wake 120s"),
        ("kernel", "wake 120s"),
        ("list ~web:k=a/1", "compile a/1 wake 120s"),
        ("+60s", "compile a/1 wake 60s"),
        ("compiled", "load a/1"),
        ("done", "+apparmor/a +bundle/web"),
        ("send", ""),
        ("apply ~web:k=a/1,l=b/1", "compile b/1"),
        ("compiling", ""),
        ("written", "wake 60s"),
        ("+60s", "untaint {0} [Compiles(1)]"),
    ]);
    check_apparmor(&[
        ("kernel", ""),
        ("node !0", "wake 120s"),
        ("list ~web:k=a/1,l=bad", "compile a/1 wake 120s"),
        ("refused", "untaint {0}"),
        ("done", ""),
    ]);
    check_apparmor(&[
        ("kernel", ""),
        ("node !0", "wake 120s"),
        ("list ~web:k=a/1", "compile a/1 wake 120s"),
        ("failed", "wake 1s"),
        ("+120s", "compile a/1 untaint {0} [Retries(1)]"),
        ("done", "compile a/1"),
        ("node !0", "compile a/1 wake 120s"),
        ("compiled", "load a/1"),
        ("done", "+apparmor/a +bundle/web"),
        ("done", "untaint {0}"),
    ]);
}

#[test]
fn pods_that_are_not_listed_hold_no_node_up() {
    check(&[
        ("pods-unknown", ""),
        ("scan web/a=1 web/b=1", ""),
        ("node seccomp/web_b !0", "wake 120s"),
        ("list web:a=1", "+bundle/web +seccomp/web_a wake 300s"),
        ("done", "untaint {0} wake 299s"),
        ("done", "wake 299s"),
        ("+299s", ""),
    ]);
}

#[test]
fn after_two_minutes_the_taint_goes_and_it_is_said_what_the_node_lacks() {
    check(&[
        ("+30s", ""),
        ("scan", ""),
        ("node !0", "wake 120s"),
        ("list-home web:a=1", "install web/a=1"),
        ("fail", "wake 1s"),
        ("+119s", "install web/a=1"),
        ("fail", "wake 1s"),
        ("+1s", "untaint {0} [Bundles(1), Retries(1)] wake 1s"),
        ("untaint", "wake 1s"),
        ("untainted", "wake 1s"),
        ("+1s", "install web/a=1"),
    ]);
}

#[test]
fn labels_that_can_not_be_written_hold_the_node_up_for_two_minutes() {
    check(&[
        ("scan web/a=1", ""),
        ("node !0", "wake 120s"),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("+119s", ""),
        ("lost", "wake 1s"),
        ("+1s", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("lost", "untaint {0} [Labels] wake 2s"),
        ("untaint", ""),
        ("+2s", ""),
        ("untainted", ""),
    ]);
}

#[test]
fn a_taint_that_is_seen_later_goes_as_well() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=1", ""),
        ("+9000s", ""),
        ("node seccomp/web_a bundle/web !3", "untaint {3}"),
        ("done", ""),
        ("apply web:a=1,b=1", "install web/b=1"),
        ("fail", "-bundle/web wake 1s"),
        ("node seccomp/web_a bundle/web !0", "-bundle/web wake 1s"),
        ("done", "install web/b=1"),
        ("done", "+bundle/web +seccomp/web_b"),
        ("done", "untaint {0}"),
    ]);
}

#[test]
fn a_node_that_is_made_anew_is_labelled_first() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web !0", "wake 120s"),
        ("list web:a=1", "untaint {0}"),
        ("gone", ""),
        ("+9000s", ""),
        ("node !0", "+bundle/web +seccomp/web_a"),
        ("done", "untaint {0}"),
        ("untaint", ""),
        ("gone", ""),
        ("tainted-still", ""),
        ("+1s", ""),
        ("node !0", "+bundle/web +seccomp/web_a"),
    ]);
}

#[test]
fn a_removal_that_fails_is_retried_more_and_more_slowly_with_what_is_seen_then() {
    check(&[
        ("scan", ""),
        ("list", ""),
        ("node !0", "untaint {0}"),
        ("untaint", ""),
        ("node !1", ""),
        ("tainted-still", "wake 1s"),
        ("+1s", "untaint {1}"),
        ("untaint", ""),
        ("tainted-still", "wake 2s"),
        ("+2s", "untaint {1}"),
    ]);
}

#[test]
fn labels_and_the_taint_are_never_written_at_once() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web !0", "wake 120s"),
        ("list web:a=1", "untaint {0}"),
        ("untaint", ""),
        ("node bundle/web !0", ""),
        ("tainted-still", "+seccomp/web_a"),
        ("send", ""),
        ("+1s", ""),
    ]);
}

#[test]
fn an_answer_that_the_watch_has_overtaken_says_nothing_of_the_taint() {
    check(&[
        ("scan", ""),
        ("list", ""),
        ("node !0", "untaint {0}"),
        ("untaint", ""),
        ("node !0", ""),
        ("untainted", "untaint {0}"),
        ("stale", "untaint {0}"),
    ]);
}

#[test]
fn without_a_node_there_is_no_taint() {
    check(&[("no-node", ""), ("scan", ""), ("list", ""), ("+9000s", "")]);
}

#[test]
fn a_lasting_fight_over_the_taint_costs_a_write_a_minute() {
    let mut scene = Scene::new();
    for line in ["scan", "list", "node !0"] {
        scene.play(line);
    }
    let mut writes = 0;
    while scene.now.elapsed() < Duration::from_hours(1) {
        if scene.state.plan(scene.now).untaint.is_some() {
            for line in ["untaint", "untainted", "node !0"] {
                scene.play(line);
            }
            writes += 1;
        }
        scene.now = scene.now + Duration::from_millis(100);
    }
    assert!((60..80).contains(&writes), "{writes} writes in an hour");
}

#[test]
fn run_once_the_taint_is_waited_for_if_it_can_go() {
    let mut scene = Scene::new();
    for (happens, is_settled) in [
        ("scan", false),
        ("list", false),
        ("node !0", false),
        ("untaint", false),
        ("tainted-still", false),
        ("node !0", false),
        ("+1s", false),
        ("done", true),
        ("apply web:a=1", false),
        ("fail", true),
        ("node !0", true),
    ] {
        scene.play(happens);
        assert_eq!(scene.state.is_settled(scene.now), is_settled, "after {happens:?}");
    }
}
