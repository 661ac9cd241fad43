//! Runs a program to its end and turns a failure into an error that holds what the program said.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

/// Runs `command` with nothing on its standard input and returns its standard output.
///
/// # Errors
/// The program can't be started, or ended with a failure: then the error holds the end of what it printed.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    output_with_input(command, b"")
}

/// Runs `command` with `input` on its standard input and returns its standard output.
///
/// # Errors
/// As for [`output`].
pub fn output_with_input(command: &mut Command, input: &[u8]) -> anyhow::Result<String> {
    let finished = finish(command, input)?;
    if !finished.status.success() {
        bail!("{} ended with {}: {}", shown(command), finished.status, tail(&finished));
    }
    Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
}

/// Runs `command` to its end, whatever that is.
///
/// # Errors
/// The program can't be started or waited for.
pub fn finish(command: &mut Command, input: &[u8]) -> anyhow::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", shown(command)))?;
    let mut pipe = child.stdin.take().context("the child has no standard input")?;
    std::thread::scope(|scope| {
        // A program that does not read its input closes the pipe; that it did not want it is no error of
        // ours.
        scope.spawn(move || drop(pipe.write_all(input)));
        child.wait_with_output().with_context(|| format!("waiting for {}", shown(command)))
    })
}

/// The program `name` in the directories of `PATH` and in those where administrators' programs are.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The command line, without what nobody else is to see.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy);
    words
        .map(|word| if word.starts_with("--token=") { "--token=…".into() } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last 4,000 bytes of what a program printed, its errors first.
fn tail(finished: &Output) -> String {
    let text = if finished.stderr.trim_ascii().is_empty() { &finished.stdout } else { &finished.stderr };
    let start = text.len().saturating_sub(4_000);
    String::from_utf8_lossy(&text[start..]).trim().to_owned()
}
