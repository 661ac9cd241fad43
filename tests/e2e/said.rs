//! What the agents say of pods: Events, metrics and reports. And pods that ask for many profiles at once, of
//! which nothing is ever started.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::images::BUSYBOX;
use testbed::kubectl::{retry, wait_for};
use testbed::pavise;
use testbed::pods::on;

use crate::steps::apply;

/// An image that no node has: its containers are never created, so all that is said of them is said of what
/// they ask for.
const NO_IMAGE: &str = "localhost/testbed/none:1";

/// What a container asks for a profile of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Seccomp,
    AppArmor,
}

impl Kind {
    /// As metrics and reports have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::AppArmor => "apparmor",
        }
    }

    /// A security context with the profile `reference`.
    pub(crate) fn context(self, reference: &str) -> Value {
        let field = match self {
            Self::Seccomp => "seccompProfile",
            Self::AppArmor => "appArmorProfile",
        };
        json!({field: {"type": "Localhost", "localhostProfile": reference}})
    }
}

/// Which containers of a pod ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum List {
    Init,
    Sidecar,
    Regular,
    Ephemeral,
}

impl List {
    pub(crate) const ALL: [Self; 4] = [Self::Init, Self::Sidecar, Self::Regular, Self::Ephemeral];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Regular => "regular",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// Makes a pod on `node` in which a container of this list asks for each of these profiles: (its name, the
/// reference). No container of it is ever created.
pub(crate) fn make_asking_pod(
    cluster: &Cluster,
    node: &str,
    name: &str,
    list: List,
    kind: Kind,
    asking: &[(&str, &str)],
) -> anyhow::Result<()> {
    let container = |name: &str| json!({"name": name, "image": NO_IMAGE, "imagePullPolicy": "Never"});
    let containers = asking.iter().map(|(name, reference)| {
        let mut container = container(name);
        container["securityContext"] = kind.context(reference);
        if matches!(list, List::Sidecar) {
            container["restartPolicy"] = json!("Always");
        }
        container
    });
    let containers: Value = containers.collect();
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": on(node),
        "containers": [container("idle")],
    });
    match list {
        List::Init | List::Sidecar => spec["initContainers"] = containers.clone(),
        List::Regular => spec["containers"] = containers.clone(),
        List::Ephemeral => {}
    }
    let metadata = json!({"name": name, "namespace": "default"});
    apply(cluster, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))?;
    if matches!(list, List::Ephemeral) {
        let patch = json!({"spec": {"ephemeralContainers": containers}}).to_string();
        let patch =
            ["patch", "pod", name, "--subresource=ephemeralcontainers", "--type=strategic", "-p", &patch];
        cluster.kubectl().run(&patch)?;
    }
    Ok(())
}

/// A pod on `node` with one container that sleeps and of whose confinement nothing is said.
pub(crate) fn sleeping_pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": on(node),
            "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "86400"]}],
        },
    })
}

/// Deletes pods, and returns when the API server has none of them any more.
pub(crate) fn delete_pods(cluster: &Cluster, names: &[&str]) -> anyhow::Result<()> {
    cluster.kubectl().run(&[&["delete", "pod", "--grace-period=0", "--force"], names].concat()).map(drop)
}

/// Something that is to be said of a container.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) pod: String,
    pub(crate) list: List,
    pub(crate) container: String,
    pub(crate) kind: Kind,
    pub(crate) reference: String,
    pub(crate) reason: &'static str,
    /// What its Event says besides.
    pub(crate) words: &'static [&'static str],
}

impl Finding {
    /// Of the container `main` of a pod.
    pub(crate) fn of_main(pod: &str, kind: Kind, reference: &str, reason: &'static str) -> Self {
        let (pod, container, reference) = (pod.to_owned(), "main".to_owned(), reference.to_owned());
        Self { pod, list: List::Regular, container, kind, reference, reason, words: &[] }
    }

    /// What its Event is about, beside the container: of one that runs, it is the container itself.
    fn about(&self) -> &str {
        if self.reason == "ProfileNotEnforced" { &self.container } else { &self.reference }
    }

