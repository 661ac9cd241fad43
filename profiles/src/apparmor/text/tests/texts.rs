//! What is said of a text for each code: reviewed as a whole, by people.
//!
//! `INSTA_UPDATE=always cargo test -p pavise-profiles` writes the snapshots anew.

use std::collections::BTreeSet;

use super::*;

/// Codes of what the parser says (`said`), of what it makes of a text, and of bundles.
const ELSEWHERE: &[Code] = &[
    Code::InvalidPolicy,
    Code::MissingInclude,
    Code::UnknownAbi,
    Code::ParserWarning,
    Code::PolicyLimit,
    Code::PolicyMismatch,
    Code::ProfileTaken,
];

/// A text for each code: `texts/<code>.txt`.
macro_rules! texts {
    ($($code:literal)+) => {
        &[$(($code, include_str!(concat!("texts/", $code, ".txt")))),+]
    };
}

const TEXTS: &[(&str, &str)] = texts! {
    "attachment"
    "broad-change-profile"
    "complain-mode"
    "deny-in-complain-mode"
    "duplicate-profile"
    "foreign-include"
    "invalid-profile-name"
    "more-findings"
    "no-base-abstraction"
    "no-profile"
    "policy-namespace"
    "reserved-profile"
    "unconfined-profile"
};

#[test]
fn every_code_has_a_text_that_shows_it() {
    let is_of_apparmor = |code: &&Code| (Code::InvalidPolicy..=Code::ProfileTaken).contains(code);
    let codes = Code::ALL.iter().filter(is_of_apparmor).filter(|code| !ELSEWHERE.contains(code));
    let expected: BTreeSet<&str> =
        codes.map(|code| code.as_str()).chain([Code::MoreFindings.as_str()]).collect();
    let texts: BTreeSet<&str> = TEXTS.iter().map(|(code, _)| *code).collect();
    assert_eq!(texts, expected);
    for (code, text) in TEXTS {
        let findings = scan(text).findings;
        assert!(findings.iter().any(|finding| finding.code.as_str() == *code), "{code}: {findings:?}");
    }
}

#[test]
fn what_is_said_is_what_was_reviewed() {
    for (code, text) in TEXTS {
        let said: Vec<String> = scan(text).findings.iter().map(ToString::to_string).collect();
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(*code, said.join("\n"));
        });
    }
}
