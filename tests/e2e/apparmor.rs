//! From a text in a ConfigMap to enforcement in a kernel that has AppArmor, and back; and a node beside it
//! that has none.
//!
//! What the kernel holds is read in the guest itself, not asked of the agent.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::{confined_pod, on};
use testbed::{GUEST_NODE, HOST_NODE};

use crate::Test;
use crate::steps::apply;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_apparmor_profile_is_loaded_labelled_and_enforced", a_profile_is_enforced),
    ("a_pod_that_selects_on_an_apparmor_label_never_lands_on_a_node_without", a_selecting_pod_finds_its_node),
    ("a_node_without_apparmor_serves_seccomp_and_says_so", a_node_without_apparmor_is_ready),
    ("an_edit_of_an_apparmor_profile_binds_running_processes", an_edit_binds_running_processes),
    ("a_bad_apparmor_edit_keeps_the_version_before", a_bad_edit_keeps_the_version_before),
    ("an_apparmor_profile_in_use_is_retained_and_goes_after", a_used_profile_is_retained),
    ("apparmor_drift_of_every_kind_is_repaired", drift_is_repaired),
    ("an_apparmor_profile_passes_to_another_bundle_without_a_gap", a_renamed_bundle_hands_over),
    ("apparmor_policy_comes_back_from_disk_without_an_api_server", policy_comes_back_from_disk),
    ("an_agent_killed_amid_a_batch_of_apparmor_profiles_finishes_it", a_batch_survives_a_kill),
    ("every_hostile_apparmor_text_is_refused_and_the_hosts_profiles_stay", hostile_texts_are_refused),
    ("a_compiler_that_is_killed_or_stopped_costs_time_and_no_profile", a_compiler_may_die),
];

/// A kernel in an emulator, and a kubelet that looks every ten seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const POLICY: &str = "/sys/kernel/security/apparmor";

/// A profile that allows all but what `rules` deny.
pub(crate) fn text(name: &str, rules: &str) -> String {
    format!(
        "#include <tunables/global>\nprofile {name} flags=(attach_disconnected) {{\n  \
         #include <abstractions/base>\n  file,\n  {rules}\n}}\n"
    )
}

pub(crate) fn bundle(name: &str, texts: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> =
        texts.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": PROFILES, "labels": {"pavise.dev/profiles": "apparmor"}},
        "data": data,
    })
}

pub(crate) fn delete_bundle(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "configmap", name, "-n", PROFILES]).map(drop)
}

/// A pod on the guest's node that sleeps under the AppArmor profile `profile`.
pub(crate) fn pod(name: &str, profile: &str) -> Value {
    let mut pod = confined_pod(name, "");
    pod["spec"]["securityContext"] =
        json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": profile}});
    pod["spec"]["nodeSelector"] = on(GUEST_NODE);
    pod
}

pub(crate) fn guest(cluster: &Cluster, script: &str) -> anyhow::Result<String> {
    cluster.guest()?.run(&["sh", "-c", script])
}

/// The mode of each profile that the kernel has, children among them.
fn kernel(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let profiles = guest(cluster, &format!("cat {POLICY}/profiles"))?;
    Ok(profiles.lines().map(str::to_owned).collect())
}

pub(crate) fn wait_for_kernel(cluster: &Cluster, line: &str, is_there: bool) -> anyhow::Result<()> {
    let what = if is_there { "to have" } else { "not to have" };
    wait_for(&format!("the kernel {what} {line}"), PATIENCE, || {
        Ok((kernel(cluster)?.iter().any(|one| one == line) == is_there).then_some(()))
    })
}

pub(crate) fn label(cluster: &Cluster, node: &str, label: &str) -> anyhow::Result<bool> {
    Ok(cluster.kubectl().get(&["node", node])?["metadata"]["labels"][label] == "true")
}

fn wait_for_label(cluster: &Cluster, name: &str, is_there: bool) -> anyhow::Result<()> {
    let key = format!("apparmor.pavise.dev/{name}");
    let what = if is_there { "have" } else { "lose" };
    wait_for(&format!("{GUEST_NODE} to {what} the label {key}"), PATIENCE, || {
        Ok((label(cluster, GUEST_NODE, &key)? == is_there).then_some(()))
    })
}

pub(crate) fn wait_until_running(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    wait_for(&format!("{pod} to run"), PATIENCE, || {
        let pod = cluster.kubectl().get(&["pod", pod])?;
        Ok(pod["status"]["containerStatuses"][0]["state"]["running"].is_object().then_some(()))
    })
}

