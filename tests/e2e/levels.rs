//! Namespaces state how confined their pods have to be, and the API server holds them to it, whatever runs of
//! Pavise.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::command;
use testbed::control_plane::AUDITED;
use testbed::images::BUSYBOX;
use testbed::kubectl::{retry, wait_for};
use testbed::pavise::{PROFILES, SYSTEM};
use testbed::pods::{bundle, makers, on};

use crate::Test;
use crate::profile_catalog::{object, wait_until_declared};
use crate::steps::{ALLOW, PATIENCE, SOON, apply, expect_refusal, make_namespace};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("what_is_below_the_level_of_its_namespace_is_refused", a_level_is_enforced),
    ("who_makes_what_is_below_a_level_is_warned_and_templates_count", a_level_warns),
    ("of_each_kind_that_makes_pods_its_author_is_warned_and_none_is_refused", makers_are_warned_of),
    ("what_is_below_a_level_is_in_the_audit_log", a_level_is_audited),
    ("defaults_and_exemptions_are_those_of_the_profile_catalog", defaults_and_exemptions_hold),
    ("of_ephemeral_containers_those_that_are_added_are_judged", added_ephemeral_containers_are_judged),
    ("a_job_completes_after_its_profile_left", a_job_completes),
    ("a_misspelt_level_is_refused", a_misspelt_level_is_refused),
    ("levels_hold_without_a_catalog", levels_hold_without_a_catalog),
    (
        "without_the_profile_catalog_what_needs_it_is_refused_until_it_is_back",
        what_needs_the_object_is_refused,
    ),
];

/// How the API server begins to refuse a pod.
const DENIED: &str = "ValidatingAdmissionPolicy 'enforce.levels.pavise.dev'";

/// How it warns of what makes pods that are not confined.
const WOULD_VIOLATE: &str = "would violate \"confined\": container main: seccompProfile.type is not set";

/// What a container needs to be confined.
fn confined() -> Value {
    json!({"seccompProfile": {"type": "RuntimeDefault"}})
}

/// A pod whose containers have this context.
fn pod(name: &str, context: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": on(HOST_NODE),
            "securityContext": context,
            "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "86400"]}],
        },
    })
}

fn localhost(path: &str) -> Value {
    json!({"seccompProfile": {"type": "Localhost", "localhostProfile": path}})
}

/// What kubectl says, on both its streams, of making `object` in `namespace`; an error if it is refused.
fn make(cluster: &Cluster, namespace: &str, object: &Value, more: &[&str]) -> anyhow::Result<String> {
    let words = [&["create", "-n", namespace, "-f", "-"], more].concat();
    let finished = command::finish(&mut cluster.kubectl().command(&words), object.to_string().as_bytes())?;
    let said =
        [finished.stdout, finished.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(finished.status.success(), "{said}");
    Ok(said)
}

fn try_to_make(cluster: &Cluster, namespace: &str, object: &Value) -> anyhow::Result<String> {
    make(cluster, namespace, object, &["--dry-run=server"])
}

/// Makes a namespace with these labels, and waits until the API server judges by them: it takes a moment to see
/// a namespace. `below` is what is not let in then.
fn make_level(cluster: &Cluster, name: &str, label: &str, below: &Value) -> anyhow::Result<()> {
    make_namespace(cluster, name)?;
    cluster.kubectl().run(&["label", "namespace", name, label])?;
    wait_for(&format!("{label} to hold"), SOON, || {
        let said = try_to_make(cluster, name, below);
        Ok(said.map_or(true, |said| said.contains("Warning")).then_some(()))
    })
}

fn delete_namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "namespace", name, "--wait=false"]).map(drop)
}

fn a_level_is_enforced(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("level", &[("a.json", ALLOW)]))?;
    wait_until_declared(cluster, "level/a.json")?;
    let unconfined = pod("p", &json!({}));
    for (level, refused, problem) in [
        ("known", localhost("level/b.json"), "seccompProfile.localhostProfile level/b.json is in no bundle"),
        ("confined", json!({}), "seccompProfile.type is not set"),
        ("localhost", confined(), "seccompProfile.type is RuntimeDefault"),
    ] {
        let namespace = format!("level-{level}");
        let below = if level == "known" { pod("p", &refused) } else { unconfined.clone() };
        make_level(cluster, &namespace, &format!("pavise.dev/enforce={level}"), &below)?;
        let refusal = format!("violates \"{level}\": container main: {problem}");
        let outcome = try_to_make(cluster, &namespace, &pod("p", &refused));
        expect_refusal(
            level,
            outcome.as_ref().map(Clone::clone).map_err(|error| anyhow::anyhow!("{error}")),
            &refusal,
        )?;
        expect_refusal(level, outcome, DENIED)?;
        // The policies may see the ProfileCatalog later than we do.
        let made = retry("a pod at its level to be let in", SOON, || {
            try_to_make(cluster, &namespace, &pod("p", &localhost("level/a.json")))
        })?;
        ensure!(!made.contains("Warning"), "{made}");
        delete_namespace(cluster, &namespace)?;
    }
    cluster.kubectl().run(&["delete", "configmap", "level", "-n", PROFILES]).map(drop)
}

