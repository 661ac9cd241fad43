//! Agents on nodes of which there is nothing but a Node object: the image's program, run by hand on this
//! machine, with directories of its own and the rights that the agent of that node would have.
//!
//! Invariant: an agent ends with the value that started it, or with the thread that did.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::Context as _;
use serde_json::json;

use crate::cluster::Cluster;
use crate::pavise::{self, SYSTEM};

/// A running agent.
#[derive(Debug)]
pub struct SimulatedAgent {
    child: Child,
    log: PathBuf,
}

/// The program of the agent that runs on the host's node, as a file that stays.
///
/// # Errors
/// No agent runs there, or its program can't be copied.
pub fn program(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let program = cluster.layout().node("simulated").directory().join("pavise");
    let running = format!("/proc/{}/exe", pavise::agent_process(cluster)?);
    fs::create_dir_all(program.parent().unwrap_or(Path::new("/")))
        .and_then(|()| fs::copy(&running, &program).map(drop))
        .context("taking the program out of the agent's container")?;
    Ok(program)
}

/// An agent that is to be started.
#[derive(Debug)]
pub struct Prepared {
    command: Command,
    log: PathBuf,
}

/// Prepares to start `program` as the agent of `node`, whose Node object has to exist, listening at `listen`.
///
/// The kernel's AppArmor is out of its reach: it is that of this machine.
///
/// # Errors
/// Its files can't be written, or the API server gives no token.
pub fn prepare(cluster: &Cluster, program: &Path, node: &str, listen: &str) -> anyhow::Result<Prepared> {
    let layout = cluster.layout().node(node);
    let (kubelet_root, state) = (layout.kubelet_root(), layout.directory().join("var/lib/pavise"));
    let nothing = layout.directory().join("nothing");
    for directory in [&kubelet_root, &state, &nothing] {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    let kubeconfig = layout.directory().join("kubeconfig");
    fs::write(&kubeconfig, kubeconfig_of_the_agent(cluster, node)?).context("writing a kubeconfig")?;
    // The kernel ends it when this thread ends, however that comes (setpriv(1)).
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(["agent", "--node-name", node]);
    command.arg("--kubelet-root").arg(&kubelet_root).arg("--state-dir").arg(&state);
    command.arg("--securityfs").arg(&nothing).args(["--proc", "/proc", "--listen", listen]);
    command.env_clear().env("KUBECONFIG", &kubeconfig);
    Ok(Prepared { command, log: layout.directory().join("agent.log") })
}

impl Prepared {
    /// Starts it.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(mut self) -> anyhow::Result<SimulatedAgent> {
        let output = File::create(&self.log).context("creating a log")?;
        self.command.stdin(File::open("/dev/null")?).stdout(output.try_clone()?).stderr(output);
        let child = self.command.spawn().context("starting setpriv")?;
        Ok(SimulatedAgent { child, log: self.log })
    }
}

impl SimulatedAgent {
    /// The number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for SimulatedAgent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A token of the agent's that is bound to `node`: the API server puts the Node's name into it, as into that of
/// a pod (KEP-4193). So what it allows is what the agent may do on a real node.
///
/// # Errors
/// The API server gives none.
pub fn token(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let create = ["create", "token", "pavise-agent", "-n", SYSTEM, "--duration=1h"];
    let bound = ["--bound-object-kind=Node", &format!("--bound-object-name={node}")];
    Ok(cluster.kubectl().run(&[&create[..], &bound].concat())?.trim().to_owned())
}

fn kubeconfig_of_the_agent(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let authority = cluster.layout().pki().join("ca.crt");
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": cluster.server(), "certificate-authority": authority}}],
        "users": [{"name": "u", "user": {"token": token(cluster, node)?}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    Ok(kubeconfig.to_string())
}
