//! The startup taint: a Node that is registered with it gets no ordinary pod before its profiles.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::command;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES, STARTUP_TAINT, SYSTEM};
use testbed::pods::{bundle, on};
use testbed::simulated;
use testbed::{GUEST_NODE, HOST_NODE};

use crate::Test;
use crate::steps::{ALLOW, LOG, PATIENCE, apply, expect_log, wait_for_labels};

/// The first is about the agents that came with the cluster.
pub(crate) const TESTS: &[(&str, Test)] = &[
    ("the_agents_took_the_startup_taint_away", the_agents_took_the_startup_taint_away),
    ("a_node_with_the_startup_taint_gets_no_pod_before_its_profiles", no_pod_comes_before_the_profiles),
    ("a_bad_bundle_does_not_keep_a_node_out", a_bad_bundle_does_not_keep_a_node_out),
];

/// How many Nodes are made for the race.
const RACES: usize = 20;
/// The label of all of them, and of their pods.
const RACE: &str = "e2e.pavise.dev/race";
/// How many profiles a bundle has.
const KEYS: usize = 10;
/// How long the scheduler leaves a pod alone for which it found no node (`podInitialBackoffSeconds`), and more.
const BACKOFF: Duration = Duration::from_secs(2);

fn the_agents_took_the_startup_taint_away(cluster: &Cluster) -> anyhow::Result<()> {
    for node in [HOST_NODE, GUEST_NODE] {
        let pod = pavise::agent_pod(cluster, node)?;
        let pod = pod["metadata"]["name"].as_str().context("the agent's pod has no name")?;
        let log = cluster.kubectl().run(&["logs", "-n", SYSTEM, pod, "--tail=-1"])?;
        let is_in_time = log
            .lines()
            .any(|line| line.contains("Startup taint taken away") && !line.contains("two minutes"));
        ensure!(is_in_time, "the agent of {node} took no taint away, or only because of the time: {log}");
        ensure!(!is_tainted(&cluster.kubectl().get(&["node", node])?), "{node} has the taint");
        ensure!(!node_writes(cluster, node)?.is_empty(), "the agent of {node} wrote nothing to its Node");
    }
    Ok(())
}

fn is_tainted(node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array();
    taints.into_iter().flatten().any(|taint| taint["key"] == STARTUP_TAINT)
}

