//! Failed system calls.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// What was attempted on which path. Why it failed is its source.
#[derive(Clone, Debug, Error)]
#[error("{attempted} {}{advice}", path.display())]
pub(crate) struct HostError {
    attempted: &'static str,
    path: PathBuf,
    /// What to do about it, if that can be told: a remark in brackets.
    advice: &'static str,
    /// Shared, because one failure can concern many profiles.
    source: Arc<io::Error>,
}

impl HostError {
    /// `attempted` on `path` failed with `source`. Such as `writing`.
    pub(crate) fn new(attempted: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { attempted, path: path.to_owned(), advice: "", source: Arc::new(source.into()) }
    }

    /// Adds what to do about it.
    pub(crate) fn advise(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    /// The error and its cause on one line, for the log.
    pub(crate) fn in_full(&self) -> String {
        format!("{self}: {}", self.source)
    }
}
