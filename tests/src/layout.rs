//! Where a cluster keeps its things: one directory for everything it writes, so that removing it removes all.
//!
//! Invariant: a path is spelt in one place only, here.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sha2::{Digest as _, Sha256};

/// The longest path of a Unix socket, in bytes (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The directory in which each cluster has its own, unless `PAVISE_TESTBED_DIR` names another. Short, because
/// there are sockets below it.
const DEFAULT_DIRECTORY: &str = "/var/lib/pavise-testbed";

/// The directory in which each cluster has its own.
#[must_use]
pub fn directory() -> PathBuf {
    let named = std::env::var_os("PAVISE_TESTBED_DIR").filter(|value| !value.is_empty());
    let directory = named.map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from);
    // The cluster's processes run in other directories than this one.
    std::path::absolute(&directory).unwrap_or(directory)
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
        Self { name: name.to_owned(), state: directory().join(name) }
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

    /// The socket on which the guest that is the node called `node` takes orders.
    #[must_use]
    pub fn guest_socket(&self, node: &str) -> PathBuf {
        self.state.join(format!("{node}.sock"))
    }

    /// The program that a guest continues with: a copy of this one, where the guest sees it.
    #[must_use]
    pub fn guest_program(&self) -> PathBuf {
        self.state.join("guest-init")
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

    /// What the API server is to write down of requests.
    #[must_use]
    pub fn audit_policy(&self) -> PathBuf {
        self.state.join("audit-policy.json")
    }

    /// What it has written down: a line for each write of Pavise.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.log("audit")
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

    /// What the node called `node` sees as `/var`, `/run`, `/tmp` and `/root`; of a guest, only its
    /// configuration is there.
    #[must_use]
    pub fn node(&self, node: &str) -> NodeLayout {
        NodeLayout { directory: self.state.join(node) }
    }

    /// What the keeper and init say; outside of the cluster's directory, as it is to tell why that could not
    /// be made.
    #[must_use]
    pub fn keeper_log(&self) -> PathBuf {
        self.state.with_extension("log")
    }

    /// The cgroup below which every pod of this cluster runs, relative to the top of each hierarchy. Clusters
    /// of one name in two directories have different ones.
    #[must_use]
    pub fn cgroup(&self) -> String {
        let digest = Sha256::digest(self.state.as_os_str().as_encoded_bytes());
        let short = digest.iter().take(4).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        format!("pavise-testbed-{}-{short}", self.name)
    }

    /// Checks that what is to be made below the cluster's directory can be.
    ///
    /// # Errors
    /// The path is too long for the sockets, or not a directory's.
    pub fn check(&self) -> anyhow::Result<()> {
        let directory = directory();
        if directory.exists() && !directory.is_dir() {
            bail!("PAVISE_TESTBED_DIR is to be a directory, and {} is none", directory.display());
        }
        let longest = self.node(crate::HOST_NODE).containerd_socket();
        let excess = longest.as_os_str().len().saturating_sub(LONGEST_SOCKET);
        if excess > 0 {
            bail!(
                "PAVISE_TESTBED_DIR={} is {excess} bytes too long: the path of a socket below it may have \
                 {LONGEST_SOCKET} bytes (unix(7)); name a shorter one",
                directory.display()
            );
        }
        Ok(())
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
    fn a_path_that_is_too_long_for_sockets_is_refused() {
        let layout = |directory: &str| Layout {
            name: "a".repeat(20),
            state: Path::new(directory).join("a".repeat(20)),
        };
        assert!(layout(DEFAULT_DIRECTORY).check().is_ok());
        let error = layout(&format!("/{}", "d".repeat(60))).check().unwrap_err().to_string();
        assert!(error.contains("bytes too long"), "{error}");
    }

    #[test]
    fn clusters_of_one_name_in_two_directories_have_different_cgroups() {
        let cgroup =
            |directory: &str| Layout { name: "a".into(), state: Path::new(directory).join("a") }.cgroup();
        assert_ne!(cgroup("/x"), cgroup("/y"));
    }
}
