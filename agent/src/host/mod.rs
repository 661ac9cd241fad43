//! The node itself: its disk, what it is, and what this process costs it.
//!
//! Invariant: system calls and the types of nix, notify and procfs stop here. Nothing is touched that the
//! ledger does not have, and the ledger has it before it is touched.

pub(crate) mod apparmor;
pub(crate) mod child;
pub(crate) mod compiler;
mod containers;
pub(crate) mod dir;
pub(crate) mod error;
mod fault;
pub(crate) mod ledger;
pub(crate) mod lock;
pub(crate) mod memfd;
mod mount;
pub(crate) mod platform;
mod proc;
pub(crate) mod process;
pub(crate) mod sandbox;
mod seccomp;
mod sight;
pub(crate) mod socket;
pub(crate) mod text;
pub(crate) mod watch;

use std::collections::{BTreeMap, BTreeSet};

use profiles::bundle::Document;
use profiles::digest::Digest;
use profiles::plan::Install;
use profiles::pod::ContainerId;
use profiles::reference::Reference;
use profiles::sight::{Confinement, FileSight, Inspect, SeccompPath};
use profiles::state::Found;

use error::HostError;
pub(crate) use seccomp::NodeHost;

/// How one profile's step ended.
pub(crate) type Outcomes<T> = Vec<(Reference, Result<T, HostError>)>;

/// What the loop does to the node. The seam at which tests inject failures.
pub(crate) trait Host {
    /// Compares what the ledger has with what the disk holds, and clears away what a crash left. Where
    /// nothing is wrong, nothing is written.
    ///
    /// # Errors
    /// The directory of the profiles is out of reach, for all this process can do.
    fn scan(&mut self, care: Care) -> Result<BTreeMap<Reference, Found>, HostError>;

    /// Whether what changes after a scan is told, as far as the kernel tells.
    fn is_watching(&self) -> bool;

    /// Puts profiles on disk.
    fn install(&mut self, batch: Vec<Install>) -> Outcomes<Installed>;

    /// What is at `reference`, if it has this digest.
    fn content(&self, reference: &Reference, digest: Digest) -> Option<Document>;

    /// Whether the ledger has `reference`.
    fn owns(&self, reference: &Reference) -> bool;

    /// What is at these places, whoever put it there. From then on, what changes there is told.
    fn look(&mut self, places: &BTreeSet<SeccompPath>) -> BTreeMap<SeccompPath, FileSight>;

    /// What the kernel says of these containers; none of one that has no process, or that it does not tell
    /// of.
    fn inspect(&mut self, containers: &BTreeSet<Inspect>) -> BTreeMap<ContainerId, Option<Confinement>>;

    /// Takes profiles off the disk. What the ledger does not have is left, and so is what is no file any
    /// more, which is then no longer ours.
    fn remove(&mut self, batch: Vec<Reference>) -> Outcomes<()>;
}

/// How closely a scan looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Care {
    /// At what has another inode, size or time than when it was read.
    Glance,
    /// At every byte.
    Read,
}

/// How putting a profile on disk ended, if it did not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Installed {
    /// It was written.
    Written(Digest),
    /// An equal file was there already.
    Adopted(Digest),
    /// Something is in its place that is not ours: this.
    Foreign(&'static str),
}
