//! What is read from a pod, field by field.

use serde_json::{Value, from_value, json};

use super::*;
use crate::bundle::Kind;

fn pod(annotations: &Value, spec: &Value, status: &Value) -> Pod {
    let status: Option<Status> = from_value(status.clone()).unwrap();
    Pod::of(&from_value(annotations.clone()).unwrap(), &from_value(spec.clone()).unwrap(), status.as_ref())
}

/// As a test writes what a container asks for.
fn word(asked: &Asked) -> String {
    match asked {
        Asked::Nothing => "nothing".to_owned(),
        Asked::RuntimeDefault => "default".to_owned(),
        Asked::Unconfined => "unconfined".to_owned(),
        Asked::Localhost(reference) => format!("={reference}"),
        Asked::Unknown(kind) => format!("?{kind}"),
    }
}

fn apparmor(name: &str) -> Value {
    json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": name}})
}

/// A security context with profiles of this type, of both kinds.
fn of_type(kind: &str) -> Value {
    json!({"appArmorProfile": {"type": kind}, "seccompProfile": {"type": kind}})
}

/// Claims which AppArmor profile a container asks for, by what it, the annotation for it, and the pod say.
fn check_apparmor(container: &Value, annotation: Option<&str>, of_pod: &Value, expected: &str) {
    let annotations = match annotation {
        Some(text) => {
            json!({format!("{ANNOTATION}c"): text, format!("{ANNOTATION}other"): "localhost/x"})
        }
        None => json!({}),
    };
    let spec =
        json!({"securityContext": of_pod, "containers": [{"name": "c", "securityContext": container}]});
    let pod = pod(&annotations, &spec, &Value::Null);
    assert_eq!(word(&pod.containers[0].apparmor), expected, "{annotations} {spec}");
}

/// The same of its seccomp profile, by what it and the pod say.
fn check_seccomp(container: &Value, of_pod: &Value, expected: &str) {
    let of = |profile: &Value| json!({"seccompProfile": profile});
    let spec = json!({
        "securityContext": of(of_pod),
        "containers": [{"name": "c", "securityContext": of(container)}],
    });
    let annotations = json!({
        "seccomp.security.alpha.kubernetes.io/pod": "localhost/x",
        "container.seccomp.security.alpha.kubernetes.io/c": "localhost/y",
    });
    let pod = pod(&annotations, &spec, &Value::Null);
    assert_eq!(word(&pod.containers[0].seccomp), expected, "{spec}");
}

#[test]
fn of_apparmor_the_container_s_field_goes_before_the_annotation_and_that_before_the_pod_s_field() {
    let none = Value::Null;
    let (of_container, of_pod) = (apparmor("container"), apparmor("pod"));
    check_apparmor(&of_container, Some("localhost/annotation"), &of_pod, "=container");
    check_apparmor(&none, Some("localhost/annotation"), &of_pod, "=annotation");
    check_apparmor(&json!({"appArmorProfile": null}), None, &of_pod, "=pod");
    check_apparmor(&json!({"runAsUser": 0}), None, &of_pod, "=pod");
    check_apparmor(&of_container, None, &none, "=container");
    check_apparmor(&none, None, &json!({}), "nothing");
    check_apparmor(&none, None, &none, "nothing");
}

#[test]
fn of_seccomp_the_container_s_field_goes_before_the_pod_s_and_annotations_mean_nothing() {
    let localhost = |path: &str| json!({"type": "Localhost", "localhostProfile": path});
    let none = Value::Null;
    check_seccomp(&localhost("a/b"), &localhost("pod"), "=a/b");
    check_seccomp(&none, &localhost("pod"), "=pod");
    check_seccomp(&json!({"type": "Unconfined"}), &localhost("pod"), "unconfined");
    check_seccomp(&json!({"type": "RuntimeDefault", "localhostProfile": "x"}), &none, "default");
    check_seccomp(&none, &none, "nothing");
    // As the pod says it: what it means is found out later.
    for reference in ["", "/etc/x", "../x", "a//./b", " "] {
        check_seccomp(&localhost(reference), &localhost("pod"), &format!("={reference}"));
    }
    check_seccomp(&json!({"type": "Localhost"}), &localhost("pod"), "=");
    check_seccomp(&json!({"type": "Localhost", "localhostProfile": null}), &none, "=");
}

