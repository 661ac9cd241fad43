//! A real Kubernetes cluster on one machine, without a container engine and without an image registry.
//!
//! ```text
//!  prerequisites ─▶ tools (Go: Kubernetes, etcd, containerd) ─▶ images (buildah) ─▶ cluster
//!                         └──────────── cache, keyed by content ──┘                    │
//!        keeper ─▶ init (pid 1, private root) ─▶ control plane, nodes ◀───────────────┘
//! ```
//!
//! Everything that is said of Pavise is tested on such a cluster: API server, scheduler, kubelet, container
//! runtime and kernel are the real ones. See [`init`] for how a cluster ends, always and wholly.

pub mod cache;
pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod debian;
pub mod guest;
pub mod images;
pub mod init;
pub mod kubectl;
pub mod layout;
pub mod machine;
pub mod node;
pub mod pavise;
pub mod pki;
pub mod pods;
pub mod prerequisites;
mod private_root;
pub mod progress;
pub mod simulated;
pub mod supervisor;
pub mod tools;

use std::path::Path;
use std::process::ExitCode;

/// The node that runs on this machine's own kernel.
pub const HOST_NODE: &str = "node1";
/// The node that has a kernel of its own, with AppArmor, in a virtual machine.
pub const GUEST_NODE: &str = "aavm";

/// The checkout that this crate was built from.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// How a program of tests ends, by whether all of them passed. Why they could not be run is printed.
#[must_use]
pub fn exit_code(outcome: anyhow::Result<bool>) -> ExitCode {
    let has_passed = outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        false
    });
    if has_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
