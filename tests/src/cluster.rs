//! A whole cluster: brought up, found again, taken down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::control_plane::{self, ControlPlane, Ports};
use crate::guest::{Boot, Guest};
use crate::kubectl::{Kubectl, wait_for};
use crate::layout::Layout;
use crate::node::{Joining, Kind, Node, Programs};
use crate::pki::Authority;
use crate::supervisor::Component;
use crate::tools::Tools;
use crate::{images, init, prerequisites, progress};

/// How long the control plane or a node may take to be ready.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a guest may take to answer, once it does.
const BOOT_LOOK: Duration = Duration::from_secs(1);

/// What is written down of a cluster, for later commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    ports: Ports,
    nodes: Vec<Node>,
    tools: PathBuf,
}

/// A running cluster. Dropping the value that brought it up ends it, unless it was detached.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    tools: Tools,
    description: Description,
    keeper: Option<Child>,
}

impl Cluster {
    /// Brings the cluster `name` up, with a node of each of these kinds that is registered with taints of these
    /// keys, and with the images in `archives` beside those of test pods; what is left of an earlier one that
    /// broke is removed first.
    ///
    /// # Errors
    /// The machine lacks something, a cluster of that name runs already, or a component does not get ready:
    /// the end of its log is in the error.
    pub fn up(name: &str, kinds: &[Kind], taints: &[&str], archives: &[PathBuf]) -> anyhow::Result<Self> {
        prerequisites::ensure()?;
        let tools = Tools::ensure()?;
        let archives = [&images::test_images()?, archives].concat();
        let boot = kinds.contains(&Kind::Guest).then(Boot::ensure).transpose()?;
        progress::step(&format!("Starting the cluster {name:?}"), || {
            let (cluster, authority) = Self::begin(name, tools, kinds)?;
            cluster.start_all(&authority, taints, &archives, boot.as_ref())?;
            Ok(cluster)
        })
    }

    /// Brings up etcd and this kube-apiserver, and nothing else: there are no nodes, no controllers, and no
    /// `ServiceAccounts` but those that somebody makes.
    ///
    /// # Errors
    /// As for [`Cluster::up`].
    pub fn of_api_server(name: &str, program: &Path) -> anyhow::Result<Self> {
        prerequisites::ensure()?;
        let tools = Tools::ensure()?;
        progress::step(&format!("Starting the API server {name:?}"), || {
            let (cluster, authority) = Self::begin(name, tools, &[])?;
            cluster
                .prepare(program, &authority)?
                .servers
                .iter()
                .try_for_each(|server| cluster.start(server))?;
            cluster.wait_for_the_api_server()?;
            Ok(cluster)
        })
    }

    /// Starts init, and describes what it is to run.
    fn begin(name: &str, tools: Tools, kinds: &[Kind]) -> anyhow::Result<(Self, Authority)> {
        let layout = Layout::new(name);
        layout.check()?;
        if init::cluster_lock(&layout)?.is_none() {
            bail!("a cluster called {name:?} runs already: `cargo xtask down {name}` ends it");
        }
        let keeper = Some(init::start(&layout)?);
        let authority = Authority::create(&layout.pki())?;
        let (ports, of_kubelets) = Ports::choose()?;
        let node = |(kind, ports): (&Kind, _)| Node { name: kind.node_name().to_owned(), kind: *kind, ports };
        let description = Description {
            ports,
            nodes: kinds.iter().zip(of_kubelets).map(node).collect(),
            tools: tools.directory().to_owned(),
        };
        fs::write(layout.description(), serde_json::to_vec_pretty(&description)?)
            .context("describing the cluster")?;
        Ok((Self { layout, tools, description, keeper }, authority))
    }

