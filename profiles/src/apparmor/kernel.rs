//! What a kernel has of the profiles that are ours, and what is to be loaded into it.
//!
//! Invariant: the blob decides whether a profile in the kernel is ours, never its name.

use std::collections::BTreeSet;

use crate::apparmor::name::ProfileName;
use crate::digest::Digest;

/// What was found of a profile that the ledger has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FoundPolicy {
    /// The text that it was last loaded from, or was to be.
    pub text: Digest,
    /// The newest blob that the ledger has for it.
    pub blob: Digest,
    /// Whether that blob is stored on the node, and was compiled for its kernel by its compiler.
    pub is_current: bool,
    /// What the kernel has of that name.
    pub kernel: InKernel,
}

/// What a kernel has of the name of a profile that the ledger has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InKernel {
    /// Nothing.
    Absent,
    /// The profile of this blob, which is ours, with all of its children.
    Ours(Digest),
    /// Something else, in words.
    Changed(&'static str),
}

/// A text whose profiles are to be loaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Load {
    /// Of the text.
    pub text: Digest,
    /// The profiles that it declares.
    pub names: BTreeSet<ProfileName>,
}
