//! `pavise run-parser`: what the compiler starts for one text. It confines itself, and becomes the parser.
//!
//! So nothing has to be done between fork and exec, where hardly anything may be done.

use std::convert::Infallible;
use std::fs::File;
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
    let [features, text] = parts(arguments.features)?;
    let toolchain = Toolchain { parser: arguments.parser, includes: arguments.includes };
    let mut parser = Command::new(&toolchain.parser);
    toolchain.arguments(&mut parser, features.as_raw_fd());
    // The parser opens it by a name, anew: so it has to be a file that begins where the text does.
    parser.stdin(text);
    sandbox::confine_parser(
        &toolchain.readable(),
        Bounds { memory: arguments.memory, seconds: arguments.seconds },
    )?;
    let error = parser.exec();
    Err(anyhow!(error)).with_context(|| format!("running {}", toolchain.parser.display()))
}

/// A file with the features, which are the first `length` bytes of standard input, and one with the text, which
/// is the rest.
fn parts(length: u64) -> Result<[File; 2]> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input).context("reading features and text from standard input")?;
    let parts = input.split_at_checked(usize::try_from(length)?);
    let (features, text) = parts.context("standard input is shorter than the features are to be")?;
    let file = |part, heir| memfd::with(&[part], heir).map_err(|error| anyhow!(error.in_full()));
    Ok([file(features, Heir::NextProgram)?, file(text, Heir::Nobody)?])
}
