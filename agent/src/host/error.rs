//! Failed system calls.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

const READ_ONLY: &str = " (the node's disk is read-only after a failure, or the volume is mounted so)";
const FULL: &str = " (make room on the node's disk)";

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
        let source = source.into();
        let advice = match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => READ_ONLY,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FULL,
            _ => "",
        };
        Self { attempted, path: path.to_owned(), advice, source: Arc::new(source) }
    }

    /// Says what to do about it.
    pub(crate) fn advise(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    /// The error and its cause on one line, for the log.
    pub(crate) fn in_full(&self) -> String {
        format!("{self}: {}", self.source)
    }
}
