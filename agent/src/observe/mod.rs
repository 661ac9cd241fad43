//! What the program shows of itself, and how it is told to stop.

pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod signals;
pub(crate) mod status;
