//! `pavise compiler`: compiles AppArmor texts for the agent beside it, without any privilege.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::FutureExt;
use futures::future;
use tracing::{info, warn};

use super::block_on;
use crate::compiler::child::Cost;
use crate::compiler::server::{Server, Socket};
use crate::compiler::{self, Toolchain};
use crate::host::sandbox;
use crate::observe::{logs, signals};

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Where to listen: a path in a directory that only the agent, or the catalog, shares.
    #[arg(long, default_value = compiler::SOCKET, value_name = "PATH")]
    socket: PathBuf,

    /// How many texts are compiled side by side [default: one for each processor, 4 at most].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: Option<u16>,

    /// How long compiling one text may take, such as 30s. The agent waits for a minute.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    deadline: Duration,

    /// How much memory compiling one text may take, in MiB. The container needs as much for each text
    /// that is compiled at the same time.
    #[arg(long, default_value_t = compiler::MEMORY >> 20, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=65_536))]
    memory: u64,

    /// How log lines are written. `RUST_LOG` filters them, as in `RUST_LOG=pavise=debug`.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logs::Format,

    /// Another parser than the image's.
    #[arg(long, hide = true, default_value = compiler::PARSER, value_name = "PATH")]
    parser: PathBuf,

    /// Other files to include than the image's.
    #[arg(long, hide = true, default_value = compiler::INCLUDES, value_name = "PATH")]
    includes: PathBuf,
}

/// Compiles until it is told to stop.
///
/// # Errors
/// There is no parser, or the socket can't be made.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    // Before there is a second thread, which would have been left out.
    let confined = sandbox::confine_server();
    block_on(arguments.log_format, serve(arguments, confined))
}

async fn serve(arguments: Arguments, confined: Result<()>) -> Result<()> {
    let stop = signals::stop().context("listening for SIGTERM and SIGINT")?;
    let toolchain = Toolchain { parser: arguments.parser, includes: arguments.includes };
    let parser = version(&toolchain)?;
    let identity = toolchain.identity()?;
    if let Err(error) = confined {
        warn!(error = format!("{error:#}"), "Compiler sandbox is incomplete");
    }
    if !sandbox::has_landlock() {
        warn!(
            "The kernel has no Landlock: texts can include any file of this container that its user can read"
        );
    }
    let at_once = arguments.at_once.map_or_else(compiler::at_once, usize::from);
    let cost = Cost { deadline: arguments.deadline, memory: arguments.memory << 20 };
    let socket = Socket::listen(&arguments.socket)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        %parser,
        %identity,
        socket = %arguments.socket.display(),
        at_once,
        "Compiler started"
    );
    let server = Server::new(toolchain, cost, at_once);
    future::select(server.serve(&socket).boxed(), stop.boxed()).await;
    info!("Compiler stopped");
    Ok(())
}

/// What the parser says that it is.
fn version(toolchain: &Toolchain) -> Result<String> {
    let parser = toolchain.parser.display();
    let asked = Command::new(&toolchain.parser).arg("--version").env_clear().output();
    let asked = asked.with_context(|| format!("running {parser}; it comes with the package apparmor"))?;
    if !asked.status.success() {
        bail!("running {parser} --version: {}; is it AppArmor's parser?", asked.status);
    }
    let words = String::from_utf8_lossy(&asked.stdout);
    Ok(words.lines().next().unwrap_or_default().to_owned())
}
