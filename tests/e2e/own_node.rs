//! What the agent's token is good for in other hands: each attempt is made with the token that the agent
//! uses, by kubectl from outside.

use std::sync::Arc;

use anyhow::Context as _;
use libtest_mimic::Trial;
use serde_json::{Map, Value, json};
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::command;
use testbed::kubectl::{Kubectl, wait_for};
use testbed::pavise::{self, PROFILES, STARTUP_TAINT, SYSTEM};
use testbed::simulated;

use crate::steps::{PATIENCE, expect_refusal};
use crate::trial;

/// A Node that exists beside the agent's own.
const OTHER_NODE: &str = "other-node";

/// The texts by which to know who refused.
const OTHER: &str = "the agent may change only the Node that its token was issued for";
const LABELS: &str = "the agent may change only labels below";
const METADATA: &str = "the agent may change nothing of a Node's metadata but labels";
const TAINTS: &str = "the agent may change no taint";
const MANAGERS: &str = "the agent may not change who manages what of a Node";
const OTHER_REPORT: &str = "the agent may report only on the Node that its token was issued for";
const REPORT_OWNER: &str = "the owner of a report may only be its Node";
const REPORT_METADATA: &str = "the agent may set no finalizer, label or annotation of a report";
const SPEC: &str = "the agent may change nothing of a Node's spec";
const REPORTER: &str = "the agent may write Events only as pavise.dev/agent, and for the Node that its token";
const PODS: &str = "the agent may write Events only about pods";
const REASONS: &str = "the agent may write Events only for what it finds";
const NAME_ONLY: &str = "the agent may write Events only with a name";
const RBAC: &str = "is forbidden: User \"system:serviceaccount:pavise-system:pavise-agent\" cannot";

/// An attempt, by the name that its test has.
struct Attempt {
    name: &'static str,
    kubectl: &'static [&'static str],
    /// What the refusal says.
    refusal: &'static str,
}