    /// Claims that one of these Events is about it, and says all of it.
    fn expect_event(&self, events: &[Value], node: &str) -> anyhow::Result<()> {
        let of_pod = events.iter().filter(|event| event["regarding"]["name"] == self.pod);
        let alike: Vec<&Value> = of_pod.filter(|event| event["reason"] == self.reason).collect();
        let told = alike.iter().find(|event| says(event, &self.container) && says(event, self.about()));
        let told =
            told.with_context(|| format!("no Event says {self:?}; of that reason there is {alike:?}"))?;
        ensure!(told["type"] == "Warning", "it is no warning: {told}");
        ensure!(told["regarding"]["kind"] == "Pod", "it is about something else: {told}");
        let is_by = told["reportingInstance"].as_str().is_some_and(|instance| instance.contains(node));
        ensure!(is_by || says(told, node), "it does not say where: {told}");
        for word in self.words {
            ensure!(says(told, word), "it does not say {word:?}: {told}");
        }
        Ok(())
    }

    /// Claims that one of these entries of a report is about it, and is complete.
    fn expect_entry(&self, entries: &[Value]) -> anyhow::Result<()> {
        let is_its = |entry: &&Value| {
            is_of(entry, &self.pod)
                && entry["container"] == self.container
                && entry["containerKind"] == self.list.as_str()
                && entry["kind"] == self.kind.as_str()
                && entry["reason"] == self.reason
        };
        let entry = entries.iter().find(is_its);
        let entry = entry.with_context(|| format!("no entry of the report says {self:?}: {entries:?}"))?;
        ensure!(entry["reference"] == self.reference, "it has another reference: {entry}");
        for field in ["message", "since"] {
            ensure!(entry[field].as_str().is_some_and(|text| !text.is_empty()), "it has no {field}: {entry}");
        }
        Ok(())
    }
}

/// Waits until Events and the report of `node` say all of this, and shows how long it took.
pub(crate) fn expect_said(
    cluster: &Cluster,
    node: &str,
    patience: Duration,
    findings: &[Finding],
) -> anyhow::Result<()> {
    let start = Instant::now();
    retry("the Events", patience, || {
        let events = all_events(cluster)?;
        findings.iter().try_for_each(|finding| finding.expect_event(&events, node))
    })?;
    // No claim: kubectl takes most of it.
    eprintln!("    {} findings are Events after {:.1} s", findings.len(), start.elapsed().as_secs_f64());
    expect_reported(cluster, node, patience, findings)
}

/// Waits until the report of `node` says all of this.
pub(crate) fn expect_reported(
    cluster: &Cluster,
    node: &str,
    patience: Duration,
    findings: &[Finding],
) -> anyhow::Result<()> {
    retry(&format!("the report of {node}"), patience, || {
        let entries = entries(cluster, node)?;
        findings.iter().try_for_each(|finding| finding.expect_entry(&entries))
    })
}

/// Shows how long after `since` it was said what is wrong with a pod: by the clock of the host's node.
pub(crate) fn show_latency(cluster: &Cluster, pod: &str, since: SystemTime) -> anyhow::Result<()> {
    let first = events(cluster, pod)?.into_iter().next().with_context(|| format!("nobody spoke of {pod}"))?;
    let time = first["eventTime"].as_str().context("an Event has no time")?;
    let time = humantime::parse_rfc3339(time).with_context(|| format!("reading {time}"))?;
    let latency = time.duration_since(since).unwrap_or_default();
    eprintln!(
        "    an Event {:.2} s after the pod was asked for, kubectl's start included",
        latency.as_secs_f64()
    );
    Ok(())
}

/// Waits until it is said of a pod that all is put right, and the report has no word about it any more.
pub(crate) fn expect_resolved(
    cluster: &Cluster,
    node: &str,
    patience: Duration,
    pod: &str,
) -> anyhow::Result<()> {
    expect_said_to_be_right(cluster, patience, pod)?;
    wait_for(&format!("the report of {node} to leave out {pod}"), patience, || {
        Ok(entries_of(cluster, node, pod)?.is_empty().then_some(()))
    })
}

/// Waits until it is said of a pod that all is put right.
pub(crate) fn expect_said_to_be_right(
    cluster: &Cluster,
    patience: Duration,
    pod: &str,
) -> anyhow::Result<()> {
    wait_for(&format!("an Event that all is put right in {pod}"), patience, || {
        let event = events(cluster, pod)?.into_iter().find(|event| event["reason"] == "ProfilesResolved");
        let Some(event) = event else { return Ok(None) };
        ensure!(event["type"] == "Normal", "it is a warning: {event}");
        Ok(Some(()))
    })
}

