//! The command line: one file per command.
//!
//! Invariant: each command has two stages. What the user typed is checked and becomes a configuration first; only
//! then is anything touched.

mod agent;

use clap::{Parser, Subcommand};

/// Puts seccomp profiles where Kubernetes needs them, and labels nodes with what they have.
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
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Agent(arguments) => agent::run(arguments),
    }
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
