//! What a pod refers to, by what the API has of it.
//!
//! Invariant: a profile counts as referred to exactly if the kubelet may start a container of the pod with it,
//! by the kubelet's own precedence (`GetProfile` in Kubernetes' pkg/security/apparmor/helpers.go). Whatever
//! else is in a pod can neither hide nor add a reference.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Asked, Container, ContainerKind, Pod};
use crate::apparmor::name::ProfileName;

/// How many containers of one pod are looked at. A pod can have thousands, each with another reference, and its
/// author must not decide how much memory that takes here. Those beyond are the pod's own loss: no profile is
/// removed while a process runs under it, whatever refers to it.
pub const MOST: usize = 64;

/// Where the author of a pod for Kubernetes before 1.30 says the profile of the container whose name follows
/// (`DeprecatedAppArmorBetaContainerAnnotationKeyPrefix`). The API server copies it into a field, but nobody
/// does that for static pods.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What stands before a reference in an annotation.
const LOCALHOST: &str = "localhost/";

/// What matters of a pod's `spec`, as the API has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    security_context: Option<SecurityContext>,
    init_containers: Option<Vec<ContainerSpec>>,
    containers: Option<Vec<ContainerSpec>>,
    ephemeral_containers: Option<Vec<ContainerSpec>>,
}

/// What matters of a pod's `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    phase: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerSpec {
    name: String,
    security_context: Option<SecurityContext>,
}

/// Of a pod or a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SecurityContext {
    app_armor_profile: Option<Setting>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Setting {
    r#type: String,
    localhost_profile: Option<String>,
}

impl Pod {
    /// What matters of the pod with these annotations, `spec` and `status`. Of what can't be the
    /// [`ProfileName`] of an AppArmor profile, nothing is kept.
    #[must_use]
    pub fn of(annotations: &BTreeMap<String, String>, spec: &Spec, status: Option<&Status>) -> Self {
        let of_pod = setting(spec.security_context.as_ref());
        let lists = [
            (ContainerKind::Init, &spec.init_containers),
            (ContainerKind::Regular, &spec.containers),
            (ContainerKind::Ephemeral, &spec.ephemeral_containers),
        ];
        let all =
            lists.into_iter().flat_map(|(kind, list)| list.iter().flatten().map(move |one| (kind, one)));
        let mut pod = Self { has_ended: status.is_some_and(Status::is_terminal), ..Self::default() };
        for (kind, container) in all {
            if pod.containers.len() == MOST {
                pod.unchecked += 1;
                continue;
            }
            let of_container = setting(container.security_context.as_ref());
            let annotated = || annotation(annotations, &container.name);
            let effective = of_container.or_else(annotated).or(of_pod);
            // containerd drops it (`GenerateApparmorSpecOpts` in internal/cri/sputil/apparmor_linux.go).
            let effective = effective.map(|name| name.strip_prefix(LOCALHOST).unwrap_or(name));
            let name = effective.filter(|name| ProfileName::new(name).is_ok());
            pod.containers.push(Container {
                name: container.name.clone(),
                kind,
                is_privileged: false,
                seccomp: Asked::Nothing,
                apparmor: name.map_or(Asked::Nothing, |name| Asked::Localhost(name.to_owned())),
                running: None,
            });
        }
        pod
    }
}

impl Status {
    /// Whether no container of the pod runs any more, nor will one again.
    fn is_terminal(&self) -> bool {
        matches!(self.phase.as_deref(), Some("Succeeded" | "Failed"))
    }
}

