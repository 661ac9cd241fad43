//! What a container is that is started with a document, whoever wrote it.
//!
//! containerd decodes a file into `LinuxSeccomp` of the OCI runtime specification and drops what that does
//! not have (`WithProfile` in its contrib/seccomp/seccomp.go). runc makes a filter of the rest
//! (`SetupSeccomp` in its `libcontainer/specconv/spec_linux.go`, `InitSeccomp` in
//! `libcontainer/seccomp/seccomp_linux.go`), or none if there is neither a default action nor a rule.
//!
//! Invariant: a document is judged by what these two do with it, not by whether a bundle could have it.

use super::{Checker, without_default};
use crate::diagnostic::{Code, Diagnostic};
use crate::platform::Platform;
use crate::seccomp::document::{LinuxSeccomp, Reader};
use crate::sight::Effect;

/// How many findings are kept: those that decide come first.
const MOST: usize = 8;

/// What JSON has between its tokens.
const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Judges `text` for nodes of `platform`: what a container is that is started with it, and what is wrong with
/// it, beginning with what decides that.
#[must_use]
pub fn effect(text: &str, platform: Platform) -> (Effect, Vec<Diagnostic>) {
    // Go decodes it into a document in which nothing stands.
    if text.trim_matches(WHITE) == "null" {
        return (Effect::Unconfined, vec![without_default(false)]);
    }
    let mut reader = Reader::new(text);
    let Some(written) = reader.read() else { return (Effect::Unusable, reader.findings.end()) };
    let is_plain = written.is_plain();
    let rules = written.rules.into_iter().map(|rule| rule.plain).collect();
    let document = LinuxSeccomp { rules, ..written.plain };
    let mut checker = Checker { reader: &mut reader, document: &document };
    checker.all(platform);
    let mut findings = reader.findings.end();
    let is_empty = document.rules.is_empty()
        && document.default_action.as_ref().is_none_or(|action| action.text.is_empty());
    let effect = if findings.iter().any(is_undecodable) {
        Effect::Unusable
    } else if is_empty {
        Effect::Unconfined
    } else {
        let least = if is_plain { Effect::Confined } else { Effect::Weakened };
        findings.iter().map(effect_of).fold(least, Effect::max)
    };
    let decides = |finding: &Diagnostic| match effect {
        Effect::Unconfined => finding.code == Code::MissingDefaultAction,
        _ => effect_of(finding) == effect,
    };
    findings.sort_by_key(|finding| !decides(finding));
    findings.truncate(MOST);
    (effect, findings)
}

/// Whether Go can't decode the document for it.
fn is_undecodable(finding: &Diagnostic) -> bool {
    matches!(finding.code, Code::InvalidJson | Code::WrongType) && !is_dropped(&finding.place.path)
}

/// What a finding means for a container that is started with the document.
fn effect_of(finding: &Diagnostic) -> Effect {
    if is_dropped(&finding.place.path) { Effect::Weakened } else { of_code(finding.code) }
}

/// Whether containerd drops what stands at this path of a document, and what stands in it.
fn is_dropped(path: &str) -> bool {
    let mut parts = path.split('.').map(|part| part.split('[').next().unwrap_or(part)).skip(1);
    match parts.next() {
        Some("defaultErrno" | "archMap") => true,
        Some("syscalls") => matches!(parts.next(), Some("name" | "errno" | "includes" | "excludes")),
        _ => false,
    }
}

