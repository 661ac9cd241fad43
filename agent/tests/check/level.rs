//! `pavise check --level`: which pods would be refused, by what the API server has.

use std::path::Path;

use serde_json::{Value, json};

use super::{api_server, check, check_alone, failure};

const CATALOG: &str = "/apis/pavise.dev/v1alpha1/profilecatalogs/pavise";
const PODS: &str = "/api/v1/pods";
const NAMESPACES: &str = "/api/v1/namespaces";

/// A security context with a seccomp profile: a type, or a reference.
fn seccomp(profile: &str) -> Value {
    match profile {
        "" => json!({}),
        reference if reference.contains('/') => {
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": reference}})
        }
        kind => json!({"seccompProfile": {"type": kind}}),
    }
}

/// A pod `<namespace>/<name>` with this seccomp profile.
fn pod(path: &str, profile: &str) -> Value {
    let (namespace, name) = path.split_once('/').unwrap();
    let containers = json!([{"name": "app", "securityContext": seccomp(profile)}]);
    json!({
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"containers": containers},
        "status": {"phase": "Running"},
    })
}

fn owned(mut pod: Value, kind: &str, name: &str) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true});
    pod["metadata"]["ownerReferences"] = json!([owner]);
    pod
}

fn with(mut pod: Value, field: &str, value: Value) -> Value {
    pod["spec"][field] = value;
    pod
}

fn ended(mut pod: Value) -> Value {
    pod["status"]["phase"] = json!("Succeeded");
    pod
}

fn deployment(namespace: Option<&str>, profile: &str) -> Value {
    let spec = json!({"containers": [{"name": "app", "securityContext": seccomp(profile)}]});
    json!({
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"template": {"spec": spec}},
    })
}

fn catalog() -> Value {
    json!({
        "apiVersion": "pavise.dev/v1alpha1",
        "kind": "ProfileCatalog",
        "metadata": {"name": "pavise"},
        "spec": {"exemptions": {"namespaces": ["kube-system"], "runtimeClasses": ["kata"]}},
        "status": {"seccomp": {"web/a.json": "seccomp.pavise.dev/web_a.json"}},
    })
}

/// What is in the cluster: pods of all kinds, and three namespaces with labels.
fn objects(catalog: Value) -> Vec<(&'static str, Value)> {
    let replicas = (0..3).map(|n| owned(pod(&format!("shop/web-{n}"), ""), "ReplicaSet", "web-5d4f8"));
    let mut debugged = owned(pod("shop/web-3", ""), "ReplicaSet", "web-5d4f8");
    debugged["spec"]["ephemeralContainers"] =
        json!([{"name": "debug", "securityContext": {"privileged": true}}]);
    let mut pods: Vec<Value> = replicas.collect();
    pods.extend([
        debugged,
        pod("shop/bare", "Unconfined"),
        pod("shop/fine", "web/a.json"),
        pod("shop/gone", "web/gone.json"),
        ended(pod("shop/old", "")),
        owned(pod("kube-system/static", ""), "Node", "n1"),
        pod("kube-system/dns", ""),
        pod("pavise-system/agent", ""),
        with(pod("shop/boxed", ""), "runtimeClassName", json!("kata")),
        with(pod("shop/pane", ""), "os", json!({"name": "windows"})),
        owned(pod("lab/static", ""), "Node", "n1"),
    ]);
    let namespace = |name: &str, level: &str| json!({"metadata": {"name": name, "labels": {"pavise.dev/enforce": level}}});
    let namespaces = json!([namespace("shop", "known"), namespace("lab", "confned"), {"metadata": {"name": "kube-system"}}]);
    vec![(PODS, json!(pods)), (NAMESPACES, namespaces), (CATALOG, catalog)]
}

