//! The programs that the cluster consists of, built from source with Go (`tests/tools/go.mod`), and the
//! static programs that its test images hold.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::{cache, command, progress, repository};

/// Where the programs are: etcd (called `server`), the Kubernetes components, containerd, CNI plugins.
#[derive(Debug, Clone)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Builds what is not yet in the cache: five minutes on two cores.
    ///
    /// # Errors
    /// Go fails; its words are in the error.
    pub fn ensure() -> anyhow::Result<Self> {
        let module = repository().join("tests/tools");
        let flags = link_flags(
            &std::fs::read_to_string(module.join("go.mod")).context("reading tests/tools/go.mod")?,
        )?;
        let key = cache::Key::default().text(&flags).path(&module)?;
        let directory = cache::entry("tools", key, |directory| {
            progress::step(
                "Building Kubernetes, etcd and containerd from source (once, about 5 minutes)",
                || {
                    command::output(
                        go().args(["install", "-trimpath", "-ldflags", &flags, "tool"])
                            .env("GOBIN", directory)
                            .current_dir(&module),
                    )
                    .map(drop)
                },
            )
        })?;
        Ok(Self { directory })
    }

    /// The programs in `directory`, where an earlier [`Tools::ensure`] put them.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The directory that holds the programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The program `name`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Builds the Go program in `source` as one static file at `target`.
///
/// # Errors
/// Go fails; its words are in the error.
pub fn build_static_program(source: &Path, target: &Path) -> anyhow::Result<()> {
    command::output(
        go().args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(target).arg(".").current_dir(source),
    )
    .map(drop)
}

fn go() -> Command {
    let mut go = Command::new("go");
    go.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "-buildvcs=false -mod=readonly");
    // The modules say which version they are for; a distribution's Go may be told not to fetch another one.
    go.env("GOTOOLCHAIN", "auto");
    go
}

/// A Kubernetes that is built without its version says `v0.0.0`, and clients then refuse to talk to it.
fn link_flags(go_mod: &str) -> anyhow::Result<String> {
    let version = go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("tests/tools/go.mod requires no k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    Ok(format!(
        "-s -w {} {} {}",
        set("gitVersion", &format!("v{version}")),
        set("gitMajor", major),
        set("gitMinor", minor)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_is_told_its_version() {
        let flags = link_flags("require (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)").unwrap();
        for expected in ["gitVersion=v1.36.3 ", "gitMajor=1 ", "gitMinor=36"] {
            assert!(flags.contains(expected), "{flags} lacks {expected}");
        }
        assert!(link_flags("require k8s.io/api v0.36.3").is_err());
    }
}
