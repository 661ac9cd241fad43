//! Texts, and what parsers made of them, for tests.
//!
//! `texts/<name>.<features>.blob` is what came of `texts/<name>.profile` for a kernel with the features of the
//! file `/etc/apparmor.d/abi/<features>` of Debian's package apparmor, where `5.4` is
//! `kernel-5.4-outoftree-network`. Version 3.0.8 (Debian 12) made those for `3.0` and `5.4`, version 4.1.0
//! (Debian 13) those for `4.0`. To make one again:
//!
//! ```text
//! apparmor_parser -Q -T -K -S -q -M /etc/apparmor.d/abi/3.0 two.profile > two.3.0.blob
//! ```
//!
//! Invariant: a blob here is as a parser wrote it.

macro_rules! blobs {
    ($($name:literal)+) => {
        &[$(($name, include_bytes!(concat!("texts/", $name, ".blob")))),+]
    };
}

/// Name and features, and the blob.
pub(super) const BLOBS: &[(&str, &[u8])] = blobs! {
    "attachment.3.0"
    "child-and-hat.3.0"
    "child-attachment.3.0"
    "complain.3.0"
    "grandchild.3.0"
    "grandchild.4.0"
    "kill.3.0"
    "namespace.3.0"
    "namespace.5.4"
    "path.3.0"
    "rules.3.0"
    "rules.4.0"
    "rules.5.4"
    "two.3.0"
    "two.5.4"
    "unconfined-child.3.0"
    "unconfined.3.0"
    "variable.3.0"
};

/// The blob that is called `name`.
pub(super) fn blob(name: &str) -> &'static [u8] {
    BLOBS.iter().find_map(|(other, blob)| (*other == name).then_some(*blob)).expect("there is such a blob")
}