pub(crate) fn exec(cluster: &Cluster, pod: &str, script: &str) -> anyhow::Result<String> {
    cluster.kubectl().run(&["exec", pod, "--", "sh", "-c", script])
}

pub(crate) fn delete_pod(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "pod", pod, "--grace-period=0", "--force"]).map(drop)
}

/// The agent's pod on the guest's node.
fn agent(cluster: &Cluster) -> anyhow::Result<String> {
    let pod = pavise::agent_pod(cluster, GUEST_NODE)?;
    pod["metadata"]["name"].as_str().map(str::to_owned).context("the agent's pod has no name")
}

fn log(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.kubectl().run(&["logs", "-n", SYSTEM, &agent(cluster)?, "-c", "agent", "--tail=-1"])
}

pub(crate) fn expect_log(cluster: &Cluster, words: &[&str]) -> anyhow::Result<()> {
    wait_for(&format!("the agent on {GUEST_NODE} to say {}", words.join(" … ")), PATIENCE, || {
        let log = log(cluster)?;
        Ok(log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
    })
}

/// Ends the agent on the guest's node as the kernel would that is out of memory.
const KILL_THE_AGENT: &str = "for p in /proc/[0-9]*; do \
     case \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" in */pavise\\ agent*) kill -9 ${p#/proc/};; esac; done";
/// The same for the compiler beside it.
const KILL_THE_COMPILER: &str = "for p in /proc/[0-9]*; do \
     case \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" in */pavise\\ compiler*) kill -9 ${p#/proc/};; esac; done";

fn a_profile_is_enforced(cluster: &Cluster) -> anyhow::Result<()> {
    // The pod comes first: it waits for its profile, and starts when that is there.
    apply(cluster, &pod("enforced", "e2e-enforced"))?;
    apply(cluster, &bundle("enforced", &[("a", &text("e2e-enforced", "deny /** w,"))]))?;
    wait_for_kernel(cluster, "e2e-enforced (enforce)", true)?;
    wait_for_label(cluster, "e2e-enforced", true)?;
    ensure!(label(cluster, GUEST_NODE, "bundle.pavise.dev/enforced")?, "the bundle has no label");
    wait_until_running(cluster, "enforced")?;
    let current = exec(cluster, "enforced", "cat /proc/1/attr/current")?;
    ensure!(current.trim() == "e2e-enforced (enforce)", "it runs under {current}");
    ensure!(exec(cluster, "enforced", "echo > /tmp/x").is_err(), "it can write");
    delete_pod(cluster, "enforced")?;
    delete_bundle(cluster, "enforced")?;
    wait_for_kernel(cluster, "e2e-enforced (enforce)", false)
}

fn a_selecting_pod_finds_its_node(cluster: &Cluster) -> anyhow::Result<()> {
    let mut selecting = pod("choosing", "e2e-choosing");
    selecting["spec"]["nodeSelector"] = json!({"apparmor.pavise.dev/e2e-choosing": "true"});
    apply(cluster, &selecting)?;
    wait_for("the pod to find no node", PATIENCE, || {
        let pod = cluster.kubectl().get(&["pod", "choosing"])?;
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        Ok(conditions.into_iter().any(|one| one["reason"] == "Unschedulable").then_some(()))
    })?;
    apply(cluster, &bundle("choosing", &[("a", &text("e2e-choosing", ""))]))?;
    wait_until_running(cluster, "choosing")?;
    let pod = cluster.kubectl().get(&["pod", "choosing"])?;
    ensure!(pod["spec"]["nodeName"] == GUEST_NODE, "it landed on {}", pod["spec"]["nodeName"]);
    ensure!(!label(cluster, HOST_NODE, "apparmor.pavise.dev/e2e-choosing")?, "{HOST_NODE} has the label");
    delete_pod(cluster, "choosing")?;
    delete_bundle(cluster, "choosing")
}

fn a_node_without_apparmor_is_ready(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("elsewhere", &[("a", &text("e2e-elsewhere", ""))]))?;
    apply(cluster, &testbed::pods::bundle("beside", &[("a.json", crate::steps::ALLOW)]))?;
    wait_for_label(cluster, "e2e-elsewhere", true)?;
    crate::steps::wait_for_labels(cluster, &["seccomp.pavise.dev/beside_a.json"])?;
    for absent in ["apparmor.pavise.dev/e2e-elsewhere", "bundle.pavise.dev/elsewhere"] {
        ensure!(!label(cluster, HOST_NODE, absent)?, "{HOST_NODE} has the label {absent}");
    }
    ensure!(pavise::ask_agent(cluster, HOST_NODE, "/readyz")? == "ready\n", "its agent is not ready");
    crate::steps::expect_log(cluster, &["AppArmor", "not"])?;
    delete_bundle(cluster, "elsewhere")
}

