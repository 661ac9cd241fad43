//! What each level says of each pod, and of which pods it says nothing.

use std::collections::BTreeMap;

use serde_json::{Value, from_value, json};

use super::judge::{Subject, Violation};
use super::scope::{Exemption, Judgement, Mode, SYSTEM};
use super::*;
use crate::catalog::object::ProfileCatalog;
use crate::pod::{Limits, Pod};

/// One in which bundles declare `web/a.json` and `deny-write`, and the administrator some.
fn catalog() -> ProfileCatalog {
    from_value(json!({
        "spec": {
            "defaults": {"enforce": "confined", "warn": "localhost"},
            "exemptions": {"namespaces": ["kube-system"], "runtimeClasses": ["kata"], "usernames": ["u"]},
            "alsoKnown": {"seccomp": ["operator/*"], "appArmor": ["os-*"]},
        },
        "status": {
            "seccomp": {"web/a.json": "seccomp.pavise.dev/web_a.json"},
            "appArmor": {"deny-write": "apparmor.pavise.dev/deny-write"},
        },
    }))
    .unwrap()
}

fn pod(annotations: &Value, spec: &Value) -> Pod {
    let annotations: BTreeMap<String, String> = from_value(annotations.clone()).unwrap();
    Pod::within(Limits::NONE, &annotations, &from_value(spec.clone()).unwrap(), None)
}

/// A profile, by a word: its type, or `=` and a reference.
fn profile(word: &str) -> Value {
    match word.strip_prefix('=') {
        _ if word.is_empty() => Value::Null,
        Some(reference) => json!({"type": "Localhost", "localhostProfile": reference}),
        None => json!({"type": word}),
    }
}

/// A security context, by words for its seccomp and AppArmor profiles. `!` in front: it is privileged.
fn context(words: &str) -> Value {
    let (privileged, words) = words.strip_prefix('!').map_or((None, words), |rest| (Some(true), rest));
    let (seccomp, apparmor) = words.split_once(' ').unwrap_or((words, ""));
    json!({"privileged": privileged, "seccompProfile": profile(seccomp), "appArmorProfile": profile(apparmor)})
}

fn container(words: &str) -> Value {
    json!({"name": "c", "securityContext": context(words)})
}

fn problems(level: Level, pod: &Pod) -> Vec<String> {
    level.violation(pod, &catalog()).map(|violation| violation.problems).unwrap_or_default()
}

/// Claims what is wrong with a pod with this context, of which one container has that, for each level.
fn check(of_pod: &str, of_container: &str, known: &[&str], confined: &[&str], localhost: &[&str]) {
    for (list, who) in [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ] {
        let spec = json!({"securityContext": context(of_pod), list: [container(of_container)]});
        let pod = pod(&json!({}), &spec);
        let levels = [
            (Level::Unrestricted, &[][..]),
            (Level::Known, known),
            (Level::Confined, confined),
            (Level::Localhost, localhost),
        ];
        for (level, expected) in levels {
            let expected: Vec<String> = expected.iter().map(|what| format!("{who} c: {what}")).collect();
            assert_eq!(problems(level, &pod), expected, "{level}: {spec}");
        }
    }
}

const NOT_SET: &str = "seccompProfile.type is not set";
const DEFAULT: &str = "seccompProfile.type is RuntimeDefault";
const UNCONFINED: &str = "seccompProfile.type is Unconfined";
const WITHOUT: &str = "appArmorProfile.type is Unconfined";
const PRIVILEGED: &str = "securityContext.privileged is true";

#[test]
fn confined_is_a_container_with_a_seccomp_profile() {
    check("", "", &[], &[NOT_SET], &[NOT_SET]);
    check("", "Unconfined", &[], &[UNCONFINED], &[UNCONFINED]);
    check("", "RuntimeDefault", &[], &[], &[DEFAULT]);
    check("", "=web/a.json", &[], &[], &[]);
    let odd = "seccompProfile.type is LocalHost";
    check("", "LocalHost", &[], &[odd], &[odd]);
}

#[test]
fn what_a_container_says_goes_before_what_its_pod_says() {
    check("RuntimeDefault", "", &[], &[], &[DEFAULT]);
    check("=web/a.json", "", &[], &[], &[]);
    check("=web/a.json", "Unconfined", &[], &[UNCONFINED], &[UNCONFINED]);
    check("Unconfined Unconfined", "=web/a.json =deny-write", &[], &[], &[]);
    check("Unconfined", "RuntimeDefault", &[], &[], &[DEFAULT]);
    check("=web/a.json Unconfined", "", &[], &[WITHOUT], &[WITHOUT]);
    check("=web/a.json RuntimeDefault", " Unconfined", &[], &[WITHOUT], &[WITHOUT]);
}

