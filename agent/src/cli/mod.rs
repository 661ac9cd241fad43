//! The command line: one file per command.
//!
//! Invariant: each command has two stages. What the user typed is checked and becomes a configuration first;
//! only then is anything touched.

mod agent;
mod catalog;
mod check;
mod compiler;
mod lint;
mod run_parser;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use profiles::name::Namespace;

use crate::observe::logs;

/// Puts seccomp and AppArmor profiles where Kubernetes needs them, and labels nodes with what they have.
#[derive(Debug, Parser)]
#[command(name = "pavise", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep this node's profiles and labels in line with the bundles, until told to stop.
    Agent(agent::Arguments),
    /// Write Events on bundles that say what is wrong with them, until told to stop.
    Catalog(catalog::Arguments),
    /// Say on which nodes pods find the profiles that they refer to, and what is missing. Or say which pods
    /// would be refused if a level were enforced.
    Check(check::Arguments),
    /// Compile AppArmor texts for the agent or the catalog beside it, without any privilege, until told to
    /// stop.
    Compiler(compiler::Arguments),
    /// Say what is wrong with profiles, as the agent would, without a cluster.
    Lint(lint::Arguments),
    /// What the compiler starts for one text.
    #[command(hide = true)]
    RunParser(run_parser::Arguments),
}

/// The namespaces that bundles are in.
#[derive(Args, Debug)]
struct BundleNamespaces {
    /// The namespaces to read bundles from, separated by commas: the same, in the same order, for the agents,
    /// the catalog and `pavise check`. References to bundles of the first have no namespace.
    #[arg(
        long = "bundle-namespace",
        default_value = "pavise-profiles",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    names: Vec<Namespace>,
}

impl BundleNamespaces {
    /// The first.
    ///
    /// # Errors
    /// There is none.
    fn home(&self) -> Result<&Namespace> {
        self.names.first().context("--bundle-namespace names no namespace")
    }
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Outcome {
    /// It did what it was asked to, and found nothing wrong.
    Done,
    /// It was asked for a verdict, which is no; or the agent, run once, could not serve all.
    Refused,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<Outcome> {
    match arguments.command {
        Command::Agent(arguments) => agent::run(arguments),
        Command::Catalog(arguments) => catalog::run(arguments).map(|()| Outcome::Done),
        Command::Check(arguments) => check::run(&arguments),
        Command::Compiler(arguments) => compiler::run(arguments).map(|()| Outcome::Done),
        Command::RunParser(arguments) => run_parser::run(arguments),
        Command::Lint(arguments) => lint::run(&arguments),
    }
}

/// Does all of `work` on this thread, with a log in `format`.
fn block_on<T>(format: logs::Format, work: impl Future<Output = Result<T>>) -> Result<T> {
    logs::start(format)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the asynchronous runtime")?.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
