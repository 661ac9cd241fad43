//! What is wrong with a bundle is said on its ConfigMap, once, by a program that can do nothing else.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::command;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::bundle;

use crate::steps::{ALLOW, SOON, apply, expect_refusal};
use crate::{Test, pending};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_bad_document_is_an_event_on_its_config_map_and_its_end_another", a_bad_document_is_an_event),
    ("what_only_the_compiler_finds_is_an_event_on_the_config_map", what_the_compiler_finds_is_an_event),
    ("a_wrong_kind_is_an_event_on_its_config_map", a_wrong_kind_is_an_event),
    ("the_catalogs_token_can_do_what_the_catalog_does", the_token_can_do_what_the_catalog_does),
    ("the_catalogs_token_can_do_nothing_else", the_token_can_do_nothing_else),
    ("what_is_applied_again_or_met_by_another_catalog_stays_one_event", what_was_said_stays_one_event),
];

const BAD: &str = "{\n  \"defaultAction\": \"SCMP_ACT_LGO\"\n}";

fn a_bad_document_is_an_event(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("said", &[("bad.json", BAD), ("good.json", ALLOW)]))?;
    let event = wait_for_event(cluster, "said", "ProfileRefused")?;
    ensure!(event["type"] == "Warning" && event["regarding"]["fieldPath"] == "data[bad.json]", "{event}");
    let note = event["note"].as_str().unwrap_or_default();
    ensure!(
        note.starts_with("bad.json is refused: error[unknown-action] line 2, column 20, $.defaultAction: "),
        "{note}"
    );
    let described = cluster.kubectl().run(&["describe", "configmap", "said", "-n", PROFILES])?;
    ensure!(described.contains(note), "kubectl does not describe it: {described}");
    ensure!(events(cluster, "said")?.len() == 1, "the good profile is spoken of too");

    apply(cluster, &bundle("said", &[("bad.json", ALLOW), ("good.json", ALLOW)]))?;
    let event = wait_for_event(cluster, "said", "ProfilesAccepted")?;
    ensure!(event["type"] == "Normal", "{event}");
    Ok(())
}

fn what_the_compiler_finds_is_an_event(cluster: &Cluster) -> anyhow::Result<()> {
    let of = |rule: &str| {
        let text = format!("profile catalog-compiled flags=(attach_disconnected) {{\n  {rule},\n}}\n");
        let mut bundle = bundle("compiled", &[("text", &text)]);
        bundle["metadata"]["labels"]["pavise.dev/profiles"] = json!("apparmor");
        bundle
    };
    apply(cluster, &of("file,\n  fil"))?;
    let event = wait_for_event(cluster, "compiled", "ProfileRefused")?;
    let note = event["note"].as_str().unwrap_or_default();
    ensure!(event["regarding"]["fieldPath"] == "data[text]", "{event}");
    ensure!(note.starts_with("text is refused: error[invalid-policy] line 3, "), "{note}");
    apply(cluster, &of("file"))?;
    wait_for_event(cluster, "compiled", "ProfilesAccepted")?;
    ensure!(events(cluster, "compiled")?.len() == 2, "something else was said");
    cluster.kubectl().run(&["delete", "configmap", "compiled", "-n", PROFILES]).map(drop)
}

fn what_was_said_stays_one_event(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    apply(cluster, &bundle("repeated", &[("bad.json", BAD)]))?;
    let before = wait_for_event(cluster, "repeated", "ProfileRefused")?;
    for round in ["1", "2"] {
        apply(cluster, &bundle("repeated", &[("bad.json", BAD)]))?;
        let annotation = format!("example.com/round={round}");
        kubectl.run(&["annotate", "--overwrite", "configmap", "repeated", "-n", PROFILES, &annotation])?;
    }
    let restart = |verb| kubectl.run(&["rollout", verb, "deployment/pavise-catalog", "-n", SYSTEM]);
    restart("restart")?;
    restart("status")?;
    // What the new catalog found when it started is written before this.
    apply(cluster, &bundle("repeated-end", &[("bad.json", BAD)]))?;
    wait_for_event(cluster, "repeated-end", "ProfileRefused")?;
    let after = events(cluster, "repeated")?;
    ensure!(after == [before], "the Event was written again, or is not alone: {after:?}");
    Ok(())
}

