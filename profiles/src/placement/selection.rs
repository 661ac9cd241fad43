//! What a pod has to select on, so that it comes only to Nodes that have its profiles.
//!
//! Invariant: admission policies add the same, in CEL (`manifests/components/place`). What a pod is given here
//! follows from its references and the catalog alone, and not from what Nodes have now.

use std::collections::BTreeSet;

use super::KINDS;
use crate::bundle::Kind;
use crate::catalog::object::{ProfileCatalog, Selection};
use crate::label::LabelKey;
use crate::pod::{ContainerKind, Pod};

impl ProfileCatalog {
    /// The labels that `pod` has to select on. Ephemeral containers come when it has a node already; of
    /// privileged ones, runtimes do not look at the seccomp profile.
    ///
    /// # Errors
    /// The references for which there can be no label: such a pod can't be placed.
    pub fn node_selector<'p>(&self, pod: &'p Pod) -> Result<BTreeSet<LabelKey>, BTreeSet<(Kind, &'p str)>> {
        let (mut labels, mut impossible) = (BTreeSet::new(), BTreeSet::new());
        let placed = pod.containers.iter().filter(|one| one.kind != ContainerKind::Ephemeral);
        for (container, kind) in placed.flat_map(|one| KINDS.map(|kind| (one, kind))) {
            let is_ignored = kind == Kind::Seccomp && container.is_privileged;
            let Some(reference) = container.localhost(kind).filter(|_| !is_ignored) else { continue };
            match self.selection(kind, reference) {
                Selection::Nothing => {}
                Selection::Label(label) => drop(labels.insert(label)),
                Selection::Impossible => drop(impossible.insert((kind, reference))),
            }
        }
        if impossible.is_empty() { Ok(labels) } else { Err(impossible) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::pod::Limits;

    /// Claims which labels a pod with this `spec` has to select on, or, after `!`, what can't be placed.
    fn check(spec: &Value, expected: &str) {
        let catalog: ProfileCatalog = from_value(json!({
            "spec": {"alsoKnown": {"seccomp": ["os/*"], "appArmor": ["os-policy"]}},
            "status": {
                "seccomp": {"web/a": "seccomp.pavise.dev/web_a", "many/a": "bundle.pavise.dev/many"},
                "appArmor": {"deny": "apparmor.pavise.dev/deny"},
            },
        }))
        .unwrap();
        let pod = Pod::within(Limits::NONE, &BTreeMap::new(), &from_value(spec.clone()).unwrap(), None);
        let shown = match catalog.node_selector(&pod) {
            Ok(labels) => labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(references) => {
                let shown = |(kind, reference): &(Kind, &str)| format!("!{kind}:{reference}");
                references.iter().map(shown).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(shown, expected, "{spec}");
    }

    fn container(seccomp: &str, apparmor: &str) -> Value {
        let localhost = |reference: &str| match reference {
            "" => Value::Null,
            some => json!({"type": "Localhost", "localhostProfile": some}),
        };
        let context = json!({"seccompProfile": localhost(seccomp), "appArmorProfile": localhost(apparmor)});
        json!({"name": "c", "securityContext": context})
    }

    #[test]
    fn a_pod_selects_on_the_labels_of_what_its_containers_start_with() {
        check(&json!({"containers": [container("", "")]}), "");
        check(
            &json!({
                "initContainers": [container("web/a", "")],
                "containers": [container("./many//a", "deny"), container("web/a", "localhost/deny")],
                "ephemeralContainers": [container("web/late", "late")],
            }),
            "apparmor.pavise.dev/deny bundle.pavise.dev/many seccomp.pavise.dev/web_a",
        );
        check(&json!({"containers": [container("os/x/y", "os-policy")]}), "");
    }

    #[test]
    fn what_no_bundle_declares_is_selected_on_by_rule() {
        check(
            &json!({"containers": [container("_team/new/b", "new")]}),
            "apparmor.pavise.dev/new team.seccomp.pavise.dev/new_b",
        );
    }

    #[test]
    fn the_seccomp_profile_of_a_privileged_container_does_not_matter() {
        let mut privileged = container("web/a", "deny");
        privileged["securityContext"]["privileged"] = json!(true);
        check(&json!({"containers": [privileged]}), "apparmor.pavise.dev/deny");
    }

    #[test]
    fn what_no_label_can_be_of_can_not_be_placed() {
        check(
            &json!({"containers": [container("web/a", ""), container("../x", "a b")]}),
            "!apparmor:a b !seccomp:../x",
        );
        let long = "k".repeat(64);
        check(
            &json!({"containers": [container(&format!("web/{long}"), &long)]}),
            &format!("!apparmor:{long} !seccomp:web/{long}"),
        );
    }

    #[test]
    fn each_of_a_thousand_containers_counts() {
        let containers: Vec<Value> = (0..1_000).map(|n| container("", &format!("p{n}"))).collect();
        let pod: crate::pod::Spec = from_value(json!({"containers": containers})).unwrap();
        let pod = Pod::within(Limits::NONE, &BTreeMap::new(), &pod, None);
        assert_eq!(ProfileCatalog::default().node_selector(&pod).unwrap().len(), 1_000);
    }
}