const fn attempt(name: &'static str, kubectl: &'static [&'static str], refusal: &'static str) -> Attempt {
    Attempt { name, kubectl, refusal }
}

const ATTEMPTS: &[Attempt] = &[
    attempt("label_another_node", &["label", "node", OTHER_NODE, "seccomp.pavise.dev/p_x.json=true"], OTHER),
    attempt("set_a_foreign_label", &["label", "node", HOST_NODE, "example.com/pool=secure"], LABELS),
    attempt(
        "set_a_label_that_only_looks_like_ours",
        &["label", "node", HOST_NODE, "seccomp.pavise.dev.example.com/p_x.json=true"],
        LABELS,
    ),
    attempt(
        "set_a_role_label",
        &["label", "node", HOST_NODE, "node-role.kubernetes.io/control-plane="],
        LABELS,
    ),
    attempt(
        "change_a_foreign_label",
        &["label", "--overwrite", "node", HOST_NODE, "kubernetes.io/arch=s390x"],
        LABELS,
    ),
    attempt("remove_a_foreign_label", &["label", "node", HOST_NODE, "kubernetes.io/os-"], LABELS),
    attempt("taint", &["taint", "node", HOST_NODE, "example.com/mine=1:NoSchedule"], TAINTS),
    attempt(
        "set_its_own_startup_taint",
        &["taint", "node", HOST_NODE, "pavise.dev/not-ready=1:NoSchedule"],
        TAINTS,
    ),
    attempt("annotate", &["annotate", "node", HOST_NODE, "example.com/a=b"], METADATA),
    attempt(
        "cordon",
        &["patch", "node", HOST_NODE, "--type=merge", "-p", r#"{"spec":{"unschedulable":true}}"#],
        SPEC,
    ),
    attempt(
        "set_a_provider_id",
        &["patch", "node", HOST_NODE, "--type=merge", "-p", r#"{"spec":{"providerID":"x://y"}}"#],
        SPEC,
    ),
    attempt(
        "set_an_owner",
        &[
            "patch",
            "node",
            HOST_NODE,
            "--type=merge",
            "-p",
            r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"1"}]}}"#,
        ],
        METADATA,
    ),
    attempt(
        "set_a_finalizer",
        &[
            "patch",
            "node",
            HOST_NODE,
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":["example.com/f"]}}"#,
        ],
        METADATA,
    ),
    attempt(
        "have_somebody_else_remove_labels",
        &[
            "patch",
            "node",
            HOST_NODE,
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/metadata/managedFields/-","value":{"manager":"fleet","operation":"Apply","apiVersion":"v1",
                "time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{"f:kubernetes.io/os":{}}}}}}]"#,
        ],
        MANAGERS,
    ),
    attempt(
        "forget_who_manages_what",
        &["patch", "node", HOST_NODE, "--type=merge", "-p", r#"{"metadata":{"managedFields":[{}]}}"#],
        MANAGERS,
    ),
    attempt(
        "change_a_status",
        &[
            "patch",
            "node",
            HOST_NODE,
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"phase":"x"}}"#,
        ],
        RBAC,
    ),
    attempt(
        "report_on_another_node",
        &["patch", "npr", OTHER_NODE, "--type=merge", "-p", r#"{"status":{"totals":{"problems":0}}}"#],
        OTHER_REPORT,
    ),
    attempt(
        "have_its_report_belong_to_something_else",
        &[
            "patch",
            "npr",
            HOST_NODE,
            "--type=merge",
            "-p",
            r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"1"}]}}"#,
        ],
        REPORT_OWNER,
    ),
    attempt(
        "keep_its_report_from_being_deleted",
        &[
            "patch",
            "npr",
            HOST_NODE,
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":["example.com/f"]}}"#,
        ],
        REPORT_METADATA,
    ),
    attempt("label_its_report", &["label", "npr", HOST_NODE, "example.com/a=b"], REPORT_METADATA),
    attempt("delete_a_report", &["delete", "npr", HOST_NODE], RBAC),
    attempt("list_reports", &["get", "npr"], RBAC),
    attempt("delete_a_node", &["delete", "node", OTHER_NODE], RBAC),
    attempt("delete_an_event", &["delete", EVENTS, "somebodys"], RBAC),
    attempt("delete_all_events", &["delete", EVENTS, "--all", "-n", SYSTEM], RBAC),
    attempt("read_events", &["get", EVENTS, "-A"], RBAC),
    attempt("read_secrets", &["get", "secrets", "-n", SYSTEM], RBAC),
    attempt("read_secrets_everywhere", &["get", "secrets", "-A"], RBAC),
    attempt("read_config_maps_elsewhere", &["get", "configmaps", "-n", "kube-system"], RBAC),
    attempt("read_config_maps_of_its_own_namespace", &["get", "configmaps", "-n", SYSTEM], RBAC),
    attempt("read_config_maps_everywhere", &["get", "configmaps", "-A"], RBAC),
    attempt("write_bundles", &["create", "configmap", "mine", "-n", PROFILES], RBAC),
    attempt("delete_bundles", &["delete", "configmap", "kube-root-ca.crt", "-n", PROFILES], RBAC),
    attempt("create_pods", &["run", "mine", "--image=x", "-n", SYSTEM], RBAC),
    attempt("make_tokens", &["create", "token", "pavise-agent", "-n", SYSTEM], RBAC),
    attempt("change_its_policy", &["delete", "validatingadmissionpolicy", "own-node.pavise.dev"], RBAC),
];

/// Events as the agent writes them.
const EVENTS: &str = "events.v1.events.k8s.io";

/// An attempt to write an Event that differs in this from what the agent may write, by the name that its test
/// has.
struct EventAttempt {
    name: &'static str,
    difference: fn() -> Value,
    refusal: &'static str,
}

const EVENT_ATTEMPTS: &[EventAttempt] = &[
    EventAttempt {
        name: "write_an_event_in_another_node_s_name",
        difference: || json!({"reportingInstance": OTHER_NODE}),
        refusal: REPORTER,
    },
    EventAttempt {
        name: "write_an_event_in_the_kubelet_s_name",
        difference: || json!({"reportingController": "kubelet"}),
        refusal: REPORTER,
    },
    EventAttempt {
        name: "write_an_event_about_a_config_map",
        difference: || {
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "name": "stolen"});
            json!({"regarding": map})
        },
        refusal: PODS,
    },
    EventAttempt {
        name: "write_an_event_with_a_reason_of_its_own",
        difference: || json!({"reason": "Killing"}),
        refusal: REASONS,
    },
    EventAttempt {
        name: "say_with_a_warning_that_all_is_well",
        difference: || json!({"reason": "ProfilesResolved"}),
        refusal: REASONS,
    },
    EventAttempt {
        name: "write_an_event_that_can_not_be_deleted",
        difference: || json!({"metadata": {"name": "stolen", "namespace": "default", "finalizers": ["example.com/f"]}}),
        refusal: NAME_ONLY,
    },
    // Somebody else's, which is_refused_event makes.
    EventAttempt {
        name: "change_somebody_else_s_event",
        difference: || {
            json!({
                "metadata": {"name": "somebodys", "namespace": "default"},
                "reportingController": "example.com/test",
                "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"},
            })
        },
        refusal: REPORTER,
    },
];

