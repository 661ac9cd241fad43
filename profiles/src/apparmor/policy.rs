//! What a compiled text holds.
//!
//! Invariant: a [`Policy`] was read from the blob whose digest it has, and declares what its text does.

use std::collections::BTreeMap;
use std::fmt;

use crate::apparmor::name::ProfileName;
use crate::digest::Digest;

/// A text, compiled for a node: one blob, which the kernel takes as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Of the text.
    pub text: Digest,
    /// Of the blob.
    pub blob: Digest,
    /// The profiles in it.
    pub profiles: BTreeMap<ProfileName, Contents>,
}

/// One profile of a [`Policy`], with what belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contents {
    /// How it is enforced.
    pub mode: Mode,
    /// Its children and hats, and theirs, by their whole names: `parent//child`.
    pub children: BTreeMap<String, Mode>,
}

/// How a profile is enforced, in the words of `mode` in securityfs (`aa_profile_mode_names` in
/// security/apparmor/policy.c).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mode {
    /// What is not allowed fails.
    Enforce,
    /// What is not allowed is logged. What is denied fails nevertheless.
    Complain,
    /// What is not allowed ends the process.
    Kill,
    /// It restricts nothing.
    Unconfined,
    /// What is not allowed is asked of a program.
    User,
}

impl Mode {
    /// The mode that the kernel calls `word`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Enforce, Self::Complain, Self::Kill, Self::Unconfined, Self::User];
        all.into_iter().find(|mode| mode.as_str() == word)
    }

    /// The kernel's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Complain => "complain",
            Self::Kill => "kill",
            Self::Unconfined => "unconfined",
            Self::User => "user",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
