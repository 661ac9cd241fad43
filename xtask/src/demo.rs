//! `demo`: the Kubernetes tutorials of seccomp and AppArmor on a real cluster, with Pavise in place of files
//! copied by hand.
//! What it prints is read from the cluster, and it fails when that is not what the README promises.

mod apparmor;
mod policies;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use comfy_table::{Table, presets};
use serde_json::Value;
use testbed::cluster::Cluster;
use testbed::kubectl::{Kubectl, retry};
use testbed::node::Kind;
use testbed::pavise::PROFILES;
use testbed::{pavise, progress};

/// How long the pods may take to be what they are to become.
const PATIENCE: Duration = Duration::from_mins(1);
/// The port of the tutorial's server.
const PORT: u16 = 5678;
/// open(2): a read that would wait fails instead.
const O_NONBLOCK: i32 = nix::fcntl::OFlag::O_NONBLOCK.bits();

pub(crate) fn run() -> anyhow::Result<()> {
    let cluster = pavise::up("demo", &Kind::ALL)?;
    let shown = show(&cluster);
    if shown.is_err() {
        eprintln!("{}", pavise::state(&cluster)?);
    }
    progress::step("Ending the cluster", || cluster.down())?;
    shown
}

fn show(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let mut log = KernelLog::from_now_on()?;
    let overlay = testbed::repository().join("manifests/testbed/seccomp-tutorial");
    let pods = progress::step("kubectl apply -k manifests/testbed/seccomp-tutorial", || {
        kubectl.run(&["apply", "-k", &overlay.display().to_string()])?;
        for node in cluster.nodes() {
            retry(&format!("{} to be served", node.name), PATIENCE, || is_served(&kubectl, &node.name))?;
        }
        settled_pods(&kubectl)
    })?;

    println!("\nNodes\n{}", nodes(&kubectl)?);
    println!("\nProfiles of the ConfigMap {PROFILES}/profiles\n{}", profiles(cluster, &kubectl)?);
    println!(
        "\nPods, and what the server in each says that it could and could not do\n{}",
        seen_from_inside(&pods)
    );
    println!("\nWhat the kernel logs of audit-pod\n{}", audit_lines(&kubectl, &mut log)?);
    check(&pods)?;
    apparmor::show(cluster, &kubectl)?;
    policies::show(&kubectl)
}

/// What there is to say of one pod.
struct Seen {
    name: String,
    profile: String,
    node: String,
    state: String,
    answer: String,
    /// System calls, and what came of them.
    attempts: BTreeMap<String, String>,
}

/// The pods, once each runs and answers, or has failed to start.
fn settled_pods(kubectl: &Kubectl) -> anyhow::Result<Vec<Seen>> {
    ["default-pod", "audit-pod", "violation-pod", "fine-pod"]
        .into_iter()
        .map(|name| retry(&format!("{name} to run or to fail"), PATIENCE, || look_at(kubectl, name)))
        .collect()
}

/// # Errors
/// The node has not all of the tutorial's bundle, yet.
fn is_served(kubectl: &Kubectl, node: &str) -> anyhow::Result<()> {
    let labels = kubectl.get(&["node", node])?["metadata"]["labels"].take();
    ensure!(labels["bundle.pavise.dev/profiles"] == "true", "{node} has the labels {labels}");
    Ok(())
}

/// # Errors
/// The pod neither answers nor has failed to start, yet.
fn look_at(kubectl: &Kubectl, name: &str) -> anyhow::Result<Seen> {
    let pod = kubectl.get(&["pod", name, "-n", "default"])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let profile = &pod["spec"]["securityContext"]["seccompProfile"];
    let seen = Seen {
        name: name.to_owned(),
        profile: profile["localhostProfile"].as_str().map_or_else(|| text(&profile["type"]), str::to_owned),
        node: text(&pod["spec"]["nodeName"]),
        state: "Running".to_owned(),
        answer: String::new(),
        attempts: BTreeMap::new(),
    };
    let container = &pod["status"]["containerStatuses"][0];
    if container["state"]["running"].is_object() {
        let forward = kubectl.port_forward("default", name, PORT)?;
        let answer = forward.http_get("/")?.trim().to_owned();
        let attempts = serde_json::from_str(&forward.http_get("/attempts")?).context("reading /attempts")?;
        return Ok(Seen { answer, attempts, ..seen });
    }
    let mut states = ["state", "lastState"].map(|state| &container[state]["terminated"]).into_iter();
    let ended = states
        .find(|ended| ended.is_object())
        .with_context(|| format!("{name} is still {}", pod["status"]["phase"]))?;
    Ok(Seen { state: format!("{} (exit code {})", text(&ended["reason"]), ended["exitCode"]), ..seen })
}

fn nodes(kubectl: &Kubectl) -> anyhow::Result<Table> {
    let mut table = table(&["NODE", "LABELS OF PAVISE"]);
    let nodes = kubectl.get(&["nodes"])?;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
        let ours = labels
            .filter(|(key, _)| key.contains("pavise.dev/"))
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
        table.add_row([
            node["metadata"]["name"].as_str().unwrap_or_default(),
            &ours.collect::<Vec<_>>().join("\n"),
        ]);
    }
    Ok(table)
}

