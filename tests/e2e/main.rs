//! End-to-end tests: every claim here is tested on a real cluster, with Pavise deployed from its own image
//! and manifests.
//!
//! The cluster is brought up once, for all tests, and taken down after them; then the machine has to be as it
//! was before. Tests run one after another: some of them kill the agent. When one fails, the state of the
//! cluster and the agent's log are printed.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use testbed::cluster::Cluster;
use testbed::machine::Machine;
use testbed::node::Kind;
use testbed::{pavise, progress};

mod apparmor;
mod canary;
mod catalog;
mod check;
mod container;
mod drift;
mod enforcement;
mod guard;
mod guest;
mod hostile;
mod in_use;
mod levels;
mod observe;
mod own_node;
mod pending;
mod place;
mod podman;
mod policies;
mod profile_catalog;
mod references;
mod report;
mod resilience;
mod said;
mod steps;
mod sync;
mod taint;
mod targeting;

/// What a test is given, and what it answers.
type Test = fn(&Cluster) -> anyhow::Result<()>;

fn main() -> ExitCode {
    testbed::init::run_if_asked();
    guard::hold_a_cluster_if_asked();
    testbed::exit_code(run(Arguments::from_args()))
}

/// Whether all tests passed and nothing was left behind.
fn run(mut arguments: Arguments) -> anyhow::Result<bool> {
    arguments.test_threads = Some(1);
    if arguments.list {
        libtest_mimic::run(&arguments, trials(None)).exit();
    }
    let before = Machine::observe()?;
    let cluster = Arc::new(pavise::up("test", &Kind::ALL)?);
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&cluster)));
    let cluster =
        Arc::into_inner(cluster).ok_or_else(|| anyhow::anyhow!("a test still holds the cluster"))?;
    progress::step("Ending the cluster", || cluster.down())?;
    before.expect_unchanged()?;
    Ok(!conclusion.has_failed())
}

fn trials(cluster: Option<&Arc<Cluster>>) -> Vec<Trial> {
    let tests = taint::TESTS
        .iter()
        .chain(sync::TESTS)
        .chain(targeting::TESTS)
        .chain(podman::TESTS)
        .chain(drift::TESTS)
        .chain(resilience::TESTS)
        .chain(catalog::TESTS)
        .chain(pending::TESTS)
        .chain(profile_catalog::TESTS)
        .chain(levels::TESTS)
        .chain(place::TESTS)
        .chain(policies::TESTS)
        .chain(check::TESTS)
        .chain(apparmor::TESTS)
        .chain(hostile::TESTS)
        .chain(container::TESTS)
        .chain(observe::TESTS)
        .chain(report::TESTS)
        .chain(guest::TESTS)
        .chain(references::TESTS)
        .chain(enforcement::TESTS)
        .chain(in_use::TESTS)
        .chain(canary::TESTS)
        .chain(guard::TESTS)
        .map(|(name, test)| trial(name, cluster, *test));
    tests.chain(own_node::trials(cluster)).collect()
}

fn trial(
    name: &str,
    cluster: Option<&Arc<Cluster>>,
    test: impl FnOnce(&Cluster) -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    let cluster = cluster.cloned();
    Trial::test(name, move || {
        let cluster = cluster.ok_or("there is no cluster")?;
        test(&cluster).map_err(|error| {
            let state = pavise::state(&cluster).unwrap_or_else(|error| format!("{error:#}"));
            Failed::from(format!("{state}\n\n{error:#}"))
        })
    })
}
