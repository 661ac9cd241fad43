//! What ends and comes back (the agent, the API server), what is large, and what is malformed: nothing that
//! worked is lost, and nothing is written that was right.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::bundle;

use crate::Test;
use crate::steps::{
    ALLOW, agent_log, apply, expect_log, file, labels, wait_for_file, wait_for_labels, written_labels,
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_agent_that_restarts_writes_nothing", a_restart_writes_nothing),
    ("an_api_server_that_restarts_costs_no_write", an_api_restart_costs_no_write),
    ("a_thousand_profiles_are_loaded_and_removed", a_thousand_profiles),
    ("what_is_malformed_is_said_and_the_rest_is_served", malformed_profiles_are_said),
    ("the_api_server_has_a_share_for_the_agents", the_agents_have_a_share),
    ("an_agent_with_another_directory_than_the_kubelets_does_not_start", a_wrong_kubelet_root_is_noticed),
    ("an_agent_that_runs_once_ends_and_says_whether_all_is_served", an_agent_that_runs_once_ends),
    ("a_megabyte_of_brackets_does_no_harm", a_megabyte_of_brackets),
];

/// How long a container may take to be started again, and many profiles to come and go.
const PATIENCE: Duration = Duration::from_mins(1);

fn a_restart_writes_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("steady", &[("a.json", ALLOW), ("b.json", ALLOW)]))?;
    wait_for_labels(cluster, &["bundle.pavise.dev/steady"])?;
    let (files, written, restarts) = (files(cluster)?, written_labels(cluster)?, restarts(cluster)?);

    kill(pavise::agent_process(cluster)?, Signal::SIGKILL).context("killing the agent")?;
    wait_for("the next agent to be ready", PATIENCE, || {
        Ok(self::restarts(cluster)?.is_some_and(|now| Some(now) > restarts).then_some(()))
    })?;
    ensure!(self::files(cluster)? == files, "files that were right were written again");
    ensure!(written_labels(cluster)? == written, "labels that were right were written again");
    Ok(())
}

/// The API server's memory of changes begins anew when it does. So a watch that wants to go on from before is
/// refused with 410, and everything is listed again.
fn an_api_restart_costs_no_write(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("steady", &[("a.json", ALLOW), ("b.json", ALLOW)]))?;
    wait_for_labels(cluster, &["bundle.pavise.dev/steady"])?;
    let (files, written, lists) = (files(cluster)?, written_labels(cluster)?, lists(cluster)?);

    cluster.stop("kube-apiserver")?;
    cluster.resume("kube-apiserver")?;
    wait_for("the agent to list the bundles again", PATIENCE, || {
        Ok((self::lists(cluster)? > lists).then_some(()))
    })?;
    ensure!(self::files(cluster)? == files, "files that were right were written again");
    ensure!(written_labels(cluster)? == written, "labels that were right were written again");

    apply(cluster, &bundle("afterwards", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/afterwards_a.json"])
}

fn a_thousand_profiles(cluster: &Cluster) -> anyhow::Result<()> {
    let names: Vec<String> = (0..10).map(|number| format!("many-{number}")).collect();
    let keys: Vec<String> = (0..100).map(|number| format!("{number:02}.json")).collect();
    let profiles: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), ALLOW)).collect();
    let bundles: Vec<Value> = names.iter().map(|name| bundle(name, &profiles)).collect();
    apply(cluster, &json!({"apiVersion": "v1", "kind": "List", "items": bundles}))?;
    let bundle_labels: Vec<String> = names.iter().map(|name| format!("bundle.pavise.dev/{name}")).collect();
    wait_for_labels(cluster, &bundle_labels.iter().map(String::as_str).collect::<Vec<_>>())?;
    // A thousand labels would be sent to everybody who watches Nodes, with each heartbeat.
    let of_profiles = labels(cluster)?;
    let of_profiles = of_profiles.as_object().into_iter().flatten();
    let count = of_profiles.filter(|(key, _)| key.starts_with("seccomp.pavise.dev/")).count();
    ensure!(count <= 256, "the Node has {count} labels of profiles");
    expect_log(cluster, &["pavise-profiles/many-9", "[labels-by-bundle]"])?;
    for name in &names {
        for key in &keys {
            let path = file(cluster, &format!("{name}/{key}"));
            ensure!(fs::read_to_string(&path)? == ALLOW, "{} is not what was asked for", path.display());
        }
    }

    let delete = ["delete", "configmap", "-n", PROFILES].into_iter().chain(names.iter().map(String::as_str));
    cluster.kubectl().run(&delete.collect::<Vec<_>>())?;
    wait_for("a thousand profiles to go", PATIENCE, || {
        let labels = labels(cluster)?;
        let is_labelled = labels.as_object().into_iter().flatten().any(|(key, _)| key.contains("/many-"));
        let is_there = names.iter().any(|name| file(cluster, name).exists());
        Ok((!is_labelled && !is_there).then_some(()))
    })
}

