//! The manifests on API servers of older Kubernetes versions: what each of them takes, and what it lacks.
//!
//! There are no nodes and no controllers: etcd and kube-apiserver judge requests, and that is what policies are.
//! The tests of a version share its API server, which ends with them; then the machine has to be as it was
//! before. `cargo xtask test --full` runs them.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use testbed::cluster::Cluster;
use testbed::kubectl::{Kubectl, wait_for};
use testbed::machine::Machine;
use testbed::{command, progress, repository, tools};

mod base;
mod levels;

/// Each has a directory beside this file that says which patch it is.
const VERSIONS: &[&str] = &["1.35", "1.30"];

/// How long an API server may take to enforce a policy that it has accepted: it looks for the kinds of policies'
/// parameters every half minute.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a test is given, and what it answers.
type Test = fn(&Kubectl) -> anyhow::Result<()>;

fn main() -> ExitCode {
    testbed::init::run_if_asked();
    testbed::exit_code(run(Arguments::from_args()))
}

/// Whether all tests passed and nothing was left behind.
fn run(mut arguments: Arguments) -> anyhow::Result<bool> {
    arguments.test_threads = Some(1);
    if arguments.list {
        let all = VERSIONS.iter().flat_map(|version| trials(version, None)).collect();
        libtest_mimic::run(&arguments, all).exit();
    }
    let before = Machine::observe()?;
    let mut has_failed = false;
    for version in VERSIONS {
        has_failed |= has_failed_on(version, &arguments)
            .with_context(|| format!("trying the manifests on Kubernetes {version}"))?;
    }
    before.expect_unchanged()?;
    Ok(!has_failed)
}

/// Whether a test failed on an API server of `version`.
fn has_failed_on(version: &str, arguments: &Arguments) -> anyhow::Result<bool> {
    let program = tools::older_api_server(version)?;
    let cluster = Cluster::of_api_server(&format!("older-{}", version.replace('.', "-")), &program)?;
    progress::step("Applying the base and the component validate", || set_up(&cluster.kubectl()))?;
    let conclusion = libtest_mimic::run(arguments, trials(version, Some(&Arc::new(cluster.kubectl()))));
    cluster.down()?;
    Ok(conclusion.has_failed())
}

fn trials(version: &str, kubectl: Option<&Arc<Kubectl>>) -> Vec<Trial> {
    let trial = |(name, test): &(&str, Test)| {
        let (test, kubectl) = (*test, kubectl.cloned());
        Trial::test(format!("kubernetes {version}: {name}"), move || {
            let kubectl = kubectl.ok_or("there is no API server")?;
            test(&kubectl).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    base::TESTS.iter().chain(levels::TESTS).map(trial).collect()
}

/// Applies the manifests, and returns when the policies are enforced.
fn set_up(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.apply(&manifests(kubectl, "validate")?)?;
    kubectl
        .apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": base::NODE}}).to_string())?;
    levels::set_up(kubectl)?;
    wait_for("the policies to be enforced", PATIENCE, || {
        Ok((base::is_enforced(kubectl)? && levels::are_enforced(kubectl)?).then_some(()))
    })
}

/// The base with `component`, as YAML.
fn manifests(kubectl: &Kubectl, component: &str) -> anyhow::Result<String> {
    let overlay = repository().join("tests/older").join(component).display().to_string();
    kubectl.run(&["kustomize", &overlay])
}

/// What came of a request.
#[derive(Debug)]
struct Outcome {
    is_accepted: bool,
    /// Warnings, and why it was refused.
    said: String,
}

/// Sends what is not to be stored.
fn try_to_create(kubectl: &Kubectl, manifest: &Value) -> anyhow::Result<Outcome> {
    try_with(kubectl, &["create", "--dry-run=server", "-f", "-"], &manifest.to_string())
}

fn try_with(kubectl: &Kubectl, words: &[&str], input: &str) -> anyhow::Result<Outcome> {
    let finished = command::finish(&mut kubectl.command(words), input.as_bytes())?;
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    Ok(Outcome { is_accepted: finished.status.success(), said })
}
