//! Findings about what an author wrote.
//!
//! Invariant: a [`Diagnostic`] says what is wrong, where, and what to do next; its code never changes
//! meaning.

use std::fmt;

/// One finding about a profile or a bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Which kind of finding it is, for machines.
    pub code: Code,
    /// Where it is.
    pub place: Place,
    /// What is wrong, as one clause.
    pub message: String,
    /// What to do about it, as one clause.
    pub help: &'static str,
}

impl Diagnostic {
    /// How bad it is; a code has one severity, always.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (severity, Self { code, place, message, help }) = (self.severity(), self);
        let gap = if place.is_whole() { "" } else { " " };
        write!(f, "{severity}[{code}]{gap}{place}: {message}; {help}")
    }
}

/// Makes the enumeration of codes from a table: what each means, its text, and how bad it is. In the order of
/// docs/diagnostics.md.
macro_rules! codes {
    ($($(#[$meaning:meta])+ $name:ident = $text:literal, $severity:ident;)+) => {
        /// The kinds of findings. The text of each is stable: alerts and suppressions may name it.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Code {
            $($(#[$meaning])+ $name,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The stable text of the code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// How bad a finding of this kind is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }
        }
    };
}

codes! {
    /// The document can't be parsed as JSON.
    InvalidJson = "invalid-json", Error;
    /// A value has another JSON type than the runtimes decode it into.
    WrongType = "wrong-type", Error;
    /// A key stands twice in one object.
    DuplicateKey = "duplicate-key", Error;
    /// A key differs in case from the one that it is read as.
    KeyCase = "key-case", Warning;
    /// No runtime reads the key.
    UnknownField = "unknown-field", Warning;
    /// There is no default action: the container would run unconfined.
    MissingDefaultAction = "missing-default-action", Error;
    /// No action, or one that the runtimes do not know: containers would not start.
    UnknownAction = "unknown-action", Error;
    /// An architecture that the runtimes do not know: containers would not start, or a rule would hold
    /// elsewhere than it is meant to.
    UnknownArchitecture = "unknown-architecture", Error;
    /// No comparison, or one that the runtimes do not know: containers would not start.
    UnknownOperator = "unknown-operator", Error;
    /// A flag that the runtimes do not know: containers would not start.
    UnknownFlag = "unknown-flag", Error;
    /// A flag that only recent versions of runc know.
    RecentFlag = "recent-flag", Warning;
    /// An architecture has another byte order than the node's.
    ByteOrder = "byte-order", Error;
    /// `SCMP_ACT_NOTIFY` where runc does not take it.
    NotifyMisuse = "notify-misuse", Error;
    /// libseccomp does not take the error number.
    ErrnoRange = "errno-range", Error;
    /// More was found than is told.
    MoreFindings = "more-findings", Warning;
    /// An `errnoRet` on an action that returns none.
    UnusedErrno = "unused-errno", Warning;
    /// Two fields are there of which Docker and CRI-O take only one.
    ExclusiveFields = "exclusive-fields", Error;
    /// No program reads the key among a rule's conditions: it would hold in spite of it.
    UnknownCondition = "unknown-condition", Error;
    /// A capability that Linux does not have: a rule would hold where it is not meant to.
    UnknownCapability = "unknown-capability", Error;
    /// A `minKernel` that is no version of a kernel.
    UnknownKernel = "unknown-kernel", Error;
    /// An error that Linux does not have.
    UnknownErrno = "unknown-errno", Error;
    /// `archMap` has no entry for the architecture of the node.
    MissingArchitecture = "missing-architecture", Warning;
    /// A rule that refuses is left out for its condition on capabilities.
    LostRefusal = "lost-refusal", Warning;
    /// The name of a system call that nobody knows.
    UnknownSyscall = "unknown-syscall", Warning;
    /// System calls that are newer than libseccomp.
    NewerSyscall = "newer-syscall", Warning;
    /// A rule is for no system call.
    EmptyRule = "empty-rule", Warning;
    /// A rule does what the default action does.
    RedundantRule = "redundant-rule", Warning;
    /// A condition is on an argument that no system call has.
    ArgumentIndex = "argument-index", Error;
    /// Two conditions of a rule are on one argument, so any of them is enough.
    AnyCondition = "any-condition", Warning;
    /// A condition compares bits that its mask takes away.
    MaskedBits = "masked-bits", Warning;
    /// Rules for one system call undo each other.
    ClashingRules = "clashing-rules", Warning;
    /// libseccomp or runc refuses a rule.
    RefusedRule = "refused-rule", Error;
    /// libseccomp makes a filter of the rules that does something else.
    MiscompiledRules = "miscompiled-rules", Warning;
    /// The kernel would not take the filter, or there are more rules than are compiled.
    FilterTooLarge = "filter-too-large", Error;
    /// A system call that every program needs is not allowed.
    MissingCall = "missing-call", Warning;
    /// `clone3` fails with an error that keeps programs from falling back to `clone`.
    Clone3 = "clone3", Warning;
    /// The AppArmor parser refuses the text.
    InvalidPolicy = "invalid-policy", Error;
    /// The text declares no profile.
    NoProfile = "no-profile", Error;
    /// A file that the text includes is not in the image.
    MissingInclude = "missing-include", Error;
    /// A file is included by a path that may lead elsewhere than to AppArmor's own files.
    ForeignInclude = "foreign-include", Error;
    /// The `abi` file that the text names is not in the image.
    UnknownAbi = "unknown-abi", Error;
    /// The name of a profile can't be one of ours.
    InvalidProfileName = "invalid-profile-name", Error;
    /// The name of a profile is one that container runtimes use for their own.
    ReservedProfile = "reserved-profile", Error;
    /// A name is declared twice.
    DuplicateProfile = "duplicate-profile", Error;
    /// A profile attaches to programs of the node.
    Attachment = "attachment", Error;
    /// A profile is for another namespace of policies.
    PolicyNamespace = "policy-namespace", Error;
    /// A profile restricts nothing.
    UnconfinedProfile = "unconfined-profile", Error;
    /// A profile only logs what it does not allow.
    ComplainMode = "complain-mode", Warning;
    /// A profile only logs, but has rules that are enforced nevertheless.
    DenyInComplainMode = "deny-in-complain-mode", Warning;
    /// A profile lets its programs leave it.
    BroadChangeProfile = "broad-change-profile", Warning;
    /// A profile lacks what most programs need.
    NoBaseAbstraction = "no-base-abstraction", Warning;
    /// The AppArmor parser warns.
    ParserWarning = "parser-warning", Warning;
    /// Compiling the text takes too much.
    PolicyLimit = "policy-limit", Error;
    /// What was compiled is not what the text declares.
    PolicyMismatch = "policy-mismatch", Error;
    /// An older bundle declares the same name.
    ProfileTaken = "profile-taken", Error;
    /// The label that makes a ConfigMap a bundle has a value that is no kind of profiles.
    UnknownKind = "unknown-kind", Error;
    /// The bundle holds no profile.
    EmptyBundle = "empty-bundle", Warning;
    /// The bundle has more keys than are read.
    TooManyKeys = "too-many-keys", Error;
    /// The key can't be part of a reference.
    InvalidKey = "invalid-key", Error;
    /// The profile stands in `binaryData`.
    BinaryData = "binary-data", Error;
    /// The file or directory in which the profile or bundle is to be can't be read as one.
    Unreadable = "unreadable", Error;
    /// The annotation that says which nodes the bundle is for can't be read.
    InvalidNodeSelector = "invalid-node-selector", Error;
    /// The annotation that says which labels the bundle's nodes get has an unknown value.
    InvalidNodeLabels = "invalid-node-labels", Warning;
    /// An annotation that looks like one of ours, and is none.
    UnknownAnnotation = "unknown-annotation", Warning;
    /// The node has so many profiles that those of this bundle get no labels of their own.
    LabelsByBundle = "labels-by-bundle", Warning;
    /// Two profiles share one label, because it is shortened.
    LabelCollision = "label-collision", Warning;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The profile is served, but probably does not do what its author wants.
    Warning,
    /// The profile is refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Where in a document a finding is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Line and byte column, both from 1, where the parser can tell.
    pub position: Option<(usize, usize)>,
    /// JSON path: `$` is the document (of a profile), or the ConfigMap or directory (of a bundle), and is not
    /// shown. Of an AppArmor text always `$`. Of a file or directory that can't be read: its path.
    pub path: String,
}

/// The path of all of a document.
const WHOLE: &str = "$";

impl Place {
    /// A place that is known by its JSON path alone.
    #[must_use]
    pub fn at(path: impl Into<String>) -> Self {
        Self { position: None, path: path.into() }
    }

    /// The path, unless it is that of all of the document: that tells nobody anything.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        (self.path != WHOLE).then_some(&self.path)
    }

    fn is_whole(&self) -> bool {
        self.position.is_none() && self.part().is_none()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.position, self.part()) {
            (Some((line, column)), Some(part)) => write!(f, "line {line}, column {column}, {part}"),
            (Some((line, column)), None) => write!(f, "line {line}, column {column}"),
            (None, Some(part)) => f.write_str(part),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_with_its_severity() {
        let documentation = include_str!("../../docs/diagnostics.md");
        for code in Code::ALL {
            let row = format!("| `{code}` | {} | ", code.severity());
            assert!(documentation.contains(&row), "docs/diagnostics.md has no row {row}…");
        }
    }
}
