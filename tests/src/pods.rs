//! Bundles and pods for tests and the demonstration, as JSON manifests.

use serde_json::{Value, json};

use crate::HOST_NODE;
use crate::images::BUSYBOX;
use crate::pavise::PROFILES;

/// A ConfigMap with seccomp profiles: keys and JSON texts.
#[must_use]
pub fn bundle(name: &str, profiles: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> =
        profiles.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": PROFILES, "labels": {"pavise.dev/profiles": "seccomp"}},
        "data": data,
    })
}

/// The node selector of pods that are for `node` alone.
#[must_use]
pub fn on(node: &str) -> Value {
    json!({"kubernetes.io/hostname": node})
}

/// An object of each kind that makes pods, whose pods have this spec.
#[must_use]
pub fn makers(spec: &Value) -> Vec<Value> {
    let labels = json!({"example.com/name": "maker"});
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let mut ending = template.clone();
    ending["spec"]["restartPolicy"] = json!("Never");
    let selecting = json!({"selector": {"matchLabels": labels}, "template": template});
    let mut stateful = selecting.clone();
    stateful["serviceName"] = json!("maker");
    let job = json!({"template": ending});
    let of = |(version, kind, field, content): (&str, &str, &str, &Value)| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "maker"}, field: content});
    [
        ("v1", "PodTemplate", "template", &template),
        ("v1", "ReplicationController", "spec", &json!({"selector": labels, "template": template})),
        ("apps/v1", "Deployment", "spec", &selecting),
        ("apps/v1", "DaemonSet", "spec", &selecting),
        ("apps/v1", "ReplicaSet", "spec", &selecting),
        ("apps/v1", "StatefulSet", "spec", &stateful),
        ("batch/v1", "Job", "spec", &job),
        ("batch/v1", "CronJob", "spec", &json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}})),
    ]
    .map(of)
    .into()
}

/// A pod with one busybox container that sleeps under the seccomp profile `reference`, on the host's node.
#[must_use]
pub fn confined_pod(name: &str, reference: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "nodeSelector": on(HOST_NODE),
            "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": reference}},
            "containers": [{
                "name": "main",
                "image": BUSYBOX,
                "command": ["sleep", "86400"],
                "securityContext": {"allowPrivilegeEscalation": false},
            }],
        },
    })
}
