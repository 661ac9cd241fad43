//! What pods ask for is checked against what their node really holds: whoever put it there, and whatever kind
//! of container asks.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES};
use testbed::pods::{bundle, confined_pod};
use testbed::{GUEST_NODE, HOST_NODE};

use crate::resilience::restarts;
use crate::said::{
    Counted, Finding, Kind, List, delete_pods, entries_of, events, expect_resolved, expect_said,
    make_asking_pod, show_latency, sleeping_pod,
};
use crate::steps::{ALLOW, PATIENCE, SOON, apply, file, wait_for_file, wait_until_running};
use crate::{Test, apparmor};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("every_kind_of_container_is_told_what_is_wrong_with_its_seccomp_profile", seccomp_is_told),
    ("every_kind_of_container_is_told_what_is_wrong_with_its_apparmor_profile", apparmor_is_told),
    ("a_pod_that_needs_apparmor_on_a_node_without_is_told_so", a_node_without_apparmor_is_told),
    ("a_finding_stays_one_event_over_retries_and_restarts", a_finding_stays_one_event),
    ("a_file_of_somebody_else_is_judged_whenever_it_changes", a_foreign_file_is_judged),
];

const MISSING: Option<&str> = Some("ProfileMissing");
const INVALID: Option<&str> = Some("ProfileInvalid");
const UNSAFE: Option<&str> = Some("ProfileUnsafe");

/// A document in Docker's format, of which containerd drops the conditions.
const DOCKERS: &str = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
    {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["read"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_BPF"]}}
]}"#;

/// What one container asks for, and what is to be said of that.
struct Cell {
    container: &'static str,
    reference: &'static str,
    /// None if all is well.
    reason: Option<&'static str>,
    words: &'static [&'static str],
}

const fn cell(
    container: &'static str,
    reference: &'static str,
    reason: Option<&'static str>,
    words: &'static [&'static str],
) -> Cell {
    Cell { container, reference, reason, words }
}

const SECCOMP: &[Cell] = &[
    cell("well-ours", "asked/good.json", None, &[]),
    cell("misspelt", "asked/god.json", MISSING, &["asked/good.json"]),
    cell("refused", "asked/bad.json", MISSING, &["refuse", "missing-default-action"]),
    cell("elsewhere", "asked-there/a.json", MISSING, &["select"]),
    cell("well-foreign", "asked-foreign/good.json", None, &[]),
    cell("empty", "asked-foreign/empty.json", INVALID, &[]),
    cell("broken", "asked-foreign/broken.json", INVALID, &[]),
    cell("directory", "asked-foreign/directory.json", INVALID, &[]),
    cell("void", "asked-foreign/void.json", UNSAFE, &[]),
    cell("dockers", "asked-foreign/dockers.json", UNSAFE, &[]),
];

const APPARMOR: &[Cell] = &[
    cell("well-ours", "e2e-asked-good", None, &[]),
    cell("misspelt", "e2e-asked-god", MISSING, &["e2e-asked-good"]),
    cell("refused", "e2e-asked-bad", MISSING, &["refuse", "unconfined-profile"]),
    cell("uncompiled", "e2e-asked-broken", MISSING, &["refuse", "invalid-policy"]),
    cell("elsewhere", "e2e-asked-there", MISSING, &["select"]),
    cell("well-foreign", "e2e-asked-foreign", None, &[]),
];

/// A pod for each kind of container, with a container for each cell.
struct Matrix<'a> {
    cluster: &'a Cluster,
    node: &'static str,
    kind: Kind,
    cells: &'static [Cell],
    patience: Duration,
    counted: Counted<'a>,
}

impl<'a> Matrix<'a> {
    /// Nothing is asked for yet.
    fn new(
        cluster: &'a Cluster,
        node: &'static str,
        kind: Kind,
        cells: &'static [Cell],
        patience: Duration,
    ) -> anyhow::Result<Self> {
        Ok(Self { cluster, node, kind, cells, patience, counted: Counted::on(cluster, node)? })
    }

    fn pod(&self, list: List) -> String {
        format!("asking-{}-{}", self.kind.as_str(), list.as_str())
    }

    fn findings(&self) -> Vec<Finding> {
        let of = |list| {
            let of_cell = move |cell: &Cell| {
                Some(Finding {
                    pod: self.pod(list),
                    list,
                    container: cell.container.to_owned(),
                    kind: self.kind,
                    reference: cell.reference.to_owned(),
                    reason: cell.reason?,
                    words: cell.words,
                })
            };
            self.cells.iter().filter_map(of_cell)
        };
        List::ALL.into_iter().flat_map(of).collect()
    }

