//! The rules about AppArmor profiles: what is compiled and loaded, what goes, and what is told of it.

use std::time::Duration;

use super::kernel::{apparmor, check_apparmor, name, settled};
use super::scene::{Scene, check};
use super::summary::in_words;
use crate::bundle::Kind;

#[test]
fn a_text_is_compiled_then_loaded_then_labelled() {
    check_apparmor(&[
        ("kernel", ""),
        ("node", ""),
        ("list ~web:k=a+b/1", "compile a+b/1"),
        ("compiling", ""),
        ("compiling", ""),
        ("apply ~web:k=a+b/1,l=c/1", "compile c/1"),
        ("compiled", "load c/1"),
        ("done", "+apparmor/c"),
    ]);
    check_apparmor(&[
        ("kernel", ""),
        ("node", ""),
        ("list ~web:k=a+b/1,l=c/1", "compile c/1 compile a+b/1"),
        ("compiled", "load c/1 load a+b/1"),
        ("done", "+apparmor/a +apparmor/b +apparmor/c +bundle/web"),
        ("done", ""),
    ]);
}

#[test]
fn nothing_is_loaded_before_the_kernel_was_scanned_and_no_label_is_trusted() {
    check_apparmor(&[
        ("node apparmor/x", ""),
        ("list ~web:k=a/1 s:s=1", "install s/s=1"),
        ("done", ""),
        ("kernel", "compile a/1 +bundle/s +seccomp/s_s -apparmor/x"),
    ]);
}

#[test]
fn a_reboot_without_the_api_loads_what_the_ledger_has() {
    check_apparmor(&[
        (
            "kernel a=a+b/1:absent b=a+b/1:absent c=c/1:lost d=d/1:stale e=e/1:changed",
            "recompile c/1 recompile d/1 load e/1 load a+b/1",
        ),
        ("done", "recompile c/1 recompile d/1"),
        ("compiled", "load c/1 load d/1"),
        ("done", ""),
        ("+9000s", ""),
        ("node apparmor/a apparmor/b apparmor/z", ""),
    ]);
}

#[test]
fn a_restart_loads_nothing_and_touches_no_label() {
    let (node, pods) = (("node apparmor/a apparmor/b bundle/web", ""), ("pods p=a", ""));
    let kernel = ("kernel a=a/1 b=b/1", "");
    for begin in [[kernel, node, pods], [pods, kernel, node]] {
        check_apparmor(
            &[
                &begin[..],
                &[
                    ("list-home ~web:k=a/1,l=b/1", "compile a/1 compile b/1"),
                    ("compiled", ""),
                    ("list-team", ""),
                    ("+9000s", ""),
                ],
            ]
            .concat(),
        );
    }
}

#[test]
fn an_edit_replaces_what_is_loaded_and_touches_no_label() {
    settled(&[("apply ~web:k=a/2", "compile a/2"), ("compiled", "load a/2"), ("done", "")]);
}

#[test]
fn a_refused_edit_keeps_the_version_before_it_and_repairs_it() {
    for refuse in
        [&[("apply ~web:k=bad", "")][..], &[("apply ~web:k=a+b/2", "compile a+b/2"), ("refused", "")]]
    {
        settled(
            &[
                refuse,
                &[
                    ("+9000s", ""),
                    ("kernel a=a/1:changed", "load a/1"),
                    ("done", ""),
                    ("apply ~web:k=a/3", "compile a/3"),
                    ("compiled", "load a/3"),
                    ("done", ""),
                ],
            ]
            .concat(),
        );
    }
}

#[test]
fn a_compiler_that_fails_is_asked_again_more_and_more_slowly() {
    settled(&[
        ("apply ~web:k=a/2", "compile a/2"),
        ("failed", "wake 1s"),
        ("+1s", "compile a/2"),
        ("failed", "wake 2s"),
        ("apply ~web:k=a/3", "compile a/3"),
        ("failed", "wake 1s"),
        ("kernel a=a/1:absent", "load a/1 wake 1s"),
        ("done", "wake 1s"),
        ("apply ~web:k=a/1", ""),
    ]);
}

