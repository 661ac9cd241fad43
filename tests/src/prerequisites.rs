//! What the testbed needs of the machine. What can be installed is installed; what can't is named, all of it at once.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{command, progress};

/// A program, and the Debian/Ubuntu package that brings it.
const PACKAGED: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("mmdebstrap", "mmdebstrap"),
    ("runc", "runc"),
    ("gpgv", "gpgv"),
    ("unshare", "util-linux"),
];

/// Makes sure that everything the testbed needs is there.
///
/// # Errors
/// Something is missing that can't be installed here: one error names all of it and what to do.
pub fn ensure() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        problems.push(
            "root: nodes need namespaces, mounts and cgroups of their own; run it again with sudo".to_owned(),
        );
    }
    if command::find_program("go").is_none() {
        problems.push("Go 1.21 or newer in PATH (it fetches the version that is asked for by itself): https://go.dev/doc/install".to_owned());
    }
    let missing = missing_packages();
    if !missing.is_empty()
        && (problems.is_empty() && command::find_program("apt-get").is_some())
            .then(|| install(&missing))
            .is_none_or(|done| done.is_err())
    {
        problems.push(format!(
            "the Debian/Ubuntu packages {0} (elsewhere: the same programs): apt-get install {0}",
            missing.join(" ")
        ));
    }
    if !problems.is_empty() {
        bail!("this machine lacks what the testbed needs:\n  - {}", problems.join("\n  - "));
    }
    Ok(())
}

fn missing_packages() -> Vec<&'static str> {
    PACKAGED
        .iter()
        .filter(|(program, _)| command::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect()
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    progress::step(&format!("Installing {}", packages.join(", ")), || {
        let apt_get = |words: &[&str]| {
            command::output(
                Command::new("apt-get")
                    .args(["-qq", "-y"])
                    .args(words)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        };
        let install = [&["install", "--no-install-recommends"], packages].concat();
        // A machine that has never run `update` knows no packages, and one that ran it long ago knows old ones.
        apt_get(&["update"])
            .and_then(|_| apt_get(&install))
            .inspect_err(|error| eprintln!("    {error:#}"))?;
        let still_missing = missing_packages();
        still_missing
            .is_empty()
            .then_some(())
            .with_context(|| format!("still missing: {}", still_missing.join(", ")))
    })
}