    /// Makes the pods; returns when all is said that is to be said of them.
    fn expect_told(&self) -> anyhow::Result<()> {
        let asking: Vec<(&str, &str)> =
            self.cells.iter().map(|cell| (cell.container, cell.reference)).collect();
        for list in List::ALL {
            make_asking_pod(self.cluster, self.node, &self.pod(list), list, self.kind, &asking)?;
        }
        expect_said(self.cluster, self.node, self.patience, &self.findings())?;
        let with = |reason| self.cells.iter().filter(|cell| cell.reason == reason).count();
        let good = with(None);
        self.expect_counted(&[
            (&self.references("resolved"), good),
            (&self.references("unresolved"), self.cells.len() - good),
            (&self.problems("ProfileMissing"), with(MISSING)),
            (&self.problems("ProfileInvalid"), with(INVALID)),
            (&self.problems("ProfileUnsafe"), with(UNSAFE)),
        ])?;
        let is_good = |cell: &&Cell| cell.reason.is_none();
        for (list, cell) in
            List::ALL.iter().flat_map(|list| self.cells.iter().filter(is_good).map(move |cell| (list, cell)))
        {
            let pod = self.pod(*list);
            let is_named =
                |event: &Value| event["note"].as_str().is_some_and(|note| note.contains(cell.container));
            let named: Vec<_> = events(self.cluster, &pod)?.into_iter().filter(is_named).collect();
            ensure!(named.is_empty(), "all is well with {} of {pod}: {named:?}", cell.container);
        }
        Ok(())
    }

    /// Returns when it is said that all is put right; the pods are gone then.
    fn expect_put_right(&self) -> anyhow::Result<()> {
        for list in List::ALL {
            expect_resolved(self.cluster, self.node, self.patience, &self.pod(list))?;
        }
        let nothing =
            ["ProfileMissing", "ProfileInvalid", "ProfileUnsafe"].map(|reason| self.problems(reason));
        let nothing = nothing.iter().map(|metric| (metric.as_str(), 0));
        let (resolved, unresolved) = (self.references("resolved"), self.references("unresolved"));
        let all = [(resolved.as_str(), self.cells.len()), (unresolved.as_str(), 0)];
        self.expect_counted(&nothing.chain(all).collect::<Vec<_>>())?;
        let pods = List::ALL.map(|list| self.pod(list));
        delete_pods(self.cluster, &pods.each_ref().map(String::as_str))?;
        self.expect_counted(&[(&resolved, 0)])
    }

    fn references(&self, state: &str) -> String {
        format!("pavise_references{{kind=\"{}\",state=\"{state}\"}}", self.kind.as_str())
    }

    fn problems(&self, reason: &str) -> String {
        format!("pavise_pod_problems{{kind=\"{}\",reason=\"{reason}\"}}", self.kind.as_str())
    }

    /// Claims that there are so many of each in each pod.
    fn expect_counted(&self, each: &[(&str, usize)]) -> anyhow::Result<()> {
        let all = each.iter().map(|(metric, count)| Ok((*metric, u64::try_from(count * List::ALL.len())?)));
        self.counted.expect_more(self.patience, &all.collect::<anyhow::Result<Vec<_>>>()?)
    }
}

/// `bundle` for the node `node` alone.
fn only_for(mut bundle: Value, node: &str) -> Value {
    let selector = format!("kubernetes.io/hostname={node}");
    bundle["metadata"]["annotations"] = json!({"pavise.dev/node-selector": selector});
    bundle
}

fn delete_bundles(cluster: &Cluster, names: &[&str]) -> anyhow::Result<()> {
    cluster.kubectl().run(&[&["delete", "configmap", "-n", PROFILES], names].concat()).map(drop)
}

fn seccomp_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let foreign = file(cluster, "asked-foreign");
    fs::create_dir(&foreign).context("making a directory of somebody else")?;
    let texts = [("good", ALLOW), ("empty", ""), ("broken", "{"), ("void", "{}"), ("dockers", DOCKERS)];
    for (name, text) in texts {
        fs::write(foreign.join(format!("{name}.json")), text)?;
    }
    fs::create_dir(foreign.join("directory.json"))?;
    apply(cluster, &bundle("asked", &[("good.json", ALLOW), ("bad.json", "{}")]))?;
    apply(cluster, &only_for(bundle("asked-there", &[("a.json", ALLOW)]), GUEST_NODE))?;
    wait_for_file(cluster, "asked/good.json", Some(ALLOW))?;
    let matrix = Matrix::new(cluster, HOST_NODE, Kind::Seccomp, SECCOMP, PATIENCE)?;
    matrix.expect_told()?;

    fs::remove_dir(foreign.join("directory.json"))?;
    for name in ["empty", "broken", "directory", "void", "dockers"] {
        fs::write(foreign.join(format!("{name}.json")), ALLOW)?;
    }
    apply(cluster, &bundle("asked", &[("good.json", ALLOW), ("god.json", ALLOW), ("bad.json", ALLOW)]))?;
    apply(cluster, &only_for(bundle("asked-there", &[("a.json", ALLOW)]), HOST_NODE))?;
    matrix.expect_put_right()?;
    delete_bundles(cluster, &["asked", "asked-there"])?;
    fs::remove_dir_all(foreign).context("removing the directory of somebody else")
}

