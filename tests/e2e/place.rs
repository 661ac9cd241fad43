//! Pods of a namespace that asks for it go where their profiles are.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::images::BUSYBOX;
use testbed::kubectl::wait_for;
use testbed::pavise::PROFILES;
use testbed::pods::bundle;
use testbed::{GUEST_NODE, HOST_NODE};

use crate::profile_catalog::wait_until_declared;
use crate::steps::{ALLOW, PATIENCE, SOON, apply, expect_refusal, make_namespace};
use crate::{Test, apparmor, pending};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("ten_pods_of_a_placed_namespace_land_only_where_their_profile_is", ten_pods_land_where_their_profile_is),
    ("a_profile_and_its_pods_can_be_applied_together", a_profile_and_its_pods_come_together),
    ("names_that_fit_no_label_are_placed_through_the_catalog", long_names_are_placed),
    ("a_placed_pod_with_a_misspelt_reference_waits_and_is_told_why", a_misspelt_reference_is_told),
    ("what_can_not_be_placed_is_refused_or_left_alone", what_can_not_be_placed),
    ("pods_that_have_their_node_are_left_alone", pods_with_a_node_are_left_alone),
];

const NAMESPACE: &str = "placed";

/// How long ten pods may take to start in an emulated machine.
const LONG: Duration = Duration::from_mins(4);

/// Makes the namespace, and waits until pods are placed in it.
fn make_placed(cluster: &Cluster, how: &str) -> anyhow::Result<()> {
    make_namespace(cluster, NAMESPACE)?;
    ask_for_placement(cluster, how)
}

/// Has pods placed in the namespace, and waits until they are.
fn ask_for_placement(cluster: &Cluster, how: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["label", "namespace", NAMESPACE, &format!("pavise.dev/place={how}")])?;
    wait_for("pods to be placed", SOON, || {
        let made = tried(cluster, &pod("p", &localhost("seccompProfile", "nobody/has-it")))?;
        let is_placed = made["spec"]["nodeSelector"].is_object() || made["spec"]["affinity"].is_object();
        Ok(is_placed.then_some(()))
    })
}

fn delete_placed(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "namespace", NAMESPACE, "--timeout=60s"]).map(drop)
}

/// What the API server would make of `object`.
fn tried(cluster: &Cluster, object: &Value) -> anyhow::Result<Value> {
    let mut create =
        cluster.kubectl().command(&["create", "-n", NAMESPACE, "--dry-run=server", "-o", "json", "-f", "-"]);
    let made = testbed::command::output_with_input(&mut create, object.to_string().as_bytes())?;
    serde_json::from_str(&made).context("reading what kubectl prints")
}

fn localhost(field: &str, reference: &str) -> Value {
    json!({field: {"type": "Localhost", "localhostProfile": reference}})
}

fn pod(name: &str, context: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": context,
            "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "86400"]}],
        },
    })
}

fn deployment(name: &str, replicas: u32, context: &Value) -> Value {
    let labels = json!({"example.com/name": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod(name, context)["spec"]},
        },
    })
}

/// All pods that there are, also those that failed.
fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let mut list = cluster.kubectl().get(&["pods", "-n", NAMESPACE])?;
    Ok(serde_json::from_value(list["items"].take())?)
}

/// Waits until there are `count` pods and all run; none may have failed. Returns their nodes.
fn wait_until_all_run(cluster: &Cluster, count: usize) -> anyhow::Result<BTreeSet<String>> {
    wait_for(&format!("{count} pods to run"), LONG, || {
        let pods = pods(cluster)?;
        for pod in &pods {
            ensure!(pod["status"]["phase"] != "Failed", "a pod failed: {}", pod["status"]);
        }
        let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
        let nodes: Vec<String> =
            running.filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned)).collect();
        Ok((nodes.len() == count && pods.len() == count).then(|| nodes.into_iter().collect()))
    })
}

fn ten_pods_land_where_their_profile_is(cluster: &Cluster) -> anyhow::Result<()> {
    make_placed(cluster, "true")?;
    apply(
        cluster,
        &apparmor::bundle("placed", &[("t", &apparmor::text("placed-deny-write", "deny /** w,"))]),
    )?;
    apply(cluster, &deployment("ten", 10, &localhost("appArmorProfile", "placed-deny-write")))?;
    let nodes = wait_until_all_run(cluster, 10)?;
    ensure!(nodes == [GUEST_NODE.to_owned()].into(), "pods are on {nodes:?}");
    delete_placed(cluster)?;
    apparmor::delete_bundle(cluster, "placed")
}