#[test]
fn what_asks_for_another_kind_of_profile_goes_before_a_reference_too() {
    for (kind, expected) in [
        ("RuntimeDefault", "default"),
        ("Unconfined", "unconfined"),
        ("OCI", "?OCI"),
        ("localhost", "?localhost"),
        ("", "?"),
    ] {
        let of_type = of_type(kind);
        check_apparmor(&of_type, Some("localhost/annotation"), &apparmor("pod"), expected);
        check_seccomp(&of_type["seccompProfile"], &json!({"type": "Localhost"}), expected);
    }
    check_apparmor(&json!({"appArmorProfile": {}}), None, &apparmor("pod"), "?");
    check_apparmor(&json!({"appArmorProfile": {"type": null}}), None, &apparmor("pod"), "?");
    for (text, expected) in [("runtime/default", "default"), ("unconfined", "unconfined")] {
        check_apparmor(&Value::Null, Some(text), &apparmor("pod"), expected);
    }
    let mixed = json!({"appArmorProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}});
    check_apparmor(&mixed, None, &apparmor("pod"), "default");
}

#[test]
fn an_annotation_that_means_nothing_counts_as_none() {
    for text in ["", "docker/default", "Localhost/x", "localhost", "runtime/default "] {
        check_apparmor(&Value::Null, Some(text), &apparmor("pod"), "=pod");
    }
}

#[test]
fn what_can_t_be_the_name_of_a_profile_stays_as_the_pod_says_it() {
    for name in ["", " ", "/usr/bin/x", ":ns:x", "a b", &"n".repeat(4_095)] {
        check_apparmor(&apparmor(name), None, &apparmor("pod"), &format!("={name}"));
        check_apparmor(
            &Value::Null,
            Some(&format!("localhost/{name}")),
            &apparmor("pod"),
            &format!("={name}"),
        );
    }
    check_apparmor(&of_type("Localhost"), None, &apparmor("pod"), "=");
    check_apparmor(&Value::Null, Some("localhost/a/b"), &Value::Null, "=a/b");
}

#[test]
fn what_containerd_drops_of_a_reference_is_no_part_of_it() {
    check_apparmor(&apparmor("localhost/a"), None, &Value::Null, "=a");
    check_apparmor(&Value::Null, Some("localhost/localhost/a"), &Value::Null, "=a");
    check_apparmor(&apparmor("localhost/localhost/a"), None, &Value::Null, "=localhost/a");
    check_apparmor(&apparmor("localhost/"), None, &apparmor("pod"), "=");
    check_apparmor(&apparmor("localhost"), None, &Value::Null, "=localhost");
    let seccomp = json!({"type": "Localhost", "localhostProfile": "localhost/a"});
    check_seccomp(&seccomp, &Value::Null, "=localhost/a");
}

#[test]
fn containers_of_all_kinds_count() {
    let spec = json!({
        "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "pod"}},
        "initContainers": [
            {"name": "i", "restartPolicy": "OnFailure", "securityContext": apparmor("init")},
            {"name": "s", "restartPolicy": "Always", "securityContext": apparmor("sidecar")},
        ],
        "containers": [
            {"name": "c", "restartPolicy": "Always", "securityContext": {"privileged": true}},
            {"name": "annotated", "securityContext": {"privileged": null}},
        ],
        "ephemeralContainers": [{"name": "e", "securityContext": of_type("Unconfined")}],
    });
    let annotations = json!({format!("{ANNOTATION}annotated"): "localhost/annotation"});
    let pod = pod(&annotations, &spec, &Value::Null);
    let shown = pod.containers.iter().map(|one| {
        let privileged = if one.is_privileged { "!" } else { "" };
        let [apparmor, seccomp] = Kind::ALL.map(|kind| word(one.asked(kind)));
        format!("{:?} {}{privileged} {seccomp} {apparmor}", one.kind, one.name)
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            "Init i =pod =init",
            "Sidecar s =pod =sidecar",
            "Regular c! =pod nothing",
            "Regular annotated =pod =annotation",
            "Ephemeral e unconfined unconfined",
        ]
    );
}

#[test]
fn a_container_that_runs_has_the_runtime_s_name() {
    let running = |name: &str, id: &str| json!({"name": name, "containerID": id, "state": {"running": {}}});
    let ended = json!({"name": "d", "containerID": "x://d1", "state": {"terminated": {"exitCode": 0}}});
    let spec = json!({
        "initContainers": [{"name": "s"}],
        "containers": [{"name": "c"}, {"name": "d"}],
        "ephemeralContainers": [{"name": "e"}],
    });
    let status = json!({
        "initContainerStatuses": [running("s", "containerd://s1")],
        "containerStatuses": [running("c", "cri-o://C.0_-1"), ended, running("gone", "x://g1")],
        "ephemeralContainerStatuses": [running("e", "x://e1")],
    });
    let ids = |status: &Value| {
        let pod = pod(&json!({}), &spec, status);
        let id = |one: &Container| one.running.as_ref().map_or("-", |id| id.0.as_str()).to_owned();
        pod.containers.iter().map(id).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(&status), "s1 C.0_-1 - e1");
    let long = format!("x://{}", "a".repeat(129));
    for id in ["", "c1", "x://", "x://a/b", "x://../a", "x://a b", "x://\u{e4}", &long] {
        assert_eq!(ids(&json!({"containerStatuses": [running("c", id)]})), "- - - -", "{id:?}");
    }
    let odd = json!([
        {}, {"name": "c"}, {"name": "c", "containerID": null, "state": {"running": {}}},
        {"name": "c", "containerID": "x://c1"}, {"name": "c", "containerID": "x://c1", "state": null},
        {"name": "c", "containerID": "x://c1", "state": {"running": null}},
    ]);
    assert_eq!(ids(&json!({"containerStatuses": odd, "initContainerStatuses": null})), "- - - -");
}

#[test]
fn the_pod_s_field_counts_only_where_a_container_has_no_other() {
    let other = |name: &str| json!({"name": name, "securityContext": of_type("Unconfined")});
    let check = |containers: Value, expected: &[&str]| {
        let spec = json!({"securityContext": apparmor("pod"), "containers": containers});
        let pod = pod(&json!({}), &spec, &Value::Null);
        let asked: Vec<String> = pod.containers.iter().map(|one| word(&one.apparmor)).collect();
        assert_eq!(asked, expected);
    };
    check(json!([other("a"), other("b")]), &["unconfined", "unconfined"]);
    check(json!([other("a"), {"name": "b"}]), &["unconfined", "=pod"]);
    check(Value::Null, &[]);
}

#[test]
fn a_pod_s_end_and_a_refusal_for_apparmor_are_known_by_its_status() {
    let check = |status: Value, has_ended: bool, is_rejected: bool| {
        let pod = pod(&json!({}), &json!({}), &status);
        assert_eq!((pod.has_ended, pod.is_rejected), (has_ended, is_rejected), "{status}");
    };
    check(json!({"phase": "Succeeded"}), true, false);
    check(json!({"phase": "Failed", "reason": "Evicted"}), true, false);
    check(json!({"phase": "Failed", "reason": null}), true, false);
    check(json!({"phase": "Failed", "reason": "AppArmor"}), true, true);
    check(json!({"phase": "Pending", "reason": "AppArmor"}), false, false);
    for phase in ["Pending", "Running", "Unknown", "FromTheFuture", ""] {
        check(json!({"phase": phase}), false, false);
    }
    for status in [json!({"phase": null}), json!({}), Value::Null] {
        check(status, false, false);
    }
}

#[test]
fn the_labels_that_a_pod_needs_are_those_of_its_selector_and_of_all_terms_of_its_affinity() {
    let check = |spec: Value, expected: &str| {
        let pod = pod(&json!({}), &spec, &Value::Null);
        let labels: Vec<&str> = pod.selects.iter().map(LabelKey::as_str).collect();
        assert_eq!(labels.join(" ").replace(".pavise.dev", ""), expected, "{spec}");
    };
    let term = |key: &str, operator: &str| {
        let key = key.replacen('/', ".pavise.dev/", 1);
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": ["true"]}]})
    };
    let affinity = |terms: Value| {
        let name = "requiredDuringSchedulingIgnoredDuringExecution";
        json!({"affinity": {"nodeAffinity": {name: {"nodeSelectorTerms": terms}}}})
    };
    check(json!({"nodeSelector": {"disk": "ssd", "bundle.pavise.dev/web": "true"}}), "bundle/web");
    check(
        affinity(json!([term("seccomp/a", "In"), term("team.seccomp/b", "Exists")])),
        "seccomp/a team.seccomp/b",
    );
    for operator in ["NotIn", "DoesNotExist", "Gt", "Lt", ""] {
        check(affinity(json!([term("seccomp/a", operator)])), "");
    }
    let mut both = affinity(json!([term("apparmor/a", "In"), term("x/y", "In")]));
    both["nodeSelector"] = json!({"apparmor.pavise.dev/a": null, "apparmor.pavise.dev/b": "false"});
    check(both, "apparmor/a apparmor/b");
    let field = json!({"key": "bundle.pavise.dev/web", "operator": "In", "values": ["n"]});
    check(affinity(json!([{"matchFields": [field]}])), "");
    let preferred = json!([{"weight": 1, "preference": term("seccomp/a", "In")}]);
    let name = "preferredDuringSchedulingIgnoredDuringExecution";
    check(json!({"affinity": {"nodeAffinity": {name: preferred}}}), "");
    for odd in [
        json!({"nodeSelector": null, "affinity": null}),
        json!({"affinity": {"nodeAffinity": null, "podAffinity": 7}}),
        affinity(Value::Null),
        affinity(json!([{}, {"matchExpressions": null}, {"matchExpressions": [{}, {"key": null}]}])),
    ] {
        check(odd, "");
    }
}

#[test]
fn the_runtime_class_is_told() {
    for (spec, expected) in [
        (json!({"runtimeClassName": "kata"}), Some("kata")),
        (json!({"runtimeClassName": ""}), None),
        (json!({"runtimeClassName": null}), None),
    ] {
        assert_eq!(pod(&json!({}), &spec, &Value::Null).runtime_class.as_deref(), expected);
    }
}

#[test]
fn a_pod_takes_little_memory_whatever_its_author_wrote() {
    let of_pod = |spec: Value| {
        let pod = pod(&json!({}), &spec, &Value::Null);
        let size: usize = pod.containers.iter().map(Container::size).sum();
        (pod.containers.len(), pod.unchecked, size)
    };
    let containers = |count: usize, name: &str| -> Value {
        let container = |n: usize| json!({"name": format!("c{n}"), "securityContext": apparmor(name)});
        (0..count).map(container).collect()
    };
    assert_eq!(of_pod(json!({"containers": containers(MOST + 10, "")})).0, MOST);
    assert_eq!(of_pod(json!({"containers": containers(MOST + 10, "")})).1, 10);
    let (checked, unchecked, size) = of_pod(json!({"containers": containers(10, &"n".repeat(5_000))}));
    assert_eq!((checked, unchecked), (3, 7));
    assert!(size <= MOST_BYTES);
    // Those for which there is room are looked at.
    let mut mixed = containers(4, &"n".repeat(5_000));
    mixed.as_array_mut().unwrap().push(json!({"name": "small", "securityContext": apparmor("a")}));
    assert_eq!(of_pod(json!({"containers": mixed})).0, 4);

    let long = "\u{e4}".repeat(5_000);
    check_apparmor(&apparmor(&long), None, &Value::Null, &format!("={}", "\u{e4}".repeat(2_048)));
    check_apparmor(&of_type(&long), None, &Value::Null, &format!("?{}", "\u{e4}".repeat(32)));
    let labels: BTreeMap<String, &str> =
        (0..100).map(|n| (format!("seccomp.pavise.dev/{n}"), "true")).collect();
    let spec = json!({"nodeSelector": labels, "runtimeClassName": long});
    let many = pod(&json!({}), &spec, &Value::Null);
    assert_eq!((many.selects.len(), many.runtime_class.unwrap().len()), (MOST_SELECTED, 252));
    let label = format!("seccomp.pavise.dev/{}", "a".repeat(400));
    assert!(pod(&json!({}), &json!({"nodeSelector": {label: "true"}}), &Value::Null).selects.is_empty());
}

#[test]
fn what_is_odd_is_decoded() {
    let spec = json!({
        "initContainers": null,
        "containers": [{}, {"name": null, "securityContext": null, "restartPolicy": null, "image": 7}],
        "securityContext": {"seccompProfile": {"type": null, "localhostProfile": null, "more": []}},
        "fieldFromTheFuture": {"a": [1]},
    });
    let pod = pod(&json!({}), &spec, &json!({"phase": null, "reason": null, "conditions": "none"}));
    assert_eq!(pod.containers.iter().map(|one| word(&one.seccomp)).collect::<Vec<_>>(), ["?", "?"]);
}

#[test]
fn all_of_a_pod_is_read_if_that_is_asked_for() {
    let long = "r".repeat(4_000);
    let containers: Vec<Value> =
        (0..200).map(|n| json!({"name": format!("c{n}"), "securityContext": apparmor(&long)})).collect();
    let spec: Spec = from_value(json!({"containers": containers})).unwrap();
    let read = |limits| {
        let pod = Pod::within(limits, &BTreeMap::new(), &spec, None);
        (pod.containers.len(), pod.unchecked)
    };
    assert_eq!(read(Limits::NONE), (200, 0));
    assert_eq!(read(Limits::BOUNDED), (4, 196));
}

#[test]
fn a_pod_for_windows_says_so() {
    let is_windows = |os: &Value| pod(&json!({}), &json!({"os": os}), &Value::Null).is_windows;
    assert!(is_windows(&json!({"name": "windows"})));
    for os in [Value::Null, json!({}), json!({"name": null}), json!({"name": "linux"})] {
        assert!(!is_windows(&os), "{os}");
    }
}
