//! `pavise` puts seccomp and AppArmor profiles where Kubernetes needs them, and tells the truth about it.
//!
//! ```text
//!  ConfigMaps ─ watch ─┐
//!    or a directory ───┤                                          ┌─▶ files below <kubelet root>/seccomp  (host)
//!  its pods ─── watch ─┤                                          ├─▶ ledger                              (host)
//!  own Node ─── watch ─┼─▶ Event ─▶ State::apply ─▶ plan ─▶ Plan ─┼─▶ labels of the Node               (cluster)
//!  disk ─ notify, scan ┘        (profiles: pure, told the time)   └─▶ looks at files, policy, containers  (host)
//!                                        ▲    │                            │
//!                                        │    │   the outcome of each step, as an Event
//!                                        └────┼────────────────────────────┘
//!                                             ├─▶ numbers and reasons ───▶ /metrics, /readyz           (observe)
//!                                             ├─▶ findings about pods ───▶ Events on them, the log     (cluster)
//!                                             └─▶ report ────────────────▶ NodeProfileReport           (cluster)
//! ```
//!
//! One loop ([`sync`]) on one thread. Kubernetes' types stop in [`cluster`], system calls and notify in
//! [`host`]. [`catalog`] is another such loop, of which a cluster has one: it says on each bundle what is
//! wrong with it.

mod catalog;
mod cli;
mod cluster;
mod compiler;
mod directory;
#[cfg(test)]
mod examples;
mod host;
mod observe;
mod sync;

use std::process::ExitCode;

use clap::Parser;

use cli::Outcome;

fn main() -> ExitCode {
    exit_code(&cli::run(cli::Arguments::parse()))
}

/// The one place that chooses the exit code.
///
/// | code | meaning |
/// |---|---|
/// | 0 | the command did what it was asked to |
/// | 1 | it failed, and says why; or its verdict is no: of `lint`, `check` or `agent --once` |
/// | 2 | the command line is wrong; `clap` exits with it by itself |
fn exit_code(result: &anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pavise: {error:#}");
            ExitCode::FAILURE
        }
    }
}
