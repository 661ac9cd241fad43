//! A virtual machine with a kernel of its own, and how it is told what to do.
//!
//! ```text
//!  this machine                                     QEMU, a component of the cluster's init
//!  Guest ── <node>.sock ── virtio port "control" ──▶ guest::init ─▶ containerd, kubelet, any command
//!  <component>.log ◀────── virtio port of its name ─────────────────┘
//!  /, cluster's directory ── 9p, read-only ────────▶ its root, below what it writes
//! ```
//!
//! An order is a line with a JSON object, and so is its answer; a socket serves one client at a time.
//! Invariant: only who may open the cluster's directory can give orders.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::supervisor::{Errand, Outcome};

mod boot;
pub(crate) mod init;

pub(crate) use boot::Boot;

/// The name of the port for orders.
pub(crate) const CONTROL: &str = "control";

/// How long a command may run in a guest, in seconds.
const LONGEST_ERRAND: u64 = 120;
/// How long an answer may take: that of the longest command, and of whoever asked before.
const PATIENCE: Duration = Duration::from_secs(2 * LONGEST_ERRAND);

#[derive(Serialize, Deserialize)]
struct Order {
    /// Tells the answer to this order from one to an order before, whose client did not wait for it.
    id: String,
    /// As the cluster's init takes them.
    command: String,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    id: String,
    result: Result<String, String>,
}

/// A guest, as it is reached from this machine.
#[derive(Debug, Clone)]
pub struct Guest {
    socket: PathBuf,
}

impl Guest {
    /// The guest whose port for orders is at `socket`.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Runs a command as root in the guest, and returns what it prints.
    ///
    /// # Errors
    /// The guest does not answer; or the command fails, or takes more than two minutes: then the error holds
    /// what it said.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        self.run_with_input(words, "")
    }

    /// Runs a command as root in the guest with `input` on its standard input, and returns what it prints.
    ///
    /// # Errors
    /// As for [`Guest::run`].
    pub fn run_with_input(&self, words: &[&str], input: &str) -> anyhow::Result<String> {
        let limit = LONGEST_ERRAND.to_string();
        let limited = ["timeout", "--kill-after=5", &limit].into_iter().chain(words.iter().copied());
        let errand = Errand { words: limited.map(str::to_owned).collect(), input: input.to_owned() };
        let answer = self.request(&format!("run {}", serde_json::to_string(&errand)?))?;
        let outcome: Outcome = serde_json::from_str(&answer).context("reading what came of it")?;
        if let Some(failure) = outcome.failure {
            bail!(
                "{} ended in the guest with {failure}: {}{}",
                words.join(" "),
                outcome.errors,
                outcome.output
            );
        }
        Ok(outcome.output)
    }

    /// Gives one order, in the words that the cluster's init takes, and returns its answer.
    ///
    /// # Errors
    /// The guest does not answer, or answers with an error.
    pub(crate) fn request(&self, command: &str) -> anyhow::Result<String> {
        self.request_within(PATIENCE, command)
    }

    /// The same, with less patience.
    pub(crate) fn request_within(&self, patience: Duration, command: &str) -> anyhow::Result<String> {
        let attempt = || format!("asking the guest at {} to {command:.200}", self.socket.display());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let order = Order {
            id: format!("{} {} {:?}", std::process::id(), now.as_nanos(), std::thread::current().id()),
            command: command.to_owned(),
        };
        let mut stream = UnixStream::connect(&self.socket).with_context(attempt)?;
        stream.set_read_timeout(Some(patience)).with_context(attempt)?;
        // The empty line ends what somebody before may have begun.
        writeln!(stream, "\n{}", serde_json::to_string(&order)?).with_context(attempt)?;
        for line in BufReader::new(stream).split(b'\n') {
            match serde_json::from_slice::<Answer>(&line.with_context(attempt)?) {
                Ok(answer) if answer.id == order.id => {
                    return answer.result.map_err(|error| anyhow::anyhow!("{}: {error}", attempt()));
                }
                // To somebody who did not wait for it.
                Ok(_) | Err(_) => {}
            }
        }
        bail!("{}: it ended", attempt())
    }
}
