//! Nodes. Each kind says what to run for one, and how an image gets into it; all else is the same for all
//! kinds.

use serde::{Deserialize, Serialize};

use crate::init::Component;
use crate::kubectl::Kubectl;
use crate::layout::Layout;
use crate::pki::Authority;
use crate::tools::Tools;

mod host;

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// The name of its Node object.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
}

/// What a node is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A kubelet and a containerd on this machine's kernel, in namespaces of their own.
    Host,
}

/// What a node needs to become part of a cluster.
pub(crate) struct Joining<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) tools: &'a Tools,
    pub(crate) authority: &'a Authority,
    /// The API server's address.
    pub(crate) server: &'a str,
}

/// What to run for a node.
pub(crate) struct Programs {
    /// The container runtime: it has to work, and to hold the images, before the kubelet starts.
    pub(crate) runtime: Component,
    /// The kubelet.
    pub(crate) kubelet: Component,
}

impl Node {
    /// Writes the node's keys and configurations, and says what to run.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn prepare(&self, joining: &Joining<'_>) -> anyhow::Result<Programs> {
        match self.kind {
            Kind::Host => host::prepare(self, joining),
        }
    }

    /// Does what remains to be done when the kubelet has created its Node object.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) fn register(&self, kubectl: &Kubectl) -> anyhow::Result<()> {
        match self.kind {
            Kind::Host => host::register(self, kubectl),
        }
    }

    /// Makes a docker archive known to the node's container runtime.
    ///
    /// # Errors
    /// The runtime refuses it.
    pub(crate) fn import(
        &self,
        layout: &Layout,
        tools: &Tools,
        archive: &std::path::Path,
    ) -> anyhow::Result<()> {
        match self.kind {
            Kind::Host => host::import(self, layout, tools, archive),
        }
    }
}
