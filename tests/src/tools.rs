//! The programs that the cluster consists of, built from source with Go (`tests/tools/go.mod`), API servers of
//! older Kubernetes versions (`tests/older/*/go.mod`), and the static programs that the test images hold.

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
        let directory = built(
            "tools",
            "tests/tools",
            "Building Kubernetes, etcd and containerd from source (once, about 5 minutes)",
        )?;
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

/// kube-apiserver of the older Kubernetes `minor` (such as `1.30`). Builds it if it is not yet in the cache:
/// four minutes on two cores.
///
/// # Errors
/// `tests/older` has no such version, or Go fails; its words are in the error.
pub fn older_api_server(minor: &str) -> anyhow::Result<PathBuf> {
    let what = format!("Building kube-apiserver {minor} from source (once, about 4 minutes)");
    Ok(built("api-server", &format!("tests/older/{minor}"), &what)?.join("kube-apiserver"))
}

/// The directory of the cache that holds the tools of the Go module in `module`, a directory of this checkout.
fn built(kind: &str, module: &str, what: &str) -> anyhow::Result<PathBuf> {
    let directory = repository().join(module);
    let go_mod = std::fs::read_to_string(directory.join("go.mod"))
        .with_context(|| format!("reading {module}/go.mod"))?;
    let flags = link_flags(&go_mod).with_context(|| format!("reading {module}/go.mod"))?;
    let key = cache::Key::default().text(&flags).path(&directory)?;
    cache::entry(kind, key, |entry| {
        progress::step(what, || {
            command::output(
                go().args(["install", "-trimpath", "-ldflags", &flags, "tool"])
                    .env("GOBIN", entry)
                    .current_dir(&directory),
            )
            .map(drop)
        })
    })
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
        .context("it requires no k8s.io/kubernetes")?;
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
