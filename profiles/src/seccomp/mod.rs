//! Seccomp profiles, as the OCI runtime specification and the runtimes have them.
//!
//! `source` takes the text apart, `document` reads it as the runtimes do, `check` says what is wrong with it.

mod calls;
mod check;
mod compile;
mod document;
mod export;
mod meaning;
mod program;
mod source;
mod vocabulary;

pub use check::check;
