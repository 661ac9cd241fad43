//! `test`: everything that has to hold before a change lands, the quick checks first.

use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::tidy;

/// What to leave out while working on one thing, and what to add.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the end-to-end tests whose names contain this
    #[arg(value_name = "NAME")]
    only: Option<String>,
    /// Also try the manifests on API servers of older Kubernetes versions; building them takes a while the first time
    #[arg(long, conflicts_with = "only")]
    full: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    // The workspace is linked with a library that has to be there before the first check.
    testbed::prerequisites::ensure()?;
    if options.only.is_none() {
        cargo("The format", &["fmt", "--all", "--check"])?;
        cargo("Lints", &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny=warnings"])?;
        eprintln!("==> The map");
        tidy::run()?;
        cargo("Unit tests", &["test", "--workspace", "--exclude=pavise-testbed", "--locked"])?;
        cargo("Unit tests of the testbed", &["test", "--package=pavise-testbed", "--lib", "--locked"])?;
        cargo(
            "Debian's AppArmor profiles",
            &["test", "--package=pavise-testbed", "--test=corpus", "--locked"],
        )?;
    }
    let end_to_end = ["test", "--package", "pavise-testbed", "--test", "e2e", "--locked", "--"];
    let words: Vec<&str> = end_to_end.into_iter().chain(options.only.as_deref()).collect();
    cargo("End-to-end tests on a real cluster", &words)?;
    if options.full {
        cargo(
            "The manifests on older API servers",
            &["test", "--package=pavise-testbed", "--test=older", "--locked"],
        )?;
    }
    Ok(())
}

fn cargo(what: &str, arguments: &[&str]) -> anyhow::Result<()> {
    eprintln!("==> {what}");
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(testbed::repository())
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("{}: failed; `cargo {}` shows it again", what.to_lowercase(), arguments.join(" "));
    }
    Ok(())
}
