//! An agent on a node of which there is nothing but its Node object: the image's program, run by hand on this
//! machine, with directories of its own and the rights that the agent of that node would have.
//!
//! Invariant: it ends with the value that started it, or with this process.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use testbed::cluster::Cluster;
use testbed::kubectl::retry;
use testbed::pavise::{self, SYSTEM};

use super::api::Api;
use super::process::Process;

/// The name of its node.
pub(super) const NODE: &str = "simulated";

/// How long the agent may take to be ready, and an answer of it to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent.
pub(super) struct SimulatedAgent {
    child: Child,
    process: Process,
    address: String,
    log: PathBuf,
}

impl SimulatedAgent {
    /// Makes the Node, and takes the place of the agent on the host's node, which would work beside this one.
    /// Returns when the agent is ready.
    ///
    /// The kernel's AppArmor is out of its reach: it is that of this machine.
    pub(super) fn start(cluster: &Cluster, api: &Api) -> anyhow::Result<Self> {
        let layout = cluster.layout().node(NODE);
        let (kubelet_root, state) = (layout.kubelet_root(), layout.directory().join("var/lib/pavise"));
        let nothing = layout.directory().join("nothing");
        for directory in [&kubelet_root, &state, &nothing] {
            fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        }
        let program = layout.directory().join("pavise");
        let running = format!("/proc/{}/exe", pavise::agent_process(cluster)?);
        fs::copy(&running, &program).context("taking the program out of the agent's container")?;
        let delete = ["delete", "daemonset", "pavise-agent", "-n", SYSTEM, "--cascade=foreground"];
        cluster.kubectl().run(&delete)?;

        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
        api.create_in("/api/v1/nodes", &node.to_string())?;
        let kubeconfig = layout.directory().join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of_the_agent(cluster)?).context("writing a kubeconfig")?;
        let address = {
            let listener = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
            listener.local_addr()?.to_string()
        };
        let log = layout.directory().join("agent.log");
        let output = File::create(&log).context("creating a log")?;
        // The kernel ends it when this process ends, however that comes (setpriv(1)).
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program).args(["agent", "--node-name", NODE]);
        command.arg("--kubelet-root").arg(&kubelet_root).arg("--state-dir").arg(&state);
        command.arg("--securityfs").arg(&nothing).args(["--proc", "/proc", "--listen", &address]);
        command.env_clear().env("KUBECONFIG", &kubeconfig);
        command.stdin(File::open("/dev/null")?).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("starting setpriv")?;
        let process = Process::new(child.id());
        let agent = Self { child, process, address, log };
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
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ask(&self, path: &str) -> anyhow::Result<String> {
        let request = ureq::get(format!("http://{}{path}", self.address));
        let request = request.config().timeout_global(Some(PATIENCE)).build();
        let mut answer = request.call().with_context(|| format!("asking the agent for {path}"))?;
        answer.body_mut().read_to_string().with_context(|| format!("reading {path}"))
    }
}

impl Drop for SimulatedAgent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The API server puts the Node's name into a token that is bound to the Node, as it does into that of a pod
/// (KEP-4193). So what the agent may do is what it may do on a real node.
fn kubeconfig_of_the_agent(cluster: &Cluster) -> anyhow::Result<String> {
    let create = ["create", "token", "pavise-agent", "-n", SYSTEM, "--duration=1h"];
    let bound = ["--bound-object-kind=Node", &format!("--bound-object-name={NODE}")];
    let token = cluster.kubectl().run(&[&create[..], &bound].concat())?;
    let authority = cluster.layout().pki().join("ca.crt");
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": cluster.server(), "certificate-authority": authority}}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    Ok(kubeconfig.to_string())
}
