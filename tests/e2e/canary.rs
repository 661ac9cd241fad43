//! A new version on one pool of nodes first: each step of docs/canary.md, with the manifests and commands
//! that stand there. Of them only the node's name is another one, and the program that runs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use testbed::cluster::Cluster;
use testbed::images::BUSYBOX;
use testbed::kubectl::wait_for;
use testbed::pavise::PROFILES;
use testbed::{GUEST_NODE, HOST_NODE, command, repository};

use crate::Test;
use crate::apparmor::{
    self, PATIENCE, delete_bundle, delete_pod, exec, label, raw_digest, wait_for_kernel, wait_until_running,
};
use crate::steps::{apply, expect_filter, file, wait_for_file};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_apparmor_profile_is_tried_on_one_pool_and_promoted", an_apparmor_profile_is_tried_on_one_pool),
    ("a_seccomp_profile_is_tried_on_one_pool_and_promoted", a_seccomp_profile_is_tried_on_one_pool),
];

/// Longer than the removal delay of this cluster and the turn of the loop after it.
const LONG_AFTER: Duration = Duration::from_secs(6);

/// What the document has its readers do.
enum Step {
    Apply(String),
    Run(String),
}

impl Step {
    fn take(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Apply(manifests) => cluster.kubectl().apply(manifests).map(drop),
            Self::Run(commands) => run(cluster, commands),
        }
    }
}

/// The steps of a section of the document, for `node`.
fn steps(section: &str, node: &str) -> anyhow::Result<Vec<Step>> {
    let document = fs::read_to_string(repository().join("docs/canary.md"))?;
    let mut sections = document.split("\n## ");
    let section = sections.find_map(|text| text.strip_prefix(section)).context("the section is not there")?;
    ensure!(section.contains("worker-7"), "the section names another node");
    let sleeping = format!("image: {BUSYBOX}\n        command: [sleep, '86400']\n");
    let section = section
        .replace("worker-7", node)
        .replace("image: nginx\n", &sleeping)
        .replace("      containers:\n", "      terminationGracePeriodSeconds: 0\n      containers:\n");
    let blocks = section.split("```").skip(1).step_by(2);
    blocks
        .map(|block| match block.split_once('\n') {
            Some(("yaml", manifests)) => Ok(Step::Apply(manifests.to_owned())),
            Some(("sh", commands)) => Ok(Step::Run(commands.to_owned())),
            _ => bail!("this block is neither YAML nor commands: {block}"),
        })
        .collect()
}

/// Runs what a reader would paste.
fn run(cluster: &Cluster, commands: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl().command(&[]);
    let words = std::iter::once(kubectl.get_program()).chain(kubectl.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.display())).collect();
    let script = format!("set -e\nkubectl() {{ {} \"$@\"; }}\n{commands}", words.join(" "));
    let mut shell = Command::new("/bin/sh");
    let environment = kubectl.get_envs().filter_map(|(name, value)| Some((name, value?)));
    shell.env_clear().envs(environment).args(["-c", &script]);
    command::output(&mut shell).map(drop)
}

fn leave_the_pool(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["label", "node", node, "pool-"]).map(drop)
}

/// Waits until the process that runs all the time is under the new rules, or under the old ones. It must
/// never be without, and the label must stand.
fn wait_for_rules(cluster: &Cluster, are_new: bool) -> anyhow::Result<()> {
    let which = if are_new { "new" } else { "old" };
    wait_for(&format!("the running process to be under the {which} rules"), PATIENCE, || {
        ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/web-nginx")?, "the label went");
        let current = exec(cluster, "canary", "cat /proc/1/attr/current")?;
        ensure!(current.trim() == "web-nginx (enforce)", "the process runs under {current}");
        let is_as_expected = match exec(cluster, "canary", "echo > /tmp/x") {
            Ok(_) => !are_new,
            // kubectl can fail for other reasons.
            Err(error) => are_new && format!("{error:#}").contains("Permission denied"),
        };
        Ok(is_as_expected.then_some(()))
    })
}

