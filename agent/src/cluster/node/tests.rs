//! What is seen of a Node, and what is sent.

use kube::core::Status;

use super::*;
use crate::cluster::script::{Exchange, client};

/// A Node of this version with a label of ours and one of others, and these taints.
fn node(version: &str, taints: &[&str]) -> Node {
    serde_json::from_value(object(version, taints)).unwrap()
}

fn object(version: &str, taints: &[&str]) -> Value {
    let labels = json!({"kubernetes.io/os": "linux", "seccomp.pavise.dev/web_a": "true"});
    let taint = |key: &&str| json!({"key": key, "effect": "NoSchedule"});
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n", "uid": "u", "resourceVersion": version, "labels": labels},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"images": []},
    });
    if !taints.is_empty() {
        object["spec"]["taints"] = taints.iter().map(taint).collect();
    }
    object
}

#[test]
fn a_patch_sets_and_unsets_in_one_write() {
    let label = |key| LabelKey::observed(key).unwrap();
    let change = LabelChange {
        set: [label("seccomp.pavise.dev/web_a")].into(),
        unset: [label("seccomp.pavise.dev/web_b")].into(),
    };
    assert_eq!(
        patch_of(&change),
        json!({"metadata": {"labels": {"seccomp.pavise.dev/web_a": "true", "seccomp.pavise.dev/web_b": null}}})
    );
}

#[test]
fn labels_of_ours_are_told_from_others() {
    let seen = labels_of(&node("7", &[]));
    assert_eq!(seen.version, Some(7));
    assert_eq!(seen.labels.keys().map(LabelKey::as_str).collect::<Vec<_>>(), ["seccomp.pavise.dev/web_a"]);
    assert_eq!(seen.others, [("kubernetes.io/os".to_owned(), "linux".to_owned())].into());
}

#[test]
fn a_version_that_is_no_number_is_none() {
    assert_eq!(labels_of(&node("v7", &[])).version, None);
}

#[test]
fn a_list_is_told_from_what_is_watched() {
    let mut sighting = Sighting::new(NodeName::new("n").unwrap());
    let of_version = node;
    let node = || of_version("7", &["a"]);
    assert!(sighting.take(Ok(watcher::Event::Init)).is_none());
    assert!(matches!(sighting.take(Ok(watcher::Event::InitApply(node()))), Some(Event::NodeListed(_))));
    assert!(sighting.take(Ok(watcher::Event::InitDone)).is_none());
    assert!(sighting.take(Ok(watcher::Event::Apply(node()))).is_none(), "nothing has changed");
    let moved = of_version("8", &["a", "b"]);
    assert!(sighting.take(Ok(watcher::Event::Apply(moved))).is_none(), "taints of others are none of ours");
    let mut relabelled = node();
    relabelled.metadata.labels = None;
    assert!(matches!(sighting.take(Ok(watcher::Event::Apply(relabelled))), Some(Event::NodeLabels(_))));
    assert!(matches!(sighting.take(Ok(watcher::Event::Apply(node()))), Some(Event::NodeLabels(_))));
}

#[test]
fn a_list_without_the_node_says_that_it_is_gone() {
    let mut sighting = Sighting { is_seen: true, ..Sighting::new(NodeName::new("n").unwrap()) };
    let node = node("7", &[]);
    assert!(matches!(sighting.take(Ok(watcher::Event::Apply(node))), Some(Event::NodeLabels(_))));
    assert_eq!(sighting.uid.borrow().as_deref(), Some("u"));
    assert!(sighting.take(Ok(watcher::Event::Init)).is_none());
    assert!(matches!(sighting.take(Ok(watcher::Event::InitDone)), Some(Event::NodeGone)));
    assert_eq!(*sighting.uid.borrow(), None);
}

#[test]
fn a_startup_taint_that_comes_or_moves_is_told() {
    let mut sighting = Sighting::new(NodeName::new("n").unwrap());
    for (taints, expected) in [
        (&[][..], Some(&[][..])),
        (&[STARTUP_TAINT], Some(&[0])),
        (&["a", STARTUP_TAINT, "b"], Some(&[1])),
        (&["c", STARTUP_TAINT], None),
        (&[STARTUP_TAINT, "c", STARTUP_TAINT], Some(&[0, 2])),
        (&["c"], Some(&[])),
    ] {
        let told = match sighting.take(Ok(watcher::Event::Apply(node("7", taints)))) {
            Some(Event::NodeLabels(seen)) => Some(seen.startup_taints),
            None => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(told, expected.map(|at| at.iter().copied().collect()), "{taints:?}");
    }
}

#[test]
fn a_taint_is_tested_and_removed_the_last_one_first() {
    let patch = untaint_patch(Some("u".to_owned()), &[0, 2].into());
    assert_eq!(
        serde_json::to_value(patch).unwrap(),
        json!([
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "test", "path": "/spec/taints/2/key", "value": "pavise.dev/not-ready"},
            {"op": "remove", "path": "/spec/taints/2"},
            {"op": "test", "path": "/spec/taints/0/key", "value": "pavise.dev/not-ready"},
            {"op": "remove", "path": "/spec/taints/0"},
        ])
    );
}

#[tokio::test]
async fn the_answer_says_what_the_node_is_after_the_taint_went() {
    let untaint = |status, answer| async move {
        let asked = "/api/v1/nodes/n?&fieldManager=pavise";
        let node = OwnNode::new(
            client(vec![Exchange { asked, status, answer: vec![answer] }]),
            NodeName::new("n").unwrap(),
        );
        node.write(NodeWrite::Untaint(Untaint { at: [0].into(), lacks: Vec::new() })).await
    };
    let events = untaint(200, object("8", &["a"])).await;
    let [Event::Untainted(seen)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((seen.version, seen.startup_taints.len(), seen.labels.len()), (Some(8), 0, 1));
    let refused = Status::failure("no", "Invalid").with_code(422);
    let events = untaint(422, serde_json::to_value(refused).unwrap()).await;
    assert!(matches!(events[..], [Event::UntaintFailed]), "{events:?}");
}

#[test]
fn a_test_that_failed_is_told_from_what_a_policy_refuses() {
    let policy = json!({"name": "n", "kind": "nodes"});
    for (code, details, expected) in [
        (409, json!({"name": "n"}), true),
        (422, json!({}), true),
        (422, policy, false),
        (403, json!({}), false),
    ] {
        let status = json!({"status": "Failure", "code": code, "details": details});
        let error = kube::Error::Api(serde_json::from_value::<Status>(status).unwrap().boxed());
        assert_eq!(has_changed(&error), expected, "{code} {details}");
    }
}
