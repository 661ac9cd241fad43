//! The AppArmor compiler: `apparmor_parser` in a container beside the agent's, which has no privilege.
//!
//! ```text
//!  agent: Client ─ text, kernel's features ─▶ Unix socket ─▶ server ─▶ run-parser ─exec─▶ apparmor_parser
//!                ◀─ policy, or words ───────                 (one for each text: limits, Landlock, seccomp)
//! ```
//!
//! Invariants: a text never meets a parser that could do more than read AppArmor's own files and answer.
//! Neither side believes the other: all that comes over the socket is bounded before it is kept, and awaited
//! for a limited time.

pub(crate) mod child;
pub(crate) mod client;
mod protocol;
pub(crate) mod queue;
pub(crate) mod server;
mod turns;
pub(crate) mod verdict;

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use profiles::digest::Digest;

use crate::host::compiler::compiler_identity;
use crate::host::error::HostError;

/// Where the server listens, in the image: in a volume that only the two containers have.
pub(crate) const SOCKET: &str = "/run/pavise/compiler.sock";
/// The parser of the image.
pub(crate) const PARSER: &str = "/usr/sbin/apparmor_parser";
/// What texts can include, in the image.
pub(crate) const INCLUDES: &str = "/etc/apparmor.d";
/// How many texts are compiled side by side, if there are as many processors. The memory limit of the
/// container follows from it.
pub(crate) const MOST_AT_ONCE: usize = 4;
/// How long compiling one text may take. The largest profiles that Debian has take half a second of a
/// processor; emulated processors take ten times that, and more.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// How much memory compiling one text may take, in bytes. The largest profiles that Debian has take 15 MiB.
pub(crate) const MEMORY: u64 = 256 << 20;

/// How the parser is called, but for where its files are: without a configuration file, a cache or the kernel,
/// in one process (`-j0`; `-j1` is two), from standard input to standard output.
const OPTIONS: &[&str] = &[
    "--config-file=/dev/null",
    "--skip-kernel-load",
    "--skip-cache",
    "--skip-read-cache",
    "--stdout",
    "--jobs=0",
    "--warn=rule-not-enforced",
    "--warn=dangerous",
];

/// The parser and its files.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) parser: PathBuf,
    pub(crate) includes: PathBuf,
}

impl Toolchain {
    /// That of the image, which both containers have.
    pub(crate) fn of_the_image() -> Self {
        Self { parser: PARSER.into(), includes: INCLUDES.into() }
    }

    /// Where the features are for which a text is compiled that is to be judged, not loaded: those of the
    /// newest `abi` that there is. So nothing is found that is due to the kernel of a node.
    pub(crate) fn features(&self) -> PathBuf {
        self.includes.join("abi/3.0")
    }

    /// What tells it from all others that may compile differently: part of the key under which compiled policy
    /// is kept.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub(crate) fn identity(&self) -> Result<Digest, HostError> {
        let includes = ["abi", "abstractions", "tunables"].map(|name| self.includes.join(name));
        let [abi, abstractions, tunables] = includes.each_ref().map(PathBuf::as_path);
        compiler_identity(&[&self.parser, abi, abstractions, tunables], OPTIONS)
    }

    /// Completes `command`, which runs the parser with the features that it has open as `features`.
    pub(crate) fn arguments(&self, command: &mut Command, features: RawFd) {
        command.args(OPTIONS).arg("--base").arg(&self.includes);
        // Its own number for it: the parser opens it once more.
        command.arg(format!("--features-file=/proc/self/fd/{features}"));
        // Of a text that has a name, it says which errors are in what the text includes.
        command.arg("/dev/stdin");
        // What it says is to be the same everywhere.
        command.env_clear().env("LANG", "C");
    }

    /// What a parser reads: programs and libraries, what texts include, and what its C library asks for. In
    /// the image, nothing else is below these paths.
    pub(crate) fn readable(&self) -> Vec<&Path> {
        let system =
            ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/proc/sys/kernel/osrelease"];
        system.into_iter().map(Path::new).chain([self.parser.as_path(), self.includes.as_path()]).collect()
    }
}

/// How many texts are compiled side by side here.
pub(crate) fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_AT_ONCE)
}

/// What became of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// It was compiled to `blob`. It may be empty: the parser takes a text without a profile.
    Compiled {
        blob: Vec<u8>,
        /// Warnings, in the parser's words.
        stderr: String,
    },
    /// The parser refuses it.
    Refused {
        /// Why, in the parser's words. They may quote what the text includes.
        stderr: String,
    },
    /// Compiling it takes too much.
    Limit(Limit),
    /// The parser crashes on it.
    Crashed,
}

impl Answer {
    /// For the log.
    fn kind(&self) -> &'static str {
        match self {
            Self::Compiled { .. } => "compiled",
            Self::Refused { .. } => "refused",
            Self::Limit(Limit::Time) => "out of time",
            Self::Limit(Limit::Memory) => "out of memory",
            Self::Limit(Limit::Size) => "too large",
            Self::Crashed => "crashed",
        }
    }
}

/// What compiling took too much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Limit {
    /// Time: [`DEADLINE`].
    Time,
    /// Memory.
    Memory,
    /// The size of the policy: 4 MiB.
    Size,
}
