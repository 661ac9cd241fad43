//! What is said about an object of the API: a statement becomes one Event.
//!
//! Invariant: the name of the Event follows from the statement alone. So who says the same again, also after
//! a restart, does it under the same name.

use std::fmt;

use crate::bundle::BundleId;
use crate::check::PodReason;
use crate::digest::Digest;
use crate::pod::PodId;

/// The longest note that the API server takes, in bytes (`NoteLengthLimit` of its validation of Events).
pub(crate) const LONGEST_NOTE: usize = 1024;
/// The longest name of an object, which is a DNS subdomain, without `.` and 16 digits.
const LONGEST_PREFIX: usize = 253 - 17;

/// What is spoken of. Written `<namespace>/<name>`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its namespace, which is that of its Events.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The kind of an object that is spoken of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SubjectKind {
    /// A bundle.
    ConfigMap,
    /// A pod that asks for profiles.
    Pod,
}

impl SubjectKind {
    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Pod => "Pod",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<&BundleId> for Subject {
    fn from(BundleId { namespace, name }: &BundleId) -> Self {
        Self { kind: SubjectKind::ConfigMap, namespace: namespace.to_string(), name: name.to_string() }
    }
}

impl From<&PodId> for Subject {
    fn from(PodId { namespace, name, .. }: &PodId) -> Self {
        Self { kind: SubjectKind::Pod, namespace: namespace.clone(), name: name.clone() }
    }
}

/// Why something is said, for machines: `reason` of the Event.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// Something is wrong with the bundle as a whole.
    BundleProblem,
    /// A profile of a bundle is not served.
    ProfileRefused,
    /// A profile of a bundle is served, and probably does not do what its author wants.
    ProfileFlaw,
    /// Something is wrong with what a container asks for.
    OfPod(PodReason),
    /// A pod waits, because no Node that it can be on has what it selects on for a profile.
    NoNodeHasProfile,
    /// There are more problems than are spoken of by themselves.
    MoreProblems,
    /// Nothing is wrong with the bundle any more.
    ProfilesAccepted,
    /// Nothing is wrong any more with what the pod asks for.
    ProfilesResolved,
}

impl Reason {
    /// As Events have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BundleProblem => "BundleProblem",
            Self::ProfileRefused => "ProfileRefused",
            Self::ProfileFlaw => "ProfileFlaw",
            Self::OfPod(reason) => reason.as_str(),
            Self::NoNodeHasProfile => "NoNodeHasProfile",
            Self::MoreProblems => "MoreProblems",
            Self::ProfilesAccepted => "ProfilesAccepted",
            Self::ProfilesResolved => "ProfilesResolved",
        }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn is_problem(self) -> bool {
        !matches!(self, Self::ProfilesAccepted | Self::ProfilesResolved)
    }
}

/// One thing to be said about an object, which becomes one Event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    /// The object that it is about.
    pub subject: Subject,
    /// Its `uid`.
    pub uid: String,
    /// The field of it, such as `data[nginx.json]` or `spec.containers{web}`; none for all of it.
    pub field: Option<String>,
    /// Why it is said.
    pub reason: Reason,
    /// What is said: at most 1,024 bytes.
    pub note: String,
}

impl Statement {
    /// The name of its Event. The same statement about the same object has the same name, whoever makes it.
    #[must_use]
    pub fn name(&self) -> String {
        let field = self.field.as_deref().unwrap_or_default();
        let content = [&self.uid, self.reason.as_str(), field, &self.note].join("\0");
        let subject = self.subject.name.as_str();
        let prefix = &subject[..subject.floor_char_boundary(LONGEST_PREFIX)];
        format!("{}.{}", prefix.trim_end_matches(['-', '.']), Digest::of(content.as_bytes()).short())
    }
}

/// `text`, or so many bytes of it with an ellipsis, which ends at a character's end.
pub(crate) fn cut(text: &str, longest: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= longest {
        return text.to_owned();
    }
    format!("{}{ELLIPSIS}", &text[..text.floor_char_boundary(longest.saturating_sub(ELLIPSIS.len()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöüß", 6), "ä…");
        assert_eq!(cut("äöüß", 7), "äö…");
    }

    #[test]
    fn a_name_follows_from_what_is_said_about_which_object() {
        let statement = Statement {
            subject: Subject::from(&BundleId::new("ns", "web").unwrap()),
            uid: "u".to_owned(),
            field: Some("data[a.json]".to_owned()),
            reason: Reason::ProfileRefused,
            note: "a.json is refused".to_owned(),
        };
        let name = statement.name();
        assert_eq!(name, "web.46cce7eb8a39c161", "Events that exist would be made again");
        let other_uid = Statement { uid: "v".to_owned(), ..statement.clone() };
        let other_note = Statement { note: "x".to_owned(), ..statement.clone() };
        let other_field = Statement { field: None, ..statement.clone() };
        let other_reason = Statement { reason: Reason::ProfileFlaw, ..statement.clone() };
        for other in [other_uid, other_note, other_field, other_reason] {
            assert_ne!(other.name(), name);
        }
        let long = format!("{}.{}", "a".repeat(235), "b".repeat(17));
        let subject = Subject { name: long, ..statement.subject.clone() };
        let long = Statement { subject, ..statement };
        assert_eq!(long.name().len(), 235 + 17);
        assert!(!long.name().contains(".."));
    }
}
