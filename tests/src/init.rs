//! The first process of a cluster: it gives the cluster namespaces of its own, starts and stops its
//! components on request, and takes everything with it when it ends.
//!
//! ```text
//!  owner (xtask, a test run) ── lifeline: a pipe ──▶ keeper ── unshare(pid, mount), fork ──▶ init (pid 1, private root)
//!                            ── control.sock: see below ───────────────────────────────────▶ ├─ etcd, kube-apiserver, …
//!                                                                                            ├─ containerd, kubelet, pods
//!                                                                                            └─ QEMU: see crate::guest
//! ```
//!
//! A command is a line: `start <component>`, `stop`, `kill` or `resume <name>`, `status`, `run <command>`;
//! and of init alone, `detach` and `down`.
//!
//! Guarantee: when the owner is gone, for whatever reason (it ended, it was killed, its terminal closed), the
//! lifeline reads as closed, init exits, and the kernel ends every process of its pid namespace
//! (`pid_namespaces(7)`) and drops the mounts of its mount namespace. The keeper, which is outside, then
//! removes the cgroups and the cluster's directory. A cluster that is to outlive its creator
//! (`cargo xtask up`) is told to `detach` when it is complete; from then on `down` ends it, through the
//! socket.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use crate::layout::{self, Layout};
use crate::supervisor::Supervisor;
use crate::{cgroup, guest, private_root};

/// The first argument that turns any program which calls [`run_if_asked`] into a keeper, an init, or the first
/// process of a guest.
const KEEPER: &str = "testbed-keeper";
const INIT: &str = "testbed-init";
pub(crate) const GUEST: &str = "testbed-guest";

/// How long the keeper and init may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// To be called first by every `main` that brings clusters up: continues as a cluster's keeper or init, or
/// as a guest's init, when it was started as one, and returns at once otherwise.
pub fn run_if_asked() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [KEEPER, name] => keep(&Layout::new(name)),
        [INIT, name] => init(&Layout::new(name)),
        [GUEST, port] => guest::init::run(port),
        _ => return,
    };
    if let Err(error) = &result {
        eprintln!("{error:#}");
    }
    std::process::exit(i32::from(result.is_err()));
}

