//! From a ConfigMap to a file, a label and a confined pod, and back.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES};
use testbed::pods::{bundle, confined_pod};

use crate::Test;
use crate::steps::{
    ALLOW, LOG, PATIENCE, apply, container, expect_filter, expect_log, expect_refusal, file, labels,
    wait_for_file, wait_for_labels, wait_until_running,
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_pod_created_before_its_profile_starts_when_the_profile_comes", a_pod_waits_for_its_profile),
    ("a_node_selector_on_the_label_schedules", a_node_selector_on_the_label_schedules),
    ("an_edit_binds_the_next_container_and_not_the_running_one", an_edit_binds_the_next_container),
    ("a_removed_profile_loses_its_label_before_its_file", a_removed_profile_loses_its_label_first),
    ("a_bad_new_version_keeps_the_old_one_and_the_rest_is_served", a_bad_new_version_keeps_the_old_one),
    ("a_file_that_was_there_before_is_kept_and_not_labelled", a_foreign_file_is_kept),
    ("a_label_that_somebody_took_away_comes_back", a_label_that_was_taken_away_comes_back),
    ("a_killed_agent_heals_and_rewrites_nothing_that_is_right", a_killed_agent_heals),
];

const REFUSE: &str = r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#;
const NO_MKDIR: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
}"#;

fn a_pod_waits_for_its_profile(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &confined_pod("refused-early", "profiles/violation.json"))?;
    apply(cluster, &confined_pod("logged-early", "profiles/audit.json"))?;
    for pod in ["refused-early", "logged-early"] {
        let why = wait_for(&format!("{pod} to lack its profile"), PATIENCE, || {
            let waiting = container(cluster, pod)?["state"]["waiting"].take();
            Ok((waiting["reason"] == "CreateContainerError").then_some(waiting))
        })?;
        ensure!(
            why["message"].as_str().is_some_and(|why| why.contains("no such file or directory")),
            "{pod} waits for something else: {why}"
        );
    }

    apply(cluster, &bundle("profiles", &[("violation.json", REFUSE), ("audit.json", LOG)]))?;
    wait_until_running(cluster, "logged-early")?;
    // The profile refuses every call: that the container is now started, and fails for it, is what it is to
    // do.
    wait_for("refused-early to be refused its first system call", PATIENCE, || {
        Ok((container(cluster, "refused-early")?["state"]["terminated"]["reason"] == "StartError")
            .then_some(()))
    })?;
    expect_filter(cluster, "default", "logged-early")
}

fn a_node_selector_on_the_label_schedules(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let label = "seccomp.pavise.dev/selected_violation.json";
    let mut pod = confined_pod("selecting", "selected/violation.json");
    pod["spec"]["nodeSelector"] = json!({label: "true"});
    // The claim is about the scheduler: what the profile then does to the pod is another test's.
    pod["spec"]["securityContext"] = json!({});
    apply(cluster, &pod)?;
    let scheduled = || -> anyhow::Result<Value> {
        let pod = kubectl.get(&["pod", "selecting"])?;
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        Ok(conditions.find(|condition| condition["type"] == "PodScheduled").cloned().unwrap_or_default())
    };
    wait_for("the pod to find no node", PATIENCE, || {
        Ok((scheduled()?["reason"] == "Unschedulable").then_some(()))
    })?;

    apply(cluster, &bundle("selected", &[("violation.json", REFUSE)]))?;
    wait_for("the pod to find its node", PATIENCE, || Ok((scheduled()?["status"] == "True").then_some(())))?;
    wait_until_running(cluster, "selecting")
}

fn an_edit_binds_the_next_container(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    apply(cluster, &bundle("edited", &[("p.json", ALLOW)]))?;
    wait_for_file(cluster, "edited/p.json", Some(ALLOW))?;
    apply(cluster, &confined_pod("before-the-edit", "edited/p.json"))?;
    wait_until_running(cluster, "before-the-edit")?;

    apply(cluster, &bundle("edited", &[("p.json", NO_MKDIR)]))?;
    wait_for_file(cluster, "edited/p.json", Some(NO_MKDIR))?;
    apply(cluster, &confined_pod("after-the-edit", "edited/p.json"))?;
    wait_until_running(cluster, "after-the-edit")?;

    kubectl
        .run(&["exec", "before-the-edit", "--", "mkdir", "/tmp/d"])
        .context("the running container changed")?;
    let bound = kubectl.run(&["exec", "after-the-edit", "--", "mkdir", "/tmp/d"]);
    expect_refusal("making a directory in the new container", bound, "Operation not permitted")
}

