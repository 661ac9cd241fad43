//! Findings about what an author wrote.
//!
//! Invariant: a [`Diagnostic`] says what is wrong, where, and what to do next; its code never changes meaning.

use std::fmt;

/// One finding about a profile or a bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Which kind of finding it is, for machines.
    pub code: Code,
    /// Where it is.
    pub place: Place,
    /// What is wrong, as one clause.
    pub message: String,
    /// What to do about it, as one clause.
    pub help: &'static str,
}

impl Diagnostic {
    /// How bad it is; a code has one severity, always.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}: {}; {}", self.severity(), self.code, self.place, self.message, self.help)
    }
}

/// The kinds of findings. The text of each is stable: alerts and suppressions may name it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Code {
    /// The document can't be parsed as JSON.
    InvalidJson,
    /// A value has another JSON type than the runtimes decode it into.
    WrongType,
    /// There is no default action: the container would run unconfined.
    MissingDefaultAction,
    /// The profile stands in `binaryData`.
    BinaryData,
    /// The key can't be part of a reference.
    InvalidKey,
    /// The bundle holds no profile.
    EmptyBundle,
}

impl Code {
    /// The stable text of the code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid-json",
            Self::WrongType => "wrong-type",
            Self::MissingDefaultAction => "missing-default-action",
            Self::BinaryData => "binary-data",
            Self::InvalidKey => "invalid-key",
            Self::EmptyBundle => "empty-bundle",
        }
    }

    /// How bad a finding of this kind is.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::EmptyBundle => Severity::Warning,
            Self::InvalidJson
            | Self::WrongType
            | Self::MissingDefaultAction
            | Self::BinaryData
            | Self::InvalidKey => Severity::Error,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The profile is served, but probably does not do what its author wants.
    Warning,
    /// The profile is refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Where in a document a finding is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Line and byte column, both from 1, where the parser can tell.
    pub position: Option<(usize, usize)>,
    /// JSON path: `$` is the document (of a profile) or the ConfigMap (of a bundle).
    pub path: String,
}

impl Place {
    /// A place that is known by its JSON path alone.
    #[must_use]
    pub fn at(path: impl Into<String>) -> Self {
        Self { position: None, path: path.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "line {line}, column {column}, {}", self.path),
            None => f.write_str(&self.path),
        }
    }
}
