//! What is wrong with bundles, and what they declare, said once for all nodes.
//!
//! [`review`] decides what there is to say about a ConfigMap; when each statement is written is the business
//! of [`crate::saying`]. What a ConfigMap holds is judged when it is seen; what there is to say of AppArmor
//! texts is known when they are compiled, which [`asking`] sees to. Nothing else waits for that. What bundles
//! declare ([`declaring`]) stands in one [`object`], for admission policies.
//!
//! [`pending`] decides which pods are told why they wait for a profile, by the [`outline`] of all bundles.

pub mod asking;
pub mod declaring;
pub mod object;
pub mod outline;
pub mod pending;
mod review;

pub use review::Texts;