/// A Deployment of no pods.
fn deployment() -> Value {
    let labels = json!({"example.com/name": "web"});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": BUSYBOX}]}},
        },
    })
}

fn a_level_warns(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    make_level(cluster, "level-warn", "pavise.dev/warn=confined", &pod("p", &json!({})))?;
    let warning = |verb: &str| format!("{verb} \"confined\": container main: seccompProfile.type is not set");
    let said = try_to_make(cluster, "level-warn", &pod("p", &json!({})))?;
    ensure!(said.contains("Warning: ") && said.contains(&warning("violates")), "{said}");
    let said = make(cluster, "level-warn", &deployment(), &[])?;
    ensure!(said.contains("Warning: ") && said.contains(&warning("would violate")), "{said}");
    // What changes no template is not judged: whoever scales has nothing to do with it.
    let patched = |patch: &str| {
        let words = ["patch", "deployment", "web", "-n", "level-warn", "--type=merge", "-p", patch];
        let finished = command::finish(&mut kubectl.command(&words), b"")?;
        ensure!(finished.status.success(), "{patch} was refused");
        Ok(String::from_utf8_lossy(&finished.stderr).into_owned())
    };
    let said = patched(r#"{"metadata": {"labels": {"a": "b"}}, "spec": {"revisionHistoryLimit": 3}}"#)?;
    ensure!(said.is_empty(), "{said}");
    let said = patched(r#"{"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}"#)?;
    ensure!(said.contains(&warning("would violate")), "{said}");
    delete_namespace(cluster, "level-warn")
}

fn makers_are_warned_of(cluster: &Cluster) -> anyhow::Result<()> {
    let unconfined = pod("p", &json!({}));
    make_level(cluster, "level-makers", "pavise.dev/warn=confined", &unconfined)?;
    make_level(cluster, "level-made", "pavise.dev/enforce=confined", &unconfined)?;
    for maker in makers(&unconfined["spec"]) {
        let said = try_to_make(cluster, "level-makers", &maker)?;
        ensure!(said.contains("Warning: ") && said.contains(WOULD_VIOLATE), "{}: {said}", maker["kind"]);
        let said = try_to_make(cluster, "level-made", &maker)?;
        ensure!(!said.contains("Warning"), "{}: {said}", maker["kind"]);
    }
    for maker in makers(&pod("p", &confined())["spec"]) {
        let said = try_to_make(cluster, "level-makers", &maker)?;
        ensure!(!said.contains("Warning"), "{}: {said}", maker["kind"]);
    }
    delete_namespace(cluster, "level-makers")?;
    delete_namespace(cluster, "level-made")
}

fn a_level_is_audited(cluster: &Cluster) -> anyhow::Result<()> {
    make_namespace(cluster, AUDITED)?;
    cluster.kubectl().run(&["label", "namespace", AUDITED, "pavise.dev/audit=localhost"])?;
    expect_audited(cluster)?;
    // Another test makes it again.
    cluster.kubectl().run(&["delete", "namespace", AUDITED, "--timeout=60s"]).map(drop)
}

/// Waits until a pod that is made in the namespace [`AUDITED`] is in the audit log as one below `localhost`, and
/// nowhere else.
fn expect_audited(cluster: &Cluster) -> anyhow::Result<()> {
    let log = || fs::read_to_string(cluster.layout().audit_log()).context("reading the audit log");
    let before = log()?.lines().count();
    let entry = wait_for("the audit log to say so", SOON, || {
        let said = try_to_make(cluster, AUDITED, &pod("p", &confined()))?;
        ensure!(!said.contains("Warning"), "{said}");
        let log = log()?;
        let entries = log.lines().skip(before).filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut of_pods = entries.filter(|entry| entry["objectRef"]["namespace"] == AUDITED);
        Ok(of_pods.find(|entry| {
            entry["annotations"]["validation.policy.admission.k8s.io/validation_failure"].is_string()
        }))
    })?;
    let failure = entry["annotations"]["validation.policy.admission.k8s.io/validation_failure"].as_str();
    let failure: Value =
        serde_json::from_str(failure.unwrap_or_default()).context("reading the annotation")?;
    ensure!(failure[0]["policy"] == "audit.levels.pavise.dev", "{failure}");
    let message = "violates \"localhost\": container main: seccompProfile.type is RuntimeDefault";
    ensure!(failure[0]["message"] == message, "{failure}");
    Ok(())
}

fn defaults_and_exemptions_hold(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let set = |spec: &Value| {
        let patch = json!({"spec": spec}).to_string();
        kubectl.run(&["patch", "profilecatalog", "pavise", "--type=merge", "-p", &patch])
    };
    for namespace in ["level-default", "level-exempt", AUDITED] {
        make_namespace(cluster, namespace)?;
    }
    apply(
        cluster,
        &json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "exempt"}, "handler": "runc",
        }),
    )?;
    let spec = json!({
        "defaults": {"enforce": "confined", "warn": "confined", "audit": "localhost"},
        "exemptions": {"namespaces": ["level-exempt"], "usernames": ["level-exempt"], "runtimeClasses": ["exempt"]},
    });
    expect_refusal("a default that nobody enforces", set(&spec), "enforce-by-default")?;
    let manifests = testbed::repository().join("manifests");
    let path = |below: &str| manifests.join(below).display().to_string();
    kubectl.run(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-k",
        &path("testbed/enforce-by-default"),
    ])?;
    wait_for("a default to be possible", SOON, || Ok(set(&spec).ok()))?;
    let outcome = (|| {
        let unconfined = pod("p", &json!({}));
        wait_for("the default to hold", SOON, || {
            Ok(try_to_make(cluster, "level-default", &unconfined).is_err().then_some(()))
        })?;
        let refused = try_to_make(cluster, "level-default", &unconfined);
        expect_refusal("a pod below the default", refused, "violates \"confined\"")?;
        try_to_make(cluster, "level-exempt", &unconfined)?;
        let said = try_to_make(cluster, "level-default", &deployment())?;
        ensure!(said.contains("Warning: ") && said.contains(WOULD_VIOLATE), "{said}");
        let said = try_to_make(cluster, "level-exempt", &deployment())?;
        ensure!(!said.contains("Warning"), "{said}");
        expect_audited(cluster)?;
        // What serves profiles is not kept out.
        try_to_make(cluster, SYSTEM, &unconfined)?;
        let mut classed = unconfined.clone();
        classed["spec"]["runtimeClassName"] = json!("exempt");
        try_to_make(cluster, "level-default", &classed)?;
        let by_user = ["--dry-run=server", "--as=level-exempt", "--as-group=system:masters"];
        make(cluster, "level-default", &unconfined, &by_user)?;
        // A namespace's own level comes first.
        kubectl.run(&["label", "namespace", "level-default", "pavise.dev/enforce=unrestricted"])?;
        wait_for("the namespace's own level to hold", SOON, || {
            Ok(try_to_make(cluster, "level-default", &unconfined).is_ok().then_some(()))
        })
    })();
    kubectl.run(&["patch", "profilecatalog", "pavise", "--type=merge", "-p", r#"{"spec": null}"#])?;
    kubectl.run(&["delete", "-k", &path("components/enforce-by-default/default")])?;
    let refusing = path("components/validate/defaults.yaml");
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &refusing])?;
    kubectl.run(&["delete", "runtimeclass", "exempt"])?;
    for namespace in ["level-default", "level-exempt", AUDITED] {
        delete_namespace(cluster, namespace)?;
    }
    outcome
}

