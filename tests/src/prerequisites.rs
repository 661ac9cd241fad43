//! What the testbed needs of the machine. What can be installed is installed; what can't is named, all of it
//! at once.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::{command, progress};

/// A program, and the Debian/Ubuntu package that brings it.
const PACKAGED: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("mmdebstrap", "mmdebstrap"),
    ("runc", "runc"),
    ("gpgv", "gpgv"),
    ("apparmor_parser", "apparmor"),
    ("unshare", "util-linux"),
    // The node that is a guest: what it runs in, what its boot files are made with, and what loads profiles
    // there.
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("cpio", "cpio"),
    ("apparmor_parser", "apparmor"),
];

/// Libraries that the workspace is linked with, each as a file below [`LIBRARIES`], and the packages that
/// bring them.
const LINKED: &[(&str, &str)] = &[("libseccomp.so", "libseccomp-dev")];

/// Where the linker looks for libraries; Debian and Ubuntu have a directory of each architecture in the
/// first.
const LIBRARIES: &[&str] = &["/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// The oldest Go that fetches the version that a module asks for by itself (go.dev/doc/toolchain).
const OLDEST_GO: (u32, u32) = (1, 21);

/// Makes sure that this process may do what a cluster needs.
///
/// # Errors
/// It is not root's.
pub fn ensure_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("clusters are root's: {AS_ROOT}");
    }
    Ok(())
}

const AS_ROOT: &str = "run it again as root: sudo -E env \"PATH=$PATH\" cargo xtask …";

/// Makes sure that everything the testbed needs is there.
///
/// # Errors
/// Something is missing that can't be installed here: one error names all of it and what to do.
pub fn ensure() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        problems
            .push(format!("root, because nodes need namespaces, mounts and cgroups of their own; {AS_ROOT}"));
    }
    if go_version().is_none_or(|version| version < OLDEST_GO) {
        let (major, minor) = OLDEST_GO;
        problems.push(format!("Go {major}.{minor} or newer in PATH: https://go.dev/doc/install"));
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

/// Major and minor version of the Go in `PATH`.
fn go_version() -> Option<(u32, u32)> {
    let version =
        command::output(Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local")).ok()?;
    let mut numbers =
        version.trim().strip_prefix("go")?.split(['.', '-', ' ']).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn missing_packages() -> Vec<&'static str> {
    let programs = PACKAGED.iter().filter(|(program, _)| command::find_program(program).is_none());
    let libraries = LINKED.iter().filter(|(library, _)| !has_library(library));
    programs.chain(libraries).map(|(_, package)| *package).collect()
}

fn has_library(name: &str) -> bool {
    let of_architecture = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    LIBRARIES
        .iter()
        .copied()
        .chain([of_architecture.as_str()])
        .any(|directory| Path::new(directory).join(name).exists())
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