/// Claims what is printed where the API server has [`objects`], how it ends, and how standard error begins.
fn check_with(catalog: Value, arguments: &[&str], text: &str, code: i32, expected: &str, said: &str) {
    let (_directory, kubeconfig) = api_server(objects(catalog));
    let (ended, out, error) = check(&kubeconfig, arguments, text);
    assert_eq!((ended, out.as_str()), (Some(code), expected), "{error}");
    assert!(error.starts_with(said) && error.is_empty() == said.is_empty(), "{error}");
}

const EXEMPT: &str = "5 are exempt: in the namespaces kube-system (2), pavise-system (1); with the runtime classes \
                      kata (1); for Windows (1)\n";

#[test]
fn pods_of_the_cluster_are_told_by_what_makes_them_and_why_they_would_be_refused() {
    let expected = format!(
        "replicaset/web-5d4f8 (namespace shop): 3 pods
  violates \"confined\": container app: seccompProfile.type is not set
replicaset/web-5d4f8 (namespace shop): 1 pod
  violates \"confined\": container app: seccompProfile.type is not set; ephemeral container debug: \
securityContext.privileged is true; ephemeral container debug: seccompProfile.type is not set
pod/bare (namespace shop)
  violates \"confined\": container app: seccompProfile.type is Unconfined
pod/static (namespace lab)
  violates \"confined\": container app: seccompProfile.type is not set
6 of 8 pods would be refused
{EXEMPT}"
    );
    check_with(catalog(), &["-A", "--level", "confined"], "", 1, &expected, "");
}

#[test]
fn what_no_bundle_declares_is_told() {
    let expected = format!(
        "pod/gone (namespace shop)
  violates \"known\": container app: seccompProfile.localhostProfile web/gone.json is in no bundle
1 of 8 pods would be refused
{EXEMPT}"
    );
    check_with(catalog(), &["-A", "--level", "known"], "", 1, &expected, "");
}

#[test]
fn each_namespace_is_judged_by_what_it_enforces() {
    let expected = format!(
        "pod/gone (namespace shop)
  violates \"known\": container app: seccompProfile.localhostProfile web/gone.json is in no bundle
pod/static (namespace lab)
  \"confned\", the value of pavise.dev/enforce, is no level: there are unrestricted, known, confined and localhost
2 of 8 pods would be refused
{EXEMPT}"
    );
    check_with(catalog(), &["-A", "--level", "enforced"], "", 1, &expected, "");
    let of_default = deployment(Some("new"), "web/gone.json").to_string();
    let expected =
        "0 of 1 workload would be warned of, and its pods refused\n1 is in namespaces that demand nothing\n";
    check_with(catalog(), &["-f", "-", "--level", "enforced"], &of_default, 0, expected, "");
}

#[test]
fn manifests_are_judged_and_what_makes_pods_is_told_apart_from_pods() {
    let text = format!(
        "{}\n---\n{}\n---\nkind: Service\n",
        deployment(None, "RuntimeDefault"),
        pod("shop/p", "web/a.json")
    );
    let expected = "<stdin>:1: deployment/web
  would violate \"localhost\": container app: seccompProfile.type is RuntimeDefault
0 of 1 pod would be refused; 1 of 1 workload would be warned of, and its pods refused (1 of other kinds)
";
    check_with(catalog(), &["-f", "-", "--level", "localhost"], &text, 1, expected, "");
    let fine = "0 of 1 workload would be warned of, and its pods refused\n";
    check_with(
        catalog(),
        &["-f", "-", "--level", "confined"],
        &deployment(None, "RuntimeDefault").to_string(),
        0,
        fine,
        "",
    );
    let exempt = "0 of 0 pods would be refused\n1 is exempt: in the namespaces kube-system (1)\n";
    check_with(
        catalog(),
        &["-f", "-", "--level", "confined"],
        &deployment(Some("kube-system"), "").to_string(),
        0,
        exempt,
        "",
    );
}

