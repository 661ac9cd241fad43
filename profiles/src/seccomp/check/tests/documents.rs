//! What is said of a document for each code: reviewed as a whole, by people.
//!
//! `INSTA_UPDATE=always cargo test -p pavise-profiles` writes the snapshots anew.

use std::collections::BTreeSet;

use super::check;
use crate::diagnostic::Code;
use crate::seccomp::calls;

/// Codes of bundles, not of documents.
const OF_BUNDLES: &[Code] = &[
    Code::BinaryData,
    Code::EmptyBundle,
    Code::InvalidKey,
    Code::InvalidNodeLabels,
    Code::InvalidNodeSelector,
    Code::LabelCollision,
    Code::LabelsByBundle,
    Code::TooManyKeys,
    Code::UnknownAnnotation,
    Code::UnknownKind,
    Code::Unreadable,
];

/// A document for each code: `documents/<code>.json`.
macro_rules! documents {
    ($($code:literal)+) => {
        &[$(($code, include_str!(concat!("documents/", $code, ".json")))),+]
    };
}

const DOCUMENTS: &[(&str, &str)] = documents! {
    "any-condition"
    "argument-index"
    "byte-order"
    "clashing-rules"
    "clone3"
    "duplicate-key"
    "empty-rule"
    "errno-range"
    "exclusive-fields"
    "filter-too-large"
    "invalid-json"
    "key-case"
    "lost-refusal"
    "masked-bits"
    "miscompiled-rules"
    "missing-architecture"
    "missing-call"
    "missing-default-action"
    "more-findings"
    "newer-syscall"
    "notify-misuse"
    "recent-flag"
    "redundant-rule"
    "refused-rule"
    "unknown-action"
    "unknown-architecture"
    "unknown-capability"
    "unknown-condition"
    "unknown-errno"
    "unknown-field"
    "unknown-flag"
    "unknown-kernel"
    "unknown-operator"
    "unknown-syscall"
    "unused-errno"
    "wrong-type"
};

#[test]
fn every_code_has_a_document_that_shows_it() {
    let is_of_apparmor = |code: &Code| (Code::InvalidPolicy..=Code::ProfileTaken).contains(code);
    let codes = Code::ALL.iter().filter(|code| !OF_BUNDLES.contains(code) && !is_of_apparmor(code));
    let expected: BTreeSet<&str> = codes.map(|code| code.as_str()).collect();
    let documents: BTreeSet<&str> = DOCUMENTS.iter().map(|(code, _)| *code).collect();
    assert_eq!(documents, expected);
    for (code, text) in DOCUMENTS {
        let findings = check(text);
        assert!(findings.iter().any(|finding| finding.code.as_str() == *code), "{code}: {findings:?}");
    }
}

#[test]
fn what_is_said_is_what_was_reviewed() {
    for (code, text) in DOCUMENTS {
        let said: Vec<String> = check(text)
            .iter()
            .map(|finding| finding.to_string().replace(&calls::version(), "X.Y.Z"))
            .collect();
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(*code, said.join("\n"));
        });
    }
}
