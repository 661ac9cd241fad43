//! `bench`: how quick and how small Pavise is on a real cluster, beside what it is to be. A goal that is
//! missed is marked and fails nothing: machines differ, and the same one has good and bad minutes.
//!
//! Every time begins just before the request that creates the first ConfigMap is sent. It ends, for
//! - "under its name": when the file is seen (there is a look each 0.2 ms);
//! - "durable": at the time of the agent's log line `Profile written`, which comes after the file and its
//!   directory are on disk;
//! - "labelled": when a watch of the Node tells of it. Labels are set for what is durable.
//!
//! The cluster has the host's node alone: an emulated machine beside it would take the cores that are
//! measured on. `apparmor` has a guest beside it, and measures in there. `pods` has a node that is simulated.

mod api;
mod apparmor;
mod bundles;
mod pods;
mod process;
mod report;
mod simulated;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::node::Kind;
use testbed::{HOST_NODE, images, pavise, progress};

use api::Api;
use bundles::{Bundle, Size};
use process::Process;
use report::{Amount, Report, percentile};

/// How long a step of the agent may take. Nothing comes near it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked for a file.
const POLL: Duration = Duration::from_micros(200);
/// How long the agent is left alone after a change, so that it is idle at the next.
const PAUSE: Duration = Duration::from_millis(250);
/// How long it may take until no thought of an earlier step is left.
const SETTLED: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_mins(1);

/// How many ConfigMaps are created one by one, half of them with large profiles.
const SINGLES: usize = 240;
/// How often a burst of 100 profiles is measured, and one of 1,000.
const ROUNDS: [usize; 2] = [5, 3];

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// seccomp profiles on this machine's own node, AppArmor profiles in the guest, or many pods on a node
    /// that is simulated
    #[arg(default_value = "seccomp")]
    of: Of,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Of {
    Seccomp,
    Apparmor,
    Pods,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    match options.of {
        Of::Seccomp => seccomp(),
        Of::Apparmor => apparmor::run(),
        Of::Pods => pods::run(),
    }
}

fn seccomp() -> anyhow::Result<()> {
    let load = fs::read_to_string("/proc/loadavg").context("reading the load of this machine")?;
    let cluster = pavise::up("bench", &[Kind::Host])?;
    let measured = Bench::new(&cluster).and_then(|bench| bench.measure());
    if measured.is_err() {
        eprintln!("{}", pavise::state(&cluster)?);
    }
    progress::step("Ending the cluster", || cluster.down())?;
    println!("\n{}\n", measured?);
    println!(
        "This machine has {} cores; before, it had a load of {}.",
        thread::available_parallelism()?,
        load.split(' ').next().unwrap_or_default()
    );
    Ok(())
}

