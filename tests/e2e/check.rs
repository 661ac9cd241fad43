//! `pavise check` answers what is true, with no more rights than it needs.

use std::process::Output;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::node::Kind;
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::{bundle, confined_pod};
use testbed::{HOST_NODE, command};

use crate::Test;
use crate::steps::{ALLOW, PATIENCE, SOON, apply, make_namespace, wait_for_labels};

/// What the test of levels makes.
const LEVEL_READER: &str = "pavise-check-level";
const LEVELED: &str = "leveled";
const EXEMPT: &str = "leveled-exempt";

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("check_tells_where_references_resolve_and_a_selector_that_it_names_helps", check_tells_where),
    ("check_tells_which_pods_of_a_namespace_are_on_a_wrong_node", check_tells_which_pods),
    ("check_tells_which_pods_a_level_would_refuse", check_tells_which_pods_a_level_would_refuse),
];

/// Runs `pavise check -o json` in the agent's container on the host's node, by the agent's identity, which
/// may read Nodes, pods and bundles: what it answers, and its exit code.
fn check(cluster: &Cluster, arguments: &[&str], manifests: &str) -> anyhow::Result<(Value, Option<i32>)> {
    let pod = pavise::agent_pod(cluster, HOST_NODE)?;
    let name = pod["metadata"]["name"].as_str().context("the agent's pod has no name")?;
    let exec =
        ["exec", "-i", "-n", SYSTEM, name, "-c", "agent", "--", "/usr/bin/pavise", "check", "-o", "json"];
    let mut exec = cluster.kubectl().command(&[&exec[..], arguments].concat());
    let Output { status, stdout, stderr } = command::finish(&mut exec, manifests.as_bytes())?;
    let said = String::from_utf8_lossy(&stderr).into_owned();
    let answer =
        serde_json::from_slice(&stdout).context(said).context("reading the answer of pavise check")?;
    Ok((answer, status.code()))
}

/// An AppArmor profile, which nodes without AppArmor never have.
fn policy(name: &str) -> Value {
    let text = format!("profile {name} flags=(attach_disconnected) {{\n  file,\n}}\n");
    let mut bundle = bundle(name, &[("text", &text)]);
    bundle["metadata"]["labels"]["pavise.dev/profiles"] = json!("apparmor");
    bundle
}

fn referring_to(name: &str, reference: &str) -> Value {
    let mut pod = confined_pod(name, reference);
    let profile = json!({"type": "Localhost", "localhostProfile": "check-policy"});
    pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"] = profile;
    pod["spec"].as_object_mut().map(|spec| spec.remove("nodeSelector"));
    pod
}

fn wait_for_policy(cluster: &Cluster) -> anyhow::Result<()> {
    let guest = ["node", Kind::Guest.node_name()];
    wait_for("the label of check-policy", PATIENCE, || {
        let node = cluster.kubectl().get(&guest)?;
        Ok((node["metadata"]["labels"]["apparmor.pavise.dev/check-policy"] == "true").then_some(()))
    })
}

fn check_tells_where(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("check", &[("audit.json", ALLOW)]))?;
    apply(cluster, &policy("check-policy"))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/check_audit.json"])?;
    wait_for_policy(cluster)?;

    let ask = |pod: &Value| check(cluster, &["-f", "-"], &pod.to_string());
    let mut pod = referring_to("checked", "check/audit.json");
    let (answer, code) = wait_for("the seccomp profile to be on all nodes", SOON, || {
        let (answer, code) = ask(&pod)?;
        Ok((answer["references"]["resolved"] == 1).then_some((answer, code)))
    })?;
    let guest = Kind::Guest.node_name();
    let workload = &answer["workloads"][0];
    ensure!(code == Some(1) && answer["references"]["partly"] == 1, "{code:?} {answer:#}");
    ensure!(workload["nodesWithAll"] == json!([guest]), "{answer:#}");
    ensure!(workload["nodeSelector"] == json!({"apparmor.pavise.dev/check-policy": "true"}), "{answer:#}");

    pod["spec"]["nodeSelector"] = workload["nodeSelector"].clone();
    let (answer, code) = ask(&pod)?;
    ensure!(code == Some(0) && answer["references"]["resolved"] == 2, "{code:?} {answer:#}");

    let (answer, code) = ask(&referring_to("misspelt", "check/adit.json"))?;
    let reference = &answer["workloads"][0]["references"][0];
    ensure!(code == Some(1) && reference["verdict"] == "missing", "{code:?} {answer:#}");
    ensure!(reference["didYouMean"] == "check/audit.json", "{answer:#}");
    ensure!(reference["why"] == format!("the bundle {PROFILES}/check has no key adit.json"), "{answer:#}");
    Ok(())
}

