//! Pavise in a cluster: its image, from the Dockerfile, and its manifests, deployed as a user deploys them.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, retry, wait_for};
use crate::node::{Kind, Node};
use crate::{HOST_NODE, images, prerequisites, progress, repository};

/// The namespace of the agent.
pub const SYSTEM: &str = "pavise-system";
/// The namespace of the bundles.
pub const PROFILES: &str = "pavise-profiles";

/// The taint that its nodes are registered with: the agent takes it away when the profiles are there.
pub const STARTUP_TAINT: &str = "pavise.dev/not-ready";

/// What runs in the cluster.
const WORKLOADS: &[&str] = &["daemonset/pavise-agent", "deployment/pavise-catalog"];

/// The agent's port, as the manifests have it.
const PORT: &str = "7284";

/// What stands for the API server's port in the testbed's manifests.
const API_PORT: &str = "api-port";

/// How long one of them may take to get ready wherever it is to, one node after another.
const PATIENCE: Duration = Duration::from_mins(2);

/// Brings the cluster `name` up, with a node of each of these kinds and with Pavise in it: its image built from
/// the Dockerfile, and `manifests/testbed` applied. Returns when the agent runs on every node and has taken
/// the startup taint away, and the catalog runs.
///
/// # Errors
/// The image can't be built, the cluster does not come up, the API server refuses a manifest, or one of them
/// does not get ready: its log is in the error.
pub fn up(name: &str, kinds: &[Kind]) -> anyhow::Result<Cluster> {
    prerequisites::ensure()?;
    let image = images::pavise_image()?;
    let cluster = Cluster::up(name, kinds, &[STARTUP_TAINT], &[image])?;
    progress::step("Installing Pavise", || {
        deploy(&cluster)?;
        wait_until_it_runs(&cluster)
    })?;
    Ok(cluster)
}

/// Brings this checkout's Pavise into a cluster that runs already.
///
/// # Errors
/// As for [`up`]; and if one of the cluster's components has ended.
pub fn update(cluster: &Cluster) -> anyhow::Result<()> {
    let ended = cluster.ended()?;
    if !ended.is_empty() {
        bail!("{ended}\n`cargo xtask down {}` ends what is left of the cluster", cluster.layout().name());
    }
    let image = images::pavise_image()?;
    progress::step("Updating Pavise", || {
        cluster.import(&image)?;
        deploy(cluster)?;
        // The image's name stays the same, so no change of the manifests would have the pods replaced.
        let restart = [&["rollout", "restart", "-n", SYSTEM][..], WORKLOADS].concat();
        cluster.kubectl().run(&restart)?;
        wait_until_it_runs(cluster)
    })
}

fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let overlay = repository().join("manifests/testbed").display().to_string();
    let api_port = format!("\"{}\"", cluster.api_port());
    let manifests = kubectl.run(&["kustomize", &overlay])?;
    kubectl.apply(&manifests.replace(PORT, &free_port()?).replace(API_PORT, &api_port))?;
    wait_for_the_policy(&kubectl)
}

/// The first from [`PORT`] on that nobody listens on. It is below those that the kernel hands out for
/// connections, so that nobody takes it while the agent is started anew.
fn free_port() -> anyhow::Result<String> {
    let first: u16 = PORT.parse().context("reading the agent's port")?;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..first + 100).find(is_free).context("finding a free port for the agent")?;
    Ok(port.to_string())
}

fn wait_until_it_runs(cluster: &Cluster) -> anyhow::Result<()> {
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    for workload in WORKLOADS {
        let rollout = ["rollout", "status", workload, "-n", SYSTEM, &timeout];
        cluster.kubectl().run(&rollout).map_err(|error| {
            let state = state(cluster).unwrap_or_else(|error| format!("{error:#}"));
            error.context(format!("{workload} does not get ready; this is what there is:\n{state}"))
        })?;
    }
    wait_for("the startup taints to be taken away", PATIENCE, || {
        Ok((!has_startup_taints(&cluster.kubectl())?).then_some(()))
    })
}

/// Whether a Node has the startup taint.
fn has_startup_taints(kubectl: &Kubectl) -> anyhow::Result<bool> {
    let keys = kubectl.run(&["get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}"])?;
    Ok(keys.split_whitespace().any(|key| key == STARTUP_TAINT))
}

/// The API server takes a moment to enforce a policy that it has accepted.
fn wait_for_the_policy(kubectl: &Kubectl) -> anyhow::Result<()> {
    let agent = format!("--as=system:serviceaccount:{SYSTEM}:pavise-agent");
    let forbidden = ["label", "node", HOST_NODE, "example.com/forbidden=true", "--dry-run=server", &agent];
    wait_for("the policy own-node.pavise.dev to be enforced", PATIENCE, || {
        Ok(kubectl.run(&forbidden).is_err().then_some(()))
    })
}

/// What a person needs to find out why a test failed: pods, events, and what Pavise said.
///
/// # Errors
/// The API server does not answer.
pub fn state(cluster: &Cluster) -> anyhow::Result<String> {
    let kubectl = cluster.kubectl();
    let mut state = kubectl.run(&["get", "nodes,pods", "-A", "-o", "wide", "--show-labels"])?;
    state += &kubectl.run(&["get", "events", "-A", "--sort-by=.lastTimestamp"])?;
    state += "--- Pavise's logs\n";
    state += &kubectl.run(&[
        "logs",
        "-n",
        SYSTEM,
        "-l",
        "app.kubernetes.io/name in (pavise-agent, pavise-catalog)",
        "--all-containers",
        "--max-log-requests=50",
        "--prefix",
        "--tail=200",
    ])?;
    Ok(state)
}