fn apparmor_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let load = |text: &str, how: &str| {
        apparmor::guest(cluster, &format!("printf '{text}' | apparmor_parser {how} -K"))
    };
    let foreign = "profile e2e-asked-foreign { file, }";
    // Of a text that is refused before it is compiled nobody knows what it declares: its key has to say so.
    let asked = |texts: &[(&str, &str)]| apparmor::bundle("asked-policy", texts);
    let there = apparmor::bundle("asked-policy-there", &[("a", &apparmor::text("e2e-asked-there", ""))]);
    let [good, added, fixed, compiled] =
        ["good", "god", "bad", "broken"].map(|name| apparmor::text(&format!("e2e-asked-{name}"), ""));
    load(foreign, "-r")?;
    apply(
        cluster,
        &asked(&[
            ("e2e-asked-good", &good),
            ("e2e-asked-bad", "profile e2e-asked-bad flags=(unconfined) { file, }\n"),
            ("e2e-asked-broken", "profile e2e-asked-broken {\n  fil,\n}\n"),
        ]),
    )?;
    apply(cluster, &only_for(there.clone(), HOST_NODE))?;
    apparmor::wait_for_kernel(cluster, "e2e-asked-good (enforce)", true)?;
    let matrix = Matrix::new(cluster, GUEST_NODE, Kind::AppArmor, APPARMOR, apparmor::PATIENCE)?;
    matrix.expect_told()?;

    let texts = [
        ("e2e-asked-good", &good),
        ("e2e-asked-god", &added),
        ("e2e-asked-bad", &fixed),
        ("e2e-asked-broken", &compiled),
    ];
    apply(cluster, &asked(&texts.map(|(key, text)| (key, text.as_str()))))?;
    apply(cluster, &only_for(there, GUEST_NODE))?;
    matrix.expect_put_right()?;
    delete_bundles(cluster, &["asked-policy", "asked-policy-there"])?;
    load(foreign, "-R").map(drop)
}