/// What it means that a document has a finding of this code, in a part of it that containerd reads.
#[expect(clippy::match_same_arms, reason = "an arm for each reason")]
fn of_code(code: Code) -> Effect {
    match code {
        // containerd: "decoding seccomp profile failed".
        Code::InvalidJson | Code::WrongType => Effect::Unusable,
        // runc: "string X is not a valid action (arch, operator) for seccomp". No default action is the empty
        // one.
        Code::MissingDefaultAction | Code::UnknownAction | Code::UnknownArchitecture | Code::UnknownOperator => {
            Effect::Unusable
        }
        // runc: "seccomp flag X is not known to runc".
        Code::UnknownFlag => Effect::Unusable,
        // runc: "SCMP_ACT_NOTIFY cannot be used …", or a listener that it can't reach.
        Code::NotifyMisuse => Effect::Unusable,
        // libseccomp refuses the architecture, the rule or the error, and runc the container.
        Code::ByteOrder | Code::ErrnoRange | Code::ArgumentIndex | Code::RefusedRule => Effect::Unusable,
        // The kernel refuses the filter.
        Code::FilterTooLarge => Effect::Unusable,
        // Go takes the last of two, so a part of what is written is lost.
        Code::DuplicateKey => Effect::Weakened,
        // These are in parts that containerd drops: what they are about does not hold.
        Code::ExclusiveFields
        | Code::UnknownCondition
        | Code::UnknownCapability
        | Code::UnknownKernel
        | Code::UnknownErrno
        | Code::MissingArchitecture
        | Code::LostRefusal => Effect::Weakened,
        // The runtime goes on: keys of another case are read, unknown ones are not, a version of runc refuses
        // it.
        Code::KeyCase | Code::UnknownField | Code::RecentFlag | Code::UnusedErrno => Effect::Confined,
        // runc leaves the name or the rule out, which an author can mean.
        Code::UnknownSyscall | Code::NewerSyscall | Code::EmptyRule | Code::RedundantRule => Effect::Confined,
        // All runtimes make the same filter of it, if another one than its author may mean.
        Code::AnyCondition | Code::MaskedBits | Code::ClashingRules | Code::MiscompiledRules => Effect::Confined,
        // The filter is in force; programs may not get far under it.
        Code::MissingCall | Code::Clone3 => Effect::Confined,
        // It says nothing of the document.
        Code::MoreFindings => Effect::Confined,
        // No document has them: they are about AppArmor texts,
        Code::InvalidPolicy
        | Code::NoProfile
        | Code::MissingInclude
        | Code::ForeignInclude
        | Code::UnknownAbi
        | Code::InvalidProfileName
        | Code::ReservedProfile
        | Code::DuplicateProfile
        | Code::Attachment
        | Code::PolicyNamespace
        | Code::UnconfinedProfile
        | Code::ComplainMode
        | Code::DenyInComplainMode
        | Code::BroadChangeProfile
        | Code::NoBaseAbstraction
        | Code::ParserWarning
        | Code::PolicyLimit
        | Code::PolicyMismatch
        | Code::ProfileTaken
        // or about bundles.
        | Code::UnknownKind
        | Code::EmptyBundle
        | Code::TooManyKeys
        | Code::InvalidKey
        | Code::BinaryData
        | Code::Unreadable
        | Code::InvalidNodeSelector
        | Code::InvalidNodeLabels
        | Code::UnknownAnnotation
        | Code::LabelsByBundle
        | Code::LabelCollision => Effect::Confined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims what a container is that is started with each of these texts, and the code that decides it, if
    /// one does.
    fn check(cases: &[(&str, Effect, Option<Code>)]) {
        for (text, expected, code) in cases {
            let (effect, findings) = effect(text, Platform::EXAMPLE);
            assert_eq!(effect, *expected, "{text}: {findings:?}");
            if let Some(code) = code {
                assert_eq!(findings.first().map(|finding| finding.code), Some(*code), "{text}");
            }
        }
    }

    #[test]
    fn a_document_is_judged_by_what_the_runtime_does_with_it() {
        use Effect::{Confined, Unconfined, Unusable};
        let missing = Some(Code::MissingDefaultAction);
        check(&[
            (r#"{"defaultAction":"SCMP_ACT_LOG"}"#, Confined, None),
            ("{}", Unconfined, missing),
            (" null\n", Unconfined, missing),
            (r#"{"defaultAction":""}"#, Unconfined, missing),
            (r#"{"defaultAction":null,"architectures":["bogus"]}"#, Unconfined, missing),
            (r#"{"syscalls":[]}"#, Unconfined, missing),
            // runc wants an action as soon as there is a rule.
            (r#"{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#, Unusable, missing),
            ("", Unusable, Some(Code::InvalidJson)),
            ("{", Unusable, Some(Code::InvalidJson)),
            ("\u{feff}{}", Unusable, Some(Code::InvalidJson)),
            ("[]", Unusable, Some(Code::WrongType)),
            ("defaultAction: SCMP_ACT_LOG", Unusable, Some(Code::InvalidJson)),
            (r#"{"defaultAction":7}"#, Unusable, Some(Code::WrongType)),
            (r#"{"defaultAction":"SCMP_ACT_LGO"}"#, Unusable, Some(Code::UnknownAction)),
            (
                r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["x"]}"#,
                Unusable,
                Some(Code::UnknownArchitecture),
            ),
            (r#"{"defaultAction":"SCMP_ACT_LOG","flags":["x"]}"#, Unusable, Some(Code::UnknownFlag)),
        ]);
    }

    #[test]
    fn what_containerd_drops_weakens_a_document() {
        use Effect::{Unusable, Weakened};
        let with = |member: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO",{member}}}"#);
        let rule = |member: &str| with(&format!(r#""syscalls":[{{"action":"SCMP_ACT_ALLOW",{member}}}]"#));
        for (text, expected) in [
            (with(r#""archMap":[{"architecture":"SCMP_ARCH_X86_64"}]"#), Weakened),
            (with(r#""archMap":7"#), Weakened),
            (with(r#""defaultErrno":"ENOSYS""#), Weakened),
            (rule(r#""name":"read""#), Weakened),
            (rule(r#""names":["read"],"includes":{"caps":["CAP_SYS_ADMIN"]}"#), Weakened),
            (rule(r#""names":["read"],"excludes":{"arches":["bogus"]}"#), Weakened),
            (rule(r#""names":["read"],"excludes":{"kernel":"4.8"}"#), Weakened),
            (rule(r#""names":["read"],"includes":7"#), Weakened),
            (rule(r#""names":["read"],"action":"SCMP_ACT_LOG""#), Weakened),
            // It does not even start.
            (rule(r#""names":[7],"includes":{"caps":["CAP_SYS_ADMIN"]}"#), Unusable),
        ] {
            check(&[(&text, expected, None)]);
        }
    }

    #[test]
    fn what_bundles_must_not_have_and_runtimes_take_confines() {
        let with = |rules: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rules}]}}"#);
        for rules in [
            r#"{"names":["raed"],"action":"SCMP_ACT_ERRNO"}"#,
            r#"{"names":["read"],"action":"SCMP_ACT_ERRNO"},{"names":["read"],"action":"SCMP_ACT_LOG"}"#,
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#,
            r#"{"Names":["read"],"action":"SCMP_ACT_ERRNO","whatever":1}"#,
            r#"{"names":[],"action":"SCMP_ACT_ERRNO"}"#,
        ] {
            check(&[(&with(rules), Effect::Confined, None)]);
        }
    }

    #[test]
    fn the_findings_that_are_kept_are_few_and_begin_with_what_decides() {
        let rules: Vec<String> = (0..200)
            .map(|number| format!(r#"{{"names":["call{number}"],"action":"SCMP_ACT_ERRNO"}}"#))
            .chain([r#"{"names":["read"],"action":"bogus"}"#.to_owned()])
            .collect();
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(","));
        let (effect, findings) = effect(&text, Platform::EXAMPLE);
        assert_eq!((effect, findings.len()), (Effect::Unusable, MOST));
        assert_eq!(findings[0].code, Code::UnknownAction);
    }
}
