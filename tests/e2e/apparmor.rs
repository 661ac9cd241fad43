//! From a text in a ConfigMap to enforcement in a kernel that has AppArmor, and back; and a node beside it
//! that has none.
//!
//! What the kernel holds is read in the guest itself, not asked of the agent.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, PROFILES, SYSTEM};
use testbed::pods::{confined_pod, on};
use testbed::{GUEST_NODE, HOST_NODE};

use crate::Test;
use crate::steps::{apply, expect_refusal};

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
    ("a_compiler_that_is_killed_or_stopped_costs_time_and_no_profile", a_compiler_may_die),
];

/// A kernel in an emulator, and a kubelet that looks every ten seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than the removal delay of this cluster and the turn of the loop after it.
const LONG_AFTER: Duration = Duration::from_secs(6);
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
pub(crate) fn kernel(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
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

/// Claims that what runs in `pod` may not write there: not that it can't be asked.
fn expect_denied(cluster: &Cluster, pod: &str, path: &str) -> anyhow::Result<()> {
    let written = exec(cluster, pod, &format!("echo > {path}"));
    expect_refusal(&format!("writing {path}"), written, "Permission denied")
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
        Ok(is_logged(cluster, words)?.then_some(()))
    })
}

/// Whether a line of the log of the guest's agent has all these words.
pub(crate) fn is_logged(cluster: &Cluster, words: &[&str]) -> anyhow::Result<bool> {
    Ok(log(cluster)?.lines().any(|line| words.iter().all(|word| line.contains(word))))
}

/// A script that does `deed` with each process of `pavise <command>` in the guest, whose number is `$p`, and
/// prints these numbers.
fn each_process(command: &str, deed: &str) -> String {
    format!(
        "for d in /proc/[0-9]*; do p=${{d#/proc/}}; case \"$(tr '\\0' ' ' < $d/cmdline 2>/dev/null)\" in \
         */pavise\\ {command}*) {deed}; echo $p;; esac; done"
    )
}

/// Sends a signal to `pavise <command>` in the guest, and waits until it has had its effect, which shows as
/// `state` in `/proc/<pid>/status`. Returns the number of the process.
fn signal(cluster: &Cluster, command: &str, signal: &str, state: &str) -> anyhow::Result<String> {
    let process = guest(cluster, &each_process(command, &format!("kill -{signal} $p")))?.trim().to_owned();
    ensure!(process.parse::<u32>().is_ok(), "there is not one process of pavise {command}: {process:?}");
    wait_for(&format!("pavise {command} to be in the state {state}"), PATIENCE, || {
        Ok(state_of(cluster, &process)?.contains(state).then_some(()))
    })?;
    Ok(process)
}

/// One letter for what a process of the guest does: `T` is stopped. Empty if there is no such process.
fn state_of(cluster: &Cluster, process: &str) -> anyhow::Result<String> {
    let script =
        format!("sed -n 's/^State:[[:space:]]*\\(.\\).*/\\1/p' /proc/{process}/status 2>/dev/null; true");
    Ok(guest(cluster, &script)?.trim().to_owned())
}

/// How often `container` of the agent's pod on the guest's node was started again, by the kubelet's last
/// word.
fn restarts(cluster: &Cluster, container: &str) -> anyhow::Result<u64> {
    let pod = pavise::agent_pod(cluster, GUEST_NODE)?;
    let mut statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let status = statuses.find(|status| status["name"] == container);
    status
        .and_then(|status| status["restartCount"].as_u64())
        .with_context(|| format!("no status of {container}"))
}