#[test]
fn a_type_that_is_missing_is_not_set() {
    let spec = json!({"containers": [{"name": "c", "securityContext": {"seccompProfile": {}}}]});
    assert_eq!(problems(Level::Confined, &pod(&json!({}), &spec)), [format!("container c: {NOT_SET}")]);
}

#[test]
fn apparmor_may_be_unset_and_not_unconfined() {
    check("", "=web/a.json Unconfined", &[], &[WITHOUT], &[WITHOUT]);
    check("", "=web/a.json RuntimeDefault", &[], &[], &[]);
    check("", "=web/a.json =deny-write", &[], &[], &[]);
}

#[test]
fn a_privileged_container_is_not_confined() {
    check("", "!RuntimeDefault", &[], &[PRIVILEGED], &[PRIVILEGED, DEFAULT]);
    check("", "!=web/a.json", &[], &[PRIVILEGED], &[PRIVILEGED]);
    let all = &[PRIVILEGED, UNCONFINED, WITHOUT];
    check("", "!Unconfined Unconfined", &[], all, all);
}

#[test]
fn known_is_what_bundles_declare_and_what_the_administrator_says() {
    let gone = "seccompProfile.localhostProfile web/gone.json is in no bundle";
    check("", "=web/gone.json", &[gone], &[], &[gone]);
    let policy = "appArmorProfile.localhostProfile gone is in no bundle";
    check("", "RuntimeDefault =gone", &[policy], &[], &[DEFAULT, policy]);
    check("=web/gone.json =gone", "", &[gone, policy], &[], &[gone, policy]);
    check("=web/gone.json =gone", "=web/a.json =deny-write", &[], &[], &[]);
    check("", "=./web//a.json =localhost/deny-write", &[], &[], &[]);
    check("", "=operator/ns/x =os-x", &[], &[], &[]);
    let nowhere = "seccompProfile.localhostProfile ../web/a.json is in no bundle";
    check("", "=../web/a.json", &[nowhere], &[], &[nowhere]);
    check("", "!=web/gone.json", &[gone], &[PRIVILEGED], &[PRIVILEGED, gone]);
}

#[test]
fn a_reference_is_shown_as_the_pod_has_it_and_cut() {
    let shown = |reference: &str, expected: &str| {
        let expected = format!("appArmorProfile.localhostProfile {expected} is in no bundle");
        check("", &format!("=web/a.json ={reference}"), &[&expected], &[], &[&expected]);
    };
    shown("localhost/gone", "gone");
    shown("localhost/localhost/gone", "localhost/gone");
    shown(&"ü".repeat(100), &"ü".repeat(100));
    shown(&"ü".repeat(101), &format!("{}…", "ü".repeat(100)));
    let path = format!("seccompProfile.localhostProfile {}… is in no bundle", "x".repeat(100));
    check("", &format!("={}", "x".repeat(5_000)), &[&path], &[], &[&path]);
}

#[test]
fn an_annotation_stands_for_the_field_of_a_container() {
    let of = |value: &str, field: &str| {
        let annotations = json!({"container.apparmor.security.beta.kubernetes.io/c": value});
        let spec =
            json!({"securityContext": context("=web/a.json Unconfined"), "containers": [container(field)]});
        problems(Level::Localhost, &pod(&annotations, &spec))
    };
    assert_eq!(of("unconfined", ""), [format!("container c: {WITHOUT}")]);
    assert_eq!(of("unconfined", " RuntimeDefault"), [""; 0]);
    assert_eq!(of("runtime/default", ""), [""; 0]);
    assert_eq!(of("localhost/deny-write", ""), [""; 0]);
    let gone = "container c: appArmorProfile.localhostProfile gone is in no bundle";
    assert_eq!(of("localhost/gone", ""), [gone]);
}

/// Claims what is said of a pod with so many containers without a seccomp profile.
fn check_many(count: usize, expected_end: &str) {
    let names = |n: usize| json!({"name": format!("c{n}")});
    let spec = json!({"containers": (0..count).map(names).collect::<Vec<_>>()});
    let violation = Level::Confined.violation(&pod(&json!({}), &spec), &catalog()).unwrap();
    assert_eq!(violation.problems.len(), count);
    let told: Vec<String> = (0..count.min(8)).map(|n| format!("container c{n}: {NOT_SET}")).collect();
    let told = told.join("; ");
    assert_eq!(violation.message(Subject::Pod), format!("violates \"confined\": {told}{expected_end}"));
    let would = format!("would violate \"confined\": {told}{expected_end}");
    assert_eq!(violation.message(Subject::Template), would);
}

