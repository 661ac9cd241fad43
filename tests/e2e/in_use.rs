//! What pods use stays where it is, label and profile, whatever becomes of its bundle, the agent and the
//! kubelet; and goes after them. And the report that says so.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::bundle;
use testbed::{GUEST_NODE, HOST_NODE};

use crate::Test;
use crate::said::{Finding, Kind, delete_pods, expect_said, expect_said_to_be_right, report, sleeping_pod};
use crate::steps::{
    ALLOW, LOG, PATIENCE, apply, container, file, labels, wait_for_file, wait_for_labels, wait_until_running,
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_label_that_a_pod_selects_on_stays_until_the_pod_goes", a_selected_label_stays),
    ("a_file_that_a_pod_refers_to_stays_until_the_pod_goes", a_used_file_stays),
    ("every_node_has_a_report_that_says_what_it_is", every_node_has_a_report),
];

/// Longer than the removal delay of this cluster and the turn of the loop after it.
const LONG_AFTER: Duration = Duration::from_secs(6);

fn delete_bundle(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "configmap", name, "-n", PROFILES]).map(drop)
}

/// Waits until the report says of a profile that it stays, and for whom.
fn expect_retained(cluster: &Cluster, reference: &str, pod: &str) -> anyhow::Result<()> {
    wait_for(&format!("the report to say that {reference} stays for {pod}"), PATIENCE, || {
        let report = report(cluster, HOST_NODE)?;
        let retained = report["status"]["retained"].as_array().into_iter().flatten();
        let mut said = retained.map(Value::to_string);
        Ok(said.any(|entry| entry.contains(reference) && entry.contains(pod)).then_some(()))
    })
}

fn wait_until_gone(cluster: &Cluster, reference: &str) -> anyhow::Result<()> {
    wait_for_file(cluster, reference, None)?;
    let label = label(reference);
    wait_for(&format!("the label {label} to go"), PATIENCE, || {
        Ok(labels(cluster)?.get(&label).is_none().then_some(()))
    })
}

fn label(reference: &str) -> String {
    format!("seccomp.pavise.dev/{}", reference.replace('/', "_"))
}

/// A DaemonSet with one pod, on the node that has this label.
fn daemon_set(name: &str, label: &str) -> Value {
    let mut template = sleeping_pod(name, HOST_NODE);
    template["spec"]["nodeSelector"][label] = json!("true");
    let labels = json!({"example.com/name": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        },
    })
}

/// The pod of that DaemonSet, when it runs.
fn pod_of(cluster: &Cluster, daemon_set: &str) -> anyhow::Result<Option<Value>> {
    let selector = format!("--selector=example.com/name={daemon_set}");
    let mut pods = cluster.kubectl().get(&["pods", &selector])?;
    Ok(Some(pods["items"][0].take()).filter(|pod| pod["status"]["phase"] == "Running"))
}

