//! `bench pods`: what it costs an agent to check the pods of a full node, and how soon it says what is wrong.
//! The node is simulated: its pods are objects that nobody runs, and their containers have made-up names,
//! which the agent looks for among this machine's processes in vain.
//!
//! Every time begins just before a request is sent. It ends, for
//! - "Event": when a watch of the pod's Events tells of it;
//! - "resolved": when the agent's metrics say so (there is a look each 5 ms).

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::node::Kind;
use testbed::{pavise, progress};

use super::api::Api;
use super::bundles::{Bundle, Size};
use super::report::{Amount, Report, percentile};
use super::simulated::{NODE, SimulatedAgent};
use super::{IDLE, PAUSE, SETTLED, mebibytes, milliseconds};

/// How many pods there are on the node. The kubelet's own limit is 110 unless it is told otherwise.
const PODS: usize = 500;
/// How many profiles a bundle has: pods share them.
const PROFILES: usize = 100;
/// How many pods with a profile that is missing are created one by one.
const SINGLES: usize = 50;
/// How long the agent may take for all pods, and the API server to take them.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(5);
/// How long there is nothing to write for an agent that has nothing to write: of many changes of its report
/// it writes one in ten seconds.
const QUIET: Duration = Duration::from_secs(12);

/// Two containers of a pod have profiles of this bundle, and the third one of the other.
const THERE: &str = "there";
const LATER: &str = "later";

const RESOLVED: &str = "pavise_references{kind=\"seccomp\",state=\"resolved\"}";
const UNRESOLVED: &str = "pavise_references{kind=\"seccomp\",state=\"unresolved\"}";

pub(super) fn run() -> anyhow::Result<()> {
    let cluster = pavise::up("bench", &[Kind::Host])?;
    let measured = measure(&cluster);
    if measured.is_err() {
        eprintln!("{}", pavise::state(&cluster)?);
    }
    progress::step("Ending the cluster", || cluster.down())?;
    println!("\n{}\n", measured?);
    Ok(())
}

fn measure(cluster: &Cluster) -> anyhow::Result<Report> {
    let api = Api::new(cluster)?;
    let there = Bundle::new(THERE.to_owned(), Size::Small, 0, PROFILES);
    api.create(&there.text)?;
    let agent =
        progress::step("Starting an agent on a simulated node", || SimulatedAgent::start(cluster, &api))?;
    let bench = Bench { cluster, api, agent };
    let mut report = Report::new();
    bench.measure(&mut report).with_context(|| format!("the agent has said\n{}", bench.agent.log()))?;
    Ok(report)
}

struct Bench<'a> {
    cluster: &'a Cluster,
    api: Api,
    agent: SimulatedAgent,
}