    /// The running cluster `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let layout = Layout::new(name);
        prerequisites::ensure_root()?;
        if !layout.state().exists() {
            bail!("no cluster called {name:?} runs; `cargo xtask up {name}` starts one");
        }
        if init::request(&layout, "status").is_err() {
            bail!(
                "the cluster {name:?} broke: `cargo xtask up {name}` replaces it, `cargo xtask down {name}` removes \
                 what is left of it"
            );
        }
        let text = fs::read(layout.description()).context("reading the cluster's description")?;
        let description: Description =
            serde_json::from_slice(&text).context("reading the cluster's description")?;
        Ok(Self { tools: Tools::at(&description.tools), layout, description, keeper: None })
    }

    /// Has the cluster go on when this process ends.
    ///
    /// # Errors
    /// Init does not answer.
    pub fn detach(mut self) -> anyhow::Result<()> {
        init::request(&self.layout, "detach")?;
        self.keeper = None;
        Ok(())
    }

    /// Ends the cluster and removes all it left.
    ///
    /// # Errors
    /// It does not end within two minutes, or something of it can't be removed.
    pub fn down(mut self) -> anyhow::Result<()> {
        self.end()
    }

    /// The cluster's paths.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The programs that the cluster consists of.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The cluster's nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.description.nodes
    }

    /// Where the API server is.
    #[must_use]
    pub fn server(&self) -> String {
        self.description.ports.server()
    }

    /// The API server's port on 127.0.0.1.
    #[must_use]
    pub fn api_port(&self) -> u16 {
        self.description.ports.api_server()
    }

    /// kubectl as the cluster's administrator.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.tools.program("kubectl"), &self.layout.admin_kubeconfig())
    }

    /// kubectl with a bearer token and nothing else.
    #[must_use]
    pub fn kubectl_with_token(&self, token: &str) -> Kubectl {
        self.kubectl().with_token(&self.server(), &self.layout.pki().join("ca.crt"), token)
    }

    /// The node that is a guest, for whatever is to be done in it.
    ///
    /// # Errors
    /// The cluster has none.
    pub fn guest(&self) -> anyhow::Result<Guest> {
        let mut guests = self.nodes().iter().filter_map(|node| node.guest(&self.layout));
        guests.next().map(|(guest, _)| guest).context("this cluster has no node that is a guest")
    }

    /// Ends a component, such as `kube-apiserver` or `kubelet-aavm`, as an administrator would.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&self, component: &str) -> anyhow::Result<()> {
        self.ask_supervisor_of(component, &format!("stop {component}"))
    }

    /// Starts a component again that was stopped; returns when the API server answers.
    ///
    /// # Errors
    /// It never ran, or the API server does not answer.
    pub fn resume(&self, component: &str) -> anyhow::Result<()> {
        self.ask_supervisor_of(component, &format!("resume {component}"))?;
        self.wait_for_the_api_server()
    }

    /// A node's components are its guest's if it is one, and all others are init's.
    fn ask_supervisor_of(&self, component: &str, order: &str) -> anyhow::Result<()> {
        let node = self.nodes().iter().find(|node| node.runs(component));
        match node.and_then(|node| node.guest(&self.layout)) {
            Some((guest, _)) => guest.request(order).map(drop),
            None => init::request(&self.layout, order).map(drop),
        }
    }

    /// What init, and the guest if there is one, say of the components, a line each.
    ///
    /// # Errors
    /// Init does not answer, or a guest that runs does not.
    pub fn components(&self) -> anyhow::Result<String> {
        self.components_with(self.nodes())
    }

    /// The same of these nodes' guests alone.
    fn components_with<'a>(&'a self, nodes: impl IntoIterator<Item = &'a Node>) -> anyhow::Result<String> {
        let mut components = init::request(&self.layout, "status")?;
        for (guest, machine) in nodes.into_iter().filter_map(|node| node.guest(&self.layout)) {
            // One that has ended is told by init.
            if components.contains(&format!("{machine} running")) {
                components += &guest.request("status")?;
            }
        }
        Ok(components)
    }

    /// Makes the image in a docker archive known to every node.
    ///
    /// # Errors
    /// A runtime refuses it.
    pub fn import(&self, archive: &Path) -> anyhow::Result<()> {
        self.nodes().iter().try_for_each(|node| node.import(&self.layout, &self.tools, archive))
    }

    fn start_all(
        &self,
        authority: &Authority,
        taints: &[&str],
        archives: &[PathBuf],
        boot: Option<&Boot>,
    ) -> anyhow::Result<()> {
        let (server, api_port) = (self.server(), self.api_port());
        let (layout, tools) = (&self.layout, &self.tools);
        let joining = Joining { layout, tools, authority, server: &server, api_port, taints, boot };
        let control_plane = self.prepare(&tools.program("kube-apiserver"), authority)?;
        let prepare = |node| Node::prepare(node, &joining).map(|programs| (node, programs));
        let nodes = self.nodes().iter().map(prepare).collect::<anyhow::Result<Vec<_>>>()?;
        // A guest takes the longest, and boots meanwhile.
        for node in self.nodes() {
            node.machine(&joining)?.iter().try_for_each(|machine| self.start(machine))?;
        }
        std::thread::scope(|scope| {
            let start = |(node, programs)| move || self.start_node(node, programs, archives);
            let starting: Vec<_> =
                nodes.iter().map(|(node, programs)| scope.spawn(start((*node, programs)))).collect();
            control_plane.servers.iter().try_for_each(|server| self.start(server))?;
            self.wait_for_the_api_server()?;
            control_plane.clients.iter().try_for_each(|client| self.start(client))?;
            starting
                .into_iter()
                .try_for_each(|node| node.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let kubectl = self.kubectl();
        self.wait(None, "the default ServiceAccount", || {
            Ok((!kubectl.get(&["serviceaccount", "default", "-n", "default"])?.is_null()).then_some(()))
        })
    }

    /// Says what the control plane runs, with `api_server` as the program of that name.
    fn prepare(&self, api_server: &Path, authority: &Authority) -> anyhow::Result<ControlPlane> {
        control_plane::prepare(&self.layout, &self.tools, api_server, &self.description.ports, authority)
    }

    /// Starts a node's programs, after its guest has booted if it is one, and gives it the images; returns when
    /// it is ready.
    fn start_node(&self, node: &Node, programs: &Programs, archives: &[PathBuf]) -> anyhow::Result<()> {
        let kubectl = self.kubectl();
        if let Some((guest, machine)) = node.guest(&self.layout) {
            let answers = || Ok(guest.request_within(BOOT_LOOK, "status").ok().map(drop));
            if let Err(error) = self.wait(None, &format!("the guest {} to boot", node.name), answers) {
                // Of one that has ended, the last words are told already.
                let runs = init::request(&self.layout, "status")?.contains(&format!("{machine} running"));
                let console = if runs { self.end_of_log(&machine, 20) } else { String::new() };
                bail!("{error:#}\n{console}");
            }
        }
        self.start(&programs.runtime)?;
        let [first, others @ ..] = archives else { bail!("there is no image") };
        let import = || Ok(node.import(&self.layout, &self.tools, first).ok());
        self.wait(Some(node), &format!("the container runtime of {}", node.name), import)?;
        self.wait_for_the_api_server()?;
        self.start(&programs.kubelet)?;
        // Both take their time in a guest, and there are no pods yet.
        others.iter().try_for_each(|archive| node.import(&self.layout, &self.tools, archive))?;
        let seen = || kubectl.get(&["node", &node.name]);
        self.wait(Some(node), &format!("the kubelet of {} to register", node.name), || {
            Ok((!seen()?.is_null()).then_some(()))
        })?;
        node.register(&kubectl)?;
        self.wait(Some(node), &format!("the node {} to be ready", node.name), || {
            Ok(is_ready(&seen()?).then_some(()))
        })
    }

    fn start(&self, component: &Component) -> anyhow::Result<()> {
        self.ask_supervisor_of(&component.name, &format!("start {}", serde_json::to_string(component)?))
    }

    fn wait_for_the_api_server(&self) -> anyhow::Result<()> {
        let kubectl = self.kubectl();
        self.wait(None, "the API server", || Ok(kubectl.run(&["get", "--raw=/readyz"]).ok().map(drop)))
    }

    /// Waits, but not for the whole time when a component of init, or one in `node`, has ended meanwhile.
    fn wait(
        &self,
        node: Option<&Node>,
        what: &str,
        mut look: impl FnMut() -> anyhow::Result<Option<()>>,
    ) -> anyhow::Result<()> {
        wait_for(what, PATIENCE, || {
            let ended = self.ended_among(&self.components_with(node)?);
            if !ended.is_empty() {
                bail!("{ended}");
            }
            look()
        })
        .with_context(|| format!("starting the cluster {:?}", self.layout.name()))
    }

    /// The components that have ended, and their last words; empty while all of them run.
    ///
    /// # Errors
    /// Init does not answer, or a guest that runs does not.
    pub fn ended(&self) -> anyhow::Result<String> {
        Ok(self.ended_among(&self.components()?))
    }

    fn ended_among(&self, components: &str) -> String {
        let ended = components.lines().filter_map(|line| line.split_once(" ended: "));
        let told = ended.map(|(name, status)| {
            format!("{name} ended with {status}; its last words:\n{}", self.end_of_log(name, 20))
        });
        told.collect::<Vec<_>>().join("\n")
    }

    /// The last lines of a component's log.
    fn end_of_log(&self, component: &str, lines: usize) -> String {
        let text = fs::read(self.layout.log(component)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last: Vec<String> =
            text.lines().rev().take(lines).map(|line| format!("    {line:.600}")).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn end(&mut self) -> anyhow::Result<()> {
        // Init ends at once, without an answer.
        let _ = init::request(&self.layout, "down");
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let status = keeper.wait().context("waiting for the cluster's keeper")?;
            if !status.success() {
                bail!("taking the cluster down: its keeper ended with {status}");
            }
        }
        wait_until_removed(&self.layout)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keeper.is_some()
            && let Err(error) = self.end()
        {
            eprintln!("{error:#}");
        }
    }
}

/// Ends the cluster `name`, or removes what is left of it.
///
/// # Errors
/// It does not end, or something of it can't be removed.
pub fn down(name: &str) -> anyhow::Result<()> {
    let layout = Layout::new(name);
    prerequisites::ensure_root()?;
    if !layout.state().exists() {
        bail!("there is no cluster called {name:?}");
    }
    // Init ends at once, without an answer; where there is none, only what a broken cluster left is to be
    // removed.
    let _ = init::request(&layout, "down");
    wait_until_removed(&layout)
}

/// Waits for the cluster's keeper to end, and removes what it may have left.
fn wait_until_removed(layout: &Layout) -> anyhow::Result<()> {
    wait_for("the cluster to end", PATIENCE, || init::cluster_lock(layout))?;
    init::remove_remains(layout)
}

fn is_ready(node: &serde_json::Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
