//! The object `ProfileCatalog` holds what bundles declare, and the catalog can write nothing else of it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::command;
use testbed::kubectl::{Kubectl, wait_for};
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::bundle;
use testbed::{GUEST_NODE, HOST_NODE};

use crate::Test;
use crate::steps::{ALLOW, PATIENCE, SOON, apply, expect_refusal};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("what_bundles_declare_is_declared_with_labels_that_nodes_have", declared_labels_stand_on_nodes),
    ("what_nobody_declares_any_more_goes_after_the_delay", what_nobody_declares_goes),
    ("a_restart_of_the_catalog_writes_nothing", a_restart_writes_nothing),
    ("what_the_administrator_says_in_the_object_stays", what_the_administrator_says_stays),
    ("the_catalogs_token_can_write_the_status_alone", the_token_can_write_the_status_alone),
];

/// How long what nobody declares stays, as the testbed's manifests have it.
const REMOVAL_DELAY: Duration = Duration::from_secs(3);

pub(crate) fn object(cluster: &Cluster) -> anyhow::Result<Value> {
    cluster.kubectl().get(&["profilecatalog", "pavise"])
}

/// Waits until a reference to a seccomp profile is declared.
pub(crate) fn wait_until_declared(cluster: &Cluster, reference: &str) -> anyhow::Result<()> {
    wait_for(&format!("{reference} to be declared"), PATIENCE, || {
        Ok(object(cluster)?["status"]["seccomp"][reference].is_string().then_some(()))
    })
}

/// Waits until the object has this label, or none, for a reference.
fn wait_for_entry(cluster: &Cluster, kind: &str, reference: &str, label: Option<&str>) -> anyhow::Result<()> {
    wait_for(&format!("{reference} to be declared with {label:?}"), PATIENCE, || {
        Ok((object(cluster)?["status"][kind][reference].as_str() == label).then_some(()))
    })
}

fn expect_label(cluster: &Cluster, node: &str, label: &str) -> anyhow::Result<()> {
    wait_for(&format!("the label {label} on {node}"), PATIENCE, || {
        let node = cluster.kubectl().get(&["node", node])?;
        Ok((node["metadata"]["labels"][label] == "true").then_some(()))
    })
}

fn delete(cluster: &Cluster, bundles: &[&str]) -> anyhow::Result<()> {
    let words = [&["delete", "configmap", "-n", PROFILES][..], bundles].concat();
    cluster.kubectl().run(&words).map(drop)
}

fn declared_labels_stand_on_nodes(cluster: &Cluster) -> anyhow::Result<()> {
    let long = format!("{}.json", "k".repeat(60));
    apply(cluster, &bundle("declared", &[("a.json", ALLOW), (&long, ALLOW)]))?;
    let mut whole = bundle("declared-whole", &[("a.json", ALLOW)]);
    whole["metadata"]["annotations"] = json!({"pavise.dev/node-labels": "bundle"});
    apply(cluster, &whole)?;
    let text = "profile declared-profile flags=(attach_disconnected) {\n  file,\n}\n";
    let mut texts = bundle("declared-texts", &[("text", text)]);
    texts["metadata"]["labels"]["pavise.dev/profiles"] = json!("apparmor");
    apply(cluster, &texts)?;

    let shortened = wait_for("the long reference to be declared", PATIENCE, || {
        let label = object(cluster)?["status"]["seccomp"][format!("declared/{long}")].take();
        Ok(label.as_str().map(ToOwned::to_owned))
    })?;
    ensure!(shortened.starts_with("seccomp.pavise.dev/declared_kkk"), "{shortened}");
    for (kind, reference, label, node) in [
        ("seccomp", "declared/a.json", "seccomp.pavise.dev/declared_a.json", HOST_NODE),
        ("seccomp", &format!("declared/{long}"), &shortened, HOST_NODE),
        ("seccomp", "declared-whole/a.json", "bundle.pavise.dev/declared-whole", HOST_NODE),
        ("appArmor", "declared-profile", "apparmor.pavise.dev/declared-profile", GUEST_NODE),
    ] {
        wait_for_entry(cluster, kind, reference, Some(label))?;
        expect_label(cluster, node, label)?;
    }
    let totals = &object(cluster)?["status"]["totals"];
    ensure!(totals["omitted"] == 0 && totals["seccomp"].as_u64() >= Some(3), "{totals}");
    let table = cluster.kubectl().run(&["get", "pcat"])?;
    let columns: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(columns == ["NAME", "SECCOMP", "APPARMOR", "ENFORCE", "WARN", "AUDIT", "AGE"], "{table}");
    delete(cluster, &["declared", "declared-whole", "declared-texts"])
}