fn a_wrong_kind_is_an_event(cluster: &Cluster) -> anyhow::Result<()> {
    let mut misspelt = bundle("misspelt", &[("good.json", ALLOW)]);
    misspelt["metadata"]["labels"]["pavise.dev/profiles"] = json!("secomp");
    apply(cluster, &misspelt)?;
    let event = wait_for_event(cluster, "misspelt", "BundleProblem")?;
    let note = event["note"].as_str().unwrap_or_default();
    ensure!(note.contains("error[unknown-kind]") && note.contains("did you mean \"seccomp\"?"), "{note}");
    Ok(())
}

/// Without this, a token that is worth nothing at all would pass the next test.
fn the_token_can_do_what_the_catalog_does(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl_with_token(&pavise::catalog_token(cluster)?);
    kubectl.run(&["get", "configmaps", "-n", PROFILES]).context("reading bundles")?;
    kubectl.run(&["get", "nodes"]).context("listing Nodes")?;
    kubectl.apply(&event_in(cluster, PROFILES)?.to_string()).context("writing an Event").map(drop)
}

fn the_token_can_do_nothing_else(cluster: &Cluster) -> anyhow::Result<()> {
    const REFUSAL: &str = "is forbidden: User \"system:serviceaccount:pavise-system:pavise-catalog\" cannot";
    const ATTEMPTS: &[&[&str]] = &[
        &["get", "node", HOST_NODE],
        &["label", "node", HOST_NODE, "seccomp.pavise.dev/p_x.json=true"],
        &["patch", "node", HOST_NODE, "--type=merge", "-p", r#"{"metadata":{"annotations":{"a":"b"}}}"#],
        &["delete", "node", HOST_NODE],
        &["create", "configmap", "mine", "-n", PROFILES],
        &["patch", "configmap", "said", "-n", PROFILES, "--type=merge", "-p", r#"{"data":{"a":"b"}}"#],
        &["delete", "configmap", "said", "-n", PROFILES],
        &["get", "configmaps", "-n", SYSTEM],
        &["get", "configmaps", "-A"],
        &["get", "events", "-n", PROFILES],
        &["delete", "events", "--all", "-n", PROFILES],
        &["get", "secrets", "-n", SYSTEM],
        &["get", "pod", "x", "-n", SYSTEM],
        &["delete", "pods", "--all", "-n", SYSTEM],
        &["create", "token", "pavise-agent", "-n", SYSTEM],
    ];
    const RIGHTS: &[(&str, &str, &str)] = &[
        ("list", "nodes", "yes"),
        ("patch", "nodes", "no"),
        ("update", "nodes", "no"),
        ("patch", "nodes/status", "no"),
    ];
    apply(cluster, &bundle("said", &[("good.json", ALLOW)]))?;
    let kubectl = cluster.kubectl_with_token(&pavise::catalog_token(cluster)?);
    for attempt in ATTEMPTS {
        expect_refusal(&attempt.join(" "), kubectl.run(attempt), REFUSAL)?;
    }
    // To change an object, kubectl reads it first, and is refused that already.
    for (verb, resource, may) in RIGHTS {
        let finished = command::finish(&mut kubectl.command(&["auth", "can-i", verb, resource]), b"")?;
        let said = String::from_utf8_lossy(&finished.stdout);
        ensure!(said.trim() == *may, "may the catalog {verb} {resource}? {said}");
    }
    let elsewhere = kubectl.apply(&event_in(cluster, "default")?.to_string());
    let refusal = "the catalog may write Events about ConfigMaps only where it may read them";
    expect_refusal("writing an Event elsewhere", elsewhere, refusal)
}

/// An Event as the catalog writes them.
fn event_in(cluster: &Cluster, namespace: &str) -> anyhow::Result<Value> {
    Ok(json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "stolen", "namespace": namespace},
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": "stolen"},
        "type": "Warning",
        "reason": "ProfileRefused",
        "action": "Judge",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "pavise.dev/catalog",
        "reportingInstance": pending::instance(cluster)?,
    }))
}

/// The Events about the ConfigMap `name`.
fn events(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = cluster.kubectl().get(&["events.v1.events.k8s.io", "-n", PROFILES])?;
    let is_about = |event: &Value| {
        event["regarding"]["name"] == name && event["reportingController"] == "pavise.dev/catalog"
    };
    let all = all["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(all.into_iter().filter(is_about).collect())
}

fn wait_for_event(cluster: &Cluster, name: &str, reason: &str) -> anyhow::Result<Value> {
    wait_for(&format!("{reason} on the ConfigMap {name}"), SOON, || {
        Ok(events(cluster, name)?.into_iter().find(|event| event["reason"] == reason))
    })
}