fn a_profile_and_its_pods_come_together(cluster: &Cluster) -> anyhow::Result<()> {
    /// Tries, and how many of them there are at a time.
    const TRIES: usize = 20;
    const AT_A_TIME: usize = 5;
    make_placed(cluster, "true")?;
    for first in (0..TRIES).step_by(AT_A_TIME) {
        let tries = first..first + AT_A_TIME;
        for number in tries.clone() {
            let name = format!("together-{number}");
            let text = apparmor::text(&name, "deny /** w,");
            let mut context = localhost("appArmorProfile", &name);
            context["seccompProfile"] = localhost("x", &format!("{name}/a.json"))["x"].take();
            let items = [
                deployment(&name, 1, &context),
                apparmor::bundle(&format!("{name}-texts"), &[("t", &text)]),
                bundle(&name, &[("a.json", ALLOW)]),
            ];
            apply(cluster, &json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        }
        let nodes = wait_until_all_run(cluster, AT_A_TIME)?;
        ensure!(nodes == [GUEST_NODE.to_owned()].into(), "pods are on {nodes:?}");
        cluster.kubectl().run(&[
            "delete",
            "deployments",
            "--all",
            "-n",
            NAMESPACE,
            "--cascade=foreground",
        ])?;
        for number in tries {
            apparmor::delete_bundle(cluster, &format!("together-{number}-texts"))?;
            apparmor::delete_bundle(cluster, &format!("together-{number}"))?;
        }
    }
    delete_placed(cluster)
}

fn long_names_are_placed(cluster: &Cluster) -> anyhow::Result<()> {
    let key = format!("{}.json", "k".repeat(70));
    let reference = format!("placed-long/{key}");
    make_placed(cluster, "true")?;
    let long = pod("long", &localhost("seccompProfile", &reference));
    expect_refusal(
        "a pod with a name that fits no label, and that nobody has",
        tried(cluster, &long).map(|pod| pod.to_string()),
        "publish the profile in a bundle first",
    )?;
    apply(cluster, &bundle("placed-long", &[(&key, ALLOW)]))?;
    let mut by_bundle = bundle("placed-whole", &[("a.json", ALLOW)]);
    by_bundle["metadata"]["annotations"] = json!({"pavise.dev/node-labels": "bundle"});
    apply(cluster, &by_bundle)?;
    wait_until_declared(cluster, &reference)?;
    wait_until_declared(cluster, "placed-whole/a.json")?;
    let made = wait_for("the pod to be let in", SOON, || Ok(tried(cluster, &long).ok()))?;
    let selector = made["spec"]["nodeSelector"].to_string();
    ensure!(selector.contains("seccomp.pavise.dev/placed-long_kkk"), "{selector}");
    let whole = pod("whole", &localhost("seccompProfile", "placed-whole/a.json"));
    wait_for("the policy to know the bundle's label", SOON, || {
        let selector = tried(cluster, &whole)?["spec"]["nodeSelector"].take();
        Ok((selector["bundle.pavise.dev/placed-whole"] == "true").then_some(()))
    })?;
    apply(cluster, &long)?;
    apply(cluster, &whole)?;
    wait_until_all_run(cluster, 2)?;
    delete_placed(cluster)?;
    cluster.kubectl().run(&["delete", "configmap", "-n", PROFILES, "placed-long", "placed-whole"]).map(drop)
}

fn a_misspelt_reference_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    apply(cluster, &bundle("placed-told", &[("audit.json", ALLOW)]))?;
    wait_until_declared(cluster, "placed-told/audit.json")?;
    make_placed(cluster, "true")?;
    apply(cluster, &pod("misspelt", &localhost("seccompProfile", "placed-told/adit.json")))?;
    pending::expect_told_in(
        cluster,
        NAMESPACE,
        "misspelt",
        &["no node has the seccomp profile placed-told/adit.json", "did you mean placed-told/audit.json?"],
    )?;
    let waiting = kubectl.get(&["pod", "misspelt", "-n", NAMESPACE])?;
    ensure!(waiting["status"]["phase"] == "Pending" && waiting["spec"]["nodeName"].is_null(), "{waiting}");
    let selector = json!({"seccomp.pavise.dev/placed-told_adit.json": "true"});
    ensure!(waiting["spec"]["nodeSelector"] == selector, "{}", waiting["spec"]);
    delete_placed(cluster)?;
    kubectl.run(&["delete", "configmap", "-n", PROFILES, "placed-told"]).map(drop)
}

