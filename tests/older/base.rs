//! The policies of the base, and what the component `place` needs.

use anyhow::ensure;
use testbed::kubectl::Kubectl;
use testbed::pavise::SYSTEM;

use crate::{Test, manifests, try_with};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("the_agent_may_label_its_own_node_alone", the_agent_may_label_its_own_node_alone),
    ("place_needs_mutating_policies", place_needs_mutating_policies),
];

/// A Node that there is, though nothing runs on it.
pub(crate) const NODE: &str = "node";

/// Labels [`NODE`] as the agent of the node called `agent_of` would, and returns what the API server says;
/// nothing if it does it.
fn label(kubectl: &Kubectl, agent_of: &str, label: &str) -> anyhow::Result<String> {
    let agent = format!("--as=system:serviceaccount:{SYSTEM}:pavise-agent");
    // The API server puts that into the token of a pod.
    let claim = format!("--as-user-extra=authentication.kubernetes.io/node-name={agent_of}");
    let words = ["label", "node", NODE, label, "--dry-run=server", &agent, &claim];
    Ok(try_with(kubectl, &words, "")?.said)
}

/// Whether the policy for Nodes is.
pub(crate) fn is_enforced(kubectl: &Kubectl) -> anyhow::Result<bool> {
    Ok(label(kubectl, "other", "seccomp.pavise.dev/a=true")?.contains("own-node.pavise.dev"))
}

fn the_agent_may_label_its_own_node_alone(kubectl: &Kubectl) -> anyhow::Result<()> {
    let check = |agent_of, key, expected: &str| {
        let said = label(kubectl, agent_of, key)?;
        let is_as_expected = if expected.is_empty() { said.is_empty() } else { said.contains(expected) };
        ensure!(is_as_expected, "{key} by the agent of {agent_of}: {expected:?} was to be said: {said}");
        Ok(())
    };
    check(NODE, "seccomp.pavise.dev/a=true", "")?;
    check(NODE, "example.com/a=true", "the agent may change only labels below seccomp.pavise.dev")?;
    check("other", "seccomp.pavise.dev/a=true", "the Node that its token was issued for")
}

/// Nothing else is to be wrong with the component, and this is told by the API server itself.
fn place_needs_mutating_policies(kubectl: &Kubectl) -> anyhow::Result<()> {
    let words = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    let outcome = try_with(kubectl, &words, &manifests(kubectl, "place")?)?;
    let lacking = r#"no matches for kind "MutatingAdmissionPolicy""#;
    ensure!(!outcome.is_accepted && outcome.said.contains(lacking), "{outcome:?} does not say {lacking}");
    Ok(())
}