/// When requests of the agent of `node` came that changed its Node, in order.
fn node_writes(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<SystemTime>> {
    let requests = pavise::agent_requests(cluster, node)?;
    let is_write = |request: &&Value| {
        request["objectRef"]["resource"] == "nodes" && request["responseStatus"]["code"] == 200
    };
    let at = |request: &Value| {
        let at = request["requestReceivedTimestamp"].as_str().context("the audit log has no time")?;
        humantime::parse_rfc3339(at).with_context(|| format!("reading the time {at}"))
    };
    requests.iter().filter(is_write).map(at).collect()
}

/// Nodes without a kubelet: a kubelet registers but one. The scheduler does not know the difference.
fn no_pod_comes_before_the_profiles(cluster: &Cluster) -> anyhow::Result<()> {
    let outcome = race(cluster);
    let kubectl = cluster.kubectl();
    let selector = format!("--selector={RACE}");
    kubectl.run(&["delete", "pods", &selector, "--force", "--grace-period=0"])?;
    kubectl.run(&["delete", "nodes", &selector])?;
    kubectl.run(&["delete", "configmaps", "-n", PROFILES, "race-a", "race-b", "race-bad"])?;
    outcome
}

fn race(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let keys: Vec<String> = (0..KEYS).map(|key| format!("p{key}.json")).collect();
    let profiles: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), LOG)).collect();
    apply(cluster, &bundle("race-a", &profiles))?;
    apply(cluster, &bundle("race-b", &profiles))?;
    // A profile that is refused holds nobody up.
    apply(cluster, &bundle("race-bad", &[("good.json", ALLOW), ("bad.json", "{}")]))?;
    wait_for_labels(
        cluster,
        &["bundle.pavise.dev/race-a", "bundle.pavise.dev/race-b", "seccomp.pavise.dev/race-bad_good.json"],
    )?;

    let nodes: Vec<String> = (0..RACES).map(|race| format!("race-{race}")).collect();
    let objects: Vec<Value> = nodes.iter().enumerate().map(|(index, name)| node(name, index)).collect();
    // As a kubelet does: in one request, with its state.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let start = kubectl.run(&["get", "--raw", "/api/v1/nodes?limit=1"])?;
    let start: Value = serde_json::from_str(&start).context("reading a list of Nodes")?;
    command::output_with_input(&mut kubectl.command(&["create", "-f", "-"]), list.as_bytes())?;
    let program = simulated::program(cluster)?;
    let agents = nodes.iter().map(|node| simulated::prepare(cluster, &program, node, "none"));
    let agents = agents.collect::<anyhow::Result<Vec<_>>>()?;
    let pods: Vec<Value> = nodes.iter().map(|node| pod(node)).collect();
    apply(cluster, &json!({"apiVersion": "v1", "kind": "List", "items": pods}))?;
    let since = Instant::now();
    wait_for("the scheduler to find no node for the pods", PATIENCE, || {
        let is_waiting = |pod: &Value| pod["status"]["conditions"][0]["reason"] == "Unschedulable";
        Ok((since.elapsed() > BACKOFF && all_pods(cluster)?.iter().all(is_waiting)).then_some(()))
    })?;

    let agents = agents.into_iter().map(simulated::Prepared::start).collect::<anyhow::Result<Vec<_>>>()?;
    let bound = wait_for("the pods to be bound", PATIENCE, || {
        let is_bound = |pod: &Value| pod["spec"]["nodeName"].is_string();
        Ok(all_pods(cluster)?.iter().all(is_bound).then_some(()))
    });
    bound.with_context(|| format!("the first agent has said\n{}", agents[0].log()))?;
    let references: Vec<String> = ["race-a", "race-b"]
        .iter()
        .flat_map(|bundle| keys.iter().map(move |key| format!("{bundle}/{key}")))
        .chain(["race-bad/good.json".to_owned()])
        .collect();
    let history = History::since(cluster, start["metadata"]["resourceVersion"].as_str().unwrap_or_default())?;
    for (node, agent) in nodes.iter().zip(&agents) {
        history
            .check(cluster, node, &references)
            .with_context(|| format!("its agent has said\n{}", agent.log()))?;
    }
    Ok(())
}

fn all_pods(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let mut pods = cluster.kubectl().get(&["pods", &format!("--selector={RACE}")])?;
    let pods = pods["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    ensure!(pods.len() == RACES, "there are {} pods", pods.len());
    Ok(pods)
}

/// A Node as a kubelet would register it: some have the taint behind another one, or with two effects. They
/// have no label `kubernetes.io/os`, or the DaemonSet would have a pod on each.
fn node(name: &str, index: usize) -> Value {
    let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
    let mut taints = vec![taint(STARTUP_TAINT, "NoSchedule")];
    if index % 2 == 1 {
        taints.insert(0, taint("example.com/other", "PreferNoSchedule"));
    }
    if index % 4 > 1 {
        taints.push(taint(STARTUP_TAINT, "NoExecute"));
    }
    let room = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, RACE: "true"}},
        "spec": {"providerID": format!("e2e://{name}"), "taints": taints},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}],
        },
    })
}

/// A pod for `node`. It is bound as soon as the startup taint is gone: it does not wait for anybody else to find
/// the Node well.
fn pod(node: &str) -> Value {
    let tolerations = ["not-ready", "unreachable"]
        .map(|key| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists"}));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": node, "namespace": "default", "labels": {RACE: "true"}},
        "spec": {
            "nodeSelector": on(node),
            "tolerations": tolerations,
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "none"}],
        },
    })
}

/// All versions of the race's Nodes and pods. Versions are those of one etcd: all writes are in one order.
struct History {
    nodes: Vec<(u64, Value)>,
    pods: Vec<(u64, Value)>,
}