fn a_selected_label_stays(cluster: &Cluster) -> anyhow::Result<()> {
    let reference = "selected-in-use/a.json";
    let label = label(reference);
    apply(cluster, &bundle("selected-in-use", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &[&label])?;
    // It selects on the label alone, and refers to nothing: the file stays for the label's sake.
    let mut selecting = sleeping_pod("selecting-in-use", HOST_NODE);
    selecting["spec"]["nodeSelector"][&label] = json!("true");
    apply(cluster, &selecting)?;
    apply(cluster, &daemon_set("daemon-in-use", &label))?;
    wait_until_running(cluster, "selecting-in-use")?;
    let daemon = wait_for("the DaemonSet's pod", PATIENCE, || pod_of(cluster, "daemon-in-use"))?;

    let expect_unharmed = |after: &str| {
        let pod = cluster.kubectl().get(&["pod", "selecting-in-use"])?;
        ensure!(pod["status"]["phase"] == "Running", "{after}, the pod is {}", pod["status"]);
        let now = pod_of(cluster, "daemon-in-use")?.with_context(|| format!("{after}, it has no pod"))?;
        ensure!(now["metadata"]["uid"] == daemon["metadata"]["uid"], "{after}, it has another pod");
        ensure!(labels(cluster)?[&label] == "true", "{after}, the label is gone");
        ensure!(file(cluster, reference).exists(), "{after}, the file is gone");
        anyhow::Ok(())
    };
    delete_bundle(cluster, "selected-in-use")?;
    expect_retained(cluster, reference, "default/selecting-in-use")?;
    std::thread::sleep(LONG_AFTER);
    expect_unharmed("long after the bundle went")?;

    replace_the_agent(cluster)?;
    std::thread::sleep(LONG_AFTER);
    expect_unharmed("with another agent")?;

    // A kubelet that starts admits anew what runs on its node (pkg/kubelet/lifecycle/predicate.go).
    let kubelet = format!("kubelet-{HOST_NODE}");
    cluster.stop(&kubelet)?;
    cluster.resume(&kubelet)?;
    apply(cluster, &sleeping_pod("after-the-kubelet", HOST_NODE))?;
    wait_until_running(cluster, "after-the-kubelet")?;
    expect_unharmed("with another kubelet")?;

    delete_pods(cluster, &["selecting-in-use", "after-the-kubelet"])?;
    std::thread::sleep(LONG_AFTER);
    ensure!(labels(cluster)?[&label] == "true", "the DaemonSet's pod lost its label");
    let delete = ["delete", "daemonset", "daemon-in-use", "--cascade=foreground", "--wait"];
    cluster.kubectl().run(&delete)?;
    wait_until_gone(cluster, reference)
}

/// As an upgrade does: the pod goes, and its DaemonSet makes another.
fn replace_the_agent(cluster: &Cluster) -> anyhow::Result<()> {
    let before = pavise::agent_pod(cluster, HOST_NODE)?;
    let name = before["metadata"]["name"].as_str().context("the agent's pod has no name")?;
    cluster.kubectl().run(&["delete", "pod", name, "-n", SYSTEM])?;
    wait_for("another agent to be ready", PATIENCE, || {
        // Between the two, there is none.
        let Ok(pod) = pavise::agent_pod(cluster, HOST_NODE) else { return Ok(None) };
        let mut states = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let is_ready = states.any(|state| state["name"] == "agent" && state["ready"] == true);
        Ok((is_ready && pod["metadata"]["uid"] != before["metadata"]["uid"]).then_some(()))
    })
}

fn a_used_file_stays(cluster: &Cluster) -> anyhow::Result<()> {
    let reference = "referred-to/a.json";
    apply(cluster, &bundle("referred-to", &[("a.json", ALLOW), ("unused.json", ALLOW)]))?;
    wait_for_file(cluster, reference, Some(ALLOW))?;
    let mut referring = sleeping_pod("referring", HOST_NODE);
    referring["spec"]["securityContext"] = Kind::Seccomp.context(reference);
    // The first process of a container takes no signal from within that it has no trap for.
    referring["spec"]["containers"][0]["command"] =
        json!(["sh", "-c", "trap 'exit 1' TERM; while true; do sleep 1; done"]);
    apply(cluster, &referring)?;
    wait_until_running(cluster, "referring")?;
    delete_bundle(cluster, "referred-to")?;
    expect_retained(cluster, reference, "default/referring")?;
    wait_for_file(cluster, "referred-to/unused.json", None)?;
    std::thread::sleep(LONG_AFTER);
    ensure!(file(cluster, reference).exists(), "the file went before the pod");

    // What its container needs to be started anew is there.
    cluster.kubectl().run(&["exec", "referring", "--", "kill", "1"])?;
    wait_for("the container to be started anew", PATIENCE, || {
        let container = container(cluster, "referring")?;
        let is_anew =
            container["restartCount"].as_u64() > Some(0) && container["state"]["running"].is_object();
        Ok(is_anew.then_some(()))
    })?;

    // Nobody knows any more what it is to be put back to.
    fs::write(file(cluster, reference), LOG)?;
    let finding = Finding::of_main("referring", Kind::Seccomp, reference, "ProfileChanged");
    expect_said(cluster, HOST_NODE, PATIENCE, &[finding])?;
    fs::write(file(cluster, reference), ALLOW)?;
    expect_said_to_be_right(cluster, PATIENCE, "referring")?;
    delete_pods(cluster, &["referring"])?;
    wait_until_gone(cluster, reference)?;
    wait_for("the report to forget it", PATIENCE, || {
        let retained = report(cluster, HOST_NODE)?["status"]["retained"].to_string();
        Ok((!retained.contains(reference)).then_some(()))
    })
}

fn every_node_has_a_report(cluster: &Cluster) -> anyhow::Result<()> {
    for (node, apparmor) in [(GUEST_NODE, "Enabled"), (HOST_NODE, "Disabled")] {
        let said = wait_for(&format!("the report of {node}"), PATIENCE, || {
            let report = cluster.kubectl().get(&["npr", node])?;
            Ok(Some(report["status"]["node"]["appArmor"].clone()).filter(Value::is_string))
        })?;
        ensure!(said == apparmor, "the AppArmor of {node} is {said}");
        let report = report(cluster, node)?;
        let object = cluster.kubectl().get(&["node", node])?;
        let owner = &report["metadata"]["ownerReferences"][0];
        ensure!(owner["uid"] == object["metadata"]["uid"], "it does not belong to its Node: {owner}");
    }
    let table = cluster.kubectl().run(&["get", "npr"])?;
    let head = table.lines().next().unwrap_or_default();
    ensure!(head.split_whitespace().count() > 2, "kubectl shows next to nothing: {table}");
    for node in [GUEST_NODE, HOST_NODE] {
        ensure!(table.lines().any(|line| line.starts_with(node)), "kubectl shows no {node}: {table}");
    }
    Ok(())
}
