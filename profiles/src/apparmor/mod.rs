//! What an AppArmor text declares, and what was made of it.
//!
//! ```text
//!  text ─▶ names, findings    (text: what its author says)
//!    └─▶ compiler ─▶ blob ─▶ profiles in it    (blob: what the kernel would load)
//!                                   └─▶ Policy, or why not    (the two compared)
//! ```
//!
//! Invariant: whoever compiles a text is not trusted. What is loaded follows from the blob itself.

pub mod blob;
mod judge;
pub mod kernel;
pub mod label;
pub mod name;
pub mod policy;
pub mod said;
pub mod text;
#[cfg(test)]
mod texts;
#[cfg(test)]
mod writer;

pub use judge::{LARGEST, beside, judge};
