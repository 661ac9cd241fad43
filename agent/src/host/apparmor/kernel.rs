//! The kernel's AppArmor policy, as far as it is ours to change.
//!
//! Invariant: this is all that is asked of a kernel, and nothing is decided here. The trait is the seam at
//! which tests have a kernel of their own.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::BoxStream;
use profiles::apparmor::name::ProfileName;
use profiles::apparmor::policy::Mode;
use profiles::digest::Digest;
use serde::{Deserialize, Serialize};
use sha1::Digest as _;

use crate::host::error::HostError;

/// What is between two components of a child's name.
pub(crate) const CHILD: &str = "//";

/// A kernel's policy, in its root namespace.
pub(crate) trait Kernel {
    /// What it has of these names; nothing else is read.
    fn look(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, Present>, HostError>;

    /// Loads all profiles of a blob, in the place of those of their names: all or none. A child that was
    /// there and is not in the blob stays (`__replace_profile` in security/apparmor/policy.c), and what runs
    /// under a profile is bound by the new one at once.
    fn replace(&self, blob: &[u8]) -> Result<(), HostError>;

    /// Removes the profile of this name and its children. What runs under them is confined no more.
    fn remove(&self, name: &str) -> Result<(), HostError>;

    /// What it can enforce, in the form of `apparmor_parser`'s features files.
    fn features(&self) -> Result<String, HostError>;

    /// A number that each change of policy makes greater.
    fn revision(&self) -> Result<u64, HostError>;

    /// An item for each time that the policy may have changed, somebody else's included.
    fn changes(&self) -> BoxStream<'static, ()>;
}

/// A profile that a kernel has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Present {
    /// None if this agent does not know the kernel's word for it.
    pub(crate) mode: Option<Mode>,
    pub(crate) raw: Raw,
    /// Its children and hats, by their whole names.
    pub(crate) children: BTreeMap<String, Child>,
}

/// A child of a [`Present`] profile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Child {
    pub(crate) mode: Option<Mode>,
    pub(crate) raw: Raw,
}

/// Which blob a kernel says that a profile came from. It is the whole blob, whatever else is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Raw {
    /// It keeps no digests: `apparmor.hash_policy` or `apparmor.export_binary` is off, or it was built so.
    Untold,
    /// Kernels before 6.8.
    Sha1(Sha1),
    /// Kernels since then.
    Sha256(Digest),
}

/// What a blob is recognized by in any kernel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fingerprint {
    /// The blob's digest.
    #[serde(rename = "sha256")]
    pub(crate) digest: Digest,
    sha1: Sha1,
}

impl Fingerprint {
    pub(crate) fn of(blob: &[u8]) -> Self {
        Self { digest: Digest::of(blob), sha1: Sha1::of(blob) }
    }

    /// Whether `raw` says that it is this blob.
    pub(crate) fn is(&self, raw: &Raw) -> bool {
        match raw {
            Raw::Untold => false,
            Raw::Sha1(sha1) => *sha1 == self.sha1,
            Raw::Sha256(digest) => *digest == self.digest,
        }
    }
}

/// A SHA-1: 40 lower-case hex digits. It tells our own blobs apart, where the kernel tells nothing better;
/// nobody is kept from anything by it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Sha1(String);

impl Sha1 {
    /// Digests `content`.
    pub(crate) fn of(content: &[u8]) -> Self {
        let digest = sha1::Sha1::digest(content);
        let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        Self(nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect())
    }

    /// What the kernel wrote.
    pub(crate) fn told(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_recognized_by_whatever_the_kernel_tells() {
        let blob = Fingerprint::of(b"");
        let sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        for (raw, expected) in [
            (Raw::Sha1(Sha1::told(sha1)), true),
            (Raw::Sha1(Sha1::of(b"x")), false),
            (Raw::Sha256(Digest::of(b"")), true),
            (Raw::Sha256(Digest::of(b"x")), false),
            (Raw::Untold, false),
        ] {
            assert_eq!(blob.is(&raw), expected, "{raw:?}");
        }
    }
}