pub(crate) fn trials(cluster: Option<&Arc<Cluster>>) -> Vec<Trial> {
    let attempts = ATTEMPTS.iter().map(|attempt| {
        trial(&format!("a_stolen_token_can_not_{}", attempt.name), cluster, |cluster| {
            is_refused(cluster, attempt)
        })
    });
    let events = EVENT_ATTEMPTS.iter().map(|attempt| {
        trial(&format!("a_stolen_token_can_not_{}", attempt.name), cluster, |cluster| {
            is_refused_event(cluster, attempt)
        })
    });
    let others = [
        trial("a_stolen_token_can_do_what_the_agent_does", cluster, can_do_what_the_agent_does),
        trial("a_stolen_token_can_take_its_startup_taint_away", cluster, can_take_its_startup_taint_away),
        trial("a_token_without_a_node_changes_nothing", cluster, a_token_without_a_node_changes_nothing),
        trial("a_stolen_token_can_not_write_an_event_of_the_core_group", cluster, core_events_are_refused),
    ];
    others.into_iter().chain(attempts).chain(events).collect()
}

fn is_refused(cluster: &Cluster, attempt: &Attempt) -> anyhow::Result<()> {
    let other = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": OTHER_NODE}, "spec": {"unschedulable": true}});
    cluster.kubectl().apply(&other.to_string())?;
    cluster.kubectl().apply(&report_on(OTHER_NODE).to_string())?;
    let kubectl = cluster.kubectl_with_token(&pavise::agent_token(cluster)?);
    expect_refusal(&attempt.kubectl.join(" "), kubectl.run(attempt.kubectl), attempt.refusal)
}

/// What the agent may write, with this difference.
fn event(difference: Value) -> Value {
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "stolen", "namespace": "default"},
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "default",
            "name": "stolen",
            "fieldPath": "spec.containers{c}",
        },
        "type": "Warning",
        "reason": "ProfileMissing",
        "action": "Check",
        "note": "container c: …",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "pavise.dev/agent",
        "reportingInstance": HOST_NODE,
    });
    if let (Value::Object(event), Value::Object(difference)) = (&mut event, difference) {
        event.extend(difference);
    }
    event
}

fn is_refused_event(cluster: &Cluster, attempt: &EventAttempt) -> anyhow::Result<()> {
    let somebodys = json!({
        "metadata": {"name": "somebodys", "namespace": "default"},
        "reportingController": "example.com/test",
    });
    cluster.kubectl().apply(&event(somebodys).to_string())?;
    let kubectl = cluster.kubectl_with_token(&pavise::agent_token(cluster)?);
    let written = kubectl.apply(&event((attempt.difference)()).to_string());
    expect_refusal(attempt.name, written, attempt.refusal)
}

/// With the core group's fields, the same could be said past the policy if it did not see to that; RBAC keeps
/// it from being tried.
fn core_events_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl_with_token(&pavise::agent_token(cluster)?);
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "stolen-core", "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "stolen"},
        "type": "Warning",
        "reason": "ProfileMissing",
        "message": "container c: …",
    });
    expect_refusal("writing an Event of the core group", kubectl.apply(&event.to_string()), RBAC)
}

/// A report of which all is there that has to be.
fn report_on(node: &str) -> Value {
    let counts =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), json!(0))).collect::<Map<_, _>>();
    let mut totals =
        counts(&["bundles", "profilesDesired", "profilesLoaded", "problems", "retained", "unresolved"]);
    totals.insert("profiles".to_owned(), json!("0/0"));
    let what = json!({"architecture": "amd64", "kernel": "6.12", "appArmor": "Disabled", "kubeletSeccompDefault": "Unknown"});
    json!({
        "apiVersion": "pavise.dev/v1alpha1",
        "kind": "NodeProfileReport",
        "metadata": {"name": node},
        "status": {"agent": {"version": "0"}, "node": what, "conditions": [], "totals": totals},
    })
}

