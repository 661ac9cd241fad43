//! The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, on loopback.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::layout::Layout;
use crate::pavise::SYSTEM;
use crate::pki::Authority;
use crate::supervisor::Component;
use crate::tools::Tools;

/// The namespace whose pods are in the audit log.
pub const AUDITED: &str = "audited";

/// The ports of a cluster on 127.0.0.1, all free when it was described.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
    controller_manager: u16,
    scheduler: u16,
}

impl Ports {
    /// Finds free ports, and two for each of two nodes.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn choose() -> anyhow::Result<(Self, [[u16; 2]; 2])> {
        let [etcd, etcd_peer, api_server, controller_manager, scheduler, a, b, c, d] = free_ports()?;
        Ok((Self { etcd, etcd_peer, api_server, controller_manager, scheduler }, [[a, b], [c, d]]))
    }

    /// Where the API server is.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_server)
    }

    /// The API server's port.
    #[must_use]
    pub fn api_server(&self) -> u16 {
        self.api_server
    }
}

/// `N` different ports of 127.0.0.1 that nobody listens on.
///
/// # Errors
/// There are none.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    // All are held at once: a port that is let go may be given out again at once.
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// What a control plane consists of.
pub(crate) struct ControlPlane {
    /// etcd and the API server.
    pub(crate) servers: Vec<Component>,
    /// Controllers and scheduler: to be started when the API server is ready, as they end when it refuses
    /// them.
    pub(crate) clients: Vec<Component>,
}

/// Writes the keys and configurations, and says what to run. `api_server` is the program of that name.
///
/// # Errors
/// The files can't be written.
pub(crate) fn prepare(
    layout: &Layout,
    tools: &Tools,
    api_server: &Path,
    ports: &Ports,
    authority: &Authority,
) -> anyhow::Result<ControlPlane> {
    let server = ports.server();
    let kubeconfig = |file: &str, user: &str, group: &str| authority.kubeconfig(file, &server, user, group);
    kubeconfig("admin", "admin", "system:masters")?;
    let controller_manager = kubeconfig("controller-manager", "system:kube-controller-manager", "testbed")?;
    let scheduler = kubeconfig("scheduler", "system:kube-scheduler", "testbed")?;
    let (signing_key, verifying_key) = authority.signing_keys("service-accounts")?;
    fs::create_dir_all(layout.etcd()).context("creating etcd's directory")?;
    let component = |name: &str, program: PathBuf, arguments: Vec<String>| Component {
        name: name.to_owned(),
        program,
        arguments,
    };
    let of_api_server = self::api_server(layout, ports, authority, [&signing_key, &verifying_key])?;
    let servers = vec![
        component("etcd", tools.program("server"), etcd(layout, ports, authority)?),
        component("kube-apiserver", api_server.to_owned(), of_api_server),
    ];
    let controllers = [
        format!("--service-account-private-key-file={}", signing_key.display()),
        format!("--root-ca-file={}", authority.certificate().display()),
        "--use-service-account-credentials".to_owned(),
        "--controllers=*,-node-ipam-controller".to_owned(),
    ];
    let client = |name: &str, kubeconfig: &Path, port: u16, more: &[String]| {
        component(name, tools.program(name), [&api_client(layout, name, kubeconfig, port), more].concat())
    };
    let clients = vec![
        client("kube-controller-manager", &controller_manager, ports.controller_manager, &controllers),
        client("kube-scheduler", &scheduler, ports.scheduler, &[]),
    ];
    Ok(ControlPlane { servers, clients })
}

/// The arguments that all clients of the API server have.
fn api_client(layout: &Layout, name: &str, kubeconfig: &Path, port: u16) -> [String; 7] {
    let kubeconfig = kubeconfig.display();
    [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--cert-dir={}", layout.pki().join(name).display()),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ]
}

/// Who may talk to etcd may do everything, so it asks for certificates.
fn etcd(layout: &Layout, ports: &Ports, authority: &Authority) -> anyhow::Result<Vec<String>> {
    let (clients, peers) =
        (format!("https://127.0.0.1:{}", ports.etcd), format!("https://127.0.0.1:{}", ports.etcd_peer));
    let serving = authority.server("etcd", &["127.0.0.1"])?;
    let mut arguments = vec![
        format!("--data-dir={}", layout.etcd().display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // A test cluster's data need not survive a power cut.
        "--unsafe-no-fsync".to_owned(),
    ];
    for side in ["", "peer-"] {
        arguments.push(format!("--{side}cert-file={}", serving.certificate.display()));
        arguments.push(format!("--{side}key-file={}", serving.key.display()));
        arguments.push(format!("--{side}trusted-ca-file={}", authority.certificate().display()));
        arguments.push(format!("--{side}client-cert-auth=true"));
    }
    Ok(arguments)
}

fn api_server(
    layout: &Layout,
    ports: &Ports,
    authority: &Authority,
    token_keys: [&Path; 2],
) -> anyhow::Result<Vec<String>> {
    let [signing_key, verifying_key] = token_keys.map(Path::display);
    let serving =
        authority.server("apiserver", &["127.0.0.1", "10.96.0.1", "localhost", "kubernetes.default.svc"])?;
    let etcd_client = authority.client("apiserver-etcd-client", "kube-apiserver", "testbed")?;
    let kubelet_client =
        authority.client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")?;
    fs::write(layout.audit_policy(), format!("{:#}", audit_policy())).context("writing the audit policy")?;
    Ok(vec![
        format!("--etcd-servers=https://127.0.0.1:{}", ports.etcd),
        format!("--etcd-cafile={}", authority.certificate().display()),
        format!("--etcd-certfile={}", etcd_client.certificate.display()),
        format!("--etcd-keyfile={}", etcd_client.key.display()),
        format!("--secure-port={}", ports.api_server),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // The Service "kubernetes" has no endpoints here: loopback addresses are not allowed in them.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", layout.pki().display()),
        format!("--tls-cert-file={}", serving.certificate.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        format!("--client-ca-file={}", authority.certificate().display()),
        format!("--kubelet-certificate-authority={}", authority.certificate().display()),
        format!("--kubelet-client-certificate={}", kubelet_client.certificate.display()),
        format!("--kubelet-client-key={}", kubelet_client.key.display()),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={verifying_key}"),
        format!("--service-account-signing-key-file={signing_key}"),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--anonymous-auth=false".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", layout.audit_policy().display()),
        format!("--audit-log-path={}", layout.audit_log().display()),
    ])
}

/// Writes of Pavise are counted (`pavise::agent_writes`), and pods of the namespace [`AUDITED`] are noted with what
/// policies say of them. Nothing else is written down.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "Metadata",
                "userGroups": [format!("system:serviceaccounts:{SYSTEM}")],
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
            },
            {
                "level": "Metadata",
                "namespaces": [AUDITED],
                "verbs": ["create"],
                "resources": [{"group": "", "resources": ["pods"]}],
            },
            {"level": "None"},
        ],
    })
}