fn what_nobody_declares_goes(cluster: &Cluster) -> anyhow::Result<()> {
    let (label, reference) = ("seccomp.pavise.dev/fleeting_a.json", "fleeting/a.json");
    apply(cluster, &bundle("fleeting", &[("a.json", ALLOW)]))?;
    wait_for_entry(cluster, "seccomp", reference, Some(label))?;
    let start = Instant::now();
    delete(cluster, &["fleeting"])?;
    wait_for_entry(cluster, "seccomp", reference, None)?;
    ensure!(start.elapsed() >= REMOVAL_DELAY, "it went after {:?} already", start.elapsed());
    Ok(())
}

fn a_restart_writes_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    apply(cluster, &bundle("lasting", &[("a.json", ALLOW), ("refused.json", "{}")]))?;
    wait_for_entry(
        cluster,
        "seccomp",
        "lasting/refused.json",
        Some("seccomp.pavise.dev/lasting_refused.json"),
    )?;
    let version = || Ok::<_, anyhow::Error>(object(cluster)?["metadata"]["resourceVersion"].take());
    // What the tests before left behind may still be going: the catalog writes every ten seconds then.
    let before = wait_for("twelve seconds without a write of the object", Duration::from_mins(1), || {
        let before = version()?;
        thread::sleep(Duration::from_secs(12));
        Ok((version()? == before).then_some(before))
    })?;
    let restart = |verb| kubectl.run(&["rollout", verb, "deployment/pavise-catalog", "-n", SYSTEM]);
    restart("restart")?;
    restart("status")?;
    // A bundle that declares nothing, and of which the new catalog has something to say.
    let mut misspelt = bundle("lasting-end", &[("a.json", ALLOW)]);
    misspelt["metadata"]["labels"]["pavise.dev/profiles"] = json!("secomp");
    apply(cluster, &misspelt)?;
    wait_for("the new catalog to say something", SOON, || {
        let all = kubectl.get(&["events.v1.events.k8s.io", "-n", PROFILES])?;
        let is_about = |event: &Value| event["regarding"]["name"] == "lasting-end";
        Ok(all["items"].as_array().is_some_and(|all| all.iter().any(is_about)).then_some(()))
    })?;
    // Longer than the removal delay, after which would go what it did not find.
    thread::sleep(Duration::from_secs(5));
    let after = version()?;
    ensure!(after == before, "the object was written: {before} became {after}");
    delete(cluster, &["lasting", "lasting-end"])
}

fn what_the_administrator_says_stays(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let say = |spec: &str| kubectl.run(&["patch", "pcat", "pavise", "--type=merge", "-p", spec]);
    say(r#"{"spec":{"defaults":{"audit":"known"},"alsoKnown":{"seccomp":["operator/*"]}}}"#)?;
    let before = object(cluster)?["spec"].take();
    ensure!(before["alsoKnown"]["seccomp"][0] == "operator/*", "{before}");
    apply(cluster, &bundle("beside", &[("a.json", ALLOW)]))?;
    wait_for_entry(cluster, "seccomp", "beside/a.json", Some("seccomp.pavise.dev/beside_a.json"))?;
    let after = object(cluster)?["spec"].take();
    ensure!(after == before, "the catalog changed {before} to {after}");
    say(r#"{"spec":null}"#)?;
    delete(cluster, &["beside"])
}

const CAN_NOT: &str = "is forbidden: User \"system:serviceaccount:pavise-system:pavise-catalog\" cannot";
const FORGED: &str = r#"[{"op":"add","path":"/metadata/managedFields/-","value":{"manager":"fleet","operation":"Apply",
    "apiVersion":"pavise.dev/v1alpha1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1",
    "fieldsV1":{"f:spec":{"f:defaults":{"f:enforce":{}}}}}}]"#;