#[test]
fn all_containers_of_a_large_pod_are_judged() {
    let mut pod = pod("shop/large", "RuntimeDefault");
    let mut containers: Vec<Value> = (0..999)
        .map(|n| json!({"name": format!("c{n}"), "securityContext": seccomp("RuntimeDefault")}))
        .collect();
    containers.push(json!({"name": "last"}));
    pod["spec"]["containers"] = json!(containers);
    let expected = "<stdin>:1: pod/large (namespace shop)
  violates \"confined\": container last: seccompProfile.type is not set
1 of 1 pod would be refused
";
    check_with(catalog(), &["-f", "-", "--level", "confined"], &pod.to_string(), 1, expected, "");
}

#[test]
fn a_script_gets_all_of_it_as_json() {
    let (_directory, kubeconfig) = api_server(objects(catalog()));
    let (code, out, _) = check(&kubeconfig, &["-A", "--level", "confined", "-o", "json"], "");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["pods"]), (Some(1), &json!({"judged": 8, "below": 6})));
    let expected = json!({
        "place": null,
        "kind": "ReplicaSet",
        "namespace": "shop",
        "name": "web-5d4f8",
        "pods": 3,
        "level": "confined",
        "message": "violates \"confined\": container app: seccompProfile.type is not set",
        "problems": ["container app: seccompProfile.type is not set"],
    });
    assert_eq!(answer["violations"][0], expected);
    let exempt = json!([
        {"namespace": "kube-system", "count": 2},
        {"namespace": "pavise-system", "count": 1},
        {"runtimeClass": "kata", "count": 1},
        {"os": "windows", "count": 1},
    ]);
    assert_eq!(answer["exempt"], exempt);
}

#[test]
fn without_a_catalog_confined_is_answered_and_nothing_is_guessed() {
    let none = || failure(404, "not found");
    let text = deployment(Some("kube-system"), "web/a.json").to_string();
    let expected = "0 of 1 workload would be warned of, and its pods refused\n";
    let said =
        "pavise: there is no ProfileCatalog pavise: nothing is exempt but the namespace pavise-system\n";
    check_with(none(), &["-f", "-", "--level", "confined"], &text, 0, expected, said);
    for level in ["known", "localhost", "enforced"] {
        let said = "pavise: reading what bundles declare: there is no ProfileCatalog pavise; ";
        check_with(none(), &["-f", "-", "--level", level], &text, 1, "", said);
    }
    let mut unwritten = catalog();
    unwritten.as_object_mut().unwrap().remove("status");
    let text = deployment(Some("shop"), "web/a.json").to_string();
    let said = "pavise: reading what bundles declare: `pavise catalog` has not written it";
    check_with(unwritten.clone(), &["-f", "-", "--level", "known"], &text, 1, "", said);
    check_with(unwritten, &["-f", "-", "--level", "confined"], &text, 0, expected, "");
    let said = "pavise: asking the API server to get profilecatalogs: not for you (403); let this user";
    check_with(failure(403, "not for you"), &["-f", "-", "--level", "confined"], &text, 1, "", said);
}

#[test]
fn what_is_not_taken_into_account_is_said() {
    let mut catalog = catalog();
    catalog["spec"]["exemptions"]["usernames"] = json!(["system:serviceaccount:ci:deployer"]);
    catalog["status"]["totals"] = json!({"omitted": 12});
    let (_directory, kubeconfig) = api_server(objects(catalog));
    let text = deployment(None, "web/a.json").to_string();
    let (code, _, error) = check(&kubeconfig, &["-f", "-", "--level", "known"], &text);
    let expected = "pavise: the exemptions of 1 user name are not applied: who will make a pod is not known here\n\
                    pavise: the ProfileCatalog pavise has no room for 12 references: they count as unknown\n";
    assert_eq!((code, error.as_str()), (Some(0), expected));
}

#[test]
fn a_level_that_is_none_is_exit_code_two() {
    check_alone(&["-A", "--level", "strict"], "", 2, "known, confined, localhost, enforced");
    let (code, _, error) = check(Path::new("/nowhere"), &["--level", "known"], "");
    assert!(code == Some(2) && error.contains("required arguments were not provided"), "{error}");
}