/// The reference that a field has: an empty one if it asks for no profile of the node, none if it is not
/// there. The kubelet starts no container with a type that it does not know.
fn setting(context: Option<&SecurityContext>) -> Option<&str> {
    let setting = context?.app_armor_profile.as_ref()?;
    let reference = setting.localhost_profile.as_deref().filter(|_| setting.r#type == "Localhost");
    Some(reference.unwrap_or_default())
}

/// The same of the annotation for `container`. One that means nothing counts as none.
fn annotation<'a>(annotations: &'a BTreeMap<String, String>, container: &str) -> Option<&'a str> {
    match annotations.get(&format!("{ANNOTATION}{container}"))?.as_str() {
        "runtime/default" | "unconfined" => Some(""),
        text => text.strip_prefix(LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, from_value, json};

    use super::*;

    fn references(annotations: &Value, spec: Value, status: Value) -> Vec<String> {
        let annotations = from_value(annotations.clone()).unwrap();
        let status: Option<Status> = from_value(status).unwrap();
        let spec = from_value(spec).unwrap();
        let pod = Pod::of(&annotations, &spec, status.as_ref());
        let all = pod.containers.iter().filter_map(|container| match &container.apparmor {
            Asked::Localhost(name) if !pod.has_ended => Some(name.clone()),
            _ => None,
        });
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn localhost(name: &str) -> Value {
        json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": name}})
    }

    fn of_type(kind: &str) -> Value {
        json!({"appArmorProfile": {"type": kind}})
    }

    /// Claims what a pod with one container `c` refers to, by what it, the annotation for it, and the pod say.
    fn check(container: &Value, annotation: Option<&str>, pod: &Value, expected: &[&str]) {
        let annotations = match annotation {
            Some(text) => {
                json!({format!("{ANNOTATION}c"): text, format!("{ANNOTATION}other"): "localhost/x"})
            }
            None => json!({}),
        };
        let spec =
            json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": container}]});
        assert_eq!(references(&annotations, spec.clone(), Value::Null), expected, "{annotations} {spec}");
    }

    #[test]
    fn the_container_s_field_goes_before_the_annotation_and_that_before_the_pod_s_field() {
        let none = Value::Null;
        let (of_container, of_pod) = (localhost("container"), localhost("pod"));
        check(&of_container, Some("localhost/annotation"), &of_pod, &["container"]);
        check(&none, Some("localhost/annotation"), &of_pod, &["annotation"]);
        check(&json!({"appArmorProfile": null}), None, &of_pod, &["pod"]);
        check(&json!({"runAsUser": 0}), None, &of_pod, &["pod"]);
        check(&of_container, None, &none, &["container"]);
        check(&none, None, &json!({}), &[]);
        check(&none, None, &none, &[]);
    }

    #[test]
    fn what_asks_for_another_kind_of_profile_goes_before_a_reference_too() {
        for kind in ["RuntimeDefault", "Unconfined", "FromTheFuture", ""] {
            check(&of_type(kind), Some("localhost/annotation"), &localhost("pod"), &[]);
        }
        for text in ["runtime/default", "unconfined"] {
            check(&Value::Null, Some(text), &localhost("pod"), &[]);
        }
        let mixed = json!({"appArmorProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}});
        check(&mixed, None, &localhost("pod"), &[]);
    }

    #[test]
    fn an_annotation_that_means_nothing_counts_as_none() {
        for text in ["", "docker/default", "Localhost/x", "localhost", "runtime/default "] {
            check(&Value::Null, Some(text), &localhost("pod"), &["pod"]);
        }
    }

    #[test]
    fn what_can_t_be_the_name_of_a_profile_is_no_reference() {
        for name in ["", " ", "/usr/bin/x", ":ns:x", "a b", &"n".repeat(4_095)] {
            check(&localhost(name), None, &localhost("pod"), &[]);
            check(&Value::Null, Some(&format!("localhost/{name}")), &localhost("pod"), &[]);
        }
        check(&of_type("Localhost"), None, &localhost("pod"), &[]);
        check(&Value::Null, Some("localhost/a/b"), &Value::Null, &["a/b"]);
    }

    #[test]
    fn what_containerd_drops_of_a_reference_is_no_part_of_it() {
        check(&localhost("localhost/a"), None, &Value::Null, &["a"]);
        check(&Value::Null, Some("localhost/localhost/a"), &Value::Null, &["a"]);
        check(&localhost("localhost/localhost/a"), None, &Value::Null, &["localhost/a"]);
        check(&localhost("localhost/"), None, &localhost("pod"), &[]);
        check(&localhost("localhost"), None, &Value::Null, &["localhost"]);
    }

    #[test]
    fn containers_of_all_kinds_refer() {
        let spec = json!({
            "initContainers": [
                {"name": "i", "securityContext": localhost("init")},
                {"name": "s", "restartPolicy": "Always", "securityContext": localhost("sidecar")},
            ],
            "containers": [{"name": "c", "securityContext": localhost("twice")}, {"name": "annotated"}],
            "ephemeralContainers": [
                {"name": "e", "securityContext": localhost("ephemeral")},
                {"name": "f", "securityContext": localhost("twice")},
            ],
        });
        let annotations = json!({format!("{ANNOTATION}annotated"): "localhost/annotation"});
        let expected = ["annotation", "ephemeral", "init", "sidecar", "twice"];
        assert_eq!(references(&annotations, spec, Value::Null), expected);
    }

    #[test]
    fn the_pod_s_field_counts_only_where_a_container_has_no_other() {
        let other = |name: &str| json!({"name": name, "securityContext": of_type("Unconfined")});
        let spec = |containers: Value| json!({"securityContext": localhost("pod"), "containers": containers});
        let check = |containers: Value, expected: &[&str]| {
            assert_eq!(references(&json!({}), spec(containers), Value::Null), expected);
        };
        check(json!([other("a"), other("b")]), &[]);
        check(json!([other("a"), {"name": "b"}]), &["pod"]);
        check(Value::Null, &[]);
    }

    #[test]
    fn a_pod_that_has_ended_refers_to_nothing() {
        let check = |phase: Value, expected: &[&str]| {
            let spec = json!({"containers": [{"name": "c", "securityContext": localhost("p")}]});
            assert_eq!(references(&json!({}), spec, phase), expected);
        };
        for phase in ["Succeeded", "Failed"] {
            check(json!({"phase": phase}), &[]);
        }
        for phase in ["Pending", "Running", "Unknown", "FromTheFuture", ""] {
            check(json!({"phase": phase}), &["p"]);
        }
        check(json!({"phase": null}), &["p"]);
        check(json!({}), &["p"]);
    }

    #[test]
    fn a_pod_with_very_many_references_takes_little_memory() {
        let container =
            |n: usize| json!({"name": format!("c{n}"), "securityContext": localhost(&n.to_string())});
        let containers: Vec<Value> = (0..MOST + 10).map(container).collect();
        assert_eq!(references(&json!({}), json!({"containers": containers}), Value::Null).len(), MOST);
    }
}
