//! What the agent's token is good for in other hands: each attempt is made with the token that the agent
//! uses, by kubectl from outside.

use std::sync::Arc;

use anyhow::Context as _;
use libtest_mimic::Trial;
use serde_json::{Map, Value, json};
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::pavise::{self, PROFILES, SYSTEM};

use crate::steps::expect_refusal;
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

pub(crate) fn trials(cluster: Option<&Arc<Cluster>>) -> Vec<Trial> {
    let attempts = ATTEMPTS.iter().map(|attempt| {
        trial(&format!("a_stolen_token_can_not_{}", attempt.name), cluster, |cluster| {
            is_refused(cluster, attempt)
        })
    });
    let others = [
        trial("a_stolen_token_can_do_what_the_agent_does", cluster, can_do_what_the_agent_does),
        trial("a_token_without_a_node_changes_no_node", cluster, a_token_without_a_node_changes_no_node),
    ];
    others.into_iter().chain(attempts).collect()
}

fn is_refused(cluster: &Cluster, attempt: &Attempt) -> anyhow::Result<()> {
    let other = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": OTHER_NODE}, "spec": {"unschedulable": true}});
    cluster.kubectl().apply(&other.to_string())?;
    cluster.kubectl().apply(&report_on(OTHER_NODE).to_string())?;
    let kubectl = cluster.kubectl_with_token(&pavise::agent_token(cluster)?);
    expect_refusal(&attempt.kubectl.join(" "), kubectl.run(attempt.kubectl), attempt.refusal)
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

    somebody_else.run(&[
        "taint",
        "node",
        HOST_NODE,
        "pavise.dev/not-ready=:NoSchedule",
        "example.com/other=:PreferNoSchedule",
    ])?;
    let patch = r#"{"spec":{"taints":[{"key":"example.com/other","effect":"PreferNoSchedule"}]}}"#;
    let untaint = ["patch", "node", HOST_NODE, "--type=merge", "--field-manager=pavise", "-p", patch];
    let untainted = kubectl.run(&untaint).context("removing its startup taint");
    somebody_else.run(&["patch", "node", HOST_NODE, "--type=merge", "-p", r#"{"spec":{"taints":null}}"#])?;
    untainted.map(drop)
}

/// Such a token is what somebody gets who may create tokens but no pods.
fn a_token_without_a_node_changes_no_node(cluster: &Cluster) -> anyhow::Result<()> {
    let token = cluster.kubectl().run(&["create", "token", "pavise-agent", "-n", SYSTEM])?;
    let attempt = cluster.kubectl_with_token(token.trim()).run(&[
        "label",
        "node",
        HOST_NODE,
        "seccomp.pavise.dev/p_x.json=true",
    ]);
    expect_refusal("labelling with a token without a Node", attempt, OTHER)
}