/// The name under which the catalog writes: under another one, the policy refuses to have an object made.
const AS_CATALOG: &str = "--field-manager=pavise-catalog";
const ATTEMPTS: &[(&[&str], &str)] = &[
    (
        &[
            "patch",
            "pcat",
            "pavise",
            "--type=merge",
            "-p",
            r#"{"spec":{"defaults":{"enforce":"localhost"}}}"#,
        ],
        CAN_NOT,
    ),
    (&["label", "pcat", "pavise", "a=b"], CAN_NOT),
    (&["annotate", "pcat", "pavise", "a=b"], CAN_NOT),
    (&["delete", "pcat", "pavise"], CAN_NOT),
    (&["get", "pcat"], CAN_NOT),
    (&["get", "pcat", "other"], CAN_NOT),
    (&["get", "npr", HOST_NODE], CAN_NOT),
];

fn the_token_can_write_the_status_alone(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl_with_token(&pavise::catalog_token(cluster)?);
    let patch = |patch: &str| {
        kubectl.run(&["patch", "pcat", "pavise", "--subresource=status", "--type=merge", "-p", patch])
    };
    patch(r#"{"status":{"totals":{"omitted":0}}}"#).context("writing the status")?;
    for (attempt, refusal) in ATTEMPTS {
        expect_refusal(&attempt.join(" "), kubectl.run(attempt), refusal)?;
    }
    let forged = json!([{"manager": "fleet", "operation": "Apply", "apiVersion": "pavise.dev/v1alpha1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:defaults": {"f:enforce": {}}}}}]);
    for (name, metadata, spec, refusal) in [
        // The definition says so as well.
        ("other", json!({}), json!(null), "with the name pavise"),
        // A default that no other policy refuses: of two refusals, the API server says either.
        ("pavise", json!({}), json!({"defaults": {"audit": "known"}}), "may say nothing in the spec"),
        ("pavise", json!({"labels": {"a": "b"}}), json!(null), "no other metadata"),
        ("pavise", json!({"annotations": {"a": "b"}}), json!(null), "no other metadata"),
        ("pavise", json!({"finalizers": ["example.com/f"]}), json!(null), "no other metadata"),
        ("pavise", json!({"managedFields": forged}), json!(null), "no other metadata"),
    ] {
        let mut object = json!({"apiVersion": "pavise.dev/v1alpha1", "kind": "ProfileCatalog"});
        object["metadata"] = metadata;
        object["metadata"]["name"] = json!(name);
        if !spec.is_null() {
            object["spec"] = spec;
        }
        expect_refusal(&format!("making {object}"), create(&kubectl, &object), refusal)?;
    }
    // What the API server does not refuse, it drops.
    let said = || {
        let object = cluster.kubectl().get(&["profilecatalog", "pavise", "--show-managed-fields"])?;
        let managers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        let managers: Vec<Value> = managers.map(|one| one["manager"].clone()).collect();
        anyhow::Ok((object["spec"].clone(), object["metadata"]["labels"].clone(), managers))
    };
    let before = said()?;
    let wide = r#"{"spec":{"defaults":{"enforce":"localhost"}},"metadata":{"labels":{"a":"b"}}}"#;
    // It may be refused as well.
    drop(patch(wide));
    drop(kubectl.run(&["patch", "pcat", "pavise", "--subresource=status", "--type=json", "-p", FORGED]));
    ensure!(said()? == before, "a write of the status changed something else");
    Ok(())
}

fn create(kubectl: &Kubectl, object: &Value) -> anyhow::Result<String> {
    let mut create = kubectl.command(&["create", AS_CATALOG, "-f", "-"]);
    command::output_with_input(&mut create, object.to_string().as_bytes())
}