fn what_can_not_be_placed(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    make_placed(cluster, "true")?;
    let foreign = pod("foreign", &localhost("seccompProfile", "operator/namespace/x.json"));
    expect_refusal(
        "a pod with a profile of no bundle",
        tried(cluster, &foreign).map(|pod| pod.to_string()),
        "spec.alsoKnown",
    )?;
    let known = json!({"spec": {"alsoKnown": {"seccomp": ["operator/*"]}}}).to_string();
    kubectl.run(&["patch", "profilecatalog", "pavise", "--type=merge", "-p", &known])?;
    let made = wait_for("the pod to be let in", SOON, || Ok(tried(cluster, &foreign).ok()));
    kubectl.run(&["patch", "profilecatalog", "pavise", "--type=merge", "-p", r#"{"spec": null}"#])?;
    let made = made?;
    ensure!(made["spec"]["nodeSelector"].is_null(), "{}", made["spec"]);

    kubectl.run(&["label", "--overwrite", "namespace", NAMESPACE, "pavise.dev/place=prefer"])?;
    wait_for("placement to be a preference", SOON, || {
        let made = tried(cluster, &pod("p", &localhost("seccompProfile", "nobody/has-it")))?;
        Ok(made["spec"]["nodeSelector"].is_null().then_some(()))
    })?;
    let made = tried(cluster, &foreign)?;
    ensure!(made["spec"]["affinity"].is_null(), "{}", made["spec"]);
    // It goes where its profile is, if it can.
    apply(
        cluster,
        &apparmor::bundle("preferred", &[("t", &apparmor::text("preferred-deny", "deny /** w,"))]),
    )?;
    wait_for("the profile to be loaded", apparmor::PATIENCE, || {
        let labels = kubectl.get(&["node", GUEST_NODE])?["metadata"]["labels"].take();
        Ok((labels["apparmor.pavise.dev/preferred-deny"] == "true").then_some(()))
    })?;
    apply(cluster, &pod("preferring", &localhost("appArmorProfile", "preferred-deny")))?;
    let nodes = wait_until_all_run(cluster, 1)?;
    ensure!(nodes == [GUEST_NODE.to_owned()].into(), "the pod is on {nodes:?}");
    delete_placed(cluster)?;
    apparmor::delete_bundle(cluster, "preferred")
}

fn pods_with_a_node_are_left_alone(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    make_namespace(cluster, NAMESPACE)?;
    // Of a profile that no label stands for: it would not be let in any more.
    let foreign = localhost("seccompProfile", "operator/namespace/x.json");
    apply(cluster, &pod("old", &foreign))?;
    ask_for_placement(cluster, "true")?;
    let anew = tried(cluster, &pod("new", &foreign)).map(|pod| pod.to_string());
    expect_refusal("the same pod anew", anew, "spec.alsoKnown")?;
    kubectl.run(&["label", "pod", "old", "-n", NAMESPACE, "a=b"])?;
    let changed = kubectl.get(&["pod", "old", "-n", NAMESPACE])?;
    ensure!(changed["spec"]["nodeSelector"].is_null(), "{}", changed["spec"]);
    let annotations = &changed["metadata"]["annotations"];
    ensure!(annotations["pavise.dev/unplaceable"].is_null(), "{annotations}");
    kubectl.run(&["delete", "pod", "old", "-n", NAMESPACE])?;
    let context = localhost("seccompProfile", "nobody/has-it");
    let mut bound = pod("bound", &context);
    bound["spec"]["nodeName"] = json!(HOST_NODE);
    // As somebody may have copied it. Of other pods, placement takes it away.
    let stale = json!({"pavise.dev/unplaceable": "seccomp profile nobody/has-it"});
    bound["metadata"]["annotations"] = stale.clone();
    let made = tried(cluster, &bound)?;
    ensure!(made["spec"]["nodeSelector"].is_null(), "{}", made["spec"]);
    let mut daemons = deployment("daemons", 1, &context);
    daemons["kind"] = json!("DaemonSet");
    daemons["spec"].as_object_mut().context("a DaemonSet without spec")?.remove("replicas");
    daemons["spec"]["template"]["metadata"]["annotations"] = stale;
    apply(cluster, &daemons)?;
    let daemon = wait_for("the DaemonSet's pods", PATIENCE, || {
        let pods = pods(cluster)?;
        Ok((pods.len() == 2).then(|| pods[0].clone()))
    })?;
    ensure!(daemon["spec"]["nodeSelector"].is_null(), "{}", daemon["spec"]);
    kubectl.run(&["delete", "daemonset", "daemons", "-n", NAMESPACE])?;
    delete_placed(cluster)
}
