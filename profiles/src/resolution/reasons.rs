//! Why a profile is not there that a pod refers to, the cause that is nearest to a remedy first.

use super::{Problem, Resolution, SEE_LOG, finding, word};
use crate::apparmor::name::ProfileName;
use crate::bundle::{Bundle, BundleId, Document, Kind, Profile};
use crate::claims::{Grant, Slot, Want};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::file::File;
use crate::findings::cut;
use crate::name::ProfileKey;
use crate::pod::LOCALHOST;
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::sight::SeccompPath;
use crate::state::State;
use crate::time::Time;

/// How much of a selector is shown, in characters.
const SELECTOR: usize = 200;
const UNHEARD_OF: &str = "no bundle declares it";
/// Where runtimes want a path from.
const DIRECTORY: &str = "seccomp/";

/// Why there is nothing.
enum Cause {
    /// It is about to be there.
    Pending,
    /// This.
    Known(String),
    /// Nobody knows the name, in these words.
    UnheardOf(String),
}

impl State {
    /// What becomes of a reference to a path where nothing is.
    pub(super) fn absent_file(
        &self,
        reference: &str,
        place: &SeccompPath,
        own: Option<&Reference>,
        file: Option<&File>,
        now: Time,
    ) -> Resolution {
        let cause = match (file, own) {
            (Some(file), _) if file.is_wanted() && file.missing().is_some() => Some(file_to_come(file, now)),
            (_, Some(own)) => self.cause_of_bundle(own),
            (_, None) => None,
        };
        let cause = cause.unwrap_or_else(|| self.other_file(reference, place, own));
        self.ended(Kind::Seccomp, reference, cause)
    }

    /// What becomes of a reference to an AppArmor profile that the kernel does not have.
    pub(super) fn absent_policy(
        &self,
        name: &ProfileName,
        profile: Option<&KernelProfile>,
        now: Time,
    ) -> Resolution {
        let claimed = profile.filter(|profile| profile.is_claimed());
        let cause = claimed.and_then(|profile| self.policy_to_come(name, profile, now));
        let cause = cause.or_else(|| self.cause_of_texts(name)).unwrap_or_else(|| self.other_policy(name));
        self.ended(Kind::AppArmor, name.as_str(), cause)
    }

    /// Why a reference can't mean a file.
    pub(super) fn no_place(&self, reference: &str) -> String {
        let relative = reference.split_once(&format!("/{DIRECTORY}")).map(|(_, rest)| rest);
        match relative.filter(|relative| self.is_file_known(relative)) {
            Some(relative) => format!("a reference is a path below the kubelet's directory seccomp: write {relative}"),
            None => "a reference is a path below the kubelet's directory seccomp, without / in front and without .."
                .to_owned(),
        }
    }

    fn ended(&self, kind: Kind, reference: &str, cause: Cause) -> Resolution {
        let (cause, is_unheard_of) = match cause {
            Cause::Pending => return Resolution::Pending,
            Cause::Known(cause) => (cause, false),
            Cause::UnheardOf(cause) => (cause, true),
        };
        match self.absent(kind, reference, &cause) {
            Resolution::Unresolved(problem) => Resolution::Unresolved(Problem { is_unheard_of, ..problem }),
            other => other,
        }
    }

    /// What the bundle of `own` has to do with it; none if there is no such bundle.
    fn cause_of_bundle(&self, own: &Reference) -> Option<Cause> {
        let bundle = self.bundles.get(&own.bundle_id(&self.config.home))?;
        let id = &bundle.id;
        if let Some(why) = cause_of_whole(bundle, Kind::Seccomp) {
            return Some(why);
        }
        let Some(profile) = bundle.profiles.get(own.key()) else {
            return Some(Cause::UnheardOf(format!("the bundle {id} has no key {}", own.key())));
        };
        Some(match (profile, self.is_here(bundle)) {
            (_, Some(false)) => self.for_other_nodes(bundle),
            (_, None) => undecided(bundle),
            (Profile::Refused(findings), _) => refused(&format!("the bundle {id} has it"), "it", findings),
            (Profile::Accepted(..), Some(true)) => Cause::Pending,
        })
    }

    fn for_other_nodes(&self, bundle: &Bundle) -> Cause {
        let id = &bundle.id;
        let selector = bundle.nodes.as_ref().map(ToString::to_string).unwrap_or_default();
        Cause::Known(format!(
            "the bundle {id} has it for other nodes: its annotation pavise.dev/node-selector, {}, does not match the labels \
             of {}",
            cut(&selector, SELECTOR),
            self.node()
        ))
    }

