//! A pod that waits for a profile which no node has is told so, by the catalog, which can say nothing else of
//! pods.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::command;
use testbed::kubectl::{Kubectl, wait_for};
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::{bundle, confined_pod};
use testbed::{GUEST_NODE, HOST_NODE};

use crate::Test;
use crate::steps::{ALLOW, PATIENCE, apply, expect_refusal, wait_for_labels, wait_until_running};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_pod_that_waits_for_a_misspelt_profile_is_told_so_until_there_is_one", a_misspelt_profile_is_told),
    ("a_pod_that_can_not_be_where_its_profile_is_is_told_where_that_is", a_profile_elsewhere_is_told),
    (
        "a_pod_that_waits_for_something_else_is_told_nothing_about_profiles",
        what_else_it_waits_for_is_not_told,
    ),
    ("the_catalogs_token_can_say_that_a_pod_waits_for_a_profile", the_token_can_say_that_a_pod_waits),
    ("the_catalogs_token_can_say_nothing_else", the_token_can_say_nothing_else),
];

/// A pod on the host's node that refers to the profile `key` of `bundle`, and selects on its label.
fn waiting_pod(name: &str, bundle: &str, key: &str) -> Value {
    let mut pod = confined_pod(name, &format!("{bundle}/{key}"));
    pod["spec"]["nodeSelector"][format!("seccomp.pavise.dev/{bundle}_{key}")] = json!("true");
    pod
}

/// What the catalog has said of the pod `name` in the namespace `default`.
fn events(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<Value>> {
    events_in(cluster, "default", name)
}

fn events_in(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = cluster.kubectl().get(&["events.v1.events.k8s.io", "-n", namespace])?;
    let all = all["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let is_it = |event: &Value| {
        event["regarding"]["name"] == name && event["reportingController"] == "pavise.dev/catalog"
    };
    Ok(all.into_iter().filter(is_it).collect())
}

/// Waits until the catalog says with these words why the pod `name` in the namespace `default` waits.
fn expect_told(cluster: &Cluster, name: &str, words: &[&str]) -> anyhow::Result<Value> {
    expect_told_in(cluster, "default", name, words)
}

pub(crate) fn expect_told_in(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    words: &[&str],
) -> anyhow::Result<Value> {
    let event = wait_for(&format!("an Event on the pod {name}"), PATIENCE, || {
        Ok(events_in(cluster, namespace, name)?.into_iter().next())
    })?;
    ensure!(event["type"] == "Warning" && event["reason"] == "NoNodeHasProfile", "{event}");
    ensure!(event["action"] == "Judge" && event["regarding"]["kind"] == "Pod", "{event}");
    let note = event["note"].as_str().unwrap_or_default();
    for word in words {
        ensure!(note.contains(word), "{word:?} is not in it: {note}");
    }
    Ok(event)
}

fn delete(cluster: &Cluster, pod: &str, bundles: &[&str]) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "pod", pod])?;
    cluster.kubectl().run(&[&["delete", "configmap", "-n", PROFILES], bundles].concat()).map(drop)
}

fn a_misspelt_profile_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let name = "waits-for-adit";
    apply(cluster, &bundle("waited", &[("audit.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/waited_audit.json"])?;
    apply(cluster, &waiting_pod(name, "waited", "adit.json"))?;
    let event = expect_told(
        cluster,
        name,
        &["the pod waits: no node has the seccomp profile waited/adit.json, which it selects by the label \
             seccomp.pavise.dev/waited_adit.json: the bundle pavise-profiles/waited has no key adit.json; did you \
             mean waited/audit.json? Correct the reference"],
    )?;
    let note = event["note"].as_str().unwrap_or_default();
    let described = cluster.kubectl().run(&["describe", "pod", name])?;
    ensure!(described.contains(note), "kubectl does not describe it: {described}");

    apply(cluster, &bundle("waited", &[("audit.json", ALLOW), ("adit.json", ALLOW)]))?;
    wait_until_running(cluster, name)?;
    ensure!(events(cluster, name)? == [event], "it was said again: {:?}", events(cluster, name)?);
    delete(cluster, name, &["waited"])
}

fn a_profile_elsewhere_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let name = "waits-on-node1";
    let mut there = bundle("waited-there", &[("a.json", ALLOW)]);
    let selector = format!("kubernetes.io/hostname={GUEST_NODE}");
    there["metadata"]["annotations"] = json!({"pavise.dev/node-selector": selector});
    apply(cluster, &there)?;
    wait_for("the label of the other node", PATIENCE, || {
        let node = cluster.kubectl().get(&["node", GUEST_NODE])?;
        let label = &node["metadata"]["labels"]["seccomp.pavise.dev/waited-there_a.json"];
        Ok((label == "true").then_some(()))
    })?;
    apply(cluster, &waiting_pod(name, "waited-there", "a.json"))?;
    let can_not_be = format!(
        "it is where the pod can't be: {GUEST_NODE} (nodeSelector kubernetes.io/hostname={HOST_NODE})"
    );
    let for_others = "its bundle pavise-profiles/waited-there is for other nodes (pavise.dev/node-selector)";
    expect_told(cluster, name, &[for_others, &can_not_be])?;
    delete(cluster, name, &["waited-there"])
}

