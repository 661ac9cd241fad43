//! What the node holds at the places that its pods refer to, whoever put it there, and what its kernel says
//! of their containers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::apparmor::name::ProfileName;
use crate::apparmor::policy::Mode;
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::platform::Platform;
use crate::pod::ContainerId;
use crate::seccomp;

/// A place below `<kubelet root>/seccomp`, as the kubelet makes it of a `localhostProfile`: relative, with no
/// empty, `.` or `..` component. Cloning one is cheap.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SeccompPath(Arc<str>);

impl SeccompPath {
    /// The place that `reference` means; none if it can mean none.
    #[must_use]
    pub fn of(reference: &str) -> Option<Self> {
        let parts: Vec<&str> = reference.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let is_inside = !reference.starts_with('/') && !parts.is_empty() && !parts.contains(&"..");
        is_inside.then(|| Self(parts.join("/").into()))
    }

    /// It, relative to the seccomp directory.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SeccompPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is at a [`SeccompPath`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileSight {
    /// Nothing.
    Absent,
    /// A file with this content.
    File(Judged),
    /// Something that no runtime can read as a profile: what, in words.
    NotAFile(&'static str),
    /// It can't be looked at: why.
    Unreadable(String),
}

/// A file that was judged as a runtime would read it, on this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judged {
    /// Of the content.
    pub digest: Digest,
    /// What a container is that is started with it.
    pub effect: Effect,
    /// What is wrong with it: eight findings at most, and first what decides the effect.
    pub diagnostics: Arc<[Diagnostic]>,
}

impl Judged {
    /// Judges `content` for nodes of `platform`.
    #[must_use]
    pub fn of(content: &[u8], platform: Platform) -> Self {
        // Go reads U+FFFD for what is not UTF-8 in a string, and refuses it elsewhere
        // (encoding/json/decode.go).
        let (effect, diagnostics) = seccomp::effect(&String::from_utf8_lossy(content), platform);
        Self { digest: Digest::of(content), effect, diagnostics: diagnostics.into() }
    }
}

/// What a container is that is started with a file. The worst comes last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Effect {
    /// Confined as the file says.
    Confined,
    /// Confined by less than the file says: containerd drops conditions of it.
    Weakened,
    /// Not confined at all: containerd and runc make no filter of it.
    Unconfined,
    /// Not started: the runtime refuses it.
    Unusable,
}

/// What the kernel has under the name of an AppArmor profile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PolicySight {
    /// Nothing.
    Absent,
    /// A profile of this mode; none if this agent does not know the kernel's word for it.
    Present(Option<Mode>),
}

/// What to look at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Looks {
    /// Of the disk.
    pub files: BTreeSet<SeccompPath>,
    /// Of the kernel.
    pub policies: BTreeSet<ProfileName>,
}

/// What was seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sights {
    /// On the disk.
    pub files: BTreeMap<SeccompPath, FileSight>,
    /// In the kernel.
    pub policies: BTreeMap<ProfileName, PolicySight>,
}

/// What was seen since the last scan, by place; none of what can't be told.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) files: BTreeMap<SeccompPath, Option<FileSight>>,
    pub(crate) policies: BTreeMap<ProfileName, Option<PolicySight>>,
}

/// A container of which the kernel is asked.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Inspect {
    /// Which.
    pub id: ContainerId,
    /// The file that it was started with, if its seccomp profile is one.
    pub file: Option<SeccompPath>,
}

/// What the kernel says of a container's first process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Confinement {
    /// `Seccomp:` of proc(5): 0 is disabled, 1 strict, 2 filter.
    pub seccomp_mode: u32,
    /// `Seccomp_filters:`; none before Linux 5.9.
    pub seccomp_filters: Option<u32>,
    /// `attr/apparmor/current`, such as `name (enforce)`; none where there is no AppArmor.
    pub apparmor: Option<String>,
    /// Whether the file that it was started with has got another content since.
    pub is_outdated: bool,
}