fn an_edit_binds_running_processes(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("edited", &[("a", &text("e2e-edited", "deny /tmp/one w,"))]))?;
    apply(cluster, &pod("edited", "e2e-edited"))?;
    wait_until_running(cluster, "edited")?;
    ensure!(exec(cluster, "edited", "echo > /tmp/one").is_err(), "it can write /tmp/one");
    exec(cluster, "edited", "echo > /tmp/two").context("writing what is allowed")?;
    apply(cluster, &bundle("edited", &[("a", &text("e2e-edited", "deny /tmp/two w,"))]))?;
    wait_for("the running process to be under the new rules", PATIENCE, || {
        Ok(exec(cluster, "edited", "echo > /tmp/two").is_err().then_some(()))
    })?;
    exec(cluster, "edited", "echo > /tmp/one").context("writing what is now allowed")?;
    delete_pod(cluster, "edited")?;
    delete_bundle(cluster, "edited")
}

fn a_bad_edit_keeps_the_version_before(cluster: &Cluster) -> anyhow::Result<()> {
    let good = text("e2e-regretted", "deny /tmp/one w,");
    let other = text("e2e-beside", "");
    apply(cluster, &bundle("regretted-edit", &[("a", &good), ("b", &other)]))?;
    wait_for_label(cluster, "e2e-regretted", true)?;
    wait_for_label(cluster, "e2e-beside", true)?;
    let before = raw_digest(cluster, "e2e-regretted")?;
    let beside = raw_digest(cluster, "e2e-beside")?;
    let bad = text("e2e-regretted", "deny /tmp/one wq!,");
    let other = text("e2e-beside", "deny /tmp/x w,");
    apply(cluster, &bundle("regretted-edit", &[("a", &bad), ("b", &other)]))?;
    expect_log(cluster, &["invalid-policy", "line 5"])?;
    // The rest of the bundle is served.
    wait_for("the other profile to be replaced", PATIENCE, || {
        Ok((raw_digest(cluster, "e2e-beside")? != beside).then_some(()))
    })?;
    ensure!(raw_digest(cluster, "e2e-regretted")? == before, "the version before did not stay");
    ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/e2e-regretted")?, "its label is gone");
    // What somebody takes away comes back, in the version before.
    guest(cluster, &format!("printf e2e-regretted > {POLICY}/.remove"))?;
    wait_for_kernel(cluster, "e2e-regretted (enforce)", true)?;
    ensure!(raw_digest(cluster, "e2e-regretted")? == before, "another version came back");
    delete_bundle(cluster, "regretted-edit")
}

/// The digest that the kernel has of the blob in which `name` came.
pub(crate) fn raw_digest(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let script = format!(
        "for d in {POLICY}/policy/profiles/*; do [ \"$(cat $d/name)\" = {name} ] && cat $d/raw_sha1 $d/raw_sha256 2>/dev/null; done; true"
    );
    guest(cluster, &script)
}

fn a_used_profile_is_retained(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("used", &[("a", &text("e2e-used", "deny /tmp/one w,"))]))?;
    apply(cluster, &pod("used", "e2e-used"))?;
    wait_until_running(cluster, "used")?;
    delete_bundle(cluster, "used")?;
    expect_log(cluster, &["e2e-used", "retained"])?;
    ensure!(kernel(cluster)?.contains(&"e2e-used (enforce)".to_owned()), "it was removed while in use");
    ensure!(exec(cluster, "used", "echo > /tmp/one").is_err(), "the running container is not confined");
    ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/e2e-used")?, "its label went before the pod");
    delete_pod(cluster, "used")?;
    wait_for_label(cluster, "e2e-used", false)?;
    wait_for_kernel(cluster, "e2e-used (enforce)", false)?;

    // A process that belongs to no pod keeps it as well.
    apply(cluster, &bundle("used", &[("a", &text("e2e-used", ""))]))?;
    wait_for_kernel(cluster, "e2e-used (enforce)", true)?;
    let process = guest(cluster, "aa-exec -p e2e-used -- sleep 600 >/dev/null 2>&1 & echo $!")?;
    delete_bundle(cluster, "used")?;
    expect_log(cluster, &["e2e-used", "process"])?;
    ensure!(kernel(cluster)?.contains(&"e2e-used (enforce)".to_owned()), "it was removed under a process");
    guest(cluster, &format!("kill {}", process.trim()))?;
    wait_for_kernel(cluster, "e2e-used (enforce)", false)
}

