//! Numbers for Prometheus, in OpenMetrics' text format.
//!
//! Invariant: labels have few values, all of them written in the code. No bundle, profile or Node is named:
//! everybody in the pod network can read this.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use profiles::bundle::Kind;
use profiles::check::{ContainerState, PodChecks, PodFinding, PodReason, ReferenceState};
use profiles::summary::Summary;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::host::process;

/// What [`Metrics::text`] is, in the words of HTTP.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The upper bounds of the latency's buckets, in seconds. A retry comes after one second at the earliest.
const LATENCIES: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// How an attempt to load a profile can end, if it does not fail.
pub(crate) const WRITTEN: &str = "written";
pub(crate) const ADOPTED: &str = "adopted";
pub(crate) const FOREIGN: &str = "foreign";
const FAILED: &str = "failed";

/// What references and containers are counted by.
const REFERENCE_STATES: [(ReferenceState, &str); 4] = [
    (ReferenceState::Resolved, "resolved"),
    (ReferenceState::Pending, "pending"),
    (ReferenceState::Unresolved, "unresolved"),
    (ReferenceState::Unchecked, "unchecked"),
];
const CONTAINER_STATES: [(ContainerState, &str); 4] = [
    (ContainerState::Enforced, "enforced"),
    (ContainerState::NotEnforced, "not_enforced"),
    (ContainerState::Outdated, "outdated"),
    (ContainerState::Unknown, "unknown"),
];

/// Labels with their values.
type Labels<const COUNT: usize> = [(&'static str, &'static str); COUNT];

/// All that is counted. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    ready: Gauge,
    startup_taint: Gauge,
    bundles: Family<Labels<1>, Gauge>,
    profiles: Family<Labels<2>, Gauge>,
    problems: Family<Labels<2>, Gauge>,
    installs: Family<Labels<2>, Counter>,
    removals: Family<Labels<2>, Counter>,
    drift_repairs: Family<Labels<1>, Counter>,
    sync_latency: Family<Labels<1>, Histogram>,
    label_changes: Family<Labels<1>, Counter>,
    api_requests: Family<Labels<3>, Counter>,
    references: Family<Labels<2>, Gauge>,
    containers: Family<Labels<2>, Gauge>,
    pod_problems: Family<Labels<2>, Gauge>,
    events: Family<Labels<1>, Counter>,
}

