//! Where a cluster keeps its things: one directory for everything it writes, so that removing it removes all.
//!
//! Invariant: a path is spelt in one place only, here.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// The directory in which each cluster has its own, unless `PAVISE_TESTBED_DIR` names another. Short, because
/// the path of a Unix socket below it may have 107 bytes at most (unix(7)).
const DEFAULT_DIRECTORY: &str = "/var/lib/pavise-testbed";

/// The directory in which each cluster has its own.
#[must_use]
pub fn directory() -> PathBuf {
    std::env::var_os("PAVISE_TESTBED_DIR").map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from)
}

/// Accepts a name for a cluster: it becomes part of paths, of a cgroup's name and of a socket's.
///
/// # Errors
/// It is empty, longer than 20 characters, or has other characters than `a-z`, `0-9` and `-`.
pub fn parse_name(name: &str) -> anyhow::Result<String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 20 || !name.bytes().all(fits) {
        bail!("{name:?} can't name a cluster: use 1 to 20 of a-z, 0-9 and -");
    }
    Ok(name.to_owned())
}

/// The paths of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    name: String,
    state: PathBuf,
}

impl Layout {
    /// The paths of the cluster called `name`, which must be usable as a file name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let directory =
            std::env::var_os("PAVISE_TESTBED_DIR").map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from);
        Self { name: name.to_owned(), state: directory.join(name) }
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster's own directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Ports, process ids and node names of the running cluster, as JSON.
    #[must_use]
    pub fn description(&self) -> PathBuf {
        self.state.join("cluster.json")
    }

    /// Held (flock) by whoever brings the cluster up or down.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.state.with_extension("lock")
    }

    /// The socket on which the cluster's init takes commands.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// Keys, certificates and the kubeconfigs made of them.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// The kubeconfig of a cluster administrator.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.kubeconfig")
    }

    /// The log of one component.
    #[must_use]
    pub fn log(&self, component: &str) -> PathBuf {
        self.state.join("logs").join(format!("{component}.log"))
    }

    /// The etcd server's data.
    #[must_use]
    pub fn etcd(&self) -> PathBuf {
        self.state.join("etcd")
    }

    /// The empty directory on which the cluster's private root is mounted; only its own processes see the
    /// mount.
    #[must_use]
    pub fn private_root(&self) -> PathBuf {
        self.state.join("root")
    }

    /// What the node called `node` sees as `/var`, `/run`, `/tmp` and `/root`.
    #[must_use]
    pub fn node(&self, node: &str) -> NodeLayout {
        NodeLayout { directory: self.state.join(node) }
    }

    /// The cgroup below which every pod of this cluster runs, relative to the top of each hierarchy.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("pavise-testbed-{}", self.name)
    }
}

/// The paths of one node, as they are seen from the machine that the testbed runs on.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    directory: PathBuf,
}

impl NodeLayout {
    /// The node's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The kubelet root: `/var/lib/kubelet` on the node.
    #[must_use]
    pub fn kubelet_root(&self) -> PathBuf {
        self.directory.join("var/lib/kubelet")
    }

    /// Configuration files of the node's programs.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("etc")
    }

    /// containerd's socket: `/run/containerd/containerd.sock` on the node.
    #[must_use]
    pub fn containerd_socket(&self) -> PathBuf {
        self.directory.join("run/containerd/containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_paths() {
        for name in ["default", "a-1"] {
            assert!(parse_name(name).is_ok(), "{name} is refused");
        }
        for name in ["", "..", "a/b", "A", "a b", "a.lock", &"a".repeat(21)] {
            assert!(parse_name(name).is_err(), "{name} is accepted");
        }
    }

    #[test]
    fn a_socket_path_fits() {
        // sockaddr_un holds 108 bytes, the last of them 0 (unix(7)).
        let longest =
            Layout { name: "a".repeat(20), state: Path::new(DEFAULT_DIRECTORY).join("a".repeat(20)) };
        let socket = longest.node("a-long-node-name").containerd_socket();
        assert!(socket.as_os_str().len() < 108, "{}", socket.display());
    }
}
