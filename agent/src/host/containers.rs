//! What the kernel says of containers, by their first processes.
//!
//! Invariants: containers are found in one pass over the node's processes, however many are asked about, and
//! found again without one. What is told was read of one and the same process, which was in the container's
//! cgroup; of what ends meanwhile, nothing is told.
//!
//! A pass costs some 20 µs of processor time for each process of the node, and asking again some 30 µs for
//! each container. How many processes there are, and how often a container is started, is up to pods: a pass
//! that takes long is followed by a rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str;
use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use procfs::FromRead;
use procfs::process::Stat;
use profiles::pod::ContainerId;
use tracing::{debug, info};

use super::proc::{numbers, present, shows_the_node};

/// A pass that takes longer is followed by a rest of so many times what it took, in which no other begins.
const LONG: Duration = Duration::from_millis(50);
const REST: u32 = 9;

/// The processes of the node's containers.
#[derive(Debug)]
pub(crate) struct Containers {
    proc: PathBuf,
    /// Whether `attr/current` is AppArmor's where there is no `attr/apparmor`.
    has_apparmor: bool,
    /// The first processes of containers that were asked about.
    known: BTreeMap<ContainerId, First>,
    /// Whether it was said that nothing can be told.
    is_said: bool,
    /// When the next pass may begin, after a long one.
    rests_until: Option<Instant>,
}

/// The first process of a container: the one that started before all others.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct First {
    /// In ticks since the node was started (`starttime` of proc(5)): with the number, it tells a process from
    /// all others.
    started: u64,
    number: u32,
}

/// What the kernel says of a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Said {
    /// `Seccomp:` of proc(5).
    pub(crate) seccomp_mode: u32,
    /// `Seccomp_filters:`; none before Linux 5.9.
    pub(crate) seccomp_filters: Option<u32>,
    /// `attr/apparmor/current`, without what ends it.
    pub(crate) apparmor: Option<String>,
    /// The latest time at which it can have been started, by the clock of now; none if that can't be told.
    pub(crate) started_by: Option<SystemTime>,
}

impl Containers {
    /// Those of the node whose procfs is `proc`.
    pub(crate) fn new(proc: PathBuf, has_apparmor: bool) -> Self {
        Self { proc, has_apparmor, known: BTreeMap::new(), is_said: false, rests_until: None }
    }

    /// What the kernel says of these containers; none of one that has no process, or that it does not tell of,
    /// or that is not looked for yet.
    pub(crate) fn ask(&mut self, ids: &BTreeSet<&ContainerId>) -> BTreeMap<ContainerId, Option<Said>> {
        let clock = Clock::now();
        let mut said: BTreeMap<ContainerId, Option<Said>> =
            ids.iter().map(|id| ((*id).clone(), self.said_again(id, clock))).collect();
        let sought = said.iter().filter(|(_, said)| said.is_none()).map(|(id, _)| id.0.clone()).collect();
        let found = self.find(&sought).unwrap_or_else(|error| {
            debug!(%error, "Processes can't be looked at");
            BTreeMap::new()
        });
        for (id, first) in found {
            said.insert(id.clone(), self.said(first, clock));
            self.known.insert(id, first);
        }
        self.tell_whether_hidden(&said);
        said
    }

    /// Says so if none is found because none can be seen. A procfs that does not show all of the node's processes
    /// may still show those of its containers: so it is where the kubelet runs in a container itself.
    fn tell_whether_hidden(&mut self, said: &BTreeMap<ContainerId, Option<Said>>) {
        let is_hidden = !said.is_empty() && said.values().all(Option::is_none) && !shows_the_node(&self.proc);
        if is_hidden && !self.is_said {
            info!(
                proc = %self.proc.display(),
                "Whether containers run under their profiles can't be told: the node's processes can't be seen here \
                 (see --proc)"
            );
        }
        self.is_said = is_hidden;
    }

    /// What is said of a container whose first process is known; none if that is gone.
    fn said_again(&mut self, id: &ContainerId, clock: Option<Clock>) -> Option<Said> {
        let first = *self.known.get(id)?;
        let said = self.said(first, clock);
        if said.is_none() {
            self.known.remove(id);
        }
        said
    }

    /// What is said of a process; none if it is gone.
    fn said(&self, first: First, clock: Option<Clock>) -> Option<Said> {
        let directory = self.proc.join(first.number.to_string());
        let said = self.read(&directory).unwrap_or_else(|error| {
            debug!(process = first.number, %error, "Process can't be looked at");
            None
        });
        let said = said?;
        // Last: if it is the same process now, then it was all the time.
        if started(&directory)? != first.started {
            return None;
        }
        Some(Said { started_by: clock.and_then(|clock| clock.by(first.started)), ..said })
    }