impl Metrics {
    /// Nothing is counted yet.
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            ready: Gauge::default(),
            startup_taint: Gauge::default(),
            bundles: Family::default(),
            profiles: Family::default(),
            problems: Family::default(),
            installs: by_kind("outcome", &[WRITTEN, ADOPTED, FOREIGN, FAILED]),
            removals: by_kind("outcome", &["removed", FAILED]),
            drift_repairs: Family::default(),
            sync_latency: Family::new_with_constructor(histogram),
            label_changes: counters("outcome", &["written", "failed"]),
            api_requests: Family::default(),
            references: Family::default(),
            containers: Family::default(),
            pod_problems: Family::default(),
            events: counters("outcome", &["written", "failed"]),
        };
        metrics.checked(&PodChecks::default());
        for kind in Kind::ALL {
            metrics.show(kind, &Summary::default());
            drop(metrics.drift_repairs.get_or_create(&[of(kind)]));
            drop(metrics.sync_latency.get_or_create(&[of(kind)]));
        }
        metrics.registry = Arc::new(metrics.registry());
        metrics
    }

    fn registry(&self) -> Registry {
        let mut all = Registry::default();
        all.register_collector(Box::new(Process::starting_now()));
        let ours = all.sub_registry_with_prefix("pavise");
        ours.register("build", "The agent that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        ours.register("ready", "Whether /readyz says ready (1) or not (0)", self.ready.clone());
        let help = "Whether the Node has the startup taint (1) or not (0)";
        ours.register("startup_taint", help, self.startup_taint.clone());
        ours.register("bundles", "Bundles that the agent sees", self.bundles.clone());
        ours.register(
            "label_changes",
            "Changes of the Node's labels, by how they ended",
            self.label_changes.clone(),
        );
        ours.register(
            "api_requests",
            "Requests to the API server, by the class of its answer",
            self.api_requests.clone(),
        );
        ours.register("profiles", "Profiles, by state; one can be in several", self.profiles.clone());
        ours.register("problems", "Profiles that have a problem now", self.problems.clone());
        ours.register("installs", "Attempts to load a profile, by outcome", self.installs.clone());
        ours.register("removals", "Attempts to take a profile away, by outcome", self.removals.clone());
        let help = "References of the node's pods to profiles, by what becomes of them";
        ours.register("references", help, self.references.clone());
        let help = "Running containers that ask for a profile, by whether they run under it";
        ours.register("containers", help, self.containers.clone());
        let help = "What is wrong with what containers ask for, by reason";
        ours.register("pod_problems", help, self.pod_problems.clone());
        ours.register("events", "Events on pods, by how writing them ended", self.events.clone());
        let help = "Profiles put right that somebody had changed";
        ours.register("drift_repairs", help, self.drift_repairs.clone());
        let help = "From the event of a new content to its being loaded, retries included";
        ours.register_with_unit("sync_latency", help, Unit::Seconds, self.sync_latency.clone());
        all
    }

    /// Whether the agent is ready.
    pub(crate) fn is_ready(&self, is_ready: bool) {
        self.ready.set(i64::from(is_ready));
    }

    /// Whether the Node has the startup taint.
    pub(crate) fn is_tainted(&self, is_tainted: bool) {
        self.startup_taint.set(i64::from(is_tainted));
    }

    /// What is known now of the profiles of one kind.
    pub(crate) fn show(&self, kind: Kind, now: &Summary) {
        self.bundles.get_or_create(&[of(kind)]).set(whole(now.bundles));
        for (state, count) in [
            ("desired", now.desired),
            ("loaded", now.loaded),
            ("refused", now.refused),
            ("retained", now.retained),
        ] {
            self.profiles.get_or_create(&[of(kind), ("state", state)]).set(whole(count));
        }
        for (problem, count) in [
            ("refused", now.refused),
            ("foreign", now.foreign),
            ("drifted", now.drifted),
            ("uncompiled", now.uncompiled),
            ("unwritten", now.unwritten),
            ("unremoved", now.unremoved),
        ] {
            self.problems.get_or_create(&[of(kind), ("problem", problem)]).set(whole(count));
        }
    }

    /// A profile was to be loaded, with this outcome; none is a failure. If that was for a new content, it
    /// was asked for since `latency`.
    pub(crate) fn installed(&self, kind: Kind, outcome: Option<&'static str>, latency: Option<Duration>) {
        self.installs.get_or_create(&[of(kind), ("outcome", outcome.unwrap_or(FAILED))]).inc();
        if let (Some(WRITTEN), Some(latency)) = (outcome, latency) {
            self.sync_latency.get_or_create(&[of(kind)]).observe(latency.as_secs_f64());
        }
    }

    /// What somebody did to a profile was put right.
    pub(crate) fn drift_repaired(&self, kind: Kind) {
        self.drift_repairs.get_or_create(&[of(kind)]).inc();
    }

    /// A profile was to be taken away.
    pub(crate) fn removed(&self, kind: Kind, is_done: bool) {
        let outcome = if is_done { "removed" } else { FAILED };
        self.removals.get_or_create(&[of(kind), ("outcome", outcome)]).inc();
    }

    /// A change of the Node's labels has ended.
    pub(crate) fn labels_changed(&self, is_done: bool) {
        let outcome = if is_done { "written" } else { "failed" };
        self.label_changes.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// What is known now of the node's pods.
    pub(crate) fn checked(&self, checks: &PodChecks) {
        for kind in Kind::ALL {
            for (state, name) in REFERENCE_STATES {
                let count = checks.references.get(&(kind, state)).copied().unwrap_or_default();
                self.references.get_or_create(&[of(kind), ("state", name)]).set(whole(count));
            }
            for (state, name) in CONTAINER_STATES {
                let count = checks.containers.get(&(kind, state)).copied().unwrap_or_default();
                self.containers.get_or_create(&[of(kind), ("state", name)]).set(whole(count));
            }
            for reason in PodReason::ALL {
                let is_it = |finding: &&PodFinding| (finding.kind, finding.reason) == (kind, reason);
                let count = checks.findings.iter().filter(is_it).count();
                self.pod_problems.get_or_create(&[of(kind), ("reason", reason.as_str())]).set(whole(count));
            }
        }
    }

    /// An Event on a pod was to be written.
    pub(crate) fn event_written(&self, is_done: bool) {
        let outcome = if is_done { "written" } else { "failed" };
        self.events.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// The API server has answered, or will not.
    pub(crate) fn requested(&self, verb: &'static str, resource: &'static str, code: &'static str) {
        self.api_requests.get_or_create(&[("verb", verb), ("resource", resource), ("code", code)]).inc();
    }

    /// All numbers as text.
    pub(crate) fn text(&self) -> String {
        let mut all = String::new();
        match text::encode(&mut all, &self.registry) {
            Ok(()) => all,
            Err(std::fmt::Error) => String::new(),
        }
    }
}

/// Counters that are there from the start, so that their first step is seen as one.
fn counters(label: &'static str, values: &[&'static str]) -> Family<Labels<1>, Counter> {
    let all = Family::default();
    for value in values {
        drop(all.get_or_create(&[(label, *value)]));
    }
    all
}

/// The same for each kind of profiles.
fn by_kind(label: &'static str, values: &[&'static str]) -> Family<Labels<2>, Counter> {
    let all = Family::default();
    for kind in Kind::ALL {
        for value in values {
            drop(all.get_or_create(&[of(kind), (label, *value)]));
        }
    }
    all
}

