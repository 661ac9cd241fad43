//! Nodes. Each kind says what to run for one, where that is supervised, and how an image gets into it; all
//! else is the same for all kinds.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::guest::{Boot, Guest};
use crate::kubectl::Kubectl;
use crate::layout::Layout;
use crate::pki::Authority;
use crate::supervisor::Component;
use crate::tools::Tools;
use crate::{GUEST_NODE, HOST_NODE};

mod guest;
mod host;
mod programs;

pub(crate) use programs::Programs;

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// The name of its Node object.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
    /// Where its kubelet listens, and where that says that it is well.
    pub(crate) ports: [u16; 2],
}

/// What a node is made of. A cluster has one node of a kind at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A kubelet and a containerd on this machine's own kernel, in namespaces of their own. It has no
    /// AppArmor, whatever the machine has.
    Host,
    /// The same in a virtual machine, whose kernel has AppArmor, and cgroups of version 2 only.
    Guest,
}

impl Kind {
    /// All kinds: the mixed cluster that real users have.
    pub const ALL: [Self; 2] = [Self::Host, Self::Guest];

    /// The name of the node of this kind.
    #[must_use]
    pub fn node_name(self) -> &'static str {
        match self {
            Self::Host => HOST_NODE,
            Self::Guest => GUEST_NODE,
        }
    }
}

/// What a node needs to become part of a cluster.
pub(crate) struct Joining<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) tools: &'a Tools,
    pub(crate) authority: &'a Authority,
    /// The API server's address, the same for every node.
    pub(crate) server: &'a str,
    pub(crate) api_port: u16,
    /// The keys of the taints that its kubelet registers it with.
    pub(crate) taints: &'a [&'a str],
    /// What a guest is booted from, if there is to be one.
    pub(crate) boot: Option<&'a Boot>,
}

impl Node {
    /// Writes the node's keys and configurations, and says what to run.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn prepare(&self, joining: &Joining<'_>) -> anyhow::Result<Programs> {
        match self.kind {
            Kind::Host => host::prepare(self, joining),
            Kind::Guest => guest::prepare(self, joining),
        }
    }

    /// The virtual machine to be started first, for a node that is one; the node has to be prepared.
    ///
    /// # Errors
    /// Its files can't be written, or its program is not there.
    pub(crate) fn machine(&self, joining: &Joining<'_>) -> anyhow::Result<Option<Component>> {
        match self.kind {
            Kind::Host => Ok(None),
            Kind::Guest => guest::machine(self, joining).map(Some),
        }
    }

    /// The guest in which the node's components run, and with what its machine is called among those of the
    /// cluster's init.
    pub(crate) fn guest(&self, layout: &Layout) -> Option<(Guest, String)> {
        match self.kind {
            Kind::Host => None,
            Kind::Guest => Some((Guest::new(&layout.guest_socket(&self.name)), guest::machine_name(self))),
        }
    }

    /// Whether the component of that name is one of this node's.
    pub(crate) fn runs(&self, component: &str) -> bool {
        [programs::runtime_name(self), programs::kubelet_name(self)].iter().any(|name| name == component)
    }

    /// Does what remains to be done when the kubelet has created its Node object.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) fn register(&self, kubectl: &Kubectl) -> anyhow::Result<()> {
        programs::register(self, kubectl)
    }

    /// Makes a docker archive of the cache known to the node's container runtime.
    ///
    /// # Errors
    /// The runtime refuses it.
    pub(crate) fn import(&self, layout: &Layout, tools: &Tools, archive: &Path) -> anyhow::Result<()> {
        match self.guest(layout) {
            None => host::import(self, layout, tools, archive),
            Some((guest, _)) => guest::import(&guest, tools, archive),
        }
    }
}
