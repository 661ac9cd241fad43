//! An agent on a node of which there is nothing but its Node object (`testbed::simulated`), and what is
//! measured of it.
//!
//! Invariant: it ends with the value that started it, or with this process.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use testbed::cluster::Cluster;
use testbed::kubectl::retry;
use testbed::pavise::SYSTEM;
use testbed::simulated;

use super::api::Api;
use super::process::Process;

/// The name of its node.
pub(super) const NODE: &str = "simulated";

/// How long the agent may take to be ready, and an answer of it to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent.
pub(super) struct SimulatedAgent {
    agent: simulated::SimulatedAgent,
    process: Process,
    address: String,
}

impl SimulatedAgent {
    /// Makes the Node, and takes the place of the agent on the host's node, which would work beside this one.
    /// Returns when the agent is ready.
    pub(super) fn start(cluster: &Cluster, api: &Api) -> anyhow::Result<Self> {
        let program = simulated::program(cluster)?;
        let delete = ["delete", "daemonset", "pavise-agent", "-n", SYSTEM, "--cascade=foreground"];
        cluster.kubectl().run(&delete)?;

        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
        api.create_in("/api/v1/nodes", &node.to_string())?;
        let address = {
            let listener = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
            listener.local_addr()?.to_string()
        };
        let agent = simulated::prepare(cluster, &program, NODE, &address)?.start()?;
        let agent = Self { process: Process::new(agent.id()), agent, address };
        if let Err(error) = retry("the simulated agent to be ready", PATIENCE, || agent.ask("/readyz")) {
            bail!("{error:#}\n{}", agent.log());
        }
        Ok(agent)
    }

    /// The agent, as the kernel sees it.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// The values of metrics; 0 of those that are not there.
    pub(super) fn numbers<const N: usize>(&self, metrics: [&str; N]) -> anyhow::Result<[u64; N]> {
        let text = self.ask("/metrics")?;
        let mut numbers = [0; N];
        for (number, metric) in numbers.iter_mut().zip(metrics) {
            let value = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
            *number = value.unwrap_or("0").parse().with_context(|| format!("reading {metric}"))?;
        }
        Ok(numbers)
    }

    /// What it has said.
    pub(super) fn log(&self) -> String {
        self.agent.log()
    }

    fn ask(&self, path: &str) -> anyhow::Result<String> {
        let request = ureq::get(format!("http://{}{path}", self.address));
        let request = request.config().timeout_global(Some(PATIENCE)).build();
        let mut answer = request.call().with_context(|| format!("asking the agent for {path}"))?;
        answer.body_mut().read_to_string().with_context(|| format!("reading {path}"))
    }
}
