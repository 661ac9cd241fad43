//! What an agent shows of itself.

use anyhow::ensure;
use testbed::HOST_NODE;
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise;
use testbed::pods::bundle;

use crate::Test;
use crate::said::number;
use crate::steps::{ALLOW, SOON, apply, wait_for_labels};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_agent_that_serves_its_node_is_ready", an_agent_that_serves_its_node_is_ready),
    ("a_refused_profile_is_counted_and_keeps_the_agent_ready", a_refused_profile_is_counted),
];

fn an_agent_that_serves_its_node_is_ready(cluster: &Cluster) -> anyhow::Result<()> {
    for (path, expected) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = pavise::ask_agent(cluster, HOST_NODE, path)?;
        ensure!(answer == expected, "{path} says {answer:?}");
    }
    Ok(())
}

fn a_refused_profile_is_counted(cluster: &Cluster) -> anyhow::Result<()> {
    let refused = || number(cluster, HOST_NODE, r#"pavise_problems{kind="seccomp",problem="refused"}"#);
    let written = || number(cluster, HOST_NODE, r#"pavise_installs_total{kind="seccomp",outcome="written"}"#);
    pavise::ask_agent(cluster, HOST_NODE, "/readyz")?;
    let before = (refused()?, written()?);
    apply(cluster, &bundle("counted", &[("good.json", ALLOW), ("bad.json", "{}")]))?;
    wait_for_labels(cluster, &["seccomp.pavise.dev/counted_good.json"])?;
    wait_for("the profiles to be counted", SOON, || {
        Ok((refused()? == before.0 + 1 && written()? > before.1).then_some(()))
    })?;
    ensure!(
        pavise::ask_agent(cluster, HOST_NODE, "/readyz")? == "ready\n",
        "a refused profile keeps the agent unready"
    );
    let watches = number(
        cluster,
        HOST_NODE,
        r#"pavise_api_requests_total{verb="watch",resource="configmaps",code="2xx"}"#,
    )?;
    ensure!(watches > 0, "no watch of bundles is counted");
    Ok(())
}
