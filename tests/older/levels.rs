//! The component `validate`: pods in namespaces with levels.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use testbed::kubectl::{Kubectl, wait_for};
use testbed::pods::makers;

use crate::{Outcome, Test, try_to_create, try_with};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_namespace_without_levels_takes_all", a_namespace_without_levels_takes_all),
    ("confined_refuses_what_is_not_confined", confined_refuses_what_is_not_confined),
    ("known_refuses_what_no_bundle_declares", known_refuses_what_no_bundle_declares),
    ("localhost_refuses_all_but_profiles_of_bundles", localhost_refuses_all_but_profiles_of_bundles),
    ("who_makes_a_pod_is_warned", who_makes_a_pod_is_warned),
    ("who_makes_what_makes_pods_is_warned", who_makes_what_makes_pods_is_warned),
    ("an_audited_namespace_says_nothing", an_audited_namespace_says_nothing),
    ("an_ephemeral_container_is_judged", an_ephemeral_container_is_judged),
];

/// Namespaces, each with one label of levels.
const NAMESPACES: &[(&str, &str)] = &[
    ("confined", "pavise.dev/enforce=confined"),
    ("known", "pavise.dev/enforce=known"),
    ("localhost", "pavise.dev/enforce=localhost"),
    ("warned", "pavise.dev/warn=confined"),
    ("audited", "pavise.dev/audit=confined"),
    ("free", "example.com/level=none"),
];

/// A profile that the catalog names.
const KNOWN: &str = "web/a.json";

/// What is said of a pod that asks for nothing, after the level.
const UNSET: &str = "container main: seccompProfile.type is not set";

/// How long a change of the catalog may take to count.
const SOON: Duration = Duration::from_secs(10);

/// Makes the namespaces, and says in the catalog's name which profiles there are.
pub(crate) fn set_up(kubectl: &Kubectl) -> anyhow::Result<()> {
    for (name, label) in NAMESPACES {
        kubectl.run(&["create", "namespace", name])?;
        kubectl.run(&["label", "namespace", name, label])?;
        // A controller would make it, and without it there are no pods.
        kubectl.run(&["create", "serviceaccount", "default", "-n", name])?;
    }
    let object = json!({
        "apiVersion": "pavise.dev/v1alpha1",
        "kind": "ProfileCatalog",
        "metadata": {"name": "pavise"},
    });
    // A definition that was accepted just now is not served yet.
    wait_for("the definition of the catalog", SOON, || Ok(kubectl.apply(&object.to_string()).ok()))?;
    let status = json!({"status": {
        "seccomp": {KNOWN: "seccomp.pavise.dev/web_a.json"},
        "appArmor": {"deny-write": "apparmor.pavise.dev/deny-write"},
        "totals": {"seccomp": 1, "appArmor": 1, "omitted": 0},
    }});
    let patch = format!("--patch={status}");
    kubectl
        .run(&["patch", "profilecatalog", "pavise", "--subresource=status", "--type=merge", &patch])
        .map(drop)
}

/// Whether the policies have their parameter.
pub(crate) fn are_enforced(kubectl: &Kubectl) -> anyhow::Result<bool> {
    let unknown = create(kubectl, "known", &localhost("web/b.json"))?;
    let known = create(kubectl, "known", &localhost(KNOWN))?;
    let warned = create(kubectl, "warned", &json!({}))?;
    let in_words = |outcome: &Outcome| outcome.said.contains("violates \"");
    Ok(in_words(&unknown) && known.is_accepted && in_words(&warned))
}

/// Tries to create a pod with this securityContext.
fn create(kubectl: &Kubectl, namespace: &str, context: &Value) -> anyhow::Result<Outcome> {
    try_to_create(kubectl, &pod(namespace, context))
}

fn pod(namespace: &str, context: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", "namespace": namespace},
        "spec": spec(context),
    })
}

fn spec(context: &Value) -> Value {
    json!({"securityContext": context, "containers": [{"name": "main", "image": "pause"}]})
}

fn runtime_default() -> Value {
    json!({"seccompProfile": {"type": "RuntimeDefault"}})
}

fn localhost(reference: &str) -> Value {
    json!({"seccompProfile": {"type": "Localhost", "localhostProfile": reference}})
}