fn added_ephemeral_containers_are_judged(cluster: &Cluster) -> anyhow::Result<()> {
    const NAMESPACE: &str = "level-ephemeral";
    let kubectl = cluster.kubectl();
    make_namespace(cluster, NAMESPACE)?;
    // Its container is below what is to come.
    let mut old = pod("old", &json!({}));
    old["spec"]["containers"][0]["securityContext"] = json!({"seccompProfile": {"type": "Unconfined"}});
    make(cluster, NAMESPACE, &old, &[])?;
    let debug = |name: &str, context: &Value| {
        let container = json!({"name": name, "image": BUSYBOX, "securityContext": context});
        let patch = json!({"spec": {"ephemeralContainers": [container]}}).to_string();
        kubectl.run(&[
            "patch",
            "pod",
            "old",
            "-n",
            NAMESPACE,
            "--subresource=ephemeralcontainers",
            "-p",
            &patch,
        ])
    };
    debug("before", &json!({}))?;
    kubectl.run(&["label", "namespace", NAMESPACE, "pavise.dev/enforce=confined"])?;
    wait_for("the level to hold", SOON, || {
        Ok(try_to_make(cluster, NAMESPACE, &pod("p", &json!({}))).is_err().then_some(()))
    })?;
    let refusal = "violates \"confined\": ephemeral container bad: seccompProfile.type is Unconfined";
    expect_refusal("adding it", debug("bad", &json!({"seccompProfile": {"type": "Unconfined"}})), refusal)?;
    debug("good", &confined())?;
    // Nothing else of a pod is judged when it is changed.
    kubectl.run(&["label", "pod", "old", "-n", NAMESPACE, "a=b"])?;
    kubectl.run(&["delete", "pod", "old", "-n", NAMESPACE, "--wait=false"])?;
    delete_namespace(cluster, NAMESPACE)
}

