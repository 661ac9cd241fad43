//! The tutorial's pod in a namespace that has its pods placed and demands that they are confined: refused as it is,
//! and with a seccomp profile sent to the node that has its AppArmor profile, without a word of it in the pod.

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use serde_json::{Value, json};
use testbed::GUEST_NODE;
use testbed::images::BUSYBOX;
use testbed::kubectl::{Kubectl, retry};
use testbed::progress;

use super::apparmor::PROFILE;
use super::{PATIENCE, table};

const NAMESPACE: &str = "shop";
const LABELS: [&str; 2] = ["pavise.dev/place=true", "pavise.dev/enforce=confined"];

pub(super) fn show(kubectl: &Kubectl) -> anyhow::Result<()> {
    let (refusal, placed) = progress::step("The same pods in a namespace with policies", || {
        kubectl.run(&["create", "namespace", NAMESPACE])?;
        kubectl.run(&[&["label", "namespace", NAMESPACE][..], &LABELS].concat())?;
        let refusal = retry("the pod to be refused", PATIENCE, || refusal(kubectl))?;
        kubectl.apply(&pod("hello-confined", &json!({"type": "RuntimeDefault"})).to_string())?;
        let placed = retry("hello-confined to run", PATIENCE * 2, || placed(kubectl))?;
        Ok((refusal, placed))
    })?;
    println!(
        "\nIn the namespace {NAMESPACE}, with the labels {}\n{}",
        LABELS.join(" and "),
        shown(&refusal, &placed)
    );
    Ok(())
}

/// The tutorial's pod, with this seccomp profile.
fn pod(name: &str, seccomp: &Value) -> Value {
    let apparmor = json!({"type": "Localhost", "localhostProfile": PROFILE});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "securityContext": {"appArmorProfile": apparmor, "seccompProfile": seccomp},
            "containers": [{"name": "hello", "image": BUSYBOX, "command": ["sleep", "1h"]}],
        },
    })
}

/// What the API server says of the pod as the tutorial has it.
///
/// # Errors
/// It says nothing against it, yet: it takes a moment to see a label of a namespace.
fn refusal(kubectl: &Kubectl) -> anyhow::Result<String> {
    let mut create = kubectl.command(&["create", "--dry-run=server", "-f", "-"]);
    let manifest = pod("hello-apparmor", &Value::Null).to_string();
    let finished = testbed::command::finish(&mut create, manifest.as_bytes())?;
    ensure!(!finished.status.success(), "the pod was not refused");
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    let (_, reason) =
        said.split_once("denied request: ").with_context(|| format!("the API server says {said}"))?;
    let expected = "violates \"confined\": container hello: seccompProfile.type is not set";
    ensure!(reason.trim() == expected, "the API server says {reason}");
    Ok(reason.trim().to_owned())
}

/// Where the confined pod is, and what selector it got.
///
/// # Errors
/// It does not run, yet, or not where its profile is.
fn placed(kubectl: &Kubectl) -> anyhow::Result<[String; 2]> {
    let pod = kubectl.get(&["pod", "hello-confined", "-n", NAMESPACE])?;
    let state = &pod["status"]["phase"];
    ensure!(state == "Running", "the pod is {state}");
    let selector = format!("apparmor.pavise.dev/{PROFILE}");
    ensure!(
        pod["spec"]["nodeSelector"][&selector] == "true",
        "the pod selects on {}",
        pod["spec"]["nodeSelector"]
    );
    ensure!(pod["spec"]["nodeName"] == GUEST_NODE, "the pod is on {}", pod["spec"]["nodeName"]);
    Ok([format!("{selector}=true"), GUEST_NODE.to_owned()])
}

fn shown(refusal: &str, [selector, node]: &[String; 2]) -> Table {
    let mut all = table(&["POD", "SECCOMP PROFILE", "WHAT THE API SERVER MADE OF IT", "NODE"]);
    all.add_row(["hello-apparmor", "-", &format!("refused: {refusal}"), "-"]);
    all.add_row(["hello-confined", "RuntimeDefault", &format!("nodeSelector {selector}"), node]);
    all
}