/// Claims that the namespace refuses a pod with this securityContext in these words, or, where there are none,
/// takes it without a word.
fn check(kubectl: &Kubectl, namespace: &str, context: &Value, refusal: &str) -> anyhow::Result<()> {
    let outcome = create(kubectl, namespace, context)?;
    let is_as_expected = match refusal {
        "" => outcome.is_accepted && outcome.said.is_empty(),
        _ => !outcome.is_accepted && outcome.said.contains(&format!("violates \"{namespace}\": {refusal}")),
    };
    ensure!(is_as_expected, "{context} in {namespace}: {refusal:?} was to be said: {outcome:?}");
    Ok(())
}

fn a_namespace_without_levels_takes_all(kubectl: &Kubectl) -> anyhow::Result<()> {
    check(kubectl, "free", &json!({}), "")
}

fn confined_refuses_what_is_not_confined(kubectl: &Kubectl) -> anyhow::Result<()> {
    check(kubectl, "confined", &json!({}), UNSET)?;
    let unconfined = json!({"seccompProfile": {"type": "Unconfined"}});
    check(kubectl, "confined", &unconfined, "container main: seccompProfile.type is Unconfined")?;
    check(kubectl, "confined", &runtime_default(), "")?;
    check(kubectl, "confined", &localhost("web/b.json"), "")
}

fn known_refuses_what_no_bundle_declares(kubectl: &Kubectl) -> anyhow::Result<()> {
    let refusal = "container main: seccompProfile.localhostProfile web/b.json is in no bundle";
    check(kubectl, "known", &localhost("web/b.json"), refusal)?;
    check(kubectl, "known", &localhost(KNOWN), "")?;
    check(kubectl, "known", &json!({}), "")
}

fn localhost_refuses_all_but_profiles_of_bundles(kubectl: &Kubectl) -> anyhow::Result<()> {
    let refusal = "container main: seccompProfile.type is RuntimeDefault";
    check(kubectl, "localhost", &runtime_default(), refusal)?;
    check(kubectl, "localhost", &localhost(KNOWN), "")
}

fn who_makes_a_pod_is_warned(kubectl: &Kubectl) -> anyhow::Result<()> {
    expect_warning(&create(kubectl, "warned", &json!({}))?, &format!("violates \"confined\": {UNSET}"))?;
    check(kubectl, "warned", &runtime_default(), "")
}

fn who_makes_what_makes_pods_is_warned(kubectl: &Kubectl) -> anyhow::Result<()> {
    let made = |namespace: &str, mut maker: Value| {
        maker["metadata"]["namespace"] = json!(namespace);
        try_to_create(kubectl, &maker)
    };
    for maker in makers(&spec(&json!({}))) {
        expect_warning(&made("warned", maker.clone())?, &format!("would violate \"confined\": {UNSET}"))?;
        let outcome = made("confined", maker)?;
        ensure!(outcome.is_accepted && outcome.said.is_empty(), "{outcome:?}");
    }
    for maker in makers(&spec(&runtime_default())) {
        let outcome = made("warned", maker)?;
        ensure!(outcome.is_accepted && outcome.said.is_empty(), "{outcome:?}");
    }
    Ok(())
}

/// Claims that it was done, and the warning given.
fn expect_warning(outcome: &Outcome, warning: &str) -> anyhow::Result<()> {
    let is_warned = outcome.said.starts_with("Warning: ") && outcome.said.contains(warning);
    ensure!(outcome.is_accepted && is_warned, "{warning:?} was to be said: {outcome:?}");
    Ok(())
}

fn an_audited_namespace_says_nothing(kubectl: &Kubectl) -> anyhow::Result<()> {
    check(kubectl, "audited", &json!({}), "")
}

fn an_ephemeral_container_is_judged(kubectl: &Kubectl) -> anyhow::Result<()> {
    // It is added to a pod that there is.
    kubectl.apply(&pod("confined", &runtime_default()).to_string())?;
    let add = |name: &str, profile: &str| {
        let words =
            ["debug", "pod", "-n", "confined", "--image=pause", &format!("--container={name}"), profile];
        try_with(kubectl, &words, "")
    };
    let refused = add("bad", "--profile=sysadmin")?;
    let refusal = "violates \"confined\": ephemeral container bad: securityContext.privileged is true";
    ensure!(
        !refused.is_accepted && refused.said.contains(refusal),
        "{refusal:?} was to be said: {refused:?}"
    );
    let accepted = add("good", "--profile=general")?;
    ensure!(accepted.is_accepted, "{accepted:?}");
    Ok(())
}
