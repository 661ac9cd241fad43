//! What `kubectl get npr` and `kubectl describe npr` say about a node.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::PROFILES;
use testbed::pods::bundle;

use crate::Test;
use crate::steps::{ALLOW, PATIENCE, apply, wait_for_labels};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_node_says_in_columns_what_it_has", a_node_says_in_columns_what_it_has),
    ("a_refused_profile_is_reported_with_since_when_until_it_is_right", a_refused_profile_is_reported),
    ("an_idle_agent_does_not_write_its_report", an_idle_agent_does_not_write_its_report),
];

fn report(cluster: &Cluster) -> anyhow::Result<Value> {
    cluster.kubectl().get(&["nodeprofilereport", HOST_NODE])
}

/// The entries of `problems` that are about `name`.
fn problems(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<Value>> {
    let mut report = report(cluster)?;
    let problems = report["status"]["problems"].take();
    let problems = problems.as_array().cloned().unwrap_or_default();
    Ok(problems.into_iter().filter(|problem| problem["name"] == name).collect())
}

fn a_node_says_in_columns_what_it_has(cluster: &Cluster) -> anyhow::Result<()> {
    wait_for("the report of the node", PATIENCE, || {
        Ok((report(cluster)?["status"]["conditions"][0]["status"] == "True").then_some(()))
    })?;
    let table = cluster.kubectl().run(&["get", "npr", HOST_NODE])?;
    let head = table.lines().next().context("kubectl prints nothing")?;
    let columns: Vec<&str> = head.split_whitespace().collect();
    let expected =
        ["NAME", "READY", "BUNDLES", "PROFILES", "PROBLEMS", "UNRESOLVED", "RETAINED", "APPARMOR", "AGE"];
    ensure!(columns == expected, "kubectl get shows {columns:?}");
    let description = cluster.kubectl().run(&["describe", "npr", HOST_NODE])?;
    for words in ["Kubelet Seccomp Default:", "Type:", "ProfilesLoaded"] {
        ensure!(description.contains(words), "kubectl describe does not say {words}: {description}");
    }
    let node = cluster.kubectl().get(&["node", HOST_NODE])?;
    let owner = &report(cluster)?["metadata"]["ownerReferences"][0]["uid"];
    ensure!(*owner == node["metadata"]["uid"], "the report belongs to {owner}");
    Ok(())
}

fn a_refused_profile_is_reported(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("reported", &[("a.json", "{}"), ("b.json", ALLOW)]))?;
    let name = "reported/a.json";
    let problem = wait_for("the refused profile to be reported", PATIENCE, || {
        Ok(problems(cluster, name)?.into_iter().next())
    })?;
    ensure!(problem["code"] == "missing-default-action", "{problem}");
    ensure!(problem["bundle"] == format!("{PROFILES}/reported"), "{problem}");
    ensure!(problem["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{problem}");
    apply(cluster, &bundle("reported", &[("a.json", ALLOW), ("b.json", ALLOW)]))?;
    wait_for("the problem to be gone", PATIENCE, || Ok(problems(cluster, name)?.is_empty().then_some(())))
}

fn an_idle_agent_does_not_write_its_report(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("idle", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/idle_a.json"])?;
    let version = || Ok::<_, anyhow::Error>(report(cluster)?["metadata"]["resourceVersion"].take());
    // What the tests before left behind may still be going.
    wait_for("ten seconds without a write of the report", Duration::from_mins(1), || {
        let before = version()?;
        thread::sleep(Duration::from_secs(10));
        Ok((version()? == before).then_some(()))
    })
}
