//! `pavise lint`: says what is wrong with profiles, without a cluster.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use profiles::diagnostic::{Diagnostic, Severity};
use profiles::platform::{Architecture, Kernel, Platform};
use profiles::seccomp;

use super::Outcome;
use crate::host::platform;

/// What a script wants to know.
const EXIT_CODES: &str = "\
Exit codes: 0 if no profile has an error (it may have warnings; nothing is printed of one that has neither),
1 if one has, or can't be read, 2 if the arguments are wrong";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Profiles; directories of profiles, of which every file ending with .json is read; - for standard
    /// input.
    #[arg(required = true, value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,

    /// The architecture of the nodes that the profiles are for, such as amd64 or arm64: `archMap` and
    /// conditions in Docker's format depend on it. That of this machine unless given.
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<Architecture>,

    /// The kernel of the nodes that the profiles are for, such as 6.12: conditions in Docker's format depend
    /// on it. That of this machine unless given.
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<Kernel>,
}

impl Arguments {
    /// The nodes that the profiles are for.
    fn platform(&self) -> Result<Platform> {
        Ok(Platform {
            architecture: self.arch.map_or_else(platform::architecture, Ok).context("without --arch")?,
            kernel: self.kernel.map_or_else(platform::kernel, Ok).context("without --kernel")?,
        })
    }
}

/// Prints every finding about every profile, in the form `file:line:column: severity[code] …`.
///
/// # Errors
/// Something can't be read, is no UTF-8 text, or a directory holds no profile. All else is judged first.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let platform = arguments.platform()?;
    let mut outcome = Outcome::Done;
    let mut unreadable = Vec::new();
    for path in &arguments.paths {
        for text in texts(path) {
            match text {
                Ok((name, text)) => {
                    outcome = outcome.max(lint(&name, &text, platform, &mut io::stdout().lock())?);
                }
                Err(error) => unreadable.push(format!("{error:#}")),
            }
        }
    }
    if !unreadable.is_empty() {
        bail!(unreadable.join("\n"));
    }
    Ok(outcome)
}

fn lint(name: &str, text: &str, platform: Platform, out: &mut impl Write) -> Result<Outcome> {
    let findings = seccomp::check(text, platform).findings;
    for finding in &findings {
        writeln!(out, "{name}:{}", shown(finding)).context("writing the findings")?;
    }
    let is_refused = findings.iter().any(|finding| finding.severity() == Severity::Error);
    Ok(if is_refused { Outcome::Refused } else { Outcome::Done })
}

/// A finding as compilers write them, so that editors find the place.
fn shown(finding: &Diagnostic) -> String {
    let Diagnostic { code, place, message, help } = finding;
    let (line, column) = place.position.unwrap_or((1, 1));
    format!("{line}:{column}: {}[{code}] {}: {message}; {help}", finding.severity(), place.path)
}

/// The profiles at `path`, each with its name, or what keeps it from being read.
fn texts(path: &Path) -> Vec<Result<(String, String)>> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        let read = io::stdin().read_to_end(&mut text).context("reading standard input");
        return vec![read.and_then(|_| named("<stdin>".to_owned(), text))];
    }
    let files = if path.is_dir() { profiles_below(path) } else { Ok(vec![path.to_owned()]) };
    let read = |file: PathBuf| {
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        named(file.display().to_string(), text)
    };
    files.map_or_else(|error| vec![Err(error)], |files| files.into_iter().map(read).collect())
}

/// The profile `name` of this content.
fn named(name: String, content: Vec<u8>) -> Result<(String, String)> {
    match String::from_utf8(content) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let byte = error.utf8_error().valid_up_to() + 1;
            bail!("reading {name}: byte {byte} is not UTF-8: save it as UTF-8 text")
        }
    }
}

/// The files below `directory` that end with `.json`. Directories whose names begin with a dot are passed
/// over: in them, the kubelet keeps the files of a mounted ConfigMap, which are linked from beside them.
fn profiles_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))? {
            let entry = entry.with_context(|| format!("listing {}", directory.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                    waiting.push(entry.path());
                }
            } else if entry.path().extension().is_some_and(|ending| ending == "json") {
                files.push(entry.path());
            }
        }
    }
    if files.is_empty() {
        bail!("looking for profiles in {}: no file there ends with .json", directory.display());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli;
    use crate::examples::PLATFORM;

    fn check(text: &str, outcome: Outcome, expected: &str) {
        let mut out = Vec::new();
        assert_eq!(lint("p.json", text, PLATFORM, &mut out).unwrap(), outcome);
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with(expected), "{out}");
    }

    #[test]
    fn a_finding_is_printed_with_its_place() {
        check(
            "{\n \"defaultAction\": \"SCMP_ACT_EROR\"}",
            Outcome::Refused,
            "p.json:2:19: error[unknown-action] $.defaultAction: ",
        );
        check(
            "{\"defaultAction\": \"SCMP_ACT_LOG\", \"x\": 1}",
            Outcome::Done,
            "p.json:1:35: warning[unknown-field] $.x: ",
        );
        check("{\"defaultAction\": \"SCMP_ACT_LOG\"}", Outcome::Done, "");
    }

    #[test]
    fn profiles_are_read_for_the_nodes_that_are_named() {
        let parse = |arguments: &[&str]| {
            let all = ["pavise", "lint", "p.json"].iter().chain(arguments);
            cli::Arguments::try_parse_from(all).map(|parsed| {
                let cli::Command::Lint(arguments) = parsed.command else { panic!("another command") };
                arguments.platform().unwrap()
            })
        };
        let named = parse(&["--arch", "s390x", "--kernel", "4.7.1"]).unwrap();
        assert_eq!(
            named,
            Platform { architecture: Architecture::S390x, kernel: Kernel { major: 4, minor: 7 } }
        );
        assert_eq!(parse(&[]).unwrap(), platform::of_this_machine().unwrap());
        assert!(parse(&["--arch", "x86_64"]).is_err());
        assert!(parse(&["--kernel", "new"]).is_err());
    }

    /// Claims the names of the profiles at `path`, and what is said of those that can't be read.
    fn check_texts(path: &Path, expected: &[&str]) {
        let said: Vec<String> = texts(path)
            .into_iter()
            .map(|text| text.map_or_else(|error| format!("{error:#}"), |(name, _)| name))
            .collect();
        let is_expected = said.iter().zip(expected).all(|(said, expected)| said.ends_with(expected));
        assert!(is_expected && said.len() == expected.len(), "{said:?}");
    }

    #[test]
    fn a_directory_is_searched_and_an_empty_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        check_texts(directory.path(), &["no file there ends with .json"]);
        for inner in ["inner", "..2026"] {
            fs::create_dir(directory.path().join(inner)).unwrap();
        }
        for name in ["b.json", "a.json", "inner/c.json", "..2026/a.json", "README.md"] {
            fs::write(directory.path().join(name), "{}").unwrap();
        }
        check_texts(directory.path(), &["/a.json", "/b.json", "/inner/c.json"]);
    }

    #[test]
    fn what_is_no_text_keeps_no_other_file_from_being_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.json"), b"{\xff").unwrap();
        fs::write(directory.path().join("b.json"), "{}").unwrap();
        check_texts(directory.path(), &["/a.json: byte 2 is not UTF-8: save it as UTF-8 text", "/b.json"]);
    }
}
