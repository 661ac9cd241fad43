//! What each kind of node runs: containerd and a kubelet, and the way in which a Node is registered.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Joining, Node};
use crate::images::PAUSE;
use crate::kubectl::Kubectl;
use crate::supervisor::Component;

/// The taint of a Node that waits for its cloud provider.
const CLOUD_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// What differs between kinds of nodes.
pub(super) struct Setting<'a> {
    /// Where the kubelet listens, on the node.
    pub(super) address: &'a str,
    /// The cgroup below which pods run.
    pub(super) cgroup_root: String,
}

/// What to run on a node.
pub(crate) struct Programs {
    /// The container runtime: it has to work before the kubelet starts.
    pub(crate) runtime: Component,
    /// The kubelet.
    pub(crate) kubelet: Component,
}

pub(super) fn runtime_name(node: &Node) -> String {
    format!("containerd-{}", node.name)
}

pub(super) fn kubelet_name(node: &Node) -> String {
    format!("kubelet-{}", node.name)
}

/// Writes the keys and configurations, and says what to run.
pub(super) fn prepare(node: &Node, joining: &Joining<'_>, setting: &Setting<'_>) -> anyhow::Result<Programs> {
    let configuration = joining.layout.node(&node.name).configuration();
    let write = |file: &str, text: String| {
        let path = configuration.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&configuration))
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))
            .map(|()| path)
    };
    let networks = write("cni/10-testbed.conflist", format!("{:#}", pod_network()))?;
    let containerd = write(
        "containerd.toml",
        containerd_configuration(joining.tools.directory(), networks.parent().unwrap_or(Path::new("/"))),
    )?;
    let kubelet = write("kubelet.yaml", format!("{:#}", kubelet_configuration(node, joining, setting)?))?;
    // NodeRestriction and the Node authorizer know a kubelet by this name and group (kubernetes.io: Node
    // authorization).
    let identity = format!("system:node:{}", node.name);
    let kubeconfig = joining.authority.kubeconfig(
        &format!("kubelet-{}", node.name),
        joining.server,
        &identity,
        "system:nodes",
    )?;
    Ok(Programs {
        runtime: Component {
            name: runtime_name(node),
            program: joining.tools.program("containerd"),
            arguments: vec!["--config".to_owned(), containerd.display().to_string()],
        },
        kubelet: Component {
            name: kubelet_name(node),
            program: joining.tools.program("kubelet"),
            arguments: vec![
                format!("--config={}", kubelet.display()),
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--hostname-override={}", node.name),
                // A kubelet refuses a loopback address as its own, but takes one that a cloud provider set:
                // see `register`.
                "--cloud-provider=external".to_owned(),
            ],
        },
    })
}

/// Does what a cloud provider would: gives the Node its address, and takes away the taint that waits for it.
pub(super) fn register(node: &Node, kubectl: &Kubectl) -> anyhow::Result<()> {
    let addresses =
        json!([{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": node.name}]);
    let status = json!({"status": {"addresses": addresses}}).to_string();
    kubectl.run(&["patch", "node", &node.name, "--subresource=status", "--type=merge", "-p", &status])?;
    kubectl.run(&["taint", "node", &node.name, &format!("{CLOUD_TAINT}-")]).map(drop)
}

/// A pod gets an address and no network (`tests/tools/address-only`). The addresses are loopback's: what is
/// sent to one stays on this machine.
fn pod_network() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "testbed",
        "plugins": [{"type": "address-only", "ipam": {"type": "host-local", "ranges": [[{"subnet": "127.77.0.0/16"}]]}}],
    })
}

fn containerd_configuration(plugins: &Path, networks: &Path) -> String {
    format!(
        r#"version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
# runc dies where CAP_SYS_RESOURCE is missing and a pod asks for a lower score than containerd's own.
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{}"]
conf_dir = "{}"
"#,
        plugins.display(),
        networks.display()
    )
}

fn kubelet_configuration(node: &Node, joining: &Joining<'_>, setting: &Setting<'_>) -> anyhow::Result<Value> {
    let serving =
        joining.authority.server(&format!("kubelet-{}-serving", node.name), &[&node.name, "127.0.0.1"])?;
    let [port, health_port] = node.ports;
    let taint = |key: &&str| json!({"key": key, "effect": "NoSchedule"});
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "address": setting.address,
        "port": port,
        "healthzPort": health_port,
        "registerWithTaints": joining.taints.iter().map(taint).collect::<Value>(),
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        "authentication": {"x509": {"clientCAFile": joining.authority.certificate()}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": setting.cgroup_root,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        // The machine's packet filter is not the testbed's to change.
        "makeIPTablesUtilChains": false,
        // The machine's disk may be fuller than a kubelet likes.
        "evictionHard": {"memory.available": "50Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": false,
        // There is no cluster DNS: a pod that asks for a name is answered at once that there is nobody.
        "clusterDNS": ["127.0.0.1"],
        "volumePluginDir": "/var/lib/kubelet/plugins",
        // Tests wait for what the kubelet does: it is to look often.
        "syncFrequency": "5s",
        // Tests kill containers again and again: a kubelet would wait up to five minutes before the next.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
        "nodeStatusUpdateFrequency": "5s",
    }))
}
