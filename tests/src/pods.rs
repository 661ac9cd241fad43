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
