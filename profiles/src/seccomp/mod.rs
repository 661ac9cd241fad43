//! Seccomp profiles, as the OCI runtime specification, Docker and Podman have them.
//!
//! `source` takes the text apart, `document` reads it, and `resolve` says what it is on a node, which `oci`
//! writes. `compile` makes the filter as runc does, `export` takes its program out, `program` runs it, and
//! `meaning` compares the two. `check` says what is wrong with any of that. `vocabulary`, `errno` and `calls`
//! have the words.

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

pub use check::{Checked, LARGEST, check, effect};