fn drift_is_repaired(cluster: &Cluster) -> anyhow::Result<()> {
    let with_child = "#include <tunables/global>\nprofile e2e-drifting {\n  #include <abstractions/base>\n  file,\n  \
                      profile child {\n    file,\n  }\n  ^hat {\n    file,\n  }\n}\n";
    apply(cluster, &bundle("drifting-policy", &[("a", with_child)]))?;
    wait_for_label(cluster, "e2e-drifting", true)?;
    let before = raw_digest(cluster, "e2e-drifting")?;
    ensure!(!before.is_empty(), "the kernel says nothing of the profile");
    // Somebody else's own profile is nobody's business.
    guest(cluster, "printf 'profile somebody-elses { file, }' | apparmor_parser -r -K")?;
    for deed in [
        format!("printf e2e-drifting > {POLICY}/.remove"),
        format!("printf 'e2e-drifting//child' > {POLICY}/.remove"),
        "printf 'profile e2e-drifting { file, }' | apparmor_parser -r -K".to_owned(),
        "printf 'profile e2e-drifting flags=(complain) { file, }' | apparmor_parser -r -K".to_owned(),
        "printf 'profile e2e-drifting//child { file, }' | apparmor_parser -r -K".to_owned(),
    ] {
        guest(cluster, &deed).with_context(|| format!("doing: {deed}"))?;
        wait_for(&format!("what was done to be repaired: {deed}"), PATIENCE, || {
            let kernel = kernel(cluster)?;
            let has = |line: &str| kernel.iter().any(|one| one == line);
            let is_whole = has("e2e-drifting (enforce)") && has("e2e-drifting//child (enforce)");
            Ok((is_whole && raw_digest(cluster, "e2e-drifting")? == before).then_some(()))
        })?;
    }
    expect_log(cluster, &["e2e-drifting", "Drift repaired"])?;
    ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/e2e-drifting")?, "its label is gone");
    ensure!(
        kernel(cluster)?.contains(&"somebody-elses (enforce)".to_owned()),
        "somebody else's profile went"
    );
    delete_bundle(cluster, "drifting-policy")?;
    wait_for_kernel(cluster, "e2e-drifting (enforce)", false)?;
    ensure!(
        kernel(cluster)?.contains(&"somebody-elses (enforce)".to_owned()),
        "somebody else's profile went"
    );
    guest(cluster, &format!("printf somebody-elses > {POLICY}/.remove")).map(drop)
}

fn a_renamed_bundle_hands_over(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("old-name", &[("a", &text("e2e-handed", "deny /tmp/one w,"))]))?;
    apply(cluster, &pod("handed", "e2e-handed"))?;
    wait_until_running(cluster, "handed")?;
    let before = raw_digest(cluster, "e2e-handed")?;
    // Creation times have seconds.
    std::thread::sleep(Duration::from_secs(1));
    apply(cluster, &bundle("new-name", &[("a", &text("e2e-handed", "deny /tmp/two w,"))]))?;
    expect_log(cluster, &["profile-taken", "old-name"])?;
    ensure!(raw_digest(cluster, "e2e-handed")? == before, "the younger bundle has taken the name");
    delete_bundle(cluster, "old-name")?;
    wait_for("the name to pass to the other bundle", PATIENCE, || {
        let digest = raw_digest(cluster, "e2e-handed")?;
        ensure!(!digest.is_empty(), "there was a gap");
        Ok((digest != before).then_some(()))
    })?;
    ensure!(exec(cluster, "handed", "echo > /tmp/two").is_err(), "the running process has the old rules");
    ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/e2e-handed")?, "the label is gone");
    // Longer than the removal delay of this cluster: what was handed over is not removed after all.
    std::thread::sleep(Duration::from_secs(5));
    ensure!(kernel(cluster)?.contains(&"e2e-handed (enforce)".to_owned()), "it was removed");
    delete_pod(cluster, "handed")?;
    delete_bundle(cluster, "new-name")
}

