//! Which pods levels are about, and which level a namespace demands.
//!
//! Invariant: what is exempt is not judged, whatever its namespace says; a label that says nothing that is
//! known is told, and never taken for a level.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::catalog::object::{Defaults, Exemptions, ProfileCatalog};
use crate::level::judge::{Subject, Violation};
use crate::level::{Level, UnknownLevel};
use crate::pod::Pod;

/// The namespace of this project's own pods, which no level is about: without the agents, no profile comes to
/// a node.
pub const SYSTEM: &str = "pavise-system";

/// What comes of a pod that is below its level. The words are those of Pod Security Admission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// Whoever makes it is warned.
    Warn,
    /// It is noted in the API server's audit log.
    Audit,
}

impl Mode {
    /// The label of a namespace that says the level.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Enforce => "pavise.dev/enforce",
            Self::Warn => "pavise.dev/warn",
            Self::Audit => "pavise.dev/audit",
        }
    }

    /// The level of a namespace with these `labels`.
    ///
    /// # Errors
    /// The label has a value that is no level.
    pub fn level(self, labels: &BTreeMap<String, String>, defaults: &Defaults) -> Result<Level, NoLevel> {
        match labels.get(self.label()) {
            Some(value) => value.parse().map_err(|_: UnknownLevel| NoLevel::new(value, self)),
            None => Ok(match self {
                Self::Enforce => defaults.enforce,
                Self::Warn => defaults.warn,
                Self::Audit => defaults.audit,
            }),
        }
    }
}

/// A namespace has a label for its level, and the value is none.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "\"{value}\", the value of {label}, is no level: there are unrestricted, known, confined and localhost"
)]
pub struct NoLevel {
    value: String,
    label: &'static str,
}

impl NoLevel {
    fn new(value: &str, mode: Mode) -> Self {
        Self { value: value.to_owned(), label: mode.label() }
    }
}

/// Why a pod is not judged.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Exemption {
    /// It is in this namespace.
    Namespace(String),
    /// This is its `runtimeClassName`.
    RuntimeClass(String),
    /// It says that it is for Windows, where there are no such profiles.
    Windows,
}

impl Exemptions {
    /// Why `pod` is not judged; none if it is. Whose request made it is not known of a pod.
    #[must_use]
    pub fn exempt(&self, namespace: &str, pod: &Pod) -> Option<Exemption> {
        if namespace == SYSTEM || self.namespaces.iter().any(|one| one == namespace) {
            return Some(Exemption::Namespace(namespace.to_owned()));
        }
        let class = pod.runtime_class.as_ref().filter(|class| self.runtime_classes.contains(class));
        let class = class.cloned().map(Exemption::RuntimeClass);
        class.or_else(|| pod.is_windows.then_some(Exemption::Windows))
    }
}

/// What comes of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// It is at its level, or above it.
    Fine(Level),
    /// It is not judged.
    Exempt(Exemption),
    /// It is below its level.
    Below(Violation),
    /// Which level it should have can't be told.
    NoLevel(NoLevel),
}

impl Judgement {
    /// What comes of `pod` in `namespace`, of which `level` is demanded.
    #[must_use]
    pub fn of(pod: &Pod, namespace: &str, level: Result<Level, NoLevel>, catalog: &ProfileCatalog) -> Self {
        if let Some(exemption) = catalog.spec.exemptions.exempt(namespace, pod) {
            return Self::Exempt(exemption);
        }
        match level {
            Err(no_level) => Self::NoLevel(no_level),
            Ok(level) => level.violation(pod, catalog).map_or(Self::Fine(level), Self::Below),
        }
    }

    /// What the API server says of it; none if it says nothing.
    #[must_use]
    pub fn message(&self, subject: Subject) -> Option<String> {
        match self {
            Self::Fine(_) | Self::Exempt(_) => None,
            Self::Below(violation) => Some(violation.message(subject)),
            Self::NoLevel(no_level) => Some(no_level.to_string()),
        }
    }
}
