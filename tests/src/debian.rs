//! Files of Debian's packages, taken from them without installing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::{cache, command};

/// The package that brings Podman's and CRI-O's default seccomp profile.
const CONTAINERS_COMMON: &str = "golang-github-containers-common";

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

/// Downloads `package` into `directory`, and returns where in there its files are.
pub(crate) fn unpack(package: &str, directory: &Path) -> anyhow::Result<PathBuf> {
    command::output(
        Command::new("apt-get")
            .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(directory),
    )?;
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
