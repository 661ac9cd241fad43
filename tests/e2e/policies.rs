//! What the admission policies decide in CEL is what the library `profiles` decides in Rust: the same pods, the
//! same verdicts in the same words, the same labels.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use profiles::bundle::Kind;
use profiles::catalog::object::ProfileCatalog;
use profiles::level::Level;
use profiles::level::judge::Subject;
use profiles::pod::{Limits, Pod, Spec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::Deserialize as _;
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::command;
use testbed::kubectl::wait_for;
use testbed::pavise::PROFILES;
use testbed::pods::bundle;

use crate::profile_catalog::object;
use crate::steps::{ALLOW, PATIENCE, SOON, apply, make_namespace};
use crate::{Test, apparmor};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("the_policies_decide_about_200_pods_as_the_library_does", policies_and_library_agree),
    ("the_api_server_has_no_warning_about_a_policy", no_policy_is_warned_of),
    ("pods_are_placed_again_when_something_has_changed_them_since", pods_are_placed_again),
];

/// How many pods are made up at random.
const PODS: usize = 200;
/// As many containers as anybody has in a pod.
const CONTAINERS: usize = 200;
/// How many entries a list of `alsoKnown` can have.
const ALSO_KNOWN: usize = 64;
/// As the policy for namespaces has it that are not about levels.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The key of a profile whose reference fits no label.
const LONG: &str = "a-profile-whose-name-is-so-long-that-no-label-can-have-it-as-it-is.json";

/// References to seccomp profiles: to some that there are, and to what authors write.
fn paths() -> Vec<String> {
    let fixed = [
        "agree/a.json",
        "./agree//a.json",
        "agree/a.json/",
        "agree/b.json",
        "agree/a.",
        "agree/-a",
        "agree/..a",
        "-agree/a",
        "Agree/a",
        "a..b/c",
        "a.b-c.d/e_F",
        "_team/agree/a.json",
        "_team/a",
        "_Team/agree/a",
        "_pavise-profiles/agree/a.json",
        "audit.json",
        "one/two/three",
        "operator/namespace/x.json",
        "agree-bundle/a.json",
        "agr\u{e9}e/a",
        "agree/a b",
        "agree/a\nb",
    ];
    let long = [
        format!("agree/{LONG}"),
        format!("agree/{}", "k".repeat(57)),
        format!("agree/{}", "k".repeat(58)),
        format!("_{}/agree/{}", "n".repeat(63), "k".repeat(57)),
        format!("_{}/agree/{}", "n".repeat(64), "k".repeat(57)),
        format!("_{}/agree/{}", "n".repeat(63), "k".repeat(58)),
        format!("agree/{}", "\u{e9}".repeat(120)),
        format!("agree/./{}a.json", "./".repeat(300)),
        "x".repeat(700),
        format!("operator/{}", "x".repeat(700)),
    ];
    fixed.into_iter().map(str::to_owned).chain(long).collect()
}

/// The same of AppArmor profiles.
fn names() -> Vec<String> {
    let fixed = [
        "agree-deny",
        "agree/team/web",
        "localhost/agree-deny",
        "localhost/localhost/agree-deny",
        "agree-dny",
        "_agree",
        "agree.",
        "a+b",
        "a b",
        "a//b",
        "/usr/bin/x",
        "docker-default",
        "lxc-container-default",
        "unconfined",
        "\u{e9}",
    ];
    fixed.into_iter().map(str::to_owned).chain(["n".repeat(63), "n".repeat(64), "n".repeat(150)]).collect()
}

fn profile(references: Vec<String>) -> impl Strategy<Value = Option<Value>> {
    let localhost = select(references).prop_map(|one| json!({"type": "Localhost", "localhostProfile": one}));
    prop_oneof![
        3 => Just(None),
        2 => Just(Some(json!({"type": "RuntimeDefault"}))),
        1 => Just(Some(json!({"type": "Unconfined"}))),
        6 => localhost.prop_map(Some),
    ]
}

/// A security context of a container, or of a pod.
fn context(is_privileged: impl Strategy<Value = bool>) -> impl Strategy<Value = Value> {
    (profile(paths()), profile(names()), is_privileged).prop_map(|(seccomp, apparmor, is_privileged)| {
        let mut context = json!({});
        if let Some(seccomp) = seccomp {
            context["seccompProfile"] = seccomp;
        }
        if let Some(apparmor) = apparmor {
            context["appArmorProfile"] = apparmor;
        }
        if is_privileged {
            context["privileged"] = json!(true);
        }
        context
    })
}