/// What the agents have said in the namespace `default`.
fn all_events(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let mut all = cluster.kubectl().get(&["events.v1.events.k8s.io", "-n", "default"])?;
    let all = all["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(all.into_iter().filter(|event| event["reportingController"] == "pavise.dev/agent").collect())
}

/// What the agents have said of the pod `name`, and of earlier ones of that name.
pub(crate) fn events(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<Value>> {
    let all = all_events(cluster)?.into_iter();
    Ok(all.filter(|event| event["regarding"]["name"] == name).collect())
}

/// The report of `node`.
pub(crate) fn report(cluster: &Cluster, node: &str) -> anyhow::Result<Value> {
    let report = cluster.kubectl().get(&["nodeprofilereports.pavise.dev", node])?;
    ensure!(report.is_object(), "{node} has no report");
    Ok(report)
}

/// What the report of `node` has to say of containers.
fn entries(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<Value>> {
    let mut report = report(cluster, node)?;
    Ok(report["status"]["references"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// The same of the containers of one pod.
pub(crate) fn entries_of(cluster: &Cluster, node: &str, pod: &str) -> anyhow::Result<Vec<Value>> {
    Ok(entries(cluster, node)?.into_iter().filter(|entry| is_of(entry, pod)).collect())
}

fn says(event: &Value, word: &str) -> bool {
    event["note"].as_str().is_some_and(|note| note.contains(word))
}

fn is_of(entry: &Value, pod: &str) -> bool {
    entry["pod"] == format!("default/{pod}")
}

/// The value of one of the metrics of the agent on `node`; 0 if it is not there.
pub(crate) fn number(cluster: &Cluster, node: &str, metric: &str) -> anyhow::Result<u64> {
    value(&pavise::ask_agent(cluster, node, "/metrics")?, metric)
}

fn value(metrics: &str, metric: &str) -> anyhow::Result<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    Ok(value.unwrap_or("0").parse()?)
}

/// How many references, containers and problems there were on a node when a test began: pods of other tests
/// have some as well.
pub(crate) struct Counted<'a> {
    cluster: &'a Cluster,
    node: &'static str,
    before: BTreeMap<String, u64>,
}

impl<'a> Counted<'a> {
    /// Counts when nothing changes any more of what earlier tests did.
    pub(crate) fn on(cluster: &'a Cluster, node: &'static str) -> anyhow::Result<Self> {
        let mut last = None;
        let before = wait_for(&format!("the numbers of {node} to stay"), Duration::from_mins(1), || {
            let now = gauges(&pavise::ask_agent(cluster, node, "/metrics")?)?;
            if last.as_ref() == Some(&now) {
                return Ok(Some(now));
            }
            last = Some(now);
            std::thread::sleep(Duration::from_secs(1));
            Ok(None)
        })?;
        Ok(Self { cluster, node, before })
    }

    /// Waits until there are so many more of each of these.
    pub(crate) fn expect_more(&self, patience: Duration, more: &[(&str, u64)]) -> anyhow::Result<()> {
        retry(&format!("the metrics of {}", self.node), patience, || {
            let metrics = pavise::ask_agent(self.cluster, self.node, "/metrics")?;
            for (metric, more) in more {
                let before = self.before.get(*metric).copied().unwrap_or_default();
                let now = value(&metrics, metric)?;
                if now != before + more {
                    bail!("{metric} was {before} and is {now}, not {more} more");
                }
            }
            Ok(())
        })
    }
}

/// What is counted of pods.
fn gauges(metrics: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    const NAMES: [&str; 3] = ["pavise_references{", "pavise_containers{", "pavise_pod_problems{"];
    let lines = metrics.lines().filter(|line| NAMES.iter().any(|name| line.starts_with(name)));
    let read = |line: &str| {
        let (metric, value) = line.rsplit_once(' ').context("a metric has no value")?;
        Ok((metric.to_owned(), value.parse().with_context(|| format!("reading {line:?}"))?))
    };
    lines.map(read).collect()
}