/// How many requests that change something the agent on `node` has sent to the API server, successful or not.
///
/// # Errors
/// The API server's audit log can't be read.
pub fn agent_writes(cluster: &Cluster, node: &str) -> anyhow::Result<usize> {
    Ok(agent_requests(cluster, node)?.len())
}

/// These requests, as the API server's audit log has them.
///
/// # Errors
/// It can't be read.
pub fn agent_requests(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<Value>> {
    let path = cluster.layout().audit_log();
    let log = match fs::read_to_string(&path) {
        // It comes with its first line.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        log => log.with_context(|| format!("reading {}", path.display()))?,
    };
    let agent = format!("system:serviceaccount:{SYSTEM}:pavise-agent");
    let is_its = |request: &Value| {
        let user = &request["user"];
        user["username"] == agent && user["extra"]["authentication.kubernetes.io/node-name"][0] == node
    };
    let requests = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
    Ok(requests.filter(is_its).collect())
}

/// The profile that pods on `node` call `reference`, as it is there; none if it can't be read.
#[must_use]
pub fn served(cluster: &Cluster, node: &Node, reference: &str) -> Option<String> {
    match node.kind {
        Kind::Host => {
            let directory = cluster.layout().node(&node.name).kubelet_root().join("seccomp");
            fs::read_to_string(directory.join(reference)).ok()
        }
        Kind::Guest => {
            cluster.guest().ok()?.run(&["cat", &format!("/var/lib/kubelet/seccomp/{reference}")]).ok()
        }
    }
}

/// The agent's process on the host's node, as this machine numbers it.
///
/// # Errors
/// None is found within ten seconds.
pub fn agent_process(cluster: &Cluster) -> anyhow::Result<Pid> {
    process(cluster, "agent")
}

/// The process of `pavise <command>` in a pod of the host's node.
fn process(cluster: &Cluster, command: &str) -> anyhow::Result<Pid> {
    let cgroup = cluster.layout().cgroup();
    wait_for(&format!("the process of pavise {command}"), Duration::from_secs(10), || {
        let processes = fs::read_dir("/proc").context("listing processes")?;
        let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(numbers.map(Pid::from_raw).find(|process| is_pavise(*process, command, &cgroup)))
    })
}

fn is_pavise(process: Pid, command: &str, cgroup: &str) -> bool {
    let directory = PathBuf::from(format!("/proc/{process}"));
    let runs_pavise = fs::read_link(directory.join("exe")).is_ok_and(|exe| exe.ends_with("usr/bin/pavise"));
    let words = fs::read(directory.join("cmdline")).unwrap_or_default();
    runs_pavise
        && words.split(|byte| *byte == 0).nth(1) == Some(command.as_bytes())
        && fs::read_to_string(directory.join("cgroup")).is_ok_and(|cgroups| cgroups.contains(cgroup))
}

/// The agent's pod on `node`.
///
/// # Errors
/// There is none.
pub fn agent_pod(cluster: &Cluster, node: &str) -> anyhow::Result<Value> {
    let agents = ["pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=pavise-agent"];
    let pods = cluster.kubectl().get(&agents)?;
    let mut pods = pods["items"].as_array().into_iter().flatten();
    let agent = pods.find(|pod| pod["spec"]["nodeName"] == node).cloned();
    agent.with_context(|| format!("there is no agent on {node}"))
}

/// Asks the agent on `node` for `path` by HTTP, and returns the body of its answer. It asks again for ten seconds:
/// on a slow machine, a forwarded port may fail.
///
/// # Errors
/// No agent runs, or its last answer is not 200.
pub fn ask_agent(cluster: &Cluster, node: &str, path: &str) -> anyhow::Result<String> {
    retry(&format!("the agent on {node}"), Duration::from_secs(10), || ask_agent_once(cluster, node, path))
}

fn ask_agent_once(cluster: &Cluster, node: &str, path: &str) -> anyhow::Result<String> {
    let pod = agent_pod(cluster, node)?;
    let name = pod["metadata"]["name"].as_str().context("the agent's pod has no name")?;
    let port = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64();
    let port = port.and_then(|port| port.try_into().ok()).context("the agent has no port")?;
    cluster.kubectl().port_forward(SYSTEM, name, port)?.http_get(path)
}

/// The `ServiceAccount` token that the agent on the host's node uses, read from its file system as somebody
/// would who broke out to the node.
///
/// # Errors
/// No agent runs, or its files can't be read.
pub fn agent_token(cluster: &Cluster) -> anyhow::Result<String> {
    token(cluster, "agent")
}

/// The same of the catalog.
///
/// # Errors
/// No catalog runs on the host's node, or its files can't be read.
pub fn catalog_token(cluster: &Cluster) -> anyhow::Result<String> {
    token(cluster, "catalog")
}

fn token(cluster: &Cluster, command: &str) -> anyhow::Result<String> {
    let process = process(cluster, command)?;
    let path = format!("/proc/{process}/root/var/run/secrets/kubernetes.io/serviceaccount/token");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}