#[test]
fn a_name_that_somebody_else_loaded_is_left_alone() {
    check_apparmor(&[
        ("kernel", ""),
        ("node", ""),
        ("list ~web:k=a+b/1,l=c/1", "compile c/1 compile a+b/1"),
        ("compiled", "load c/1 load a+b/1"),
        ("foreign", "wake 60s"),
        ("kernel", "wake 60s"),
        ("+60s", "load c/1 load a+b/1"),
        ("done", "+apparmor/a +apparmor/b +apparmor/c +bundle/web"),
    ]);
}

#[test]
fn what_is_not_loaded_for_a_name_that_somebody_else_has_is_no_failure() {
    let mut scene = apparmor();
    for happens in ["kernel", "node !0", "list ~web:k=a+b/1", "compiled", "foreign-name a"] {
        scene.play(happens);
    }
    assert_eq!(in_words(scene.state.summary(Kind::AppArmor, scene.now)), "bundles=1 desired=2 foreign=1");
    assert_eq!(scene.plan(), "untaint {0} wake 60s");
    // The other name is taken now.
    for happens in ["+60s", "foreign-name b"] {
        scene.play(happens);
    }
    let is_foreign = |word| scene.state.policies.profiles[&name(word)].is_foreign();
    assert_eq!((is_foreign("a"), is_foreign("b")), (false, true));
}

#[test]
fn a_load_that_fails_is_tried_again_more_and_more_slowly() {
    settled(&[
        ("apply ~web:k=a/2", "compile a/2"),
        ("compiled", "load a/2"),
        ("fail-owned", "wake 1s"),
        ("+1s", "load a/2"),
        ("fail-owned", "wake 2s"),
        ("kernel a=a/1", "wake 2s"),
        ("kernel a=a/2", ""),
    ]);
}

#[test]
fn a_drift_is_repaired_at_once_and_a_fight_costs_a_load_a_minute() {
    for drift in ["kernel a=a/1:changed", "kernel a=a/1:absent"] {
        settled(&[(drift, "load a/1"), ("done", ""), ("kernel a=a/1", "")]);
        settled(&[(drift, "load a/1"), ("fail-owned", "-apparmor/a -bundle/web wake 1s")]);
    }
    let mut scene = apparmor();
    for line in ["kernel a=a/1", "list ~web:k=a/1", "compiled"] {
        scene.play(line);
    }
    let mut loads = 0;
    while scene.now.elapsed() < Duration::from_hours(1) {
        if !scene.state.plan(scene.now).load.is_empty() {
            scene.play("done");
            loads += 1;
        }
        scene.now = scene.now + Duration::from_millis(100);
        scene.play("kernel a=a/1:changed");
    }
    assert!((60..80).contains(&loads), "{loads} loads in an hour");
}

#[test]
fn a_profile_goes_after_the_delay_when_no_pod_refers_to_it() {
    settled(&[
        ("delete web", "wake 300s"),
        ("+300s", "-apparmor/a -bundle/web"),
        ("send", ""),
        ("written", "unload a"),
        ("done", ""),
    ]);
    settled(&[
        ("pods p=a q=a,b", ""),
        ("delete web", "wake 300s"),
        ("+9000s", ""),
        ("pod-gone p", ""),
        ("pod q=b", "-apparmor/a -bundle/web"),
        ("pod r=a", ""),
        ("pod-gone r", "-apparmor/a -bundle/web"),
        ("done", "unload a"),
        ("fail-removal", "wake 1s"),
        ("+1s", "unload a"),
        ("done", ""),
    ]);
}

#[test]
fn nothing_is_removed_before_pods_and_all_namespaces_are_known() {
    check_apparmor(&[
        ("pods-unknown", ""),
        ("kernel a=a/1", ""),
        ("node apparmor/a", ""),
        ("list-home", ""),
        ("pods", ""),
        ("+9000s", ""),
        ("list-team", "wake 300s"),
        ("+300s", "-apparmor/a"),
    ]);
    check_apparmor(&[
        ("pods-unknown", ""),
        ("kernel a=a/1", ""),
        ("node", ""),
        ("list", "wake 300s"),
        ("pod p=b", "wake 300s"),
        ("+9000s", ""),
        ("pods", "unload a"),
    ]);
    check_apparmor(&[
        ("no-node", ""),
        ("pods-unknown", ""),
        ("kernel a=a/1", ""),
        ("list", "wake 300s"),
        ("+300s", "unload a"),
    ]);
}

