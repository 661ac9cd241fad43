//! Pods that wait, Nodes and bundles in, explanations out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::placement::Cluster;
use crate::placement::tests::{cluster, node, on, pod};

/// A pod with a container for each of these references that selects on these labels, as `pool=a seccomp:web_a`.
fn waiting(references: &[&str], labels: &str) -> (Pod, Constraints) {
    let constraints = if labels.is_empty() { Constraints::default() } else { on(labels) };
    let selects = constraints.keys().filter_map(LabelKey::observed).collect();
    (Pod { selects, ..pod(references) }, constraints)
}

fn why_in(cluster: &Cluster, (pod, constraints): &(Pod, Constraints)) -> Option<Why> {
    // Nothing else is asked of the API server.
    let telling: BTreeSet<&str> = cluster.bundles.asked().chain(constraints.keys()).collect();
    let seen = |node: &Node| {
        let labels = node.ours.iter().chain(&node.others).filter(|(key, _)| telling.contains(key.as_str()));
        Node::new(node.name.clone(), labels.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let nodes: Vec<Node> = cluster.nodes.iter().map(seen).collect();
    let site = Site { nodes: &nodes, bundles: &cluster.bundles };
    site.why(pod, constraints, &mut Suggestions::default())
}

/// Claims what is said of a pod with these references that selects on these labels; nothing if it is empty.
fn check(references: &[&str], labels: &str, expected: &str) {
    let said = why_in(&cluster(), &waiting(references, labels)).map(|why| why.note);
    let expected = (!expected.is_empty()).then(|| format!("the pod waits: {expected}"));
    assert_eq!(said, expected, "{references:?} {labels}");
}

#[test]
fn a_reference_to_what_is_nowhere_is_told_with_what_was_meant() {
    let correct =
        "Correct the reference (and delete the pod, if nothing makes it anew), or publish the profile";
    check(
        &["seccomp:whole/adit.json"],
        "seccomp:whole_adit.json",
        &format!(
            "no node has the seccomp profile whole/adit.json, which it selects by the label \
             seccomp.pavise.dev/whole_adit.json: the bundle ns/whole has no key adit.json; did you mean \
             whole/audit.json? {correct}"
        ),
    );
    check(
        &["seccomp:profiles/zzz", "seccomp:profiles/zzz"],
        "pool=a seccomp:profiles_zzz",
        &format!(
            "no node has the seccomp profile profiles/zzz, which it selects by the label \
             seccomp.pavise.dev/profiles_zzz: there is no bundle ns/profiles. {correct}"
        ),
    );
    check(
        &["apparmor:deny-wrte"],
        "apparmor:deny-wrte",
        &format!(
            "no node has the AppArmor profile deny-wrte, which it selects by the label apparmor.pavise.dev/deny-wrte: \
             no bundle declares it, unless a text that is refused does, in ns/flawed; the bundles of closed are not \
             known: configmaps is forbidden; did you mean deny-write? {correct}"
        ),
    );
}

#[test]
fn a_profile_that_bundles_have_is_told_with_what_holds_it_back() {
    check(
        &["seccomp:web/b"],
        "seccomp:web_b",
        "no node has the seccomp profile web/b, which it selects by the label seccomp.pavise.dev/web_b: ns/web has it, \
         and it is not loaded there: see what `kubectl get npr` says of the node's agent. The pod is scheduled as soon \
         as that is put right",
    );
    check(
        &["seccomp:_closed/secret/a"],
        "closed.seccomp:secret_a",
        "no node has the seccomp profile _closed/secret/a, which it selects by the label \
         closed.seccomp.pavise.dev/secret_a: the bundles of closed are not known: configmaps is forbidden. The pod is \
         scheduled as soon as that is put right",
    );
    // As placement selects where a bundle has no labels for its profiles.
    let why = why_in(&cluster(), &waiting(&["seccomp:web/a"], "bundle:web")).unwrap();
    let beginning = "the pod waits: no node has the seccomp profile web/a, which it selects by the label \
                     bundle.pavise.dev/web: it stands where all of ns/web is loaded; of its key c: ns/web has it, and \
                     it is refused: error[unknown-action] ";
    assert!(why.note.starts_with(beginning), "{}", why.note);
}

#[test]
fn a_pod_that_can_not_be_where_its_profile_is_is_told_where_that_is() {
    check(
        &["seccomp:web/a"],
        "pool=b seccomp:web_a",
        "no node that it can be on has the seccomp profile web/a, which it selects by the label \
         seccomp.pavise.dev/web_a: ns/web has it, and it is not loaded there: see what `kubectl get npr` says of the \
         node's agent; it is where the pod can't be: n1, n2 (nodeSelector pool=b). Let the pod be there, or have the \
         profile where the pod can be",
    );
}

#[test]
fn labels_that_no_node_has_together_are_told_with_where_each_is() {
    check(
        &["apparmor:deny-write", "apparmor:p"],
        "bundle:policies apparmor:p",
        "no node that it can be on has all labels of profiles that it selects on: apparmor.pavise.dev/p is on n2, n3, \
         bundle.pavise.dev/policies is on n1. Have their bundles for the same nodes (pavise.dev/node-selector)",
    );
}

#[test]
fn a_label_that_is_selected_by_hand_is_told_with_what_it_would_be_of() {
    let correct = "Correct what the pod selects on (and delete the pod, if nothing makes it anew), or publish the profile";
    for (label, expected) in [
        (
            "seccomp:whole_adit.json",
            "seccomp.pavise.dev/whole_adit.json, which it selects on, of the seccomp profile whole/adit.json: the \
             bundle ns/whole has no key adit.json; did you mean whole/audit.json?",
        ),
        (
            "other.seccomp:web_a",
            "other.seccomp.pavise.dev/web_a, which it selects on, of the seccomp profile _other/web/a: the namespace \
             other is not among --bundle-namespace; did you mean web/a?",
        ),
        (
            "bundle:wbe",
            "bundle.pavise.dev/wbe, which it selects on, of the bundle ns/wbe: there is no bundle ns/wbe.",
        ),
        ("seccomp:nonsense", "seccomp.pavise.dev/nonsense, which it selects on."),
        (
            "seccomp:web_kkk_efcec6c18e5c40f6",
            "seccomp.pavise.dev/web_kkk_efcec6c18e5c40f6, which it selects on.",
        ),
    ] {
        check(&[], label, &format!("no node has the label {expected} {correct}"));
    }
}

#[test]
fn what_else_keeps_a_pod_from_a_node_is_not_spoken_of() {
    // A Node has all, so taints or resources are the reason.
    check(&["seccomp:web/a"], "seccomp:web_a", "");
    check(&["seccomp:web/a"], "pool=a seccomp:web_a", "");
    // No Node is of that pool, whatever profiles it has.
    check(&["seccomp:web/a"], "pool=none seccomp:web_a", "");
    check(&["seccomp:web/zzz"], "", "");
    // With its reference it would wait there, too.
    let why = why_in(&cluster(), &waiting(&["seccomp:whole/adit.json"], "pool=none seccomp:whole_adit.json"));
    assert!(why.unwrap().note.contains("has no key adit.json; did you mean whole/audit.json? Correct"));
}

#[test]
fn required_affinity_is_understood_as_the_scheduler_does() {
    let of = |terms: Value| -> (Pod, Constraints) {
        let spec = json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}});
        let constraints: Constraints = serde_json::from_value(spec).unwrap();
        let selects = constraints.keys().filter_map(LabelKey::observed).collect();
        (Pod { selects, ..pod(&["seccomp:web/a"]) }, constraints)
    };
    let ours = |name: &str| json!({"key": format!("seccomp.pavise.dev/{name}"), "operator": "Exists"});
    let named = json!([{"key": "metadata.name", "operator": "In", "values": ["n3"]}]);
    let on_n3 = of(json!([{"matchFields": named, "matchExpressions": [ours("web_a")]}]));
    let why = why_in(&cluster(), &on_n3).unwrap();
    assert!(why.note.contains("; it is where the pod can't be: n1, n2 (node affinity). "), "{}", why.note);
    // Terms are alternatives: one that is met is enough, and one that asks for nothing else can be met anywhere.
    let one_is_met = of(json!([{"matchExpressions": [ours("zzz")]}, {"matchExpressions": [ours("web_a")]}]));
    assert_eq!(why_in(&cluster(), &one_is_met), None);
    let pool = json!({"key": "pool", "operator": "In", "values": ["none"]});
    let none_is_met = of(json!([{"matchExpressions": [ours("zzz")]}, {"matchExpressions": [pool]}]));
    assert!(why_in(&cluster(), &none_is_met).unwrap().note.contains("the label seccomp.pavise.dev/zzz"));
}

