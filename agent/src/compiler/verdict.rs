//! What an answer of the compiler comes to.
//!
//! Invariant: a [`Verdict::Accepted`] blob was read, and declares what its text does. Whatever the compiler
//! says, an answer that is no such blob refuses the text, and says why.

use std::collections::BTreeSet;

use profiles::apparmor::name::ProfileName;
use profiles::apparmor::policy::Policy;
use profiles::apparmor::{judge, said};
use profiles::diagnostic::{Code, Diagnostic, Place};
use profiles::digest::Digest;

use super::{Answer, Limit};

/// What becomes of a text.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It may be loaded, in spite of these warnings.
    Accepted { policy: Policy, blob: Vec<u8>, warnings: Vec<Diagnostic> },
    /// It must not, for these reasons.
    Refused(Vec<Diagnostic>),
}

impl Verdict {
    /// What there is to say, whether the text is refused or not.
    pub(crate) fn into_findings(self) -> Vec<Diagnostic> {
        match self {
            Self::Accepted { warnings: findings, .. } | Self::Refused(findings) => findings,
        }
    }
}

/// Judges the answer to `text`, which declares the profiles `names`.
pub(crate) fn verdict(text: &str, names: &BTreeSet<ProfileName>, answer: Answer) -> Verdict {
    match answer {
        Answer::Compiled { blob, stderr } => match judge(Digest::of(text.as_bytes()), names, &blob) {
            Ok((policy, mut warnings)) => {
                warnings.extend(said::warnings(text, &stderr));
                Verdict::Accepted { policy, blob, warnings }
            }
            Err(findings) => Verdict::Refused(findings),
        },
        Answer::Refused { stderr } => Verdict::Refused(said::findings(text, &stderr)),
        Answer::Limit(limit) => Verdict::Refused(vec![over_the(limit)]),
        Answer::Crashed => Verdict::Refused(vec![crashed()]),
    }
}

fn over_the(limit: Limit) -> Diagnostic {
    let message = match limit {
        Limit::Time => "compiling it takes more time than a text may take",
        Limit::Memory => "compiling it takes more memory than a text may take",
        Limit::Size => "what is compiled from it has more than 4 MiB",
    };
    Diagnostic {
        code: Code::PolicyLimit,
        place: Place::at("$"),
        message: message.to_owned(),
        help: "write fewer rules, and fewer wildcards in each: what they allow together grows with each pair",
    }
}

fn crashed() -> Diagnostic {
    Diagnostic {
        code: Code::InvalidPolicy,
        place: Place::at("$"),
        message: "the parser crashes on it".to_owned(),
        help: "leave out rules until it does not, to find out which one it is",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_answered_but_a_blob_of_the_text_refuses_it() {
        let text = "profile a {\n  fil,\n}\n";
        let names = ["a".parse().unwrap()].into();
        let stderr =
            || "AppArmor parser error at line 2: syntax error, unexpected TOK_END_OF_RULE".to_owned();
        for (answer, code) in [
            (Answer::Refused { stderr: stderr() }, Code::InvalidPolicy),
            (Answer::Refused { stderr: String::new() }, Code::InvalidPolicy),
            (Answer::Compiled { blob: Vec::new(), stderr: stderr() }, Code::PolicyMismatch),
            (Answer::Compiled { blob: vec![0xff; 99], stderr: String::new() }, Code::PolicyMismatch),
            (Answer::Limit(Limit::Time), Code::PolicyLimit),
            (Answer::Limit(Limit::Memory), Code::PolicyLimit),
            (Answer::Limit(Limit::Size), Code::PolicyLimit),
            (Answer::Crashed, Code::InvalidPolicy),
        ] {
            let shown = format!("{answer:?}");
            let Verdict::Refused(findings) = verdict(text, &names, answer) else {
                panic!("{shown} is accepted")
            };
            assert_eq!(findings.first().map(|finding| finding.code), Some(code), "{shown}");
        }
    }
}