fn an_apparmor_profile_is_tried_on_one_pool(cluster: &Cluster) -> anyhow::Result<()> {
    let steps = steps("AppArmor", GUEST_NODE)?;
    let [first, pool, second, look, narrow, watch, promote, back] = steps.as_slice() else {
        bail!("the document has {} steps for AppArmor, and this test others", steps.len());
    };
    first.take(cluster)?;
    apply(cluster, &apparmor::pod("canary", "web-nginx"))?;
    wait_until_running(cluster, "canary")?;
    wait_for_rules(cluster, false)?;
    let old = raw_digest(cluster, "web-nginx")?;

    // Creation times have seconds.
    std::thread::sleep(Duration::from_secs(1));
    pool.take(cluster)?;
    second.take(cluster)?;
    apparmor::expect_log(cluster, &["web-apparmor-next", "profile-taken"])?;
    look.take(cluster)?;
    ensure!(raw_digest(cluster, "web-nginx")? == old, "the younger bundle has taken the name");

    narrow.take(cluster)?;
    wait_for_rules(cluster, true)?;
    watch.take(cluster)?;
    back.take(cluster)?;
    wait_for_rules(cluster, false)?;
    narrow.take(cluster)?;
    wait_for_rules(cluster, true)?;
    leave_the_pool(cluster, GUEST_NODE)?;
    wait_for_rules(cluster, false)?;
    pool.take(cluster)?;
    wait_for_rules(cluster, true)?;

    let new = raw_digest(cluster, "web-nginx")?;
    ensure!(!new.is_empty() && new != old, "the kernel has the old text");
    promote.take(cluster)?;
    // What was handed over is neither loaded again nor removed.
    std::thread::sleep(LONG_AFTER);
    ensure!(raw_digest(cluster, "web-nginx")? == new, "the kernel has another text than before");
    leave_the_pool(cluster, GUEST_NODE)?;
    std::thread::sleep(LONG_AFTER);
    wait_for_rules(cluster, true)?;
    expect_one_bundle_for_all(cluster)?;
    delete_pod(cluster, "canary")?;
    delete_bundle(cluster, "web-apparmor")?;
    wait_for_kernel(cluster, "web-nginx (enforce)", false)
}

fn expect_one_bundle_for_all(cluster: &Cluster) -> anyhow::Result<()> {
    let bundle = |name| cluster.kubectl().get(&["configmap", name, "-n", PROFILES]);
    ensure!(bundle("web-apparmor-next")?.is_null(), "the second bundle is still there");
    let first = bundle("web-apparmor")?;
    let selector = &first["metadata"]["annotations"]["pavise.dev/node-selector"];
    ensure!(selector.is_null(), "the first bundle is for {selector}");
    let text = first["data"]["nginx"].as_str().unwrap_or_default();
    ensure!(text.contains("audit deny /tmp/** w,"), "the first bundle has the old text");
    Ok(())
}

/// The pods of the Deployment with this label that are not about to go.
fn pods(cluster: &Cluster, track: &str) -> anyhow::Result<Vec<Value>> {
    let mut pods = cluster.kubectl().get(&["pods", "-l", &format!("app=nginx,track={track}")])?;
    let Value::Array(pods) = pods["items"].take() else { bail!("kubectl lists no pods") };
    Ok(pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
}

fn a_seccomp_profile_is_tried_on_one_pool(cluster: &Cluster) -> anyhow::Result<()> {
    const NEXT: &str = "seccomp.pavise.dev/web-v2_nginx.json";
    let steps = steps("Seccomp", HOST_NODE)?;
    let [now, pool, second, watch, promote, last] = steps.as_slice() else {
        bail!("the document has {} steps for seccomp, and this test others", steps.len());
    };
    now.take(cluster)?;
    run(cluster, "kubectl rollout status deployment nginx --timeout=90s")?;
    pool.take(cluster)?;
    second.take(cluster)?;
    watch.take(cluster)?;
    let canary = pods(cluster, "canary")?;
    let [canary] = canary.as_slice() else { bail!("there are {} pods of the canary", canary.len()) };
    ensure!(canary["spec"]["nodeName"] == HOST_NODE, "it landed on {}", canary["spec"]["nodeName"]);
    let name = canary["metadata"]["name"].as_str().context("the pod of the canary has no name")?;
    expect_filter(cluster, "default", name)?;
    ensure!(!label(cluster, GUEST_NODE, NEXT)?, "a node outside of the pool has the new version");

    promote.take(cluster)?;
    wait_for("the other node to have the new version", PATIENCE, || {
        Ok(label(cluster, GUEST_NODE, NEXT)?.then_some(()))
    })?;
    let stable = pods(cluster, "stable")?;
    ensure!(!stable.is_empty(), "the Deployment has no pod");
    for pod in stable {
        let reference = &pod["spec"]["securityContext"]["seccompProfile"]["localhostProfile"];
        ensure!(reference == "web-v2/nginx.json", "a pod still refers to {reference}");
    }
    last.take(cluster)?;
    wait_for_file(cluster, "web/nginx.json", None)?;
    ensure!(file(cluster, "web-v2/nginx.json").exists(), "the new version went as well");

    leave_the_pool(cluster, HOST_NODE)?;
    cluster.kubectl().run(&["delete", "deployment", "nginx"])?;
    delete_bundle(cluster, "web-v2")?;
    wait_for_file(cluster, "web-v2/nginx.json", None)
}