fn malformed_profiles_are_said(cluster: &Cluster) -> anyhow::Result<()> {
    let rule = |names: &str, action: &str| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["{names}"], "action": "{action}"}}]}}"#
        )
    };
    let twice = r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_LOG"}"#;
    let refused = [
        ("array.json", "[]", "wrong-type"),
        ("cut-off.json", r#"{"defaultAction": "SCMP_ACT_A"#, "invalid-json"),
        ("duplicate.json", twice, "duplicate-key"),
        ("empty.json", "", "invalid-json"),
        ("no-json.json", "defaultAction: SCMP_ACT_ALLOW", "invalid-json"),
        ("nothing.json", "{}", "missing-default-action"),
        ("null.json", "null", "wrong-type"),
        ("action.json", &rule("mount", "SCMP_ACT_DENY"), "unknown-action"),
    ];
    let served = [
        ("good.json", ALLOW.to_owned(), None),
        ("nul.json", rule("mo\\u0000unt", "SCMP_ACT_ERRNO"), Some("unknown-syscall")),
        ("typo.json", rule("mout", "SCMP_ACT_ERRNO"), Some("unknown-syscall")),
    ];
    let good = served.iter().map(|(key, text, _)| (*key, text.as_str()));
    let all: Vec<(&str, &str)> = refused.iter().map(|(key, text, _)| (*key, *text)).chain(good).collect();
    let mut malformed = bundle("malformed", &all);
    malformed["binaryData"] = json!({"binary.json": "/w=="});
    let restarts = restarts(cluster)?;
    apply(cluster, &malformed)?;

    for (key, text, _) in &served {
        wait_for_file(cluster, &format!("malformed/{key}"), Some(text))?;
    }
    let said = served.iter().filter_map(|(key, _, code)| Some((*key, (*code)?)));
    let said = said.chain(refused.iter().map(|(key, _, code)| (*key, *code)));
    for (key, code) in said.chain([("binary.json", "binary-data")]) {
        expect_log(cluster, &[&format!("malformed/{key}"), &format!("[{code}]")])?;
    }
    for (key, _, _) in &refused {
        ensure!(!file(cluster, &format!("malformed/{key}")).exists(), "{key} was written");
    }
    ensure!(self::restarts(cluster)? == restarts, "the agent did not survive it");
    Ok(())
}

fn a_megabyte_of_brackets(cluster: &Cluster) -> anyhow::Result<()> {
    let brackets = "[".repeat(900_000);
    let restarts = restarts(cluster)?;
    apply(cluster, &bundle("brackets", &[("deep.json", &brackets), ("good.json", ALLOW)]))?;
    wait_for_file(cluster, "brackets/good.json", Some(ALLOW))?;
    expect_log(cluster, &["brackets/deep.json", "[invalid-json]"])?;
    cluster.kubectl().run(&["delete", "configmap", "brackets", "-n", PROFILES])?;
    ensure!(self::restarts(cluster)? == restarts, "the agent did not survive it");
    Ok(())
}

fn a_wrong_kubelet_root_is_noticed(cluster: &Cluster) -> anyhow::Result<()> {
    let ended = second_agent(cluster, &["seccomp", "state"], &[])?;
    ensure!(ended["exitCode"] == 1, "it ended otherwise: {ended}");
    let said = ended["message"].as_str().unwrap_or_default();
    for words in ["/var/lib/second/seccomp", "/var/lib/kubelet/seccomp", "hostPath"] {
        ensure!(said.contains(words), "it does not say {words}: {said}");
    }
    Ok(())
}