/// A container, and what an annotation says of it.
fn container() -> impl Strategy<Value = (Value, Option<String>)> {
    let annotation = prop_oneof![
        Just("unconfined".to_owned()),
        Just("runtime/default".to_owned()),
        select(names()).prop_map(|name| format!("localhost/{name}")),
    ];
    let annotated = proptest::option::weighted(0.2, annotation);
    (context(prop::bool::weighted(0.1)), annotated).prop_map(|(context, annotation)| {
        // The API server refuses an annotation that contradicts the field.
        let is_own = context.get("appArmorProfile").is_some();
        (json!({"image": "x", "securityContext": context}), annotation.filter(|_| !is_own))
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let count = prop_oneof![9 => 1..4_usize, 1 => Just(24)];
    let containers = count.prop_flat_map(|count| prop::collection::vec(container(), count));
    let others = prop::collection::vec((container(), any::<bool>()), 0..3);
    (context(Just(false)), containers, others, any::<bool>()).prop_map(
        |(context, containers, others, selects)| {
            let mut annotations = BTreeMap::new();
            let mut named = |list: Vec<(Value, Option<String>)>, letter: &str| -> Vec<Value> {
                let name = |(index, (mut container, annotation)): (usize, (Value, Option<String>))| {
                    let name = format!("{letter}{index}");
                    annotations.extend(annotation.map(|said| (format!("{ANNOTATION}{name}"), said)));
                    container["name"] = json!(name);
                    container
                };
                list.into_iter().enumerate().map(name).collect()
            };
            let containers = named(containers, "c");
            let (others, sidecars): (Vec<_>, Vec<_>) = others.into_iter().unzip();
            let mut others = named(others, "i");
            for (other, is_sidecar) in others.iter_mut().zip(sidecars) {
                if is_sidecar {
                    other["restartPolicy"] = json!("Always");
                }
            }
            let mut spec =
                json!({"securityContext": context, "containers": containers, "initContainers": others});
            if selects {
                spec["nodeSelector"] = json!({"example.com/pool": "a"});
            }
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": annotations}, "spec": spec})
        },
    )
}

/// Two lists of `alsoKnown` with as many entries as they can have. The last ones are those that pods refer to: a
/// policy looks at all the others before.
fn also_known() -> Value {
    let list = |last: &[&str]| -> Vec<String> {
        let others = (0..ALSO_KNOWN - last.len()).map(|number| format!("somebody-elses-{number}/profiles/*"));
        others.chain(last.iter().map(|&one| one.to_owned())).collect()
    };
    json!({"seccomp": list(&["operator/*"]), "appArmor": list(&["docker-default", "lxc-*"])})
}

/// A pod in which each of many containers has a path and a name of its own, and these begin so.
fn large(name: &str, path: &str, profile: &str) -> Value {
    let container = |number| {
        let localhost = |reference| json!({"type": "Localhost", "localhostProfile": reference});
        json!({"name": format!("c{number}"), "image": "x", "securityContext": {
            "seccompProfile": localhost(format!("{path}{number}.json")),
            "appArmorProfile": localhost(format!("{profile}{number}")),
        }})
    };
    let containers: Vec<Value> = (0..CONTAINERS).map(container).collect();
    let metadata = json!({"name": name, "annotations": {}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}})
}

/// All pods, with names.
fn pods() -> anyhow::Result<Vec<Value>> {
    let mut runner = TestRunner::deterministic();
    let mut pods = Vec::new();
    for number in 0..PODS {
        let tree = pod().new_tree(&mut runner).map_err(|why| anyhow::anyhow!("making up a pod: {why}"))?;
        let mut pod = tree.current();
        pod["metadata"]["name"] = json!(format!("p{number}"));
        pods.push(pod);
    }
    let containers: Vec<Value> =
        (0..CONTAINERS).map(|number| json!({"name": format!("c{number}"), "image": "x"})).collect();
    pods[0]["spec"]["containers"] = json!(containers);
    // What a policy works on longest: all is known by the last entry of a list, or by none.
    pods.push(large("large-known", "operator/namespace/profile-", "lxc-container-"));
    pods.push(large("large-unknown", "large-bundle/profile-", "large-profile-"));
    Ok(pods)
}

/// What became of a pod that was made for trial: it, or why it was refused.
type Outcome = Result<Value, String>;

/// Makes `pods` for trial in `namespace`.
fn tried(cluster: &Cluster, namespace: &str, pods: &[Value]) -> anyhow::Result<BTreeMap<String, Outcome>> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    let mut create =
        cluster.kubectl().command(&["create", "--dry-run=server", "-n", namespace, "-o", "json", "-f", "-"]);
    let finished = command::finish(&mut create, list.to_string().as_bytes())?;
    let mut outcomes = BTreeMap::new();
    for printed in serde_json::Deserializer::from_slice(&finished.stdout).into_iter::<Value>() {
        let mut printed = printed.context("reading what kubectl prints")?;
        let made =
            if printed["kind"] == "List" { std::mem::take(&mut printed["items"]) } else { json!([printed]) };
        for pod in made.as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
            outcomes.insert(name.to_owned(), Ok(pod.clone()));
        }
    }
    // …: pods "p1" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: …
    for line in String::from_utf8_lossy(&finished.stderr).lines().filter(|line| line.starts_with("Error")) {
        let (_, rest) = line.split_once("pods \"").with_context(|| format!("kubectl says {line}"))?;
        let (name, rest) = rest.split_once('"').with_context(|| format!("kubectl says {line}"))?;
        let Some((_, message)) = rest.split_once(" denied request: ") else { bail!("kubectl says {line}") };
        outcomes.insert(name.to_owned(), Err(message.to_owned()));
    }
    ensure!(outcomes.len() == pods.len(), "{} of {} pods were judged", outcomes.len(), pods.len());
    Ok(outcomes)
}

