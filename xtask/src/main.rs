//! The project's own commands. `cargo xtask help` lists them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cluster;
mod demo;
mod test;
mod tidy;

/// Everything that is done with this project: a real cluster on this machine, the demonstration, the tests.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a real cluster with Pavise in it; it stays until `down`
    Up(cluster::Name),
    /// End a cluster and remove all it left
    Down(cluster::Name),
    /// Say what runs in a cluster
    Status(cluster::Name),
    /// Show the Kubernetes tutorials of seccomp and AppArmor with Pavise, on a cluster of its own that ends with it
    Demo,
    /// Run all checks and tests: format, lints, tidy, unit tests, end-to-end tests on a real cluster
    Test(test::Options),
    /// Measure how quick and how small Pavise is, on a cluster of its own that ends with it
    Bench(bench::Options),
    /// Build the image from the Dockerfile and print where its archive is
    Image,
    /// Check what no compiler checks: that the code keeps to the map in ARCHITECTURE.md
    Tidy,
}

fn main() -> ExitCode {
    testbed::init::run_if_asked();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(name) => cluster::up(&name),
        Command::Down(name) => cluster::down(&name),
        Command::Status(name) => cluster::status(&name),
        Command::Demo => demo::run(),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Image => testbed::prerequisites::ensure()
            .and_then(|()| testbed::images::pavise_image())
            .map(|archive| println!("{}", archive.display())),
        Command::Tidy => tidy::run(),
    }
}