#[test]
fn what_processes_run_under_is_asked_for_again() {
    settled(&[
        ("delete web", "wake 300s"),
        ("+300s", "-apparmor/a -bundle/web"),
        ("done", "unload a"),
        ("in-use", "wake 10s"),
        ("kernel a=a/1", "wake 10s"),
        ("pod p=x", "unload a"),
        ("in-use", "wake 10s"),
        ("+10s", "unload a"),
        ("in-use", "wake 10s"),
        // A label that went does not come back for as long as nobody asks for the profile.
        ("pod p=a", ""),
        ("apply ~web:k=a/1", "+apparmor/a +bundle/web"),
    ]);
}

#[test]
fn what_a_pod_refers_to_is_repaired_and_what_goes_is_not() {
    settled(&[
        ("pods p=a", ""),
        ("delete web", "wake 300s"),
        ("+300s", ""),
        ("kernel a=a/1:absent", "load a/1"),
        ("done", ""),
        ("pods", "-apparmor/a -bundle/web"),
        ("kernel a=a/1:absent", "-apparmor/a -bundle/web"),
    ]);
}

#[test]
fn a_node_without_apparmor_has_nothing_to_do_with_it() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list ~web:k=a/1 web2:a=1", "install web2/a=1"),
        ("done", "+bundle/web2 +seccomp/web2_a"),
        ("done", ""),
    ]);
    let mut scene = Scene::new();
    for line in ["scan", "node", "list ~web:k=a/1"] {
        scene.play(line);
    }
    assert_eq!(scene.state.elsewhere().map(ToString::to_string).collect::<Vec<_>>(), ["home/web"]);
    assert!(scene.state.is_settled(scene.now) && scene.state.unserved().is_empty());
}

#[test]
fn what_is_owned_for_another_kernel_is_compiled_and_loaded_once() {
    check_apparmor(&[("kernel a=a/1:stale", "recompile a/1"), ("compiling", ""), ("list ~web:k=a/1", "")]);
    check_apparmor(&[
        ("kernel a=a/1:stale", "recompile a/1"),
        ("failed", "wake 1s"),
        ("list ~web:k=a/1", "wake 1s"),
        ("+1s", "compile a/1"),
        ("compiled", "load a/1"),
        ("kernel a=a/1:stale", "load a/1"),
        ("done", ""),
        ("kernel a=a/1", ""),
    ]);
    // The host has lost what was compiled.
    settled(&[("kernel a=a/1:forgotten", "compile a/1"), ("compiled", ""), ("kernel a=a/1", "")]);
}

#[test]
fn a_reboot_with_another_kernel_takes_the_labels_away_until_all_is_loaded() {
    check_apparmor(&[
        ("kernel a=a/1:lost b=b/1:lost", "recompile a/1 recompile b/1"),
        ("compiling", ""),
        ("node apparmor/a apparmor/b bundle/web", ""),
        ("pods", ""),
        ("list ~web:k=a/1,l=b/1", "-apparmor/a -apparmor/b -bundle/web"),
    ]);
    // A key is new, and the others are as they were.
    check_apparmor(&[
        ("kernel a=a/1", ""),
        ("node apparmor/a bundle/web", ""),
        ("pods", ""),
        ("list ~web:k=a/1,l=b/1", "compile a/1 compile b/1"),
    ]);
}

#[test]
fn all_is_told_in_numbers() {
    let mut scene = apparmor();
    for (line, numbers, waits, unserved) in [
        ("+1s", "", "Kernel Bundles(2) Node", ""),
        ("kernel a=a/1 z=z/1", "loaded=2 retained=2", "Bundles(2) Node", ""),
        ("node", "loaded=2 retained=2", "Bundles(2)", ""),
        (
            "list ~web@1:k=a/1,l=b/1,m=bad ~new@2:k=a/1 s:a=1",
            "bundles=2 desired=4 loaded=2 retained=1 refused=2",
            "Compiles(2) Writes(1) Labels",
            "new/k s/a web/k web/l web/m",
        ),
        (
            "failed",
            "bundles=2 desired=4 loaded=2 retained=1 refused=2 uncompiled=2",
            "Writes(1) Labels",
            "new/k s/a web/k web/l web/m",
        ),
        (
            "+1s",
            "bundles=2 desired=4 loaded=2 retained=1 refused=2 uncompiled=2",
            "Writes(1) Labels",
            "new/k s/a web/k web/l web/m",
        ),
        (
            "compiled",
            "bundles=2 desired=4 loaded=2 retained=1 refused=2",
            "Loads(1) Writes(1) Labels",
            "new/k s/a web/l web/m",
        ),
        (
            "fail-owned",
            "bundles=2 desired=4 loaded=2 retained=1 refused=2 unwritten=1",
            "Labels",
            "new/k s/a web/l web/m",
        ),
    ] {
        scene.play(line);
        assert_eq!(in_words(scene.state.summary(Kind::AppArmor, scene.now)), numbers, "{line}");
        let shown: Vec<String> =
            scene.state.waits(scene.now).iter().map(|wait| format!("{wait:?}")).collect();
        assert_eq!(shown.join(" "), waits, "{line}");
        assert_eq!(Vec::from_iter(scene.state.unserved()).join(" "), unserved, "{line}");
        assert_eq!(scene.state.summary(Kind::Seccomp, scene.now).loaded, 0);
    }
}

