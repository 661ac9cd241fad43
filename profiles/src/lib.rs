//! What a profile, a bundle, a reference and a node label are, and what a node has to do about them.
//!
//! ```text
//!  bundles (desired) ──┐                            ┌─▶ plan ──────┬─▶ install, remove, keep  (the disk)
//!  pods of the node ───┤                            │              ├─▶ look, inspect          (disk, kernel)
//!  scan of the disk ───┼─▶ Event ─▶ State::apply ───┤              └─▶ labels, untaint        (the Node)
//!  labels of the Node ─┘      ▲                     ├─▶ summary, waits, findings      (metrics, probes, log)
//!                             │                     ├─▶ check_pods           (Events on pods, metrics, log)
//!                             │                     └─▶ report              (an object of the API server)
//!                             └── the outcome of each step, as an Event
//! ```
//!
//! Beside that, [`catalog`] decides what is said about a bundle, once for all nodes, and of which pods it is
//! said why they wait; [`check`] what is wrong with what pods ask for; [`saying`] when any of it is said; and
//! [`placement`] on which nodes a pod finds what it refers to, and why on none.
//!
//! Everything here is synchronous and pure: it does no I/O, starts no task and takes time as an argument
//! ([`time::Time`]); the one pipe and thread that libseccomp needs are in `seccomp::export`. Whoever embeds
//! it feeds [`state::Event`]s in, carries the [`plan::Plan`] out, and reports how each step ended as another
//! event. Names are parsed once, at the edge, into types that can't be wrong ([`name`], [`reference`],
//! [`label`]); what is wrong with a document is a value ([`diagnostic::Diagnostic`]), never an `Err`.

mod annotation;
pub mod apparmor;
pub mod bundle;
pub mod catalog;
pub mod check;
mod claims;
pub mod diagnostic;
pub mod digest;
mod enforcement;
mod file;
mod findings;
pub mod label;
pub mod labelling;
pub mod level;
pub mod name;
pub mod node;
mod pace;
pub mod placement;
pub mod plan;
pub mod platform;
pub mod pod;
mod policies;
mod policy;
pub mod reference;
pub mod report;
mod resolution;
pub mod saying;
pub mod seccomp;
#[cfg(test)]
mod seed;
pub mod selector;
pub mod sight;
pub mod state;
pub mod statement;
mod suggestion;
pub mod summary;
pub mod time;
pub mod verdicts;
pub mod writing;