/// Starts the cluster's keeper, which removes what is left of an earlier cluster of that name and starts the
/// init of the new one; returns when that takes commands. The cluster ends when the keeper's standard input
/// does, until it is told to `detach`.
///
/// # Errors
/// The keeper or init fails; what they said is in the error.
pub fn start(layout: &Layout) -> anyhow::Result<Child> {
    fs::create_dir_all(layout::directory()).context("creating the directory of the clusters")?;
    let log = File::create(layout.keeper_log()).context("creating the keeper's log")?;
    let mut keeper = Command::new(std::env::current_exe().context("finding this program's own file")?);
    keeper
        .arg(KEEPER)
        .arg(layout.name())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/")
        // It may have been named relative to this process's directory.
        .env("PAVISE_TESTBED_DIR", layout::directory());
    let mut keeper = keeper.spawn().context("starting the cluster's keeper")?;
    let deadline = Instant::now() + PATIENCE;
    while request(layout, "status").is_err() {
        if keeper.try_wait()?.is_some() || Instant::now() > deadline {
            // With its standard input closed, whatever it has started ends.
            drop(keeper.stdin.take());
            keeper.wait().context("waiting for the cluster's keeper")?;
            let said = fs::read_to_string(layout.keeper_log()).unwrap_or_default();
            bail!("the cluster's init did not start: {}", said.trim());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(keeper)
}

/// Sends one command to the cluster's init and returns its answer.
///
/// # Errors
/// No init listens, or it answers with an error.
pub fn request(layout: &Layout, command: &str) -> anyhow::Result<String> {
    let attempt = || format!("asking the cluster {:?} to {command}", layout.name());
    let mut stream = UnixStream::connect(layout.control_socket()).with_context(attempt)?;
    writeln!(stream, "{command}").with_context(attempt)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(attempt)?;
    match answer.split_once('\n') {
        Some(("ok", rest)) => Ok(rest.to_owned()),
        Some(("error", rest)) => bail!("{}: {}", attempt(), rest.trim()),
        _ => bail!("{}: it ended", attempt()),
    }
}

/// The keeper: outside of the namespaces, it outlives init and cleans up what they do not cover.
fn keep(layout: &Layout) -> anyhow::Result<()> {
    // A session of its own: what a terminal sends to its foreground group (Ctrl-C) is for the owner to act
    // on.
    nix::unistd::setsid().context("leaving the session")?;
    let _lock = cluster_lock(layout)?.context("it runs already")?;
    remove_remains(layout)?;
    let logs = layout.log("init");
    fs::create_dir_all(logs.parent().unwrap_or(layout.state()))
        .context("creating the cluster's directory")?;
    // etcd's data, keys and tokens are there.
    fs::set_permissions(layout.state(), fs::Permissions::from_mode(0o700))
        .context("closing the cluster's directory")?;
    cgroup::create(&layout.cgroup())?;
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).context("creating a pid namespace (this needs root)")?;
    let mut init = Command::new("/proc/self/exe");
    let ended = init
        .arg(INIT)
        .arg(layout.name())
        .spawn()
        .and_then(|mut init| init.wait())
        .context("running the cluster's init")?;
    if !ended.success() {
        bail!("the cluster's init ended with {ended}");
    }
    remove_remains(layout)?;
    // Nothing went wrong, so nothing is to be told.
    fs::remove_file(layout.keeper_log()).context("removing the keeper's log")
}

/// Removes what namespaces do not cover: cgroups, and the cluster's directory.
///
/// # Errors
/// Something of it can't be removed.
pub(crate) fn remove_remains(layout: &Layout) -> anyhow::Result<()> {
    cgroup::remove(&layout.cgroup())?;
    if layout.state().exists() {
        fs::remove_dir_all(layout.state())
            .with_context(|| format!("removing {}", layout.state().display()))?;
    }
    Ok(())
}

/// The lock that a keeper holds for as long as it lives; `None` while another one does.
///
/// # Errors
/// The lock file can't be made.
pub(crate) fn cluster_lock(layout: &Layout) -> anyhow::Result<Option<Flock<File>>> {
    let attempt = || format!("locking {}", layout.lock().display());
    let parent = layout.state().parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(attempt)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(layout.lock()).with_context(attempt)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(attempt),
    }
}

/// Whether init is to go on when its owner has gone.
static IS_DETACHED: AtomicBool = AtomicBool::new(false);

fn init(layout: &Layout) -> anyhow::Result<()> {
    // The keeper is our only way to be cleaned up after: without it there is to be no cluster.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("asking to end with the keeper")?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).context("creating a mount namespace")?;
    private_root::enter(layout)?;
    let listener = UnixListener::bind(layout.control_socket()).context("listening for commands")?;
    std::thread::spawn(|| {
        // Reads to the end: the owner never writes, so the end is that the owner has gone.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        if !IS_DETACHED.load(Ordering::SeqCst) {
            std::process::exit(0);
        }
    });
    let layout = layout.clone();
    let supervisor = Supervisor::start(move |component| {
        File::options().create(true).append(true).open(layout.log(component))
    });
    for stream in listener.incoming() {
        let supervisor = Arc::clone(&supervisor);
        std::thread::spawn(move || answer(&supervisor, stream?));
    }
    Ok(())
}

fn answer(supervisor: &Supervisor, mut stream: UnixStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    match obey(supervisor, line.trim()) {
        Ok(text) => write!(stream, "ok\n{text}"),
        Err(error) => write!(stream, "error\n{error:#}"),
    }
}

fn obey(supervisor: &Supervisor, line: &str) -> anyhow::Result<String> {
    match line {
        "detach" => {
            IS_DETACHED.store(true, Ordering::SeqCst);
            Ok(String::new())
        }
        "down" => std::process::exit(0),
        _ => supervisor.obey(line),
    }
}
