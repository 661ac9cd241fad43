//! What of the `spec` of a pod matters that may have no Node yet: read once, and nothing else of it.
//!
//! Invariant: what comes out is what [`Spec`] and [`Constraints`] would have read, each for itself. A field
//! that neither of them has is skipped while it is read, and takes no memory.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Affinity, Constraints};
use crate::pod::{ContainerSpec, Limits, Os, Pod, SecurityContext, Spec, Status, ours};

/// What matters of the `spec` of a pod that may wait for a Node, as the API has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Unscheduled {
    security_context: Option<SecurityContext>,
    init_containers: Option<Vec<ContainerSpec>>,
    containers: Option<Vec<ContainerSpec>>,
    ephemeral_containers: Option<Vec<ContainerSpec>>,
    runtime_class_name: Option<String>,
    os: Option<Os>,
    node_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<Affinity>,
    scheduling_gates: Option<Vec<IgnoredAny>>,
}

impl Unscheduled {
    /// Whether the scheduler looks for a Node: it has none, and nothing holds it up.
    #[must_use]
    pub fn waits(&self) -> bool {
        let is_held_up = self.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let has_node = self.node_name.as_ref().is_some_and(|name| !name.is_empty());
        !is_held_up && !has_node
    }

    /// What matters of the pod with these annotations and `status`, as far as it is within the limits of an
    /// agent.
    #[must_use]
    pub fn read(self, annotations: &BTreeMap<String, String>, status: Option<&Status>) -> (Pod, Constraints) {
        let Self { node_name, node_selector, affinity, .. } = self;
        let constraints = Constraints { node_name, node_selector, affinity };
        let mut spec = Spec::default();
        spec.security_context = self.security_context;
        spec.init_containers = self.init_containers;
        spec.containers = self.containers;
        spec.ephemeral_containers = self.ephemeral_containers;
        spec.runtime_class_name = self.runtime_class_name;
        spec.os = self.os;
        let pod = Pod::within(Limits::BOUNDED, annotations, &spec, status);
        (Pod { selects: ours(constraints.selected()), ..pod }, constraints)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn it_is_read_as_its_parts_are() {
        let asks = |key: &str, operator: &str| json!({"key": key, "operator": operator, "values": ["true"]});
        let spec = json!({
            "nodeSelector": {"seccomp.pavise.dev/web_a": "true", "pool": "a"},
            "affinity": {"podAffinity": {}, "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [asks("bundle.pavise.dev/b", "In"), asks("bundle.pavise.dev/c", "NotIn")]},
                    {"matchExpressions": [asks("bundle.pavise.dev/d", "Exists")]},
                ]},
            }},
            "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "web/a"}},
            "initContainers": [{"name": "i", "restartPolicy": "Always"}],
            "containers": [{"name": "c", "securityContext": {"privileged": true}}],
            "ephemeralContainers": [{"name": "e"}],
            "runtimeClassName": "kata",
            "os": {"name": "windows"},
        });
        let none = BTreeMap::new();
        let expected = Pod::of(&none, &from_value(spec.clone()).unwrap(), None);
        assert_eq!((expected.containers.len(), expected.selects.len()), (3, 3));
        let constraints: Constraints = from_value(spec.clone()).unwrap();
        let read = from_value::<Unscheduled>(spec).unwrap().read(&none, None);
        assert_eq!(read.0, expected);
        assert_eq!(format!("{:?}", read.1), format!("{constraints:?}"));
    }
}