fn what_else_it_waits_for_is_not_told(cluster: &Cluster) -> anyhow::Result<()> {
    let (greedy, held_up, lost) = ("waits-for-cpu", "waits-for-a-gate", "waits-for-nobody");
    apply(cluster, &bundle("waited", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/waited_a.json"])?;
    let mut pod = waiting_pod(greedy, "waited", "a.json");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "10000"}});
    apply(cluster, &pod)?;
    let mut pod = waiting_pod(held_up, "waited", "nowhere.json");
    pod["spec"]["schedulingGates"] = json!([{"name": "example.com/gate"}]);
    apply(cluster, &pod)?;
    apply(cluster, &waiting_pod(lost, "waited", "nowhere.json"))?;
    // By then the others have been looked at, too.
    expect_told(cluster, lost, &["has no key nowhere.json"])?;
    for name in [greedy, held_up] {
        ensure!(events(cluster, name)?.is_empty(), "{name} was spoken of: {:?}", events(cluster, name)?);
    }
    cluster.kubectl().run(&["delete", "pod", greedy, held_up])?;
    delete(cluster, lost, &["waited"])
}

/// What the catalog may write, with this difference.
fn event(instance: &str, difference: Value) -> Value {
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "stolen-pending", "namespace": "default"},
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "stolen"},
        "type": "Warning",
        "reason": "NoNodeHasProfile",
        "action": "Judge",
        "note": "the pod waits: …",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "pavise.dev/catalog",
        "reportingInstance": instance,
    });
    if let (Value::Object(event), Value::Object(difference)) = (&mut event, difference) {
        event.extend(difference);
    }
    event
}

/// The name of the catalog's pod.
pub(crate) fn instance(cluster: &Cluster) -> anyhow::Result<String> {
    let pods =
        cluster.kubectl().get(&["pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=pavise-catalog"])?;
    let mut pods = pods["items"].as_array().into_iter().flatten();
    let pod = pods.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let name = pod.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).context("there is no catalog")
}

/// As the catalog does it.
fn write(kubectl: &Kubectl, event: &Value) -> anyhow::Result<String> {
    let mut apply = kubectl.command(&["apply", "--server-side", "--field-manager=pavise-catalog", "-f", "-"]);
    command::output_with_input(&mut apply, event.to_string().as_bytes())
}

/// Without this, a token that is worth nothing at all would pass the next test.
fn the_token_can_say_that_a_pod_waits(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl_with_token(&pavise::catalog_token(cluster)?);
    let instance = instance(cluster)?;
    let metadata = json!({"name": "written-pending", "namespace": "default"});
    let written = write(&kubectl, &event(&instance, json!({"metadata": metadata})));
    written.context("writing an Event on a pod")?;
    let series = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"});
    write(&kubectl, &event(&instance, json!({"metadata": metadata, "series": series})))
        .context("counting up in an Event")
        .map(drop)
}

/// An attempt to write an Event that differs in this from what the catalog may write, and what the refusal
/// says.
type Attempt = (&'static str, fn() -> Value, &'static str);

const ATTEMPTS: &[Attempt] = &[
    (
        "in another pod's name",
        || json!({"reportingInstance": "pavise-catalog-other"}),
        "the catalog may write Events only as pavise.dev/catalog",
    ),
    (
        "in an agent's name",
        || json!({"reportingController": "pavise.dev/agent", "reportingInstance": HOST_NODE}),
        "the catalog may write Events only as pavise.dev/catalog",
    ),
    (
        "about a Node",
        || {
            let metadata = json!({"name": "stolen-pending", "namespace": "default"});
            let node = json!({"apiVersion": "v1", "kind": "Node", "name": HOST_NODE, "namespace": "default"});
            json!({"metadata": metadata, "regarding": node})
        },
        "the catalog may write Events only about ConfigMaps and pods",
    ),
    (
        "about a ConfigMap that it can't read",
        || {
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "name": "stolen"});
            json!({"regarding": map, "reason": "ProfileRefused"})
        },
        "the catalog may write Events about ConfigMaps only where it may read them",
    ),
    (
        "with a reason of bundles about a pod",
        || json!({"reason": "ProfileRefused"}),
        "the catalog may write Events only for what it finds",
    ),
    (
        "with a reason of its own",
        || json!({"reason": "Killing"}),
        "the catalog may write Events only for what it finds",
    ),
    (
        "that can not be deleted",
        || json!({"metadata": {"name": "stolen-pending", "namespace": "default", "finalizers": ["example.com/f"]}}),
        "the catalog may write Events only with a name",
    ),
    (
        "that is somebody else's",
        || {
            json!({
                "metadata": {"name": "somebodys-pending", "namespace": "default"},
                "reportingController": "example.com/test",
                "reportingInstance": "test",
                "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"},
            })
        },
        "the catalog may write Events only as pavise.dev/catalog",
    ),
];

fn the_token_can_say_nothing_else(cluster: &Cluster) -> anyhow::Result<()> {
    let somebodys = json!({
        "metadata": {"name": "somebodys-pending", "namespace": "default"},
        "reportingController": "example.com/test",
    });
    cluster.kubectl().apply(&event("test", somebodys).to_string())?;
    let kubectl = cluster.kubectl_with_token(&pavise::catalog_token(cluster)?);
    let instance = instance(cluster)?;
    for (what, difference, refusal) in ATTEMPTS {
        let written = kubectl.apply(&event(&instance, difference()).to_string());
        expect_refusal(&format!("writing an Event {what}"), written, refusal)?;
    }
    Ok(())
}
