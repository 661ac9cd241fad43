//! What tests do with the cluster and look at, said once. Where no node is named, the host's is meant.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, SYSTEM};

pub(crate) const ALLOW: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
pub(crate) const LOG: &str = r#"{"defaultAction": "SCMP_ACT_LOG"}"#;

/// Longer than the kubelet waits before it tries a container again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How long what takes milliseconds may take: machines that run tests are slow now and then. It is too short for the
/// `ProfileCatalog` and for reports: after ten changes, Pavise writes each of them once in ten seconds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn apply(cluster: &Cluster, manifest: &Value) -> anyhow::Result<()> {
    cluster.kubectl().apply(&manifest.to_string()).map(drop)
}

/// Makes a namespace that pods can be made in: the API server refuses them until the controller manager has
/// made its ServiceAccount `default`.
pub(crate) fn make_namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["create", "namespace", name])?;
    wait_for(&format!("the ServiceAccount default of the namespace {name}"), SOON, || {
        let account = cluster.kubectl().get(&["serviceaccount", "default", "-n", name])?;
        Ok(account.is_object().then_some(()))
    })
}

pub(crate) fn container(cluster: &Cluster, pod: &str) -> anyhow::Result<Value> {
    // A pod that was made just now has none.
    Ok(cluster.kubectl().get(&["pod", pod])?["status"]["containerStatuses"][0].clone())
}

pub(crate) fn wait_until_running(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    wait_for(&format!("{pod} to run"), PATIENCE, || {
        Ok(container(cluster, pod)?["state"]["running"].is_object().then_some(()))
    })
}

/// Where the profile that pods call `reference` is, seen from this machine.
pub(crate) fn file(cluster: &Cluster, reference: &str) -> PathBuf {
    cluster.layout().node(HOST_NODE).kubelet_root().join("seccomp").join(reference)
}

pub(crate) fn wait_for_file(cluster: &Cluster, reference: &str, content: Option<&str>) -> anyhow::Result<()> {
    let path = file(cluster, reference);
    let right = || Ok((fs::read_to_string(&path).ok().as_deref() == content).then_some(()));
    wait_for(&format!("{} to hold {}", path.display(), content.unwrap_or("nothing")), PATIENCE, right)
}

pub(crate) fn labels(cluster: &Cluster) -> anyhow::Result<Value> {
    Ok(cluster.kubectl().get(&["node", HOST_NODE])?["metadata"]["labels"].take())
}

pub(crate) fn wait_for_labels(cluster: &Cluster, expected: &[&str]) -> anyhow::Result<()> {
    wait_for(&format!("the labels {}", expected.join(", ")), PATIENCE, || {
        let labels = labels(cluster)?;
        Ok(expected.iter().all(|label| labels[*label] == "true").then_some(()))
    })
}

/// When the agent last wrote labels: the entry of its field manager.
pub(crate) fn written_labels(cluster: &Cluster) -> anyhow::Result<Value> {
    let node = cluster.kubectl().get(&["node", HOST_NODE, "--show-managed-fields"])?;
    let mut managers = node["metadata"]["managedFields"].as_array().into_iter().flatten();
    managers.find(|manager| manager["manager"] == "pavise").cloned().context("the agent never wrote a label")
}

/// What the agent on the host's node has said since its container was started.
pub(crate) fn agent_log(cluster: &Cluster) -> anyhow::Result<String> {
    let pod = pavise::agent_pod(cluster, HOST_NODE)?;
    let name = pod["metadata"]["name"].as_str().context("the agent's pod has no name")?;
    cluster.kubectl().run(&["logs", "-n", SYSTEM, name, "--tail=-1"])
}

/// Waits until a line of the agent's log has all these words.
pub(crate) fn expect_log(cluster: &Cluster, words: &[&str]) -> anyhow::Result<()> {
    wait_for(&format!("the agent to say {}", words.join(" … ")), PATIENCE, || {
        let log = agent_log(cluster)?;
        Ok(log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
    })
}

/// Claims that the first process of `pod` is under a filter.
pub(crate) fn expect_filter(cluster: &Cluster, namespace: &str, pod: &str) -> anyhow::Result<()> {
    let status = ["exec", "-n", namespace, pod, "--", "grep", "Seccomp:", "/proc/1/status"];
    let mode = cluster.kubectl().run(&status)?;
    ensure!(mode.trim().ends_with('2'), "no filter is in force in {pod}: {mode}");
    Ok(())
}

/// Claims that `attempt` was refused, in words with `refusal` in them.
pub(crate) fn expect_refusal(
    attempt: &str,
    outcome: anyhow::Result<String>,
    refusal: &str,
) -> anyhow::Result<()> {
    match outcome {
        Ok(printed) => bail!("{attempt} was allowed: {printed}"),
        Err(error) => {
            let error = format!("{error:#}");
            ensure!(error.contains(refusal), "{attempt} was refused, but not with {refusal:?}: {error}");
            Ok(())
        }
    }
}