fn a_job_completes(cluster: &Cluster) -> anyhow::Result<()> {
    const NAMESPACE: &str = "level-job";
    let kubectl = cluster.kubectl();
    apply(cluster, &bundle("leaving", &[("a.json", ALLOW)]))?;
    wait_until_declared(cluster, "leaving/a.json")?;
    make_level(cluster, NAMESPACE, "pavise.dev/enforce=known", &pod("p", &localhost("leaving/none")))?;
    let mut spec = pod("p", &localhost("leaving/a.json"))["spec"].take();
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["command"] =
        json!(["sh", "-c", "trap 'exit 0' TERM; until [ -e /tmp/end ]; do sleep 0.2; done"]);
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": spec}}});
    make(cluster, NAMESPACE, &job, &[])?;
    let name = wait_for("the job's pod to run", PATIENCE, || {
        let mut pods = kubectl.get(&["pods", "-n", NAMESPACE, "-l", "job-name=j"])?;
        let pod = pods["items"][0].take();
        let is_running = pod["status"]["phase"] == "Running";
        let has_finalizer = pod["metadata"]["finalizers"].is_array();
        Ok(pod["metadata"]["name"].as_str().filter(|_| is_running && has_finalizer).map(str::to_owned))
    })?;
    kubectl.run(&["delete", "configmap", "leaving", "-n", PROFILES])?;
    wait_for("the profile to be unknown", PATIENCE, || {
        Ok(try_to_make(cluster, NAMESPACE, &pod("p", &localhost("leaving/a.json"))).is_err().then_some(()))
    })?;
    kubectl.run(&["exec", "-n", NAMESPACE, &name, "--", "touch", "/tmp/end"])?;
    wait_for("the job to complete", PATIENCE, || {
        let job = kubectl.get(&["job", "j", "-n", NAMESPACE])?;
        let pod = kubectl.get(&["pod", &name, "-n", NAMESPACE])?;
        let is_let_go = pod["metadata"]["finalizers"].is_null();
        Ok((job["status"]["succeeded"] == 1 && is_let_go).then_some(()))
    })?;
    delete_namespace(cluster, NAMESPACE)
}

fn a_misspelt_level_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    make_namespace(cluster, "level-misspelt")?;
    let label = |label: &str| kubectl.run(&["label", "--overwrite", "namespace", "level-misspelt", label]);
    expect_refusal(
        "a level",
        label("pavise.dev/enforce=confned"),
        "there are unrestricted, known, confined and localhost",
    )?;
    expect_refusal("a placement", label("pavise.dev/place=yes"), "there are true, prefer and false")?;
    label("pavise.dev/enforce=confined")?;
    label("pavise.dev/enforce-")?;
    delete_namespace(cluster, "level-misspelt")
}