    fn read(&self, directory: &Path) -> io::Result<Option<Said>> {
        let Some(status) = present(fs::read_to_string(directory.join("status")))? else { return Ok(None) };
        // procfs reads the whole of it, and has no field for the number of filters.
        let number = |field: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok())
        };
        let Some(seccomp_mode) = number("Seccomp") else { return Ok(None) };
        let apparmor = self.label(&directory.join("attr"))?;
        Ok(Some(Said {
            seccomp_mode,
            seccomp_filters: number("Seccomp_filters"),
            apparmor,
            started_by: None,
        }))
    }

    /// What AppArmor says of a process.
    fn label(&self, attributes: &Path) -> io::Result<Option<String>> {
        let mut label = present(fs::read(attributes.join("apparmor/current")))?;
        // Kernels before 5.8 have no directory of AppArmor's own; what is here may be another module's.
        if label.is_none() && self.has_apparmor {
            label = present(fs::read(attributes.join("current")))?;
        }
        let label = label.map(|label| String::from_utf8_lossy(&label).into_owned());
        Ok(label.map(|label| label.trim_end_matches(['\n', '\0']).to_owned()))
    }

    /// The first process of each of these containers that has one, in one pass over all processes. What is
    /// known of processes that are not there any more is forgotten.
    fn find(&mut self, ids: &BTreeSet<String>) -> io::Result<BTreeMap<ContainerId, First>> {
        let mut found: BTreeMap<ContainerId, First> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(found);
        }
        let began = Instant::now();
        if self.rests_until.is_some_and(|until| began < until) {
            return Ok(found);
        }
        let mut numbers_seen = BTreeSet::new();
        for name in numbers(&self.proc)? {
            let Ok(number) = name.parse() else { continue };
            numbers_seen.insert(number);
            let directory = self.proc.join(name);
            // One that can't be read is in none that can be told of.
            let Ok(groups) = fs::read(directory.join("cgroup")) else { continue };
            let of_it: BTreeSet<&str> = names(&groups).filter(|name| ids.contains(*name)).collect();
            if of_it.is_empty() {
                continue;
            }
            let Some(started) = started(&directory) else { continue };
            // By now, the number may be another process's.
            if !fs::read(directory.join("cgroup")).is_ok_and(|now| now == groups) {
                continue;
            }
            let this = First { started, number };
            for id in of_it {
                let first = found.entry(ContainerId(id.to_owned())).or_insert(this);
                *first = this.min(*first);
            }
        }
        self.known.retain(|_, first| numbers_seen.contains(&first.number));
        let took = began.elapsed();
        self.rests_until =
            (took > LONG).then(|| Instant::now().checked_add(took.saturating_mul(REST))).flatten();
        Ok(found)
    }
}

/// What may be containers' names in a `/proc/<pid>/cgroup`. Each line is `<number>:<controllers>:<path>`; in
/// the path, containerd and CRI-O have `cri-containerd-<id>.scope`, `crio-<id>.scope`, `<id>`, or
/// `<slice>:cri-containerd:<id>`, by their cgroup drivers. It begins with `/..` if the reader is in another
/// cgroup namespace (`cgroup_namespaces(7)`), as in a container; what follows is the same. `crio-conmon-<id>`
/// is of the program that watches the container.
fn names(groups: &[u8]) -> impl Iterator<Item = &str> {
    let lines = groups.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    let paths = lines.filter_map(|line| line.splitn(3, ':').nth(2));
    let parts = paths.flat_map(|path| path.split('/')).filter(|part| !part.contains("conmon"));
    let scopes = parts.map(|part| part.strip_suffix(".scope").unwrap_or(part));
    scopes.filter_map(|scope| scope.rsplit(['-', ':']).next())
}

/// When a process was started; none if it is gone, or has ended and was not waited for.
fn started(directory: &Path) -> Option<u64> {
    let stat = Stat::from_read(fs::File::open(directory.join("stat")).ok()?).ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

/// What the clock says of times since the node was started.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// When the node was started, by the clock of now. It is set now and then.
    boot: SystemTime,
    ticks_per_second: u64,
}

impl Clock {
    /// None if the kernel does not tell.
    fn now() -> Option<Self> {
        // In this order: what comes between makes the start of processes later, and nothing outdated that is
        // not.
        let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
        let boot = SystemTime::now().checked_sub(since_boot)?;
        // Not by procfs: see `super::process`.
        let ticks_per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
        Some(Self { boot, ticks_per_second })
    }

    /// The end of the tick `started`.
    fn by(self, started: u64) -> Option<SystemTime> {
        let end = started.checked_add(1)?;
        let seconds = Duration::from_secs(end.checked_div(self.ticks_per_second)?);
        let rest = Duration::from_secs(end.checked_rem(self.ticks_per_second)?);
        let ticks_per_second = u32::try_from(self.ticks_per_second).ok()?;
        self.boot.checked_add(seconds)?.checked_add(rest.checked_div(ticks_per_second)?)
    }
}

#[cfg(test)]
mod tests;