struct Bench<'a> {
    cluster: &'a Cluster,
    api: Api,
    agent: Process,
    /// The kubelet's directory for profiles.
    seccomp: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            cluster,
            api: Api::new(cluster)?,
            agent: Process::new(pavise::agent_process(cluster)?),
            seccomp: cluster.layout().node(HOST_NODE).kubelet_root().join("seccomp"),
        })
    }

    fn measure(&self) -> anyhow::Result<Report> {
        let mut report = Report::new();
        sleep(SETTLED);
        let idle = self.agent.resident()?;
        progress::step(&format!("Creating {SINGLES} ConfigMaps one by one"), || self.singles(&mut report))?;
        let [small, large] = ROUNDS;
        progress::step("Creating 100 profiles at once", || {
            self.bursts("100 profiles in one ConfigMap", small, 1, milliseconds(300), &mut report).map(drop)
        })?;
        let resident = progress::step("Creating 1,000 profiles in ten ConfigMaps", || {
            self.bursts("1,000 profiles in ten", large, 10, milliseconds(1_500), &mut report)
        })?;
        report.judge("Memory of the agent without profiles", mebibytes(12), Amount::Bytes(idle), "");
        report.judge("Memory of the agent with 1,000 profiles", mebibytes(16), Amount::Bytes(resident), "");
        progress::step("Leaving the agent alone for a minute", || self.idle(&mut report))?;
        let program = self.agent.program_size()?;
        report.judge("The program", mebibytes(12), Amount::Bytes(program), "");
        let image = fs::metadata(images::pavise_image()?).context("looking at the image")?.len();
        report.judge("The image, uncompressed", mebibytes(24), Amount::Bytes(image), "");
        Ok(report)
    }

    /// ConfigMaps with one profile each, small and large ones by turns.
    fn singles(&self, report: &mut Report) -> anyhow::Result<()> {
        let size = |index: usize| if index.is_multiple_of(2) { Size::Small } else { Size::Large };
        let bundle = |index| Bundle::new(format!("single-{index}"), size(index), index, 1);
        let bundles: Vec<Bundle> = (0..SINGLES).map(bundle).collect();
        let mut singles = Vec::new();
        for bundle in &bundles {
            singles.push(self.single(bundle)?);
        }
        let log = self.api.agent_log()?;
        let mut times = Vec::new();
        for (bundle, single) in bundles.iter().zip(&singles) {
            let written_at = written_at(&log, &bundle.name)?;
            times.push((bundle.size, written_at.duration_since(single.clock).unwrap_or_default()));
        }
        let durable = |percent| Amount::Time(percentile(times.iter().map(|(_, time)| *time), percent));
        report.judge("ConfigMap created → file durable, p50", milliseconds(15), durable(50), "");
        report.judge(
            "… p99",
            milliseconds(60),
            durable(99),
            &format!("longest of {SINGLES}: {}", durable(100)),
        );
        for (size, what, remark) in [
            (Size::Small, "… small profiles, p50", "as in the Kubernetes tutorial"),
            (Size::Large, "… large profiles, p50", "as Docker's default"),
        ] {
            let times = times.iter().filter(|(of, _)| *of == size).map(|(_, time)| *time);
            report.tell(what, Amount::Time(percentile(times, 50)), remark);
        }
        let mut row = |what: &str, of: fn(&Single) -> Duration| {
            let time = |percent| Amount::Time(percentile(singles.iter().map(of), percent));
            report.tell(what, time(50), &format!("p99: {}", time(99)));
        };
        row("… until the file is under its name, p50", |single| single.visible);
        row("… until the API server answers, p50", |single| single.answered);
        row("A durable write of 4 KiB meanwhile, p50", |single| single.disk);
        self.clean(&bundles)
    }

    fn single(&self, bundle: &Bundle) -> anyhow::Result<Single> {
        let files = self.files(std::slice::from_ref(bundle));
        let (clock, answered, visible) = thread::scope(|scope| {
            let visible = scope.spawn(|| wait_for_files(&files));
            let (clock, start) = (SystemTime::now(), Instant::now());
            self.api.create(&bundle.text)?;
            let answered = start.elapsed();
            anyhow::Ok((clock, answered, joined(visible)?.duration_since(start)))
        })?;
        sleep(PAUSE);
        let disk = time_of_a_durable_write(self.cluster.layout().state())?;
        Ok(Single { clock, answered, visible, disk })
    }

    /// Several times, bundles of 100 profiles each. Returns the memory of the agent when they are there, the
    /// most of all rounds; those of the last round of more than one bundle stay.
    fn bursts(
        &self,
        what: &str,
        rounds: usize,
        bundles: usize,
        goal: Amount,
        report: &mut Report,
    ) -> anyhow::Result<u64> {
        let mut measured = Vec::new();
        let mut resident = 0;
        for round in 0..rounds {
            let bundle = |index: usize| {
                let first = 100 * (round * bundles + index);
                Bundle::new(format!("burst-{round}-{index}"), Size::Small, first, 100)
            };
            let all: Vec<Bundle> = (0..bundles).map(bundle).collect();
            measured.push(self.burst(&all)?);
            resident = resident.max(self.agent.resident()?);
            if round + 1 < rounds || bundles == 1 {
                self.clean(&all)?;
            }
        }
        let mut row = |what: String, of: fn(&Burst) -> Duration| {
            let shown = |percent| Amount::Time(percentile(measured.iter().map(of), percent));
            let remark = format!("median of {rounds}, which took {} to {}", shown(0), shown(100));
            report.judge(&what, goal, shown(50), &remark);
        };
        row(format!("{what} → all under their names"), |burst| burst.visible);
        row(format!("{what} → all durable and labelled"), |burst| burst.labelled);
        let writes = measured.iter().map(|burst| burst.writes).max().unwrap_or_default();
        report.judge(
            "… API writes of the node",
            Amount::Count(4),
            Amount::Count(writes),
            "the most of a round",
        );
        Ok(resident)
    }

    fn burst(&self, bundles: &[Bundle]) -> anyhow::Result<Burst> {
        let files = self.files(bundles);
        let mut labels: BTreeSet<String> = bundles.iter().map(Bundle::label).collect();
        // Of many profiles, not each has a label of its own.
        if let [bundle] = bundles {
            labels.extend(bundle.profile_labels());
        }
        let writes = pavise::agent_writes(self.cluster, HOST_NODE)?;
        let mut told = self.api.watch_labels(HOST_NODE)?;
        told.next().context("the API server tells nothing of the Node")??;
        let (visible, labelled) = thread::scope(|scope| {
            let visible = scope.spawn(|| wait_for_files(&files));
            let labelled = scope.spawn(|| wait_for_labels(told, &labels));
            let start = Instant::now();
            bundles.iter().try_for_each(|bundle| self.api.create(&bundle.text))?;
            anyhow::Ok((joined(visible)?.duration_since(start), joined(labelled)?.duration_since(start)))
        })?;
        // Writes that are not needed would follow.
        sleep(2 * PAUSE);
        let writes = pavise::agent_writes(self.cluster, HOST_NODE)? - writes;
        Ok(Burst { visible, labelled, writes: writes.try_into()? })
    }

    fn idle(&self, report: &mut Report) -> anyhow::Result<()> {
        sleep(SETTLED);
        let agent = &self.agent;
        let now = || {
            anyhow::Ok((
                agent.processor_time()?,
                agent.written()?,
                pavise::agent_writes(self.cluster, HOST_NODE)?,
            ))
        };
        let (time, written, writes) = now()?;
        sleep(IDLE);
        let (later, written_later, writes_later) = now()?;
        let share = Amount::Share(later.saturating_sub(time).as_secs_f64() / IDLE.as_secs_f64());
        let remark = "idle, with 1,000 profiles";
        let writes = Amount::Count((writes_later - writes).try_into()?);
        report.judge("API writes in a minute", Amount::Count(0), writes, remark);
        report.judge("Processor time in a minute", Amount::Share(0.000_5), share, remark);
        report.judge("Disk writes in a minute", mebibytes(0), Amount::Bytes(written_later - written), remark);
        Ok(())
    }

    /// Deletes all bundles, and returns when the files and labels of `bundles` are gone.
    fn clean(&self, bundles: &[Bundle]) -> anyhow::Result<()> {
        let files = self.files(bundles);
        self.api.delete_bundles()?;
        wait_for("the agent to remove all profiles", PATIENCE, || {
            let is_gone = files.iter().all(|file| !file.exists()) && self.api.labels(HOST_NODE)?.is_empty();
            Ok(is_gone.then_some(()))
        })?;
        sleep(2 * PAUSE);
        Ok(())
    }

    fn files(&self, bundles: &[Bundle]) -> Vec<PathBuf> {
        bundles.iter().flat_map(Bundle::files).map(|file| self.seccomp.join(file)).collect()
    }
}

