//! Pods, Nodes and bundles in, verdicts out.

use super::*;
use crate::bundle::{Bundle, Source};
use crate::name::Namespace;
use crate::platform::Platform;
use crate::pod::Container;
use crate::verdicts::Verdicts;

/// A Node by its name and labels: `n1 pool=a`. What is no pair is a label of ours: `n1 seccomp:web_a
/// bundle:web`.
pub(super) fn node(text: &str) -> Node {
    let mut words = text.split(' ');
    let name = words.next().unwrap().to_owned();
    let label = |word: &str| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (word.replace(':', ".pavise.dev/"), LABEL_VALUE.to_owned()),
    };
    Node::new(name, words.map(label).collect())
}

const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
const BAD: &str = r#"{"defaultAction":"SCMP_ACT_LGO"}"#;

/// A bundle in the namespace `ns`, of texts by their keys.
fn bundle(kind: &str, name: &str, data: &[(&str, &str)]) -> Source {
    Source { kind: kind.to_owned(), ..Source::example(name, data) }
}

fn with_selector(source: Source, selector: &str) -> Source {
    let annotations = [("pavise.dev/node-selector".to_owned(), selector.to_owned())].into();
    Source { annotations, ..source }
}

/// What is on three nodes: `n1` and `n2` have the seccomp profile `web/a`, `n2` and `n3` the AppArmor profile
/// `p`, and all of them all of the bundle `whole`.
pub(super) fn cluster() -> Cluster {
    let sources = [
        bundle("seccomp", "web", &[("a", GOOD), ("b", GOOD), ("c", BAD)]),
        with_selector(bundle("seccomp", "elsewhere", &[("a", GOOD)]), "pool=none"),
        with_selector(bundle("seccomp", "nobody", &[("a", GOOD)]), "pool in none"),
        bundle("seccomp", "whole", &[("a", GOOD), ("audit.json", GOOD)]),
        bundle("secomp", "misspelt", &[("a", GOOD)]),
        bundle("apparmor", "single", &[("p", "profile p {\n}\n"), ("r", "profile r {\n}\n")]),
        bundle("apparmor", "policies", &[("q", "profile deny-write {\n}\n")]),
        bundle("apparmor", "flawed", &[("x", "profile /x {\n}\n")]),
    ];
    let mut verdicts = Verdicts::new(Platform::EXAMPLE);
    let bundles = sources.into_iter().map(|source| Bundle::of(source, &mut verdicts)).collect();
    let namespace = |name: &str| Namespace::new(name).unwrap();
    let refused = Err("configmaps is forbidden".to_owned());
    let read = [(namespace("ns"), Ok(bundles)), (namespace("closed"), refused)].into();
    Cluster {
        nodes: vec![
            node("n1 pool=a seccomp:web_a bundle:whole bundle:policies"),
            node("n2 pool=a seccomp:web_a apparmor:p bundle:whole closed.bundle:secret"),
            node("n3 pool=b apparmor:p bundle:whole"),
        ],
        bundles: Bundles { home: namespace("ns"), read },
    }
}

/// A pod with a container for each of these, as `seccomp:web/a` or `apparmor:p`.
pub(super) fn pod(references: &[&str]) -> Pod {
    let container = |(index, text): (usize, &&str)| {
        let (kind, reference) = text.split_once(':').unwrap();
        let (localhost, nothing) = (Asked::Localhost(reference.to_owned()), Asked::Nothing);
        let is_seccomp = kind == "seccomp";
        let (seccomp, apparmor) = if is_seccomp { (localhost, nothing) } else { (nothing, localhost) };
        Container {
            name: format!("c{index}"),
            kind: ContainerKind::Regular,
            is_privileged: false,
            seccomp,
            apparmor,
            running: None,
        }
    };
    Pod { containers: references.iter().enumerate().map(container).collect(), ..Pod::default() }
}

/// A pod that can be on the nodes with these labels only.
pub(super) fn on(labels: &str) -> Constraints {
    let Node { ours, others: mut labels, .. } = node(&format!("x {labels}"));
    labels.extend((*ours).clone());
    serde_json::from_value(serde_json::json!({"nodeSelector": labels})).unwrap()
}

fn anywhere() -> Constraints {
    Constraints::default()
}

/// Claims what comes of one reference: the verdict, the nodes that have it, why others do not, and what was
/// meant.
fn check_one(reference: &str, constraints: &Constraints, verdict: Verdict, on: &str, why: &str, meant: &str) {
    let cluster = cluster();
    let placement = cluster.place(&pod(&[reference]), constraints);
    let [found] = &placement.references[..] else { panic!("not one reference: {placement:?}") };
    assert_eq!((found.verdict, found.on.join(" ").as_str()), (verdict, on), "{reference}: {found:?}");
    assert_eq!((found.why.as_str(), found.meant.as_deref().unwrap_or_default()), (why, meant), "{reference}");
    assert_eq!(found.on.len() + found.not_on.len(), placement.candidates);
    assert_eq!(placement.is_fine(), verdict == Verdict::Resolved);
}

