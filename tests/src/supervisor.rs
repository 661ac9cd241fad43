//! Starts and stops components on request, for a first process: the cluster's init on this machine, or a
//! guest's.
//!
//! Invariant: every child of this process is waited for here, and nowhere else, so that none is waited for in
//! vain.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a component may take to end after SIGTERM, before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether a child has ended.
const POLL: Duration = Duration::from_millis(10);

/// A long-running program of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Component {
    /// Unique in the cluster; also the name of its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A command that runs to its end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// What is on its standard input.
    pub(crate) input: String,
}

/// What came of an [`Errand`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How it ended, in words; none if it succeeded.
    pub(crate) failure: Option<String>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// What this process knows of its children.
#[derive(Default)]
struct Running {
    /// All components that were ever started.
    known: BTreeMap<String, Component>,
    /// Components and errands.
    alive: BTreeMap<String, Pid>,
    ended: BTreeMap<String, ExitStatus>,
}

/// Opens the log of a component.
type OpenLog = dyn Fn(&str) -> std::io::Result<File> + Send + Sync;

/// The components that this process runs.
pub(crate) struct Supervisor {
    running: Mutex<Running>,
    open_log: Box<OpenLog>,
}

impl Supervisor {
    /// Begins to wait for children.
    pub(crate) fn start(
        open_log: impl Fn(&str) -> std::io::Result<File> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let supervisor = Arc::new(Self { running: Mutex::default(), open_log: Box::new(open_log) });
        let reaping = Arc::clone(&supervisor);
        std::thread::spawn(move || reaping.reap());
        supervisor
    }

    /// Carries out one command; see [`crate::init`] for which there are.
    pub(crate) fn obey(&self, line: &str) -> anyhow::Result<String> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("status", "") => Ok(self.status()),
            ("start", component) => {
                self.start_component(&serde_json::from_str(component).context("reading the component")?)
            }
            ("resume", name) => {
                let component =
                    self.locked().known.get(name).cloned().with_context(|| format!("{name} never ran"))?;
                self.start_component(&component)
            }
            ("stop", name) => self.end_component(name, Signal::SIGTERM),
            ("kill", name) => self.end_component(name, Signal::SIGKILL),
            ("run", errand) => {
                let outcome = self.run(&serde_json::from_str(errand).context("reading the errand")?)?;
                serde_json::to_string(&outcome).context("writing its outcome")
            }
            _ => bail!("{line:?} is no command of init"),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first process inherits every orphan of its namespace, such as containerd's shims, and has to wait
    /// for them (`pid_namespaces(7)`).
    fn reap(&self) {
        loop {
            match wait() {
                Ok(WaitStatus::Exited(pid, code)) => self.note_end(pid, ExitStatus::from_raw(code << 8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.note_end(pid, ExitStatus::from_raw(signal as i32));
                }
                Err(Errno::ECHILD) => std::thread::sleep(POLL),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn note_end(&self, pid: Pid, status: ExitStatus) {
        let mut running = self.locked();
        let name = running.alive.iter().find(|(_, alive)| **alive == pid).map(|(name, _)| name.clone());
        if let Some(name) = name {
            running.alive.remove(&name);
            running.ended.insert(name, status);
        }
    }

    fn status(&self) -> String {
        let running = self.locked();
        let lines = running.known.keys().filter_map(|name| match running.ended.get(name) {
            Some(status) => Some(format!("{name} ended: {status}\n")),
            None => running.alive.contains_key(name).then(|| format!("{name} running\n")),
        });
        lines.collect()
    }

    fn start_component(&self, component: &Component) -> anyhow::Result<String> {
        let log = (self.open_log)(&component.name).context("opening its log")?;
        let mut command = command(&component.program);
        command.args(&component.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The lock is held across the spawn: the end of a short-lived component must find its entry.
        let mut running = self.locked();
        if running.alive.contains_key(&component.name) {
            bail!("{} runs already", component.name);
        }
        let child = command.spawn().with_context(|| format!("starting {}", component.program.display()))?;
        running.ended.remove(&component.name);
        running.known.insert(component.name.clone(), component.clone());
        running.alive.insert(component.name.clone(), Pid::from_raw(i32::try_from(child.id())?));
        Ok(String::new())
    }

    fn end_component(&self, name: &str, signal: Signal) -> anyhow::Result<String> {
        let pid = *self.locked().alive.get(name).with_context(|| format!("{name} does not run"))?;
        kill(pid, signal).with_context(|| format!("sending {signal} to {name}"))?;
        let deadline = Instant::now() + GRACE;
        while self.locked().alive.get(name) == Some(&pid) {
            if Instant::now() > deadline {
                // It may have ended just now, and be noted as ended in a moment.
                match kill(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => bail!("sending SIGKILL to {name}: {error}"),
                }
            }
            std::thread::sleep(POLL);
        }
        Ok(String::new())
    }

    /// Runs a command to its end, and returns what it printed.
    fn run(&self, errand: &Errand) -> anyhow::Result<Outcome> {
        let (program, arguments) = errand.words.split_first().context("no command is given")?;
        let mut command = command(Path::new(program));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, name) = {
            let mut running = self.locked();
            let child = command.spawn().with_context(|| format!("starting {program}"))?;
            // No component has such a name.
            let name = format!("the process {}", child.id());
            running.alive.insert(name.clone(), Pid::from_raw(i32::try_from(child.id())?));
            (child, name)
        };
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut input), Some(mut output), Some(mut errors)) = pipes else {
            bail!("{name} has no pipes")
        };
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            // Who does not read its input closes the pipe; that it did not want it is no error of ours.
            scope.spawn(move || drop(input.write_all(errand.input.as_bytes())));
            let reading = scope.spawn(|| output.read_to_end(&mut said));
            errors.read_to_end(&mut complained).and_then(|_| reading.join().unwrap_or(Ok(0)))
        })
        .with_context(|| format!("reading what {program} prints"))?;
        let status = loop {
            if let Some(status) = self.locked().ended.remove(&name) {
                break status;
            }
            std::thread::sleep(POLL);
        };
        Ok(Outcome {
            failure: (!status.success()).then(|| status.to_string()),
            output: String::from_utf8_lossy(&said).into_owned(),
            errors: String::from_utf8_lossy(&complained).into_owned(),
        })
    }
}

/// containerd finds its shim, and the shim runc, in `PATH`.
fn command(program: &Path) -> Command {
    let directory = program.parent().unwrap_or(Path::new("/")).display();
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", format!("{directory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
        .env("HOME", "/root")
        .current_dir("/");
    command
}
