//! A profile in Docker's and Podman's format, as it is out there: Podman's own default. containerd would drop
//! its conditions, so that what it gates behind capabilities would be allowed to everybody.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::debian;
use testbed::pods::{bundle, confined_pod};

use crate::Test;
use crate::steps::{apply, expect_refusal, file, wait_for_labels, wait_until_running};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("podmans_own_profile_is_resolved_and_allows_nothing_that_it_gates", podmans_own_profile_is_resolved)];

const ALLOW: &str = "SCMP_ACT_ALLOW";
/// What containerd and Docker give to a container of which nothing else is said, without `CAP_`.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn podmans_own_profile_is_resolved(cluster: &Cluster) -> anyhow::Result<()> {
    let text = debian::podmans_profile()?;
    let original: Value = serde_json::from_str(&text).context("reading Podman's profile")?;
    apply(cluster, &bundle("podman", &[("seccomp.json", &text)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/podman_seccomp.json"])?;
    let resolved = fs::read_to_string(file(cluster, "podman/seccomp.json"))?;
    let resolved: Value = serde_json::from_str(&resolved).context("reading the resolved profile")?;

    expect_no_conditions(&resolved)?;
    let gated = names(&original, |rule| is_allowing(rule) && !holds(rule));
    let allowed = names(&original, |rule| is_allowing(rule) && holds(rule));
    ensure!(gated.len() > 20, "Podman's profile gates next to nothing: {gated:?}");
    let really = names(&resolved, is_allowing);
    for call in gated.difference(&allowed) {
        ensure!(!really.contains(call), "{call} is allowed, and Podman's profile gates it");
    }
    for call in &allowed {
        ensure!(really.contains(call), "{call} is not allowed, and Podman's profile allows it");
    }

    // Both may name their host; the profile that the kernel was given does not let the first one do so.
    let mut confined = may_name_its_host("under-podmans-profile");
    confined["spec"]["securityContext"]["seccompProfile"]["localhostProfile"] = json!("podman/seccomp.json");
    let mut unconfined = may_name_its_host("under-no-profile");
    unconfined["spec"]["securityContext"]["seccompProfile"] = json!({"type": "Unconfined"});
    for pod in [&confined, &unconfined] {
        apply(cluster, pod)?;
    }
    wait_until_running(cluster, "under-podmans-profile")?;
    wait_until_running(cluster, "under-no-profile")?;
    let name_host = |pod| cluster.kubectl().run(&["exec", pod, "--", "hostname", "renamed"]);
    name_host("under-no-profile").context("a host can't be named here at all")?;
    expect_refusal("sethostname", name_host("under-podmans-profile"), "Operation not permitted")?;
    let everyday =
        "mkdir /tmp/d && echo x > /tmp/d/f && cat /tmp/d/f && ls -l /tmp/d && chmod 600 /tmp/d/f && id";
    cluster.kubectl().run(&["exec", "under-podmans-profile", "--", "sh", "-c", everyday]).map(drop)
}

/// Claims that `resolved` has nothing that containerd drops.
fn expect_no_conditions(resolved: &Value) -> anyhow::Result<()> {
    let dropped = |object: &Value| {
        let keys = object.as_object().into_iter().flatten().map(|(key, _)| key.clone());
        let is_dropped = |key: &String| {
            ["archMap", "includes", "excludes", "name", "errno", "defaultErrno"].contains(&key.as_str())
        };
        keys.filter(is_dropped).collect::<Vec<_>>()
    };
    for object in rules(resolved).chain([resolved]) {
        let dropped = dropped(object);
        ensure!(dropped.is_empty(), "containerd would drop {dropped:?}");
    }
    Ok(())
}

fn rules(document: &Value) -> impl Iterator<Item = &Value> {
    document["syscalls"].as_array().into_iter().flatten()
}

fn names(document: &Value, is_meant: impl Fn(&Value) -> bool) -> BTreeSet<&str> {
    rules(document).filter(|rule| is_meant(rule)).flat_map(|rule| texts(&rule["names"])).collect()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn is_allowing(rule: &Value) -> bool {
    rule["action"] == ALLOW
}

/// Whether a rule of Podman's profile holds on this machine for a container with the usual capabilities.
fn holds(rule: &Value) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let has = |capability: &str| {
        capability.strip_prefix("CAP_").is_some_and(|capability| CAPABILITIES.contains(&capability))
    };
    let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
    let mut named = texts(&includes["arches"]).peekable();
    let is_included = named.peek().is_none() || named.any(|name| name == architecture);
    let is_excluded = texts(&excludes["arches"]).any(|name| name == architecture);
    is_included && !is_excluded && texts(&includes["caps"]).all(has) && !texts(&excludes["caps"]).any(has)
}

/// A pod that has the capability to change the name of its host, which is its own and nobody else's.
fn may_name_its_host(name: &str) -> Value {
    let mut pod = confined_pod(name, "");
    pod["spec"]["containers"][0]["securityContext"] = json!({"capabilities": {"add": ["SYS_ADMIN"]}});
    pod
}