#[test]
fn texts_that_take_long_keep_nobody_unready_for_ever() {
    let mut scene = apparmor();
    for (line, expected) in [
        ("kernel", "Bundles(2) Node"),
        ("node", "Bundles(2)"),
        ("list-home ~web@1:k=a/1", "Bundles(1) Compiles(1)"),
        ("+600s", "Bundles(1) Compiles(1)"),
        ("list-team", "Compiles(1)"),
        ("+119s", "Compiles(1)"),
        ("+1s", ""),
        ("compiled", "Loads(1)"),
    ] {
        scene.play(line);
        let shown: Vec<String> =
            scene.state.waits(scene.now).iter().map(|wait| format!("{wait:?}")).collect();
        assert_eq!(shown.join(" "), expected, "{line}");
    }
}

#[test]
fn a_text_is_asked_for_from_when_it_came_until_it_is_loaded() {
    let mut scene = apparmor();
    for (happens, expected) in [
        ("kernel b=b/1", None),
        ("+5s", None),
        ("list ~web:k=a/1,l=b/1", Some(5)),
        ("compiled", Some(5)),
        ("+5s", Some(5)),
        ("fail", Some(5)),
        ("apply ~web:k=a/2,l=b/1", Some(10)),
        ("compiled", Some(10)),
        ("done", None),
        ("kernel a=a/2:absent b=b/1", None),
        ("apply ~web:k=bad,l=b/1", None),
        ("apply ~web:k=a/3,l=b/1", Some(10)),
        ("compiled", Some(10)),
        ("foreign", None),
    ] {
        scene.play(happens);
        let asked = |text: &str| scene.state.policy_asked_at(&name(text));
        assert_eq!(asked("a").map(|at| at.elapsed().as_secs()), expected, "{happens:?}");
        assert_eq!(asked("b"), None, "{happens:?}");
    }
}

#[test]
fn a_verdict_is_kept_while_a_bundle_or_the_ledger_has_its_text() {
    let mut scene = apparmor();
    let texts = |scene: &Scene| scene.state.policies.texts.len();
    for (line, expected) in [
        ("kernel a=a/1", 1),
        ("list ~web:k=a/1,l=b/1 ~new@2:k=b+c/2", 3),
        ("compiled", 3),
        ("apply ~web:k=a/2,l=b/1", 4),
        ("delete new", 3),
        ("kernel a=a/2", 2),
        ("delete web", 1),
        ("kernel", 0),
    ] {
        scene.play(line);
        assert_eq!(texts(&scene), expected, "{line}");
    }
}

#[test]
fn a_thousand_texts_are_one_plan_and_one_change_of_labels() {
    let mut scene = apparmor();
    let bundles = (0..10).map(|bundle| {
        let keys: Vec<String> = (0..100).map(|key| format!("k{key}=p{bundle}.{key}/1")).collect();
        format!("~b{bundle}:{}", keys.join(","))
    });
    let list = bundles.collect::<Vec<_>>().join(" ");
    for line in ["kernel", "node", &format!("list {list}")] {
        scene.play(line);
    }
    assert_eq!(scene.state.plan(scene.now).compile.len(), 1000);
    scene.play("compiled");
    assert_eq!(scene.state.plan(scene.now).load.len(), 1000);
    scene.play("done");
    assert_eq!(scene.state.plan(scene.now).labels.map(|change| change.set.len()), Some(210));
    scene.play("done");
    assert_eq!(scene.plan(), "");
}
