//! `pavise` brings seccomp and AppArmor profiles onto nodes, labels the Nodes with what is really loaded, and says
//! whether pods get what they ask for.
//!
//! | command | what it does | its loop |
//! |---|---|---|
//! | `agent` | keeps one node in line with the bundles | [`sync`] |
//! | `catalog` | judges all bundles, and keeps the `ProfileCatalog`, once for a cluster | [`catalog`] |
//! | `compiler` | compiles AppArmor texts without any privilege | [`compiler`] |
//! | `lint` | judges files | |
//! | `check` | says where pods find their profiles, and which a level would refuse | |
//!
//! The crate `profiles` decides; everything here acts on that. Kubernetes' types stop in [`cluster`], system calls
//! and notify in [`host`]. ARCHITECTURE.md has the flow of data.

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