    /// A reference that no bundle has: what it may be instead.
    fn other_file(&self, reference: &str, place: &SeccompPath, own: Option<&Reference>) -> Cause {
        if let Some(namesake) = own.and_then(|own| self.namesake(own)) {
            let id = namesake.bundle_id(&self.config.home);
            return Cause::Known(format!("no bundle declares it, but {id} has such a key: write {namesake}"));
        }
        let path = place.as_str();
        let inner = path.rsplit_once(DIRECTORY).map(|(_, rest)| rest);
        let without_prefix = reference.strip_prefix(LOCALHOST);
        let forms = [without_prefix, inner];
        if let Some(meant) = forms.into_iter().flatten().find(|form| self.is_file_known(form)) {
            return Cause::Known(format!(
                "a reference is a path below the kubelet's directory seccomp, with nothing before it: write {meant}"
            ));
        }
        let is_policy = super::policy_name(without_prefix.unwrap_or(reference))
            .is_some_and(|name| self.policies.profiles.contains_key(&name));
        if is_policy {
            return Cause::Known("it is an AppArmor profile: refer to it in appArmorProfile".to_owned());
        }
        Cause::UnheardOf(UNHEARD_OF.to_owned())
    }

    /// The reference of the same key of a bundle of the same name, in another namespace.
    fn namesake(&self, own: &Reference) -> Option<Reference> {
        let namesake = |namespace| {
            let id = BundleId { namespace, name: own.bundle().clone() };
            let bundle = self.bundles.get(&id)?;
            let has_it = bundle.kind == Some(Kind::Seccomp) && bundle.profiles.contains_key(own.key());
            has_it.then(|| Reference::new(&self.config.home, &id, own.key().clone()))
        };
        self.config.namespaces().cloned().find_map(namesake)
    }

    /// Whether this is a reference that a bundle has, or that is loaded.
    fn is_file_known(&self, reference: &str) -> bool {
        reference.parse::<Reference>().is_ok_and(|reference| self.files.contains_key(&reference))
    }

    /// What keeps the text of `profile` from being loaded: the name of another profile of it is taken.
    pub(super) fn beside(&self, name: &ProfileName, profile: &KernelProfile) -> Option<String> {
        let text = profile.want().and_then(Want::text)?;
        let mut names = self.policies.accepted(text)?.profiles.keys().filter(|other| *other != name);
        let is_foreign =
            |name: &&ProfileName| self.policies.profiles.get(*name).is_some_and(KernelProfile::is_foreign);
        names.find(is_foreign).map(|foreign| {
            format!(
                "in a text that declares {foreign} as well, which the kernel has from somebody else: none of the text is \
                 loaded before that is removed, or renamed in the bundle"
            )
        })
    }

    /// Why the text that a bundle has for `profile` is not loaded; none if it is not about to be.
    fn policy_to_come(&self, name: &ProfileName, profile: &KernelProfile, now: Time) -> Option<Cause> {
        let slot = profile.slot()?;
        let has_it = format!("the bundle {} has it", slot.bundle);
        let text = match profile.want()? {
            Want::Kept => return None,
            Want::Later(_) => return Some(Cause::Pending),
            Want::Text(text) => text,
        };
        if self.policies.is_refused(text) {
            return Some(refused(&has_it, "it", self.policies.diagnostics(text)));
        }
        if self.policies.is_failing(text) {
            return Some(Cause::Known(format!("{has_it}, and compiling it failed, {SEE_LOG}")));
        }
        if !self.policies.is_accepted(text) {
            return Some(Cause::Pending);
        }
        if profile.pace.is_failing {
            return Some(Cause::Known(format!("{has_it}, and loading it failed, {SEE_LOG}")));
        }
        Some(match self.beside(name, profile) {
            None if profile.is_foreign() => Cause::Pending,
            Some(beside) => Cause::Known(format!("{has_it}, {beside}")),
            None if profile.pace.blocked_until(now).is_some() => Cause::Known(format!(
                "{has_it}, and somebody removed it from the kernel; {}",
                super::AGAIN_AND_AGAIN
            )),
            None => Cause::Pending,
        })
    }

    /// What bundles have to do with an AppArmor profile that none has on this node.
    fn cause_of_texts(&self, name: &ProfileName) -> Option<Cause> {
        let bundles = self.bundles.values().filter(|bundle| bundle.kind == Some(Kind::AppArmor));
        let keys = bundles
            .flat_map(|bundle| bundle.profiles.iter().map(move |(key, profile)| (bundle, key, profile)));
        let causes = keys.filter_map(|(bundle, key, profile)| self.cause_of_text(name, bundle, key, profile));
        causes.min_by_key(|(rank, _)| *rank).map(|(_, cause)| cause)
    }