impl Bench<'_> {
    fn measure(&self, report: &mut Report) -> anyhow::Result<()> {
        sleep(SETTLED);
        let idle = Amount::Bytes(self.agent.process().resident()?);
        progress::step(&format!("Creating {PODS} pods"), || self.fill(report))?;
        let problems = Amount::Bytes(self.agent.process().resident()?);
        progress::step("Adding the profile that one container of each lacks", || self.resolve(report))?;
        let full = Amount::Bytes(self.agent.process().resident()?);
        progress::step("Restarting all their containers", || self.restart(report))?;
        progress::step(&format!("Creating {SINGLES} pods one by one"), || self.singles(report))?;
        report.judge("Memory of the agent without pods", mebibytes(12), idle, "with 100 profiles");
        report.judge(
            &format!("… with {PODS} pods, and as many problems"),
            mebibytes(16),
            problems,
            &format!("{} references", 3 * PODS),
        );
        report.judge(&format!("… with {PODS} pods"), mebibytes(16), full, "all is well with them");
        progress::step("Leaving the agent alone for a minute", || self.idle(report))
    }

    /// Creates all pods. A container of each lacks its profile.
    fn fill(&self, report: &mut Report) -> anyhow::Result<()> {
        let before = self.writes()?;
        let start = Instant::now();
        for pod in 0..PODS {
            let references = [reference(THERE, pod), reference(THERE, pod + 1), reference(LATER, pod)];
            self.create_pod(&name(pod), &references)?;
            self.set_status(pod, 0)?;
        }
        let created = start.elapsed();
        self.wait_for_references(2 * PODS, PODS)?;
        let checked = start.elapsed();
        wait_for("an Event on each pod", PATIENCE, || {
            Ok((self.api.events("ProfileMissing")? >= PODS).then_some(()))
        })?;
        let said = start.elapsed();
        let remark = format!("creating them took {}", Amount::Time(created));
        report.tell(&format!("{PODS} pods created → all checked"), Amount::Time(checked), &remark);
        report.tell("… an Event on each, as each lacks a profile", Amount::Time(said), "");
        let writes = self.settled_writes()? - before;
        report.tell("… API writes of the node", Amount::Count(writes), "the Events among them");
        Ok(())
    }

    /// Adds what all pods lack, in one bundle.
    fn resolve(&self, report: &mut Report) -> anyhow::Result<()> {
        let later = Bundle::new(LATER.to_owned(), Size::Small, PROFILES, PROFILES);
        let before = self.writes()?;
        let start = Instant::now();
        self.api.create(&later.text)?;
        self.wait_for_references(3 * PODS, 0)?;
        let resolved = Amount::Time(start.elapsed());
        wait_for("an Event that all is well on each pod", PATIENCE, || {
            Ok((self.api.events("ProfilesResolved")? >= PODS).then_some(()))
        })?;
        let said = Amount::Time(start.elapsed());
        let remark = format!("{PROFILES} profiles were missing");
        let what = format!("ConfigMap created → {PODS} references resolved");
        report.judge(&what, milliseconds(1_000), resolved, &remark);
        report.tell("… an Event on each pod", said, "");
        let writes = self.settled_writes()? - before;
        report.tell("… API writes of the node", Amount::Count(writes), "the Events among them");
        Ok(())
    }

    /// Every container gets another name, as if it had been started anew.
    fn restart(&self, report: &mut Report) -> anyhow::Result<()> {
        let (before, writes) = (self.agent.process().processor_time()?, self.writes()?);
        for pod in 0..PODS {
            self.set_status(pod, 1)?;
        }
        sleep(SETTLED);
        let time = self.agent.process().processor_time()?.saturating_sub(before);
        let each = Amount::Time(time / u32::try_from(PODS)?);
        let what = format!("{PODS} changes of status, processor time");
        report.tell(&what, Amount::Time(time), &format!("{each} each"));
        let writes = Amount::Count(self.writes()? - writes);
        report.judge("… API writes of the node", Amount::Count(0), writes, "nothing new is wrong");
        Ok(())
    }

    /// Pods that lack a profile, beside all others.
    fn singles(&self, report: &mut Report) -> anyhow::Result<()> {
        let mut times = Vec::new();
        for number in 0..SINGLES {
            let pod = format!("single-{number}");
            let told = self.api.watch_events(&pod)?;
            let start = Instant::now();
            self.create_pod(&pod, &[format!("{THERE}/missing-{number}.json")])?;
            times.push(told_at(told, "ProfileMissing")?.duration_since(start));
            sleep(PAUSE);
        }
        let time = |percent| Amount::Time(percentile(times.iter().copied(), percent));
        report.tell(
            "Pod created → an Event says what it lacks, p50",
            time(50),
            &format!("beside {PODS} pods"),
        );
        let longest = format!("longest of {SINGLES}: {}", time(100));
        report.judge("… p99", milliseconds(1_000), time(99), &longest);
        Ok(())
    }

    fn idle(&self, report: &mut Report) -> anyhow::Result<()> {
        self.settled_writes()?;
        let (time, writes) = (self.agent.process().processor_time()?, self.writes()?);
        sleep(IDLE);
        let later = self.agent.process().processor_time()?;
        let share = Amount::Share(later.saturating_sub(time).as_secs_f64() / IDLE.as_secs_f64());
        let remark = format!("idle, with {} pods", PODS + SINGLES);
        let writes = Amount::Count(self.writes()? - writes);
        report.judge("API writes in a minute", Amount::Count(0), writes, &remark);
        // No goal: the agent looks again and again for containers that real nodes have.
        report.tell("Processor time in a minute", share, &remark);
        Ok(())
    }

    fn wait_for_references(&self, resolved: usize, unresolved: usize) -> anyhow::Result<()> {
        let expected = [u64::try_from(resolved)?, u64::try_from(unresolved)?];
        let start = Instant::now();
        loop {
            let counted = self.agent.numbers([RESOLVED, UNRESOLVED])?;
            if counted == expected {
                return Ok(());
            }
            let [is_resolved, is_not] = counted;
            anyhow::ensure!(
                start.elapsed() < PATIENCE,
                "waited in vain for {resolved} references to be resolved and {unresolved} not to be: {is_resolved} \
                 are, {is_not} are not"
            );
            sleep(POLL);
        }
    }

    fn create_pod(&self, name: &str, references: &[String]) -> anyhow::Result<()> {
        let containers = references.iter().enumerate().map(|(index, reference)| {
            let profile = json!({"type": "Localhost", "localhostProfile": reference});
            json!({"name": container(index), "image": "none", "securityContext": {"seccompProfile": profile}})
        });
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": NODE,
                "automountServiceAccountToken": false,
                // No kubelet keeps the Node ready.
                "tolerations": [{"operator": "Exists"}],
                "containers": containers.collect::<Value>(),
            },
        });
        self.api.create_in("/api/v1/namespaces/default/pods", &pod.to_string())
    }

    /// Says that all containers of a pod run, started so many times before.
    fn set_status(&self, pod: usize, restarts: usize) -> anyhow::Result<()> {
        let status = |index: usize| {
            let id = format!("containerd://{:064x}", (restarts * PODS + pod) * 3 + index + 1);
            json!({
                "name": container(index),
                "image": "none",
                "imageID": "",
                "containerID": id,
                "ready": true,
                "restartCount": restarts,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            })
        };
        // Without a condition Ready, which would be taken away from every pod when the Node is found to be
        // dead (MarkPodsNotReady in pkg/controller/util/node).
        let patch =
            json!({"status": {"phase": "Running", "containerStatuses": [status(0), status(1), status(2)]}});
        self.api.patch(&format!("/api/v1/namespaces/default/pods/{}/status", name(pod)), &patch.to_string())
    }

    /// How many writes the agent has sent to the API server.
    fn writes(&self) -> anyhow::Result<u64> {
        Ok(pavise::agent_writes(self.cluster, NODE)?.try_into()?)
    }

    /// The same, when there are no more.
    fn settled_writes(&self) -> anyhow::Result<u64> {
        wait_for("the agent to have nothing more to write", PATIENCE, || {
            let before = self.writes()?;
            sleep(QUIET);
            Ok(Some(before).filter(|before| self.writes().is_ok_and(|now| now == *before)))
        })
    }
}

fn name(pod: usize) -> String {
    format!("pod-{pod}")
}

fn container(index: usize) -> String {
    format!("c{index}")
}

/// What a pod of that number calls a profile of `bundle`.
fn reference(bundle: &str, pod: usize) -> String {
    format!("{bundle}/p{}.json", pod % PROFILES)
}

/// When the first Event of this reason was told.
fn told_at(
    told: impl Iterator<Item = anyhow::Result<(Instant, String)>>,
    reason: &str,
) -> anyhow::Result<Instant> {
    for event in told {
        let (at, said) = event?;
        if said == reason {
            return Ok(at);
        }
    }
    anyhow::bail!("no Event with the reason {reason} came")
}
