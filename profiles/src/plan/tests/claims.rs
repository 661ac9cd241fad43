//! The rules about who has the name of an AppArmor profile.

use super::kernel::{apparmor, check_apparmor, name, settled};
use super::scene::Scene;
use crate::label::LabelKey;
use crate::state::State;

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
fn a_bundle_that_changes_its_kind_gives_up_what_it_had() {
    settled(&[
        ("apply web:s=1", "install web/s=1 wake 300s"),
        ("done", "+seccomp/web_s wake 300s"),
        ("done", "wake 299s"),
        ("apply ~web:k=a/1", "wake 300s"),
    ]);
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
    let label = LabelKey::of_policy(&name(&long));
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