/// Does `deeds` while no catalog runs.
fn without_catalog(cluster: &Cluster, deeds: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        kubectl.run(&["scale", "deployment/pavise-catalog", "-n", SYSTEM, &replicas])?;
        kubectl.run(&["rollout", "status", "deployment/pavise-catalog", "-n", SYSTEM, "--timeout=60s"])
    };
    let its = ["-l", "app.kubernetes.io/name=pavise-catalog"];
    let gone = [&["wait", "pod", "-n", SYSTEM, "--for=delete", "--timeout=30s"][..], &its].concat();
    scale("0")?;
    let outcome = kubectl.run(&gone).and_then(|_| deeds());
    scale("1")?;
    outcome
}

/// What the API server would make of `pod`.
fn made(cluster: &Cluster, namespace: &str, pod: &Value) -> anyhow::Result<Value> {
    let made = make(cluster, namespace, pod, &["--dry-run=server", "-o", "json"])?;
    serde_json::from_str(&made).context("reading the pod")
}

fn levels_hold_without_a_catalog(cluster: &Cluster) -> anyhow::Result<()> {
    const NAMESPACE: &str = "level-alone";
    make_level(cluster, NAMESPACE, "pavise.dev/enforce=confined", &pod("p", &json!({})))?;
    without_catalog(cluster, || {
        let refused = try_to_make(cluster, NAMESPACE, &pod("p", &json!({})));
        expect_refusal("an unconfined pod", refused, "violates \"confined\"")?;
        try_to_make(cluster, NAMESPACE, &pod("p", &confined()))?;
        // Placed by a name that fits, though nobody has published it.
        cluster.kubectl().run(&["label", "namespace", NAMESPACE, "pavise.dev/place=true"])?;
        wait_for("pods to be placed", SOON, || {
            let made = made(cluster, NAMESPACE, &pod("p", &localhost("alone/a.json")))?;
            Ok((made["spec"]["nodeSelector"]["seccomp.pavise.dev/alone_a.json"] == "true").then_some(()))
        })
    })?;
    delete_namespace(cluster, NAMESPACE)
}

fn what_needs_the_object_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    const LABELS: [(&str, &str); 4] = [
        ("absent-enforced", "pavise.dev/enforce=confined"),
        ("absent-placed", "pavise.dev/place=true"),
        ("absent-preferring", "pavise.dev/place=prefer"),
        ("absent-free", "example.com/level=none"),
    ];
    let kubectl = cluster.kubectl();
    for (namespace, label) in LABELS {
        make_namespace(cluster, namespace)?;
        kubectl.run(&["label", "namespace", namespace, label])?;
    }
    let confined = pod("p", &localhost("absent/a.json"));
    let is_placed = || {
        let selected = made(cluster, "absent-placed", &confined)?["spec"]["nodeSelector"].take();
        Ok((selected["seccomp.pavise.dev/absent_a.json"] == "true").then_some(()))
    };
    let is_preferred = || {
        let made = made(cluster, "absent-preferring", &confined)?;
        Ok(made["spec"]["affinity"]["nodeAffinity"].is_object().then_some(()))
    };
    wait_for("pods to be placed", SOON, is_placed)?;
    wait_for("pods to prefer a place", SOON, is_preferred)?;
    let before = object(cluster)?;
    without_catalog(cluster, || {
        kubectl.run(&["delete", "profilecatalog", "pavise"])?;
        for namespace in ["absent-enforced", "absent-placed"] {
            let refused = wait_for("the API server to see it", SOON, || {
                Ok(try_to_make(cluster, namespace, &confined).err())
            })?;
            expect_refusal(namespace, Err(refused), "no params found")?;
        }
        let made = made(cluster, "absent-preferring", &confined)?;
        ensure!(made["spec"]["affinity"].is_null(), "{}", made["spec"]);
        try_to_make(cluster, "absent-free", &pod("p", &json!({}))).map(drop)
    })?;
    let after = wait_for("the catalog to make its object again", PATIENCE, || {
        let object = object(cluster)?;
        Ok(object["status"]["totals"].is_object().then_some(object))
    })?;
    ensure!(after["metadata"]["uid"] != before["metadata"]["uid"], "it was not deleted: {after}");
    ensure!(after["spec"].is_null(), "the catalog says something for the administrator: {after}");
    retry("a confined pod to be let in", SOON, || try_to_make(cluster, "absent-enforced", &confined))?;
    let refused = try_to_make(cluster, "absent-enforced", &pod("p", &json!({})));
    expect_refusal("an unconfined pod", refused, "violates \"confined\"")?;
    retry("pods to be placed again", SOON, is_placed)?;
    for (namespace, _) in LABELS {
        delete_namespace(cluster, namespace)?;
    }
    Ok(())
}
