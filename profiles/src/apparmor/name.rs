//! The name of an AppArmor profile, which is a pod's reference to it.
//!
//! Invariant: a [`ProfileName`] stands for one profile of the kernel's root namespace and for nothing else: it
//! attaches to no program, has no parent, and no parser or runtime reads more into it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name, in bytes. The kernel makes a directory of it, followed by a dot and a number, whose name has
/// 255 bytes at most (`__aafs_profile_mkdir` in security/apparmor/apparmorfs.c).
pub const LONGEST: usize = 200;

/// The name of a profile that is no child of another. Cloning one is cheap.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(Arc<str>);

/// A text that can't be the name of a profile.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidProfileName(pub &'static str);

impl ProfileName {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`InvalidProfileName`], which says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, InvalidProfileName> {
        check(text).map_err(InvalidProfileName)?;
        Ok(Self(text.into()))
    }

    /// The name as pods, the kernel and texts write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'+' | b'/');
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > LONGEST {
        return Err("it is longer than 200 bytes");
    }
    if text.starts_with('/') {
        return Err("it starts with /, so it would attach to the program of that path");
    }
    if !text.bytes().all(allowed) {
        return Err("it must be made of letters, digits, -, ., _, + and /");
    }
    if text.contains("//") || text.ends_with('/') {
        return Err("// and a / at the end stand for children of a profile");
    }
    if matches!(text, "unconfined" | "." | "..") {
        return Err("it means something else to the kernel");
    }
    Ok(())
}

impl FromStr for ProfileName {
    type Err = InvalidProfileName;

    fn from_str(text: &str) -> Result<Self, InvalidProfileName> {
        Self::new(text)
    }
}

impl TryFrom<String> for ProfileName {
    type Error = InvalidProfileName;

    fn try_from(text: String) -> Result<Self, InvalidProfileName> {
        Self::new(&text)
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_profile_and_nothing_else() {
        let longest = "n".repeat(LONGEST);
        for name in ["deny-write", "k8s-apparmor-example-deny-write", "team/web.v1", "a+b_c", &longest] {
            assert!(ProfileName::new(name).is_ok(), "{name}");
        }
        let too_long = "n".repeat(LONGEST + 1);
        for name in [
            "",
            "/usr/bin/x",
            "a b",
            "a\n",
            "@{x}",
            "a*",
            "a{b,c}",
            ":ns:a",
            "a//b",
            "a/",
            "ä",
            "\"a\"",
            "unconfined",
            "..",
            "^hat",
            "a//&b",
            &too_long,
        ] {
            assert!(ProfileName::new(name).is_err(), "{name}");
        }
    }
}
