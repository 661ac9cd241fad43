//! Log lines.
//!
//! Invariant: they go to standard error, as short sentences with fields.

use std::env;
use std::io::{self, IsTerminal};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// kube logs what it also returns, and what it returns is logged here, with what to do about it.
const DEFAULT_FILTER: &str = "info,kube_client=off,kube_runtime=off";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts logging what `RUST_LOG` asks for.
///
/// # Errors
/// When `RUST_LOG` can't be understood.
pub(crate) fn start(format: Format) -> Result<()> {
    let wanted = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let filter =
        EnvFilter::try_new(&wanted).map_err(|error| anyhow!("reading RUST_LOG={wanted:?}: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        Format::Human => lines.init(),
        Format::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
