//! What the agent shows of itself, and how it is told to stop.

pub(crate) mod logs;
pub(crate) mod signals;