/// The pod, as the library reads it.
fn read(pod: &Value) -> anyhow::Result<Pod> {
    let annotations =
        BTreeMap::deserialize(&pod["metadata"]["annotations"]).context("reading annotations")?;
    let spec = Spec::deserialize(&pod["spec"]).context("reading a spec")?;
    Ok(Pod::within(Limits::NONE, &annotations, &spec, None))
}

/// What a pod selects on of ours: of `nodeSelector`, and what is preferred.
fn selected(pod: &Value) -> [BTreeSet<String>; 2] {
    let is_ours = |key: &&String| key.contains("pavise.dev/");
    let required = pod["spec"]["nodeSelector"].as_object().into_iter().flatten().map(|(key, _)| key);
    let preferred =
        pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|term| term["preference"]["matchExpressions"][0]["key"].as_str());
    [required.filter(is_ours).cloned().collect(), preferred.map(str::to_owned).collect()]
}

/// As much of a reference as messages have at least.
fn cut(reference: &str) -> String {
    reference.split('/').next().unwrap_or_default().chars().take(20).take_while(|c| *c != '\n').collect()
}

/// Publishes what some of the pods refer to, and returns what the catalog says then.
fn publish(cluster: &Cluster) -> anyhow::Result<ProfileCatalog> {
    apply(cluster, &bundle("agree", &[("a.json", ALLOW), (LONG, ALLOW), ("a.", ALLOW)]))?;
    let mut by_bundle = bundle("agree-bundle", &[("a.json", ALLOW)]);
    by_bundle["metadata"]["annotations"] = json!({"pavise.dev/node-labels": "bundle"});
    apply(cluster, &by_bundle)?;
    let texts = [("deny", "agree-deny"), ("web", "agree/team/web")]
        .map(|(key, name)| (key, apparmor::text(name, "")));
    apply(
        cluster,
        &apparmor::bundle("agree-texts", &texts.each_ref().map(|(key, text)| (*key, text.as_str()))),
    )?;
    let spec = json!({"spec": {"alsoKnown": also_known()}});
    cluster.kubectl().run(&["patch", "profilecatalog", "pavise", "--type=merge", "-p", &spec.to_string()])?;
    wait_for("the catalog to know all of it", PATIENCE, || {
        let catalog = ProfileCatalog::deserialize(&object(cluster)?).context("reading the ProfileCatalog")?;
        let knows = |path: &str| catalog.status.seccomp.contains_key(path);
        let has = |name: &str| catalog.status.app_armor.contains_key(name);
        let is_all = knows("agree/a.json")
            && knows("agree-bundle/a.json")
            && has("agree-deny")
            && has("agree/team/web");
        Ok(is_all.then_some(catalog))
    })
}