fn profiles(cluster: &Cluster, kubectl: &Kubectl) -> anyhow::Result<Table> {
    let mut table = table(&["LOCALHOST PROFILE", "NODE", "FILE", "LABEL"]);
    let bundle = kubectl.get(&["configmap", "profiles", "-n", PROFILES])?;
    for node in cluster.nodes() {
        let labels = kubectl.get(&["node", &node.name])?["metadata"]["labels"].take();
        for (key, text) in bundle["data"].as_object().into_iter().flatten() {
            let label = format!("seccomp.pavise.dev/profiles_{key}");
            let labelled = if labels[&label] == "true" { label.as_str() } else { "none" };
            let file = pavise::served(cluster, node, &format!("profiles/{key}"));
            let state = file_state(file.as_deref(), text.as_str().unwrap_or_default());
            table.add_row([&format!("profiles/{key}"), &node.name, state, labelled]);
        }
    }
    Ok(table)
}

fn file_state(file: Option<&str>, text: &str) -> &'static str {
    match file {
        Some(served) if served == text => "as in the ConfigMap",
        Some(_) => "differs",
        None => "missing",
    }
}

fn seen_from_inside(pods: &[Seen]) -> Table {
    let calls = pods.iter().flat_map(|pod| pod.attempts.keys()).collect::<std::collections::BTreeSet<_>>();
    let heads: Vec<&str> = ["POD", "SECCOMP PROFILE", "NODE", "STATE", "HTTP"]
        .into_iter()
        .chain(calls.iter().map(|call| call.as_str()))
        .collect();
    let mut table = table(&heads);
    for pod in pods {
        let outcomes = calls.iter().map(|call| match pod.attempts.get(*call).map(String::as_str) {
            None => "-",
            Some("allowed") => "yes",
            Some("operation not permitted") => "no",
            Some(other) => other,
        });
        let head = [&pod.name, &pod.profile, &pod.node, &pod.state, &pod.answer].map(String::as_str);
        let head = head.map(|cell| if cell.is_empty() { "-" } else { cell });
        table.add_row(head.into_iter().chain(outcomes));
    }
    table
}

/// The kernel's log from a moment on (Documentation/ABI/testing/dev-kmsg).
struct KernelLog(File);

impl KernelLog {
    fn from_now_on() -> anyhow::Result<Self> {
        let mut log = File::options()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        log.seek(SeekFrom::End(0)).context("going to the end of /dev/kmsg")?;
        Ok(Self(log))
    }

    /// The lines since the last call that tell of a program under a filter that logs (`SECCOMP_RET_LOG`,
    /// seccomp(2)).
    fn audit_lines(&mut self, program: &str) -> Vec<String> {
        let (mut record, mut lines) = ([0; 8192], Vec::new());
        // One record a read; after the last one a read fails with EAGAIN.
        while let Ok(length) = self.0.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]);
            let line = text.lines().next().and_then(|line| line.split_once(';')).map_or("", |(_, line)| line);
            if line.contains("type=1326") && line.contains(&format!("comm=\"{program}\"")) {
                lines.push(format!(" {line}"));
            }
        }
        lines
    }
}

/// Has audit-pod make some system calls and returns what the kernel logs of them. It logs few lines every
/// five seconds (`printk_ratelimit`), and the start of a pod takes them all: so this may take some attempts.
fn audit_lines(kubectl: &Kubectl, log: &mut KernelLog) -> anyhow::Result<String> {
    for _ in 0..10 {
        kubectl.port_forward("default", "audit-pod", PORT)?.http_get("/")?;
        let lines = log.audit_lines("http-echo");
        if !lines.is_empty() {
            return Ok(lines.into_iter().take(5).collect::<Vec<_>>().join("\n"));
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(" none in /dev/kmsg: an audit daemon takes them; try `ausearch -m SECCOMP`".to_owned())
}

/// What the README says of this demonstration.
fn check(pods: &[Seen]) -> anyhow::Result<()> {
    let [default, audit, violation, fine] = pods else { anyhow::bail!("there are not four pods") };
    for pod in [default, audit, fine] {
        ensure!(
            pod.state == "Running" && pod.answer.starts_with("just made some"),
            "{} does not answer: {}",
            pod.name,
            pod.state
        );
    }
    ensure!(
        violation.state.starts_with("StartError"),
        "violation-pod is not refused its start: {}",
        violation.state
    );
    for call in ["getcwd", "statfs", "uname"] {
        ensure!(audit.attempts[call] == "allowed", "audit-pod may not {call}: {}", audit.attempts[call]);
        ensure!(
            fine.attempts[call] == "operation not permitted",
            "fine-pod may {call}: {}",
            fine.attempts[call]
        );
    }
    Ok(())
}

pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    table
}