#[test]
fn the_gist_stays_while_other_nodes_come_and_go() {
    let (pod, mut cluster) = (waiting(&["seccomp:web/a"], "pool=b seccomp:web_a"), cluster());
    let before = why_in(&cluster, &pod).unwrap();
    cluster.nodes.insert(0, node("n0 pool=a seccomp:web_a"));
    let after = why_in(&cluster, &pod).unwrap();
    assert!(after.note.contains("can't be: n0, n1, n2 ("), "{}", after.note);
    assert_eq!((&before.gist, before.note == after.note), (&after.gist, false));
    cluster.nodes.insert(0, node("m9 pool=a seccomp:web_a"));
    assert!(why_in(&cluster, &pod).unwrap().note.contains("can't be: m9, n0, n1 and others ("));
    assert_ne!(
        why_in(&cluster, &waiting(&["seccomp:web/a"], "pool=b seccomp:web_z")).unwrap().gist,
        before.gist
    );
}

#[test]
fn a_note_fits_and_keeps_what_to_do() {
    let long: Vec<String> = (0..6).map(|n| format!("seccomp:web/{n}{}", "k".repeat(240))).collect();
    let references: Vec<&str> = long.iter().map(String::as_str).collect();
    let labels: Vec<String> = long
        .iter()
        .map(|reference| {
            let reference: Reference = reference.strip_prefix("seccomp:").unwrap().parse().unwrap();
            LabelKey::of_profile(&reference).as_str().replace(".pavise.dev/", ":")
        })
        .collect();
    let why = why_in(&cluster(), &waiting(&references, &labels.join(" "))).unwrap();
    assert!(why.note.len() <= LONGEST_NOTE && why.note.ends_with(CORRECT), "{}", why.note);
}