/// The label that tells kinds of profiles apart.
fn of(kind: Kind) -> (&'static str, &'static str) {
    ("kind", kind.as_str())
}

fn histogram() -> Histogram {
    Histogram::new(LATENCIES)
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What the process costs, looked up for each scrape, under the names that all programs use.
#[derive(Debug)]
struct Process {
    /// Seconds since 1970, as the node's clock had them.
    started: f64,
}

impl Process {
    fn starting_now() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: since_epoch.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut encode = |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let started = ConstGauge::new(self.started);
        encode("process_start_time", "Start of the agent, since 1970", Some(&Unit::Seconds), &started)?;
        let Some(usage) = process::usage() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu.as_secs_f64());
        encode("process_cpu", "Processor time", Some(&Unit::Seconds), &cpu)?;
        let memory = ConstGauge::new(usage.resident_bytes);
        encode("process_resident_memory", "Memory that is in RAM", Some(&Unit::Bytes), &memory)?;
        encode("process_open_fds", "Open file descriptors", None, &ConstGauge::new(usage.open_files))
    }
}

#[cfg(test)]
mod tests {
    use profiles::pod::{ContainerKind, PodId};

    use super::*;

    /// The name under which a metric of this type is found.
    fn shown(name: &str, kind: &str) -> String {
        match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        }
    }

    /// The rows of the documentation: name, and all of it.
    fn documented() -> Vec<(&'static str, &'static str)> {
        let lines = include_str!("../../../docs/operations.md").lines();
        let names = lines.filter_map(|line| Some((line.strip_prefix("| `")?.split_once('`')?.0, line)));
        names.filter(|(name, _)| name.starts_with("pavise_") || name.starts_with("process_")).collect()
    }

    #[test]
    fn each_metric_is_documented_with_its_type() {
        let metrics = Metrics::new();
        metrics.requested("get", "nodes", "2xx");
        let text = metrics.text();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut existing: Vec<(String, &str)> = types.map(|(name, kind)| (shown(name, kind), kind)).collect();
        let kind_of = |row: &'static str| row.split('|').nth(2).unwrap_or_default().trim();
        let mut documented: Vec<(String, &str)> =
            documented().into_iter().map(|(name, row)| (name.to_owned(), kind_of(row))).collect();
        existing.sort_unstable();
        documented.sort_unstable();
        assert_eq!(existing, documented);
    }

    #[test]
    fn each_value_of_a_label_is_documented_and_there_from_the_start() {
        let text = Metrics::new().text();
        for label in ["state", "problem", "outcome", "reason"] {
            let is_shown = |line: &&str| line.contains(&format!("{label}=\""));
            let mut samples = text.lines().filter(is_shown).peekable();
            assert!(samples.peek().is_some(), "{label}");
            for sample in samples {
                let (name, labels) = sample.split_once('{').unwrap();
                let value = labels.split(&format!("{label}=\"")).nth(1).unwrap().split('"').next().unwrap();
                let is_said =
                    |(named, row): &(&str, &str)| *named == name && row.contains(&format!("`{value}`"));
                assert!(documented().iter().any(is_said), "docs/operations.md does not explain {sample}");
            }
        }
    }

    #[test]
    fn a_latency_is_that_of_what_was_written_for_a_new_content() {
        let metrics = Metrics::new();
        let (seccomp, written) = (Kind::Seccomp, Some(WRITTEN));
        metrics.installed(seccomp, written, Some(Duration::from_millis(3)));
        metrics.installed(seccomp, written, None);
        metrics.installed(seccomp, Some(ADOPTED), Some(Duration::from_secs(1)));
        metrics.installed(seccomp, Some(FOREIGN), Some(Duration::from_secs(1)));
        metrics.installed(seccomp, None, Some(Duration::from_secs(1)));
        let text = metrics.text();
        for expected in [
            r#"pavise_installs_total{kind="seccomp",outcome="written"} 2"#,
            r#"pavise_installs_total{kind="seccomp",outcome="adopted"} 1"#,
            r#"pavise_installs_total{kind="seccomp",outcome="foreign"} 1"#,
            r#"pavise_installs_total{kind="seccomp",outcome="failed"} 1"#,
            r#"pavise_sync_latency_seconds_count{kind="seccomp"} 1"#,
            r#"pavise_sync_latency_seconds_bucket{le="0.002",kind="seccomp"} 0"#,
            r#"pavise_sync_latency_seconds_bucket{le="0.005",kind="seccomp"} 1"#,
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_so_of_pods_now_is_shown_and_what_was_is_not() {
        let metrics = Metrics::new();
        let pod = PodId { namespace: "ns".to_owned(), name: "web".to_owned(), uid: "1".to_owned() };
        let finding = PodFinding {
            pod,
            container: "c".to_owned(),
            container_kind: ContainerKind::Regular,
            kind: Kind::Seccomp,
            reference: "b/a.json".to_owned(),
            reason: PodReason::ProfileMissing,
            message: "there is none".to_owned(),
        };
        let checks = PodChecks {
            findings: vec![finding.clone(), finding],
            references: [((Kind::Seccomp, ReferenceState::Unresolved), 2)].into(),
            containers: [((Kind::Seccomp, ContainerState::NotEnforced), 3)].into(),
            ..PodChecks::default()
        };
        for (checks, counts) in [(checks, [2, 2, 3]), (PodChecks::default(), [0, 0, 0])] {
            metrics.checked(&checks);
            let text = metrics.text();
            for (sample, count) in [
                r#"pavise_pod_problems{kind="seccomp",reason="ProfileMissing"}"#,
                r#"pavise_references{kind="seccomp",state="unresolved"}"#,
                r#"pavise_containers{kind="seccomp",state="not_enforced"}"#,
            ]
            .into_iter()
            .zip(counts)
            {
                let expected = format!("{sample} {count}");
                assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
            }
        }
    }

    #[test]
    fn what_the_process_costs_is_shown_under_the_usual_names() {
        let text = Metrics::new().text();
        for name in [
            "process_start_time_seconds",
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
        ] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value: f64 = value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap();
            assert!(value >= 0.0 && (value > 0.0 || name.contains("cpu")), "{name}: {value}");
        }
    }
}
