//! A node on this machine's kernel: containerd and a kubelet in the cluster's private root.

use std::path::Path;
use std::process::Command;

use super::programs::{self, Programs, Setting};
use super::{Joining, Node};
use crate::command;
use crate::layout::Layout;
use crate::tools::Tools;

pub(super) fn prepare(node: &Node, joining: &Joining<'_>) -> anyhow::Result<Programs> {
    let cgroup_root = format!("/{}", joining.layout.cgroup());
    programs::prepare(node, joining, &Setting { address: "127.0.0.1", cgroup_root })
}

pub(super) fn import(node: &Node, layout: &Layout, tools: &Tools, archive: &Path) -> anyhow::Result<()> {
    let mut ctr = Command::new(tools.program("ctr"));
    ctr.arg("--address").arg(layout.node(&node.name).containerd_socket());
    command::output(ctr.args(["--namespace", "k8s.io", "images", "import"]).arg(archive)).map(drop)
}