/// Without this, a token that is worth nothing at all would pass every other test.
fn can_do_what_the_agent_does(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl_with_token(&pavise::agent_token(cluster)?);
    let somebody_else = cluster.kubectl();
    kubectl.run(&["get", "configmaps", "-n", PROFILES]).context("reading bundles")?;
    kubectl.run(&["get", "node", HOST_NODE]).context("reading its own Node")?;
    let label = |arguments: &[&str]| {
        kubectl.run(&[&["label", "node", HOST_NODE, "--field-manager=pavise"], arguments].concat())
    };
    label(&["team-a.seccomp.pavise.dev/p_x.json=true"]).context("labelling its own Node")?;
    // Labels of ours that somebody else set: alone in its entry of managedFields, and beside one that is not
    // ours.
    somebody_else.run(&[
        "label",
        "node",
        HOST_NODE,
        "seccomp.pavise.dev/p_y.json=1",
        "--field-manager=one",
    ])?;
    somebody_else.run(&[
        "label",
        "node",
        HOST_NODE,
        "seccomp.pavise.dev/p_z.json=1",
        "example.com/beside=a",
        "--field-manager=two",
    ])?;
    label(&["--overwrite", "seccomp.pavise.dev/p_y.json=true", "seccomp.pavise.dev/p_z.json-"])
        .context("putting labels right")?;
    can_write_events(&kubectl)
}

/// On a Node that has no agent: that would be quicker. Who set the taint manages another field as well.
fn can_take_its_startup_taint_away(cluster: &Cluster) -> anyhow::Result<()> {
    const NODE: &str = "tainted-node";
    let kubectl = cluster.kubectl();
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": {"conditions": [ready]}});
    command::output_with_input(&mut kubectl.command(&["create", "-f", "-"]), node.to_string().as_bytes())?;
    // The API server sets a taint of its own, which a controller takes away.
    wait_for("the Node to have no taint", PATIENCE, || {
        Ok(kubectl.get(&["node", NODE])?["spec"]["taints"].is_null().then_some(()))
    })?;
    let taint = |key: &str| json!({"key": key, "effect": "PreferNoSchedule"});
    let taints = json!([taint("example.com/other"), taint(STARTUP_TAINT)]);
    let spec = json!({"spec": {"providerID": "e2e://tainted-node", "taints": taints}});
    kubectl.run(&["patch", "node", NODE, "--type=merge", "--field-manager=one", "-p", &spec.to_string()])?;

    let agent = cluster.kubectl_with_token(&simulated::token(cluster, NODE)?);
    let patch = |operations: Value| {
        let operations = operations.to_string();
        agent.run(&["patch", "node", NODE, "--type=json", "--field-manager=pavise", "-p", &operations])
    };
    let other = patch(json!([{"op": "remove", "path": "/spec/taints/0"}]));
    expect_refusal("taking away somebody else's taint", other, TAINTS)?;
    patch(json!([
        {"op": "test", "path": "/spec/taints/1/key", "value": STARTUP_TAINT},
        {"op": "remove", "path": "/spec/taints/1"},
    ]))
    .context("taking its startup taint away")?;
    kubectl.run(&["delete", "node", NODE]).map(drop)
}

/// As the agent does: one is made, and counts up.
fn can_write_events(kubectl: &Kubectl) -> anyhow::Result<()> {
    let write = |difference| {
        let mut apply = kubectl.command(&["apply", "--server-side", "--field-manager=pavise", "-f", "-"]);
        command::output_with_input(&mut apply, event(difference).to_string().as_bytes())
    };
    let metadata = json!({"name": "written", "namespace": "default"});
    write(json!({"metadata": metadata})).context("writing an Event on a pod")?;
    let series = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"});
    write(json!({"metadata": metadata, "series": series})).context("counting up in an Event")?;
    let metadata = json!({"name": "resolved", "namespace": "default"});
    write(json!({"metadata": metadata, "type": "Normal", "reason": "ProfilesResolved"}))
        .context("writing that all is well")
        .map(drop)
}

/// Such a token is what somebody gets who may create tokens but no pods.
fn a_token_without_a_node_changes_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let token = cluster.kubectl().run(&["create", "token", "pavise-agent", "-n", SYSTEM])?;
    let attempt = cluster.kubectl_with_token(token.trim()).run(&[
        "label",
        "node",
        HOST_NODE,
        "seccomp.pavise.dev/p_x.json=true",
    ]);
    expect_refusal("labelling with a token without a Node", attempt, OTHER)?;
    let written = cluster.kubectl_with_token(token.trim()).apply(&event(json!({})).to_string());
    expect_refusal("writing an Event with a token without a Node", written, REPORTER)
}
