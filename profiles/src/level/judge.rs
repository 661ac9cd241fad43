//! What of a pod is below a level, in the words that an API server says to whoever makes it.
//!
//! Invariants: all containers are judged, however many there are, if the pod was read as a whole
//! ([`Limits::NONE`](crate::pod::Limits::NONE)). Problems come in the order of the containers, and follow from
//! the pod, the level and the catalog alone.

use crate::bundle::Kind;
use crate::catalog::object::ProfileCatalog;
use crate::findings::cut;
use crate::level::Level;
use crate::pod::{Asked, Container, ContainerKind, Pod};

/// So many problems are in a message.
const TOLD: usize = 8;
/// How much of a reference is shown, in characters.
const SHOWN: usize = 100;

/// What is below its level.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The level.
    pub level: Level,
    /// In words, what is wrong. There is one at least.
    pub problems: Vec<String>,
}

/// What is judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// A pod.
    Pod,
    /// What pods are made by: nothing happens until they are.
    Template,
}

impl Violation {
    /// All of it, in one line, as the API server says it.
    #[must_use]
    pub fn message(&self, subject: Subject) -> String {
        let violates = match subject {
            Subject::Pod => "violates",
            Subject::Template => "would violate",
        };
        let told = self.problems.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more = match self.problems.len().saturating_sub(TOLD) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{violates} \"{}\": {told}{more}", self.level)
    }
}

impl Level {
    /// What of `pod` is below it; none if nothing is.
    #[must_use]
    pub fn violation(self, pod: &Pod, catalog: &ProfileCatalog) -> Option<Violation> {
        let of = |container: &Container| self.problems(container, catalog);
        let problems: Vec<String> = pod.containers.iter().flat_map(of).collect();
        (!problems.is_empty()).then_some(Violation { level: self, problems })
    }

    fn problems(self, container: &Container, catalog: &ProfileCatalog) -> Vec<String> {
        let confinement = || {
            let privileged = container.is_privileged.then(|| "securityContext.privileged is true".to_owned());
            let unconfined = container.apparmor == Asked::Unconfined;
            let apparmor = unconfined.then(|| "appArmorProfile.type is Unconfined".to_owned());
            [privileged, self.seccomp(&container.seccomp), apparmor]
        };
        let unknown = || {
            [Kind::Seccomp, Kind::AppArmor].map(|kind| {
                let reference = container.localhost(kind)?;
                let field = match kind {
                    Kind::Seccomp => "seccompProfile",
                    Kind::AppArmor => "appArmorProfile",
                };
                (!catalog.is_known(kind, reference))
                    .then(|| format!("{field}.localhostProfile {} is in no bundle", shown(reference)))
            })
        };
        let confinement = self.asks_for_confinement().then(confinement).into_iter().flatten();
        let unknown = self.asks_what_is_known().then(unknown).into_iter().flatten();
        let who = who(container);
        confinement.chain(unknown).flatten().map(|what| format!("{who}: {what}")).collect()
    }

    /// What is wrong with this seccomp profile, where the level asks for one.
    fn seccomp(self, asked: &Asked) -> Option<String> {
        let kind = match asked {
            Asked::Localhost(_) => return None,
            Asked::RuntimeDefault if self == Self::Confined => return None,
            Asked::Nothing => return Some("seccompProfile.type is not set".to_owned()),
            Asked::RuntimeDefault => "RuntimeDefault",
            Asked::Unconfined => "Unconfined",
            Asked::Unknown(kind) if kind.is_empty() => {
                return Some("seccompProfile.type is not set".to_owned());
            }
            Asked::Unknown(kind) => kind,
        };
        Some(format!("seccompProfile.type is {kind}"))
    }
}

/// A reference, in a message that has to be one line: the API server drops others.
fn shown(reference: &str) -> String {
    cut(reference, SHOWN).replace('\n', " ")
}

/// Which container it is.
fn who(container: &Container) -> String {
    let kind = match container.kind {
        ContainerKind::Init | ContainerKind::Sidecar => "init container",
        ContainerKind::Regular => "container",
        ContainerKind::Ephemeral => "ephemeral container",
    };
    format!("{kind} {}", container.name)
}
