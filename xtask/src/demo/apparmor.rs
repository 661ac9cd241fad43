//! The Kubernetes AppArmor tutorial: its profile in a ConfigMap, and its pod on a node without AppArmor, and
//! where the profile's label is.

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use serde_json::Value;
use testbed::cluster::Cluster;
use testbed::kubectl::{Kubectl, retry};
use testbed::{GUEST_NODE, HOST_NODE, progress};

use super::{PATIENCE, table};

pub(super) const PROFILE: &str = "k8s-apparmor-example-deny-write";
/// The tutorial's pod, as the overlay pins it to the node without AppArmor.
const PLAIN: &str = "hello-apparmor";
/// The same with a selector for the label.
const PLACED: &str = "hello-apparmor-placed";

/// What there is to say of one pod.
struct Seen {
    name: &'static str,
    selector: String,
    node: String,
    state: String,
    /// What the kernel says that its first process runs under.
    confinement: String,
    /// What came of the attempt to write a file.
    write: String,
}

pub(super) fn show(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<()> {
    let overlay = testbed::repository().join("manifests/testbed/apparmor-tutorial");
    let pods = progress::step("kubectl apply -k manifests/testbed/apparmor-tutorial", || {
        kubectl.run(&["apply", "-k", &overlay.display().to_string()])?;
        let settled =
            |name| retry(&format!("{name} to run or to fail"), PATIENCE * 2, || look_at(kubectl, name));
        Ok([settled(PLAIN)?, settled(PLACED)?])
    })?;
    println!("\nThe AppArmor profile {PROFILE}\n{}", profile(cluster, kubectl)?);
    println!("\nPods that refer to it, and what came of `touch /tmp/test` in each\n{}", shown(&pods));
    check(&pods)
}

/// # Errors
/// The pod neither runs nor has failed, yet.
fn look_at(kubectl: &Kubectl, name: &'static str) -> anyhow::Result<Seen> {
    let pod = kubectl.get(&["pod", name, "-n", "default"])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let selectors = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    let mut seen = Seen {
        name,
        selector: selectors
            .map(|(key, value)| format!("{key}={}", text(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        node: text(&pod["spec"]["nodeName"]),
        state: text(&pod["status"]["phase"]),
        confinement: String::new(),
        write: String::new(),
    };
    if pod["status"]["containerStatuses"][0]["state"]["running"].is_object() {
        let exec = |words: &[&str]| kubectl.run(&[&["exec", name, "-n", "default", "--"], words].concat());
        exec(&["cat", "/proc/1/attr/current"])?.trim().clone_into(&mut seen.confinement);
        seen.write = match exec(&["touch", "/tmp/test"]) {
            Ok(_) => "written".to_owned(),
            Err(error) if format!("{error:#}").contains("Permission denied") => {
                "Permission denied".to_owned()
            }
            Err(error) => return Err(error),
        };
        return Ok(seen);
    }
    ensure!(pod["status"]["phase"] == "Failed", "{name} is still {}", seen.state);
    seen.state = format!("Failed: {}", text(&pod["status"]["message"]));
    Ok(seen)
}

/// What each node says of the profile.
fn profile(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<Table> {
    let mut all = table(&["NODE", "IN THE KERNEL", "LABEL"]);
    let key = format!("apparmor.pavise.dev/{PROFILE}");
    let profiles = cluster.guest()?.run(&["cat", "/sys/kernel/security/apparmor/profiles"])?;
    let loaded =
        profiles.lines().find(|line| line.starts_with(PROFILE)).context("the kernel has no such profile")?;
    for (node, kernel) in [(HOST_NODE, "no AppArmor"), (GUEST_NODE, loaded)] {
        let is_labelled = kubectl.get(&["node", node])?["metadata"]["labels"][&key] == "true";
        all.add_row([node, kernel, if is_labelled { &key } else { "none" }]);
    }
    Ok(all)
}

fn shown(pods: &[Seen]) -> Table {
    let mut all = table(&["POD", "NODE SELECTOR", "NODE", "STATE", "/proc/1/attr/current", "WRITE"]);
    for pod in pods {
        let cells = [pod.name, &pod.selector, &pod.node, &pod.state, &pod.confinement, &pod.write];
        all.add_row(cells.map(|cell| if cell.is_empty() { "-" } else { cell }));
    }
    all
}

/// What the README says of this part.
fn check([plain, placed]: &[Seen; 2]) -> anyhow::Result<()> {
    ensure!(
        plain.node == HOST_NODE && plain.state.contains("Cannot enforce AppArmor"),
        "{PLAIN} is not rejected where there is no AppArmor: {} on {}",
        plain.state,
        plain.node
    );
    ensure!(placed.node == GUEST_NODE, "{PLACED} landed on {}", placed.node);
    ensure!(
        placed.confinement == format!("{PROFILE} (enforce)") && placed.write == "Permission denied",
        "{PLACED} is not confined: {}, {}",
        placed.confinement,
        placed.write
    );
    Ok(())
}
