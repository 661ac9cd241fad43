//! What a pod asks for, by what the API has of it.
//!
//! Invariant: a profile counts as asked for exactly if the kubelet may start a container of the pod with it,
//! by the kubelet's own precedence (`GetProfile` in Kubernetes' pkg/security/apparmor/helpers.go for
//! AppArmor, `getSeccompProfile` in pkg/kubelet/kuberuntime/helpers.go for seccomp). Whatever else is in a
//! pod can neither hide nor add a reference. What is kept of one pod is bounded, whatever its author wrote,
//! but for whoever asks for all of it ([`Limits`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Asked, Container, ContainerId, ContainerKind, Pod};
use crate::label::LabelKey;

/// How many containers of one pod are looked at. A pod can have thousands, each with another reference, and
/// its author must not decide how much memory that takes here. Those beyond are the pod's own loss: no
/// AppArmor profile is removed while a process runs under it, whatever refers to it.
pub const MOST: usize = 64;

/// How many bytes of names and references are kept of one pod. Containers for which there is no room are not
/// looked at either.
const MOST_BYTES: usize = 16 * 1024;

/// How much is kept of one pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    containers: usize,
    bytes: usize,
}

impl Limits {
    /// What an agent keeps, which runs for months, of pods of any authors.
    pub const BOUNDED: Self = Self { containers: MOST, bytes: MOST_BYTES };
    /// All containers: of a pod that is to be allowed or not, each counts.
    pub const NONE: Self = Self { containers: usize::MAX, bytes: usize::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self::BOUNDED
    }
}

/// How many bytes of a reference are kept. No path can be that long (`PATH_MAX`), and of an AppArmor profile
/// the API takes 4,095.
const LONGEST_REFERENCE: usize = 4_096;

/// The same of the type of a profile that this agent does not know.
const LONGEST_TYPE: usize = 64;

/// The longest name of a runtime class that the API takes, and so of any DNS subdomain.
const LONGEST_CLASS: usize = 253;

/// How many labels of ours a pod can select on. It is the loss of a pod with more if one of them goes.
const MOST_SELECTED: usize = 64;

/// The longest key of a label that the API takes: prefix, `/` and name.
const LONGEST_LABEL: usize = 253 + 1 + 63;

/// The longest name of a container that is kept. Runtimes have 64 hex digits.
const LONGEST_ID: usize = 128;

/// Where the author of a pod for Kubernetes before 1.30 says the profile of the container whose name follows
/// (`DeprecatedAppArmorBetaContainerAnnotationKeyPrefix`). The API server copies it into a field, but nobody
/// does that for static pods. Of such annotations for seccomp, kubelets have read none since 1.27.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What stands before a reference in an annotation, and what containerd drops before the name of an AppArmor
/// profile, once (`GenerateApparmorSpecOpts` in `internal/cri/sputil/apparmor_linux.go`).
pub(crate) const LOCALHOST: &str = "localhost/";

/// What `os.name` is of a pod for Windows.
const WINDOWS: &str = "windows";

/// What matters of a pod's `spec`, as the API has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub(crate) security_context: Option<SecurityContext>,
    pub(crate) init_containers: Option<Vec<ContainerSpec>>,
    pub(crate) containers: Option<Vec<ContainerSpec>>,
    pub(crate) ephemeral_containers: Option<Vec<ContainerSpec>>,
    pub(crate) runtime_class_name: Option<String>,
    pub(crate) os: Option<Os>,
    node_selector: Option<BTreeMap<String, Option<String>>>,
    affinity: Option<Affinity>,
}

