//! Seccomp profiles, as the OCI runtime specification and the runtimes have them.
//!
//! `source` takes the text apart, `document` reads it as the runtimes do, `check` says what is wrong with it.

mod check;
mod document;
mod source;
mod vocabulary;

pub use check::check;
pub(crate) use source::cut;
pub(crate) use vocabulary::suggestion;