/// What was measured of one profile that came alone.
struct Single {
    /// When its time began.
    clock: SystemTime,
    answered: Duration,
    visible: Duration,
    /// What the disk takes for one durable write at about that time.
    disk: Duration,
}

/// What was measured of many profiles that came together.
struct Burst {
    visible: Duration,
    labelled: Duration,
    writes: u64,
}

/// Returns when the last of `files` was seen.
fn wait_for_files(files: &[PathBuf]) -> anyhow::Result<Instant> {
    let start = Instant::now();
    for file in files {
        while !file.exists() {
            if start.elapsed() > PATIENCE {
                bail!("{} was not written within {} s", file.display(), PATIENCE.as_secs());
            }
            sleep(POLL);
        }
    }
    Ok(Instant::now())
}

/// Returns when it was told that the Node has all of `wanted`.
fn wait_for_labels(
    told: impl Iterator<Item = anyhow::Result<(Instant, BTreeSet<String>)>>,
    wanted: &BTreeSet<String>,
) -> anyhow::Result<Instant> {
    for labels in told {
        let (at, labels) = labels?;
        if wanted.is_subset(&labels) {
            return Ok(at);
        }
    }
    bail!("the Node was not labelled within {} s", PATIENCE.as_secs())
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// When the agent said that the only profile of `bundle` is written.
fn written_at(log: &str, bundle: &str) -> anyhow::Result<SystemTime> {
    let reference = format!("reference={bundle}/");
    let is_it = |line: &&str| line.contains("Profile written") && line.contains(&reference);
    let line = log.lines().find(is_it);
    let line =
        line.with_context(|| format!("the agent does not say that it wrote the profile of {bundle}"))?;
    let time = line.split(' ').next().unwrap_or_default();
    humantime::parse_rfc3339(time).with_context(|| format!("reading the time of {line:?}"))
}

/// How long a new file of 4 KiB takes to be durable in `directory`. The agent makes five such writes for a
/// profile of a new bundle: the ledger and the profile, and the directories of both and of the bundle.
fn time_of_a_durable_write(directory: &Path) -> anyhow::Result<Duration> {
    let path = directory.join("durable");
    let start = Instant::now();
    File::create(&path)
        .and_then(|mut file| file.write_all(&[0; 4096]).and_then(|()| file.sync_all()))
        .with_context(|| format!("writing {}", path.display()))?;
    let time = start.elapsed();
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok(time)
}

fn milliseconds(count: u64) -> Amount {
    Amount::Time(Duration::from_millis(count))
}

fn mebibytes(count: u64) -> Amount {
    Amount::Bytes(count * 1024 * 1024)
}
