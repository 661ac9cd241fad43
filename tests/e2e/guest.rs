//! The node that is a guest is what it is said to be: a node whose kernel enforces AppArmor, beside one that has
//! none, and both are served.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise;
use testbed::pods::{bundle, confined_pod, on};
use testbed::{GUEST_NODE, HOST_NODE};

use crate::Test;
use crate::apparmor::{PATIENCE, wait_until_running};
use crate::steps::{ALLOW, apply, expect_refusal};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("the_guests_kernel_has_apparmor", the_guests_kernel_has_apparmor),
    ("a_pod_is_confined_by_apparmor_in_the_guest_and_rejected_on_the_host", apparmor_confines_in_the_guest),
    ("the_agent_serves_seccomp_in_the_guest", the_agent_serves_the_guest),
    ("a_command_in_the_guest_tells_how_it_ended", a_command_tells_how_it_ended),
    ("the_guest_obeys_without_an_api_server", the_guest_obeys_without_an_api_server),
];

/// Loaded by hand, as an administrator would.
const PROFILE: &str =
    "profile testbed-deny-write flags=(attach_disconnected) {\n  file,\n  signal,\n  deny /tmp/** w,\n}\n";

fn the_guests_kernel_has_apparmor(cluster: &Cluster) -> anyhow::Result<()> {
    let guest = cluster.guest()?;
    let enabled = guest.run(&["cat", "/sys/module/apparmor/parameters/enabled"])?;
    ensure!(enabled.trim() == "Y", "AppArmor is not enabled: {enabled}");
    let profiles = guest.run(&["cat", "/sys/kernel/security/apparmor/profiles"])?;
    ensure!(
        profiles.contains("cri-containerd.apparmor.d (enforce)"),
        "containerd has loaded none: {profiles}"
    );
    let cgroups = guest.run(&["stat", "--file-system", "--format=%T", "/sys/fs/cgroup"])?;
    ensure!(cgroups.trim() == "cgroup2fs", "the guest's cgroups are {cgroups}");
    let kernel = |node| -> anyhow::Result<Value> {
        Ok(cluster.kubectl().get(&["node", node])?["status"]["nodeInfo"]["kernelVersion"].take())
    };
    ensure!(kernel(GUEST_NODE)? != kernel(HOST_NODE)?, "both nodes have one kernel");
    Ok(())
}

fn apparmor_confines_in_the_guest(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    cluster.guest()?.run_with_input(&["apparmor_parser", "--replace", "--skip-cache"], PROFILE)?;
    for (name, node) in [("under-apparmor", GUEST_NODE), ("without-apparmor", HOST_NODE)] {
        let mut pod = confined_pod(name, "");
        pod["spec"]["nodeSelector"] = on(node);
        pod["spec"]["securityContext"] =
            json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "testbed-deny-write"}});
        apply(cluster, &pod)?;
    }
    wait_until_running(cluster, "under-apparmor")?;
    let in_pod = |words: &[&str]| kubectl.run(&[&["exec", "under-apparmor", "--"], words].concat());
    let current = in_pod(&["cat", "/proc/1/attr/current"])?;
    ensure!(current.trim() == "testbed-deny-write (enforce)", "the pod is confined by {current}");
    expect_refusal("writing", in_pod(&["touch", "/tmp/a"]), "Permission denied")?;
    in_pod(&["touch", "/b"]).context("the profile refuses more than it says")?;

    let status = wait_for("the host's node to reject its pod", PATIENCE, || {
        let status = kubectl.get(&["pod", "without-apparmor"])?["status"].take();
        Ok((status["phase"] == "Failed").then_some(status))
    })?;
    ensure!(status["reason"] == "AppArmor", "it was rejected for another reason: {status}");
    kubectl.run(&["delete", "pod", "under-apparmor", "without-apparmor"])?;
    cluster.guest()?.run_with_input(&["apparmor_parser", "--remove"], PROFILE).map(drop)
}

fn the_agent_serves_the_guest(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("everywhere", &[("a.json", ALLOW)]))?;
    for node in cluster.nodes() {
        wait_for(&format!("{} to be labelled", node.name), PATIENCE, || {
            let labels = cluster.kubectl().get(&["node", &node.name])?["metadata"]["labels"].take();
            Ok((labels["seccomp.pavise.dev/everywhere_a.json"] == "true").then_some(()))
        })?;
        let served = pavise::served(cluster, node, "everywhere/a.json");
        ensure!(served.as_deref() == Some(ALLOW), "{} has {served:?}", node.name);
        let answer = pavise::ask_agent(cluster, &node.name, "/readyz")?;
        ensure!(answer == "ready\n", "the agent of {} says {answer}", node.name);
        ensure!(
            pavise::agent_writes(cluster, &node.name)? > 0,
            "{} was labelled by somebody else",
            node.name
        );
    }

    let mut pod = confined_pod("in-the-guest", "everywhere/a.json");
    pod["spec"]["nodeSelector"] = on(GUEST_NODE);
    apply(cluster, &pod)?;
    wait_until_running(cluster, "in-the-guest")?;
    crate::steps::expect_filter(cluster, "default", "in-the-guest")
}

fn a_command_tells_how_it_ended(cluster: &Cluster) -> anyhow::Result<()> {
    let guest = cluster.guest()?;
    let said = guest.run_with_input(&["sh", "-c", "id -un; cat; echo not here >&2"], "some input")?;
    ensure!(said == "root\nsome input", "it printed {said:?}");
    let failed = guest.run(&["sh", "-c", "echo a reason >&2; exit 3"]);
    expect_refusal("a command that fails", failed, "exit status: 3: a reason")?;
    expect_refusal("a program that is not there", guest.run(&["not-a-program"]), "not-a-program")
}

fn the_guest_obeys_without_an_api_server(cluster: &Cluster) -> anyhow::Result<()> {
    let guest = cluster.guest()?;
    let kubelet = format!("kubelet-{GUEST_NODE}");
    let runs = || guest.run(&["sh", "-c", "pidof kubelet || true"]).map(|pids| !pids.trim().is_empty());
    cluster.stop("kube-apiserver")?;
    let stopped = cluster.stop(&kubelet).and_then(|()| runs());
    cluster.resume("kube-apiserver")?;
    cluster.resume(&kubelet)?;
    ensure!(!stopped?, "the kubelet goes on after it was stopped");
    ensure!(runs()?, "the kubelet was not started again");
    Ok(())
}
