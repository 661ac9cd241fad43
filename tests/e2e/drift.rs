//! What somebody does to files of ours while the agent runs is noticed and repaired, with the API server and
//! without.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use testbed::cluster::Cluster;
use testbed::kubectl::{retry, wait_for};
use testbed::pavise;
use testbed::pods::bundle;

use crate::Test;
use crate::resilience::restarts;
use crate::steps::{ALLOW, SOON, apply, expect_log, file, labels, wait_for_labels, written_labels};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("drift_of_every_kind_is_repaired_and_no_label_flaps", drift_of_every_kind_is_repaired),
    ("the_version_before_a_refused_edit_is_put_back", the_version_before_a_refused_edit_is_put_back),
    ("drift_is_repaired_while_the_api_server_is_away", drift_is_repaired_without_an_api_server),
    ("a_directory_that_was_removed_comes_back_with_its_profiles", a_removed_directory_comes_back),
    (
        "drift_of_the_kubelets_own_directory_is_repaired_by_a_new_container",
        a_lost_seccomp_directory_comes_back,
    ),
];

/// How long a repair may take where the kubelet has to start the agent's container again.
const RESTART: Duration = Duration::from_mins(1);

/// What somebody does to a file.
type Deed = fn(&Path) -> std::io::Result<()>;

const DEEDS: &[(&str, Deed)] = &[
    ("changed", |file| fs::write(file, "{}")),
    ("truncated", |file| fs::File::create(file).map(drop)),
    ("deleted", |file| fs::remove_file(file)),
    ("given another mode", |file| fs::set_permissions(file, fs::Permissions::from_mode(0o666))),
    ("replaced by a link", |file| fs::remove_file(file).and_then(|()| symlink("/etc/passwd", file))),
    ("replaced by a directory", |file| fs::remove_file(file).and_then(|()| fs::create_dir(file))),
];

fn drift_of_every_kind_is_repaired(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("drifting", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/drifting_a.json"])?;
    // Our labels are part of the Node, which the kubelet writes too: what counts is who wrote the labels, and
    // when.
    let before = written_labels(cluster)?;
    let path = file(cluster, "drifting/a.json");
    for (what, deed) in DEEDS {
        deed(&path).with_context(|| format!("having the file {what}"))?;
        wait_until_right(&path).with_context(|| format!("the file was {what}"))?;
    }
    ensure!(written_labels(cluster)? == before, "labels were written for what was repaired");
    expect_log(cluster, &["drifting/a.json", "Drift repaired"])
}

fn the_version_before_a_refused_edit_is_put_back(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("regretted", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/regretted_a.json"])?;
    apply(cluster, &bundle("regretted", &[("a.json", "{}")]))?;
    expect_log(cluster, &["regretted/a.json", "Profile refused; the version before it stays"])?;
    let path = file(cluster, "regretted/a.json");
    fs::remove_file(&path).context("removing the file")?;
    wait_until_right(&path)?;

    // The next agent reads from the disk what no bundle has any more.
    let before = restarts(cluster)?;
    kill(pavise::agent_process(cluster)?, Signal::SIGKILL).context("killing the agent")?;
    wait_for("the next agent to be ready", RESTART, || {
        Ok(restarts(cluster)?.is_some_and(|now| Some(now) > before).then_some(()))
    })?;
    fs::remove_file(&path).context("removing the file")?;
    wait_until_right(&path)
}

fn drift_is_repaired_without_an_api_server(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("alone", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/alone_a.json"])?;
    let path = file(cluster, "alone/a.json");
    cluster.stop("kube-apiserver")?;
    let repaired = fs::remove_file(&path).context("removing the file").and_then(|()| wait_until_right(&path));
    cluster.resume("kube-apiserver")?;
    repaired?;
    ensure!(labels(cluster)?["seccomp.pavise.dev/alone_a.json"] == "true", "the label is gone");
    // The watches go on after the interruption.
    apply(cluster, &bundle("alone", &[("a.json", ALLOW), ("b.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/alone_b.json"])
}

fn a_removed_directory_comes_back(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("emptied", &[("a.json", ALLOW), ("b.json", ALLOW)]))?;
    wait_for_labels(cluster, &["bundle.pavise.dev/emptied"])?;
    remove_directory(&file(cluster, "emptied"))?;
    wait_until_right(&file(cluster, "emptied/a.json"))?;
    wait_until_right(&file(cluster, "emptied/b.json"))
}

/// A container keeps the directory that it was started with. When that is gone from the node, only a new one
/// can see the next.
fn a_lost_seccomp_directory_comes_back(cluster: &Cluster) -> anyhow::Result<()> {
    apply(cluster, &bundle("lost", &[("a.json", ALLOW)]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/lost_a.json"])?;
    remove_directory(&file(cluster, ""))?;
    wait_for("the profiles to come back", RESTART, || {
        Ok((fs::read_to_string(file(cluster, "lost/a.json")).ok().as_deref() == Some(ALLOW)).then_some(()))
    })?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/lost_a.json"])
}

/// The agent may put files back while their directory is being removed.
fn remove_directory(path: &Path) -> anyhow::Result<()> {
    retry(&format!("{} to be removed", path.display()), SOON, || Ok(fs::remove_dir_all(path)?))
}

fn wait_until_right(path: &Path) -> anyhow::Result<()> {
    wait_for(&format!("{} to be put right", path.display()), SOON, || {
        let is_right = || -> std::io::Result<bool> {
            let metadata = fs::symlink_metadata(path)?;
            let is_ours = metadata.is_file() && metadata.permissions().mode() & 0o7777 == 0o644;
            Ok(is_ours && fs::read_to_string(path)? == ALLOW)
        };
        Ok(is_right().unwrap_or_default().then_some(()))
    })
}
