//! What becomes of a reference on this node: whether a container that asks for it gets a profile that
//! confines it.
//!
//! What counts is what the node holds, whoever put it there: a file of somebody else's that confines resolves
//! a reference, and one of ours that somebody changed does not. The runtime is not asked; what it would do
//! with what is there is known.
//!
//! Invariants: where something can't be told, nothing is claimed. A message names what its author can change,
//! has no time and no number that grows, and shows nothing of a pod's but what can be seen.

use crate::apparmor::name::ProfileName;
use crate::apparmor::policy::Mode;
use crate::bundle::Kind;
use crate::check::PodReason;
use crate::diagnostic::Diagnostic;
use crate::file::{File, Want};
use crate::findings::{cut, visible};
use crate::label::LabelKey;
use crate::platform::AppArmor;
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::sight::{Effect, FileSight, Judged, PolicySight, SeccompPath};
use crate::state::State;
use crate::statement;
use crate::time::Time;

mod looks;
pub(crate) mod names;
mod reasons;
#[cfg(test)]
mod tests;

/// How much of a reference is shown, in characters.
const SHOWN: usize = 120;
/// How long a message is at most, in bytes.
const LONGEST: usize = 800;

/// What to do where a step failed that is tried again.
const SEE_LOG: &str = "which is tried again: see the log of the agent on the node";
/// What is to be known of a pod that asks for AppArmor where there is none (`NewAppArmorAdmitHandler` in the
/// kubelet's pkg/kubelet/lifecycle/handlers.go).
const FAILED: &str = "the kubelet fails such a pod for good: delete it";

/// What becomes of a reference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Resolution {
    /// The node has a profile there that confines.
    Resolved,
    /// It is about to be there, or to be looked at: within a second; where somebody else's was until now,
    /// within a minute; if a text has to be compiled for it, within half a minute for each that is compiled
    /// before.
    Pending,
    /// What is there can't be told.
    Unchecked,
    /// This is wrong.
    Unresolved(Problem),
}

/// What is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    pub(crate) reason: PodReason,
    pub(crate) message: String,
    /// Whether nobody knows the name, so that it may be a wrong one.
    pub(crate) is_unheard_of: bool,
}

impl Problem {
    fn found(reason: PodReason, message: &str) -> Resolution {
        Resolution::Unresolved(Self { reason, message: bounded(message), is_unheard_of: false })
    }

    /// Adds what may have been meant.
    pub(crate) fn suggest(&mut self, names: &[&str]) {
        let (last, others) = match names {
            [] => return,
            [only] => (only, String::new()),
            [others @ .., last] => (last, others.join(", ") + " or "),
        };
        self.message = bounded(&format!("{}; did you mean {others}{last}?", self.message));
    }
}

impl State {
    /// Whether all is known that references are resolved by.
    pub(crate) fn is_resolvable(&self) -> bool {
        let is_kernel_known = self.policies.is_scanned || !self.config.has_apparmor();
        self.is_all_listed() && self.is_scanned && is_kernel_known
    }

    /// What becomes of `reference`, which a pod asks for, at `now`.
    pub(crate) fn resolve(&self, kind: Kind, reference: &str, now: Time) -> Resolution {
        if kind == Kind::AppArmor && self.config.apparmor == AppArmor::Disabled {
            let advice = Self::select_advice(Some(reference));
            let message = format!("{} has no AppArmor, and {FAILED}, {advice}", self.node());
            return Problem::found(PodReason::AppArmorUnavailable, &message);
        }
        if reference.is_empty() {
            let message = format!(
                "the {} profile of type Localhost has no localhostProfile, so the kubelet does not start the container \
                 (CreateContainerConfigError): add one",
                word(kind)
            );
            return Problem::found(PodReason::ProfileMissing, &message);
        }
        match kind {
            Kind::Seccomp => self.resolve_file(reference, now),
            Kind::AppArmor if self.config.has_apparmor() => self.resolve_policy(reference, now),
            Kind::AppArmor => Resolution::Unchecked,
        }
    }

    /// Why the kubelet failed a pod that asks for AppArmor: for the runtime's own profile, or for
    /// `reference`.
    pub(crate) fn rejected(&self, reference: Option<&str>) -> Problem {
        let advice = Self::select_advice(reference);
        let message = format!("{} had no AppArmor when the pod came, and {FAILED}, {advice}", self.node());
        Problem { reason: PodReason::AppArmorUnavailable, message: bounded(&message), is_unheard_of: false }
    }