fn a_node_without_apparmor_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let finding = |list: List| Finding {
        pod: format!("rejected-{}", list.as_str()),
        list,
        container: "needs-apparmor".to_owned(),
        kind: Kind::AppArmor,
        reference: "e2e-nowhere".to_owned(),
        reason: "AppArmorUnavailable",
        words: &[],
    };
    let findings = List::ALL.map(finding);
    for (list, finding) in List::ALL.into_iter().zip(&findings) {
        let asking = [(finding.container.as_str(), finding.reference.as_str())];
        make_asking_pod(cluster, HOST_NODE, &finding.pod, list, Kind::AppArmor, &asking)?;
    }
    expect_said(cluster, HOST_NODE, PATIENCE, &findings)?;
    // An ephemeral container comes after the kubelet has admitted its pod.
    for pod in ["rejected-init", "rejected-sidecar", "rejected-regular"] {
        let status = wait_for(&format!("the kubelet to reject {pod}"), PATIENCE, || {
            let status = cluster.kubectl().get(&["pod", pod])?["status"].take();
            Ok((status["phase"] == "Failed").then_some(status))
        })?;
        ensure!(status["reason"] == "AppArmor", "{pod} was rejected for something else: {status}");
    }
    let pods = findings.each_ref().map(|finding| finding.pod.as_str());
    for finding in &findings {
        let events = events(cluster, &finding.pod)?;
        ensure!(events.len() == 1, "its rejection made more Events: {events:?}");
    }
    delete_pods(cluster, &pods)?;
    wait_for("the report to forget them", PATIENCE, || {
        for pod in pods {
            if !entries_of(cluster, HOST_NODE, pod)?.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

fn a_finding_stays_one_event(cluster: &Cluster) -> anyhow::Result<()> {
    let (name, reference) = ("asking-again", "asked-again/a.json");
    let missing = "pavise_pod_problems{kind=\"seccomp\",reason=\"ProfileMissing\"}";
    let counted = Counted::on(cluster, HOST_NODE)?;
    let start = SystemTime::now();
    apply(cluster, &confined_pod(name, reference))?;
    let finding = Finding::of_main(name, Kind::Seccomp, reference, "ProfileMissing");
    expect_said(cluster, HOST_NODE, PATIENCE, &[finding])?;
    show_latency(cluster, name, start)?;
    let before = events(cluster, name)?;
    ensure!(before.len() == 1, "it is more than one Event: {before:?}");

    // The kubelet tries again every ten to fifteen seconds, and each time the pod's status changes.
    wait_for("the kubelet to have tried three times", 2 * PATIENCE, || {
        let about_pod = format!("--field-selector=involvedObject.name={name},reason=Failed");
        let failed = cluster.kubectl().get(&["events", &about_pod])?;
        let counts = failed["items"].as_array().into_iter().flatten();
        let tried: u64 = counts.filter_map(|event| event["count"].as_u64()).sum();
        Ok((tried >= 3).then_some(()))
    })?;
    ensure!(events(cluster, name)? == before, "it was said again: {:?}", events(cluster, name)?);

    let restarted = restarts(cluster)?;
    kill(pavise::agent_process(cluster)?, Signal::SIGKILL).context("killing the agent")?;
    wait_for("the next agent to be ready", PATIENCE, || {
        Ok(restarts(cluster)?.is_some_and(|now| Some(now) > restarted).then_some(()))
    })?;
    // It says that something was put right only if it has seen it wrong.
    counted.expect_more(PATIENCE, &[(missing, 1)])?;
    apply(cluster, &bundle("asked-again", &[("a.json", ALLOW)]))?;
    expect_resolved(cluster, HOST_NODE, PATIENCE, name)?;
    let warnings: Vec<Value> =
        events(cluster, name)?.into_iter().filter(|event| event["type"] == "Warning").collect();
    ensure!(warnings.len() == 1, "the next agent said it in other words: {warnings:?}");
    wait_until_running(cluster, name)?;
    delete_pods(cluster, &[name])?;
    delete_bundles(cluster, &["asked-again"])
}

/// What somebody does to a file, and what is to be said of it then.
type Deed = (&'static str, fn(&Path) -> std::io::Result<()>, Option<&'static str>);

const DEEDS: &[Deed] = &[
    ("put there", |file| fs::write(file, ALLOW), None),
    ("removed", |file| fs::remove_file(file), MISSING),
    ("empty", |file| fs::write(file, ""), INVALID),
    ("without a word", |file| fs::write(file, "{}"), UNSAFE),
    ("in Docker's format", |file| fs::write(file, DOCKERS), UNSAFE),
    ("cut off", |file| fs::write(file, &DOCKERS[..40]), INVALID),
    ("a directory", |file| fs::remove_file(file).and_then(|()| fs::create_dir(file)), INVALID),
    ("put right", |file| fs::remove_dir(file).and_then(|()| fs::write(file, ALLOW)), None),
];

fn a_foreign_file_is_judged(cluster: &Cluster) -> anyhow::Result<()> {
    let (pod, reference) = ("asking-somebody", "somebodys/a.json");
    let path = file(cluster, reference);
    let directory = path.parent().context("a file has a directory")?;
    let counted = Counted::on(cluster, HOST_NODE)?;
    make_asking_pod(cluster, HOST_NODE, pod, List::Regular, Kind::Seccomp, &[("main", reference)])?;
    // Not even its directory is there.
    let missing = Finding::of_main(pod, Kind::Seccomp, reference, "ProfileMissing");
    expect_said(cluster, HOST_NODE, PATIENCE, &[missing])?;
    fs::create_dir(directory).context("making a directory of somebody else")?;
    for (what, deed, reason) in DEEDS {
        deed(&path).with_context(|| format!("having the file {what}"))?;
        let problems = [MISSING, INVALID, UNSAFE].map(|one| {
            let name =
                format!("pavise_pod_problems{{kind=\"seccomp\",reason=\"{}\"}}", one.unwrap_or_default());
            (name, u64::from(one == *reason))
        });
        let problems = problems.each_ref().map(|(name, count)| (name.as_str(), *count));
        counted.expect_more(SOON, &problems).with_context(|| format!("the file is {what}"))?;
        // What holds for a moment only is not said.
        wait_for(&format!("an Event about a file that is {what}"), SOON, || {
            let said = events(cluster, pod)?;
            Ok(reason.is_none_or(|reason| said.iter().any(|event| event["reason"] == reason)).then_some(()))
        })?;
    }
    expect_resolved(cluster, HOST_NODE, PATIENCE, pod)?;

    // It is a profile like any other: a container can have it.
    let mut confined = sleeping_pod("under-somebodys", HOST_NODE);
    confined["spec"]["containers"][0]["securityContext"] = Kind::Seccomp.context(reference);
    apply(cluster, &confined)?;
    wait_until_running(cluster, "under-somebodys")?;
    ensure!(events(cluster, "under-somebodys")?.is_empty(), "all is well with it");
    delete_pods(cluster, &[pod, "under-somebodys"])?;
    fs::remove_dir_all(directory).context("removing the directory of somebody else")
}