fn check_tells_which_pods(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("check", &[("audit.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/check_audit.json"])?;
    make_namespace(cluster, "checked")?;
    for (name, reference) in [("good", "check/audit.json"), ("bad", "check/gone.json")] {
        let mut pod = confined_pod(name, reference);
        pod["metadata"]["namespace"] = json!("checked");
        apply(cluster, &pod)?;
    }
    let (answer, code) = wait_for("both pods to be on a node", SOON, || {
        let (answer, code) = check(cluster, &["--namespace", "checked"], "")?;
        let workloads = answer["workloads"].as_array().cloned().unwrap_or_default();
        let is_placed = |workload: &Value| workload["candidates"] == 1;
        Ok((workloads.len() == 2 && workloads.iter().all(is_placed)).then_some((answer, code)))
    })?;
    let verdict_of = |name: &str| {
        let mut workloads = answer["workloads"].as_array().into_iter().flatten();
        let workload = workloads.find(|workload| workload["name"] == name)?;
        workload["references"][0]["verdict"].as_str()
    };
    ensure!(code == Some(1), "{code:?} {answer:#}");
    ensure!((verdict_of("good"), verdict_of("bad")) == (Some("resolved"), Some("missing")), "{answer:#}");
    cluster.kubectl().run(&["delete", "namespace", "checked", "--wait=false"]).map(drop)
}

/// Lets the agent read what levels are decided by, which it has no use for itself.
fn level_reader() -> Value {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let role = json!({
        "apiVersion": version,
        "kind": "ClusterRole",
        "metadata": {"name": LEVEL_READER},
        "rules": [
            {"apiGroups": ["pavise.dev"], "resources": ["profilecatalogs"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list"]},
        ],
    });
    let binding = json!({
        "apiVersion": version,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": LEVEL_READER},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": LEVEL_READER},
        "subjects": [{"kind": "ServiceAccount", "namespace": SYSTEM, "name": "pavise-agent"}],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]})
}

/// Two pods of one owner whose container says nothing of seccomp.
fn unset(name: &str, namespace: &str) -> Value {
    let mut template = confined_pod(name, "");
    template["metadata"] = json!({"labels": {"app": name}});
    template["spec"].as_object_mut().map(|spec| spec.remove("securityContext"));
    template["spec"]["restartPolicy"] = json!("Always");
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    })
}

fn check_tells_which_pods_a_level_would_refuse(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &level_reader())?;
    apply(cluster, &bundle("check", &[("audit.json", ALLOW)]))?;
    make_namespace(cluster, LEVELED)?;
    cluster.kubectl().run(&["label", "namespace", LEVELED, "pavise.dev/enforce=known"])?;

    let ask = |level: &str, pod: &Value| {
        let mut pod = pod.clone();
        pod["metadata"]["namespace"] = json!(LEVELED);
        check(cluster, &["-f", "-", "--level", level], &pod.to_string())
    };
    wait_for("the catalog to declare check/audit.json, and the agent to be let read it", PATIENCE, || {
        let asked = ask("known", &confined_pod("known", "check/audit.json"));
        Ok(asked.ok().filter(|(_, code)| *code == Some(0)))
    })?;
    let gone =
        "violates \"known\": container main: seccompProfile.localhostProfile check/gone.json is in no bundle";
    for level in ["known", "enforced"] {
        let (answer, code) = ask(level, &confined_pod("unknown", "check/gone.json"))?;
        ensure!(code == Some(1) && answer["violations"][0]["message"] == gone, "{code:?} {answer:#}");
    }

    apply(cluster, &unset("unset", LEVELED))?;
    let of_namespace = |level: &str| check(cluster, &["--namespace", LEVELED, "--level", level], "");
    let (answer, code) = wait_for("both pods to be made", SOON, || {
        let (answer, code) = of_namespace("confined")?;
        Ok((answer["pods"]["judged"] == 2).then_some((answer, code)))
    })?;
    let entries = answer["violations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [entry] = entries else { bail!("not one entry: {answer:#}") };
    let message = "violates \"confined\": container main: seccompProfile.type is not set";
    ensure!(code == Some(1) && entry["message"] == message, "{code:?} {answer:#}");
    ensure!((&entry["kind"], &entry["pods"]) == (&json!("ReplicaSet"), &json!(2)), "{answer:#}");
    let (answer, code) = of_namespace("enforced")?;
    ensure!(code == Some(0) && answer["pods"]["below"] == 0, "{code:?} {answer:#}");

    make_namespace(cluster, EXEMPT)?;
    apply(cluster, &unset("unset", EXEMPT))?;
    let say = |spec: &Value| {
        let patch = json!({"spec": spec}).to_string();
        cluster.kubectl().run(&["patch", "profilecatalog", "pavise", "--type=merge", "-p", &patch])
    };
    say(&json!({"exemptions": {"namespaces": [EXEMPT]}}))?;
    let outcome = check_tells_what_is_exempt(cluster);
    say(&Value::Null)?;

    cluster.kubectl().run(&["delete", "clusterrolebinding,clusterrole", LEVEL_READER])?;
    cluster.kubectl().run(&["delete", "namespace", LEVELED, EXEMPT, "--wait=false"])?;
    outcome
}

/// Claims that of all namespaces, those that are exempt are counted, and what is below the level elsewhere is named.
fn check_tells_what_is_exempt(cluster: &Cluster) -> anyhow::Result<()> {
    let ask = || check(cluster, &["--all-namespaces", "--level", "confined"], "");
    let exempt = |answer: &Value, namespace: &str| {
        let mut all = answer["exempt"].as_array().into_iter().flatten();
        all.find(|one| one["namespace"] == namespace).and_then(|one| one["count"].as_u64())
    };
    let (answer, code) = wait_for("both exempt pods to be made", SOON, || {
        let (answer, code) = ask()?;
        Ok((exempt(&answer, EXEMPT) == Some(2)).then_some((answer, code)))
    })?;
    let told = |namespace: &str| {
        let all = answer["violations"].as_array().into_iter().flatten();
        all.filter(|one| one["namespace"] == namespace).map(|one| one["name"].clone()).collect::<Vec<_>>()
    };
    ensure!(code == Some(1) && told(LEVELED) == ["unset"], "{code:?} {answer:#}");
    ensure!(told(EXEMPT).is_empty() && told(SYSTEM).is_empty(), "{answer:#}");
    // Two agents and the catalog.
    ensure!(exempt(&answer, SYSTEM) >= Some(3), "{answer:#}");
    Ok(())
}