#[test]
fn a_reference_resolves_where_a_label_says_so() {
    let pool = |name: &str| on(&format!("pool={name}"));
    check_one("seccomp:web/a", &pool("a"), Verdict::Resolved, "n1 n2", "", "");
    check_one("seccomp:./web//a", &pool("a"), Verdict::Resolved, "n1 n2", "", "");
    check_one("apparmor:p", &pool("b"), Verdict::Resolved, "n3", "", "");
    check_one("seccomp:web/a", &on("seccomp:web_a"), Verdict::Resolved, "n1 n2", "", "");
    check_one(
        "seccomp:web/a",
        &anywhere(),
        Verdict::Partly,
        "n1 n2",
        "ns/web has it, and it is not loaded there: see what `kubectl get npr` says of the node's agent",
        "",
    );
}

#[test]
fn the_label_of_a_bundle_speaks_for_all_that_the_bundle_has() {
    check_one("seccomp:whole/a", &anywhere(), Verdict::Resolved, "n1 n2 n3", "", "");
    check_one("apparmor:deny-write", &on("bundle:policies"), Verdict::Resolved, "n1", "", "");
    check_one(
        "seccomp:whole/c",
        &anywhere(),
        Verdict::Missing,
        "",
        "the bundle ns/whole has no key c",
        "whole/a",
    );
}

#[test]
fn what_is_on_no_node_is_missing_for_a_reason() {
    for (reference, why, meant) in [
        (
            "seccomp:web/b",
            "ns/web has it, and it is not loaded there: see what `kubectl get npr` says of the node's agent",
            "",
        ),
        ("seccomp:elsewhere/a", "its bundle ns/elsewhere is for other nodes (pavise.dev/node-selector)", ""),
        (
            "seccomp:nobody/a",
            "the annotation pavise.dev/node-selector of its bundle ns/nobody can't be read",
            "",
        ),
        ("seccomp:whole/adit.json", "the bundle ns/whole has no key adit.json", "whole/audit.json"),
        ("seccomp:profiles/audit.json", "there is no bundle ns/profiles", "whole/audit.json"),
        (
            "seccomp:audit.json",
            "no bundle can have it: \"audit.json\" is neither <bundle>/<key> nor _<namespace>/<bundle>/<key>",
            "whole/audit.json",
        ),
        ("seccomp:policies/p", "the bundle ns/policies holds AppArmor texts", ""),
        ("seccomp:_ns/web/a", "bundles of ns are referred to without their namespace", "web/a"),
        ("seccomp:_other/web/a", "the namespace other is not among --bundle-namespace", "web/a"),
        ("seccomp:_closed/web/a", "the bundles of closed are not known: configmaps is forbidden", "web/a"),
        ("seccomp:/web/a", "it is no path below the kubelet's seccomp directory", "web/a"),
        ("seccomp:", "it names no profile", ""),
        (
            "apparmor:/usr/bin/x",
            "no bundle can have it: it starts with /, so it would attach to the program of that path",
            "",
        ),
    ] {
        check_one(reference, &on("pool=b"), Verdict::Missing, "", why, meant);
    }
    let refused =
        "ns/web has it, and it is refused: error[unknown-action] line 1, column 18, $.defaultAction: ";
    let cluster = cluster();
    let placement = cluster.place(&pod(&["seccomp:web/c"]), &anywhere());
    assert!(placement.references[0].why.starts_with(refused), "{placement:?}");
    let misspelt = "the bundle ns/misspelt has a problem: error[unknown-kind] ";
    let placement = cluster.place(&pod(&["seccomp:misspelt/a"]), &anywhere());
    assert!(placement.references[0].why.starts_with(misspelt), "{placement:?}");
}

#[test]
fn an_apparmor_profile_that_no_accepted_text_declares_may_be_in_one_that_was_not_read() {
    let why = "no bundle declares it, unless a text that is refused does, in ns/flawed; \
               the bundles of closed are not known: configmaps is forbidden";
    check_one("apparmor:deny-wrte", &on("pool=b"), Verdict::Missing, "", why, "deny-write");
    check_one(
        "apparmor:r",
        &on("pool=b"),
        Verdict::Missing,
        "",
        "ns/single declares it, and it is not loaded there: the node may lack AppArmor, or an agent",
        "",
    );
}

#[test]
fn what_a_bundle_that_was_not_read_may_have_is_not_known() {
    let why = "the bundles of closed are not known: configmaps is forbidden; n2 may have it with a bundle that has \
               no labels for its profiles";
    check_one("seccomp:_closed/secret/a", &anywhere(), Verdict::Unknown, "", why, "");
    check_one(
        "seccomp:_closed/other/a",
        &anywhere(),
        Verdict::Missing,
        "",
        "the bundles of closed are not known: configmaps is forbidden",
        "",
    );
    let why = "no bundle declares it, unless a text that is refused does, in ns/flawed; the bundles of closed are not \
               known: configmaps is forbidden; n2 may have it with a bundle that has no labels for its profiles";
    check_one("apparmor:zzz", &anywhere(), Verdict::Unknown, "", why, "");
    check_one(
        "apparmor:p",
        &anywhere(),
        Verdict::Partly,
        "n2 n3",
        "ns/single declares it, and it is not loaded there: the node may lack AppArmor, or an agent",
        "",
    );
}