    /// The same of one key, and how near it is to a remedy: the nearest is 0.
    fn cause_of_text(
        &self,
        name: &ProfileName,
        bundle: &Bundle,
        key: &ProfileKey,
        profile: &Profile,
    ) -> Option<(u8, Cause)> {
        let id = &bundle.id;
        let has_name = |document: &Document| document.names().contains(name);
        let declared = match profile {
            // Nobody knows what it would declare.
            Profile::Refused(findings) => {
                if key.as_str() != name.as_str() || self.is_here(bundle) == Some(false) {
                    return None;
                }
                let who = format!("the key {key} of the bundle {id} may declare it");
                return Some((1, refused(&who, "that key", findings)));
            }
            Profile::Accepted(document, _) => Some(document).filter(|document| has_name(document))?,
        };
        let slot = Slot { bundle: id.clone(), key: key.clone() };
        let cause = match (self.is_here(bundle), self.policies.grants.get(&slot)) {
            (Some(false), _) => return Some((3, self.for_other_nodes(bundle))),
            (None, _) => undecided(bundle),
            (Some(true), Some(Grant::Taken { name: taken, by })) => {
                let message = format!(
                    "the bundle {id} has it in its key {key}, which is refused: the profile {taken} that it declares belongs to the \
                     key {} of {} (profile-taken); rename one of the two",
                    by.key, by.bundle
                );
                return Some((2, Cause::Known(message)));
            }
            (Some(true), _) if self.policies.is_refused(declared.digest()) => refused(
                &format!("the bundle {id} has it"),
                "it",
                self.policies.diagnostics(declared.digest()),
            ),
            (Some(true), _) => Cause::Pending,
        };
        Some((0, cause))
    }

    /// A name that no bundle has: what it may be instead.
    fn other_policy(&self, name: &ProfileName) -> Cause {
        if self.is_file_known(name.as_str()) {
            return Cause::Known("it is a seccomp profile: refer to it in seccompProfile".to_owned());
        }
        Cause::UnheardOf(UNHEARD_OF.to_owned())
    }
}

/// Why a file is not there that is to be.
fn file_to_come(file: &File, now: Time) -> Cause {
    if file.pace.is_failing {
        return Cause::Known(format!("a bundle has it, and writing it failed, {SEE_LOG}"));
    }
    match file.blocked_until(now) {
        Some(_) if file.is_owned => {
            Cause::Known(format!("a bundle has it, and somebody removed it; {}", super::AGAIN_AND_AGAIN))
        }
        _ => Cause::Pending,
    }
}

/// Why nothing of `bundle` can be a profile of `kind`, if that is so.
fn cause_of_whole(bundle: &Bundle, kind: Kind) -> Option<Cause> {
    let id = &bundle.id;
    if !bundle.is_readable() {
        let why = first(&bundle.diagnostics, |finding| {
            matches!(finding.code, Code::Unreadable | Code::TooManyKeys)
        });
        return Some(Cause::Known(format!("the bundle {id} can't be read{why}")));
    }
    match bundle.kind {
        Some(own) if own == kind => None,
        Some(other) => {
            let message =
                format!("the bundle {id} holds {} profiles, and this is a {} one", word(other), word(kind));
            Some(Cause::Known(message))
        }
        None => {
            let why = first(&bundle.diagnostics, |finding| finding.code == Code::UnknownKind);
            Some(Cause::Known(format!("the ConfigMap {id} is no bundle{why}")))
        }
    }
}

/// A bundle of which it is not known whether it is for this node.
fn undecided(bundle: &Bundle) -> Cause {
    if bundle.nodes.is_some() {
        // That is known as soon as the Node is seen.
        return Cause::Pending;
    }
    let id = &bundle.id;
    let why = first(&bundle.diagnostics, |finding| finding.code == Code::InvalidNodeSelector);
    Cause::Known(format!("the bundle {id} has it, and it can't be told for which nodes{why}"))
}

fn refused(who_has_it: &str, what: &str, findings: &[Diagnostic]) -> Cause {
    let why = first(findings, |finding| finding.severity() == Severity::Error);
    Cause::Known(format!("{who_has_it}, and this node refuses {what}{why}"))
}

/// The first such finding, behind a colon.
fn first(findings: &[Diagnostic], is_meant: impl Fn(&&Diagnostic) -> bool) -> String {
    findings.iter().find(is_meant).map(|first| format!(": {}", finding(first))).unwrap_or_default()
}
