//! Levels: how much of pods a namespace demands, in the manner of Pod Security Admission.
//!
//! Admission policies decide by them, in CEL (`manifests/components/validate`); here the same is decided for
//! `pavise check --level`. The end-to-end tests compare the two, word by word.
//!
//! [`judge`] says what of a pod is below a level, [`scope`] which pods levels are about, and which level a
//! namespace demands.

pub mod judge;
pub mod scope;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A level. Each demands what is said here, and no more.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    #[default]
    Unrestricted,
    /// Each `Localhost` reference, for seccomp and for AppArmor, is declared: by a bundle, or by the
    /// administrator.
    Known,
    /// Each container is confined: its seccomp profile is `RuntimeDefault` or `Localhost`, its AppArmor
    /// profile is not `Unconfined`, and it is not privileged.
    Confined,
    /// As known and confined, and the seccomp profile of each container is `Localhost`.
    Localhost,
}

/// A text that is no level.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is no level: there are unrestricted, known, confined and localhost")]
pub struct UnknownLevel(String);

impl Level {
    /// All of them. They are no ladder: [`Self::Known`] and [`Self::Confined`] demand different things.
    pub const ALL: [Self; 4] = [Self::Unrestricted, Self::Known, Self::Confined, Self::Localhost];

    /// Whether it is about what bundles declare.
    #[must_use]
    pub fn asks_what_is_known(self) -> bool {
        matches!(self, Self::Known | Self::Localhost)
    }

    /// Whether it is about what containers are confined by.
    #[must_use]
    pub fn asks_for_confinement(self) -> bool {
        matches!(self, Self::Confined | Self::Localhost)
    }

    /// As labels have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unrestricted => "unrestricted",
            Self::Known => "known",
            Self::Confined => "confined",
            Self::Localhost => "localhost",
        }
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
