//! `pavise check` answers what is true, with no more rights than it needs.

use std::process::Output;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::node::Kind;
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::{bundle, confined_pod};
use testbed::{HOST_NODE, command};

use crate::Test;
use crate::steps::{ALLOW, PATIENCE, SOON, apply, make_namespace, wait_for_labels};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("check_tells_where_references_resolve_and_a_selector_that_it_names_helps", check_tells_where),
    ("check_tells_which_pods_of_a_namespace_are_on_a_wrong_node", check_tells_which_pods),
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
