//! Which nodes a bundle is for, how many labels it has, and profiles that come from a directory.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::images::BUSYBOX;
use testbed::kubectl::wait_for;
use testbed::pavise::PROFILES;
use testbed::pods::bundle;
use testbed::{HOST_NODE, repository};

use crate::Test;
use crate::steps::{
    ALLOW, LOG, PATIENCE, apply, expect_filter, expect_log, file, labels, make_namespace, wait_for_file,
    wait_for_labels,
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_bundle_follows_its_node_selector", a_bundle_follows_its_node_selector),
    ("a_node_selector_that_can_not_be_read_changes_nothing", a_bad_selector_changes_nothing),
    ("a_bundle_can_have_one_label_for_all_its_profiles", a_bundle_can_have_one_label),
    ("an_init_container_brings_profiles_from_a_directory", an_init_container_brings_profiles),
];

const POOL: &str = "example.com/pool";

/// `bundle` with an annotation of ours.
fn annotated(mut bundle: Value, annotation: &str, value: &str) -> Value {
    bundle["metadata"]["annotations"] = json!({format!("pavise.dev/{annotation}"): value});
    bundle
}

fn label_node(cluster: &Cluster, label: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["label", "node", HOST_NODE, "--overwrite", label]).map(drop)
}

fn a_bundle_follows_its_node_selector(cluster: &Cluster) -> anyhow::Result<()> {
    let canary =
        |text| annotated(bundle("canary", &[("a.json", text)]), "node-selector", "example.com/pool=canary");
    apply(cluster, &canary(ALLOW))?;
    expect_log(cluster, &["pavise-profiles/canary", "Bundle is not for this node"])?;
    ensure!(!file(cluster, "canary").exists(), "a bundle for other nodes was served");

    label_node(cluster, &format!("{POOL}=canary"))?;
    wait_for_file(cluster, "canary/a.json", Some(ALLOW))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/canary_a.json", "bundle.pavise.dev/canary"])?;
    apply(cluster, &canary(LOG))?;
    wait_for_file(cluster, "canary/a.json", Some(LOG))?;

    label_node(cluster, &format!("{POOL}=stable"))?;
    wait_for_file(cluster, "canary/a.json", None)?;
    wait_for("the labels to go", PATIENCE, || {
        let labels = labels(cluster)?;
        Ok(labels.get("seccomp.pavise.dev/canary_a.json").is_none().then_some(()))
    })?;
    label_node(cluster, &format!("{POOL}-"))
}

fn a_bad_selector_changes_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("steadfast", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/steadfast_a.json"])?;
    let bad = bundle("steadfast", &[("a.json", LOG), ("b.json", LOG)]);
    apply(cluster, &annotated(bad, "node-selector", "pool in canary"))?;
    expect_log(cluster, &["pavise-profiles/steadfast", "[invalid-node-selector]"])?;

    // What comes later is served, so this was taken up.
    apply(cluster, &bundle("steadfast-later", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/steadfast-later_a.json"])?;
    ensure!(fs::read_to_string(file(cluster, "steadfast/a.json"))? == ALLOW, "the file changed");
    ensure!(!file(cluster, "steadfast/b.json").exists(), "something new was served");
    ensure!(labels(cluster)?["seccomp.pavise.dev/steadfast_a.json"] == "true", "the label is gone");
    Ok(())
}

fn a_bundle_can_have_one_label(cluster: &Cluster) -> anyhow::Result<()> {
    let profiles = [("a.json", ALLOW), ("b.json", ALLOW)];
    let ours = || -> anyhow::Result<BTreeSet<String>> {
        let labels = labels(cluster)?;
        let keys = labels.as_object().into_iter().flatten().map(|(key, _)| key.clone());
        Ok(keys.filter(|key| key.contains("/whole")).collect())
    };
    apply(cluster, &annotated(bundle("whole", &profiles), "node-labels", "bundle"))?;
    wait_for_labels(cluster, &["bundle.pavise.dev/whole"])?;
    ensure!(ours()? == ["bundle.pavise.dev/whole".to_owned()].into(), "there are more labels: {:?}", ours()?);

    apply(cluster, &annotated(bundle("whole", &profiles), "node-labels", "profiles"))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/whole_a.json", "seccomp.pavise.dev/whole_b.json"])?;
    cluster.kubectl().run(&["delete", "configmap", "whole", "-n", PROFILES]).map(drop)
}

/// The pod is the documentation's own, with a program that is there.
fn an_init_container_brings_profiles(cluster: &Cluster) -> anyhow::Result<()> {
    let documentation = fs::read_to_string(repository().join("docs/sources.md"))?;
    let (_, after) = documentation.split_once("```yaml\n").context("there is no YAML in docs/sources.md")?;
    let (manifests, _) = after.split_once("```").context("the YAML in docs/sources.md does not end")?;
    let sleeping = format!("image: {BUSYBOX}\n    command: [sleep, '86400']\n");
    ensure!(manifests.contains("image: nginx\n"), "the pod in docs/sources.md has another image");
    let kubectl = cluster.kubectl();
    make_namespace(cluster, "web")?;
    kubectl.apply(&manifests.replace("image: nginx\n", &sleeping))?;
    wait_for("the pod of docs/sources.md to run", PATIENCE, || {
        let pod = kubectl.get(&["pod", "web", "-n", "web"])?;
        Ok(pod["status"]["containerStatuses"][0]["state"]["running"].is_object().then_some(()))
    })?;
    expect_filter(cluster, "web", "web")?;
    kubectl.run(&["delete", "namespace", "web", "--wait=false"]).map(drop)
}