fn policy_comes_back_from_disk(cluster: &Cluster) -> anyhow::Result<()> {
    let names: Vec<String> = (0..8).map(|n| format!("e2e-kept-{n}")).collect();
    let texts: Vec<(String, String)> =
        names.iter().map(|name| (name.clone(), text(name, &format!("deny /tmp/{name} w,")))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
    apply(cluster, &bundle("kept-policy", &texts))?;
    for name in &names {
        wait_for_label(cluster, name, true)?;
    }
    let before = names.iter().map(|name| raw_digest(cluster, name)).collect::<anyhow::Result<Vec<_>>>()?;
    cluster.stop("kube-apiserver")?;
    let came_back = (|| {
        let wipe = format!("for n in {}; do printf $n > {POLICY}/.remove; done", names.join(" "));
        // In one go with the end of the agent, as a reboot is; and nobody is there to compile.
        guest(cluster, &format!("{KILL_THE_AGENT}; {KILL_THE_COMPILER}; {wipe}"))?;
        wait_for("all profiles to come back", PATIENCE, || {
            let kernel = kernel(cluster)?;
            Ok(names.iter().all(|name| kernel.contains(&format!("{name} (enforce)"))).then_some(()))
        })
    })();
    cluster.resume("kube-apiserver")?;
    came_back?;
    let after = names.iter().map(|name| raw_digest(cluster, name)).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(before == after, "what came back is something else");
    for name in &names {
        wait_for_label(cluster, name, true)?;
    }
    delete_bundle(cluster, "kept-policy")
}

fn a_batch_survives_a_kill(cluster: &Cluster) -> anyhow::Result<()> {
    let names: Vec<String> = (0..20).map(|n| format!("e2e-batch-{n}")).collect();
    let texts: Vec<(String, String)> =
        names.iter().map(|name| (name.clone(), text(name, &format!("deny /tmp/{name} w,")))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
    apply(cluster, &bundle("batch", &texts))?;
    wait_for("the first profiles of the batch", PATIENCE, || {
        Ok(kernel(cluster)?.iter().any(|line| line.starts_with("e2e-batch-")).then_some(()))
    })?;
    guest(cluster, KILL_THE_AGENT)?;
    for name in &names {
        wait_for_kernel(cluster, &format!("{name} (enforce)"), true)?;
        wait_for_label(cluster, name, true)?;
    }
    delete_bundle(cluster, "batch")?;
    for name in &names {
        wait_for_kernel(cluster, &format!("{name} (enforce)"), false)?;
    }
    Ok(())
}

fn hostile_texts_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    guest(cluster, "printf 'profile hosts-own { file, }' | apparmor_parser -r -K")?;
    let owned = ["hosts-own", "cri-containerd.apparmor.d"];
    let digests = || owned.iter().map(|name| raw_digest(cluster, name)).collect::<anyhow::Result<Vec<_>>>();
    let (before, names_before) = (digests()?, kernel(cluster)?);
    ensure!(!before[0].is_empty(), "the kernel says nothing of the host's own profile");

    let long = format!("profile {} {{ file, }}", "n".repeat(5000));
    let large = format!("profile e2e-large {{\n{}}}\n", "  /some/path/to/a/file r,\n".repeat(40_000));
    // Each star doubles the states of the automaton.
    let rules = (0..40).map(|n| format!("  /**{}*x*y*z**{n} rw,\n", "a*b*".repeat(n % 7 + 1)));
    let explosion = rules.collect::<Vec<_>>().concat();
    let explosion = format!("profile e2e-explosion {{\n{explosion}}}\n");
    let recursion = "profile e2e-recursion {\n  include <abstractions/../abstractions/base>\n}\n";
    let refused: &[(&str, &str, &str)] = &[
        ("syntax", "profile e2e-bad {\n  file\n}\n", "invalid-policy"),
        ("unclosed", "profile e2e-bad {\n  file,\n", "invalid-policy"),
        ("empty", "", "no-profile"),
        ("comment", "# nothing\n", "no-profile"),
        ("include", "profile e2e-bad {\n  include <abstractions/none>\n}\n", "missing-include"),
        ("abi", "abi <abi/99.0>,\nprofile e2e-bad { file, }\n", "unknown-abi"),
        ("absolute", "profile e2e-bad {\n  include \"/etc/hostname\"\n}\n", "foreign-include"),
        ("fifo", "profile e2e-bad {\n  include \"/proc/self/mem\"\n}\n", "foreign-include"),
        ("recursion", recursion, "foreign-include"),
        ("explosion", &explosion, "policy-limit"),
        ("twice", "profile e2e-bad { file, }\nprofile e2e-bad { file, }\n", "duplicate-profile"),
        ("variable", "@{x}=hosts-own\nprofile @{x} { file, }\n", "invalid-profile-name"),
        ("namespace", "profile :other:e2e-bad { file, }\n", "policy-namespace"),
        ("long", &long, "invalid-profile-name"),
        ("spaces", "profile \"e2e bad\" { file, }\n", "invalid-profile-name"),
        ("utf8", "profile e2e-bäd { file, }\n", "invalid-profile-name"),
        ("attached", "profile e2e-bad /usr/bin/** { file, }\n", "attachment"),
        ("path", "/usr/bin/e2e-bad { file, }\n", "invalid-profile-name"),
        ("unconfined", "profile e2e-bad flags=(unconfined) { file, }\n", "unconfined-profile"),
        ("runtimes", "profile cri-containerd.apparmor.d { file, }\n", "reserved-profile"),
    ];
    // Of two keys with one name, only the first would be looked at.
    let named: Vec<(&str, String)> = refused
        .iter()
        .map(|(key, text, _)| (*key, text.replace("e2e-bad", &format!("e2e-bad-{key}"))))
        .collect();
    let mut texts: Vec<(&str, &str)> = named.iter().map(|(key, text)| (*key, text.as_str())).collect();
    texts.extend([
        ("crlf", "profile e2e-crlf {\r\n  file,\r\n}\r\n"),
        ("no-newline", "profile e2e-no-newline { file, }"),
        ("hosts", "profile hosts-own { capability, }\n"),
    ]);
    apply(cluster, &bundle("hostile", &texts))?;
    apply(cluster, &bundle("hostile-large", &[("large", &large)]))?;
    for served in ["e2e-crlf", "e2e-no-newline", "e2e-large"] {
        wait_for_kernel(cluster, &format!("{served} (enforce)"), true)?;
    }
    for (key, _, code) in refused {
        expect_log(cluster, &[&format!("hostile/{key}"), &format!("[{code}]")])?;
    }
    // The name is another's on this node alone: no text can know that.
    expect_log(cluster, &["hosts-own", "taken"])?;
    ensure!(digests()? == before, "a profile of the host was replaced");
    let served = ["e2e-crlf", "e2e-no-newline", "e2e-large"];
    let strange: Vec<String> = kernel(cluster)?
        .into_iter()
        .filter(|line| !names_before.contains(line) && !served.iter().any(|name| line.starts_with(name)))
        .collect();
    ensure!(strange.is_empty(), "the kernel has what it was not to get: {strange:?}");
    ensure!(pavise::ask_agent(cluster, GUEST_NODE, "/readyz")? == "ready\n", "the agent is not ready");
    delete_bundle(cluster, "hostile")?;
    delete_bundle(cluster, "hostile-large")?;
    guest(cluster, &format!("printf hosts-own > {POLICY}/.remove")).map(drop)
}

fn a_compiler_may_die(cluster: &Cluster) -> anyhow::Result<()> {
    guest(cluster, KILL_THE_COMPILER)?;
    apply(cluster, &bundle("patient", &[("a", &text("e2e-patient", ""))]))?;
    wait_for_label(cluster, "e2e-patient", true)?;
    // One that hangs answers nobody; what is loaded stays, and what is new waits.
    let before = raw_digest(cluster, "e2e-patient")?;
    let signal = |name: &str| guest(cluster, &KILL_THE_COMPILER.replace("kill -9", &format!("kill -{name}")));
    signal("STOP")?;
    apply(cluster, &bundle("patient", &[("a", &text("e2e-patient", "deny /tmp/x w,"))]))?;
    std::thread::sleep(Duration::from_secs(3));
    let meanwhile = raw_digest(cluster, "e2e-patient");
    signal("CONT")?;
    ensure!(meanwhile? == before, "what was loaded did not stay when the compiler hung");
    wait_for("the edit to be loaded after all", PATIENCE, || {
        Ok((raw_digest(cluster, "e2e-patient")? != before).then_some(()))
    })?;
    delete_bundle(cluster, "patient")
}
