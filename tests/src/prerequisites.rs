//! What the testbed needs of the machine. What can be installed is installed; what can't is named, all of it
//! at once.

use std::process::Command;

use anyhow::bail;

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
            "root: nodes need namespaces, mounts and cgroups of their own; run it again as root: sudo -E env \"PATH=$PATH\" cargo xtask …".to_owned(),
        );
    }
    if command::find_program("go").is_none() {
        problems.push("Go 1.21 or newer in PATH (it fetches the version that is asked for by itself): https://go.dev/doc/install".to_owned());
    }
    let can_install = problems.is_empty() && command::find_program("apt-get").is_some();
    if can_install && !missing_packages().is_empty() {
        install(&missing_packages())?;
    }
    let missing = missing_packages().join(" ");
    if !missing.is_empty() {
        problems.push(format!("the Debian/Ubuntu packages {missing} (elsewhere: what has the same programs): apt-get install {missing}"));
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
            let mut apt_get = Command::new("apt-get");
            command::output(apt_get.args(["-qq", "-y"]).args(words).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        // A machine that has never run `update` knows no packages, and one that ran it long ago knows old
        // ones.
        apt_get(&["update"])?;
        apt_get(&[&["install", "--no-install-recommends"], packages].concat()).map(drop)
    })
}
