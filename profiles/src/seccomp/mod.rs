//! What is particular to seccomp profiles.
//!
//! Invariant: nothing that a runtime would run a container unconfined with gets past [`document::check`].

pub mod document;
