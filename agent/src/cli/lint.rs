//! `pavise lint`: says what is wrong with profiles, without a cluster.
//!
//! Invariant: what is judged is judged as the agent does it, with its limits and in its sandbox. What keeps
//! one profile from being judged keeps no other.

mod files;
mod parser;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use profiles::apparmor::{beside, text};
use profiles::bundle::Kind;
use profiles::diagnostic::{Diagnostic, Severity};
use profiles::platform::{Architecture, Kernel, Platform};
use profiles::seccomp;

use super::Outcome;
use crate::compiler;
use crate::host::platform;
use files::{Text, texts};
use parser::Parser;

/// What a script wants to know.
const EXIT_CODES: &str = "\
Exit codes: 0 if no profile has an error (it may have warnings; nothing is printed of one that has neither),
1 if one has, or can't be read or compiled, 2 if the arguments are wrong";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Profiles; directories of profiles; - for standard input. Of a directory, every file ending with .json
    /// is read, or with `--kind apparmor` every one that does not end with .json, .yaml, .yml or .md, nor is
    /// hidden.
    #[arg(required = true, value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,

    /// What the profiles are: seccomp documents or AppArmor texts. Unless it is given, a file is a seccomp
    /// document if its name ends with .json, or if it begins with {, and an AppArmor text if not.
    #[arg(long, value_name = "seccomp|apparmor", value_parser = kind)]
    kind: Option<Kind>,

    /// The architecture of the nodes that seccomp profiles are for, such as amd64 or arm64: `archMap` and
    /// conditions in Docker's format depend on it. That of this machine unless given.
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<Architecture>,

    /// The kernel of the nodes that seccomp profiles are for, such as 6.12: conditions in Docker's format
    /// depend on it. That of this machine unless given.
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<Kernel>,

    /// What AppArmor texts are compiled with. If it does not exist, their rules are not checked, and a line
    /// on standard error says so.
    #[arg(long, value_name = "PATH", default_value = compiler::PARSER)]
    parser: PathBuf,

    /// The features of the kernel that AppArmor texts are compiled for, as `apparmor_parser --features-file`
    /// takes them [default: /etc/apparmor.d/abi/3.0].
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
}

fn kind(word: &str) -> Result<Kind, String> {
    Kind::from_word(word).ok_or_else(|| format!("it is {}", Kind::ALL.map(Kind::as_str).join(" or ")))
}

impl Arguments {
    /// The nodes that seccomp profiles are for.
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
/// Something can't be read or compiled, is no UTF-8 text, or a directory holds no profile. All else is judged
/// first.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let platform = arguments.platform()?;
    // It is looked for when there is a text for it.
    let mut parser = None;
    let mut outcome = Outcome::Done;
    let mut failures = Vec::new();
    for text in arguments.paths.iter().flat_map(|path| texts(path, arguments.kind)) {
        let Text { name, kind, content } = match text {
            Ok(text) => text,
            Err(error) => {
                failures.push(format!("{error:#}"));
                continue;
            }
        };
        let findings = match kind {
            Kind::Seccomp => seccomp::check(&content, platform).findings,
            Kind::AppArmor => {
                if parser.is_none() {
                    parser = Some(Parser::find(&arguments.parser, arguments.features.as_deref())?);
                }
                let (findings, failure) = of_apparmor(&content, parser.as_ref().and_then(Option::as_ref));
                failures.extend(failure.map(|error| format!("compiling {name}: {error:#}")));
                findings
            }
        };
        outcome = outcome.max(print(&name, &findings, &mut io::stdout().lock())?);
    }
    if !failures.is_empty() {
        bail!(failures.join("\n"));
    }
    Ok(outcome)
}

/// What there is to say of an AppArmor text, and why that is not all. As on a node, a text that its own words
/// refuse is not compiled.
fn of_apparmor(content: &str, parser: Option<&Parser>) -> (Vec<Diagnostic>, Option<anyhow::Error>) {
    let text::Scanned { names, mut findings } = text::scan(content);
    let Some(parser) = parser.filter(|_| !is_refused(&findings)) else { return (findings, None) };
    match parser.compile(content, &names) {
        Ok(found) => {
            let more: Vec<_> = beside(&findings, &found).cloned().collect();
            findings.extend(more);
            (findings, None)
        }
        Err(error) => (findings, Some(error)),
    }
}

fn is_refused(findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| finding.severity() == Severity::Error)
}

fn print(name: &str, findings: &[Diagnostic], out: &mut impl Write) -> Result<Outcome> {
    for finding in findings {
        writeln!(out, "{name}:{}", shown(finding)).context("writing the findings")?;
    }
    Ok(if is_refused(findings) { Outcome::Refused } else { Outcome::Done })
}

/// A finding as compilers write them, so that editors find the place.
fn shown(finding: &Diagnostic) -> String {
    let Diagnostic { code, place, message, help } = finding;
    let (line, column) = place.position.unwrap_or((1, 1));
    let part = place.part().map(|part| format!(" {part}")).unwrap_or_default();
    format!("{line}:{column}: {}[{code}]{part}: {message}; {help}", finding.severity())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli;
    use crate::examples::PLATFORM;

    fn check(text: &str, outcome: Outcome, expected: &str) {
        let mut out = Vec::new();
        let findings = seccomp::check(text, PLATFORM).findings;
        assert_eq!(print("p.json", &findings, &mut out).unwrap(), outcome);
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
        assert!(parse(&["--kind", "apparmor"]).is_ok());
        assert!(parse(&["--kind", "selinux"]).is_err());
    }
}