/// Waits until the kubelet has said that it started `container` of the agent's pod once more than `before`,
/// and that it runs.
fn wait_for_restart(cluster: &Cluster, container: &str, before: u64) -> anyhow::Result<()> {
    wait_for(&format!("the container {container} to be started again"), PATIENCE, || {
        Ok((restarts(cluster, container)? > before).then_some(()))
    })
}

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
    expect_denied(cluster, "enforced", "/tmp/x")?;
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
    expect_denied(cluster, "edited", "/tmp/one")?;
    exec(cluster, "edited", "echo > /tmp/two").context("writing what is allowed")?;
    apply(cluster, &bundle("edited", &[("a", &text("e2e-edited", "deny /tmp/two w,"))]))?;
    wait_for("the running process to be under the new rules", PATIENCE, || {
        Ok(expect_denied(cluster, "edited", "/tmp/two").is_ok().then_some(()))
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
    std::thread::sleep(LONG_AFTER);
    ensure!(kernel(cluster)?.contains(&"e2e-used (enforce)".to_owned()), "it was removed while in use");
    expect_denied(cluster, "used", "/tmp/one").context("the running container is not confined")?;
    ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/e2e-used")?, "its label went before the pod");
    delete_pod(cluster, "used")?;
    wait_for_label(cluster, "e2e-used", false)?;
    wait_for_kernel(cluster, "e2e-used (enforce)", false)?;

    // A process that belongs to no pod keeps one as well. Another one: the log still speaks of the first.
    apply(cluster, &bundle("used", &[("a", &text("e2e-used-alone", ""))]))?;
    wait_for_kernel(cluster, "e2e-used-alone (enforce)", true)?;
    let process = guest(cluster, "aa-exec -p e2e-used-alone -- sleep 1800 >/dev/null 2>&1 & echo $!")?;
    let process = process.trim();
    wait_for("the process to be under the profile", PATIENCE, || {
        let current = guest(cluster, &format!("cat /proc/{process}/attr/current"))?;
        Ok((current.trim() == "e2e-used-alone (enforce)").then_some(()))
    })?;
    delete_bundle(cluster, "used")?;
    expect_log(cluster, &["e2e-used-alone", "retained", "process"])?;
    std::thread::sleep(LONG_AFTER);
    ensure!(
        kernel(cluster)?.contains(&"e2e-used-alone (enforce)".to_owned()),
        "it was removed under a process"
    );
    guest(cluster, &format!("kill {process}"))?;
    wait_for_kernel(cluster, "e2e-used-alone (enforce)", false)
}

fn drift_is_repaired(cluster: &Cluster) -> anyhow::Result<()> {
    let hat = "  ^hat {\n    file,\n  }\n";
    let with_child = format!(
        "#include <tunables/global>\nprofile e2e-drifting {{\n  #include <abstractions/base>\n  file,\n  \
         profile child {{\n    file,\n  }}\n{hat}}}\n"
    );
    let parts = ["", "//child", "//hat"];
    apply(cluster, &bundle("drifting-policy", &[("a", &with_child)]))?;
    wait_for_label(cluster, "e2e-drifting", true)?;
    let before = raw_digest(cluster, "e2e-drifting")?;
    ensure!(!before.is_empty(), "the kernel says nothing of the profile");
    // Somebody else's own profile is nobody's business.
    guest(cluster, "printf 'profile somebody-elses { file, }' | apparmor_parser -r -K")?;
    for deed in [
        format!("printf e2e-drifting > {POLICY}/.remove"),
        format!("printf 'e2e-drifting//child' > {POLICY}/.remove"),
        format!("printf 'e2e-drifting//hat' > {POLICY}/.remove"),
        "printf 'profile e2e-drifting { file, }' | apparmor_parser -r -K".to_owned(),
        "printf 'profile e2e-drifting flags=(complain) { file, }' | apparmor_parser -r -K".to_owned(),
        "printf 'profile e2e-drifting//child { file, }' | apparmor_parser -r -K".to_owned(),
    ] {
        guest(cluster, &deed).with_context(|| format!("doing: {deed}"))?;
        wait_for(&format!("what was done to be repaired: {deed}"), PATIENCE, || {
            let kernel = kernel(cluster)?;
            let is_whole = parts.iter().all(|part| kernel.contains(&format!("e2e-drifting{part} (enforce)")));
            Ok((is_whole && raw_digest(cluster, "e2e-drifting")? == before).then_some(()))
        })?;
    }
    expect_log(cluster, &["e2e-drifting", "Drift repaired"])?;
    ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/e2e-drifting")?, "its label is gone");
    ensure!(
        kernel(cluster)?.contains(&"somebody-elses (enforce)".to_owned()),
        "somebody else's profile went"
    );
    // A hat that an edit drops goes. The rest stays.
    apply(cluster, &bundle("drifting-policy", &[("a", &with_child.replace(hat, ""))]))?;
    wait_for_kernel(cluster, "e2e-drifting//hat (enforce)", false)?;
    for stays in ["e2e-drifting (enforce)", "e2e-drifting//child (enforce)"] {
        ensure!(kernel(cluster)?.contains(&stays.to_owned()), "{stays} went with the hat");
    }
    // With the hat again, so that the profile is removed with all its parts.
    apply(cluster, &bundle("drifting-policy", &[("a", &with_child)]))?;
    wait_for_kernel(cluster, "e2e-drifting//hat (enforce)", true)?;
    delete_bundle(cluster, "drifting-policy")?;
    for part in parts {
        wait_for_kernel(cluster, &format!("e2e-drifting{part} (enforce)"), false)?;
    }
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
    expect_denied(cluster, "handed", "/tmp/two").context("the running process has the old rules")?;
    ensure!(label(cluster, GUEST_NODE, "apparmor.pavise.dev/e2e-handed")?, "the label is gone");
    // What was handed over is not removed after all.
    std::thread::sleep(LONG_AFTER);
    ensure!(kernel(cluster)?.contains(&"e2e-handed (enforce)".to_owned()), "it was removed");
    delete_pod(cluster, "handed")?;
    delete_bundle(cluster, "new-name")
}

/// A text for each of these names, by keys that are called as they are.
fn texts(names: &[String]) -> Vec<(&str, String)> {
    names.iter().map(|name| (name.as_str(), text(name, &format!("deny /tmp/{name} w,")))).collect()
}

fn bundle_of(name: &str, texts: &[(&str, String)]) -> Value {
    bundle(name, &texts.iter().map(|(key, text)| (*key, text.as_str())).collect::<Vec<_>>())
}

fn policy_comes_back_from_disk(cluster: &Cluster) -> anyhow::Result<()> {
    let names: Vec<String> = (0..8).map(|n| format!("e2e-kept-{n}")).collect();
    let taken = "e2e-kept-taken".to_owned();
    let all = [&names[..], std::slice::from_ref(&taken)].concat();
    apply(cluster, &bundle_of("kept-policy", &texts(&all)))?;
    for name in &all {
        wait_for_label(cluster, name, true)?;
    }
    let digests = || names.iter().map(|name| raw_digest(cluster, name)).collect::<anyhow::Result<Vec<_>>>();
    let before = digests()?;
    ensure!(before.iter().all(|digest| !digest.is_empty()), "the kernel says nothing of the profiles");
    // What somebody else loads under a name of ours after the boot.
    let compile = format!("printf 'profile {taken} {{ file, }}' | apparmor_parser -S -K -Q > /tmp/theirs");
    guest(cluster, &compile)?;
    let restarts = restarts(cluster, "agent")?;

    cluster.stop("kube-apiserver")?;
    // Nobody compiles: a compiler that was killed would be started again.
    let compiler = signal(cluster, "compiler", "STOP", "T");
    let came_back = compiler.and_then(|compiler| {
        // The agent sees nothing of what happens to the policy before its end.
        signal(cluster, "agent", "STOP", "T")?;
        reboot(cluster, &all)?;
        guest(cluster, &format!("cat /tmp/theirs > {POLICY}/.replace"))?;
        guest(cluster, &each_process("agent", "kill -9 $p"))?;
        wait_for("all profiles to come back", PATIENCE, || {
            let kernel = kernel(cluster)?;
            Ok(names.iter().all(|name| kernel.contains(&format!("{name} (enforce)"))).then_some(()))
        })?;
        ensure!(state_of(cluster, &compiler)? == "T", "the compiler did not stay stopped");
        guest(cluster, &format!("umount {BOOT_ID}")).map(drop)
    });
    let goes_on = guest(cluster, &each_process("compiler", "kill -CONT $p"));
    cluster.resume("kube-apiserver")?;
    came_back?;
    goes_on?;

    wait_for_restart(cluster, "agent", restarts)?;
    ensure!(digests()? == before, "what came back is something else");
    // All of this was done by the new agent, before it knew of any bundle.
    expect_log(cluster, &["Bundles listed"])?;
    let log = log(cluster)?;
    let early: Vec<&str> = log.lines().take_while(|line| !line.contains("Bundles listed")).collect();
    for name in &names {
        let is_loaded = |line: &str| line.contains("Profile loaded") && line.contains(name.as_str());
        ensure!(early.iter().any(|line| is_loaded(line)), "{name} was not loaded from the disk:\n{log}");
    }
    ensure!(!log.contains("Drift repaired"), "another agent did it:\n{log}");
    // It was another boot: in the same one, this is a drift.
    let given_up = |line: &str| line.contains(&taken) && line.contains("since the reboot");
    ensure!(early.iter().any(|line| given_up(line)), "nothing is said of {taken}:\n{log}");
    wait_for_label(cluster, &taken, false)?;
    for name in &names {
        wait_for_label(cluster, name, true)?;
    }
    delete_bundle(cluster, "kept-policy")?;
    guest(cluster, &format!("printf {taken} > {POLICY}/.remove")).map(drop)
}

/// What tells one boot of a kernel from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Does to the guest what a reboot does, as far as it is seen by an agent that is started after it: these
/// profiles are gone, and the boot has another number, until [`BOOT_ID`] is unmounted.
fn reboot(cluster: &Cluster, profiles: &[String]) -> anyhow::Result<()> {
    let wipe = format!("for n in {}; do printf $n > {POLICY}/.remove; done", profiles.join(" "));
    let boot = format!("cat /proc/sys/kernel/random/uuid > /tmp/boot && mount --bind /tmp/boot {BOOT_ID}");
    guest(cluster, &format!("set -e; {wipe}; {boot}")).map(drop)
}

fn a_batch_survives_a_kill(cluster: &Cluster) -> anyhow::Result<()> {
    const MANY: usize = 20;
    // The guest may be too fast for it, or this machine too slow.
    for attempt in 0..5 {
        let names: Vec<String> = (0..MANY).map(|n| format!("e2e-batch-{attempt}-{n}")).collect();
        let restarts = restarts(cluster, "agent")?;
        apply(cluster, &bundle_of("batch", &texts(&names)))?;
        // Stopped, it loads nothing more between the look and its end.
        let count = format!("grep -c '^e2e-batch-{attempt}-' {POLICY}/profiles");
        let begun = format!("until {count} > /dev/null; do :; done");
        let end = each_process("agent", "kill -9 $p");
        let kill = format!(
            "{begun}; {}; n=$({count}); if [ $n -lt {MANY} ]; then {end}; else {}; fi; echo $n",
            each_process("agent", "kill -STOP $p"),
            each_process("agent", "kill -CONT $p"),
        );
        let said = guest(cluster, &kill)?;
        let loaded: usize = said.lines().last().unwrap_or_default().parse().context("counting profiles")?;
        if loaded < MANY {
            wait_for_restart(cluster, "agent", restarts)?;
        }
        for name in &names {
            wait_for_kernel(cluster, &format!("{name} (enforce)"), true)?;
            wait_for_label(cluster, name, true)?;
        }
        delete_bundle(cluster, "batch")?;
        for name in &names {
            wait_for_kernel(cluster, &format!("{name} (enforce)"), false)?;
        }
        if loaded < MANY {
            return Ok(());
        }
    }
    bail!("each time all profiles were loaded before the agent could be killed")
}

fn a_compiler_may_die(cluster: &Cluster) -> anyhow::Result<()> {
    let before = restarts(cluster, "compiler")?;
    guest(cluster, &each_process("compiler", "kill -9 $p"))?;
    apply(cluster, &bundle("patient", &[("a", &text("e2e-patient", ""))]))?;
    wait_for_label(cluster, "e2e-patient", true)?;
    wait_for_restart(cluster, "compiler", before)?;

    // One that hangs answers nobody. What is loaded stays and is repaired, and what is new waits.
    let (digest, restarts_before) = (raw_digest(cluster, "e2e-patient")?, restarts(cluster, "compiler")?);
    let process = signal(cluster, "compiler", "STOP", "T")?;
    apply(cluster, &bundle("patient", &[("a", &text("e2e-patient", "deny /tmp/x w,"))]))?;
    let meanwhile = (|| {
        // Also after it had time to see the edit.
        std::thread::sleep(Duration::from_secs(3));
        guest(cluster, &format!("printf e2e-patient > {POLICY}/.remove"))?;
        wait_for_kernel(cluster, "e2e-patient (enforce)", true)?;
        anyhow::Ok((raw_digest(cluster, "e2e-patient")?, state_of(cluster, &process)?))
    })();
    guest(cluster, &each_process("compiler", "kill -CONT $p"))?;
    let (digest_meanwhile, state) = meanwhile?;
    ensure!(digest_meanwhile == digest, "what was loaded did not stay when the compiler hung");
    ensure!(state == "T", "the compiler did not hang: it is in the state {state:?}");
    wait_for("the edit to be loaded after all", PATIENCE, || {
        Ok((raw_digest(cluster, "e2e-patient")? != digest).then_some(()))
    })?;
    ensure!(restarts(cluster, "compiler")? == restarts_before, "it was started again instead of going on");
    delete_bundle(cluster, "patient")
}