#[test]
fn eight_problems_are_told_and_all_are_counted() {
    check_many(1, "");
    check_many(8, "");
    check_many(9, " and 1 more");
    check_many(200, " and 192 more");
    check_many(1_000, " and 992 more");
}

#[test]
fn containers_are_told_in_the_order_of_their_lists() {
    let of = |name: &str| json!({"name": name});
    let sidecar = json!({"name": "s", "restartPolicy": "Always"});
    let spec = json!({
        "ephemeralContainers": [of("e")],
        "containers": [of("b"), of("a")],
        "initContainers": [of("i"), sidecar],
    });
    let who = ["init container i", "init container s", "container b", "container a", "ephemeral container e"];
    let expected = who.map(|who| format!("{who}: {NOT_SET}"));
    assert_eq!(problems(Level::Confined, &pod(&json!({}), &spec)), expected);
}

#[test]
fn without_a_catalog_confined_is_judged_all_the_same() {
    let spec = json!({"containers": [container("=x/y =z")]});
    let pod = pod(&json!({}), &spec);
    assert_eq!(Level::Confined.violation(&pod, &ProfileCatalog::default()), None);
    let known = Level::Known.violation(&pod, &ProfileCatalog::default()).unwrap();
    assert_eq!(known.problems.len(), 2);
}

#[test]
fn what_is_exempt_is_not_judged_whatever_it_asks_for() {
    let namespace = |name: &str| Some(Exemption::Namespace(name.to_owned()));
    let class = Some(Exemption::RuntimeClass("kata".to_owned()));
    for (of_namespace, spec, expected) in [
        ("shop", json!({}), None),
        ("", json!({"os": null, "runtimeClassName": ""}), None),
        ("u", json!({"runtimeClassName": "gvisor", "os": {"name": "linux"}}), None),
        ("shop", json!({"runtimeClassName": "kube-system"}), None),
        ("kube-system", json!({}), namespace("kube-system")),
        (SYSTEM, json!({}), namespace(SYSTEM)),
        ("kube-system", json!({"runtimeClassName": "kata"}), namespace("kube-system")),
        ("shop", json!({"runtimeClassName": "kata"}), class),
        ("shop", json!({"os": {"name": "windows"}}), Some(Exemption::Windows)),
    ] {
        let mut spec = spec;
        spec["containers"] = json!([container("!Unconfined")]);
        let pod = pod(&json!({}), &spec);
        let judged = Judgement::of(&pod, of_namespace, Ok(Level::Confined), &catalog());
        let exemption = match judged {
            Judgement::Exempt(exemption) => Some(exemption),
            Judgement::Below(Violation { level: Level::Confined, .. }) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(exemption, expected, "{of_namespace} {spec}");
    }
}

#[test]
fn a_namespace_has_the_level_of_its_label_or_else_the_default() {
    let defaults = catalog().spec.defaults;
    let labels = |label: &str, value: &str| BTreeMap::from([(label.to_owned(), value.to_owned())]);
    let none = BTreeMap::new();
    assert_eq!(Mode::Enforce.level(&none, &defaults), Ok(Level::Confined));
    assert_eq!(Mode::Warn.level(&none, &defaults), Ok(Level::Localhost));
    assert_eq!(Mode::Audit.level(&none, &defaults), Ok(Level::Unrestricted));
    for mode in [Mode::Enforce, Mode::Warn, Mode::Audit] {
        for level in Level::ALL {
            assert_eq!(mode.level(&labels(mode.label(), level.as_str()), &defaults), Ok(level));
        }
    }
    assert_eq!(Mode::Enforce.level(&labels("pavise.dev/warn", "known"), &defaults), Ok(Level::Confined));
}

#[test]
fn a_label_that_is_no_level_is_a_problem_itself() {
    for (mode, value, expected) in [
        (Mode::Enforce, "confned", "\"confned\", the value of pavise.dev/enforce, is no level"),
        (Mode::Warn, "", "\"\", the value of pavise.dev/warn, is no level"),
        (Mode::Audit, "Known", "\"Known\", the value of pavise.dev/audit, is no level"),
    ] {
        let labels = BTreeMap::from([(mode.label().to_owned(), value.to_owned())]);
        let level = mode.level(&labels, &catalog().spec.defaults);
        let judged = Judgement::of(&Pod::default(), "shop", level.clone(), &catalog());
        let expected = format!("{expected}: there are unrestricted, known, confined and localhost");
        assert_eq!(judged.message(Subject::Template), Some(expected));
        let exempt = Judgement::of(&Pod::default(), "kube-system", level, &catalog());
        assert!(matches!(exempt, Judgement::Exempt(_)), "{exempt:?}");
    }
}
