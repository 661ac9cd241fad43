//! However a cluster's owner ends, nothing of the cluster stays.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::layout::Layout;
use testbed::machine::Machine;
use testbed::node::Kind;

use crate::Test;
use crate::steps::PATIENCE;

pub(crate) const TESTS: &[(&str, Test)] =
    &[("a_killed_owner_leaves_nothing_behind", a_killed_owner_leaves_nothing_behind)];

const HOLD: &str = "hold-a-cluster";
const NAME: &str = "guard";

/// Brings a cluster up and keeps it until this process is killed, when it was started for that.
pub(crate) fn hold_a_cluster_if_asked() {
    if std::env::args().nth(1).as_deref() == Some(HOLD) {
        match Cluster::up(NAME, &Kind::ALL, &[], &[]) {
            Ok(_cluster) => {
                println!("up");
                std::thread::sleep(Duration::from_mins(10));
            }
            Err(error) => println!("{error:#}"),
        }
        std::process::exit(1);
    }
}

/// The machine as it is, if it has not changed for a while. A kubelet cleans up every two seconds.
fn at_rest() -> anyhow::Result<Option<Machine>> {
    let machine = Machine::observe()?;
    std::thread::sleep(Duration::from_secs(5));
    Ok(machine.expect_unchanged().is_ok().then_some(machine))
}

fn a_killed_owner_leaves_nothing_behind(_: &Cluster) -> anyhow::Result<()> {
    let before = wait_for("the pods of other tests to be gone", PATIENCE, at_rest)?;
    let mut owner = Command::new(std::env::current_exe()?)
        .arg(HOLD)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = owner.stdout.take().context("the owner has no standard output")?;
    let line = BufReader::new(output).lines().next().context("the owner says nothing")??;
    ensure!(line == "up", "the owner's cluster did not come up: {line}");
    ensure!(
        before.expect_unchanged().is_err(),
        "a running cluster is not noticed: the comparison is worth nothing"
    );

    owner.kill().context("killing the owner")?;
    owner.wait()?;
    let gone = || Ok((!Layout::new(NAME).state().exists()).then_some(()));
    wait_for("the cluster's directory to be removed", Duration::from_secs(15), gone)?;
    before.expect_unchanged()
}