fn a_removed_profile_loses_its_label_first(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("removed", &[("a.json", ALLOW), ("b.json", LOG)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/removed_a.json", "bundle.pavise.dev/removed"])?;
    cluster.kubectl().run(&["delete", "configmap", "removed", "-n", PROFILES])?;
    wait_for("the file to be removed", PATIENCE, || {
        // In this order: a label that is seen after its file was missed said more than the disk held.
        let missing = !file(cluster, "removed/a.json").exists();
        let labelled = labels(cluster)?.get("seccomp.pavise.dev/removed_a.json").is_some();
        ensure!(!(missing && labelled), "the label outlived the file");
        Ok(missing.then_some(()))
    })?;
    wait_for("all of it to be gone", PATIENCE, || {
        let labels = labels(cluster)?;
        let labelled = labels.as_object().into_iter().flatten().any(|(key, _)| key.contains("/removed"));
        Ok((!labelled && !file(cluster, "removed").exists()).then_some(()))
    })
}

fn a_bad_new_version_keeps_the_old_one(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("refused", &[("a.json", ALLOW), ("b.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/refused_a.json", "bundle.pavise.dev/refused"])?;
    // An empty document would leave the container unconfined; one that is cut off would keep it from
    // starting.
    apply(
        cluster,
        &bundle(
            "refused",
            &[("a.json", "{}"), ("b.json", NO_MKDIR), ("c.json", r#"{"defaultAction": "#), ("d.json", LOG)],
        ),
    )?;
    wait_for_file(cluster, "refused/b.json", Some(NO_MKDIR))?;
    wait_for_file(cluster, "refused/d.json", Some(LOG))?;
    wait_for_file(cluster, "refused/a.json", Some(ALLOW))?;
    wait_for_file(cluster, "refused/c.json", None)?;
    wait_for("the bundle's label to go, as it is no longer whole", PATIENCE, || {
        let labels = labels(cluster)?;
        let kept = labels["seccomp.pavise.dev/refused_a.json"] == "true";
        ensure!(kept, "the label of the version that still stands is gone");
        Ok(labels.get("bundle.pavise.dev/refused").is_none().then_some(()))
    })?;
    expect_log(cluster, &["pavise-profiles/refused", "a.json", "unconfined"])?;
    expect_log(cluster, &["pavise-profiles/refused", "c.json", "line 1"])
}

fn a_foreign_file_is_kept(cluster: &Cluster) -> anyhow::Result<()> {
    let foreign = file(cluster, "foreign/theirs.json");
    fs::create_dir_all(foreign.parent().context("a file has a directory")?)?;
    fs::write(&foreign, LOG)?;
    apply(cluster, &bundle("foreign", &[("theirs.json", ALLOW), ("ours.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/foreign_ours.json"])?;
    ensure!(fs::read_to_string(&foreign)? == LOG, "a file of somebody else was replaced");
    ensure!(
        labels(cluster)?.get("seccomp.pavise.dev/foreign_theirs.json").is_none(),
        "a file that Pavise did not load is labelled"
    );
    expect_log(cluster, &["foreign/theirs.json"])?;

    cluster.kubectl().run(&["delete", "configmap", "foreign", "-n", PROFILES])?;
    wait_for_file(cluster, "foreign/ours.json", None)?;
    ensure!(fs::read_to_string(&foreign)? == LOG, "a file of somebody else was removed");
    Ok(())
}

fn a_label_that_was_taken_away_comes_back(cluster: &Cluster) -> anyhow::Result<()> {
    let label = "seccomp.pavise.dev/relabelled_a.json";
    apply(cluster, &bundle("relabelled", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &[label])?;
    let unfounded = "seccomp.pavise.dev/nowhere_x.json";
    cluster.kubectl().run(&[
        "label",
        "node",
        HOST_NODE,
        &format!("{label}-"),
        &format!("{unfounded}=true"),
    ])?;
    wait_for_labels(cluster, &[label])?;
    wait_for("the unfounded label to go", PATIENCE, || {
        Ok(labels(cluster)?.get(unfounded).is_none().then_some(()))
    })
}

fn a_killed_agent_heals(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("healed", &[("kept.json", ALLOW), ("lost.json", ALLOW), ("edited.json", ALLOW)]))?;
    wait_for_labels(cluster, &["bundle.pavise.dev/healed"])?;
    let kept = fs::metadata(file(cluster, "healed/kept.json"))?;

    kill(pavise::agent_process(cluster)?, Signal::SIGKILL).context("killing the agent")?;
    fs::remove_file(file(cluster, "healed/lost.json"))?;
    apply(cluster, &bundle("healed", &[("kept.json", ALLOW), ("lost.json", ALLOW), ("edited.json", LOG)]))?;
    wait_for_file(cluster, "healed/lost.json", Some(ALLOW))?;
    wait_for_file(cluster, "healed/edited.json", Some(LOG))?;
    wait_for_labels(cluster, &["bundle.pavise.dev/healed"])?;

    let now = fs::metadata(file(cluster, "healed/kept.json"))?;
    ensure!(
        (kept.ino(), kept.mtime_nsec()) == (now.ino(), now.mtime_nsec()),
        "a file that was right was written again"
    );
    Ok(())
}