fn an_agent_that_runs_once_ends(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "configmaps", "-n", PROFILES, "-l", "pavise.dev/profiles"])?;
    apply(cluster, &bundle("once", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["bundle.pavise.dev/once"])?;
    let ended = second_agent(cluster, &["state"], &["--once"])?;
    ensure!(ended["exitCode"] == 0, "all is served, and it ended so: {ended}");

    apply(cluster, &bundle("once", &[("a.json", ALLOW), ("bad.json", "{}")]))?;
    let ended = second_agent(cluster, &["state"], &["--once"])?;
    ensure!(ended["exitCode"] == 1, "not all is served, and it ended so: {ended}");
    let said = ended["message"].as_str().unwrap_or_default();
    ensure!(said.contains("once/bad.json"), "it does not say what is not served: {said}");
    cluster.kubectl().run(&["delete", "configmap", "once", "-n", PROFILES]).map(drop)
}

/// Runs the agent's own pod a second time on the host's node, with other directories of the node for these volumes, and further
/// arguments. Returns how it ended.
fn second_agent(cluster: &Cluster, moved: &[&str], arguments: &[&str]) -> anyhow::Result<Value> {
    let kubectl = cluster.kubectl();
    let mut pod = kubectl.get(&["daemonset", "pavise-agent", "-n", SYSTEM])?["spec"]["template"].take();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"] = json!({"name": "second", "namespace": SYSTEM});
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["nodeName"] = json!(HOST_NODE);
    for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        let name = volume["name"].as_str().unwrap_or_default().to_owned();
        if moved.contains(&name.as_str()) {
            volume["hostPath"]["path"] = json!(format!("/var/lib/second/{name}"));
        }
    }
    let container = &mut pod["spec"]["containers"][0];
    // The first one has the port.
    container["ports"] = json!([]);
    let arguments = arguments.iter().map(|argument| json!(argument)).chain([json!("--listen=none")]);
    let own = container["args"].as_array().into_iter().flatten();
    let own =
        own.filter(|argument| !argument.as_str().is_some_and(|argument| argument.starts_with("--listen")));
    container["args"] = own.cloned().chain(arguments).collect();
    apply(cluster, &pod)?;
    let ended = wait_for("the second agent to end", PATIENCE, || {
        let pod = kubectl.get(&["pod", "second", "-n", SYSTEM])?;
        let ended = pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        Ok(ended.is_object().then_some(ended))
    })?;
    kubectl.run(&["delete", "pod", "second", "-n", SYSTEM])?;
    Ok(ended)
}

fn the_agents_have_a_share(cluster: &Cluster) -> anyhow::Result<()> {
    let metrics = cluster.kubectl().run(&["get", "--raw", "/metrics"])?;
    let is_ours = |line: &&str| {
        line.starts_with("apiserver_flowcontrol_dispatched_requests_total{")
            && line.contains("flow_schema=\"pavise\"")
            && line.contains("priority_level=\"pavise\"")
    };
    ensure!(
        metrics.lines().any(|line| is_ours(&line)),
        "no request of an agent was in the agents' own share"
    );
    Ok(())
}

/// What the agent has on the disk of the host's node: the inode and the time of the last write of each file,
/// the ledger among them.
fn files(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, (u64, i64, i64)>> {
    let mut found = BTreeMap::new();
    let node = cluster.layout().node(HOST_NODE);
    for directory in [file(cluster, ""), node.directory().join("var/lib/pavise")] {
        collect(&directory, &mut found)?;
    }
    ensure!(found.keys().any(|path| path.ends_with("ledger.json")), "there is no ledger among {found:?}");
    Ok(found)
}

fn collect(directory: &Path, found: &mut BTreeMap<String, (u64, i64, i64)>) -> anyhow::Result<()> {
    let attempt = || format!("listing {}", directory.display());
    for entry in fs::read_dir(directory).with_context(attempt)? {
        let path = entry.with_context(attempt)?.path();
        let metadata =
            fs::symlink_metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
        if metadata.is_dir() {
            collect(&path, found)?;
        } else if path.file_name().is_some_and(|name| name != "lock") {
            let state = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
            found.insert(path.display().to_string(), state);
        }
    }
    Ok(())
}

/// How often the container of the agent on the host's node was started again; none while it is not ready.
pub(crate) fn restarts(cluster: &Cluster) -> anyhow::Result<Option<u64>> {
    let status = &pavise::agent_pod(cluster, HOST_NODE)?["status"]["containerStatuses"][0];
    Ok(status["restartCount"].as_u64().filter(|_| status["ready"] == true))
}

/// How often the agent has said that it listed the bundles.
fn lists(cluster: &Cluster) -> anyhow::Result<usize> {
    Ok(agent_log(cluster)?.lines().filter(|line| line.contains("Bundles listed")).count())
}
