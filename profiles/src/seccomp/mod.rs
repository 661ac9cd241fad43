//! Seccomp profiles, as the OCI runtime specification, Docker and Podman have them.
//!
//! `source` takes the text apart, `document` reads it, `resolve` says what it is on a node, `check` what is
//! wrong with it, and `oci` writes what is resolved.

mod calls;
mod check;
mod compile;
mod document;
mod errno;
mod export;
mod meaning;
mod oci;
mod program;
mod resolve;
mod source;
mod tangle;
mod vocabulary;

pub use check::{Checked, check};
pub(crate) use source::cut;
pub(crate) use vocabulary::suggestion;
