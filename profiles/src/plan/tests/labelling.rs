//! The rules about labels of profiles: who has them, and who shares them.

use std::collections::BTreeMap;

use super::scene::{Scene, check};
use crate::label::LabelKey;
use crate::labelling::Finding;

/// A bundle with so many profiles.
fn bundle(head: &str, profiles: usize) -> String {
    let profiles: Vec<String> = (0..profiles).map(|number| format!("k{number}=1")).collect();
    format!("{head}:{}", profiles.join(","))
}

/// A node in a cluster with bundles, all of which are loaded and labelled.
fn settled(bundles: &[String]) -> Scene {
    let mut scene = Scene::new();
    for line in ["scan", "node", &format!("list {}", bundles.join(" "))] {
        scene.play(line);
    }
    settle(&mut scene);
    scene
}

/// Does what is to be done, twice: files, then labels.
fn settle(scene: &mut Scene) {
    scene.play("done");
    scene.play("done");
    assert_eq!(scene.plan(), "");
}

/// The bundles of which the Node has labels of profiles, each with their number.
fn labelled(scene: &Scene) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for label in scene.node().filter(|label| label.is_of_profile()) {
        let (_, name) = label.as_str().split_once('/').unwrap();
        *counts.entry(name.split_once('_').unwrap().0).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(bundle, count)| format!("{bundle}:{count}")).collect();
    counts.join(" ")
}

/// The findings, each as code and place.
fn findings(scene: &Scene) -> Vec<String> {
    let shown = |finding: Finding| match finding.reference {
        Some(reference) => format!("{} {reference}", finding.diagnostic.code),
        None => format!("{} {}", finding.diagnostic.code, finding.bundle),
    };
    scene.state.findings().into_iter().map(shown).collect()
}

#[test]
fn a_bundle_can_have_its_own_label_alone() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web!:a=1", "install web/a=1"),
        ("done", "+bundle/web"),
        ("done", ""),
        ("apply web:a=1", "+seccomp/web_a"),
        ("done", ""),
        ("apply web!:a=1", "-seccomp/web_a"),
        ("done", ""),
        ("delete web", "wake 300s"),
        ("+300s", "-bundle/web"),
        ("done", "remove web/a"),
    ]);
}

#[test]
fn a_node_has_256_labels_of_profiles() {
    let scene = settled(&[bundle("web", 256)]);
    assert_eq!((labelled(&scene).as_str(), scene.node().count()), ("web:256", 257));
    assert!(findings(&scene).is_empty());

    let scene = settled(&[bundle("web", 257)]);
    assert_eq!((labelled(&scene).as_str(), scene.node().count()), ("", 1));
    assert_eq!(findings(&scene), ["labels-by-bundle home/web"]);
}

#[test]
fn older_bundles_come_first_and_smaller_ones_may_still_fit() {
    let bundles = [bundle("a@30", 100), bundle("b@10", 100), bundle("c@20", 100), bundle("d@40", 56)];
    let scene = settled(&bundles);
    assert_eq!(labelled(&scene), "b:100 c:100 d:56");
    assert_eq!(findings(&scene), ["labels-by-bundle home/a"]);
}

#[test]
fn of_bundles_of_one_age_namespace_and_name_decide() {
    let scene = settled(&[bundle("team/a", 200), bundle("z", 200), bundle("y", 100)]);
    assert_eq!(labelled(&scene), "y:100");
    let scene = settled(&[bundle("team/a", 200), bundle("z", 200)]);
    assert_eq!(labelled(&scene), "z:200");
}

#[test]
fn a_new_bundle_takes_no_label_away() {
    let mut scene = settled(&[bundle("old@1", 100), bundle("young@2", 100)]);
    scene.play(&format!("apply {}", bundle("new@3", 90)));
    settle(&mut scene);
    assert_eq!(labelled(&scene), "old:100 young:100");
    assert_eq!(findings(&scene), ["labels-by-bundle home/new"]);
    scene.play(&format!("apply {}", bundle("old@1", 160)));
    settle(&mut scene);
    assert_eq!(labelled(&scene), "new:90 old:160");
}

#[test]
fn a_label_that_a_pod_needs_is_not_taken_away_for_want_of_room() {
    let mut scene = settled(&[bundle("old@1", 100), bundle("young@2", 100)]);
    scene.play("pods p=%seccomp/young_k7");
    scene.play(&format!("apply {}", bundle("old@1", 160)));
    settle(&mut scene);
    assert_eq!(labelled(&scene), "old:160 young:1");
    // It takes no room from others.
    scene.play(&format!("apply {}", bundle("new@3", 96)));
    settle(&mut scene);
    assert_eq!(labelled(&scene), "new:96 old:160 young:1");
    scene.play("pod-gone p");
    scene.play("done");
    assert_eq!(labelled(&scene), "new:96 old:160");
}

