//! The rules about AppArmor profiles: who has a name, what is loaded, and what goes.

use std::time::Duration;

use super::kernel::{apparmor, check_apparmor};
use super::scene::{Scene, check};
use super::summary::in_words;
use crate::bundle::Kind;
use crate::label::LabelKey;
use crate::state::State;

/// A node with the text `a/1` of the bundle `web` loaded and labelled, and no pods.
fn settled(script: &[(&str, &str)]) {
    let begin: &[(&str, &str)] = &[
        ("kernel a=a/1", ""),
        ("node apparmor/a bundle/web", ""),
        ("pods", ""),
        ("list ~web:k=a/1", "compile a/1"),
        ("compiled", ""),
    ];
    check_apparmor(&[begin, script].concat());
}

fn findings(scene: &Scene) -> Vec<String> {
    let shown = |finding: crate::labelling::Finding| {
        format!(
            "{} {}",
            finding.diagnostic.code,
            finding.reference.map(|one| one.to_string()).unwrap_or_default()
        )
    };
    scene.state.findings().into_iter().map(shown).collect()
}

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
fn a_restart_with_a_refused_edit_keeps_what_is_loaded() {
    // By itself, by the compiler, with other names than before.
    for (edit, verdict) in [("k=bad", ""), ("k=a/2", "refused"), ("k=x/2", "refused"), ("k=x/2", "failed")] {
        let mut scene = apparmor();
        for line in ["kernel a=a/1", "node apparmor/a bundle/web", "pods"] {
            scene.play(line);
        }
        scene.play(&format!("list ~web:{edit}"));
        scene.play(if verdict.is_empty() { "+1s" } else { verdict });
        for later in ["+1s", "+9000s", "kernel a=a/1"] {
            scene.play(later);
            let plan = scene.state.plan(scene.now);
            assert!(plan.unload.is_empty() && plan.load.is_empty(), "{edit} {verdict} {}", scene.plan());
            assert!(plan.labels.is_none() || verdict == "failed", "{edit} {verdict} {}", scene.plan());
        }
        scene.play("kernel a=a/1:absent");
        assert!(scene.plan().contains("load a/1"), "{edit} {verdict} {}", scene.plan());
        scene.play("done");
        scene.play("delete web");
        scene.play("+299s");
        assert!(scene.state.plan(scene.now).unload.is_empty());
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
fn an_older_bundle_has_the_name() {
    let mut scene = apparmor();
    for (line, expected, told) in [
        ("kernel", "", &[][..]),
        ("list ~new@2:k=a+b/1,l=c/1 ~old@1:k=b/2", "compile b/2 compile c/1", &["profile-taken new/k"]),
        ("compiled", "load b/2 load c/1", &["profile-taken new/k"]),
        ("done", "", &["profile-taken new/k"]),
        ("apply ~new@2:k=a/1,l=c/1", "compile a/1", &[]),
        ("compiled", "load a/1", &[]),
        ("done", "", &[]),
    ] {
        scene.play(line);
        assert_eq!(
            (scene.plan().as_str(), findings(&scene)),
            (expected, told.iter().map(|one| (*one).to_owned()).collect()),
            "{line}"
        );
    }
    let said = |state: &State| state.findings().remove(0).diagnostic.to_string();
    scene.play("apply ~new@2:k=b/3");
    assert!(said(&scene.state).contains("the profile b belongs to the older bundle home/old"));
}

#[test]
fn of_bundles_of_one_age_namespace_and_name_decide() {
    check_apparmor(&[("kernel", ""), ("list ~team/a:k=p/1 ~z:k=p/2", "compile p/2")]);
    check_apparmor(&[("kernel", ""), ("list ~y:k=p/1 ~z:k=p/2", "compile p/1")]);
}

#[test]
fn an_older_bundle_takes_a_name_and_the_rest_of_the_text_stays() {
    check_apparmor(&[
        ("kernel", ""),
        ("pods", ""),
        ("list ~new@2:k=a+b/1", "compile a+b/1"),
        ("compiled", "load a+b/1"),
        ("done", ""),
        ("node", "+apparmor/a +apparmor/b +bundle/new"),
        ("done", ""),
        ("apply ~old@1:k=b/2", "compile b/2 -bundle/new"),
        ("done", "compile b/2"),
        ("compiled", "load b/2"),
        ("done", "+bundle/old"),
        ("done", ""),
        ("+9000s", ""),
    ]);
}

#[test]
fn a_text_that_would_take_a_name_from_its_owner_is_not_loaded() {
    let mut scene = apparmor();
    for (line, expected) in [
        ("kernel a=a+b/1 b=b/2", ""),
        ("list ~new@2:k=a+b/1 ~old@1:k=b/2", "compile b/2"),
        ("compiled", ""),
        // As after a reboot. What the ledger has of a+b/1 is a alone.
        ("kernel a=a/1:absent b=b/2:absent", "load a/1 load b/2"),
    ] {
        scene.play(line);
        assert_eq!(scene.plan(), expected, "{line}");
    }
    // The text is known as a whole.
    check_apparmor(&[
        ("kernel", ""),
        ("pods", ""),
        ("list ~new@2:k=a+b/1", "compile a+b/1"),
        ("compiled", "load a+b/1"),
        ("done", ""),
        ("apply ~old@1:k=b/2", "compile b/2"),
        ("kernel a=a+b/1:absent b=a+b/1:absent", "compile b/2 load a+b/1"),
        ("done", "compile b/2"),
        ("compiled", "load b/2"),
        ("done", ""),
        ("kernel a=a+b/1:absent b=b/2:absent", "load b/2"),
        ("done", ""),
        ("delete old", "load a+b/1"),
        ("done", ""),
    ]);
}

#[test]
fn a_name_passes_on_at_once_when_its_bundle_goes() {
    let begin: &[(&str, &str)] = &[
        ("kernel a=a/1", ""),
        ("node apparmor/a bundle/web", ""),
        ("pods p=a", ""),
        ("list ~web@1:k=a/1 ~web2@2:k=a/2", "compile a/1"),
        ("compiled", ""),
    ];
    for end in ["delete web", "apply ~web[disk=ssd]@1:k=a/1", "apply ~web@1:k=b/1"] {
        let mut scene = apparmor();
        for (line, expected) in begin {
            scene.play(line);
            assert_eq!(scene.plan(), *expected, "{line}");
        }
        scene.play(end);
        scene.play("compiled");
        assert!(scene.plan().contains("load a/2"), "{end}: {}", scene.plan());
        scene.play("done");
        scene.play("done");
        assert!(scene.node().any(|label| label.as_str() == "apparmor.pavise.dev/a"), "{end}");
    }
    // Renamed: the text is the same.
    settled(&[
        ("apply ~web2@2:k=a/1", ""),
        ("delete web", "+bundle/web2 -bundle/web"),
        ("done", ""),
        ("+9000s", ""),
    ]);
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
        ("kernel a=a/1", ""),
        ("node apparmor/a", ""),
        ("list-home", ""),
        ("pods", ""),
        ("+9000s", ""),
        ("list-team", "wake 300s"),
        ("+300s", "-apparmor/a"),
    ]);
    check_apparmor(&[
        ("kernel a=a/1", ""),
        ("node", ""),
        ("list", "wake 300s"),
        ("pod p=b", "wake 300s"),
        ("+9000s", ""),
        ("pods", "unload a"),
    ]);
    check_apparmor(&[("no-node", ""), ("kernel a=a/1", ""), ("list", "wake 300s"), ("+300s", "unload a")]);
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
fn a_start_hands_nothing_over_before_all_is_known() {
    // What is loaded is that of a bundle whose namespace is listed last.
    check_apparmor(&[
        ("kernel a=a/1", ""),
        ("list-home ~web@2:k=a/2", "compile a/2"),
        ("compiled", ""),
        ("list-team ~team/old@1:k=a/1", "compile a/1"),
        ("compiled", ""),
    ]);
    check_apparmor(&[
        ("kernel a=a/1", ""),
        ("list-home ~web@2:k=a/2", "compile a/2"),
        ("compiled", ""),
        ("kernel a=a/1:absent", "load a/1"),
        ("done", ""),
        ("list-team", "load a/2"),
    ]);
    // Who has what is loaded goes on having it, and what is new is not held up.
    check_apparmor(&[
        ("kernel a=a/1", ""),
        ("list-home ~web@2:k=a/1,l=b/1", "compile a/1 compile b/1"),
        ("compiled", "load b/1"),
        ("apply ~web@2:k=a/2,l=b/1", "compile a/2 load b/1"),
        ("compiled", "load a/2 load b/1"),
    ]);
}

#[test]
fn a_node_that_is_not_seen_yet_hands_nothing_over() {
    check_apparmor(&[
        ("kernel a=a/1 b=b/1", ""),
        ("pods", ""),
        ("list ~old[disk=ssd]@1:k=a/1 ~new@2:k=a/2", "compile a/2"),
        ("compiled", ""),
        ("node disk=ssd apparmor/a apparmor/b", "compile a/1"),
        // Nobody knows whether b is what the key of new had before, whose text is refused.
        ("compiled", "+bundle/old"),
        ("delete new", "+bundle/old wake 300s"),
    ]);
}

#[test]
fn a_selector_that_can_not_be_read_keeps_what_is_loaded_and_brings_nothing_new() {
    settled(&[
        ("apply ~web[=]:k=a/1,l=b/1", "-bundle/web"),
        ("done", ""),
        ("+9000s", ""),
        ("apply ~web[=]:k=a/2", "+bundle/web"),
        ("done", ""),
        ("kernel a=a/1:absent", "load a/1"),
    ]);
}

#[test]
fn a_bundle_that_can_not_be_read_asks_for_what_it_asked_for_before() {
    settled(&[
        ("apply ~web:unreadable", "-bundle/web"),
        ("done", ""),
        ("+9000s", ""),
        ("delete web", "wake 300s"),
    ]);
    check_apparmor(&[
        ("kernel a=a/1", ""),
        ("pods", ""),
        ("node apparmor/a", ""),
        ("list ~web:unreadable", ""),
        ("+9000s", ""),
        ("delete web", "wake 300s"),
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
fn a_bundle_that_changes_its_kind_gives_up_what_it_had() {
    settled(&[
        ("apply web:s=1", "install web/s=1 wake 300s"),
        ("done", "+seccomp/web_s wake 300s"),
        ("done", "wake 299s"),
        ("apply ~web:k=a/1", "wake 300s"),
    ]);
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
fn what_is_said_follows_from_compiling_too() {
    let mut scene = apparmor();
    for (line, told) in [
        ("kernel", &[][..]),
        ("list ~web:k=a/1,l=a+b/1", &[]),
        ("refused", &["invalid-policy web/k"]),
        ("apply ~web:k=a/2,l=b/1", &[]),
        ("compiled", &[]),
    ] {
        scene.play(line);
        assert_eq!(findings(&scene), told, "{line}");
    }
    // What a key has from before, another of its bundle does not get.
    scene.play("apply ~web:k=bad,l=a/3");
    assert_eq!(findings(&scene), ["duplicate-profile web/l"]);
}

#[test]
fn names_that_change_places_wait_for_each_other() {
    check_apparmor(&[
        ("kernel", ""),
        ("list ~web:k=a/1,l=b/1", "compile a/1 compile b/1"),
        ("compiled", "load a/1 load b/1"),
        ("done", ""),
        ("apply ~web:k=b/2,l=a/2", "compile a/2 compile b/2"),
        ("compiled", "load a/2 load b/2"),
        ("done", ""),
    ]);
}

#[test]
fn profiles_that_share_a_label_are_told_and_need_all_to_be_loaded() {
    let long = "n".repeat(80);
    let label = LabelKey::of_policy(&super::kernel::name(&long));
    let (_, twin) = label.as_str().split_once('/').unwrap();
    let mut scene = apparmor();
    for line in ["kernel", "node", &format!("list ~web:k={long}/1"), "compiled", "done"] {
        scene.play(line);
    }
    assert!(scene.plan().contains(twin));
    scene.play(&format!("apply ~web:k={long}/1,l={twin}/1"));
    assert_eq!(findings(&scene), ["label-collision web/l", "label-collision web/k"]);
    assert!(!scene.plan().contains(&format!("apparmor/{twin}")), "{}", scene.plan());
}

#[test]
fn names_count_as_labels_of_profiles() {
    let names = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>().join("+");
    for (count, told) in [(254, &[][..]), (255, &["labels-by-bundle "])] {
        let mut scene = apparmor();
        for line in ["kernel", "node", &format!("list ~web@1:k={}/1,l=bad new@2:a=1", names(count))] {
            scene.play(line);
        }
        assert_eq!(findings(&scene), told.to_vec(), "{count}");
    }
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
        let asked = |name: &str| scene.state.policy_asked_at(&super::kernel::name(name));
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