    /// How a pod is brought to nodes that have `reference`.
    fn select_advice(reference: Option<&str>) -> String {
        match reference.and_then(policy_name) {
            Some(name) => format!(
                "and add the nodeSelector {}: \"true\", so that the next one comes to a node that has the profile",
                LabelKey::of_policy(&name)
            ),
            None => "and have the next one select nodes that have AppArmor".to_owned(),
        }
    }

    fn resolve_file(&self, reference: &str, now: Time) -> Resolution {
        let Some(place) = SeccompPath::of(reference) else {
            return self.absent(Kind::Seccomp, reference, &self.no_place(reference));
        };
        let own = place.as_str().parse::<Reference>().ok();
        let file = own.as_ref().and_then(|own| self.files.get(own));
        if file.is_some_and(File::is_loaded) {
            return Resolution::Resolved;
        }
        let sight = match self.known.files.get(&place) {
            None => return Resolution::Pending,
            Some(None | Some(FileSight::Unreadable(_))) => return Resolution::Unchecked,
            Some(Some(sight)) => sight,
        };
        let owned = file.filter(|file| file.is_owned);
        match (sight, owned) {
            (FileSight::File(judged), Some(owned)) if owned.is_ours(judged.digest) => Resolution::Resolved,
            (FileSight::File(_), Some(owned)) => {
                self.changed_file(reference, owned, "it has another content", now)
            }
            (FileSight::NotAFile(what), Some(owned)) => {
                self.changed_file(reference, owned, &format!("{what} is in its place"), now)
            }
            (FileSight::File(judged), None) => {
                self.by_effect(reference, judged, file.is_some_and(File::is_wanted))
            }
            (FileSight::NotAFile(what), None) => {
                let message = format!("{} is {what}, and no file", self.place(Kind::Seccomp, reference));
                Problem::found(PodReason::ProfileInvalid, &message)
            }
            (FileSight::Absent, _) => self.absent_file(reference, &place, own.as_ref(), file, now),
            (FileSight::Unreadable(_), _) => Resolution::Unchecked,
        }
    }

    /// What becomes of a reference to a file of somebody else's. `is_wanted`: a bundle has the path, too.
    fn by_effect(&self, reference: &str, judged: &Judged, is_wanted: bool) -> Resolution {
        let (reason, what) = match judged.effect {
            Effect::Confined => return Resolution::Resolved,
            Effect::Weakened => {
                (PodReason::ProfileUnsafe, "would confine the container by less than it says")
            }
            Effect::Unconfined => (PodReason::ProfileUnsafe, "would leave the container unconfined"),
            Effect::Unusable => (PodReason::ProfileInvalid, "is one that no runtime starts a container with"),
        };
        let why = match judged.diagnostics.first() {
            Some(first) if judged.effect != Effect::Weakened => finding(first),
            _ => "it is written for Docker or Podman, and containerd drops archMap, includes, excludes, name, errno, \
                  defaultErrno, and keys that stand twice; publish it in a bundle, which is resolved for each node, and \
                  move it away here"
                .to_owned(),
        };
        let place = self.place(Kind::Seccomp, reference);
        let is_told = judged.effect == Effect::Weakened;
        let whose =
            if is_wanted && !is_told { ", and keeps the bundle's profile out: move it away" } else { "" };
        Problem::found(reason, &format!("{place} is somebody else's, and {what}: {why}{whose}"))
    }

    /// A file of ours that somebody changed, at a path that pods refer to.
    fn changed_file(&self, reference: &str, file: &File, what: &str, now: Time) -> Resolution {
        let is_about_to_be_right = file.missing().is_some() && file.blocked_until(now).is_none();
        if is_about_to_be_right && !file.pace.is_failing {
            return Resolution::Pending;
        }
        let why = match &file.want {
            _ if file.pace.is_failing => format!("putting it back failed, {SEE_LOG}"),
            Want::Nothing { .. } => "no bundle asks for it any more, so it is not put back".to_owned(),
            Want::Refused if file.missing().is_none() => {
                "its newest text is refused, and no copy of the one before is left: correct the bundle"
                    .to_owned()
            }
            Want::Refused | Want::Document(_) => AGAIN_AND_AGAIN.to_owned(),
        };
        let place = self.place(Kind::Seccomp, reference);
        Problem::found(PodReason::ProfileChanged, &format!("{place} was changed by somebody: {what}; {why}"))
    }

