//! Whether running containers are really under the profile that they ask for, as their kernel says.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::PROFILES;
use testbed::pods::bundle;
use testbed::{GUEST_NODE, HOST_NODE};

use crate::said::{
    Counted, Finding, Kind, delete_pods, entries_of, events, expect_reported, expect_said, report,
    sleeping_pod,
};
use crate::steps::{ALLOW, LOG, PATIENCE, apply, expect_filter, wait_for_file, wait_until_running};
use crate::{Test, apparmor};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_container_under_its_seccomp_profile_is_enforced_and_a_privileged_one_is_told", privileged_is_told),
    ("a_container_from_before_an_edit_is_outdated_until_it_is_started_anew", an_edit_makes_outdated),
    (
        "a_container_under_its_apparmor_profile_is_enforced_and_not_by_one_that_complains",
        apparmor_is_enforced,
    ),
    ("a_container_that_lost_its_apparmor_profile_is_told", a_lost_profile_is_told),
    ("the_kubelets_default_for_seccomp_is_told_from_what_runs", the_kubelets_default_is_told),
];

fn containers(kind: Kind, state: &str) -> String {
    format!("pavise_containers{{kind=\"{}\",state=\"{state}\"}}", kind.as_str())
}

/// A pod of one container on the host's node that sleeps under the seccomp profile `reference`.
fn confined(name: &str, reference: &str) -> Value {
    let mut pod = sleeping_pod(name, HOST_NODE);
    pod["spec"]["containers"][0]["securityContext"] = Kind::Seccomp.context(reference);
    pod
}

fn delete_bundle(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    cluster.kubectl().run(&["delete", "configmap", name, "-n", PROFILES]).map(drop)
}

fn privileged_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let reference = "enforced-here/a.json";
    apply(cluster, &bundle("enforced-here", &[("a.json", ALLOW)]))?;
    wait_for_file(cluster, reference, Some(ALLOW))?;
    let counted = Counted::on(cluster, HOST_NODE)?;
    let mut privileged = confined("privileged", reference);
    privileged["spec"]["containers"][0]["securityContext"]["privileged"] = json!(true);
    apply(cluster, &confined("not-privileged", reference))?;
    apply(cluster, &privileged)?;
    wait_until_running(cluster, "not-privileged")?;
    wait_until_running(cluster, "privileged")?;
    expect_filter(cluster, "default", "not-privileged")?;
    ensure!(
        expect_filter(cluster, "default", "privileged").is_err(),
        "a privileged container is under a filter: the test is worth nothing"
    );

    let finding = Finding::of_main("privileged", Kind::Seccomp, reference, "ProfileNotEnforced");
    expect_said(cluster, HOST_NODE, PATIENCE, &[Finding { words: &["privileged"], ..finding }])?;
    let problem = "pavise_pod_problems{kind=\"seccomp\",reason=\"ProfileNotEnforced\"}";
    let [enforced, not_enforced] = ["enforced", "not_enforced"].map(|state| containers(Kind::Seccomp, state));
    counted.expect_more(PATIENCE, &[(problem, 1), (&enforced, 1), (&not_enforced, 1)])?;
    ensure!(events(cluster, "not-privileged")?.is_empty(), "all is well with it");
    ensure!(entries_of(cluster, HOST_NODE, "not-privileged")?.is_empty(), "all is well with it");
    delete_pods(cluster, &["privileged", "not-privileged"])?;
    counted.expect_more(PATIENCE, &[(problem, 0), (&enforced, 0), (&not_enforced, 0)])?;
    delete_bundle(cluster, "enforced-here")
}

fn an_edit_makes_outdated(cluster: &Cluster) -> anyhow::Result<()> {
    let (name, reference) = ("from-before", "edited-under/a.json");
    apply(cluster, &bundle("edited-under", &[("a.json", ALLOW)]))?;
    wait_for_file(cluster, reference, Some(ALLOW))?;
    let counted = Counted::on(cluster, HOST_NODE)?;
    let (enforced, outdated) = (containers(Kind::Seccomp, "enforced"), containers(Kind::Seccomp, "outdated"));
    apply(cluster, &confined(name, reference))?;
    wait_until_running(cluster, name)?;
    counted.expect_more(PATIENCE, &[(&enforced, 1), (&outdated, 0)])?;

    // A file that is as old as a container can't be told from one that came after it.
    std::thread::sleep(std::time::Duration::from_secs(1));
    apply(cluster, &bundle("edited-under", &[("a.json", LOG)]))?;
    counted.expect_more(PATIENCE, &[(&enforced, 0), (&outdated, 1)])?;
    let finding = Finding::of_main(name, Kind::Seccomp, reference, "ProfileOutdated");
    expect_reported(cluster, HOST_NODE, PATIENCE, &[finding])?;
    ensure!(events(cluster, name)?.is_empty(), "each edit would be an Event for every pod");

    std::thread::sleep(std::time::Duration::from_secs(1));
    delete_pods(cluster, &[name])?;
    apply(cluster, &confined(name, reference))?;
    wait_until_running(cluster, name)?;
    counted.expect_more(PATIENCE, &[(&enforced, 1), (&outdated, 0)])?;
    wait_for("the report to leave it out", PATIENCE, || {
        Ok(entries_of(cluster, HOST_NODE, name)?.is_empty().then_some(()))
    })?;
    delete_pods(cluster, &[name])?;
    delete_bundle(cluster, "edited-under")
}

