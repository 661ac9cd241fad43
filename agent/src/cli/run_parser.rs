//! `pavise run-parser`: what the compiler starts for one text. It confines itself, and becomes the parser.
//!
//! So nothing has to be done between fork and exec, where hardly anything may be done.

use std::convert::Infallible;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command};

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::compiler::Toolchain;
use crate::compiler::child::NO_PARSER;
use crate::host::child::end_with_parent;
use crate::host::memfd::{self, Heir};
use crate::host::sandbox::{self, Bounds};

/// What the compiler typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The process to end with.
    #[arg(long)]
    parent: u32,

    /// How many bytes of standard input are features; what follows is the text.
    #[arg(long)]
    features: u64,

    /// Address space, in bytes.
    #[arg(long)]
    memory: u64,

    /// Processor time, in seconds.
    #[arg(long)]
    seconds: u64,

    #[arg(long)]
    parser: PathBuf,

    #[arg(long)]
    includes: PathBuf,
}

/// Becomes the parser, or ends with a code that no parser ends with.
pub(crate) fn run(arguments: Arguments) -> ! {
    let Err(error) = become_parser(arguments);
    eprintln!("{error:#}");
    process::exit(NO_PARSER)
}

fn become_parser(arguments: Arguments) -> Result<Infallible> {
    end_with_parent(arguments.parent)?;
    let features = features(arguments.features)?;
    let toolchain = Toolchain { parser: arguments.parser, includes: arguments.includes };
    let mut parser = Command::new(&toolchain.parser);
    toolchain.arguments(&mut parser, features.as_raw_fd());
    sandbox::confine_parser(
        &toolchain.readable(),
        Bounds { memory: arguments.memory, seconds: arguments.seconds },
    )?;
    let error = parser.exec();
    Err(anyhow!(error)).with_context(|| format!("running {}", toolchain.parser.display()))
}

/// A file with the features, which are the first `length` bytes of standard input. Its offset then is where the
/// text begins.
fn features(length: u64) -> Result<std::fs::File> {
    let mut features = vec![0; usize::try_from(length)?];
    // Without a buffer, which would take some of the text.
    let input = io::stdin();
    let input = std::fs::File::from(std::os::fd::AsFd::as_fd(&input).try_clone_to_owned()?);
    (&input).read_exact(&mut features).context("reading the features from standard input")?;
    memfd::with(&[&features], Heir::NextProgram).map_err(|error| anyhow!(error.in_full()))
}
