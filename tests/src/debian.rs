//! Files of Debian's packages, taken from them without installing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{cache, command};

/// The package that brings Podman's and CRI-O's default seccomp profile.
const CONTAINERS_COMMON: &str = "golang-github-containers-common";

/// The packages that bring AppArmor's parser, what texts include, and profiles.
const APPARMOR: &[&str] = &["apparmor", "apparmor-profiles", "apparmor-profiles-extra"];

/// The package that brings a static busybox.
pub(crate) const BUSYBOX: &str = "busybox-static";

/// Podman's default seccomp profile, as Debian ships it: `/usr/share/containers/seccomp.json`.
///
/// # Errors
/// apt-get finds no such package, or it has no such file.
pub fn podmans_profile() -> anyhow::Result<String> {
    let key = cache::Key::default().text(CONTAINERS_COMMON);
    let entry = cache::entry("podman-profile", key, |directory| {
        let unpacked = unpack(CONTAINERS_COMMON, directory)?;
        fs::copy(unpacked.join("usr/share/containers/seccomp.json"), directory.join("seccomp.json"))
            .context("copying Podman's profile")?;
        fs::remove_dir_all(unpacked).context("removing the rest of its package")
    })?;
    let path = entry.join("seccomp.json");
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// AppArmor as Debian ships it, with all profiles.
#[derive(Debug)]
pub struct Apparmor {
    /// What it is, each as `package=version`.
    pub packages: Vec<String>,
    /// Where the files of each package are: in a directory that has its name, without the version.
    pub directory: PathBuf,
}

/// Fetches the packages that Debian has of AppArmor, once for each version.
///
/// # Errors
/// apt-get finds no such packages.
pub fn apparmor() -> anyhow::Result<Apparmor> {
    let packages: Vec<String> =
        APPARMOR.iter().map(|package| candidate(package)).collect::<anyhow::Result<_>>()?;
    let key = cache::Key::default().text(&packages.join(" "));
    let directory = cache::entry("apparmor", key, |directory| {
        APPARMOR.iter().zip(&packages).try_for_each(|(name, package)| {
            fs::rename(unpack(package, directory)?, directory.join(name))
                .with_context(|| format!("keeping the files of {package}"))
        })
    })?;
    Ok(Apparmor { packages, directory })
}

/// The version of `package` that apt-get would download, as `package=version`.
///
/// # Errors
/// apt-get knows no such package.
pub(crate) fn candidate(package: &str) -> anyhow::Result<String> {
    Ok(format!("{package}={}", field(package, "Version")?))
}

/// The first package that `package` depends on, as `package=version`.
///
/// # Errors
/// apt-get knows no such package, or it depends on no certain version of another.
pub(crate) fn dependency(package: &str) -> anyhow::Result<String> {
    let depends = field(package, "Depends")?;
    parse_dependency(&depends).with_context(|| format!("{package} depends on {depends:?}"))
}

/// Reads `name (= version), …`.
fn parse_dependency(depends: &str) -> Option<String> {
    let (name, rest) = depends.split_once(" (= ")?;
    Some(format!("{name}={}", rest.split_once(')')?.0))
}

fn field(package: &str, name: &str) -> anyhow::Result<String> {
    let show = ["show", "--no-all-versions", package];
    let shown = command::output(Command::new("apt-cache").args(show)).unwrap_or_default();
    let prefix = format!("{name}: ");
    match shown.lines().find_map(|line| line.strip_prefix(&prefix)) {
        Some(value) => Ok(value.to_owned()),
        None => {
            bail!("apt-get knows no package {package}: run apt-get update on Debian, whose package it is")
        }
    }
}

/// Puts Debian's busybox at `target`. It is unpacked in `directory`, not installed: its package conflicts with
/// `busybox`, which the machine may need.
pub(crate) fn fetch_busybox(directory: &Path, target: &Path) -> anyhow::Result<()> {
    let unpacked = unpack(BUSYBOX, directory)?;
    fs::copy(unpacked.join("bin/busybox"), target).context("copying busybox")?;
    fs::remove_dir_all(unpacked).context("removing the rest of its package")
}

/// Downloads `package` (or `package=version`) into `directory`, and returns where in there its files are.
pub(crate) fn unpack(package: &str, directory: &Path) -> anyhow::Result<PathBuf> {
    command::output(
        Command::new("apt-get")
            .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(directory),
    )
    .with_context(|| format!("fetching {package}; what apt-get knows may be old: run apt-get update"))?;
    let mut files =
        fs::read_dir(directory).context("listing the download")?.filter_map(|file| Some(file.ok()?.path()));
    let archive = files
        .find(|file| file.extension().is_some_and(|ending| ending == "deb"))
        .with_context(|| format!("apt-get downloaded no package {package}"))?;
    let unpacked = directory.join("unpacked");
    command::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    fs::remove_file(archive).context("removing the package")?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_read_with_its_version() {
        let check = |depends: &str, expected: Option<&str>| {
            assert_eq!(parse_dependency(depends).as_deref(), expected, "{depends}");
        };
        check("linux-image-6.1.0-56-amd64 (= 6.1.192-2)", Some("linux-image-6.1.0-56-amd64=6.1.192-2"));
        check("a (= 1), b (>= 2)", Some("a=1"));
        check("a (>= 1)", None);
        check("a", None);
    }
}