fn apparmor_is_enforced(cluster: &Cluster) -> anyhow::Result<()> {
    let complaining = apparmor::text("e2e-complaining", "")
        .replace("flags=(attach_disconnected)", "flags=(attach_disconnected, complain)");
    let texts = [("a", apparmor::text("e2e-enforcing", "deny /tmp/x w,")), ("b", complaining)];
    let texts = texts.each_ref().map(|(key, text)| (*key, text.as_str()));
    apply(cluster, &apparmor::bundle("enforcing", &texts))?;
    apparmor::wait_for_kernel(cluster, "e2e-enforcing (enforce)", true)?;
    apparmor::wait_for_kernel(cluster, "e2e-complaining (complain)", true)?;
    let counted = Counted::on(cluster, GUEST_NODE)?;
    let names = ["enforcing", "complaining"];
    for name in names {
        apply(cluster, &apparmor::pod(name, &format!("e2e-{name}")))?;
    }
    for name in names {
        apparmor::wait_until_running(cluster, name)?;
    }
    let more =
        [(&*containers(Kind::AppArmor, "enforced"), 1), (&*containers(Kind::AppArmor, "not_enforced"), 1)];
    counted.expect_more(apparmor::PATIENCE, &more)?;
    // The profile is there, so it resolves; and it confines nobody.
    let finding = Finding::of_main("complaining", Kind::AppArmor, "e2e-complaining", "ProfileNotEnforced");
    expect_said(cluster, GUEST_NODE, apparmor::PATIENCE, &[Finding { words: &["complain"], ..finding }])?;
    let said = events(cluster, "enforcing")?;
    ensure!(said.is_empty(), "all is well with the other one: {said:?}");
    delete_pods(cluster, &names)?;
    apparmor::delete_bundle(cluster, "enforcing")
}

/// Taking a profile out of the kernel leaves its processes without, also when it comes back.
fn a_lost_profile_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    let name = "e2e-lifted";
    apply(cluster, &apparmor::bundle("lifted", &[("a", &apparmor::text(name, "deny /tmp/x w,"))]))?;
    apparmor::wait_for_kernel(cluster, "e2e-lifted (enforce)", true)?;
    let counted = Counted::on(cluster, GUEST_NODE)?;
    let enforced = containers(Kind::AppArmor, "enforced");
    apply(cluster, &apparmor::pod("lifted", name))?;
    apparmor::wait_until_running(cluster, "lifted")?;
    counted.expect_more(apparmor::PATIENCE, &[(&enforced, 1)])?;

    apparmor::guest(cluster, &format!("printf {name} > {}/.remove", apparmor::POLICY))?;
    apparmor::wait_for_kernel(cluster, "e2e-lifted (enforce)", true)?;
    let current = cluster.kubectl().run(&["exec", "lifted", "--", "cat", "/proc/1/attr/current"])?;
    ensure!(current.trim() == "unconfined", "it is under {current}: the test is worth nothing");
    let finding = Finding::of_main("lifted", Kind::AppArmor, name, "ProfileNotEnforced");
    expect_said(cluster, GUEST_NODE, apparmor::PATIENCE, &[finding])?;
    counted.expect_more(apparmor::PATIENCE, &[(&enforced, 0)])?;

    delete_pods(cluster, &["lifted"])?;
    apply(cluster, &apparmor::pod("lifted", name))?;
    apparmor::wait_until_running(cluster, "lifted")?;
    counted.expect_more(apparmor::PATIENCE, &[(&enforced, 1)])?;
    wait_for("the report to leave it out", PATIENCE, || {
        Ok(entries_of(cluster, GUEST_NODE, "lifted")?.is_empty().then_some(()))
    })?;
    delete_pods(cluster, &["lifted"])?;
    apparmor::delete_bundle(cluster, "lifted")
}

fn the_kubelets_default_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &sleeping_pod("by-default", HOST_NODE))?;
    wait_until_running(cluster, "by-default")?;
    // The kubelets of this cluster are told nothing of it, and that is what they then do.
    let default = wait_for("the report to tell the kubelet's default", PATIENCE, || {
        let told = report(cluster, HOST_NODE)?["status"]["node"]["kubeletSeccompDefault"].take();
        Ok(told.as_str().filter(|told| *told != "Unknown").map(str::to_owned))
    })
    .context("a container runs of which nothing is said")?;
    ensure!(default == "Unconfined", "the report says {default}");
    delete_pods(cluster, &["by-default"])
}