    fn resolve_policy(&self, reference: &str, now: Time) -> Resolution {
        // A kernel can have other names from somebody else, and is not asked for them.
        let Some(name) = policy_name(reference) else { return Resolution::Unchecked };
        let profile = self.policies.profiles.get(&name);
        if profile.is_some_and(KernelProfile::is_loaded) {
            return Resolution::Resolved;
        }
        let mode = match self.known.policies.get(&name) {
            None => return Resolution::Pending,
            Some(None | Some(PolicySight::Present(None))) => return Resolution::Unchecked,
            Some(Some(PolicySight::Absent)) => return self.absent_policy(&name, profile, now),
            Some(Some(PolicySight::Present(Some(mode)))) => *mode,
        };
        if let Some(owned) = profile.filter(|profile| profile.is_owned && !profile.is_foreign()) {
            return self.changed_policy(&name, owned, now);
        }
        let what = match mode {
            Mode::Enforce | Mode::Kill | Mode::User => return Resolution::Resolved,
            Mode::Complain => "is in complain mode: what it does not allow is only logged",
            Mode::Unconfined => "has the flag unconfined: it restricts nothing",
        };
        let place = self.place(Kind::AppArmor, reference);
        let is_wanted = profile.is_some_and(KernelProfile::is_claimed);
        let whose = if is_wanted { "; it keeps the bundle's profile of that name out" } else { "" };
        Problem::found(PodReason::ProfileUnsafe, &format!("{place} is somebody else's, and {what}{whose}"))
    }

    /// A profile of ours that somebody replaced, to which pods refer.
    fn changed_policy(&self, name: &ProfileName, profile: &KernelProfile, now: Time) -> Resolution {
        let why = if profile.pace.is_failing {
            format!("loading it again failed, {SEE_LOG}")
        } else if !profile.is_claimed() {
            "no bundle asks for it any more, so it is not put back".to_owned()
        } else if let Some(beside) = self.beside(name, profile) {
            format!("the bundle has it {beside}")
        } else if profile.pace.blocked_until(now).is_none() {
            return Resolution::Pending;
        } else {
            AGAIN_AND_AGAIN.to_owned()
        };
        let place = self.place(Kind::AppArmor, name.as_str());
        let message =
            format!("{place} was changed by somebody: the kernel has another one of that name; {why}");
        Problem::found(PodReason::ProfileChanged, &message)
    }

    /// What is at `reference`, as the beginning of a sentence.
    fn place(&self, kind: Kind, reference: &str) -> String {
        format!("the {} profile {} on {}", word(kind), shown(reference), self.node())
    }

    /// This node, as messages call it.
    fn node(&self) -> &str {
        self.config.node.as_ref().map_or("this node", |node| node.as_str())
    }

    fn absent(&self, kind: Kind, reference: &str, cause: &str) -> Resolution {
        let message =
            format!("the {} profile {} is not on {}: {cause}", word(kind), shown(reference), self.node());
        Problem::found(PodReason::ProfileMissing, &message)
    }
}

/// Why something is not put right that could be.
const AGAIN_AND_AGAIN: &str =
    "it is put back once a minute at most, as that happens again and again: find out who does it";

/// The AppArmor profile that `reference` means, if it is one that this agent could have loaded, or asks for.
/// What containerd drops of what the pod says is no part of it any more ([`crate::pod::LOCALHOST`]).
pub(crate) fn policy_name(reference: &str) -> Option<ProfileName> {
    ProfileName::new(reference).ok()
}

/// What the kind is called in a sentence.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Seccomp => "seccomp",
        Kind::AppArmor => "AppArmor",
    }
}

/// What a pod says, as far as it can be seen.
fn shown(reference: &str) -> String {
    cut(&visible(cut(reference, SHOWN)), SHOWN)
}

/// A finding, within a message.
fn finding(finding: &Diagnostic) -> String {
    cut(&format!("{}: {}; {}", finding.code, finding.message, finding.help), 400)
}

fn bounded(message: &str) -> String {
    statement::cut(message, LONGEST)
}