/// What matters of a pod's `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    phase: Option<String>,
    reason: Option<String>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Os {
    name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerSpec {
    name: Option<String>,
    restart_policy: Option<String>,
    security_context: Option<SecurityContext>,
}

/// Of a pod or a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SecurityContext {
    privileged: Option<bool>,
    seccomp_profile: Option<Setting>,
    app_armor_profile: Option<Setting>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Setting {
    r#type: Option<String>,
    localhost_profile: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeSelector {
    node_selector_terms: Option<Vec<NodeSelectorTerm>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeSelectorTerm {
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Requirement {
    key: Option<String>,
    operator: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: Option<String>,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    state: Option<ContainerState>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<IgnoredAny>,
}

impl Pod {
    /// What matters of the pod with these annotations, `spec` and `status`.
    #[must_use]
    pub fn of(annotations: &BTreeMap<String, String>, spec: &Spec, status: Option<&Status>) -> Self {
        Self::within(Limits::BOUNDED, annotations, spec, status)
    }

    /// The same, as far as it is within `limits`.
    #[must_use]
    pub fn within(
        limits: Limits,
        annotations: &BTreeMap<String, String>,
        spec: &Spec,
        status: Option<&Status>,
    ) -> Self {
        let running = status.map(Status::running).unwrap_or_default();
        let class = spec.runtime_class_name.as_deref().filter(|class| !class.is_empty());
        let mut pod = Self {
            containers: Vec::new(),
            unchecked: 0,
            selects: spec.selects(),
            is_windows: spec.os.as_ref().is_some_and(|os| os.name.as_deref() == Some(WINDOWS)),
            runtime_class: class.map(|class| cut(class, LONGEST_CLASS)),
            is_rejected: status.is_some_and(Status::is_rejected),
            has_ended: status.is_some_and(Status::is_terminal),
        };
        let mut room = limits.bytes;
        for (kind, container) in spec.all_containers() {
            let name = container.name.as_deref().unwrap_or_default();
            let container = (pod.containers.len() < limits.containers).then(|| Container {
                name: name.to_owned(),
                kind,
                is_privileged: container.is_privileged(),
                seccomp: spec.seccomp(container),
                apparmor: spec.apparmor(container, annotations),
                running: running.get(name).cloned(),
            });
            match container.filter(|container| container.size() <= room) {
                Some(container) => {
                    room -= container.size();
                    pod.containers.push(container);
                }
                None => pod.unchecked += 1,
            }
        }
        pod
    }
}

impl Container {
    /// How many bytes of its author's it holds.
    pub(crate) fn size(&self) -> usize {
        let size = |asked: &Asked| match asked {
            Asked::Nothing | Asked::RuntimeDefault | Asked::Unconfined => 0,
            Asked::Localhost(text) | Asked::Unknown(text) => text.len(),
        };
        self.name.len() + size(&self.seccomp) + size(&self.apparmor)
    }
}

impl Spec {
    /// Its containers, in the order in which they are started.
    fn all_containers(&self) -> impl Iterator<Item = (ContainerKind, &ContainerSpec)> {
        let init = self.init_containers.iter().flatten();
        let init = init.map(|container| match container.restart_policy.as_deref() {
            Some("Always") => (ContainerKind::Sidecar, container),
            _ => (ContainerKind::Init, container),
        });
        let regular = self.containers.iter().flatten().map(|container| (ContainerKind::Regular, container));
        let ephemeral = self.ephemeral_containers.iter().flatten();
        init.chain(regular).chain(ephemeral.map(|container| (ContainerKind::Ephemeral, container)))
    }

    /// The seccomp profile of `container`.
    fn seccomp(&self, container: &ContainerSpec) -> Asked {
        let field = |context: &SecurityContext| context.seccomp_profile.as_ref().map(Setting::asked);
        let of_container = container.security_context.as_ref().and_then(field);
        of_container.or_else(|| field(self.security_context.as_ref()?)).unwrap_or_default()
    }

    /// The AppArmor profile of `container`.
    fn apparmor(&self, container: &ContainerSpec, annotations: &BTreeMap<String, String>) -> Asked {
        let field = |context: &SecurityContext| context.app_armor_profile.as_ref().map(Setting::asked);
        let of_container = container.security_context.as_ref().and_then(field);
        let annotated = || annotation(annotations, container.name.as_deref().unwrap_or_default());
        let of_pod = || field(self.security_context.as_ref()?);
        match of_container.or_else(annotated).or_else(of_pod) {
            Some(Asked::Localhost(name)) => {
                let rest = name.strip_prefix(LOCALHOST).map(str::to_owned);
                Asked::Localhost(rest.unwrap_or(name))
            }
            asked => asked.unwrap_or_default(),
        }
    }

    /// The labels of ours that the Node has, or it would be another Node. The terms of an affinity are
    /// alternatives, and labels of all of them count: that another one holds as well today may change
    /// tomorrow, by labels that are not ours, and what counts too much only goes later. `NotIn` and
    /// `DoesNotExist` ask for no label, and no value of ours is a number for `Gt` and `Lt`.
    fn selects(&self) -> BTreeSet<LabelKey> {
        let required =
            self.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()?.required.as_ref());
        let terms = required.and_then(|required| required.node_selector_terms.as_ref()).into_iter().flatten();
        let requirements = terms.flat_map(|term| term.match_expressions.iter().flatten());
        let asking = requirements.filter(|one| matches!(one.operator.as_deref(), Some("In" | "Exists")));
        let of_affinity = asking.filter_map(|requirement| requirement.key.as_deref());
        let of_selector = self.node_selector.iter().flatten().map(|(key, _)| key.as_str());
        ours(of_selector.chain(of_affinity))
    }
}

/// Those of these keys that are labels of ours, as many as count.
pub(crate) fn ours(keys: impl Iterator<Item: AsRef<str>>) -> BTreeSet<LabelKey> {
    let mut selects = BTreeSet::new();
    let short = keys.filter(|key| key.as_ref().len() <= LONGEST_LABEL);
    for label in short.filter_map(|key| LabelKey::observed(key.as_ref())) {
        if selects.len() < MOST_SELECTED {
            selects.insert(label);
        }
    }
    selects
}

impl ContainerSpec {
    fn is_privileged(&self) -> bool {
        self.security_context.as_ref().and_then(|context| context.privileged).unwrap_or_default()
    }
}

impl Status {
    /// Whether no container of the pod runs any more, nor will one again.
    fn is_terminal(&self) -> bool {
        matches!(self.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Whether the kubelet has refused the pod because the node has no AppArmor (`appArmorAdmitHandler` in
    /// Kubernetes' pkg/kubelet/lifecycle/handlers.go).
    fn is_rejected(&self) -> bool {
        self.phase.as_deref() == Some("Failed") && self.reason.as_deref() == Some("AppArmor")
    }

    /// The containers that run, by the names that the pod has for them.
    fn running(&self) -> BTreeMap<&str, ContainerId> {
        let lists =
            [&self.init_container_statuses, &self.container_statuses, &self.ephemeral_container_statuses];
        let running =
            |status: &'_ ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
        let all = lists.into_iter().flat_map(|list| list.iter().flatten()).filter(|status| running(status));
        all.filter_map(|status| {
            Some((status.name.as_deref()?, container_id(status.container_id.as_deref()?)?))
        })
        .collect()
    }
}

impl Setting {
    /// What it asks for. That it has no type is not allowed by any version of the API until now: it may be of
    /// one that is to come. Of a type that it does not know, the kubelet starts no container for AppArmor,
    /// and an unconfined one for seccomp.
    fn asked(&self) -> Asked {
        match self.r#type.as_deref().unwrap_or_default() {
            "RuntimeDefault" => Asked::RuntimeDefault,
            "Unconfined" => Asked::Unconfined,
            "Localhost" => localhost(self.localhost_profile.as_deref().unwrap_or_default()),
            other => Asked::Unknown(cut(other, LONGEST_TYPE)),
        }
    }
}

fn localhost(reference: &str) -> Asked {
    Asked::Localhost(cut(reference, LONGEST_REFERENCE))
}

/// What the annotation for `container` asks for. One that means nothing counts as none.
fn annotation(annotations: &BTreeMap<String, String>, container: &str) -> Option<Asked> {
    match annotations.get(&format!("{ANNOTATION}{container}"))?.as_str() {
        "runtime/default" => Some(Asked::RuntimeDefault),
        "unconfined" => Some(Asked::Unconfined),
        text => text.strip_prefix(LOCALHOST).map(localhost),
    }
}

/// The runtime's name of a container, of `<runtime>://<name>`. It becomes part of paths.
fn container_id(text: &str) -> Option<ContainerId> {
    let (_, id) = text.split_once("://")?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let is_name = !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(is_allowed);
    is_name.then(|| ContainerId(id.to_owned()))
}

/// `text`, or as much of it as fits into `most` bytes.
fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

#[cfg(test)]
mod tests;