#[test]
fn a_pod_that_can_not_be_where_its_profile_is_is_told_so() {
    check_one(
        "apparmor:p",
        &on("pool=a bundle:policies"),
        Verdict::Missing,
        "",
        "ns/single declares it, and it is not loaded there: the node may lack AppArmor, or an agent; it is where the pod can't be: n2, n3",
        "",
    );
    let nowhere =
        "the pod can be on no node, by its nodeSelector and affinity; it is where the pod can't be: n2, n3";
    check_one("apparmor:p", &on("pool=c"), Verdict::Missing, "", nowhere, "");
    let nowhere = "the pod can be on no node, by its nodeSelector and affinity; the bundle ns/whole has no key adit.json";
    check_one(
        "seccomp:whole/adit.json",
        &on("seccomp:whole_adit.json"),
        Verdict::Missing,
        "",
        nowhere,
        "whole/audit.json",
    );
    let named = serde_json::from_value(serde_json::json!({"nodeName": "n9"})).unwrap();
    check_one(
        "seccomp:whole/b",
        &named,
        Verdict::Missing,
        "",
        "there is no node n9; the bundle ns/whole has no key b",
        "whole/a",
    );
}

/// Claims which labels a pod with these references has to select on, and the nodes that it can then be on.
fn check_selector(references: &[&str], constraints: &Constraints, selector: &str, together: &str) {
    let cluster = cluster();
    let placement = cluster.place(&pod(references), constraints);
    let labels: Vec<&str> = placement.selector.iter().map(LabelKey::as_str).collect();
    assert_eq!(
        (labels.join(" ").as_str(), placement.together.join(" ").as_str()),
        (selector, together),
        "{references:?}"
    );
    assert_eq!(placement.is_torn(), together.is_empty() && !placement.is_fine(), "{references:?}");
}

#[test]
fn what_resolves_on_some_nodes_needs_a_node_selector() {
    let (a, p) = ("seccomp.pavise.dev/web_a", "apparmor.pavise.dev/p");
    check_selector(&["seccomp:web/a"], &anywhere(), a, "n1 n2");
    check_selector(&["seccomp:web/a", "apparmor:p"], &anywhere(), &format!("{p} {a}"), "n2");
    check_selector(&["seccomp:web/a", "seccomp:web/a", "seccomp:whole/a"], &anywhere(), a, "n1 n2");
    check_selector(&["seccomp:web/a", "apparmor:p"], &on("pool=a"), p, "n2");
    check_selector(&["seccomp:web/a", "seccomp:web/zzz"], &anywhere(), a, "n1 n2");
    check_selector(&["apparmor:deny-write"], &anywhere(), "bundle.pavise.dev/policies", "n1");
    check_selector(&["seccomp:whole/a"], &anywhere(), "", "n1 n2 n3");
}

#[test]
fn references_that_no_node_has_together_get_no_selector() {
    check_selector(&["apparmor:deny-write", "apparmor:p"], &anywhere(), "", "");
}

#[test]
fn a_privileged_container_s_seccomp_profile_does_not_matter_and_its_apparmor_profile_does() {
    let cluster = cluster();
    let mut pod = pod(&["seccomp:zzz", "apparmor:p"]);
    for container in &mut pod.containers {
        container.is_privileged = true;
    }
    let placement = cluster.place(&pod, &on("pool=b"));
    let verdicts: Vec<Verdict> = placement.references.iter().map(|one| one.verdict).collect();
    assert_eq!(verdicts, [Verdict::Ignored, Verdict::Resolved]);
    assert!(placement.is_fine() && !placement.is_torn());
}

#[test]
fn what_nobody_looked_at_is_not_fine() {
    let cluster = cluster();
    let mut strange = pod(&["seccomp:web/a"]);
    strange.containers[0].seccomp = Asked::Unknown("OCI".to_owned());
    let placement = cluster.place(&strange, &anywhere());
    assert_eq!((placement.references[0].verdict, placement.is_fine()), (Verdict::Unknown, false));
    assert_eq!(placement.references[0].reference, "OCI");
    let many = Pod { unchecked: 1, ..Pod::default() };
    assert!(!cluster.place(&many, &anywhere()).is_fine());
    assert!(cluster.place(&Pod::default(), &anywhere()).is_fine());
}

#[test]
fn a_long_list_of_nodes_is_cut() {
    assert_eq!(listed([]), "");
    assert_eq!(listed(["a", "b", "c", "d", "e"]), "a, b, c, d, e");
    assert_eq!(listed(["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
}
