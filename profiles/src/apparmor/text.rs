//! What an AppArmor text declares, by its author's word.
//!
//! Stand-in until the scanner is there: it finds the names in lines `profile NAME {` and nothing else.
//!
//! Invariant: a name that is told can be one of ours.

use std::collections::BTreeSet;

use crate::apparmor::name::ProfileName;
use crate::diagnostic::{Code, Diagnostic, Place};

/// What was found in a text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scanned {
    /// The profiles that it declares, without their children.
    pub names: BTreeSet<ProfileName>,
    /// What is wrong with it.
    pub findings: Vec<Diagnostic>,
}

/// Looks at `text`.
#[must_use]
pub fn scan(text: &str) -> Scanned {
    let mut scanned = Scanned::default();
    let declared = text.lines().filter_map(|line| line.strip_prefix("profile ")?.split_whitespace().next());
    for name in declared {
        match ProfileName::new(name) {
            Ok(name) => drop(scanned.names.insert(name)),
            Err(error) => scanned.findings.push(Diagnostic {
                code: Code::InvalidProfileName,
                place: Place::at("$"),
                message: format!("{name:?} can't be the name of a profile: {error}"),
                help: "rename the profile",
            }),
        }
    }
    if scanned.names.is_empty() && scanned.findings.is_empty() {
        scanned.findings.push(Diagnostic {
            code: Code::NoProfile,
            place: Place::at("$"),
            message: "the text declares no profile".to_owned(),
            help: "declare one: profile <name> { … }",
        });
    }
    scanned
}