impl History {
    fn since(cluster: &Cluster, version: &str) -> anyhow::Result<Self> {
        let versions = |path: &str| {
            let query =
                format!("{path}?watch=1&timeoutSeconds=10&resourceVersion={version}&labelSelector={RACE}");
            let events = cluster.kubectl().run(&["get", "--raw", &query])?;
            let version = |line: &str| {
                let mut event: Value = serde_json::from_str(line).context("reading an event of a watch")?;
                let object = event["object"].take();
                // 410, when the version is too old.
                ensure!(event["type"] != "ERROR", "the watch of {path} ended: {object}");
                let version =
                    object["metadata"]["resourceVersion"].as_str().context("no version")?.parse()?;
                Ok((version, object))
            };
            events.lines().map(version).collect::<anyhow::Result<Vec<_>>>()
        };
        std::thread::scope(|scope| {
            let pods = scope.spawn(|| versions("/api/v1/namespaces/default/pods"));
            let nodes = versions("/api/v1/nodes")?;
            let pods = pods.join().map_err(|_| anyhow::anyhow!("the watch of pods panicked"))??;
            Ok(Self { nodes, pods })
        })
    }

    /// Claims that `node` had these profiles on its disk, then its labels, then no taint, and then its pod.
    fn check(&self, cluster: &Cluster, node: &str, references: &[String]) -> anyhow::Result<()> {
        let first = |versions: &[(u64, Value)], is_it: &dyn Fn(&Value) -> bool| {
            let mut of_node = versions.iter().filter(|(_, object)| object["metadata"]["name"] == node);
            of_node.find(|(_, object)| is_it(object)).map(|(version, _)| *version)
        };
        let labels: Vec<String> = references
            .iter()
            .map(|reference| format!("seccomp.pavise.dev/{}", reference.replace('/', "_")))
            .chain(["bundle.pavise.dev/race-a".to_owned(), "bundle.pavise.dev/race-b".to_owned()])
            .collect();
        let has_labels =
            |node: &Value| labels.iter().all(|label| node["metadata"]["labels"][label.as_str()] == "true");
        let registered = first(&self.nodes, &is_tainted).context("it never had the taint")?;
        let labelled = first(&self.nodes, &has_labels).context("it has no labels")?;
        let untainted = first(&self.nodes, &|node| !is_tainted(node)).context("it has the taint")?;
        let bound =
            first(&self.pods, &|pod| pod["spec"]["nodeName"].is_string()).context("its pod is not bound")?;
        ensure!(
            registered < labelled && labelled < untainted && untainted < bound,
            "{node} was registered as {registered}, labelled as {labelled}, without the taint as {untainted}, and its \
             pod was bound as {bound}"
        );

        let written = node_writes(cluster, node)?;
        let labelled = written.first().with_context(|| format!("the agent of {node} wrote nothing"))?;
        let seccomp = cluster.layout().node(node).kubelet_root().join("seccomp");
        for path in references.iter().map(|reference| seccomp.join(reference)) {
            let changed = changed(&path)?;
            ensure!(changed <= *labelled, "{} came after the labels of {node}", path.display());
        }
        Ok(())
    }
}

/// When the file at `path` was last changed in any way.
fn changed(path: &PathBuf) -> anyhow::Result<SystemTime> {
    let file = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let since_epoch = Duration::new(file.ctime().try_into()?, file.ctime_nsec().try_into()?);
    Ok(SystemTime::UNIX_EPOCH + since_epoch)
}

/// Also what an administrator sets later is taken away.
fn a_bad_bundle_does_not_keep_a_node_out(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    apply(cluster, &bundle("keeping-out", &[("good.json", ALLOW), ("bad.json", "{}")]))?;
    let mut texts = bundle("keeping-out-texts", &[("bad", "profile keeping-out {\n  this is no rule\n}\n")]);
    texts["metadata"]["labels"]["pavise.dev/profiles"] = json!("apparmor");
    apply(cluster, &texts)?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/keeping-out_good.json"])?;
    expect_log(cluster, &["keeping-out", "bad.json", "unconfined"])?;
    let outcome = [HOST_NODE, GUEST_NODE].iter().try_for_each(|node| {
        kubectl.run(&["taint", "node", node, &format!("{STARTUP_TAINT}=:NoSchedule")])?;
        wait_for(&format!("the agent of {node} to take the taint away"), PATIENCE, || {
            Ok((!is_tainted(&kubectl.get(&["node", node])?)).then_some(()))
        })
    });
    kubectl.run(&["delete", "configmaps", "-n", PROFILES, "keeping-out", "keeping-out-texts"])?;
    outcome
}