#[test]
fn what_is_refused_counts_and_what_asks_for_no_labels_does_not() {
    let scene = settled(&[format!("{},bad=bad", bundle("web@1", 255)), bundle("new@2", 1)]);
    assert_eq!(labelled(&scene), "web:255");
    let others = [bundle("all@0!", 200), bundle("far[disk=ssd]@0", 200)];
    let scene = settled(&[&[bundle("web@1", 200)], &others[..]].concat());
    assert_eq!(labelled(&scene), "web:200");
    assert!(findings(&scene).is_empty());
}

#[test]
fn a_selector_that_can_not_be_read_takes_no_label_away() {
    let mut scene = settled(&[bundle("far[disk=ssd]@1", 100), bundle("near@2", 100), bundle("new@3", 100)]);
    assert_eq!(labelled(&scene), "near:100 new:100");
    scene.play(&format!("apply {}", bundle("far[=]@1", 100)));
    assert_eq!((scene.plan().as_str(), findings(&scene).len()), ("", 0));
    scene.play(&format!("apply {}", bundle("near[=]@2", 100)));
    assert_eq!((scene.plan().as_str(), findings(&scene).len()), ("", 0));
}

#[test]
fn what_nobody_asks_for_any_more_leaves_room_at_once_and_keeps_its_labels() {
    let mut scene = settled(&[bundle("old@1", 200), bundle("new@2", 100)]);
    scene.play("delete old");
    scene.play("done");
    assert_eq!(labelled(&scene), "new:100 old:200");
    scene.play(&format!("apply {}", bundle("old@1", 200)));
    settle(&mut scene);
    assert_eq!(labelled(&scene), "old:200");
}

#[test]
fn a_restart_leaves_the_labels_as_they_are() {
    let home = [bundle("a@2", 100), bundle("c@4", 90), bundle("d@6", 50)].join(" ");
    let team = [bundle("team/b@1", 50), bundle("team/b2@3", 60), bundle("team/b3@5", 40)].join(" ");
    let before = settled(&[home.clone(), team.clone()]);
    assert_eq!(labelled(&before), "a:100 b:50 b2:60 b3:40");
    for lists in [["list-home", "list-team"], ["list-team", "list-home"]] {
        let mut scene = Scene::restarted(&before);
        for list in lists {
            scene.play(&format!("{list} {home} {team}"));
            assert_eq!(scene.plan(), "", "{lists:?}");
        }
        scene.play("+9000s");
        assert_eq!(scene.plan(), "", "{lists:?}");
        assert_eq!(findings(&scene), ["labels-by-bundle home/c", "labels-by-bundle home/d"]);
    }
}

#[test]
fn a_namespace_that_can_not_be_listed_holds_up_no_labels_of_others() {
    let mut scene = Scene::new();
    for line in ["scan", "node", &format!("list-home {} {}", bundle("a@1", 200), bundle("b@2", 200))] {
        scene.play(line);
    }
    settle(&mut scene);
    assert_eq!(labelled(&scene), "a:200");
    assert!(findings(&scene).is_empty());
    scene.play("list-team");
    assert_eq!(findings(&scene), ["labels-by-bundle home/b"]);
}

#[test]
fn a_profile_without_a_label_holds_back_one_that_shares_it_until_it_is_loaded() {
    let long = "b".repeat(64);
    let label = LabelKey::of_profile(&format!("{long}/k").parse().unwrap());
    let (twin, key) = label.as_str().split_once('/').unwrap().1.split_once('_').unwrap();
    let of_bundles = [twin, long.as_str()].map(|bundle| {
        LabelKey::of_bundle(None, &bundle.parse().unwrap()).as_str().replace(".pavise.dev", "")
    });
    check(&[
        ("scan", ""),
        ("node", ""),
        (&format!("list {long}!:k=bad {twin}:{key}=1"), &format!("install {twin}/{key}=1")),
        ("done", &format!("+{}", of_bundles[0])),
        ("done", ""),
        (&format!("apply {long}!:k=1"), &format!("install {long}/k=1")),
        ("done", &format!("+{} +{label}", of_bundles[1]).replace(".pavise.dev", "")),
        ("done", ""),
        (&format!("apply {twin}!:{key}=1"), &format!("-{label}").replace(".pavise.dev", "")),
    ]);
}

#[test]
fn profiles_that_share_a_label_are_told() {
    let long = "k".repeat(60);
    let label = LabelKey::of_profile(&format!("web/{long}").parse().unwrap());
    let twin = label.as_str().split_once('_').unwrap().1.to_owned();
    let mut scene = settled(&[format!("web:{long}=1,{twin}=1,a=1"), "other:a=1".to_owned()]);
    let expected = [&twin, &long].map(|key| format!("label-collision web/{key}"));
    assert_eq!(findings(&scene), expected);
    scene.play("apply web:a=1");
    assert!(findings(&scene).is_empty());
}

#[test]
fn where_there_is_no_node_nothing_is_said_about_its_labels() {
    let mut scene = Scene::new();
    let long = "k".repeat(60);
    for line in ["no-node", &format!("list {} b:{long}1=1,{long}2=1", bundle("web", 257))] {
        scene.play(line);
    }
    assert_eq!(findings(&scene), Vec::<String>::new());
}