fn policies_and_library_agree(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let catalog = publish(cluster)?;
    let pods = pods()?;
    let mut denied = 0;
    for level in Level::ALL {
        let namespace = format!("agree-{level}");
        make_namespace(cluster, &namespace)?;
        kubectl.run(&["label", "namespace", &namespace, &format!("pavise.dev/enforce={level}")])?;
        // The API server takes a moment to see both.
        if level != Level::Unrestricted {
            let below = json!([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
                {"name": "c", "image": "x", "securityContext": {"privileged": true,
                    "appArmorProfile": {"type": "Localhost", "localhostProfile": "none"}}},
            ]}}]);
            wait_for("the level to be enforced", SOON, || {
                Ok(tried(cluster, &namespace, below.as_array().map_or(&[], Vec::as_slice))?["p"]
                    .is_err()
                    .then_some(()))
            })?;
        }
        let outcomes = tried(cluster, &namespace, &pods)?;
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let said = outcomes[name].as_ref().err().cloned();
            let violation = level.violation(&read(pod)?, &catalog);
            let expected = violation.map(|violation| violation.message(Subject::Pod));
            ensure!(
                said == expected,
                "level {level}: the policy says {said:?}, the library {expected:?}, of {pod}"
            );
            denied += usize::from(said.is_some());
        }
        kubectl.run(&["delete", "namespace", &namespace, "--wait=false"])?;
    }
    ensure!((PODS / 2..PODS * 3).contains(&denied), "{denied} pods were denied: the pods are all alike");
    let mut placed = 0;
    for (place, index) in [("true", 0), ("prefer", 1)] {
        let namespace = format!("agree-place-{place}");
        make_namespace(cluster, &namespace)?;
        kubectl.run(&["label", "namespace", &namespace, &format!("pavise.dev/place={place}")])?;
        let referring = json!([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "agree/a.json"}},
            "containers": [{"name": "c", "image": "x"}],
        }}]);
        wait_for("pods to be placed", SOON, || {
            let tried = tried(cluster, &namespace, referring.as_array().map_or(&[], Vec::as_slice))?;
            let labels = tried["p"].as_ref().map(|pod| selected(pod)[index].len());
            Ok((labels == Ok(1)).then_some(()))
        })?;
        let outcomes = tried(cluster, &namespace, &pods)?;
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let read = read(pod)?;
            let expected = catalog.node_selector(&read);
            let right = match (&outcomes[name], &expected) {
                (Err(message), Err(lost)) => {
                    let is_named = |(_, reference): &(Kind, &str)| message.contains(&cut(reference));
                    place == "true" && lost.iter().any(is_named)
                }
                (Err(_), Ok(_)) => false,
                (Ok(made), Ok(labels)) => {
                    let mut of_ours = [BTreeSet::new(), BTreeSet::new()];
                    of_ours[index] = labels.iter().map(ToString::to_string).collect();
                    selected(made) == of_ours
                }
                // What can be placed of it is, where it is a preference.
                (Ok(_), Err(_)) => place == "prefer",
            };
            ensure!(
                right,
                "place={place}: the policy yields {:?}, the library {expected:?}, of {pod}",
                outcomes[name]
            );
            placed += usize::from(outcomes[name].is_ok());
        }
        kubectl.run(&["delete", "namespace", &namespace, "--wait=false"])?;
    }
    ensure!(placed > PODS, "{placed} pods were placed: the pods are all alike");
    kubectl.run(&["patch", "profilecatalog", "pavise", "--type=merge", "-p", r#"{"spec": null}"#])?;
    kubectl.run(&["delete", "configmap", "-n", PROFILES, "agree", "agree-bundle", "agree-texts"]).map(drop)
}

fn no_policy_is_warned_of(cluster: &Cluster) -> anyhow::Result<()> {
    let policies = wait_for("the API server to have checked all policies", SOON, || {
        let mut list = cluster.kubectl().get(&["validatingadmissionpolicies"])?;
        let policies = list["items"].take();
        let is_checked =
            |policy: &Value| policy["status"]["observedGeneration"] == policy["metadata"]["generation"];
        let mut all = policies.as_array().into_iter().flatten();
        Ok(all.all(is_checked).then_some(policies))
    })?;
    let all = policies.as_array().map_or(&[][..], Vec::as_slice);
    ensure!(all.len() >= 8, "there are {} policies", all.len());
    for policy in all {
        let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
        ensure!(warnings.is_null(), "{}: {warnings}", policy["metadata"]["name"]);
    }
    Ok(())
}

/// What a webhook puts into a pod after the policy has seen it. The order in which an API server asks policies and
/// webhooks is its own, so this reads what it was told.
fn pods_are_placed_again(cluster: &Cluster) -> anyhow::Result<()> {
    let policy = cluster.kubectl().get(&["mutatingadmissionpolicy", "place.pavise.dev"])?;
    let said = &policy["spec"]["reinvocationPolicy"];
    ensure!(said == "IfNeeded", "the API server is to ask place.pavise.dev again: {said}");
    Ok(())
}
