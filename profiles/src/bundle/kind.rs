//! What a bundle holds profiles of.
//!
//! Invariant: the words for the kinds stand here and nowhere else.

use std::fmt;

use crate::diagnostic::{Code, Diagnostic, Place};
use crate::suggestion;

/// The label that makes a ConfigMap a bundle; its value says of what.
pub const KIND_LABEL: &str = "pavise.dev/profiles";

/// A kind of profiles. All profiles of a bundle are of one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// AppArmor texts, for the nodes whose kernel has AppArmor.
    AppArmor,
    /// Seccomp documents, for all nodes.
    Seccomp,
}

impl Kind {
    /// All of them, in the order of their words.
    pub const ALL: [Self; 2] = [Self::AppArmor, Self::Seccomp];

    /// The value of [`KIND_LABEL`] for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor",
            Self::Seccomp => "seccomp",
        }
    }

    /// The kind for which [`KIND_LABEL`] has the value `word`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What is wrong with the value `word` of [`KIND_LABEL`], which is no kind.
    pub(super) fn unknown(word: &str) -> Diagnostic {
        let meant = suggestion::word(word, Self::ALL.map(Self::as_str));
        let meant = meant.map(|kind| format!("; did you mean {kind:?}?")).unwrap_or_default();
        Diagnostic {
            code: Code::UnknownKind,
            place: Place::at(format!("$.metadata.labels[{KIND_LABEL:?}]")),
            message: format!("{word:?} is no kind of profiles, so nothing of the bundle is served{meant}"),
            help: "label it pavise.dev/profiles=seccomp or pavise.dev/profiles=apparmor, or take the label away",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_word_of_its_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.as_str()), Some(kind));
        }
        assert!(Kind::ALL.is_sorted_by(|one, other| one.as_str() < other.as_str()));
        for word in ["", "AppArmor", "secomp", "seccomp "] {
            assert_eq!(Kind::from_word(word), None, "{word:?}");
        }
    }
}
